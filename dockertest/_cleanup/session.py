"""Who owns what: the labels on what is made, and what one pool has to remove."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from dockertest._retry import Watched
from dockertest.errors import (
    ContainerCreateError,
    ResourceClosedError,
)

T = TypeVar("T")

log = logging.getLogger("dockertest")

MANAGED = "dockertest.managed"
SESSION = "dockertest.session"
IDENTITY = "dockertest.identity"
EXPIRES = "dockertest.expires"
REUSE = "dockertest.reuse"
_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Closable(Protocol):
    """What has to be closed before the interpreter ends."""

    def close(self) -> None: ...


class Thing(Protocol):
    """The handle of a container or network, as far as its session has to know it."""

    id: str
    name: str
    _removed: bool


class Removable(Thing, Closable, Protocol):
    """What is removed by closing it."""


class Container(Removable, Watched, Protocol):
    """
    A container's handle, as far as its session has to know it.

    Attributes:
        _end_known: Whether its end was asked for, waited for, or told already; until it is started again.
    """

    _end_known: bool
    _expires: bool
    _reused: bool
    _was_ready: bool

    def _waited_for(self) -> AbstractContextManager[None]:
        """Take note of the first successful wait for it."""
        ...


class Belongings:
    """
    What one pool made in one process and has to remove: containers side by side, then the networks that they were in.

    Attributes:
        session: The random name that is written on all of it.
        closed: Whether nothing more is to be made.
        doubtful: Whether the engine may have made something that nobody was told of.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self.session = new_session()
        self.closed = closed
        self.doubtful = False
        self._changed = threading.Condition()
        self._containers: list[Container] = []  # one that is reused may be there twice
        self._networks: list[Removable] = []
        self._creating: list[int] = []  # by which threads

    def __len__(self) -> int:
        return len(self._containers) + len(self._networks)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Hold off a `close` while something is created, so that nothing is made behind its back."""
        with self._changed:
            self.check_open()
            self._creating.append(threading.get_ident())
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, ContainerCreateError) or getattr(error, "status", None) is not None
            self.doubtful = self.doubtful or not refused
            raise
        finally:
            with self._changed:
                self._creating.remove(threading.get_ident())
                self._changed.notify_all()

    def add_container(self, handle: Container) -> None:
        """Own a container."""
        with self._changed:
            self._containers.append(handle)

    def add_network(self, handle: Removable) -> None:
        """Own a network."""
        with self._changed:
            self._networks.append(handle)

    def forget(self, handle: Thing) -> None:
        """Stop caring for what was let go of; where it is gone, for other handles of it as well."""

        def is_left(each: Thing) -> bool:
            return each is not handle and not (handle._removed and each.id == handle.id)

        with self._changed:
            self._containers = [each for each in self._containers if is_left(each)]
            self._networks = [each for each in self._networks if is_left(each)]

    def owns_network(self, named: str) -> bool:
        """Whether a network, by its name or id, goes with this pool."""
        with self._changed:
            return any(named in (each.id, each.name) for each in self._networks)

    def containers(self) -> list[Container]:
        """Give the handles of the containers that are left, the oldest first."""
        with self._changed:
            return list(self._containers)

    def check_open(self) -> None:
        """
        Refuse to go on after the end.

        Raises:
            ResourceClosedError: The pool is closed.
        """
        if self.closed:
            raise ResourceClosedError("the pool is closed")

    def close(self, timeout: float) -> list[Exception]:
        """Remove everything, and give what could not be; wait up to *timeout* seconds for what is just being created."""
        with self._changed:
            self.closed = True
            # Not for this thread itself, which may be in the midst of it, and this a signal's handler.
            own = {threading.get_ident()}
            self._changed.wait_for(lambda: own.issuperset(self._creating), timeout=timeout)
            self.doubtful = self.doubtful or bool(self._creating)
        # Containers first: nothing that is in a network can be removed together with it.
        return [*self._close_all(lambda: self._containers), *self._close_all(lambda: self._networks)]

    def _close_all(self, things: Callable[[], Sequence[Closable]]) -> list[Exception]:
        """Go on as long as it helps: an engine may refuse to remove what another one still needs."""
        with self._changed:  # they may have grown
            calls = [each.close for each in reversed(things())]
        failures = [each for each in side_by_side(calls) if isinstance(each, Exception)]
        refused = any(getattr(each, "status", None) is not None for each in failures)
        return self._close_all(things) if refused and len(things()) < len(calls) else failures


def new_session() -> str:
    """Give a random name that no other session has."""
    return secrets.token_hex(16)


def labels(session: str, identity: str, ttl: float | None = None) -> dict[str, str]:
    """Give the labels for what a session makes; only something that has all but the last is one's own to remove."""
    found = {MANAGED: "true", SESSION: session, IDENTITY: identity}
    return found if ttl is None else {**found, EXPIRES: str(math.ceil(time.time() + ttl))}


def state_folder(environ: Mapping[str, str]) -> Path:
    """
    Give the folder for the locks of living sessions, the user's alone; made if it is not there.

    Where there is none that can be written to, a lock in what is given says why.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    home = Path(environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():  # the reaper works elsewhere, and XDG has a relative one ignored
        home = Path(os.path.expanduser("~/.local/state"))  # noqa: PTH111 - never raises; an unknown user's ~ stays
    folders = [home / "dockertest"] if home.is_absolute() else []
    with suppress(OSError):  # of a system that cannot be written to at all
        folders.append(Path(tempfile.gettempdir()) / f"dockertest-{user}")
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_ours = not hasattr(os, "getuid") or folder.stat().st_uid == user
            if is_ours and os.access(folder, os.W_OK):
                return folder
    return folders[0] if folders else Path(os.sep, "dockertest")


def side_by_side(calls: Sequence[Callable[[], T]], workers: int = 16) -> list[T | Exception]:
    """
    Make *calls* at the same time, and give what each returned or raised, in their order.

    While the interpreter ends no thread can be started any more: then they are made one after another.
    """
    results: list[T | Exception] = [RuntimeError("was not called")] * len(calls)
    todo = deque(range(len(calls)))

    def work() -> None:
        with suppress(IndexError):
            while True:
                make(todo.popleft())

    def make(index: int) -> None:
        try:
            results[index] = calls[index]()
        except Exception as error:  # noqa: BLE001 - given to the caller
            results[index] = error

    # No thread holds off the end of the interpreter: whoever presses Ctrl-C does not want to wait for the engine.
    threads = [
        threading.Thread(target=work, name="dockertest", daemon=True)
        for _ in range(min(workers, len(calls)) - 1)
    ]
    started = []
    try:
        for thread in threads:
            with suppress(RuntimeError):
                thread.start()
                started.append(thread)
        work()
        for thread in started:
            thread.join()
    finally:
        todo.clear()  # what was not begun is not begun after Ctrl-C
    return results


def own_container_ids(proc: Path = Path("/proc/self"), hostname: str | None = None) -> list[str]:
    """
    Give what may be the id of the container that this process runs in, the likeliest first.

    Only the mounts of the three files that every engine puts into a container tell it (cgroup v2 says nothing, and a
    host's list of mounts has other containers' ids in it); then cgroup v1; then the host name, unless it was changed.
    """
    found = [
        match
        for line in _lines(proc / "mountinfo")
        if len(line.split()) > 4 and line.split()[4] in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
        for match in _CONTAINER_ID.findall(line)
    ]
    found += [match for line in _lines(proc / "cgroup") for match in _CONTAINER_ID.findall(line)]
    short = socket.gethostname() if hostname is None else hostname
    return list(dict.fromkeys([*found, *([short] if re.fullmatch("[0-9a-f]{12}", short) else [])]))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
