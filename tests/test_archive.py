"""
Archives preserve everything, and cannot write outside the target.

This is tested by packing and unpacking, also with hostile archives.
"""

import io
import itertools
import logging
import os
import resource
import stat
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockertest._containers import archive
from dockertest.errors import EngineError

REG, DIR, SYM, LNK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Member = tuple[bytes, str, str]  # type, name, and the content of a file or the target of a link


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target that does not exist yet, next to a folder that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("untouched")
    return tmp_path / "target"


def tar(*members: Member, mode: int = 0o644) -> bytes:
    """Return an archive, made without any checks."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for kind, name, rest in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode | (0o111 if kind == DIR else 0)
            if "\0" in name:
                info.pax_headers = {"path": name}  # the older header would end the name at the NUL
            if kind in (SYM, LNK):
                info.linkname = rest
                writer.addfile(info)
            else:
                info.size = len(rest)
                writer.addfile(info, io.BytesIO(rest.encode()))
    return packed.getvalue()


def unpack(packed: bytes, target: Path, *, rebase: bool = True) -> list[str]:
    """Unpack *packed*, and return a message for each member that was refused."""
    return archive.unpack(archive.Archive(io.BytesIO(packed).read, "copy"), target, rebase=rebase)


def contents(folder: Path) -> dict[str, str]:
    """Return all files in a folder with their content, and links with their target."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}"
        if path.is_symlink()
        else path.read_text()
        if path.is_file()
        else "/"
        for path in sorted(folder.rglob("*"))
    }


def names(folder: Path) -> set[str]:
    """Return the names of the files and folders directly in a folder."""
    return {path.name for path in folder.iterdir()}


def resolved(path: Path) -> Path:
    """Return a path with its links followed; a link to itself is returned as it is."""
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def test_names_that_begin_with_a_slash_are_below_a_first_member_without_a_name(target: Path) -> None:
    """Podman's archive of a volume of a container that does not run has such names."""
    assert unpack(tar((DIR, "", ""), (REG, "/f", "x"), (LNK, "/h", "/f")), target) == []
    assert contents(target) == {"f": "x", "h": "x"}
    assert len(unpack(tar((DIR, "", ""), (REG, "//etc/f", "x"), (REG, "/../f", "x")), target)) == 2


@pytest.mark.parametrize(
    ("members", "refused"),
    [
        pytest.param([(REG, "/etc/passwd", "x")], ["absolute"], id="absolute name"),
        pytest.param([(REG, "//etc/passwd", "x")], ["absolute"], id="name of two slashes"),
        pytest.param([(REG, "../outside/secret", "x")], ["leads out"], id="name that goes up"),
        pytest.param(
            [(REG, "d/a/../../../outside/secret", "x")], ["leads out"], id="name that goes down and up"
        ),
        pytest.param([(REG, "d/..", "x")], ["leads out"], id="name that ends going up"),
        pytest.param([(DIR, "../outside/new", "")], ["leads out"], id="folder outside"),
        pytest.param([(REG, "other/x", "x")], ["not part of"], id="not part of the request"),
        pytest.param([(REG, "d/a\0b", "x")], ["invalid on this system"], id="NUL in a name"),
        pytest.param([(SYM, "d/l", "/etc/passwd")], ["may lead out"], id="absolute link"),
        pytest.param([(SYM, "d/l", "../outside")], ["may lead out"], id="link that goes up"),
        pytest.param([(SYM, "d/a/l", "../../outside")], ["may lead out"], id="link in a folder that goes up"),
        pytest.param([(SYM, "d/l", "x/../../outside")], ["may lead out"], id="link that goes down and up"),
        pytest.param([(SYM, "d/l", "./.././outside")], ["may lead out"], id="link with dots"),
        pytest.param([(SYM, "d/l", "")], ["may lead out"], id="empty link"),
        pytest.param([(SYM, "../outside/l", "x")], ["leads out"], id="link outside"),
        pytest.param([(SYM, "d", "outside")], ["may lead out"], id="link in place of the target"),
        pytest.param(
            [(SYM, "d/l", "../outside"), (REG, "d/l/secret", "x")],
            ["may lead out"],
            id="file behind an outgoing link",
        ),
        pytest.param(
            [(SYM, "d/a", "."), (SYM, "d/b", "a/../outside")],
            ["may lead out"],
            id="link by way of another link",
        ),
        pytest.param(
            [(SYM, "d/b", "x/y/../../outside"), (DIR, "d/x", ""), (SYM, "d/x/y", "..")],
            ["may lead out"],
            id="link by way of a link that comes later",
        ),
        pytest.param(
            [(DIR, "d/x/y", ""), (SYM, "d/x/y/up", "../.."), (SYM, "d/x/y/l", "up/../../outside")],
            ["may lead out"],
            id="deep link by way of another link",
        ),
        pytest.param([(SYM, "d/l", "x"), (REG, "d/l/f", "x")], ["'d/l': "], id="file behind a link"),
        pytest.param([(REG, "d/f", "x"), (REG, "d/f/g", "x")], ["is not a folder"], id="file behind a file"),
        pytest.param([(DIR, "d/f", ""), (REG, "d/f", "x")], ["is not a file"], id="file for a folder"),
        pytest.param([(REG, "d/f", "x"), (DIR, "d/f", "")], ["is not a folder"], id="folder for a file"),
        pytest.param([(DIR, "d/f", ""), (SYM, "d/f", "x")], ["is not a file"], id="link for a folder"),
        pytest.param([(LNK, "d/h", "/etc/passwd")], ["absolute"], id="hard link to an absolute name"),
        pytest.param([(LNK, "d/h", "d/../outside/secret")], ["leads out"], id="hard link that goes up"),
        pytest.param([(LNK, "d/h", "outside/secret")], ["not part of"], id="hard link to another member"),
        pytest.param([(LNK, "d/h", "d/missing")], ["which is not a file"], id="hard link to nothing"),
        pytest.param([(LNK, "d/h", "d")], ["which is not a file"], id="hard link to a folder"),
        pytest.param(
            [(SYM, "d/l", "x"), (LNK, "d/h", "d/l")], ["which is not a file"], id="hard link to a link"
        ),
        pytest.param([(b"Z", "d/z", "x")], ["unknown type"], id="unknown type"),
    ],
)
def test_members_outside_the_target_are_refused(
    target: Path, members: list[Member], refused: list[str]
) -> None:
    """
    The refusal has the name and the reason.

    Nothing outside changes, and the other members are written.
    """
    top: list[Member] = [(DIR, "d", ""), (REG, "d/good", "good")]
    if members == [(SYM, "d", "outside")]:
        top = []
    refusals = unpack(tar(*top, *members), target)
    assert len(refusals) == len(refused)
    assert all(reason in refusal for reason, refusal in zip(refused, refusals, strict=True))
    assert contents(target.parent / "outside") == {"secret": "untouched"}
    assert names(target.parent) <= {"outside", "target"}
    assert not top or (target / "good").read_text() == "good"
    for path in target.rglob("*"):
        assert resolved(path).is_relative_to(target)


def test_existing_links_in_the_target_are_never_followed(target: Path) -> None:
    """
    A link in the target is replaced or refused.

    An earlier copy or the user may have left it there.
    """
    target.mkdir()
    (target / "folder").symlink_to(target.parent / "outside")
    (target / "file").symlink_to(target.parent / "outside" / "secret")
    (target / "dangling").symlink_to(target.parent / "outside" / "new")
    members: list[Member] = [(DIR, "d", ""), (REG, "d/file", "f"), (REG, "d/dangling", "g")]
    (target / "kept").symlink_to(target.parent / "outside" / "secret")
    members += [(REG, "d/folder/secret", "x"), (LNK, "d/hard", "d/folder/secret"), (DIR, "d/folder", "")]
    members += [(LNK, "d/other", "d/kept")]
    refusals = unpack(tar(*members), target)
    assert [refusal.split(":")[0] for refusal in refusals] == [
        "'d/folder/secret'",
        "'d/hard'",
        "'d/folder'",
        "'d/other'",
    ]
    assert contents(target.parent / "outside") == {"secret": "untouched"}
    assert (target / "file").read_text() == "f"
    assert not (target / "file").is_symlink()


def test_a_link_as_target_is_not_followed(target: Path) -> None:
    """A folder is refused there, and a file replaces the link."""
    target.symlink_to(target.parent / "outside")
    assert "is not a folder" in unpack(tar((DIR, "d", "")), target)[0]
    assert unpack(tar((REG, "f", "x")), target) == []
    assert contents(target.parent / "outside") == {"secret": "untouched"}
    assert target.read_text() == "x"


def test_an_existing_pipe_or_device_is_not_replaced(target: Path) -> None:
    """Copying to /dev/null must not remove it."""
    os.mkfifo(target)
    assert "is not a file" in unpack(tar((REG, "f", "x")), target)[0]
    assert stat.S_ISFIFO(target.lstat().st_mode)


def test_a_file_with_hard_links_is_replaced_not_overwritten(target: Path) -> None:
    """Writing into it would change the file under its other names too."""
    target.mkdir()
    (target / "f").hardlink_to(target.parent / "outside" / "secret")
    assert unpack(tar((DIR, "d", ""), (REG, "d/f", "x")), target) == []
    assert contents(target.parent / "outside") == {"secret": "untouched"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_skipped(target: Path, caplog: pytest.LogCaptureFixture, kind: bytes) -> None:
    """This is logged, but is not an error."""
    with caplog.at_level(logging.WARNING, "dockertest"):
        assert unpack(tar((DIR, "d", ""), (kind, "d/odd", "")), target) == []
    assert "'d/odd' is a device or pipe and was not copied" in caplog.text
    assert contents(target) == {}


def test_modes_are_preserved_except_dangerous_bits(target: Path) -> None:
    """
    Set-uid, set-gid and sticky bits are dropped.

    Files are written into read-only folders too.
    """
    assert unpack(tar((DIR, "d", ""), (REG, "d/f", "x"), (DIR, "d/e", ""), mode=0o7444), target) == []
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (target, target / "f", target / "e")}
    assert modes == {"target": 0o555, "f": 0o444, "e": 0o555}
    target.chmod(0o755)


def test_links_within_the_target_are_preserved(target: Path) -> None:
    """They may lead up and down, to earlier members, to later ones, and to nothing."""
    members: list[Member] = [
        (DIR, "d", ""),
        (SYM, "d/first", "later"),
        (DIR, "d/a", ""),
        (DIR, "d/a/b", ""),
        (SYM, "d/a/b/up", "../../later"),
        (SYM, "d/a/b/top", "../.."),
        (SYM, "d/folder", "./a/b"),
        (SYM, "d/dangling", "nothing"),
        (REG, "d/later", "x"),
        (LNK, "d/hard", "d/later"),
        (LNK, "d/later", "d/later"),
    ]
    assert unpack(tar(*members), target) == []
    assert (target / "first").read_text() == (target / "a/b/up").read_text() == "x"
    assert (target / "a/b/top").resolve() == target
    assert (target / "folder").resolve() == target / "a" / "b"
    assert (target / "dangling").readlink() == Path("nothing")
    assert (target / "hard").samefile(target / "later")


def test_a_hard_link_becomes_a_copy_if_not_supported(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every file system supports hard links."""
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    assert unpack(tar((DIR, "d", ""), (REG, "d/f", "x"), (LNK, "d/h", "d/f")), target) == []
    assert contents(target) == {"f": "x", "h": "x"}
    assert not (target / "h").samefile(target / "f")


@pytest.mark.parametrize("first", ["./a", "a"])
def test_without_rebase_all_members_are_inside_the_target(target: Path, first: str) -> None:
    """The archive of "/" has no member for the folder itself."""
    assert (
        unpack(tar((DIR, first, ""), (REG, f"{first}/f", "x"), (REG, "g", "y")), target, rebase=False) == []
    )
    assert contents(target) == {"a": "/", "a/f": "x", "g": "y"}


@pytest.mark.parametrize(
    "name",
    [
        "a\\b",
        "..\\x",
        "C:",
        "C:x",
        "file:stream",
        "a/NUL",
        "con.txt",
        "COM1",
        "a ",
        "a.",
        "a\x01",
        'a"',
        "a*",
    ],
)
def test_names_with_a_special_meaning_on_windows_are_refused_there(name: str) -> None:
    """Backslashes, drives, streams and devices are ordinary names elsewhere."""
    with pytest.raises(EngineError, match="invalid on this system"):
        archive.checked_name(name, windows=True)
    with pytest.raises(EngineError, match="invalid on this system"):
        archive.checked_link(name, 0, windows=True)
    assert archive.checked_name(name, windows=False) == tuple(name.split("/"))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"garbage" * 1000, id="garbage"),
        pytest.param(tar((DIR, "d", ""), (REG, "d/f", "x" * 5000))[:2000], id="within a file"),
        pytest.param(tar((DIR, "d", ""), (REG, "d/f", "x"))[: 3 * 512], id="after a file"),
        pytest.param(tar((DIR, "d", ""), (REG, "d/f", "x"))[: 2 * 512 - 100], id="within a header"),
        pytest.param(
            tar((DIR, "d", ""))[:512] + b'{"message":"no space left on device"}', id="with a message"
        ),
    ],
)
def test_a_broken_archive_is_an_error(target: Path, broken: bytes) -> None:
    """A truncated archive is never accepted as complete."""
    with pytest.raises(EngineError, match="cannot copy: "):
        unpack(broken, target)


@pytest.mark.parametrize("length", [0, 300, 700, 2000, 6000, 7000, 8000])
def test_the_error_of_a_truncated_archive_has_a_hint(target: Path, length: int) -> None:
    """Docker ends the archive in the middle if a file becomes shorter meanwhile."""
    whole = tar((DIR, "d", ""), (REG, "d/f", "x" * 5000), (REG, "d/g", "y" * 1000))
    with pytest.raises(
        EngineError, match="cannot copy: the engine sent a truncated archive; a file may"
    ) as error:
        unpack(whole[:length], target)
    assert "pause the container" in error.value.hint
    assert "ReadError" not in str(error.value)


@pytest.mark.parametrize("length", [1000, 5800, 7000])
def test_reading_a_truncated_archive_is_the_same_error(length: int) -> None:
    """The content of a file that was read so far is not returned."""
    whole = io.BytesIO(tar((REG, "f", "x" * 5000), (REG, "g", "y" * 1000))[:length])
    damaged = archive.Archive(whole.read, "read")
    with pytest.raises(EngineError, match="cannot read: the engine sent a truncated archive; a file may"):
        [block for member in damaged.members() for block in damaged.blocks(member)]


def sparse(kind: str) -> bytes:
    """Return an archive with a file of one terabyte, of which five bytes are in it."""
    info = tarfile.TarInfo("d/sparse")
    if kind == "GNU":
        info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[386:410] = b"%011o\0%011o\0" % (0, 5)
        header[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        body = bytes(header) + b"data\n".ljust(512, b"\0")
    else:
        info.size = 5
        info.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.size": str(1 << 40),
            "GNU.sparse.map": "0,5",
        }
        body = info.tobuf(tarfile.PAX_FORMAT) + b"data\n".ljust(512, b"\0")
    return tar((DIR, "d", ""))[:512] + body + tar((REG, "d/good", "good"))


@pytest.mark.parametrize("kind", ["GNU", "PAX"])
def test_sparse_files_are_refused(target: Path, kind: str) -> None:
    """A few bytes could fill the disk. Engines never send sparse files."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))  # so that a failure does not fill the disk
    try:
        (refusal,) = unpack(sparse(kind), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert refusal == "'d/sparse': it is a sparse file, whose size the archive does not limit"
    assert contents(target) == {"good": "good"}


@pytest.mark.parametrize("kind", ["GNU", "PAX"])
def test_sparse_files_are_not_read(kind: str) -> None:
    """A few bytes could fill the memory."""
    packed = archive.Archive(io.BytesIO(sparse(kind)).read, "read '/d'")
    members = packed.members()
    next(members)
    with pytest.raises(EngineError, match="cannot read '/d': 'd/sparse' is a sparse file"):
        next(packed.blocks(next(members)))


def test_names_are_written_in_the_encoding_of_the_file_system(tmp_path: Path) -> None:
    """Names in archives are UTF-8; with the locale C, Python writes files in ASCII."""
    packed = tar(
        (DIR, "d", ""), (REG, "d/\xe9", "accent"), (SYM, "d/link", "\xe9"), (LNK, "d/hard", "d/\xe9")
    )
    (tmp_path / "archive.tar").write_bytes(packed)
    script = """
        import sys
        from pathlib import Path
        from dockertest._containers import archive
        assert sys.getfilesystemencoding() == "ascii"
        with open("archive.tar", "rb") as file:
            refusals = archive.unpack(archive.Archive(file.read, "copy"), Path("target"))
        assert refusals == [], refusals
        packed = b"".join(archive.pack(archive.tree(Path("target"), "d")))
        Path("again.tar").write_bytes(packed)
    """
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, **ascii_locale},
        check=True,
    )
    assert contents(tmp_path / "target") == {"\xe9": "accent", "link": "-> \xe9", "hard": "accent"}
    with tarfile.open(tmp_path / "again.tar") as again:
        assert set(again.getnames()) == {"d", "d/\xe9", "d/link", "d/hard"}


PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "outside", "secret", "target", "d", "/", "a/b", "\\", "é", "\udcff"]
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from([REG, DIR, SYM, SYM, SYM, LNK, b"Z", tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])


@given(st.lists(st.tuples(KINDS, NAMES, NAMES), max_size=8), st.booleans())
@settings(deadline=None, max_examples=40)
def test_no_archive_writes_outside_the_target(members: list[Member], rebase: bool) -> None:
    """Nothing outside changes, and no link in the target leads out."""
    with tempfile.TemporaryDirectory() as name:
        target = Path(name).resolve() / "target"
        (target.parent / "outside").mkdir()
        (target.parent / "outside" / "secret").write_text("untouched")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", errors="surrogateescape", encoding="utf-8") as writer:
            for kind, member, rest in members:
                info = tarfile.TarInfo(member)
                info.type, info.linkname, info.mode = kind, rest, 0o755
                writer.addfile(info)
        unpack(packed.getvalue(), target, rebase=rebase)
        unpack(packed.getvalue(), target, rebase=rebase)  # over the result of the first time
        assert names(target.parent) <= {"outside", "target"}
        assert contents(target.parent / "outside") == {"secret": "untouched"}
        for path in target.rglob("*"):
            assert resolved(path).is_relative_to(target)


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=20), st.integers(0, 8000))
@settings(deadline=None, max_examples=40)
def test_a_damaged_archive_raises_nothing_but_engine_errors(
    changes: list[tuple[int, int]], length: int
) -> None:
    """Even with changed or missing bytes, nothing is written outside the target."""
    packed = bytearray(tar((DIR, "d", ""), (REG, "d/é", "x" * 600), (SYM, "d/l", "a"), (LNK, "d/h", "d/é")))
    for place, value in changes:
        packed[place % len(packed)] = value
    with tempfile.TemporaryDirectory() as name:
        with suppress(EngineError):
            unpack(bytes(packed[:length]), Path(name) / "target")
        assert names(Path(name)) <= {"target"}


def pack(source: Path, name: str = "d") -> bytes:
    """Pack a local file or folder."""
    return b"".join(archive.pack(archive.tree(source, f"/{name}")))


@pytest.fixture
def deep_folder(tmp_path: Path) -> Iterator[Path]:
    """
    A folder of 1,100 levels with a file in the last one.

    It is deeper than Python's limit of recursion.
    """
    path = tmp_path / "deep"
    path.mkdir()
    for _ in range(1100):  # `parents=True` is recursive, and so is the removal below in older Pythons
        path /= "d"
        path.mkdir()
    (path / "file").write_text("deep")
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", *(str(child) for child in tmp_path.iterdir())], check=True)


def test_a_deep_folder_is_packed_and_unpacked(deep_folder: Path, target: Path) -> None:
    """Its depth is limited only by the file system."""
    assert unpack(pack(deep_folder), target) == []
    assert target.joinpath(*["d"] * 1100, "file").read_text() == "deep"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, folders, and links that stay inside or lead out."""
    folder = tmp_path / "folder"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "program").write_text("#!/bin/sh\n")
    (folder / "sub" / "program").chmod(0o750)
    (folder / "link").symlink_to("sub/program")
    (folder / "out").symlink_to("/etc")
    (folder / "way out").symlink_to(tmp_path / "outside")
    (folder / "sub").chmod(0o711)
    return folder


def test_packing_and_unpacking_preserve_a_folder(folder: Path, target: Path) -> None:
    """
    This includes modes, links and empty folders.

    Links that lead out are packed, but refused when unpacked.
    """
    refusals = unpack(pack(folder), target)
    assert [refusal.split(":")[0] for refusal in refusals] == ["'d/out'", "'d/way out'"]
    assert contents(target) == {
        "sub": "/",
        "sub/empty": "/",
        "sub/program": "#!/bin/sh\n",
        "link": "-> sub/program",
    }
    assert stat.S_IMODE((target / "sub/program").stat().st_mode) == 0o750
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o711


def test_no_block_of_an_archive_is_empty(tmp_path: Path) -> None:
    """
    An empty block would end a chunked request.

    Versions of requests before 2.29 send it as it is.
    """
    (tmp_path / "full").write_bytes(bytes(tarfile.BLOCKSIZE))
    (tmp_path / "empty").touch()
    entries: list[tuple[str, bytes | Path]] = [
        ("a", b""),
        ("b", bytes(512)),
        ("c", tmp_path / "full"),
        ("d", tmp_path / "empty"),
    ]
    assert all(archive.pack(entries))


def test_links_in_a_folder_are_packed_as_links(folder: Path, target: Path) -> None:
    """Their targets are not packed."""
    with tarfile.open(fileobj=io.BytesIO(pack(folder))) as packed:
        links = {member.name: member.linkname for member in packed if member.issym()}
        assert links == {
            "d/link": "sub/program",
            "d/out": "/etc",
            "d/way out": str(target.parent / "outside"),
        }
        assert not any("secret" in name or "passwd" in name for name in packed.getnames())


def test_everything_packed_is_owned_by_root(folder: Path) -> None:
    """No id or name of a local user is sent to a container."""
    with tarfile.open(fileobj=io.BytesIO(pack(folder))) as packed:
        assert {(member.uid, member.gid, member.uname, member.gname) for member in packed} == {(0, 0, "", "")}


def test_owners_can_be_changed_and_everything_else_is_kept() -> None:
    """
    Long names and modification times are kept.

    They are in a record of their own, and so are ids that are too large for a header.
    """
    given, expected = io.BytesIO(), []
    with tarfile.open(fileobj=given, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for kind, name, content in (
            (DIR, "d", ""),
            (REG, "d/" + "n" * 300, "x" * 700),
            (SYM, "d/l", ""),
            (REG, "é\udcff", ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mtime, info.mode = kind, 5_000_033, 70, 1.5, 0o4751
            info.linkname, info.size = "n" * 200 if kind == SYM else "", len(content)
            info.pax_headers = {"SCHILY.xattr.user.k": "v"}
            writer.addfile(info, io.BytesIO(content.encode()))
            expected.append((kind, name, 33, 71, 1.5, 0o4751, info.linkname, "v", content))
    given.seek(0)
    changed = archive.with_owners(
        archive.Archive(given.read, "copy"), lambda user, group: (user - 5_000_000, group + 1)
    )
    with tarfile.open(fileobj=io.BytesIO(b"".join(changed))) as reader:
        found = [
            (
                *(one.type, one.name, one.uid, one.gid, one.mtime, one.mode, one.linkname),
                one.pax_headers["SCHILY.xattr.user.k"],
                file.read().decode() if one.isreg() and (file := reader.extractfile(one)) else "",
            )
            for one in reader
        ]
    assert found == expected


def test_pipes_are_not_packed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are skipped, and logged."""
    os.mkfifo(folder / "pipe")
    with (
        caplog.at_level(logging.WARNING, "dockertest"),
        tarfile.open(fileobj=io.BytesIO(pack(folder))) as packed,
    ):
        assert "d/pipe" not in packed.getnames()
    assert "pipe is a device, pipe or socket and was not copied" in caplog.text


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    """The header, which has been sent by then, contains its size."""
    (tmp_path / "f").write_bytes(bytes(1000))
    blocks = archive.pack([("f", tmp_path / "f")])
    next(blocks)
    os.truncate(tmp_path / "f", 0)
    with pytest.raises(OSError, match="became shorter while it was copied"):
        list(blocks)


def test_a_file_that_becomes_longer_is_packed_with_its_first_size(tmp_path: Path, target: Path) -> None:
    """A log file that grows meanwhile does not break the archive."""
    (tmp_path / "f").write_text("begin")
    blocks = archive.pack([("f", tmp_path / "f"), ("g", b"next")])
    head = next(blocks)
    (tmp_path / "f").write_text("begin and more")
    unpack(head + b"".join(blocks), target, rebase=False)
    assert contents(target) == {"f": "begin", "g": "next"}


def test_bytes_are_packed_with_the_given_mode(target: Path) -> None:
    """`write_file` has a keyword for it."""
    assert unpack(b"".join(archive.pack([("/f", b"x" * 1_000_000)], 0o640)), target) == []
    assert (target.stat().st_size, stat.S_IMODE(target.stat().st_mode)) == (1_000_000, 0o640)


@given(
    st.dictionaries(
        st.text("aé\udcff ~'.-", min_size=1, max_size=60).filter(lambda n: n not in (".", "..")), st.binary()
    )
)
@settings(deadline=None)
def test_any_names_and_contents_are_preserved(files: dict[str, bytes]) -> None:
    """Names may be long, and need not be UTF-8."""
    entries: list[tuple[str, bytes | Path]] = [(f"/{name}", content) for name, content in files.items()]
    with tempfile.TemporaryDirectory() as name:
        assert unpack(b"".join(archive.pack(entries)), Path(name) / "t", rebase=False) == []
        assert {path.name: path.read_bytes() for path in Path(name).glob("t/*")} == files


def test_memory_does_not_grow_with_the_number_of_members() -> None:
    """Members are released once they have been read."""
    rest = archive.pack((f"/{number}", b"") for number in range(800))
    stream = archive.Archive(lambda size: b"".join(itertools.islice(rest, size // 512)), "copy")
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream.members()) == 800
        assert tracemalloc.get_traced_memory()[1] < 1 << 19
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_size_of_files(target: Path) -> None:
    """A large file is read and written in pieces."""
    size = 64 << 20
    target.parent.joinpath("large").touch()
    os.truncate(target.parent / "large", size)

    def pieces() -> Iterator[bytes]:
        yield from archive.pack([("/large", target.parent / "large")])

    rest, left = pieces(), b""

    def read(length: int) -> bytes:
        nonlocal left
        while len(left) < length and (more := next(rest, b"")):
            left += more
        block, left = left[:length], left[length:]
        return block

    tracemalloc.start()
    try:
        assert archive.unpack(archive.Archive(read, "copy"), target) == []
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert target.stat().st_size == size
