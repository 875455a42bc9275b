"""Files into and out of a container. One conversation with the engine each; keeps nothing, least of all in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dockertest import _mounts, _report, _values
from dockertest._containers import archive as _archive
from dockertest._engine.client import Engine
from dockertest._engine.sdk import border
from dockertest.errors import (
    ContainerStartError,
    DockertestError,
    DockerUnavailableError,
    EngineError,
    InvalidOptionError,
)

_FOLDER, _LINK, _SPECIAL = 1 << 31, 1 << 27, 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21  # in Go's os.FileMode


def read(engine: Engine, attrs: Mapping[str, Any], path: str) -> bytes:
    """Give what is in a file of the container that *attrs*, its inspection, tells of."""
    what = f"read {path!r} of {_label(attrs)}"
    with closing(_download(engine, attrs, path, what)) as download:
        if download.mode & (_FOLDER | _SPECIAL):
            kind = "folder" if download.mode & _FOLDER else "device, pipe or socket"
            raise EngineError(f"cannot {what}: it is a {kind}, not a file")
        archive = _archive.Archive(download.read, what)
        with closing(archive.members()) as members:
            return b"".join(block for member in members for block in archive.blocks(member))


def write(engine: Engine, attrs: Mapping[str, Any], path: str, data: bytes | str, mode: int) -> None:
    """Make a file in a container, in place of one that is there."""
    what = f"write {path!r} of {_label(attrs)}"
    if not isinstance(mode, int) or not 0 <= mode <= 0o7777:
        raise InvalidOptionError(f"mode: {mode!r} is no mode of a file; write one such as 0o644")
    content = _values.file_content("data", data)
    target, is_folder = _look(engine, attrs, path, what)
    if is_folder or path.endswith("/"):
        raise EngineError(f"cannot {what}: it is a folder; give the name of a file")
    _upload(engine, attrs, _mounts.of(attrs, target), lambda: [(target, content)], what, mode=mode)


def copy_in(engine: Engine, attrs: Mapping[str, Any], src: str | os.PathLike[str], path: str) -> None:
    """Copy a local file or folder into a container; `Resource.copy_in` has the rules."""
    what = f"copy {os.fspath(src)!r} to {path!r} of {_label(attrs)}"
    source = _source(src)
    target, is_folder = _look(engine, attrs, path, what)
    contents = source.is_dir() and re.split(r"[/\\]", os.fspath(src))[-1] == "."
    if (is_folder or path.endswith("/")) and not contents:
        # Under the name that the user wrote, which may be a link's: not that of what it leads to.
        target = posixpath.join(target, os.path.basename(os.path.abspath(src)))  # noqa: PTH100, PTH119
    root = _mounts.checked(attrs, target, source)
    _upload(
        engine,
        attrs,
        root,
        partial(_archive.tree, source, target, with_top=not (contents and is_folder)),
        what,
    )


def copy_out(engine: Engine, attrs: Mapping[str, Any], path: str, dst: str | os.PathLike[str]) -> None:
    """Copy a file or folder out of a container; `Resource.copy_out` has the rules."""
    what = f"copy {path!r} out of {_label(attrs)}"
    with closing(_download(engine, attrs, path, what)) as download:
        if download.mode & _SPECIAL:
            raise EngineError(f"cannot {what}: it is a device, pipe or socket, neither file nor folder")
        target = Path(os.path.realpath(dst))  # where the user's own links lead is the user's business
        into = target.is_dir() or os.fspath(dst).endswith(("/", os.sep))
        name = posixpath.basename(_values.container_path("path", path))
        if into and name and not path.endswith("/."):
            target = target.joinpath(*_archive.checked_name(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        refused = _archive.unpack(_archive.Archive(download.read, what), target, rebase=bool(name))
    if refused:
        listed = "".join(f"\n  {each}" for each in refused[:20])
        more = f"\n  and {len(refused) - 20} more" if len(refused) > 20 else ""
        raise EngineError(f"cannot {what} as a whole; the rest is in {target}, refused were:{listed}{more}")


def place(engine: Engine, attrs: Mapping[str, Any], files: Mapping[str, bytes | Path]) -> None:
    """Put *files* into a container that was not started yet, all in one archive."""
    what = f"put files into {_label(attrs)}"
    entries: list[tuple[str, bytes | Path]] = []
    for path, content in files.items():
        if isinstance(content, bytes):
            _mounts.of(attrs, path)
            entries.append((path, content))
        else:
            source = _source(content)
            target, is_folder = _look(engine, attrs, path, what) if source.is_dir() else (path, False)
            _mounts.checked(attrs, target, source)
            entries.extend(_archive.tree(source, target, with_top=not is_folder))
    _upload(engine, attrs, "/", lambda: entries, what, error=ContainerStartError)


def digest(files: Mapping[str, bytes | Path]) -> str:
    """Give a hash of what `place` would put into a container: names, modes, links and contents, but no times."""
    entries: list[tuple[str, bytes | Path]] = []
    for path, content in sorted(files.items()):
        entries.extend(
            [(path, content)] if isinstance(content, bytes) else _archive.tree(_source(content), path)
        )
    found = hashlib.sha256()
    for block in _archive.pack(entries, dated=False):
        found.update(block)
    return found.hexdigest()


def _label(attrs: Mapping[str, Any]) -> str:
    return _report.label(str(attrs.get("Name", "")).lstrip("/"), str(attrs["Id"]))


def _source(src: str | os.PathLike[str]) -> Path:
    """Give where *src* really is: what the user named is followed, if it is a link."""
    source = Path(os.path.realpath(src, strict=True))
    if not source.is_file() and not source.is_dir():
        raise InvalidOptionError(f"{os.fspath(src)!r} is neither a file nor a folder")
    return source


def _status(response: Any) -> tuple[int, str]:
    """Give a path's mode, as Go writes it, and for a link where it ends once all links are followed."""
    said = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
    return int(said["mode"]), str(said["linkTarget"])


def _look(engine: Engine, attrs: Mapping[str, Any], path: str, what: str) -> tuple[str, bool]:
    """Give where *path* is once links are followed, and whether a folder is there."""
    path = _values.container_path("path", path)
    _mounts.of(attrs, path)
    api: Any = engine.client.api
    with border(engine.timeout, what):
        url = api._url(f"/containers/{attrs['Id']}/archive")
        response = api.head(url, params={"path": path}, timeout=engine.timeout)
        if "X-Docker-Container-Path-Stat" not in response.headers:
            return path, False  # nothing is there, or the request that comes next will tell why not
        mode, end = _status(response)
    return _look(engine, attrs, end, what) if mode & _LINK else (path, bool(mode & _FOLDER))


def _download(engine: Engine, attrs: Mapping[str, Any], path: str, what: str) -> _Download:
    """Ask for a file or folder; where *path* is a link, for what it leads to in the container."""
    path = _values.container_path("path", path)
    _mounts.of(attrs, path)
    response = engine.send(
        "get",
        f"/containers/{attrs['Id']}/archive",
        what=what,
        # With "/" alone, all names in the archive are absolute.
        params={"path": "/." if path == "/" else path},
        headers={"Accept-Encoding": "identity"},  # pressing it would take longer than sending it
        stream=True,
    )
    try:
        with border(engine.timeout, what):
            mode, end = _status(response)
    except DockertestError:
        response.close()
        raise
    if mode & _LINK:
        response.close()
        return _download(engine, attrs, end, what)
    return _Download(engine, response, what, mode)


@dataclass(frozen=True)
class _Download:
    """
    A file or folder on its way out of a container.

    Attributes:
        mode: What it is, as Go writes it.
    """

    engine: Engine
    response: Any
    what: str
    mode: int

    def read(self, size: int) -> bytes:
        """Read on in the archive."""
        with border(self.engine.timeout, self.what):
            block: bytes = self.response.raw.read(size)
            return block

    def close(self) -> None:
        """Let go of the connection."""
        self.response.close()


def _upload(
    engine: Engine,
    attrs: Mapping[str, Any],
    root: str,
    entries: Callable[[], Iterable[tuple[str, bytes | Path]]],
    what: str,
    *,
    mode: int = 0o644,
    error: type[DockertestError] = EngineError,
) -> None:
    """
    Unpack *entries* in *root*, missing folders made as root's own, with mode 0755.

    That is all the engine's work: an entry for a folder that is there, such as `/tmp`, would change its mode. *root* is
    the volume that they go into, since an engine that was asked for "/" refuses all where the container's own files are
    read-only.
    """

    def pack() -> Generator[bytes, None, None]:
        return _archive.pack(((name[len(root) :], content) for name, content in entries()), mode)

    put = partial(
        engine.send,
        "put",
        f"/containers/{attrs['Id']}/archive",
        what=what,
        # Without it a file that is sent for a folder makes the engine remove the whole folder.
        params={"path": root, "noOverwriteDirNonDir": "true"},
        error=error,
    )
    with closing(_Upload(pack())) as body:
        try:
            put(body=body)
        except DockertestError as broken:
            if body.failure:
                raise body.failure from None
            if not isinstance(broken, DockerUnavailableError):
                raise
            # An engine that refuses before it has read all hangs up, and over TLS its words are lost with the connection.
            # The beginning is refused for the same reason, and read as a whole.
            with closing(pack()) as blocks:
                try:
                    put(body=_beginning(blocks))
                except DockertestError as refusal:
                    if "unexpected EOF" not in str(refusal):
                        raise
            raise error(
                f"cannot {what}: the engine broke off the connection, and did not say why"
            ) from broken


def _beginning(blocks: Iterable[bytes]) -> bytes:
    """Give what comes first, with at least one entry's header in it."""
    found = bytearray()
    for block in blocks:
        found += block
        if len(found) >= 8192:
            break
    return bytes(found)


class _Upload:
    """An archive on its way into a container; keeps what failed on this side, which is no fault of the engine's."""

    def __init__(self, blocks: Generator[bytes, None, None]) -> None:
        self.failure: Exception | None = None
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._blocks
        except Exception as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Close the file that is being read."""
        self._blocks.close()
