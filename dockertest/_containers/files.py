"""
Files copied into and out of a container.

Each function is one exchange with the engine. Archives are streamed, so that memory does not grow with them.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import posixpath
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dockertest import _report, _validation
from dockertest._containers import archive as _archive
from dockertest._engine.client import EngineClient, quote_path
from dockertest._engine.inspection import Inspection
from dockertest._engine.sdk import end_connection, end_stream, header_of_refusal
from dockertest._interruption import interrupted_frames
from dockertest._options import File
from dockertest.errors import (
    ContainerStartError,
    DockertestError,
    DockerUnavailableError,
    EngineError,
    InvalidOptionError,
)

# Bits of a mode as Go's os.FileMode has them: https://pkg.go.dev/io/fs#FileMode
_FOLDER = 1 << 31
_LINK = 1 << 27
_SPECIAL = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21  # device, named pipe, socket, character device

_PATH_STAT = "X-Docker-Container-Path-Stat"  # the header that describes a path
# Modules whose frames have the connection of a request in progress.
_SENDING = ("http.client", "urllib3.connection")
_ALWAYS_IN_MEMORY = ("/dev", "/proc", "/sys")
# The end of Docker's data folder if it remaps root to a user and a group.
_REMAPPED = re.compile(r"/(\d+)\.(\d+)$")
_LISTED_REFUSALS = 20  # in an error message
_UNPACK_SECONDS = 600.0  # An engine is silent while it writes the rest of an archive to a slow disk.
_COPIES_UP_FIRST = (5, 4)  # Podman: into a volume, before it unpacks an archive
_BEGINNING_BYTES = 8192  # of an archive: enough for the header of its first member


def read(engine: EngineClient, inspection: Inspection, path: str) -> bytes:
    """Return the content of a file in a container; `Resource.read_file` describes it."""
    what = f"read {path!r} of {_label(inspection)}"
    inspection = _with_real_mounts(engine, inspection, what)
    with closing(_download(engine, inspection, path, what)) as download:
        if download.mode & (_FOLDER | _SPECIAL):
            kind = "folder" if download.mode & _FOLDER else "device, pipe or socket"
            raise EngineError(f"cannot {what}: it is a {kind}, not a file")
        archive = _archive.Archive(download.read, what)
        with closing(archive.members()) as members:
            return b"".join(block for member in members for block in archive.blocks(member))


def write(engine: EngineClient, inspection: Inspection, path: str, data: bytes | str, mode: int) -> None:
    """Create or replace a file in a container; `Resource.write_file` describes it."""
    what = f"write {path!r} of {_label(inspection)}"
    _validation.parse_mode("mode", mode)
    content = _validation.parse_content("data", data)
    inspection = _with_real_mounts(engine, inspection, what)
    target, is_folder = _resolve(engine, inspection, path, what)
    if is_folder or path.endswith("/"):
        raise EngineError(f"cannot {what}: it is a folder", hint="name a file in it")
    root = volume_of(inspection, target)
    _upload(engine, inspection, root, lambda: [(target, content)], what, mode=mode)


def copy_in(engine: EngineClient, inspection: Inspection, src: str | os.PathLike[str], path: str) -> None:
    """Copy a local file or folder into a container, as `Resource.copy_in` describes."""
    what = f"copy {os.fspath(src)!r} to {path!r} of {_label(inspection)}"
    source = _source(src)
    inspection = _with_real_mounts(engine, inspection, what)
    target, is_folder = _resolve(engine, inspection, path, what)
    contents_only = source.is_dir() and re.split(r"[/\\]", os.fspath(src))[-1] == "."
    if (is_folder or path.endswith("/")) and not contents_only:
        # The copy is named as the user wrote it. If that is a link, its target may have another name.
        target = posixpath.join(target, os.path.basename(os.path.abspath(src)))  # noqa: PTH100, PTH119
    root = volume_for(inspection, target, source)
    entries = partial(_archive.tree, source, target, with_top=not (contents_only and is_folder))
    _upload(engine, inspection, root, entries, what)


def copy_out(engine: EngineClient, inspection: Inspection, path: str, dst: str | os.PathLike[str]) -> None:
    """Copy a file or folder out of a container, as `Resource.copy_out` describes."""
    what = f"copy {path!r} out of {_label(inspection)}"
    inspection = _with_real_mounts(engine, inspection, what)
    with closing(_download(engine, inspection, path, what)) as download:
        if download.mode & _SPECIAL:
            raise EngineError(f"cannot {what}: it is a device, pipe or socket, neither file nor folder")
        target = Path(os.path.realpath(dst))  # the user's own links may lead anywhere
        into_folder = target.is_dir() or os.fspath(dst).endswith(("/", os.sep))
        name = posixpath.basename(_validation.parse_container_path("path", path))
        if into_folder and name and not path.endswith("/."):
            target = target.joinpath(*map(_archive.local_name, _archive.checked_name(name)))
        target.parent.mkdir(parents=True, exist_ok=True)
        refusals = _archive.unpack(_archive.Archive(download.read, what), target, rebase=bool(name))
    if refusals:
        raise EngineError(_incomplete(what, target, refusals))


def place(engine: EngineClient, inspection: Inspection, files: Mapping[str, bytes | Path | File]) -> None:
    """
    Put *files* into a container that has not been started yet.

    They are sent in one archive where possible. If the container's own file system is read-only, only volumes can take files.
    Engines then refuse an archive for "/", so each volume gets its own. With Podman, a mount that would hide the files
    needs one of its own in any case.

    Raises:
        InvalidOptionError: A file would be kept in memory, or on a read-only file system.
    """
    what = f"put files into {_label(inspection)}"
    archives: dict[str, list[tuple[str, bytes | Path | File]]] = {}
    inspection = _with_real_mounts(engine, inspection, what)
    folders: dict[str, str] = {}  # where the folders of the files are
    separate: dict[str, bool] = {}  # by mount point, whether it needs an archive of its own
    for path, content in files.items():
        folder, name = posixpath.split(path)
        if folder not in folders:
            folders[folder] = _follow_links(engine, inspection, folder, what)
        target = posixpath.join(folders[folder], name)
        added: Iterable[tuple[str, bytes | Path | File]] = [(target, content)]
        if not isinstance(content, Path):
            root = volume_of(inspection, target)
        else:
            source = _source(content)
            if source.is_dir():
                target, is_folder = _resolve(engine, inspection, path, what)
                added = _archive.tree(source, target, with_top=not is_folder)
                added = _without_existing_folders(engine, inspection, added, what) if is_folder else added
            else:
                added = _archive.tree(source, target)
            root = volume_for(inspection, target, source)
        if inspection.is_read_only and root == "/":
            raise InvalidOptionError(
                f"files: {path!r} is on the read-only file system of the container",
                hint="mount a volume where the file is to be, or leave out read_only=",
            )
        if root not in separate:
            separate[root] = inspection.is_read_only or _is_hidden_by(engine, inspection, root)
        archives.setdefault(root if separate[root] else "/", []).extend(added)
    for root, entries in archives.items():
        _upload(engine, inspection, root, lambda entries=entries: entries, what, error=ContainerStartError)  # type: ignore[misc]


def _is_hidden_by(engine: EngineClient, inspection: Inspection, root: str) -> bool:
    """
    Return whether the mount at *root* would hide files of an archive for "/".

    Podman unpacks such an archive below the mounts of a container that was not started. Before version 5.4, it copies the files
    into an empty volume when the container starts.
    """
    if root == "/" or not engine.is_podman:
        return False
    kinds = {mount.kind for mount in inspection.mounts if mount.target == root}
    if kinds != {"volume"} or engine.podman_version >= _COPIES_UP_FIRST:
        return True
    return not is_empty_folder(engine, inspection, root)


def _without_existing_folders(
    engine: EngineClient, inspection: Inspection, entries: Iterable[tuple[str, Path]], what: str
) -> Iterator[tuple[str, Path]]:
    """
    Yield the entries of an archive without the folders that the container has.

    An entry for such a folder would change its owner and mode. Each folder comes before its content.
    """
    missing = ""
    for name, path in entries:
        if path.is_dir() and not path.is_symlink() and not (missing and _validation.is_below(name, missing)):
            mode, _ = _stat(engine, inspection, name, what)
            if mode & _FOLDER:
                continue
            missing = name
        yield name, path


def transfer(engine: EngineClient, inspection: Inspection, path: str, container: str, folder: str) -> None:
    """
    Copy a folder of one container into a folder of another one.

    The copy has the same name, owners, modes and times. What the other container has in its place is replaced, also where a
    tmpfs would hide it, as the engine writes below that.

    Args:
        inspection: The container to copy from.
        path: The folder to copy; mounts below it are included.
        container: The id of the container to copy to, which has not been started.
        folder: An existing folder in it.
    """
    what = f"copy {path!r} of {_label(inspection)} into an image"
    with closing(_download(engine, inspection, path, what)) as download:

        def archive() -> Generator[bytes, None, None]:
            # A file in the place of a folder makes the engine remove that folder, and the folder that follows, the file.
            yield _archive.empty_file(posixpath.basename(path))
            if remapped := _first_remapped_ids(engine):
                content = _archive.Archive(download.read, what)
                yield from _archive.with_owners(content, partial(_ids_in_container, remapped))
                return
            while block := download.read(_archive.BLOCK_BYTES):
                yield block

        with closing(archive()) as body:
            _unpack(engine, container, folder, body, what)


def _first_remapped_ids(engine: EngineClient) -> tuple[int, int] | None:
    """
    Return the host's ids of the user and group that are root in containers.

    Without user namespaces, return `None`. A Docker whose root is remapped sends archives with the ids of the host, and
    accepts them with those of the container. Its data folder is named after the first ones:
    https://docs.docker.com/engine/security/userns-remap/
    """
    info = engine.info()
    first = _REMAPPED.search(str(info.get("DockerRootDir") or ""))
    is_remapped = any("userns" in option for option in info.get("SecurityOptions") or ())
    return (int(first[1]), int(first[2])) if is_remapped and first else None


def _ids_in_container(remapped: tuple[int, int], user: int, group: int) -> tuple[int, int]:
    """
    Return the ids in a container for those of the host.

    Ids that are not remapped stay as they are.
    """
    first_user, first_group = remapped
    return (
        user - first_user if user >= first_user else user,
        group - first_group if group >= first_group else group,
    )


def make_folder(
    engine: EngineClient,
    container: str,
    folder: str,
    name: str,
    *,
    mode: int,
    owner: tuple[int, int] = (0, 0),
) -> None:
    """Create *name* in an existing *folder*, or set its mode and owner if it exists."""
    body = _archive.empty_folder(name, mode, owner)
    _unpack(engine, container, folder, body, f"create folder {posixpath.join(folder, name)!r}")


def _unpack(engine: EngineClient, container: str, folder: str, archive: Any, what: str) -> None:
    path = f"/containers/{container}/archive"
    engine.send("put", path, what=what, params={"path": folder}, body=archive, extra_timeout=_UNPACK_SECONDS)


def exists(engine: EngineClient, inspection: Inspection, path: str) -> bool:
    """Return whether a container has a file or folder, a link followed."""
    path = f"/containers/{inspection.id}/archive?path={quote_path(path)}"
    try:
        engine.send("head", path, what=f"look into {_label(inspection)}")
    except EngineError as error:
        if error.status != 404:
            raise
        return False
    return True


def is_empty_folder(engine: EngineClient, inspection: Inspection, path: str) -> bool:
    """Return whether a folder of a container has nothing in it."""
    what = f"look into {_label(inspection)}"
    with closing(_download(engine, inspection, path, what)) as download:
        members = _archive.Archive(download.read, what).members()
        with closing(members):
            next(members, None)
            return next(members, None) is None


def digest(files: Mapping[str, bytes | Path | File]) -> str:
    """
    Return a hash of the files that `place` would put into a container.

    It covers names, modes, owners, links and contents, but not times.
    """
    entries: list[tuple[str, bytes | Path | File]] = []
    for path, content in sorted(files.items()):
        entries.extend(
            [(path, content)] if not isinstance(content, Path) else _archive.tree(_source(content), path)
        )
    checksum = hashlib.sha256()
    for block in _archive.pack(entries, dated=False):
        checksum.update(block)
    return checksum.hexdigest()


def volume_of(inspection: Inspection, path: str) -> str:
    """
    Return the mount point that *path* lies in, else "/".

    Raises:
        InvalidOptionError: *path* is in memory. Docker's archives show the folder below such a mount: a file written
            there would be invisible to the container.
    """
    in_memory = _in_memory(inspection)
    mount_points = {*in_memory, *(mount.target for mount in inspection.mounts)}
    deepest = max(
        (point for point in mount_points if _validation.is_below(path, point)), key=len, default="/"
    )
    if deepest in in_memory:
        raise InvalidOptionError(
            f"cannot copy to or from {path!r}: {deepest!r} is kept in memory, where engines copy nothing",
            hint="use exec",
        )
    return deepest


def volume_for(inspection: Inspection, target: str, source: Path) -> str:
    """
    Return the mount point that *target* lies in, for a copy of *source*.

    Like `volume_of`, return "/" if there is none.

    Raises:
        InvalidOptionError: *target* is in memory, or part of *source* would be.
    """
    for folder in _in_memory(inspection):
        if folder == target or not _validation.is_below(folder, target):
            continue
        local = source / posixpath.relpath(folder, target)
        # Links in the source are copied as links, so nothing behind them is lost. Neither is an empty folder.
        is_copied = Path(os.path.realpath(local.parent)) == local.parent and os.path.lexists(local)
        if is_copied and not (local.is_dir() and not any(local.iterdir())):
            raise InvalidOptionError(
                f"cannot copy {os.fspath(local)!r} to {folder!r}: it is kept in memory, where engines copy nothing",
                hint="leave it out of the copy, and use exec for it",
            )
    return volume_of(inspection, target)


def _in_memory(inspection: Inspection) -> set[str]:
    return {*_ALWAYS_IN_MEMORY, *_tmpfs(inspection)}


def _tmpfs(inspection: Inspection) -> set[str]:
    """Return the paths of the tmpfs that the container was started with."""
    tmpfs = (mount.target for mount in inspection.mounts if mount.kind == "tmpfs")
    return {posixpath.normpath(path) for path in (*inspection.tmpfs, *tmpfs)}


def end_interrupted_transfers(container: str) -> None:
    """
    End the interrupted transfers into and out of a container.

    The caller, for instance a signal handler, has interrupted them. An engine keeps a container locked until it has
    received or sent the whole archive, which cannot happen before the handler returns. A removal would wait for that.

    Args:
        container: Its id.
    """
    connections: list[http.client.HTTPConnection] = []
    for module, frame in interrupted_frames():
        values = list(frame.f_locals.values())
        if module in _SENDING:
            connections += [value for value in values if isinstance(value, http.client.HTTPConnection)]
        elif module == __name__:
            copied = {
                value.id if isinstance(value, Inspection) else value
                for value in values
                if isinstance(value, (Inspection, str))
            }
            if container in copied:
                for connection in connections:
                    end_connection(connection)
                for value in values:
                    if isinstance(value, _Download):
                        end_stream(value.response)


def _label(inspection: Inspection) -> str:
    return _report.label(inspection.name, inspection.id)


def _source(src: str | os.PathLike[str]) -> Path:
    """Return *src*, or its target if the user named a link."""
    source = Path(os.path.realpath(src, strict=True))
    if not source.is_file() and not source.is_dir():
        raise InvalidOptionError(f"cannot copy {os.fspath(src)!r}: it is neither a file nor a folder")
    return source


def _incomplete(what: str, target: Path, refusals: list[str]) -> str:
    listed = "".join(f"\n  {refusal}" for refusal in refusals[:_LISTED_REFUSALS])
    rest = len(refusals) - _LISTED_REFUSALS
    more = f"\n  and {rest} more" if rest > 0 else ""
    return f"cannot {what} completely: these were refused, the rest is in {target}{listed}{more}"


def _path_stat(header: str) -> tuple[int, str]:
    """Return a path's mode in Go's notation and, for a link, its final target."""
    # Podman uses this alphabet. Docker's other one is read as well.
    stat = json.loads(base64.urlsafe_b64decode(header))
    return int(stat["mode"]), str(stat["linkTarget"])


def _resolve(engine: EngineClient, inspection: Inspection, path: str, what: str) -> tuple[str, bool]:
    """
    Return the target of a path that may be a link, and whether it is a folder.

    Raises:
        InvalidOptionError: It is in memory, or would be.
    """
    path = _locate(engine, inspection, path, what)
    mode, target = _stat(engine, inspection, path, what)
    return _resolve(engine, inspection, target, what) if mode & _LINK else (path, bool(mode & _FOLDER))


def _locate(engine: EngineClient, inspection: Inspection, path: str, what: str) -> str:
    """
    Return where a file or folder is; it may be a link itself.

    Links among the folders of the path are followed, as by `_follow_links`.

    Raises:
        InvalidOptionError: It is in memory. Engines follow a link into a tmpfs, but write below it.
    """
    folder, name = posixpath.split(_validation.parse_container_path("path", path))
    path = posixpath.join(_follow_links(engine, inspection, folder, what), name)
    volume_of(inspection, path)
    return path


def _follow_links(engine: EngineClient, inspection: Inspection, folder: str, what: str) -> str:
    """
    Return where a folder is if links are followed.

    Where the engine follows them as well, return *folder* itself: in a container without a tmpfs, unless the engine needs an
    archive for each mount.
    """
    tmpfs = _tmpfs(inspection)
    if not tmpfs and not (inspection.mounts and (inspection.is_read_only or engine.is_podman)):
        return folder
    real = "/"
    for name in filter(None, folder.split("/")):
        parent, real = real, posixpath.join(real, name)
        if any(_validation.is_below(parent, path) for path in tmpfs):
            continue  # Docker would describe what the tmpfs hides.
        mode, target = _stat(engine, inspection, real, what)
        if mode & _LINK:
            real = target
    return real


def _with_real_mounts(engine: EngineClient, inspection: Inspection, what: str) -> Inspection:
    """Return *inspection* with the links in its mount points followed."""
    mounts = (
        replace(mount, target=_follow_links(engine, inspection, mount.target, what))
        for mount in inspection.mounts
    )
    tmpfs = (_follow_links(engine, inspection, path, what) for path in inspection.tmpfs)
    return replace(inspection, mounts=tuple(mounts), tmpfs=tuple(tmpfs))


def _stat(engine: EngineClient, inspection: Inspection, path: str, what: str) -> tuple[int, str]:
    """Return what `_path_stat` does, with mode 0 for a path that does not exist."""
    try:
        response = engine.send(
            "head", f"/containers/{inspection.id}/archive", what=what, params={"path": path}
        )
    except EngineError as error:
        if error.status is None:
            raise
        # Podman refuses a link to a path that does not exist, but describes it.
        stat = header_of_refusal(error, _PATH_STAT)
        if not stat:
            return 0, ""  # it does not exist; any other refusal comes with a reason at the next request
    else:
        stat = response.headers.get(_PATH_STAT, "")
    with engine.translate_errors(what):
        return _path_stat(stat)


def _download(engine: EngineClient, inspection: Inspection, path: str, what: str) -> _Download:
    """
    Request a file or folder.

    If *path* is a link, it is followed within the container.
    """
    path = _locate(engine, inspection, path, what)
    response = engine.send(
        "get",
        f"/containers/{inspection.id}/archive",
        what=what,
        # With "/" alone, all names in the archive are absolute.
        params={"path": "/." if path == "/" else path},
        headers={"Accept-Encoding": "identity"},  # compression takes longer than the transfer
        stream=True,
    )
    try:
        with engine.translate_errors(what):
            mode, target = _path_stat(response.headers.get(_PATH_STAT, ""))
    except DockertestError:
        response.close()
        raise
    if mode & _LINK:
        response.close()
        return _download(engine, inspection, target, what)
    return _Download(engine, response, what, mode)


@dataclass(frozen=True)
class _Download:
    """
    The archive of a file or folder that an engine is sending.

    Attributes:
        mode: The mode of the file or folder, in Go's notation.
    """

    engine: EngineClient
    response: Any
    what: str
    mode: int

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes of the archive."""
        with self.engine.translate_errors(self.what):
            block: bytes = self.response.raw.read(size)
            return block

    def close(self) -> None:
        """Close the connection."""
        self.response.close()


def _upload(
    engine: EngineClient,
    inspection: Inspection,
    root: str,
    entries: Callable[[], Iterable[tuple[str, bytes | Path | File]]],
    what: str,
    *,
    mode: int = 0o644,
    error: type[DockertestError] = EngineError,
) -> None:
    """
    Unpack *entries* in *root*, a mount point of the container.

    The engine creates missing folders, owned by root and with mode 0755. The archive has no entries for them, since one
    for an existing folder such as `/tmp` would change its mode. *root* is the mount point because an engine refuses to
    unpack in "/" if the container's own file system is read-only.
    """

    def pack() -> Generator[bytes, None, None]:
        return _archive.pack(((name[len(root) :], content) for name, content in entries()), mode)

    put = partial(
        engine.send,
        "put",
        f"/containers/{inspection.id}/archive",
        what=what,
        # Without this parameter, a file sent in the place of a folder makes the engine remove that folder.
        params={"path": root, "noOverwriteDirNonDir": "true"},
        error=error,
    )
    with closing(pack()) as archive:
        try:
            put(body=archive)
        except DockertestError as failure:
            if not isinstance(failure, DockerUnavailableError):
                raise
            # An engine that refuses an upload before its end closes the connection, and over TLS its answer is lost
            # then. The beginning alone is refused for the same reason, and its answer arrives.
            with closing(pack()) as blocks:
                try:
                    put(body=_beginning(blocks))
                except DockertestError as refusal:
                    if "unexpected EOF" not in str(refusal):
                        raise
            raise error(f"cannot {what}: the engine closed the connection without a reason") from failure


def _beginning(blocks: Iterable[bytes]) -> bytes:
    """Return the beginning of an archive, with the header of at least one member."""
    beginning = bytearray()
    for block in blocks:
        beginning += block
        if len(beginning) >= _BEGINNING_BYTES:
            break
    return bytes(beginning)
