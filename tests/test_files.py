"""Files: what is refused before the engine is asked."""

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockertest import InvalidOptionError, RunOptions, _mounts, _values

ATTRS = {
    "Id": "3f2a9c1b71de",
    "HostConfig": {"Tmpfs": {"/run": "", "/scratch/": "size=1m"}},
    "Mounts": [
        {"Type": "volume", "Destination": "/data"},
        {"Type": "bind", "Destination": "/run/kept"},
        {"Type": "tmpfs", "Destination": "/data/cache"},
    ],
}


def options(files: Any, **others: Any) -> RunOptions:
    """Ask for files in a container."""
    return RunOptions(repository="busybox", files=files, **others)


def test_files_are_brought_into_one_form(tmp_path: Path) -> None:
    """Text becomes bytes, a path one without what does not count; what is in that form already stays so."""
    given: dict[str, Any] = {"/a": b"1", "//b/./c": "é", "/d": bytearray(b"2"), "/e": tmp_path}
    made = options(given)
    assert made.files == {"/a": b"1", "/b/c": b"\xc3\xa9", "/d": b"2", "/e": tmp_path}
    assert options(made.files) == made


def test_text_is_never_taken_for_a_path(tmp_path: Path) -> None:
    """A `str` is the content, even where a file of that name is there."""
    (tmp_path / "f").write_text("x")
    assert options({"/f": str(tmp_path / "f")}).files == {"/f": str(tmp_path / "f").encode()}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["/a"], "files must be a mapping"),
        ("/a", "files must be a mapping"),
        (None, "files must be a mapping"),
        ({"a": ""}, "files: 'a' is no absolute path in the container"),
        ({"": ""}, "no absolute path"),
        ({b"/a": ""}, "must be a string"),
        ({"/a\0": ""}, "NUL"),
        ({"/": ""}, "is no name of a file"),
        ({"/a/": ""}, "is no name of a file"),
        ({"/a": "", "//a": ""}, "is there twice"),
        ({"/a": 1}, r"files\['/a'\] must be bytes or text: got a int"),
        ({"/a": None}, "got a NoneType"),
        ({"/a": "\udcff"}, "UTF-8 cannot write"),
        ({"/a": Path("/no/such/file")}, r"files\['/a'\]: there is no '/no/such/file'"),
    ],
)
def test_bad_files_are_refused_when_made(files: Any, words: str) -> None:
    """The error names the field, and the path in it."""
    with pytest.raises(InvalidOptionError, match=words):
        options(files)


@pytest.mark.parametrize("path", ["/scratch/f", "/scratch", "/scratch/a/b", "//scratch/../scratch/f"])
def test_files_in_a_tmpfs_are_refused(path: str) -> None:
    """Docker would lose them without a word."""
    with pytest.raises(InvalidOptionError, match="lies in the tmpfs '/scratch'"):
        options({path: ""}, tmpfs=["/scratch"])
    assert options({"/scratched": ""}, tmpfs=["/scratch"])


def test_no_content_is_shown(tmp_path: Path) -> None:
    """Not in a repr, not in text made of one; a local path is."""
    made = options({"/etc/secret": "hunter2", "/b": b"hunter2", "/c": tmp_path})
    for shown in (repr(made), str(made.files), str(made.files["/b"]), repr(made.files["/b"])):
        assert "hunter2" not in shown
    assert "'/etc/secret': <7 bytes>" in repr(made)
    assert str(tmp_path) in repr(made)
    with pytest.raises(InvalidOptionError) as caught:
        options({"/a": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "volume"),
    [
        ("/etc/f", "/"),
        ("/", "/"),
        ("/data", "/data"),
        ("/data/f", "/data"),
        ("/database/f", "/"),
        ("/run/kept/f", "/run/kept"),
    ],
)
def test_the_volume_that_a_path_is_in(path: str, volume: str) -> None:
    """The deepest one counts, and only whole names."""
    assert _mounts.of(ATTRS, path) == volume


@pytest.mark.parametrize(
    "path", ["/run", "/run/f", "/scratch/f", "/data/cache/f", "/dev/shm/f", "/proc/1/status", "/sys"]
)
def test_a_path_in_memory_is_refused(path: str) -> None:
    """Engines look below what is mounted there: they would lose what is written and find what is hidden."""
    with pytest.raises(InvalidOptionError, match="kept in memory, where engines copy nothing; use exec"):
        _mounts.of(ATTRS, path)


@given(st.text("/.ab", min_size=1))
def test_a_path_has_one_form(written: str) -> None:
    """It is absolute, has nothing in it that does not count, and stays as it is."""
    if written.startswith("/"):
        path = _values.container_path("path", written)
        assert path.startswith("/")
        assert str(PurePosixPath(path)) == path
        assert ".." not in path.split("/")
        assert _values.container_path("path", path) == path
    else:
        with pytest.raises(InvalidOptionError):
            _values.container_path("path", written)
