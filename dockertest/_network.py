"""Networks of containers."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self, TypedDict

from dockertest import _resource, _validation
from dockertest._cleanup.registry import registry
from dockertest._containers.container import Ownership, State
from dockertest._engine import networks, sdk
from dockertest._interruption import interrupts_package
from dockertest._public import public
from dockertest._runtime import Runtime
from dockertest.errors import InvalidOptionError, ResourceClosedError


class NetworkFields(TypedDict, total=False):
    """The keyword arguments of `Pool.create_network`."""

    driver: str
    """The network's driver; `"bridge"` by default."""
    driver_options: Mapping[str, str]
    """Options for the driver."""
    internal: bool
    """Whether the network has no way out."""
    labels: Mapping[str, str]
    """Labels; those beginning with `dockertest.` are refused."""
    subnet: str
    """The subnet, such as `"10.20.30.0/24"`; chosen by the engine by default."""


@public
@dataclass(eq=False, repr=False)
class Network:
    """
    One network.

    A network that a pool created is removed by `close()`, at the end of a `with`, when the pool is closed, and when
    the interpreter ends. A borrowed one (found by its name) is never removed by `close()`.

    Attributes:
        id: The network's full id.
        name: The network's name.
        network: The docker SDK's `Network`.
    """

    id: str
    name: str
    network: sdk.SdkNetwork
    _runtime: Runtime = field(init=False)
    _ownership: Ownership = field(init=False, default=Ownership.OWNED)
    _state: State = field(init=False, default=State.OPEN)
    _pid: int = field(init=False, default_factory=os.getpid)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __repr__(self) -> str:
        return f"<Network {self.name!r} {self.id[:12]}{'' if self._state is State.OPEN else ' (closed)'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Network cannot be pickled, since it is tied to this process; pass its name instead"
        )

    def __enter__(self) -> Self:
        if self._state is not State.OPEN:
            raise ResourceClosedError(
                f"network {self.name!r} ({self.id[:12]}) is closed",
                hint="use it before its pool or with block ends",
            )
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and self._runtime.session.postpones(self, failure)):
            _resource.close_after(self, failure)

    def close(self) -> None:
        """
        Remove a network that a pool created.

        Containers that are still attached are disconnected first. A borrowed network, and one that a kept container needs, are
        left alone. Closing twice does nothing. In a forked child, the parent's network is left alone.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        if self._pid != os.getpid():  # The thread that held the lock at the fork may not exist here.
            self._state = State.CLOSED
            return
        is_owned = self._ownership is Ownership.OWNED
        is_kept = is_owned and (self._runtime.defaults.keep or self._runtime.session.is_kept(self.id))
        if is_kept and self._state is State.OPEN:
            cli = self._runtime.engine.endpoint.cli
            registry.keep(f"kept network {self.name!r}; remove: {cli} network rm {self.id[:12]}")
        release(self, remove=is_owned and not is_kept)


def network_of(runtime: Runtime, attrs: Mapping[str, Any], ownership: Ownership = Ownership.OWNED) -> Network:
    """Return the handle of a network that the engine has described by *attrs*."""
    network = Network(id=str(attrs["Id"]), name=str(attrs["Name"]), network=runtime.engine.network(attrs))
    network._runtime = runtime
    network._ownership = ownership
    return network


def release(network: Network, *, remove: bool) -> None:
    """
    Let go of a network, and *remove* it or leave it as it is.

    Raises:
        EngineError: The engine did not remove it; call again to try again.
    """
    runtime = network._runtime
    # Two removals do no harm, so a signal handler does not wait for one that it has interrupted.
    with nullcontext() if interrupts_package() else network._lock:
        if remove and network._state is not State.REMOVED:
            networks.remove(runtime.engine, network.id, network.name)
            network._state = State.REMOVED
        elif network._state is State.OPEN:
            network._state = State.CLOSED
    runtime.session.untrack(network, is_gone=network._state is State.REMOVED)


def network_request(name: str, labels: Mapping[str, str], options: NetworkFields) -> dict[str, Any]:
    """
    Return the body of the create request.

    Raises:
        InvalidOptionError: An option has an invalid value.
    """
    unknown = set(options) - set(NetworkFields.__annotations__)
    if unknown:
        raise InvalidOptionError(
            f"{min(unknown)} is not an option of a network",
            hint=f"use one of: {', '.join(NetworkFields.__annotations__)}",
        )
    body: dict[str, Any] = {
        "Name": name,
        "CheckDuplicate": True,  # Engines before 25 would create a second network of the same name.
        "Driver": _validation.parse_str("driver", options.get("driver", "bridge")),
        "Internal": _validation.parse_bool("internal", options.get("internal", False)),
        "Labels": {**_validation.parse_labels("labels", options.get("labels", {})), **labels},
        "Options": _driver_options(options.get("driver_options", {})),
    }
    if subnet := options.get("subnet"):
        parsed = _subnet(subnet)
        body["IPAM"] = networks.ipam(parsed)
        if parsed.version == 6:  # Docker ignores the subnet otherwise.
            body["EnableIPv6"] = True
    return body


def _driver_options(value: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"driver_options must be a mapping: got {_validation.format_value(value)}")
    return {
        _validation.parse_str("driver_options: a key", key): _validation.parse_str(
            f"driver_options[{_validation.format_value(key)}]", option
        )
        for key, option in value.items()
    }


def _subnet(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    with suppress(ValueError):
        if isinstance(value, str) and "%" not in value:  # A number would be read as an address.
            return ipaddress.ip_network(value)
    raise InvalidOptionError(
        f"subnet: invalid network {_validation.format_value(value)}: expected one such as '10.20.30.0/24'"
    )
