"""What this process has open, has started and leaves standing; the package's one mutable state of a module."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Protocol

from dockertest._cleanup.session import Belongings, Closable, Container, side_by_side
from dockertest._timeline import Timeline

log = logging.getLogger("dockertest")


class Owner(Closable, Protocol):
    """A pool, as far as its process has to know it."""

    _timeline: Timeline

    @property
    def _owned(self) -> Belongings: ...


class _Registry:
    """The open pools of this process, which exit and fork need; and what became of all pools, for whoever tells of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, Owner]] = {}
        self.lifelines: dict[str, Closable] = {}  # the reapers of this process, by engine
        self.timelines: list[Timeline] = []  # of all pools that made something
        self.kept: list[str] = []  # how to reach and remove what is left standing
        self._told: set[str] = set()
        atexit.register(self._close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._let_go)

    def add(self, pool: Owner) -> None:
        with self._lock:
            if id(pool) not in self._open:
                self.timelines.append(pool._timeline)
            self._open[id(pool)] = (os.getpid(), pool)

    def discard(self, pool: Owner) -> None:
        with self._lock:
            self._open.pop(id(pool), None)

    def _let_go(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it

    def is_news(self, text: str) -> bool:
        """Whether this process says something for the first time; from now on it is not."""
        with self._lock:
            said = text in self._told
            self._told.add(text)
            return not said

    def keep(self, told: str) -> None:
        """Say what is left standing: with `keep=True` or `DOCKERTEST_KEEP=1`, to somebody who looks at the screen."""
        self.kept.append(told)
        print(told, file=sys.stderr)

    def containers(self) -> list[Container]:
        """Give the containers of the pools that this process has open."""
        with self._lock:
            pools = [pool for pid, pool in self._open.values() if pid == os.getpid()]
        return [each for pool in pools for each in pool._owned.containers()]

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


def reports(containers: Sequence[Container], told: str) -> list[str]:
    """Say what became of each container, with the last lines of its log, but of those that *told* tells of already."""
    untold = {each.id: each for each in containers if f"docker logs {each.id[:12]}" not in told}
    found = side_by_side([each._reports for each in untold.values()])
    return [str(report) for each in found if not isinstance(each, Exception) for report in each]
