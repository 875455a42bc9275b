"""
Tar archives of files, packed and unpacked as they go: never whole in memory. Knows nothing of containers.

Nothing in an archive that is unpacked is trusted: what would be written outside of the target is refused. That takes no
help of `tarfile`, since not every Python that we support has its filters.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from dockertest._engine.sdk import border
from dockertest.errors import EngineError

log = logging.getLogger("dockertest")

Entries = Iterable[tuple[str, "bytes | Path"]]
BLOCK = 1 << 18
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_NAME_ON_WINDOWS = re.compile(
    r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE | re.ASCII
)


def pack(entries: Entries, mode: int = 0o644, *, dated: bool = True) -> Generator[bytes, None, None]:
    """
    Give an archive piece by piece, all in it owned by root.

    Args:
        entries: A path in the container with what to put there: bytes, or a local file, folder or link as it is,
            without what is in it. A link is never followed.
        mode: The mode of files made from bytes; local ones keep theirs.
        dated: Whether the times of files are told; without them the same content gives the same archive.
    """
    for name, content in entries:
        if isinstance(content, Path):
            yield from _pack_path(name, content, dated)
        else:
            yield _header(name, mode, time.time() if dated else 0, size=len(content))
            yield from (content[start : start + BLOCK] for start in range(0, len(content), BLOCK))
            yield _padding(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def tree(source: Path, name: str, *, with_top: bool = True) -> Iterator[tuple[str, Path]]:
    """Give a local file or folder as entries for `pack`, with all that is in it; a link is given, never followed."""
    if with_top:
        yield name, source
    if source.is_dir() and not source.is_symlink():
        for each in sorted(source.iterdir()):
            yield from tree(each, f"{name.rstrip('/')}/{each.name}")


def _pack_path(name: str, path: Path, dated: bool) -> Iterator[bytes]:
    status = path.lstat()
    mtime = status.st_mtime if dated else 0
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_LINK)) as file:
            status = os.fstat(file.fileno())
            yield _header(name, status.st_mode, mtime, size=status.st_size)
            yield from _exactly(status.st_size, file)
            yield _padding(status.st_size)
    elif stat.S_ISDIR(status.st_mode):
        yield _header(name, status.st_mode, mtime, kind=tarfile.DIRTYPE)
    elif stat.S_ISLNK(status.st_mode):
        yield _header(name, 0o777, mtime, kind=tarfile.SYMTYPE, link=str(path.readlink()))
    else:
        log.warning("%s is not copied: a device, pipe or socket", path)


def _header(
    name: str, mode: int, mtime: float, *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> bytes:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.mode, info.size, info.mtime = stat.S_IMODE(mode), size, int(mtime)
    info.type, info.linkname = kind, link
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _exactly(size: int, file: IO[bytes]) -> Iterator[bytes]:
    """Give as much of *file* as its header has said, whatever is written to it meanwhile."""
    while size:
        block = file.read(min(size, BLOCK))
        if not block:
            raise OSError(f"{file.name} became shorter while it was copied")
        size -= len(block)
        yield block


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


class Archive:
    """An archive that comes from *read*, as many bytes as it is asked for; errors say *what* was being done."""

    def __init__(self, read: Callable[[int], bytes], what: str) -> None:
        self._read = read
        self._what = what
        self._last = b""

    def members(self) -> Generator[tarfile.TarInfo, None, None]:
        """
        Give its members in their order.

        Raises:
            EngineError: It is no archive, or not a whole one.
        """
        with border(None, self._what), _open(self) as self._tar:
            for member in self._tar:
                self._tar.members.clear()  # all of them would be kept there
                yield member
            while self.read(BLOCK):
                pass
            if any(self._last) or not self._last:  # `tarfile` takes rubbish, and nothing, for an end
                raise EngineError(f"cannot {self._what}: the archive broke off")

    def blocks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Give what is in the file that `members` gave last."""
        with border(None, self._what):
            file = self._tar.extractfile(member)
            while block := file.read(BLOCK):
                yield block

    def read(self, size: int) -> bytes:
        """Read on; what `tarfile` calls."""
        block = self._read(size)
        self._last = block[-tarfile.BLOCKSIZE :] or self._last
        return block


def _open(archive: Any) -> Any:  # `tarfile` wants less than its types say, and has more
    return tarfile.open(fileobj=archive, mode="r|", encoding="utf-8", errors="surrogateescape")


def unpack(archive: Archive, target: Path, *, rebase: bool = True) -> list[str]:
    """
    Write the first member of *archive* as *target*, and what it says is in there below it.

    Nothing is written anywhere else: no name leads out, nothing is written through a link, since links are made when all
    else is done, and none is made that leads out. Bits such as set-uid are dropped. Devices and pipes are left out, with
    a warning.

    Args:
        target: A path whose parent is there, and that is no link.
        rebase: Without it, *target* stands for the folder that all members are in.

    Returns:
        What was refused, and why; everything else has been written.

    Raises:
        EngineError: The archive is broken.
        OSError: A local file cannot be written.
    """
    unpacking = _Unpacking(archive, target, None if rebase else ())
    with closing(archive.members()) as members:
        for member in members:
            unpacking.take(member)
    unpacking.finish()
    return unpacking.refused


class _RefusedError(EngineError):
    """A member that may not be written, and why."""


class _Unpacking:
    def __init__(self, archive: Archive, target: Path, top: tuple[str, ...] | None) -> None:
        self.refused: list[str] = []
        self._archive = archive
        self._target = target
        self._top = top
        self._links: list[tuple[str, tuple[str, ...], str]] = []
        self._folders: list[tuple[Path, int]] = []

    def take(self, member: tarfile.TarInfo) -> None:
        """Write a member, or put it down as refused."""
        try:
            parts = self._below(member.name)
            if member.isdir():
                self._make_folder(self._place(parts), member.mode & 0o777)
            elif member.isreg():
                self._make_file(self._place(parts), member)
            elif member.issym():
                self._links.append((member.name, parts, checked_link(member.linkname, len(parts) - 1)))
            elif member.islnk():
                self._make_hard_link(self._place(parts), self._below(member.linkname))
            elif member.isdev():
                log.warning("%r is not copied: a device or pipe", member.name)
            else:
                raise _RefusedError("it is of an unknown kind")
        except _RefusedError as why:
            self.refused.append(f"{member.name!r}: {why}")

    def finish(self) -> None:
        """Make the links, when nothing is left that could be written through them, and then the folders' modes."""
        for name, parts, link in self._links:
            try:
                path = self._place(parts)
                _make_way(path)
                path.symlink_to(link, target_is_directory=(path.parent / link).is_dir())
            except _RefusedError as why:
                self.refused.append(f"{name!r}: {why}")
        for folder, mode in reversed(self._folders):
            folder.chmod(mode)

    def _below(self, name: str) -> tuple[str, ...]:
        """Give a member's name, from the target on."""
        parts = checked_name(name)
        if self._top is None:
            self._top = parts
        if parts[: len(self._top)] != self._top:
            raise _RefusedError("it is no part of what was asked for")
        return parts[len(self._top) :]

    def _place(self, parts: tuple[str, ...]) -> Path:
        """Give the path for a member, the folders above it made where they are missing."""
        path = self._target
        for part in parts:
            self._make_folder(path, 0o755)
            path /= part
        return path

    def _make_folder(self, path: Path, mode: int) -> None:
        try:
            path.mkdir(0o700)
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise _RefusedError(f"{str(path)!r} is no folder") from None
        else:
            self._folders.append((path, mode))  # set in the end: a read-only one would take nothing in

    def _make_file(self, path: Path, member: tarfile.TarInfo) -> None:
        _make_way(path)
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for block in self._archive.blocks(member):
                file.write(block)
        path.chmod(member.mode & 0o777)

    def _make_hard_link(self, path: Path, parts: tuple[str, ...]) -> None:
        source = self._place(parts)
        if source.is_symlink() or not source.is_file():
            raise _RefusedError(f"it is another name of {str(source)!r}, which is no file")
        if path != source:
            _make_way(path)
            try:
                path.hardlink_to(source)
            except OSError:  # not every file system has them
                shutil.copy(source, path)


def checked_name(name: str, *, windows: bool = os.name == "nt") -> tuple[str, ...]:
    """Take a member's name apart; refuse one that could mean anything but a path below the target."""
    if name.startswith("/"):
        raise _RefusedError("its name is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _RefusedError("its name leads out of the target")
    if "\0" in name or (windows and any(_NO_NAME_ON_WINDOWS.search(part) for part in parts)):
        raise _RefusedError("its name is none that this system has")
    return parts


def checked_link(link: str, depth: int, *, windows: bool = os.name == "nt") -> str:
    """
    Refuse a link that could lead out of the target, from a folder *depth* below it.

    Upwards it may go at its beginning alone, where it starts from a real folder: after a name, which may be a link too,
    nobody can tell where `..` leads before all links are made. So no link leads out, and none by way of another.
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    names = [part for part in parts if part != ".."]
    ups = len(parts) - len(names)
    if not link or link.startswith("/") or ups > depth or parts[ups:] != names:
        raise _RefusedError(f"its link may lead out of the target: {link!r}")
    checked_name("/".join(names), windows=windows)
    return link


def _make_way(path: Path) -> None:
    """Take away the file or link that is there: nothing is written through a link, or into a file with other names."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif os.path.lexists(path):
        raise _RefusedError(f"{str(path)!r} is there, and no file")
