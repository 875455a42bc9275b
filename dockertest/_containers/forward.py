"""Passes the log of a container on while it runs: `RunOptions.log_to`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dockertest._concurrency import start_thread
from dockertest._containers.logs import FollowedLog
from dockertest._engine.client import EngineClient
from dockertest._options import LogTarget
from dockertest._report import clean, label
from dockertest.errors import DockertestError, InvalidOptionError

log = logging.getLogger("dockertest")

RECHECK_SECONDS = 1.0  # between two checks whether a container that has ended was started again
FINISH_SECONDS = 5.0  # that the target may take for the last lines when the container is closed
INTERRUPTION_SECONDS = 0.5  # the same in a signal handler, which may have interrupted the target
STEP_SECONDS = 0.05


def check_target(target: LogTarget) -> None:
    """
    Check that a file can be written to, before a container is created for nothing.

    Raises:
        InvalidOptionError: It cannot be opened.
    """
    try:
        Target(target).close()
    except OSError as error:
        raise InvalidOptionError(f"log_to: cannot open {str(target)!r}: {error.strerror}") from error


class Target:
    """
    Where the lines of a log go.

    Attributes:
        write: Called with each line.
        close: Called after the last one.
    """

    def __init__(self, target: LogTarget) -> None:
        """
        Open the file if *target* is a path.

        Raises:
            OSError: The file cannot be opened.
        """
        self.close: Callable[[], object] = lambda: None
        if isinstance(target, logging.Logger):
            logger = target
            # Terminals obey escape sequences, and a logger may lead to one.
            self.write: Callable[[str], object] = lambda line: logger.info("%s", clean(line))
        elif isinstance(target, Path):
            file = target.open("a", encoding="utf-8", buffering=1, newline="\n")
            self.write = lambda line: file.write(f"{line}\n")
            self.close = file.close
        else:
            self.write = target


class LogForwarder:
    """
    A thread that passes on the lines of one container's log until `finish`.

    It continues from one start of the container to the next. The engine stores the log, so a slow target never blocks the
    container.
    """

    def __init__(
        self, engine: EngineClient, container: str, target: LogTarget, *, tty: bool, since: float = 0.0
    ) -> None:
        """
        Start the thread.

        Args:
            since: The time of the first line to pass on, in seconds since the epoch; the first line of all by default.

        Raises:
            OSError: The target is a file that cannot be opened.
        """
        self._engine = engine
        self._label = label("", container)
        self._container = container
        self._target = Target(target)
        self._log = FollowedLog(engine, container, tty=tty, since=since)
        self._wake = threading.Event()  # set when there may be new lines, or there will be none
        self._has_warned = False
        self._finished_at = -1.0  # when the container had ended before its log was read
        self._thread = start_thread(self._run, "dockertest-log")
        if self._thread is None:
            self._target.close()
            log.warning("log_to: no thread can be started, so the log of %s is not passed on", self._label)

    def wake(self) -> None:
        """Look for new lines at once, because the container was started again."""
        self._wake.set()

    def finish(self, *, is_interruption: bool) -> None:
        """
        Pass on the lines that were written until now, and end.

        Args:
            is_interruption: Whether a signal handler calls this, so that it must not take long.
        """
        timeout = INTERRUPTION_SECONDS if is_interruption else FINISH_SECONDS
        self._log.is_last.set()
        self._wake.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():  # The target itself closes the container.
            return
        for _ in range(round(timeout / STEP_SECONDS)):
            self._log.end_following()  # It may be opening another one at this moment, so this is repeated.
            thread.join(STEP_SECONDS)
            if not thread.is_alive():
                return
        log.warning("log_to: the last lines of %s were not accepted within %g s", self._label, timeout)

    def _run(self) -> None:
        try:
            is_last_pass = False
            while self._follow() and not is_last_pass:  # The last pass begins after `finish` was called.
                if not self._log.is_last.is_set():
                    self._wake.wait(RECHECK_SECONDS)
                    self._wake.clear()
                is_last_pass = self._log.is_last.is_set()
        finally:
            with suppress(Exception):  # a full disk, for instance
                self._target.close()

    def _follow(self) -> bool:
        """Pass lines on until the container ends; return whether there may be more later."""
        try:
            if self._log.has_begun and not self._log.is_last.is_set() and self._has_nothing_new():
                return True
            for line in self._log.lines():
                self._write(line)
        except DockertestError as error:
            if getattr(error, "status", None) == 404:
                return False
            self._warn("reading the log failed: %s", error)
        return True

    def _has_nothing_new(self) -> bool:
        """
        Return whether the container has ended, and its log was read since.

        The container may have run in between.
        """
        inspection = self._engine.inspect(self._container)
        was_read = inspection.has_ended and inspection.finished_at == self._finished_at
        self._finished_at = inspection.finished_at
        return was_read

    def _write(self, line: str) -> None:
        try:
            self._target.write(line)
        except Exception as error:  # noqa: BLE001 - the target is the user's; the next line may succeed
            self._warn("a line was not accepted: %r", error)

    def _warn(self, problem: str, error: Exception) -> None:
        if not self._has_warned:
            log.warning(f"log_to: {self._label}: {problem}", error)  # noqa: G004 - one message for both problems
            self._has_warned = True
