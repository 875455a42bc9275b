"""Archives: what is packed comes out the same, and what is unpacked stays in its target, whoever made it."""

import io
import itertools
import logging
import os
import stat
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockertest._containers import archive as _archive
from dockertest.errors import EngineError

REG, DIR, SYM, LNK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Member = tuple[bytes, str, str]  # type, name, and the data of a file or the end of a link


@pytest.fixture(params=["filters", "no filters"])
def tarfile_of_any_age(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's `tarfile` as it is, and as it was before it had filters."""
    if request.param == "no filters":
        for name in ("data_filter", "tar_filter", "fully_trusted_filter"):
            monkeypatch.delattr(tarfile, name, raising=False)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target that is not there yet, beside a folder that nothing may be written into."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("untouched")
    return tmp_path / "target"


def tar(*members: Member, mode: int = 0o644) -> bytes:
    """Make an archive, without any of the checks that one who makes them in earnest has."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for kind, name, rest in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode | (0o111 if kind == DIR else 0)
            if "\0" in name:
                info.pax_headers = {"path": name}  # the other header would end the name there
            if kind in (SYM, LNK):
                info.linkname = rest
                archive.addfile(info)
            else:
                info.size = len(rest)
                archive.addfile(info, io.BytesIO(rest.encode()))
    return made.getvalue()


def unpack(packed: bytes, target: Path, *, rebase: bool = True) -> list[str]:
    """Unpack *packed*, and give what was refused."""
    return _archive.unpack(_archive.Archive(io.BytesIO(packed).read, "copy"), target, rebase=rebase)


def found(folder: Path) -> dict[str, str]:
    """Give all that is in a folder: a file with its content, a link with its end."""
    return {
        str(each.relative_to(folder)): f"-> {each.readlink()}"
        if each.is_symlink()
        else each.read_text()
        if each.is_file()
        else "/"
        for each in sorted(folder.rglob("*"))
    }


def names(folder: Path) -> set[str]:
    """Give the names of what is directly in a folder."""
    return {each.name for each in folder.iterdir()}


def end(path: Path) -> Path:
    """Give where a path ends once its links are followed; one that leads to itself ends where it is."""
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


@pytest.mark.usefixtures("tarfile_of_any_age")
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
        pytest.param([(REG, "other/x", "x")], ["no part of"], id="beside what was asked for"),
        pytest.param([(REG, "d/a\0b", "x")], ["none that this system has"], id="NUL in a name"),
        pytest.param([(SYM, "d/l", "/etc/passwd")], ["may lead out"], id="absolute link"),
        pytest.param([(SYM, "d/l", "../outside")], ["may lead out"], id="link that goes up"),
        pytest.param([(SYM, "d/a/l", "../../outside")], ["may lead out"], id="link in a folder that goes up"),
        pytest.param([(SYM, "d/l", "x/../../outside")], ["may lead out"], id="link that goes down and up"),
        pytest.param([(SYM, "d/l", "./.././outside")], ["may lead out"], id="link with dots"),
        pytest.param([(SYM, "d/l", "")], ["may lead out"], id="empty link"),
        pytest.param([(SYM, "../outside/l", "x")], ["leads out"], id="link outside"),
        pytest.param([(SYM, "d", "outside")], ["may lead out"], id="link as the target itself"),
        pytest.param(
            [(SYM, "d/l", "../outside"), (REG, "d/l/secret", "x")],
            ["may lead out"],
            id="file behind a link that leads out",
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
        pytest.param([(REG, "d/f", "x"), (REG, "d/f/g", "x")], ["is no folder"], id="file behind a file"),
        pytest.param([(DIR, "d/f", ""), (REG, "d/f", "x")], ["and no file"], id="file for a folder"),
        pytest.param([(REG, "d/f", "x"), (DIR, "d/f", "")], ["is no folder"], id="folder for a file"),
        pytest.param([(DIR, "d/f", ""), (SYM, "d/f", "x")], ["and no file"], id="link for a folder"),
        pytest.param([(LNK, "d/h", "/etc/passwd")], ["absolute"], id="hard link to an absolute name"),
        pytest.param([(LNK, "d/h", "d/../outside/secret")], ["leads out"], id="hard link that goes up"),
        pytest.param([(LNK, "d/h", "outside/secret")], ["no part of"], id="hard link to what is beside"),
        pytest.param([(LNK, "d/h", "d/missing")], ["which is no file"], id="hard link to nothing"),
        pytest.param([(LNK, "d/h", "d")], ["which is no file"], id="hard link to a folder"),
        pytest.param(
            [(SYM, "d/l", "x"), (LNK, "d/h", "d/l")], ["which is no file"], id="hard link to a link"
        ),
        pytest.param([(b"Z", "d/z", "x")], ["unknown kind"], id="unknown kind"),
    ],
)
def test_nothing_leads_out_of_the_target(target: Path, members: list[Member], refused: list[str]) -> None:
    """What would, is refused by its name and with a reason; what is outside stays as it was; the rest is there."""
    top: list[Member] = [(DIR, "d", ""), (REG, "d/good", "good")]
    if members == [(SYM, "d", "outside")]:
        top = []
    why = unpack(tar(*top, *members), target)
    assert len(why) == len(refused)
    assert all(part in each for part, each in zip(refused, why, strict=True))
    assert found(target.parent / "outside") == {"secret": "untouched"}
    assert names(target.parent) <= {"outside", "target"}
    assert not top or (target / "good").read_text() == "good"
    for each in target.rglob("*"):
        assert end(each).is_relative_to(target)


@pytest.mark.usefixtures("tarfile_of_any_age")
def test_nothing_is_written_through_a_link_that_is_there(target: Path) -> None:
    """A link that an earlier copy, or a user, left in the target is replaced or refused, never followed."""
    target.mkdir()
    (target / "folder").symlink_to(target.parent / "outside")
    (target / "file").symlink_to(target.parent / "outside" / "secret")
    (target / "dangling").symlink_to(target.parent / "outside" / "new")
    members: list[Member] = [(DIR, "d", ""), (REG, "d/file", "f"), (REG, "d/dangling", "g")]
    (target / "kept").symlink_to(target.parent / "outside" / "secret")
    members += [(REG, "d/folder/secret", "x"), (LNK, "d/hard", "d/folder/secret"), (DIR, "d/folder", "")]
    members += [(LNK, "d/other", "d/kept")]
    why = unpack(tar(*members), target)
    assert [each.split(":")[0] for each in why] == [
        "'d/folder/secret'",
        "'d/hard'",
        "'d/folder'",
        "'d/other'",
    ]
    assert found(target.parent / "outside") == {"secret": "untouched"}
    assert (target / "file").read_text() == "f"
    assert not (target / "file").is_symlink()


@pytest.mark.usefixtures("tarfile_of_any_age")
def test_the_target_itself_is_no_way_out(target: Path) -> None:
    """A target that is a link is refused for a folder, and replaced by a file."""
    target.symlink_to(target.parent / "outside")
    assert "is no folder" in unpack(tar((DIR, "d", "")), target)[0]
    assert unpack(tar((REG, "f", "x")), target) == []
    assert found(target.parent / "outside") == {"secret": "untouched"}
    assert target.read_text() == "x"


def test_what_is_no_file_is_not_replaced_by_one(target: Path) -> None:
    """A pipe or device that is there, such as /dev/null, is not taken away."""
    os.mkfifo(target)
    assert "and no file" in unpack(tar((REG, "f", "x")), target)[0]
    assert stat.S_ISFIFO(target.lstat().st_mode)


def test_a_file_with_other_names_keeps_what_is_in_them(target: Path) -> None:
    """A copy replaces a file; it does not write into it, which would show under its other names."""
    target.mkdir()
    (target / "f").hardlink_to(target.parent / "outside" / "secret")
    assert unpack(tar((DIR, "d", ""), (REG, "d/f", "x")), target) == []
    assert found(target.parent / "outside") == {"secret": "untouched"}


@pytest.mark.usefixtures("tarfile_of_any_age")
@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_left_out(target: Path, caplog: pytest.LogCaptureFixture, kind: bytes) -> None:
    """They are no error, but they are told."""
    with caplog.at_level(logging.WARNING, "dockertest"):
        assert unpack(tar((DIR, "d", ""), (kind, "d/odd", "")), target) == []
    assert "'d/odd' is not copied" in caplog.text
    assert found(target) == {}


@pytest.mark.usefixtures("tarfile_of_any_age")
def test_modes_survive_but_for_the_dangerous_bits(target: Path) -> None:
    """Set-uid, set-gid and sticky bits are gone; a folder without the right to write still takes in what is in it."""
    assert unpack(tar((DIR, "d", ""), (REG, "d/f", "x"), (DIR, "d/e", ""), mode=0o7444), target) == []
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (target, target / "f", target / "e")}
    assert modes == {"target": 0o555, "f": 0o444, "e": 0o555}
    target.chmod(0o755)


@pytest.mark.usefixtures("tarfile_of_any_age")
def test_links_that_stay_inside_survive(target: Path) -> None:
    """Up and down within the target, to what is there, to what comes later, and to nothing."""
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


def test_a_hard_link_becomes_a_copy_where_there_are_none(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every file system has them."""
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(95, "no such thing")))
    assert unpack(tar((DIR, "d", ""), (REG, "d/f", "x"), (LNK, "d/h", "d/f")), target) == []
    assert found(target) == {"f": "x", "h": "x"}
    assert not (target / "h").samefile(target / "f")


@pytest.mark.parametrize("first", ["./a", "a"])
def test_all_members_are_the_contents_without_rebase(target: Path, first: str) -> None:
    """So it is with the archive of "/", for which engines name no folder, or "."."""
    assert (
        unpack(tar((DIR, first, ""), (REG, f"{first}/f", "x"), (REG, "g", "y")), target, rebase=False) == []
    )
    assert found(target) == {"a": "/", "a/f": "x", "g": "y"}


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
def test_names_that_mean_something_else_on_windows(name: str) -> None:
    """Backslashes, drives, streams and devices are refused there, and mere names elsewhere."""
    with pytest.raises(EngineError, match="none that this system has"):
        _archive.checked_name(name, windows=True)
    with pytest.raises(EngineError, match="none that this system has"):
        _archive.checked_link(name, 0, windows=True)
    assert _archive.checked_name(name, windows=False) == tuple(name.split("/"))


@pytest.mark.usefixtures("tarfile_of_any_age")
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"rubbish" * 1000, id="rubbish"),
        pytest.param(tar((DIR, "d", ""), (REG, "d/f", "x" * 5000))[:2000], id="within a file"),
        pytest.param(tar((DIR, "d", ""), (REG, "d/f", "x"))[: 3 * 512], id="after a file"),
        pytest.param(tar((DIR, "d", ""), (REG, "d/f", "x"))[: 2 * 512 - 100], id="within a header"),
        pytest.param(
            tar((DIR, "d", ""))[:512] + b'{"message":"no space left on device"}', id="with a message"
        ),
    ],
)
def test_a_broken_archive_is_an_error(target: Path, broken: bytes) -> None:
    """Never a part taken for the whole."""
    with pytest.raises(EngineError, match="cannot copy: "):
        unpack(broken, target)


PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "outside", "secret", "target", "d", "/", "a/b", "\\", "é", "\udcff"]
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from([REG, DIR, SYM, SYM, SYM, LNK, b"Z", tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])


@given(st.lists(st.tuples(KINDS, NAMES, NAMES), max_size=8), st.booleans())
@settings(deadline=None, max_examples=40)
def test_no_archive_at_all_leads_out(members: list[Member], rebase: bool) -> None:
    """Whatever the members: what is outside stays, and no link in the target ends anywhere else."""
    with tempfile.TemporaryDirectory() as name:
        target = Path(name).resolve() / "target"
        (target.parent / "outside").mkdir()
        (target.parent / "outside" / "secret").write_text("untouched")
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", errors="surrogateescape", encoding="utf-8") as archive:
            for kind, written, rest in members:
                info = tarfile.TarInfo(written)
                info.type, info.linkname, info.mode = kind, rest, 0o755
                archive.addfile(info)
        unpack(made.getvalue(), target, rebase=rebase)
        unpack(made.getvalue(), target, rebase=rebase)  # onto what the first left there
        assert names(target.parent) <= {"outside", "target"}
        assert found(target.parent / "outside") == {"secret": "untouched"}
        for each in target.rglob("*"):
            assert end(each).is_relative_to(target)


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=20), st.integers(0, 8000))
@settings(deadline=None, max_examples=40)
def test_a_damaged_archive_ends_in_our_error_or_none(changes: list[tuple[int, int]], length: int) -> None:
    """Bytes changed and cut off: nothing is raised that a user could not expect, and nothing is written outside."""
    packed = bytearray(tar((DIR, "d", ""), (REG, "d/é", "x" * 600), (SYM, "d/l", "a"), (LNK, "d/h", "d/é")))
    for place, value in changes:
        packed[place % len(packed)] = value
    with tempfile.TemporaryDirectory() as name:
        with suppress(EngineError):
            unpack(bytes(packed[:length]), Path(name) / "target")
        assert names(Path(name)) <= {"target"}


def pack(source: Path, name: str = "d") -> bytes:
    """Pack a local file or folder."""
    return b"".join(_archive.pack(_archive.tree(source, f"/{name}")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of all that a folder may have in it."""
    folder = tmp_path / "folder"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "program").write_text("#!/bin/sh\n")
    (folder / "sub" / "program").chmod(0o750)
    (folder / "link").symlink_to("sub/program")
    (folder / "out").symlink_to("/etc")
    (folder / "way out").symlink_to(tmp_path / "outside")
    (folder / "sub").chmod(0o711)
    return folder


def test_what_is_packed_comes_out_the_same(folder: Path, target: Path) -> None:
    """Contents, modes, links and empty folders; the links that lead out are in the archive, and refused when it is unpacked."""
    refused = unpack(pack(folder), target)
    assert [each.split(":")[0] for each in refused] == ["'d/out'", "'d/way out'"]
    assert found(target) == {
        "sub": "/",
        "sub/empty": "/",
        "sub/program": "#!/bin/sh\n",
        "link": "-> sub/program",
    }
    assert stat.S_IMODE((target / "sub/program").stat().st_mode) == 0o750
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o711


def test_a_link_in_a_folder_is_never_followed(folder: Path, target: Path) -> None:
    """Links go as links, whatever they lead to; nothing that lies behind them is packed."""
    with tarfile.open(fileobj=io.BytesIO(pack(folder))) as archive:
        links = {each.name: each.linkname for each in archive if each.issym()}
        assert links == {
            "d/link": "sub/program",
            "d/out": "/etc",
            "d/way out": str(target.parent / "outside"),
        }
        assert not any("secret" in each or "passwd" in each for each in archive.getnames())


def test_everything_packed_is_roots(folder: Path) -> None:
    """No number or name of a local user goes into a container."""
    with tarfile.open(fileobj=io.BytesIO(pack(folder))) as archive:
        assert {(each.uid, each.gid, each.uname, each.gname) for each in archive} == {(0, 0, "", "")}


def test_pipes_are_not_packed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are left out, and told."""
    os.mkfifo(folder / "pipe")
    with (
        caplog.at_level(logging.WARNING, "dockertest"),
        tarfile.open(fileobj=io.BytesIO(pack(folder))) as archive,
    ):
        assert "d/pipe" not in archive.getnames()
    assert "pipe is not copied" in caplog.text


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    """The archive has promised more by then."""
    (tmp_path / "f").write_bytes(bytes(1000))
    blocks = _archive.pack([("f", tmp_path / "f")])
    next(blocks)
    os.truncate(tmp_path / "f", 0)
    with pytest.raises(OSError, match="became shorter while it was copied"):
        list(blocks)


def test_a_file_that_becomes_longer_is_cut(tmp_path: Path, target: Path) -> None:
    """A log that is written to meanwhile does not spoil the archive."""
    (tmp_path / "f").write_text("begin")
    blocks = _archive.pack([("f", tmp_path / "f"), ("g", b"next")])
    head = next(blocks)
    (tmp_path / "f").write_text("begin and more")
    unpack(head + b"".join(blocks), target, rebase=False)
    assert found(target) == {"f": "begin", "g": "next"}


def test_bytes_are_packed_with_a_mode(target: Path) -> None:
    """Which `write_file` gives."""
    assert unpack(b"".join(_archive.pack([("/f", b"x" * 1_000_000)], 0o640)), target) == []
    assert (target.stat().st_size, stat.S_IMODE(target.stat().st_mode)) == (1_000_000, 0o640)


@given(
    st.dictionaries(
        st.text("aé\udcff ~'.-", min_size=1, max_size=60).filter(lambda n: n not in (".", "..")), st.binary()
    )
)
@settings(deadline=None)
def test_any_names_and_contents_survive(files: dict[str, bytes]) -> None:
    """Long names, and names that are no UTF-8, among them."""
    entries: list[tuple[str, bytes | Path]] = [(f"/{name}", content) for name, content in files.items()]
    with tempfile.TemporaryDirectory() as name:
        assert unpack(b"".join(_archive.pack(entries)), Path(name) / "t", rebase=False) == []
        assert {each.name: each.read_bytes() for each in Path(name).glob("t/*")} == files


def test_memory_does_not_grow_with_the_members() -> None:
    """Thousands of them are forgotten as they pass."""
    rest = _archive.pack((f"/{number}", b"") for number in range(800))
    archive = _archive.Archive(lambda size: b"".join(itertools.islice(rest, size // 512)), "copy")
    tracemalloc.start()
    try:
        assert sum(1 for _ in archive.members()) == 800
        assert tracemalloc.get_traced_memory()[1] < 1 << 19
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_archive(target: Path) -> None:
    """A large file passes in pieces, both ways."""
    size = 64 << 20
    target.parent.joinpath("large").touch()
    os.truncate(target.parent / "large", size)

    def pieces() -> Iterator[bytes]:
        yield from _archive.pack([("/large", target.parent / "large")])

    rest, left = pieces(), b""

    def read(wanted: int) -> bytes:
        nonlocal left
        while len(left) < wanted and (more := next(rest, b"")):
            left += more
        block, left = left[:wanted], left[wanted:]
        return block

    tracemalloc.start()
    try:
        assert _archive.unpack(_archive.Archive(read, "copy"), target) == []
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert target.stat().st_size == size
