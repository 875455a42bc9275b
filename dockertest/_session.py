"""Who owns what: the labels on what is made, and the pools to close when the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from dockertest._engine import Engine
from dockertest._retry import Watched
from dockertest.errors import (
    ContainerCreateError,
    ContainerExitedError,
    DockertestError,
    ResourceClosedError,
)

T = TypeVar("T")

log = logging.getLogger("dockertest")

MANAGED = "dockertest.managed"
SESSION = "dockertest.session"
IDENTITY = "dockertest.identity"
EXPIRES = "dockertest.expires"
_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Closable(Protocol):
    """What has to be closed before the interpreter ends."""

    def close(self) -> None: ...


class Container(Closable, Watched, Protocol):
    """A container's handle, as far as its session has to know it."""

    id: str
    _end_expected: bool
    _expires: bool


class Belongings:
    """
    What one pool made and has to remove: containers side by side, then the networks that they were in.

    A forked child inherits the list, but nothing on it is its own.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._containers: dict[str, Container] = {}
        self._networks: dict[str, Closable] = {}
        self._creating = 0
        self._pid = os.getpid()
        self.closed = False
        self.doubtful = False  # whether the engine may have made something that nobody was told of

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the one that made these things."""
        return self._pid != os.getpid()

    def __len__(self) -> int:
        return len(self._containers) + len(self._networks)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Hold off a `close` while something is created, so that nothing is made behind its back."""
        with self._changed:
            self.check_open()
            self._creating += 1
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, ContainerCreateError) or getattr(error, "status", None) is not None
            self.doubtful = self.doubtful or not refused
            raise
        finally:
            with self._changed:
                self._creating -= 1
                self._changed.notify_all()

    def add_container(self, container: str, handle: Container) -> None:
        """Own a container, by its id."""
        with self._changed:
            self._containers[container] = handle

    def add_network(self, network: str, handle: Closable) -> None:
        """Own a network, by its id."""
        with self._changed:
            self._networks[network] = handle

    def forget(self, each: str) -> None:
        """Stop caring for something that is gone."""
        with self._changed:
            self._containers.pop(each, None)
            self._networks.pop(each, None)

    def containers(self) -> list[Container]:
        """Give the handles of the containers that are left, the oldest first."""
        with self._changed:
            return list(self._containers.values())

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
            self._changed.wait_for(lambda: not self._creating, timeout=timeout)
        failures: list[Exception] = []
        for things in (self._containers, self._networks):
            with self._changed:
                calls = [each.close for each in reversed(list(things.values()))]
            failures += [each for each in side_by_side(calls) if isinstance(each, Exception)]
        return failures


class Watch:
    """Look after all containers of a session at once, for an end with a failure; tell each death once."""

    def __init__(self, engine: Engine, session: str, belongings: Belongings) -> None:
        self._engine = engine
        self._label = f"{SESSION}={session}"
        self._belongings = belongings
        self._told: set[str] = set()

    def _check_alive(self, within: float) -> None:
        """One list takes the engine 2 to 3 ms, for however many containers; only what is dead is asked about."""
        watched = [
            each
            for each in self._belongings.containers()
            if each.id not in self._told and not each._end_expected
        ]
        try:
            listed = self._engine.containers([self._label], within=within) if watched else []
        except DockertestError:
            return  # the engine's trouble says nothing about the containers
        states = {each["Id"]: each.get("State") for each in listed}
        for container in watched:
            state = states.get(container.id, "removed")
            if state in ("exited", "dead", "removed"):
                self._told.add(container.id)
                if state == "removed" and container._expires:
                    continue  # its time was up, as its user wanted
                try:
                    container._check_alive(within)
                except ContainerExitedError as error:
                    if error.exit_code != 0:
                        raise

    def _evidence(self) -> str:
        return "\n".join(each._evidence() for each in self._belongings.containers())


class _Registry:
    """The open pools of this process; the package's one mutable module state, since exit and fork need it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, Closable]] = {}
        self.lifelines: dict[str, Closable] = {}  # the reapers of this process, by engine
        atexit.register(self._close_all)

    def add(self, pool: Closable) -> None:
        with self._lock:
            self._open[id(pool)] = (os.getpid(), pool)

    def discard(self, pool: Closable) -> None:
        with self._lock:
            self._open.pop(id(pool), None)

    def _close_all(self) -> None:
        """Close what this process opened, the newest first; a forked child leaves its parent's alone."""
        for pid, pool in reversed(list(self._open.values())):
            if pid == os.getpid():
                try:
                    pool.close()
                except Exception as error:  # noqa: BLE001 - nobody is left to catch it, and the next pool has its turn
                    log.error("%s", error)
        for lifeline in self.lifelines.values():
            lifeline.close()


registry = _Registry()


def new_session() -> str:
    """Give a random name that no other session has."""
    return secrets.token_hex(16)


def labels(session: str, identity: str, ttl: float | None = None) -> dict[str, str]:
    """Give the labels for what a session makes; only something that has all but the last is one's own to remove."""
    found = {MANAGED: "true", SESSION: session, IDENTITY: identity}
    return found if ttl is None else {**found, EXPIRES: str(math.ceil(time.time() + ttl))}


def side_by_side(calls: Sequence[Callable[[], T]], workers: int = 16) -> list[T | Exception]:
    """
    Make *calls* at the same time, and give what each returned or raised, in their order.

    While the interpreter ends no thread can be started any more: then they are made one after another.
    """
    results: list[T | Exception] = [RuntimeError("was not called")] * len(calls)
    todo = iter(range(len(calls)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(todo, None)
            if index is None:
                return
            try:
                results[index] = calls[index]()
            except Exception as error:  # noqa: BLE001 - given to the caller
                results[index] = error

    threads = [threading.Thread(target=work, name="dockertest") for _ in range(min(workers, len(calls)) - 1)]
    started = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:
            break
        started.append(thread)
    work()
    for thread in started:
        thread.join()
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
