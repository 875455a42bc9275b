"""A TCP proxy in front of a container's port, to test outages and slow networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Self

from dockertest import _validation
from dockertest._engine.reachability import join_host_port
from dockertest._public import public
from dockertest._relay import Address, Mode, Relay
from dockertest.errors import InvalidOptionError, ResourceClosedError

LOOPBACK = "127.0.0.1"


@public
@dataclass(eq=False, repr=False)
class Proxy:
    """
    A TCP proxy between this machine and one port of a container.

    It runs in a thread of this process and listens on loopback only. Its address stays the same while the container is
    stopped, started and restarted. Without a fault, it passes on data, half-closed connections, resets and
    back-pressure. If the container does not run, or the port is not bound, connections are reset. It is closed together
    with its resource.

    A forked child can connect to its parent's proxy, but not control it.

    Attributes:
        port: The container's port, such as `"5432/tcp"`.
    """

    port: str
    _name: str
    _relay: Relay
    _url: Callable[[Address], str]

    def __repr__(self) -> str:
        faults = self._relay.faults
        state = "closed" if self._relay.is_closed else faults.mode.value
        delay = f", delay {faults.delay:g} s" if faults.delay else ""
        bandwidth = f", {faults.rate:g} B/s" if faults.rate else ""
        return f"<Proxy {self.get_host_port()} to {self.port} of {self._name} ({state}{delay}{bandwidth})>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Proxy cannot be pickled, since it is tied to this process; pass its address")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_address(self) -> tuple[str, int]:
        """
        Return the host and port to connect to, such as `("127.0.0.1", 49153)`.

        Use this for a client that takes them as separate arguments.
        """
        return self._relay.address

    def get_host_port(self) -> str:
        """Return the address to connect to: `"127.0.0.1:49153"`."""
        return join_host_port(*self._relay.address)

    def url(self) -> str:
        """
        Return the URL of a known service through the proxy, password included.

        Raises:
            InvalidOptionError: The container's image is not a known service, or this is not the service's port.
        """
        return self._url(self._relay.address)

    def delay(self, seconds: float) -> None:
        """
        Delay all data that the container sends by *seconds*.

        Each answer takes that much longer. The order is preserved, and data that is already on its way is delayed too.
        Requests are not delayed.

        Args:
            seconds: The delay; 0 ends it.

        Raises:
            InvalidOptionError: *seconds* is invalid.
            ResourceClosedError: The proxy is closed.
        """
        self._change(delay=_validation.parse_seconds("seconds", seconds))

    def bandwidth(self, bytes_per_second: float) -> None:
        """
        Limit the data rate of each connection, separately in each direction.

        Args:
            bytes_per_second: At least 1. `restore` ends the limit.

        Raises:
            InvalidOptionError: *bytes_per_second* is invalid.
            ResourceClosedError: The proxy is closed.
        """
        is_number = isinstance(bytes_per_second, (int, float)) and not isinstance(bytes_per_second, bool)
        if not (is_number and 1 <= bytes_per_second <= 1e12):
            raise InvalidOptionError(
                "bytes_per_second must be a number of at least 1: "
                f"got {_validation.format_value(bytes_per_second)}",
                hint="use cut() or freeze() to transfer nothing",
            )
        self._change(rate=float(bytes_per_second))

    def cut(self) -> None:
        """
        Reset all connections, and refuse new ones, until `restore` or `freeze`.

        Raises:
            ResourceClosedError: The proxy is closed.
        """
        self._change(mode=Mode.CUT)

    def freeze(self) -> None:
        """
        Accept connections, but transfer nothing, until `restore` or `cut`.

        Nothing is lost: the data of connections that are still open then is transferred after `restore`.

        Raises:
            ResourceClosedError: The proxy is closed.
        """
        self._change(mode=Mode.FROZEN)

    def restore(self) -> None:
        """
        End all faults.

        Raises:
            ResourceClosedError: The proxy is closed.
        """
        self._change(mode=Mode.OPEN, delay=0.0, rate=0.0)

    def close(self) -> None:
        """
        Reset all connections and stop listening.

        Closing twice does nothing, nor does closing in a forked child.
        """
        self._relay.close()

    def _change(self, **changes: object) -> None:
        self._check_open()
        self._relay.change_faults(**changes)

    def _check_open(self) -> None:
        if self._relay.is_closed:
            raise ResourceClosedError(
                f"the proxy of {self.port} of {self._name} is closed, or belongs to the parent of this process"
            )


def parse_tcp_port(port: str | int) -> str:
    """
    Return a container's port that a proxy can be made for.

    Raises:
        InvalidOptionError: It is invalid, or not a TCP port.
    """
    container_port = _validation.parse_port("port", port)
    if not container_port.endswith("/tcp"):
        raise InvalidOptionError(f"port: a proxy is for TCP only: got {container_port!r}")
    return container_port


def open_proxy(
    port: str, name: str, find_target: Callable[[], Address], url: Callable[[Address], str]
) -> Proxy:
    """
    Return a proxy that listens.

    Args:
        port: The container's port, such as `"5432/tcp"`.
        name: The container's name and short id, for messages.
        find_target: Returns where the port can be reached now, or raises an exception.
        url: Called with the proxy's address; returns the URL that leads there.

    Raises:
        EngineError: There are no descriptors or threads left.
    """
    return Proxy(port, name, Relay(LOOPBACK, find_target), url)
