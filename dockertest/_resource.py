"""A running container, as the user holds it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from typing_extensions import Self

from dockertest import _engine, _logs, _report, _retry, _specs
from dockertest._engine import Engine
from dockertest.errors import DockertestError, EngineError, PortNotPublishedError, ResourceClosedError

T = TypeVar("T")


class Owner(Protocol):
    """What made a container, as far as the container has to know it."""

    max_wait: float

    def forget(self, resource: Resource) -> None:
        """Stop caring for a container that is gone."""


@dataclass(eq=False, repr=False)
class Resource:
    """
    One container.

    A container that a pool started is removed, with its anonymous volumes, by `close()`, at the end of a `with`, when
    the pool is closed, and when the interpreter ends. A borrowed one (found by its name) is only let go of.

    Attributes:
        id: The container's full id.
        name: Its name.
        container: The docker SDK's `Container`, fresh after every method here that changes it.
    """

    id: str
    name: str
    container: _engine.SdkContainer
    _engine: Engine
    _owner: Owner
    _image: str
    _borrowed: bool = False
    _closed: bool = field(default=False, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __repr__(self) -> str:
        return f"<Resource {self._image} {self.name!r} {self.id[:12]}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_port(self, port: str | int) -> int:
        """
        Give the port to connect to from here.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[1]

    def get_bound_ip(self, port: str | int) -> str:
        """
        Give the address to connect to from here, without the port.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[0]

    def get_host_port(self, port: str | int) -> str:
        """
        Give address and port to connect to from here: `"127.0.0.1:49153"`, an IPv6 address in brackets.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            ContainerExitedError: The container has ended.
        """
        host, number = self._address(port)
        return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"

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
        return _retry.retry(
            op,
            max_wait=self._owner.max_wait if max_wait is None else max_wait,
            wait=wait,
            max_attempts=max_attempts,
            on=on,
            giveup=giveup,
            watch=(self,),
        )

    def close(self) -> None:
        """
        Let go of the container: one that a pool started is removed, a borrowed one left alone. Closing twice is nothing.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        with self._lock:
            if not self._closed and not self._borrowed:
                self._engine.remove(self.id)
            self._closed = True
        self._owner.forget(self)

    def _remove(self) -> None:
        """Remove the container, whoever made it."""
        with self._lock:
            self._engine.remove(self.id)
            self._closed = True
        self._owner.forget(self)

    def _refresh(self, within: float | None = None) -> dict[str, Any]:
        """Ask the engine what is the case now."""
        attrs = self._engine.inspect(self.id, within=within)
        self.container = self._engine.container(attrs)
        return attrs

    def _address(self, port: str | int) -> tuple[str, int]:
        self._check_open()
        wanted = _specs.container_port("port", port)
        attrs = self._refresh()
        ports = attrs["NetworkSettings"].get("Ports") or {}
        bound = ports.get(wanted)
        if not bound:
            if _has_ended(attrs):
                raise _report.exited(self._tell(attrs))
            published = tuple(each for each in ports if ports[each])
            raise PortNotPublishedError(
                f"{_report.label(self.name, self.id)} does not publish {wanted}; "
                f"published: {', '.join(published) or 'nothing'}",
                port=wanted,
                published=published,
            )
        # The order of several bindings is the engine's own; an IPv4 one is reached from more places.
        chosen = min(bound, key=lambda each: ":" in each["HostIp"])
        return self._reachable(chosen["HostIp"]), int(chosen["HostPort"])

    def _reachable(self, bound_ip: str) -> str:
        """Give the address at which a port bound to *bound_ip* on the engine's host is reached from here."""
        endpoint = self._engine.endpoint
        if not endpoint.is_local:
            return endpoint.host
        return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound_ip, bound_ip)  # noqa: S104 - a comparison

    def _tell(self, attrs: dict[str, Any], within: float | None = None) -> _report.Report:
        tty = bool((attrs.get("Config") or {}).get("Tty"))
        logs = _logs.last_lines(self._engine, self.id, tty=tty, within=within)
        return _report.report(attrs, self._image, logs)

    def _check_open(self) -> None:
        if self._closed:
            raise ResourceClosedError(f"{_report.label(self.name, self.id)} is closed")

    def _check_alive(self, within: float) -> None:
        """Raise `ContainerExitedError` if the container has ended, in whatever way."""
        try:
            attrs = self._refresh(within)
        except EngineError as error:
            if error.status != 404:
                return  # the engine's trouble says nothing about the container
            raise _report.exited(self._gone()) from error
        except DockertestError:
            return
        if _has_ended(attrs):
            raise _report.exited(self._tell(attrs, within))

    def _gone(self) -> _report.Report:
        return _report.Report(name=self.name, id=self.id, image=self._image, status="removed")

    def _evidence(self) -> str:
        try:
            return f"  {self._tell(self._refresh(within=5), within=5)}"
        except EngineError as error:
            return f"  {self._gone() if error.status == 404 else error}"
        except DockertestError as error:
            return f"  {error}"


def _has_ended(attrs: dict[str, Any]) -> bool:
    return attrs["State"].get("Status") in ("exited", "dead")
