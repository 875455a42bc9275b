"""
The open sessions of this process, and what it has to report at its end.

The sessions are closed at exit.

This is the package's one mutable state at module level. No method here takes a lock: a signal handler may call any of it
in the middle of any other, and single operations on a dict or list are atomic.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any, Protocol

from dockertest._report import Report, clean
from dockertest._timeline import Timeline

log = logging.getLogger("dockertest")

PLUGIN = "dockertest.pytest_plugin"


class Closable(Protocol):
    """Something that has to be closed before the interpreter ends."""

    def close(self) -> None: ...


class Reporting(Protocol):
    """A container, as far as its report is concerned."""

    @property
    def id(self) -> str: ...

    def report(self) -> Report: ...

    def keep_failed(self) -> None: ...


class OpenSession(Closable, Protocol):
    """A session of this process that has made something."""

    def containers(self) -> Iterable[Reporting]: ...


class PoolRegistry:
    """
    What all pools of this process have open and have done.

    Attributes:
        reaper_clients: The clients of the reapers of this process, by engine.
        timelines: The timelines of all pools that have made something, closed ones included.
        kept: Messages about containers and networks that were kept on purpose.
        placed_at: The engine of `DOCKERTEST_ENDPOINTS` that this process uses; empty if none.
        postponed: What is closed when the outcome of the running test is known.
        forwarders: Those of this process that let containers reach its host, by address and port.
        forwarders_lock: Held while these are opened or closed.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, OpenSession]] = {}  # by identity: the process id and the session
        self._messages: dict[str, object] = {}
        self.reaper_clients: dict[str, Closable] = {}
        self.timelines: list[Timeline] = []
        self.kept: list[str] = []
        self.placed_at = ""
        self.postponed: list[Closable] = []
        self.forwarders: dict[tuple[str, int], Any] = {}  # of a class in a layer above
        self.forwarders_lock = threading.RLock()
        atexit.register(self._close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_to_parent)

    def add(self, session: OpenSession, timeline: Timeline) -> None:
        """Close *session* at the end of this process unless it is discarded before."""
        if timeline not in self.timelines:
            self.timelines.append(timeline)
        self._open[id(session)] = (os.getpid(), session)

    def discard(self, session: OpenSession) -> None:
        """Forget a session that has been closed."""
        self._open.pop(id(session), None)

    def is_first(self, message: str) -> bool:
        """Return whether this process logs *message* for the first time."""
        token = object()
        return self._messages.setdefault(message, token) is token

    def keep(self, message: str) -> None:
        """Print how to reach and remove something that is left standing on purpose."""
        message = clean(message)
        self.kept.append(message)
        if (
            sys.stderr
        ):  # With the descriptor closed, as by 2>&-, it is None, and print would use standard output.
            print(message, file=sys.stderr)

    def postpones(self, owner: Closable, failure: BaseException, containers: Iterable[Reporting]) -> bool:
        """
        Keep the containers of a failed `with` body, or wait for its test's outcome.

        It waits if a test of pytest runs the body.

        The test may expect the failure. The plugin then calls `finish_test`.

        Args:
            owner: What the end of the body would close.
            failure: The body's.
            containers: What it had running.

        Returns:
            Whether *owner* is closed later.
        """
        is_judged_later = PLUGIN in sys.modules and "PYTEST_CURRENT_TEST" in os.environ  # noqa: TID251 - pytest sets it for each test
        if is_judged_later:
            self.postponed.append(owner)
        elif isinstance(failure, Exception) and "SkipTest" not in [
            base.__name__ for base in type(failure).__mro__
        ]:
            for container in containers:
                container.keep_failed()
        return is_judged_later

    def finish_test(self, *, failed: bool) -> None:
        """Keep what a failed test had running, and close everything that was postponed."""
        if failed:
            for container in self.containers():
                container.keep_failed()
        postponed, self.postponed = self.postponed, []
        for owner in postponed:
            try:
                owner.close()
            except Exception as error:  # noqa: BLE001 - the test's outcome is known, and its pool tries again
                log.error("%s", error)

    def containers(self) -> list[Reporting]:
        """Return the containers of the sessions that this process has open."""
        return [
            container
            for pid, session in list(self._open.values())
            if pid == os.getpid()
            for container in session.containers()
        ]

    def _leave_to_parent(self) -> None:
        """
        Forget the parent's engine and forwarders in a forked child.

        The child chooses an engine again, since it may be another worker. The forwarders belong to the parent.
        """
        self.placed_at = ""
        self.forwarders = {}
        self.forwarders_lock = threading.RLock()

    def _close_all(self) -> None:
        """
        Close what this process opened, newest first.

        A forked child leaves its parent's sessions alone.
        """
        for pid, session in reversed(list(self._open.values())):
            if pid == os.getpid():
                try:
                    session.close()
                except Exception as error:  # noqa: BLE001 - no caller is left, and the next session needs its turn
                    log.error("%s", error)
        for client in list(self.reaper_clients.values()):
            client.close()


registry = PoolRegistry()
