"""A running container, as the user holds it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from typing_extensions import Self

from dockertest import _network
from dockertest import _validation as _specs
from dockertest._containers import create as _create
from dockertest._handle import has_ended
from dockertest._images import process as _process
from dockertest._inside import Inside
from dockertest._values import NetworkSpec, network_id
from dockertest.errors import (
    ContainerExitedError,
    DockertestError,
    EngineError,
    NotInNetworkError,
    PortNotPublishedError,
    RetryTimeoutError,
)


class Resource(Inside):
    """
    One container.

    A container that a pool started is removed, with its anonymous volumes, by `close()`, at the end of a `with`, when
    the pool is closed, and when the interpreter ends. A borrowed one (found by its name) and one that is started with
    `reuse` is only let go of.

    Attributes:
        id: The container's full id.
        name: Its name.
        container: The docker SDK's `Container`, fresh after every method here that changes it.
    """

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
            NotInNetworkError: This process runs in a container from which it is not reached.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[1]

    def get_bound_ip(self, port: str | int) -> str:
        """
        Give the address to connect to from here for the container's *port*, without the port.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            NotInNetworkError: This process runs in a container from which it is not reached.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[0]

    def get_host_port(self, port: str | int) -> str:
        """
        Give address and port to connect to from here for the container's *port*: `"127.0.0.1:49153"`, IPv6 in brackets.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            NotInNetworkError: This process runs in a container from which it is not reached.
            ContainerExitedError: The container has ended.
        """
        return _joined(*self._address(port))

    def get_ip_in_network(self, network: NetworkSpec) -> str:
        """
        Give the container's address in a network, for other containers there to connect to.

        Args:
            network: A `Network`, its name or its id.

        Raises:
            NotInNetworkError: The container is not connected to it.
            ContainerExitedError: The container has ended, and has no address any more.
        """
        self._check_open()
        attrs = self._refresh()
        joined = attrs["NetworkSettings"].get("Networks") or {}
        wanted = network_id("network", network)
        called = getattr(network, "name", wanted)
        names = {wanted, called}
        if not names & {each for name, end in joined.items() for each in (name, end.get("NetworkID"))}:
            names.add(_network.name_of(self._engine, wanted))  # Podman tells no ids here
        for name, end in joined.items():
            if names & {name, end.get("NetworkID")}:
                if found := end.get("IPAddress") or end.get("GlobalIPv6Address"):
                    return str(found)
                if has_ended(attrs):
                    raise ContainerExitedError.of(self._tell(attrs))
        raise NotInNetworkError(
            f"{self._label} has no address in network {called!r}; it is in: {', '.join(joined) or 'none'}"
        )

    def connect_to_network(self, network: NetworkSpec, *, aliases: Sequence[str] = ()) -> None:
        """
        Connect the container to a network.

        Args:
            network: A `Network`, its name or its id.
            aliases: Names that other containers there find it by.
        """
        self._check_open()
        config = _create.endpoint_config(_specs.texts("aliases", aliases))
        self._engine.connect_network(network_id("network", network), self.id, config)
        self._refresh()

    def disconnect_from_network(self, network: NetworkSpec) -> None:
        """
        Disconnect the container from *network*, a `Network`, its name or its id.

        Raises:
            NotInNetworkError: The container is not connected to it.
        """
        self._check_open()
        try:
            _network.disconnect(self._engine, network_id("network", network), self.id)
        except EngineError as error:
            if "not connected" in str(error):
                raise NotInNetworkError(
                    f"{self._label} is not in network {getattr(network, 'name', network)!r}"
                ) from error
            raise
        self._refresh()

    def stop(self, timeout: float = 10) -> None:
        """
        Stop the container; one that has ended already is no error.

        Args:
            timeout: Seconds that its command has to end before it is killed.
        """
        self._control("stop", _specs.seconds("timeout", timeout), ended=True)

    def start(self) -> None:
        """Start the container again; its published ports may be others than before."""
        self._control("start", ended=False)

    def restart(self, timeout: float = 10) -> None:
        """
        Stop the container and start it again; its published ports may be others than before.

        Args:
            timeout: Seconds that its command has to end before it is killed.
        """
        self._control("restart", _specs.seconds("timeout", timeout), ended=False)

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until the container ends, and give its exit code.

        Args:
            timeout: Seconds after which to give up; never by default.

        Raises:
            RetryTimeoutError: It has not ended in time.
        """
        self._check_open()
        self._end_known = True
        limit = float("inf") if timeout is None else _specs.seconds("timeout", timeout)
        code = self._engine.wait(self.id, limit)
        if code is None:
            raise RetryTimeoutError(
                f"{self._label} has not ended within {limit:g} s", attempts=1, elapsed=limit
            )
        with suppress(EngineError):  # one that removes itself is gone now
            self._refresh()
        return code

    def expire(self, seconds: float | None) -> None:
        """
        Have the container removed when the time is up; calling again sets a new time.

        It is removed even when this process hangs, or is gone.

        Args:
            seconds: From now; `None` cancels.

        Raises:
            InvalidOptionError: There is no reaper to do it.
        """
        self._check_open()
        limit = None if seconds is None else _specs.seconds("seconds", seconds)
        self._owner._expire(self.id, limit)
        self._expires = limit is not None

    def close(self) -> None:
        """
        Let go of the container: one that a pool started is removed, a reused one left running, a borrowed one left
        alone. Closing twice is nothing. In a forked child, what its parent started is left alone.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        if self._pid != os.getpid():  # a thread of the parent that held the lock at the fork is not here
            self._closed = True
        else:
            self._let_go(remove=not (self._borrowed or self._reused or self._kept()))

    def _let_go(self, *, remove: bool) -> None:
        with self._lock:
            if remove and not self._removed:
                with self._owner._timeline.step("close", self._image) as step:
                    step |= {"container": self.id, "name": self.name}
                    self._engine.remove(self.id)
                self._removed = True
                if self._after_removal:
                    self._after_removal()
            self._closed = True
            if self._expires and self._removed:
                self._owner._expired(self.id)
        self._owner._forget(self)

    def _kept(self) -> bool:
        """Whether it is to be kept, as all that its pool made or by itself; then say, once, how to reach and remove it."""
        kept = (self._owner.keep or self._keep) and not self._borrowed
        if kept and not self._closed:
            ports: list[str] = []
            for port in self.container.attrs["NetworkSettings"].get("Ports") or {}:
                with suppress(DockertestError):  # from where this process stands it is not reached
                    if found := self._owner._standpoint.address(self.container.attrs, port):
                        ports.append(f"{port} -> {_joined(*found)}")
            _process.registry.keep(
                f"kept {self._label} of {self._image}: {', '.join(ports) or 'nothing is published'}; "
                f"look: docker logs {self.id[:12]}; remove: docker rm -f -v {self.id[:12]}"
            )
        return kept

    def _control(self, verb: str, timeout: float | None = None, *, ended: bool) -> None:
        """Have the engine stop, start or restart the container."""
        self._check_open()
        self._end_known = ended
        self._engine.send(
            "post",
            f"/containers/{self.id}/{verb}",
            what=f"{verb} {self._label}",
            params={} if timeout is None else {"t": math.ceil(timeout)},
            patience=timeout or 0,
        )
        self._await_ports() if not ended else self._refresh()

    def _await_ports(self, attrs: Mapping[str, Any] | None = None) -> None:
        """Wait until the ports are bound: on some engines that comes a moment after the start; *attrs* are what is known."""
        deadline = time.monotonic() + 2
        attrs = attrs or self._refresh()
        if _are_bound(attrs) or _network.are_internal(
            self._engine, attrs["NetworkSettings"].get("Networks") or ()
        ):
            return  # where nothing is published; `get_port` will say so
        while not _are_bound(attrs) and time.monotonic() < deadline:
            time.sleep(0.01)
            attrs = self._refresh()

    def _address(self, port: str | int) -> tuple[str, int]:
        self._check_open()
        wanted = _specs.container_port("port", port)
        attrs = self._alive()  # some engines keep the ports of one that has ended, which lead nowhere
        if found := self._owner._standpoint.address(attrs, wanted):
            return found
        ports = attrs["NetworkSettings"].get("Ports") or {}
        published = tuple(each for each in ports if ports[each])
        host = attrs["HostConfig"]
        asked = published or host.get("PortBindings") or _create.is_no_network(str(host.get("NetworkMode")))
        remedy = "" if asked else f"; start it with exposed_ports=[{wanted!r}]"
        raise PortNotPublishedError(
            f"{self._label} does not publish {wanted}; published: {', '.join(published) or 'nothing'}{remedy}",
            port=wanted,
            published=published,
        )


def _are_bound(attrs: Mapping[str, Any]) -> bool:
    """Whether all ports that are to be published are, or the container has ended and none will be."""
    bound = attrs["NetworkSettings"].get("Ports") or {}
    wanted = _create.bound_ports(attrs["HostConfig"])
    return all(bound.get(port) for port in wanted) or attrs["State"].get("Status") != "running"


def _joined(host: str, number: int) -> str:
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
