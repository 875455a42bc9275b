"""A container as somebody holds it, and what the engine says of it. Asks; changes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from dockertest import _report, _retry
from dockertest._containers import logs as _logs
from dockertest._engine import sdk as _sdk
from dockertest._engine.client import Engine
from dockertest._engine.reachability import Standpoint
from dockertest._report import Report
from dockertest._timeline import Timeline
from dockertest.errors import (
    ContainerExitedError,
    DockertestError,
    EngineError,
    InvalidOptionError,
    ResourceClosedError,
)

T = TypeVar("T")


class Owner(Protocol):
    """What made a container, as far as the container has to know it."""

    max_wait: float
    keep: bool
    _timeline: Timeline
    _standpoint: Standpoint

    def _forget(self, handle: Handle) -> None:
        """Stop caring for a container that is gone."""

    def _expire(self, container: str, seconds: float | None) -> None:
        """Have a container removed when its time is up."""

    def _expired(self, container: str) -> None:
        """Forget the time of a container that is gone."""


@dataclass(eq=False, repr=False)
class Handle:
    """A container by its id, with what the engine said of it last."""

    id: str
    name: str
    container: _sdk.SdkContainer
    _engine: Engine
    _owner: Owner
    _image: str
    _borrowed: bool = False
    _end_known: bool = field(default=False, init=False)
    _expires: bool = field(default=False, init=False)
    _reused: bool = field(default=False, init=False)
    _keep: bool = field(default=False, init=False)
    _was_ready: bool = field(default=False, init=False)
    _removed: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _pid: int = field(default_factory=os.getpid, init=False)
    _after_removal: Callable[[], object] | None = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __repr__(self) -> str:
        return f"<Resource {self._image} {self.name!r} {self.id[:12]}{' (closed)' if self._closed else ''}>"

    @property
    def status(self) -> str:
        """The engine's word for the container's state, asked afresh: `"running"`, `"exited"`, …; `"removed"` if it is gone."""
        try:
            return str(self._refresh()["State"]["Status"])
        except EngineError as error:
            if error.status == 404:
                return "removed"
            raise

    @property
    def health(self) -> str:
        """What the health check says, asked afresh: `"starting"`, `"healthy"`, `"unhealthy"`; `"none"` where there is none."""
        return _report.health(self._refresh())

    def refresh(self) -> None:
        """Ask the engine for everything in `container` again."""
        self._check_open()
        self._refresh()

    def retry(
        self,
        op: Callable[[], T],
        *,
        max_wait: float | None = None,
        wait: _retry.Wait | None = None,
        max_attempts: int | None = None,
        on: _retry.ExceptionTypes = Exception,
        giveup: Callable[[BaseException], bool] | None = None,
    ) -> T:
        """
        Call *op* until it returns, and return what it returned; an end of this container ends the wait.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default. At least one call is made.
            wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`.
            max_attempts: Calls of *op* after which to give up.
            on: The exceptions that mean not yet; so does the value `False` itself.
            giveup: Asked about each failure; a true answer raises it at once.

        Raises:
            RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
            ContainerExitedError: The container has ended.
        """
        self._check_open()
        with self._waited_for():
            return _retry.retry(
                op,
                max_wait=self._owner.max_wait if max_wait is None else max_wait,
                wait=wait,
                max_attempts=max_attempts,
                on=on,
                giveup=giveup,
                watch=(self,),
            )

    def wait_healthy(self, max_wait: float | None = None) -> None:
        """
        Wait until the container's health check says that it is healthy.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: The container has no health check.
            RetryTimeoutError: It is not healthy in time.
            ContainerExitedError: It has ended.
        """

        def check() -> None:
            health = self.health
            if health == "none":
                raise InvalidOptionError(
                    f"{self._label} has no health check; give healthcheck=, or use retry"
                )
            if health != "healthy":
                raise EngineError(f"{self._label} is {health}")

        self.retry(check, max_wait=max_wait)

    @contextmanager
    def _waited_for(self) -> Iterator[None]:
        """Take note of the first successful wait: that is when the service was ready."""
        if self._was_ready:
            yield
            return
        with self._owner._timeline.step("ready", self._image) as step:
            step |= {"container": self.id, "name": self.name}
            yield
        self._was_ready = True

    def _refresh(self, within: float | None = None) -> dict[str, Any]:
        """Ask the engine what is the case now."""
        attrs = self._engine.inspect(self.id, within=within)
        self.container = self._engine.container(attrs)
        self.name = str(attrs["Name"]).lstrip("/")
        return attrs

    def _tell(self, attrs: dict[str, Any], within: float | None = None) -> Report:
        tty = bool((attrs.get("Config") or {}).get("Tty"))
        logs = _logs.last_lines(self._engine, self.id, tty=tty, within=within)
        return _report.report(attrs, self._image, logs)

    def _alive(self, within: float | None = None) -> dict[str, Any]:
        """Ask the engine what is the case now; raise `ContainerExitedError` if the container has ended, in whatever way."""
        try:
            attrs = self._refresh(within)
        except EngineError as error:
            if error.status != 404:
                raise
            raise ContainerExitedError.of(self._gone()) from error
        if has_ended(attrs):
            raise ContainerExitedError.of(self._tell(attrs, within))
        return attrs

    def _check_alive(self, within: float) -> None:
        """Raise `ContainerExitedError` if the container has ended; the engine's trouble says nothing about that."""
        try:
            self._alive(within)
        except ContainerExitedError:
            raise
        except DockertestError:
            pass

    def _reports(self) -> tuple[Report, ...]:
        try:
            return (self._tell(self._refresh(within=5), within=5),)
        except DockertestError as error:
            is_gone = getattr(error, "status", None) == 404
            return (self._gone() if is_gone else replace(self._gone(), status="unknown", error=str(error)),)

    def _gone(self) -> Report:
        return Report(name=self.name, id=self.id, image=self._image, status="removed")

    def _check_open(self) -> None:
        if self._closed:
            raise ResourceClosedError(f"{self._label} is closed")

    def _config(self, key: str) -> bool:
        self._check_open()
        return bool((self.container.attrs.get("Config") or {}).get(key))

    @property
    def _label(self) -> str:
        return _report.label(self.name, self.id)


def has_ended(attrs: dict[str, Any]) -> bool:
    """Whether the engine says that a container has ended."""
    return attrs["State"].get("Status") in _report.ENDED
