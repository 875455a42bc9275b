"""Who owns what: the labels on what is made, and the pools to close when the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")

log = logging.getLogger("dockertest")

MANAGED = "dockertest.managed"
SESSION = "dockertest.session"


class Closable(Protocol):
    """What has to be closed before the interpreter ends."""

    def close(self) -> None: ...


class _Registry:
    """The open pools of this process; the package's one mutable module state, since exit and fork need it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, Closable]] = {}
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


registry = _Registry()


def new_session() -> str:
    """Give a random name that no other session has."""
    return secrets.token_hex(16)


def labels(session: str) -> dict[str, str]:
    """Give the labels for what a session makes."""
    return {MANAGED: "true", SESSION: session}


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
