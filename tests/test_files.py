"""Files: checks before a request is sent."""

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockertest import InvalidOptionError, RunOptions, _validation
from dockertest._containers.files import volume_of
from dockertest._engine.inspection import Inspection

INSPECTION = Inspection.parse(
    {
        "Id": "3f2a9c1b71de",
        "HostConfig": {"Tmpfs": {"/run": "", "/scratch/": "size=1m"}},
        "Mounts": [
            {"Type": "volume", "Destination": "/data"},
            {"Type": "bind", "Destination": "/run/kept"},
            {"Type": "tmpfs", "Destination": "/data/cache"},
        ],
    }
)


def options(files: Any, **others: Any) -> RunOptions:
    """Return options with files for a container."""
    return RunOptions(repository="busybox", files=files, **others)


def test_files_are_normalized(tmp_path: Path) -> None:
    """
    Text becomes bytes, and paths lose redundant parts.

    Normalizing twice changes nothing.
    """
    files: dict[str, Any] = {"/a": b"1", "//b/./c": "é", "/d": bytearray(b"2"), "/e": tmp_path}
    made = options(files)
    assert made.files == {"/a": b"1", "/b/c": b"\xc3\xa9", "/d": b"2", "/e": tmp_path}
    assert options(made.files) == made


def test_text_is_content_and_never_a_path(tmp_path: Path) -> None:
    """This holds even if a local file has that name."""
    (tmp_path / "f").write_text("x")
    assert options({"/f": str(tmp_path / "f")}).files == {"/f": str(tmp_path / "f").encode()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["/a"], "files must be a mapping"),
        ("/a", "files must be a mapping"),
        (None, "files must be a mapping"),
        ({"a": ""}, "files: invalid path 'a': expected an absolute path in the container"),
        ({"": ""}, "expected an absolute path"),
        ({b"/a": ""}, "must be a string"),
        ({"/a\0": ""}, "NUL"),
        ({"/": ""}, "is not the path of a file"),
        ({"/a/": ""}, "is not the path of a file"),
        ({"/a": "", "//a": ""}, "is listed twice"),
        ({"/a": 1}, r"files\['/a'\] must be bytes or text: got a value of type int"),
        ({"/a": None}, "got None"),
        ({"/a": "\udcff"}, "which UTF-8 cannot encode"),
        ({"/a": Path("/no/such/file")}, r"files\['/a'\]: '/no/such/file' does not exist"),
    ],
)
def test_invalid_files_are_rejected_by_the_constructor(files: Any, message: str) -> None:
    """The error contains the field and the path."""
    with pytest.raises(InvalidOptionError, match=message):
        options(files)


@pytest.mark.parametrize("path", ["/scratch/f", "/scratch", "/scratch/a/b", "//scratch/../scratch/f"])
def test_files_in_a_tmpfs_are_rejected(path: str) -> None:
    """Docker would write them below the tmpfs, which hides them."""
    with pytest.raises(InvalidOptionError, match="is in the tmpfs '/scratch'"):
        options({path: ""}, tmpfs=["/scratch"])
    with pytest.raises(InvalidOptionError, match="is in the tmpfs '/scratch'"):
        options({path: ""}, tmpfs=["/scratch:size=1m"])
    assert options({"/scratched": ""}, tmpfs=["/scratch"])


def test_contents_are_not_shown(tmp_path: Path) -> None:
    """The repr contains only sizes and local paths."""
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
def test_a_path_belongs_to_the_nearest_mount_above_it(path: str, volume: str) -> None:
    """Only whole path components count: /database is not in /data."""
    assert volume_of(INSPECTION, path) == volume


@pytest.mark.parametrize(
    "path", ["/run", "/run/f", "/scratch/f", "/data/cache/f", "/dev/shm/f", "/proc/1/status", "/sys"]
)
def test_a_path_in_memory_is_rejected(path: str) -> None:
    """Engines would read and write the folder below the mount, which is hidden."""
    with pytest.raises(InvalidOptionError, match="kept in memory, where engines copy nothing; use exec"):
        volume_of(INSPECTION, path)


@given(st.text("/.ab", min_size=1))
def test_container_paths_are_normalized(written: str) -> None:
    """
    They are absolute and have no redundant parts.

    Normalizing twice changes nothing.
    """
    if written.startswith("/"):
        path = _validation.parse_container_path("path", written)
        assert path.startswith("/")
        assert str(PurePosixPath(path)) == path
        assert ".." not in path.split("/")
        assert _validation.parse_container_path("path", path) == path
    else:
        with pytest.raises(InvalidOptionError):
            _validation.parse_container_path("path", written)
