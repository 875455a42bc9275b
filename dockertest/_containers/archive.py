"""
Tar archives of local files, packed and unpacked as a stream.

This module does not depend on containers. An archive from an engine is not trusted: members that would be written outside
of the target are refused. The checks are our own, since `tarfile` writes a link before later members that could lead
through it, and its filters could be bypassed that way: https://github.com/python/cpython/issues/135034. Here links are made
last.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from dockertest import _clock
from dockertest._engine.sdk import translate_errors
from dockertest._options import File
from dockertest._validation import Content
from dockertest.errors import EngineError

log = logging.getLogger("dockertest")

Entries = Iterable[tuple[str, "bytes | Path | File"]]
BLOCK_BYTES = 1 << 18
_TRUNCATED = ("unexpected end of data", "truncated header", "empty file")  # what `tarfile` reports
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_INVALID_ON_WINDOWS = re.compile(
    r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE | re.ASCII
)


def pack(entries: Entries, mode: int = 0o644, *, dated: bool = True) -> Generator[bytes, None, None]:
    """
    Yield an archive in pieces.

    Everything in it is owned by root, except for a `File` of another owner.

    Args:
        entries: Paths in the archive and what to store there: bytes, a `File`, or a local file, folder or link as it is, without
            what is in it. A link is never followed.
        mode: The mode of files made from bytes; local files keep theirs, and have 0755 on Windows.
        dated: Whether to store modification times; without them, the same content yields the same archive.

    Raises:
        OSError: A local file cannot be read.
    """
    for name, content in entries:
        if isinstance(content, Path):
            yield from _pack_path(name, content, dated)
        else:
            file = content if isinstance(content, File) else File(content, mode)
            data = cast("Content", file.data)
            yield _header(name, file.mode, _clock.time() if dated else 0, size=len(data), owner=file.owner)
            yield from (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))
            yield from _padding(len(data))
    yield bytes(2 * tarfile.BLOCKSIZE)


def tree(source: Path, name: str, *, with_top: bool = True) -> Iterator[tuple[str, Path]]:
    """
    Yield a local file or folder and everything in it as entries for `pack`.

    Links are not followed.
    """
    pending = [(source, name)]  # no recursion: a folder may be deeper than Python's stack
    while pending:
        path, name = pending.pop()
        if with_top or path is not source:
            yield name, path
        if path.is_dir() and not path.is_symlink():
            children = sorted(path.iterdir(), reverse=True)
            pending += [(child, f"{name.rstrip('/')}/{child.name}") for child in children]


def empty_file(name: str) -> bytes:
    """Return an empty file as a member of an archive."""
    return _header(name, 0o600, 0)


def empty_folder(name: str, mode: int, owner: tuple[int, int]) -> bytes:
    """Return an archive with an empty folder of *owner*, a user id and a group id."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, (info.uid, info.gid) = tarfile.DIRTYPE, mode, owner
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + bytes(2 * tarfile.BLOCKSIZE)


def _pack_path(name: str, path: Path, dated: bool) -> Iterator[bytes]:
    status = path.lstat()
    mtime = status.st_mtime if dated else 0
    mode = status.st_mode if os.name != "nt" else 0o755  # Windows knows no executable bit
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NOFOLLOW)) as file:
            status = os.fstat(file.fileno())
            yield _header(name, mode, mtime, size=status.st_size)
            yield from _read_exactly(status.st_size, file)
            yield from _padding(status.st_size)
    elif stat.S_ISDIR(status.st_mode):
        yield _header(name, mode, mtime, kind=tarfile.DIRTYPE)
    elif stat.S_ISLNK(status.st_mode):
        yield _header(name, 0o777, mtime, kind=tarfile.SYMTYPE, link=path.readlink().as_posix())
    else:
        log.warning("%s is a device, pipe or socket and was not copied", path)


def _header(
    name: str,
    mode: int,
    mtime: float,
    *,
    size: int = 0,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    owner: str = "0:0",
) -> bytes:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.mode, info.size, info.mtime = stat.S_IMODE(mode), size, int(mtime)
    info.type, info.linkname = kind, link
    info.uid, info.gid = map(int, owner.split(":"))
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _read_exactly(size: int, file: IO[bytes]) -> Iterator[bytes]:
    """Yield *size* bytes of *file*, as its header announced, even if it grows."""
    while size:
        block = file.read(min(size, BLOCK_BYTES))
        if not block:
            raise OSError(f"{file.name} became shorter while it was copied")
        size -= len(block)
        yield block


def _padding(size: int) -> Iterator[bytes]:
    """
    Yield the zero bytes that fill up the last block of a file.

    Never yield an empty block: requests before 2.29 ends the body there.
    """
    if missing := -size % tarfile.BLOCKSIZE:
        yield bytes(missing)


class Archive:
    """
    An archive that is read as a stream.

    Args:
        read: Returns up to as many bytes as it is asked for.
        what: The operation, for error messages.
    """

    def __init__(self, read: Callable[[int], bytes], what: str) -> None:
        self._read = read
        self._what = what
        self._last = b""

    def members(self) -> Generator[tarfile.TarInfo, None, None]:
        """
        Yield the members in their order.

        Raises:
            EngineError: It is not an archive, or it is truncated.
        """
        with translate_errors(None, self._what), self._checking_length(), _open(self) as self._tar:
            for member in self._tar:
                self._tar.members.clear()  # `tarfile` would keep them all
                yield member
            while self.read(BLOCK_BYTES):
                pass
            if any(self._last) or not self._last:  # `tarfile` accepts garbage, and nothing, as the end
                raise self._truncated()

    def blocks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """
        Yield the content of the file that `members` yielded last.

        It has at most as many bytes as the archive contains.
        """
        if member.issparse():
            raise EngineError(
                f"cannot {self._what}: {member.name!r} is a sparse file, which engines never send"
            )
        with translate_errors(None, self._what), self._checking_length():
            file = self._tar.extractfile(member)
            while block := file.read(BLOCK_BYTES):
                yield block

    def read(self, size: int) -> bytes:
        """Return the next bytes; called by `tarfile`."""
        block = self._read(size)
        self._last = block[-tarfile.BLOCKSIZE :] or self._last
        return block

    @contextmanager
    def _checking_length(self) -> Iterator[None]:
        try:
            yield
        except tarfile.ReadError as error:
            if str(error) not in _TRUNCATED:
                raise
            raise self._truncated() from error

    def _truncated(self) -> EngineError:
        return EngineError(
            f"cannot {self._what}: the engine sent a truncated archive",
            hint="a file may have changed while it was copied; try again, or pause the container",
        )


def _open(
    archive: Any,
) -> Any:  # the types of `tarfile` demand a whole file object; a stream needs `read` alone
    return tarfile.open(fileobj=archive, mode="r|", encoding="utf-8", errors="surrogateescape")


def with_owners(
    archive: Archive, change: Callable[[int, int], tuple[int, int]]
) -> Generator[bytes, None, None]:
    """
    Yield *archive* in pieces, with the owners that *change* returns.

    *change* receives the ids of a user and a group, and returns the new ones.
    """
    with closing(archive.members()) as members:
        for member in members:
            member.uid, member.gid = change(member.uid, member.gid)
            # Ids that do not fit into the header are in these records too, which `tarfile` would write again.
            member.pax_headers = {
                key: value for key, value in member.pax_headers.items() if key not in ("uid", "gid")
            }
            yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if member.isreg():
                yield from archive.blocks(member)
                yield from _padding(member.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(archive: Archive, target: Path, *, rebase: bool = True) -> list[str]:
    """
    Unpack *archive* so that its first member becomes *target*.

    The members inside of the first one are written below *target*. Nothing is written anywhere else. Names that lead out
    are refused. Links that may lead out are refused too; the others are made last, so that nothing is written through a
    link. Set-uid, set-gid and sticky bits are dropped. Devices and pipes are skipped with a warning.

    Args:
        target: A path whose parent exists, and that is not a link.
        rebase: If false, *target* stands for the folder that all members are in.

    Returns:
        What was refused, and why. Everything else has been written.

    Raises:
        EngineError: The archive is invalid or truncated.
        OSError: A local file cannot be written.
    """
    unpacking = _Unpacking(archive, target, None if rebase else ())
    with closing(archive.members()) as members:
        for member in members:
            unpacking.add(member)
    unpacking.finish()
    return unpacking.refusals


class _RefusedError(EngineError):
    """A member must not be written; the message is the reason."""


class _Unpacking:
    def __init__(self, archive: Archive, target: Path, top: tuple[str, ...] | None) -> None:
        self.refusals: list[str] = []
        self._archive = archive
        self._target = target
        self._top = top
        self._is_rooted = False
        self._links: list[tuple[str, tuple[str, ...], str]] = []
        self._folders: list[tuple[Path, int]] = []
        # Real folders in the target, which no member can replace. Checking them for each member would take minutes.
        self._known: dict[tuple[str, ...], Path] = {}

    def add(self, member: tarfile.TarInfo) -> None:
        """Write a member, or record why it is refused."""
        try:
            parts = self._below_target(member.name)
            if member.isdir():
                self._make_folder(self._path(parts), member.mode & 0o777)
            elif member.issparse():
                raise _RefusedError("it is a sparse file, whose size the archive does not limit")
            elif member.isreg():
                self._make_file(self._path(parts), member)
            elif member.issym():
                self._links.append((member.name, parts, checked_link(member.linkname, len(parts) - 1)))
            elif member.islnk():
                self._make_hard_link(self._path(parts), self._below_target(member.linkname))
            elif member.isdev():
                log.warning("%r is a device or pipe and was not copied", member.name)
            else:
                raise _RefusedError("unknown type of member")
        except _RefusedError as reason:
            self.refusals.append(f"{member.name!r}: {reason}")

    def finish(self) -> None:
        """
        Make the links, and set the modes of folders.

        This is done last, so that nothing can be written through a link.
        """
        for name, parts, link in self._links:
            try:
                path = self._path(parts)
                _clear(path)
                path.symlink_to(
                    local_name(link), target_is_directory=(path.parent / local_name(link)).is_dir()
                )
            except _RefusedError as reason:
                self.refusals.append(f"{name!r}: {reason}")
        for folder, mode in reversed(self._folders):
            folder.chmod(mode)

    def _below_target(self, name: str) -> tuple[str, ...]:
        """Return the parts of a member's name below the target."""
        if self._top is None:
            # Podman names the members "" and "/…" if the request was a volume of a container that does not run.
            self._is_rooted = not name
            self._top = checked_name(name)
        parts = checked_name(name.removeprefix("/") if self._is_rooted else name)
        if parts[: len(self._top)] != self._top:
            raise _RefusedError("it is not part of the request")
        return parts[len(self._top) :]

    def _path(self, parts: tuple[str, ...]) -> Path:
        """Return the local path of a member, and create missing folders above it."""
        return self._folder(parts[:-1]) / local_name(parts[-1]) if parts else self._target

    def _folder(self, parts: tuple[str, ...]) -> Path:
        """Return the local path of a folder, and create it and those above it."""
        missing: list[str] = []
        while parts and parts not in self._known:
            missing.append(parts[-1])
            parts = parts[:-1]
        if parts not in self._known:
            self._make_folder(self._target, 0o755)
            self._known[parts] = self._target
        path = self._known[parts]
        for name in reversed(missing):
            parts, path = (*parts, name), path / local_name(name)
            self._make_folder(path, 0o755)
            self._known[parts] = path
        return path

    def _make_folder(self, path: Path, mode: int) -> None:
        try:
            path.mkdir(0o700)
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise _RefusedError(f"{str(path)!r} exists and is not a folder") from None
        else:
            self._folders.append((path, mode))  # set at the end: a read-only folder would take nothing in

    def _make_file(self, path: Path, member: tarfile.TarInfo) -> None:
        _clear(path)
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for block in self._archive.blocks(member):
                file.write(block)
        path.chmod(member.mode & 0o777)

    def _make_hard_link(self, path: Path, parts: tuple[str, ...]) -> None:
        source = self._path(parts)
        if source.is_symlink() or not source.is_file():
            raise _RefusedError(f"it is a hard link to {str(source)!r}, which is not a file")
        if path != source:
            _clear(path)
            try:
                path.hardlink_to(source)
            except OSError:  # not every file system supports hard links
                shutil.copy(source, path)


def local_name(name: str) -> str:
    """
    Return a name in an archive in the encoding of the file system.

    Archives use UTF-8. With the locale C, the encoding of the file system can be ASCII.
    """
    return name if os.name == "nt" else os.fsdecode(name.encode("utf-8", "surrogateescape"))


def checked_name(name: str, *, windows: bool = os.name == "nt") -> tuple[str, ...]:
    """
    Return the parts of a member's name, or refuse an unsafe name.

    A name is unsafe if it could be anything but a path below the target.
    """
    if name.startswith("/"):
        raise _RefusedError("its name is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _RefusedError("its name leads out of the target")
    if "\0" in name or (windows and any(_INVALID_ON_WINDOWS.search(part) for part in parts)):
        raise _RefusedError("its name is invalid on this system")
    return parts


def checked_link(link: str, depth: int, *, windows: bool = os.name == "nt") -> str:
    """
    Return *link*, or refuse it if it could lead out of the target.

    The link is in a folder *depth* levels below the target. It may go up only at its beginning, where it starts from a real
    folder. After a name, which may be another link, it is unknown where `..` leads until all links are made. So no link
    leads out, and no combination of links does.
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    names = [part for part in parts if part != ".."]
    ups = len(parts) - len(names)
    if not link or link.startswith("/") or ups > depth or parts[ups:] != names:
        raise _RefusedError(f"its link may lead out of the target: {link!r}")
    checked_name("/".join(names), windows=windows)
    return link


def _clear(path: Path) -> None:
    """
    Remove an existing file or link.

    Writing into it could follow the link, or change the file's other names.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif os.path.lexists(path):
        raise _RefusedError(f"{str(path)!r} exists and is not a file")
