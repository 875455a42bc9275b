"""Copying files into and out of containers, some of them hostile."""

import gc
import logging
import os
import socket
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import docker
import pytest

import dockertest
from tests.engines.fault_proxy import Fault, FaultProxy

from .conftest import Engine

SLEEP = ("sleep", "600")


@pytest.fixture(scope="module")
def box(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A container to copy from and to."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        yield resource


@pytest.fixture
def base(box: dockertest.Resource, name: str) -> str:
    """A folder in the container that nothing else uses."""
    path = f"/tests/{name}"
    sh(box, f"mkdir -p {path}")
    return path


def sh(resource: dockertest.Resource, script: str) -> str:
    """
    Run a shell script in the container, and return its output.

    The script starts with `umask 022`, because Docker 29 runs it with umask 0.
    """
    return resource.exec(["sh", "-c", f"umask 022; {script}"], check=True).stdout


def listing(folder: Path) -> dict[str, str]:
    """Return the mode and content of files, the mode of folders and link targets."""

    def shown(path: Path) -> str:
        if path.is_symlink():
            return f"-> {path.readlink()}"
        mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
        return f"{mode} {path.read_text()}" if path.is_file() else f"{mode} /"

    return {str(path.relative_to(folder)): shown(path) for path in sorted(folder.rglob("*"))}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A local folder with everything that a copy preserves."""
    folder = tmp_path / "tree"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "program").write_text("#!/bin/sh\n")
    (folder / "sub" / "program").chmod(0o750)
    (folder / "sub").chmod(0o711)
    (folder / "sub" / "empty").chmod(0o700)
    (folder / "link").symlink_to("sub/program")
    (folder / "é").write_text("x" * 1000)
    (folder / "é").chmod(0o604)
    folder.chmod(0o755)
    return folder


LISTED = {
    "link": "-> sub/program",
    "sub": "711 /",
    "sub/empty": "700 /",
    "sub/program": "750 #!/bin/sh\n",
    "é": "604 " + "x" * 1000,
}


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", "text, even é\n", b"x" * 1_000_001])
def test_a_written_file_is_read_back(box: dockertest.Resource, base: str, data: bytes | str) -> None:
    """Every byte is the same, and missing folders are created."""
    box.write_file(f"{base}/new/deep/file", data)
    assert box.read_file(f"{base}/new/deep/file") == (data.encode() if isinstance(data, str) else data)
    owners = sh(box, f"stat -c '%a %u:%g' {base}/new {base}/new/deep {base}/new/deep/file")
    assert owners.splitlines() == ["755 0:0", "755 0:0", "644 0:0"]


def test_files_after_one_that_needs_no_padding(pool: dockertest.Pool) -> None:
    """
    Files after one that exactly fills its blocks of 512 bytes are not lost.

    requests before 2.29 lost all of them.
    """
    with pool.run("busybox:1.35", cmd=SLEEP, files={"/a": bytes(512), "/b": b"second"}) as resource:
        assert resource.read_file("/b") == b"second"


def test_writing_replaces_a_file(box: dockertest.Resource, base: str) -> None:
    """
    Content and mode are new.

    A program that has opened the old file still reads the old content.
    """
    box.write_file(f"{base}/f", "old and longer")
    sh(box, f"chown 5:6 {base}/f; ln {base}/f {base}/other")
    box.write_file(f"{base}/f", "new", mode=0o4750)
    assert sh(box, f"stat -c '%a %u:%g' {base}/f; cat {base}/f {base}/other") == "4750 0:0\nnewold and longer"


def test_links_are_followed_within_the_container(box: dockertest.Resource, base: str) -> None:
    """
    Reading and writing follow absolute, relative, nested and dangling links.

    Both reach the same file.
    """
    sh(
        box,
        f"cd {base}; echo here > real; ln -s {base}/real a; ln -s a b; mkdir d; ln -s d e; ln -s ./new dangling",
    )
    assert box.read_file(f"{base}/b") == box.read_file(f"{base}/d/../a") == b"here\n"
    box.write_file(f"{base}/b", "there")
    box.write_file(f"{base}/e/f", "in d")
    assert sh(box, f"cd {base}; cat real d/f; echo; find -type l -exec readlink {{}} \\; | sort").split() == [
        *("therein", "d", "./new", f"{base}/real", "a", "d")
    ]
    box.write_file(f"{base}/dangling", "made")
    assert sh(box, f"cd {base}; cat new; readlink dangling") == "made./new\n"


def test_read_errors_have_the_reason(box: dockertest.Resource, base: str) -> None:
    """A missing file is an error with status 404; folders and pipes cannot be read."""
    sh(box, f"cd {base}; mkfifo pipe; ln -s nothing dangling; ln -s loop loop; echo > file")
    for missing in ("nothing", "dangling", "a/b"):
        with pytest.raises(
            dockertest.EngineError, match=f"cannot read '{base}/{missing}' of container '"
        ) as caught:
            box.read_file(f"{base}/{missing}")
        assert caught.value.status == 404
    with pytest.raises(dockertest.EngineError, match="it is a folder, not a file"):
        box.read_file(base)
    with pytest.raises(dockertest.EngineError, match="it is a device, pipe or socket, not a file"):
        box.read_file(f"{base}/pipe")
    with pytest.raises(dockertest.EngineError, match="too many"):
        box.read_file(f"{base}/loop")
    with pytest.raises(dockertest.InvalidOptionError, match="invalid path 'etc/passwd'"):
        box.read_file("etc/passwd")


def test_write_errors_have_the_reason(box: dockertest.Resource, base: str, tree: Path) -> None:
    """A folder is never replaced by a file, nor a file by a folder."""
    sh(box, f"cd {base}; mkdir -p d/kept; echo kept > file")
    for folder in ("d", "d/", "new/"):
        with pytest.raises(dockertest.EngineError, match=f"cannot write '{base}/{folder}' .*it is a folder"):
            box.write_file(f"{base}/{folder}", "")
    with pytest.raises(
        dockertest.EngineError, match=f"cannot write '{base}/file/x' of container .*not a directory"
    ):
        box.write_file(f"{base}/file/x", "")
    with pytest.raises(dockertest.EngineError, match=r"cannot copy .*tree' to '"):
        box.copy_in(tree, f"{base}/file")
    (tree.parent / "kept").write_text("a file")
    with pytest.raises(dockertest.EngineError, match=r"cannot copy .*kept' to '"):
        box.copy_in(tree.parent / "kept", f"{base}/d")
    assert sh(box, f"cd {base}; cat file; ls d") == "kept\nkept\n"
    with pytest.raises(dockertest.InvalidOptionError, match="invalid mode 7777777"):
        box.write_file(f"{base}/f", "", mode=7777777)
    with pytest.raises(
        dockertest.InvalidOptionError, match="data must be bytes or text: got a value of type int"
    ):
        box.write_file(f"{base}/f", 5)  # type: ignore[arg-type]


def test_a_folder_survives_a_round_trip(box: dockertest.Resource, base: str, tree: Path) -> None:
    """
    Contents, modes, links and empty folders are preserved.

    In the container, root owns them.
    """
    box.copy_in(tree, f"{base}/copy")
    assert set(sh(box, f"find {base}/copy -exec stat -c %u:%g {{}} +").split()) == {"0:0"}
    box.copy_out(f"{base}/copy", tree.parent / "back")
    assert listing(tree.parent / "back") == listing(tree) == LISTED


def test_copy_in_names_the_copy_like_cp(box: dockertest.Resource, base: str, tree: Path) -> None:
    """
    A copy goes into an existing folder or a path with a slash.

    Otherwise the path is its name. `/.` copies contents.
    """
    file = tree / "é"
    sh(box, f"cd {base}; mkdir -m 1777 d; ln -s d l; echo kept > d/kept")
    box.copy_in(file, f"{base}/d")
    box.copy_in(file, f"{base}/d/named")
    box.copy_in(file, f"{base}/new/")
    box.copy_in(file, f"{base}/l")
    box.copy_in(tree, f"{base}/l")
    box.copy_in(tree, f"{base}/fresh")
    box.copy_in(f"{tree}/", f"{base}/slash/")
    box.copy_in(f"{tree}/.", f"{base}/d")
    box.copy_in(f"{tree}/.", f"{base}/contents")
    there = sh(
        box, f"cd {base}; cd d; echo *; cd ..; echo new/é l/tree/s* fresh/s* slash/tree/s* contents/s*"
    )
    assert there.split() == [
        *("kept", "link", "named", "sub", "tree", "é"),
        *("new/é", "l/tree/sub", "fresh/sub", "slash/tree/sub", "contents/sub"),
    ]
    assert sh(box, f"stat -c %a {base}/d {base}/contents {base}") == "1777\n755\n755\n"


def test_copy_out_names_the_copy_like_cp(box: dockertest.Resource, base: str, tmp_path: Path) -> None:
    """The rules are those of `copy_in`."""
    sh(box, f"cd {base}; mkdir -p d/sub; echo x > d/f; ln -s d l; ln -s d/f lf")
    (tmp_path / "there").mkdir(mode=0o700)
    (tmp_path / "there" / "kept").touch()
    (tmp_path / "link").symlink_to("there")
    box.copy_out(f"{base}/d/f", tmp_path / "there")
    box.copy_out(f"{base}/d/f", tmp_path / "there" / "named")
    box.copy_out(f"{base}/d/f", f"{tmp_path}/new/")
    box.copy_out(f"{base}/lf", tmp_path / "link")
    box.copy_out(f"{base}/d", tmp_path / "there")
    box.copy_out(f"{base}/l", tmp_path / "link")
    box.copy_out(f"{base}/d", tmp_path / "deep" / "fresh")
    box.copy_out(f"{base}/d/.", tmp_path / "there")
    box.copy_out(f"{base}/d/.", tmp_path / "contents")
    there = {"d", "d/f", "d/sub", "f", "kept", "l", "l/f", "l/sub", "lf", "named", "sub"}
    assert set(listing(tmp_path)) - {"link"} == {
        *("there", "new", "new/f", "contents", "contents/f", "contents/sub"),
        *("deep", "deep/fresh", "deep/fresh/f", "deep/fresh/sub"),
        *(f"there/{name}" for name in there),
    }
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o700


def test_copying_again_updates_the_copy(box: dockertest.Resource, base: str, tree: Path) -> None:
    """
    Changed files and links are replaced in both directions.

    Other files at the destination stay.
    """
    back = tree.parent / "back"
    for content in ("one", "a second one"):
        (tree / "é").write_text(content)
        box.copy_in(f"{tree}/.", f"{base}/copy")
        box.copy_out(f"{base}/copy/.", back)
        (back / "mine").touch()
    assert (back / "é").read_text() == "a second one"
    assert {**listing(tree), "mine": f"{stat.S_IMODE((back / 'mine').stat().st_mode):o} "} == listing(back)


def test_the_root_folder_can_be_copied(pool: dockertest.Pool, tmp_path: Path) -> None:
    """All other files are copied, and the error lists those that were rejected."""
    with pool.run("busybox:1.35", cmd=SLEEP, files={"/only/here": "x"}) as box:
        sh(box, "ln -s /bin/sh /a")
        with pytest.raises(
            dockertest.EngineError, match="a': its link may lead out of the target: '/bin/sh'"
        ):
            box.copy_out("/", tmp_path)
    assert (tmp_path / "only" / "here").read_text() == "x"


def test_copy_in_never_follows_a_link_out_of_the_folder(
    box: dockertest.Resource, base: str, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Links are copied as links, and pipes are skipped with a log message.

    Only a link named by the user is followed.
    """
    (tree.parent / "secret").write_text("secret")
    (tree / "sub" / "out").symlink_to("../../secret")
    (tree / "etc").symlink_to("/etc")
    os.mkfifo(tree / "pipe")
    (tree.parent / "named").symlink_to(tree)
    with caplog.at_level(logging.WARNING, "dockertest"):
        box.copy_in(tree.parent / "named", f"{base}/")
    assert "pipe is a device, pipe or socket and was not copied" in caplog.text
    assert sh(box, f"cd {base}/named; readlink etc; readlink sub/out; readlink link; echo *").split() == [
        *("/etc", "../../secret", "sub/program"),
        *("etc", "link", "sub", "é"),
    ]
    with pytest.raises(dockertest.InvalidOptionError, match="is neither a file nor a folder"):
        box.copy_in(tree / "pipe", base)
    with pytest.raises(FileNotFoundError):
        box.copy_in(tree / "missing", base)


def test_a_hostile_container_cannot_write_outside_of_the_destination(
    box: dockertest.Resource, base: str, tmp_path: Path
) -> None:
    """
    Links that lead outside are reported by name, and the rest is copied.

    Set-uid bits are dropped.
    """
    (tmp_path / "victim").write_text("untouched")
    sh(
        box,
        f"""cd {base}; mkdir -p d/sub/deep; cd d; echo good > sub/deep/good; chmod 6755 sub/deep/good; chmod 1777 sub
        ln sub/deep/good hard; ln -s sub/deep/good fine; ln -s ../sub sub/around
        ln -s /etc/passwd abs; ln -s ../victim up; ln -s {tmp_path}/victim local; ln -s sub/../../victim updown
        ln -s . here; ln -s here/../victim chained; ln -s ../../../../../../../../tmp sub/far; mkfifo pipe""",
    )
    (tmp_path / "dst" / "sub").mkdir(parents=True)
    (tmp_path / "dst" / "sub" / "deep").symlink_to(tmp_path)  # left by an earlier attack
    with pytest.raises(
        dockertest.EngineError, match=r"completely: these were refused, the rest is in .*dst\n"
    ) as caught:
        box.copy_out(f"{base}/d/.", tmp_path / "dst")
    refused = {line.split("'")[1].partition("/")[2] for line in str(caught.value).splitlines()[1:]}
    through = {"sub/deep", "sub/deep/good", "hard"}
    assert refused - through == {"abs", "up", "local", "updown", "chained", "sub/far"}
    assert refused & through
    (tmp_path / "dst" / "sub" / "deep").unlink()
    with pytest.raises(dockertest.EngineError):
        box.copy_out(f"{base}/d/.", tmp_path / "dst")
    good = "755 good\n"
    assert listing(tmp_path / "dst") == {
        "fine": "-> sub/deep/good",
        "hard": good,
        "here": "-> .",
        "sub": "755 /",
        "sub/around": "-> ../sub",
        "sub/deep": "755 /",
        "sub/deep/good": good,
    }
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "dst"}
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_local_error_is_not_reported_as_an_engine_error(
    box: dockertest.Resource, base: str, tmp_path: Path
) -> None:
    """An unreadable or unwritable local file raises Python's `OSError`."""
    lying = Path("/sys/class/net/lo/mtu")  # its reported size is 4096 bytes
    if lying.exists():
        (tmp_path / "before").write_text("x")
        (tmp_path / "lying").symlink_to(lying)
        with pytest.raises(OSError, match="became shorter while it was copied"):
            box.copy_in(tmp_path / "lying", base)
    box.write_file(f"{base}/f", "x")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        box.copy_out(f"{base}/f", tmp_path / "file" / "below")
    assert box.read_file(f"{base}/f") == b"x"


def test_large_files_are_copied_in_constant_memory(
    box: dockertest.Resource, base: str, tmp_path: Path
) -> None:
    """Copying 200 MB in and out needs less than 8 MB."""
    size = 200 << 20
    with (tmp_path / "large").open("wb") as large:
        large.truncate(size)
        for place in range(0, size, 10 << 20):
            large.seek(place)
            large.write(b"%d" % place)
    tracemalloc.start()
    try:
        box.copy_in(tmp_path / "large", f"{base}/large")
        box.copy_out(f"{base}/large", tmp_path / "back")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    with (tmp_path / "large").open("rb") as large, (tmp_path / "back").open("rb") as back:
        while block := large.read(1 << 20):
            assert back.read(1 << 20) == block
        assert not back.read(1)
    sh(box, f"rm {base}/large")


def test_files_of_an_exited_container_can_be_copied(pool: dockertest.Pool, tmp_path: Path) -> None:
    """The results of a command are available after its end."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "mkdir /out; echo done > /out/result"]) as box:
        box.wait(timeout=30)
        assert box.read_file("/out/result") == b"done\n"
        box.copy_out("/out", tmp_path)
        box.write_file("/out/more", "x")
        assert box.read_file("/out/more") == b"x"
    assert (tmp_path / "out" / "result").read_text() == "done\n"


def test_files_of_a_closed_container_cannot_be_copied(pool: dockertest.Pool, tmp_path: Path) -> None:
    """Every method raises the same error."""
    box = pool.run("busybox:1.35", cmd=SLEEP)
    box.close()
    for use in (
        lambda: box.read_file("/f"),
        lambda: box.write_file("/f", ""),
        lambda: box.copy_in(tmp_path, "/f"),
        lambda: box.copy_out("/f", tmp_path),
    ):
        with pytest.raises(dockertest.ResourceClosedError):
            use()


def test_files_exist_when_the_command_starts(pool: dockertest.Pool, tree: Path) -> None:
    """
    Bytes, text, local files and folders are copied.

    Existing folders keep their modes, and links stay links.
    """
    files: dict[str, bytes | str | Path] = {
        "/etc/app/app.conf": "a = é\n",
        "/opt/deep/er/data": b"\0\1",
        "/bin/program": tree / "sub" / "program",
        "/tmp/tree": tree,
        "/new/tree": tree,
        "/empty": "",
    }
    script = """cat /etc/app/app.conf; stat -c '%a %u:%g %n' /etc/app /etc/app/app.conf /bin/program /tmp /opt/deep/er
    readlink /tmp/tree/link; stat -c '%a %s' /new/tree/sub/empty /empty /opt/deep/er/data"""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "stat -c '%a' /tmp; sleep 600"]) as box:
        mode = sh(box, "stat -c %a /tmp 2>/dev/null || echo 755").strip()
    with pool.run("busybox:1.35", cmd=["sh", "-c", script], files=files) as box:
        assert box.wait(timeout=30) == 0
        lines = box.logs().splitlines()
    assert lines[:7] == [
        "a = é",
        "755 0:0 /etc/app",
        "644 0:0 /etc/app/app.conf",
        "750 0:0 /bin/program",
        f"{mode} 0:0 /tmp",
        "755 0:0 /opt/deep/er",
        "sub/program",
    ]
    assert lines[7].startswith("700 ")
    assert lines[8:] == ["644 0", "644 2"]


def test_a_folder_in_files_is_merged_into_an_existing_one(pool: dockertest.Pool, tree: Path) -> None:
    """Existing files and the folder's mode stay."""
    tree.chmod(0o700)
    with pool.run("busybox:1.35", cmd=SLEEP, files={"/bin": tree, "/fresh": tree}) as box:
        assert sh(box, "ls -d /bin/sh /bin/sub /fresh/sub; stat -c %a /bin /fresh").split() == [
            *("/bin/sh", "/bin/sub", "/fresh/sub"),
            *("755", "700"),
        ]


BROKER = """
RUN mkdir -p /etc/broker/own /app /data && chown 999:998 /etc/broker && chmod 2770 /etc/broker && ln -s /data /app/data
VOLUME /data
"""


@pytest.fixture
def broker(pool: dockertest.Pool, tmp_path: Path) -> dockertest.BuildOptions:
    """An image with a folder of another user than root, and a link to a volume."""
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\n{BROKER}")
    return dockertest.BuildOptions(folder, remove_image=True)


def test_existing_folders_below_a_folder_in_files_keep_their_owners(
    pool: dockertest.Pool, name: str, tmp_path: Path, broker: dockertest.BuildOptions
) -> None:
    """A server that runs as another user than root can still write to them."""
    for folder in ("broker/own", "broker/new/deep"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
        (tmp_path / "etc" / folder / "f").write_text(folder)
    (tmp_path / "etc" / "broker" / "new").chmod(0o750)
    (tmp_path / "etc" / "broker" / "new" / "deep").chmod(0o711)
    options = dockertest.RunOptions(name=name, cmd=SLEEP, files={"/etc": tmp_path / "etc"})
    with pool.build_and_run_with_build_options(broker, options) as box:
        assert sh(box, "cd /etc/broker; stat -c '%a %u:%g' . own new new/deep; cat own/f new/deep/f") == (
            "2770 999:998\n755 0:0\n750 0:0\n711 0:0\nbroker/ownbroker/new/deep"
        )


def test_files_in_a_volume_behind_a_link_of_a_read_only_container(
    pool: dockertest.Pool, name: str, tmp_path: Path, broker: dockertest.BuildOptions
) -> None:
    """The engine would refuse the path of the link, although the volume is writable."""
    (tmp_path / "f").write_text("copied")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("placed")
    files: dict[str, str | Path] = {"/app/data/text": "text", "/app/data/tree": tmp_path / "tree"}
    options = dockertest.RunOptions(name=name, cmd=SLEEP, read_only=True, files=files)
    with pool.build_and_run_with_build_options(broker, options) as box:
        box.write_file("/app/data/new/f", "written")
        box.copy_in(tmp_path / "f", "/app/data")
        assert sh(box, "cd /data; cat text tree/f new/f f") == "textplacedwrittencopied"
        assert box.read_file("/app/data/new/f") == b"written"
        with pytest.raises(dockertest.EngineError, match="read-only"):
            box.write_file("/app/f", "x")


@pytest.mark.parametrize(
    "place", ["a used volume", "a new volume", "an image's volume", "a folder of the host"]
)
def test_files_in_a_mount(
    pool: dockertest.Pool, engine: Engine, name: str, tmp_path: Path, place: str
) -> None:
    """What is there already stays, and other files are placed as well."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {pool.image_prefix}busybox:1.35\nRUN mkdir /data && printf 1 > /data/a\n"
        + ("VOLUME /data\n" if "image" in place else "")
    )
    pool.build_and_run(name, tmp_path / "Dockerfile").close()
    folder = f"/var/tmp/{name}"
    source = folder if "host" in place else name
    mounts = [] if "image" in place else [f"{source}:/data"]
    try:
        if "host" in place:
            with pool.run("busybox:1.35", cmd=SLEEP, mounts=["/var/tmp:/host"]) as helper:
                sh(helper, f"mkdir /host/{name}; printf 1 > /host/{name}/a")
        if "used" in place:
            with pool.run(name, cmd=["true"], mounts=mounts) as first:
                first.wait(60)
        files = {"/data/deep/b": "2", "/etc/c": "3"}
        with pool.run(name, cmd=SLEEP, mounts=mounts, files=files) as resource:
            assert sh(resource, "cat /data/a /data/deep/b /etc/c") == "123"
    finally:
        if "host" in place:
            with pool.run("busybox:1.35", cmd=SLEEP, mounts=["/var/tmp:/host"]) as helper:
                sh(helper, f"rm -r /host/{name}")
        with suppress(docker.errors.NotFound):
            engine.client.volumes.get(name).remove()
        engine.client.images.remove(f"{name}:latest")


def test_invalid_files_leave_no_container(pool: dockertest.Pool, name: str, tmp_path: Path) -> None:
    """The container is removed again."""
    with pytest.raises(dockertest.ContainerStartError, match=f"cannot put files into container '{name}'"):
        pool.run("busybox:1.35", name=name, cmd=SLEEP, files={"/bin/sh/x": "x"})
    assert pool.client.api.containers(all=True, filters={"name": name}) == []
    (tmp_path / "f").touch()
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", name=name, cmd=SLEEP, files={"/f": tmp_path / "f"}
    )
    (tmp_path / "f").unlink()
    with pytest.raises(FileNotFoundError):
        pool.run_with_options(options)
    assert pool.client.api.containers(all=True, filters={"name": name}) == []


@pytest.mark.parametrize("path", ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"])
def test_files_that_the_engine_mounts_itself_are_rejected(box: dockertest.Resource, path: str) -> None:
    """The engine would hide them below its own mounts."""
    assert f" {path} " in sh(box, "cat /proc/mounts")
    with pytest.raises(dockertest.InvalidOptionError, match=f"{path}' is replaced by the engine"):
        dockertest.RunOptions(repository="busybox:1.35", files={path: "lost"})


def test_paths_on_a_tmpfs_are_rejected(pool: dockertest.Pool, name: str, tmp_path: Path) -> None:
    """The tmpfs would hide the file. A volume that is mounted inside a tmpfs works."""
    mounts = [f"{name}:/scratch/kept"]
    try:
        with pool.run("busybox:1.35", cmd=SLEEP, tmpfs=["/scratch"], mounts=mounts) as box:
            sh(box, "echo x > /scratch/f; ln -s /scratch/f /link")
            for path in ("/scratch/f", "/scratch", "/link", "/dev/shm/f"):
                for use in (
                    lambda path=path: box.read_file(path),
                    lambda path=path: box.write_file(path, ""),
                    lambda path=path: box.copy_in(tmp_path, path),
                    lambda path=path: box.copy_out(path, tmp_path),
                ):
                    with pytest.raises(dockertest.InvalidOptionError, match="kept in memory"):
                        use()
            box.write_file("/scratch/kept/f", "x")
            assert sh(box, "cat /scratch/kept/f") == "x"
    finally:
        pool.client.volumes.get(name).remove()


def test_paths_through_a_link_into_a_tmpfs_are_rejected(
    pool: dockertest.Pool, engine: Engine, tmp_path: Path
) -> None:
    """
    Any folder of the path may be the link, and the tmpfs may be behind one too.

    A volume that is mounted inside the tmpfs works. Podman does not report a tmpfs behind a link, and copies into it.
    """
    (tmp_path / "local").write_text("local")

    def uses(box: dockertest.Resource, path: str) -> list[Callable[[], object]]:
        return [
            lambda: box.read_file(path),
            lambda: box.write_file(path, ""),
            lambda: box.copy_in(tmp_path / "local", path),
            lambda: box.copy_in(tmp_path, f"{path}/"),
            lambda: box.copy_out(path, tmp_path),
        ]

    for tmpfs in ["/run", *([] if engine.is_podman else ["/var/run"])]:  # a link to /run
        options = dockertest.RunOptions(repository="redis", tag="7.0", cmd=SLEEP, tmpfs=[tmpfs])
        with pool.run_with_options(options) as box:
            sh(box, "mkdir /run/sub; echo x > /run/f; ln -s /var/run/sub /link")
            for path in ("/var/run/f", "/run/f", "/var/run/sub/f", "/link/f", "/link/new/f"):
                for use in uses(box, path):
                    with pytest.raises(dockertest.InvalidOptionError, match="kept in memory"):
                        use()
            box.write_file("/var/lib/f", "x")
            assert box.read_file("/var/lib/f") == b"x"
    with pool.create_volume() as volume:
        options = dockertest.RunOptions(
            repository="redis", tag="7.0", cmd=SLEEP, tmpfs=["/run"], mounts=[(volume, "/run/kept")]
        )
        with pool.run_with_options(options) as box:
            box.write_file("/var/run/kept/sub/f", "x")
            assert sh(box, "cat /run/kept/sub/f") == "x"


def test_files_through_a_link_into_a_tmpfs_are_rejected(pool: dockertest.Pool, tmp_path: Path) -> None:
    """`files` would be lost without an error."""
    (tmp_path / "local").write_text("local")
    contents: list[bytes | Path | dockertest.File] = [
        b"x",
        tmp_path,
        tmp_path / "local",
        dockertest.File(b"x"),
    ]
    for content in contents:
        for tmpfs, path in (("/run", "/var/run/f"), ("/run", "/var/run/sub/f"), ("/var/run", "/run/f")):
            options = dockertest.RunOptions(
                repository="redis", tag="7.0", cmd=SLEEP, tmpfs=[tmpfs], files={path: content}
            )
            with pytest.raises(dockertest.InvalidOptionError, match="kept in memory"):
                pool.run_with_options(options)
    with pool.create_volume() as volume:
        options = dockertest.RunOptions(
            repository="redis",
            tag="7.0",
            cmd=SLEEP,
            read_only=True,
            tmpfs=["/run"],
            mounts=[(volume, "/run/kept")],
            files={"/var/run/kept/f": "x", "/var/run/kept/h": tmp_path},
        )
        with pool.run_with_options(options) as box:
            assert sh(box, "cd /run/kept; cat f h/local") == "xlocal"


def test_a_copy_with_parts_on_a_tmpfs_is_rejected(pool: dockertest.Pool, tmp_path: Path) -> None:
    """`files` and `copy_in` reject it, because the tmpfs would hide a subfolder."""
    (tmp_path / "run").mkdir()
    (tmp_path / "kept").write_text("x")
    with pool.run("busybox:1.35", cmd=SLEEP, tmpfs=["/app/run"], files={"/app": tmp_path}) as box:
        box.copy_in(f"{tmp_path}/.", "/app")  # nothing is lost with an empty folder
        assert box.read_file("/app/kept") == b"x"
        (tmp_path / "run" / "lost").write_text("x")
        with pytest.raises(dockertest.InvalidOptionError, match="/run' to '/app/run': it is kept in memory"):
            box.copy_in(f"{tmp_path}/.", "/app")
        (tmp_path / "link").symlink_to("run")
        box.copy_in(tmp_path / "link", "/elsewhere")
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", cmd=SLEEP, tmpfs=["/app/run"], files={"/app": tmp_path}
    )
    with pytest.raises(dockertest.InvalidOptionError, match="leave it out of the copy"):
        pool.run_with_options(options)


def test_a_read_only_container_reports_the_error_of_the_engine(
    pool: dockertest.Pool, name: str, tmp_path: Path
) -> None:
    """A volume of a read-only container is writable, unless it is read-only itself."""
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", cmd=SLEEP, mounts=[f"{name}:/data", "/etc:/ro:ro"]
    )
    try:
        with pool.run_with_options(
            options, lambda host_config: host_config.update(ReadonlyRootfs=True)
        ) as box:
            for path in ("/f", "/ro/f"):
                with pytest.raises(
                    dockertest.EngineError, match=f"cannot write '{path}' of container .*read-only"
                ):
                    box.write_file(path, b"x" * (20 << 20))
            box.write_file("/data/new/f", "x")
            (tmp_path / "f").write_text("outside")
            box.copy_in(tmp_path / "f", "/data")
            assert box.read_file("/data/new/f") + box.read_file("/data/f") == b"xoutside"
    finally:
        pool.client.volumes.get(name).remove()


def test_names_that_are_not_utf_8_are_preserved(box: dockertest.Resource, base: str, tmp_path: Path) -> None:
    """File names are bytes, and may be long."""
    odd = os.fsdecode(b"n\xffm")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / odd).write_text("odd")
    (tmp_path / "src" / ("long" * 60)).write_text("long")
    (tmp_path / "src" / "back\\slash").write_text("back")
    box.copy_in(tmp_path / "src", f"{base}/odd")
    box.copy_out(f"{base}/odd", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(tmp_path / "src")


def test_a_deep_folder_is_copied(box: dockertest.Resource, base: str, tmp_path: Path) -> None:
    """It may be deeper than Python's recursion limit."""
    path = tmp_path / "deep"
    path.mkdir()
    # `parents=True` is recursive, and so is pytest's removal in older versions of Python.
    for _ in range(1100):
        path /= "d"
        path.mkdir()
    (path / "file").write_text("deep")
    try:
        box.copy_in(tmp_path / "deep", f"{base}/deep")
        box.copy_out(f"{base}/deep", tmp_path / "back")
        assert (tmp_path / "back" / path.relative_to(tmp_path / "deep") / "file").read_text() == "deep"
    finally:
        subprocess.run(["rm", "-rf", *(str(child) for child in tmp_path.iterdir())], check=True)


def test_copy_out_works_with_an_ascii_file_system(
    box: dockertest.Resource, base: str, tmp_path: Path
) -> None:
    """With the locale C, Python encodes file names in ASCII."""
    sh(box, f"mkdir {base}/d; echo accent > {base}/d/é; ln -s é {base}/d/link; echo top > {base}/à")
    script = f"""
        import sys
        from pathlib import Path
        import dockertest
        assert sys.getfilesystemencoding() == "ascii"
        with dockertest.Pool() as pool:
            box = pool.container_by_name({box.name!r})
            box.copy_out("{base}/d", "copy")
            box.copy_out("{base}/\\xe0", ".")
            box.copy_in("copy", "{base}/again")
    """
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, **ascii_locale},
        check=True,
    )
    assert set(listing(tmp_path)) == {"copy", "copy/é", "copy/link", "à"}
    assert sh(box, f"cat {base}/again/é {base}/again/link") == "accent\naccent\n"


def truncate_after(after: int, *, silent: bool) -> Fault:
    """
    Return a fault that sends only *after* bytes of the response.

    The connection then stalls if *silent* is true, and is closed otherwise.
    """

    def fault(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
        with forward() as upstream:
            client.sendall(upstream.recv(after, socket.MSG_WAITALL) if after else b"")
            while silent and client.recv(65536):
                pass  # until the client gives up

    return fault


@pytest.mark.parametrize("after", [0, 5000, 1_000_000])
@pytest.mark.parametrize(
    ("silent", "words", "timeout"),
    [
        (False, "truncated|closed the connection|broke off", 60),
        (True, "the engine did not answer within 5 s", 5),
    ],
)
def test_a_truncated_transfer_is_an_error(
    pool: dockertest.Pool,
    box: dockertest.Resource,
    base: str,
    tmp_path: Path,
    after: int,
    silent: bool,
    words: str,
    timeout: float,
) -> None:
    """The engine closes the connection in the middle of an archive, or stops sending."""
    box.write_file(f"{base}/large", b"x" * (5 << 20))
    assert pool.endpoint
    proxy = FaultProxy(tmp_path / "engine.sock")
    with proxy.running(), dockertest.Pool(proxy.endpoint, timeout=timeout) as through:
        same = through.container_by_name(box.name)
        assert same
        for _ in range(2):
            proxy.next("^GET .*/archive", truncate_after(after, silent=silent))
        proxy.next("^PUT .*/archive", truncate_after(0, silent=silent))
        uses: list[Callable[[], object]] = [
            lambda: same.read_file(f"{base}/large"),
            lambda: same.copy_out(f"{base}/.", tmp_path / "dst"),
            lambda: same.write_file(f"{base}/f", b"x" * (5 << 20)),
        ]
        # They run concurrently, so the test waits for only one timeout.
        with ThreadPoolExecutor() as threads:
            ends = [threads.submit(use) for use in uses]
        for end in ends:
            with pytest.raises(dockertest.EngineError, match=words):
                end.result()
        same.copy_out(f"{base}/.", tmp_path / "dst")
    assert (tmp_path / "dst" / "large").stat().st_size == 5 << 20


def test_no_connection_is_left_open(
    box: dockertest.Resource, base: str, recwarn: pytest.WarningsRecorder
) -> None:
    """
    Complete and interrupted transfers both close their connection.

    The next request works.
    """
    for number in range(5):
        box.write_file(f"{base}/f", str(number))
        assert box.read_file(f"{base}/f") == str(number).encode()
        for refused in ("/bin", f"{base}/f/g"):
            with pytest.raises(dockertest.EngineError):
                box.read_file(refused)
        with pytest.raises(
            dockertest.EngineError, match=r"(?i)not a directory"
        ):  # also over TLS and with a large body
            box.write_file(f"{base}/f/g", b"x" * (20 << 20))
    gc.collect()
    assert [str(warning.message) for warning in recwarn if warning.category is ResourceWarning] == []


def test_a_mount_behind_a_link(pool: dockertest.Pool) -> None:
    """
    If the engine then refuses all copies, the hint suggests the real path.

    Some engines do so (moby/moby#52653).
    """
    with (
        pool.create_volume() as volume,
        pool.run("redis:7.0", mounts=[(volume, "/var/run/data")]) as redis,  # /var/run is a link to /run
    ):
        content, hint = b"", ""
        try:
            content = redis.read_file("/etc/passwd")
        except dockertest.EngineError as error:
            hint = error.hint
        assert content.startswith(b"root:") or "mount it at the real path, such as /run/" in hint
