"""Networks of containers."""

from __future__ import annotations

import ipaddress
import os
import random
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from typing_extensions import Self

from dockertest import _validation as _specs
from dockertest._engine import client as _engine
from dockertest._engine import sdk as _sdk
from dockertest._engine.client import Engine
from dockertest._images import process as _process
from dockertest.errors import EngineError, InvalidOptionError, ResourceClosedError

# Set aside for benchmarks (RFC 2544) and routed nowhere: where the engine's own address pools are used up, a network
# taken from here gets into nobody's way.
_SPARE = ipaddress.IPv4Network("198.18.0.0/15")
_PODMANS_OWN = ("podman", "bridge")


class NetworkFields(TypedDict, total=False):
    """What `Pool.create_network` takes as keywords."""

    driver: str
    driver_options: Mapping[str, str]
    internal: bool
    labels: Mapping[str, str]
    subnet: str


class Owner(Protocol):
    """What made a network, as far as the network has to know it."""

    keep: bool

    def _forget(self, handle: Network) -> None:
        """Stop caring for a network that is gone."""


@dataclass(eq=False, repr=False)
class Network:
    """
    One network.

    A network that a pool created is removed by `close()`, at the end of a `with`, when the pool is closed, and when
    the interpreter ends. A borrowed one (found by its name) is only let go of.

    Attributes:
        id: The network's full id.
        name: Its name.
        network: The docker SDK's `Network`.
    """

    id: str
    name: str
    network: _sdk.SdkNetwork
    _engine: Engine
    _owner: Owner
    _borrowed: bool = False
    _pid: int = field(default_factory=os.getpid, init=False)
    _removed: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __repr__(self) -> str:
        return f"<Network {self.name!r} {self.id[:12]}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """
        Let go of the network: one that a pool created is removed, what is still attached to it disconnected first.

        Closing twice is nothing. In a forked child, what its parent created is left alone.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        if self._pid != os.getpid():  # a thread of the parent that held the lock at the fork is not here
            self._closed = True
            return
        kept = self._owner.keep and not self._borrowed
        if kept and not self._closed:
            _process.registry.keep(f"kept network {self.name!r}; remove: docker network rm {self.id[:12]}")
        self._let_go(remove=not (self._borrowed or kept))

    def _let_go(self, *, remove: bool) -> None:
        with self._lock:
            if remove and not self._removed:
                _remove(self._engine, self.id, self.name)
                self._removed = True
            self._closed = True
        self._owner._forget(self)

    def _check_open(self) -> None:
        if self._closed:
            raise ResourceClosedError(f"network {self.name!r} ({self.id[:12]}) is closed")


def network_request(name: str, labels: Mapping[str, str], options: NetworkFields) -> dict[str, Any]:
    """
    Give the engine's create request.

    Raises:
        InvalidOptionError: An option has a value that cannot work.
    """
    unknown = set(options) - set(NetworkFields.__annotations__)
    if unknown:
        raise InvalidOptionError(
            f"{min(unknown)} is no option of a network; there are {', '.join(NetworkFields.__annotations__)}"
        )
    body: dict[str, Any] = {
        "Name": name,
        "CheckDuplicate": True,  # engines before 25 would make a second network of the same name
        "Driver": _specs.text("driver", options.get("driver", "bridge")),
        "Internal": _specs.boolean("internal", options.get("internal", False)),
        "Labels": {**_specs.labels("labels", options.get("labels", {})), **labels},
        "Options": _driver_options(options.get("driver_options", {})),
    }
    if subnet := options.get("subnet"):
        body["IPAM"] = _ipam(_subnet(subnet))
    return body


def create(engine: Engine, body: dict[str, Any]) -> str:
    """
    Create a network and give its id; where the engine's address pools are used up, with a subnet chosen here.

    Raises:
        EngineError: The engine refused.
    """
    what = f"create network {body['Name']!r}"
    try:
        return _create(engine, body, what)
    except EngineError as error:
        if "IPAM" in body or not _is_exhausted(str(error)):
            raise
        failure = error
    for subnet in random.sample(list(_SPARE.subnets(new_prefix=24)), 64):
        try:
            return _create(engine, {**body, "IPAM": _ipam(subnet)}, what)
        except EngineError as error:
            if "overlap" not in str(error).lower():
                raise
    raise failure


def list_named(engine: Engine, name: str) -> list[dict[str, Any]]:
    """List the networks of just that name; there may be several on older engines."""
    listed = engine.list_networks(name=name)
    # Podman finds its own by the name that its containers know it by, and then calls it as Docker calls its own.
    shown = "bridge" if engine.is_podman and name == "podman" else name
    return [{**each, "Name": name} for each in listed if each["Name"] == shown]


def are_internal(engine: Engine, networks: Iterable[str]) -> bool:
    """Whether all of these networks, and there is one, have no way out, so that no port is published in them."""
    try:
        said = [
            engine.get(f"/networks/{_engine.quoted(each)}", what=f"inspect network {each!r}")
            for each in networks
        ]
    except EngineError:
        return False
    return bool(said) and all(each.get("Internal") for each in said)


def name_of(engine: Engine, network: str) -> str:
    """Give the name of a network that is named by its id; what was given where there is no such network."""
    try:
        return str(
            engine.get(f"/networks/{_engine.quoted(network)}", what=f"inspect network {network!r}")["Name"]
        )
    except EngineError as error:
        if error.status != 404:
            raise
        return network


def disconnect(engine: Engine, network: str, container: str) -> None:
    """Disconnect a container from a network, whether it runs or not."""
    engine.send(
        "post",
        f"/networks/{_engine.quoted(network)}/disconnect",
        what=f"disconnect container {container[:12]} from network {network!r}",
        body={"Container": container, "Force": True},
    )


def _create(engine: Engine, body: dict[str, Any], what: str) -> str:
    response = engine.send("post", "/networks/create", what=what, body=body)
    with _sdk.border(engine.timeout, what):  # an answer that was cut short is no network
        return str(response.json()["Id"])


def _remove(engine: Engine, network: str, name: str) -> None:
    path, what = f"/networks/{_engine.quoted(network)}", f"remove network {name!r}"
    try:
        # Podman removes a network that is in use, and its containers think that they are still in it; its own it never
        # removes.
        if (not engine.is_podman or name in _PODMANS_OWN) and _delete(engine, path, what):
            return
        for container in engine.get(path, what=what).get("Containers") or {}:
            try:
                disconnect(engine, network, container)
            except EngineError as error:
                if error.status != 404:
                    raise
        engine.send("delete", path, what=what)
    except EngineError as error:
        if error.status != 404:
            raise


def _delete(engine: Engine, path: str, what: str) -> bool:
    """Remove a network; `False` if something is attached to it."""
    try:
        engine.send("delete", path, what=what)
    except EngineError as error:
        # In these words alone: what an engine refuses for another reason, its own bridge above all, keeps its containers.
        if "active endpoints" not in str(error):
            raise
        return False
    return True


def _is_exhausted(said: str) -> bool:
    """Whether the engine says that it has no addresses left; in the words of Docker 20.10, of later ones, of Podman."""
    words = (
        "non-overlapping",
        "address pools have been fully subnetted",
        "could not find free subnet",
        "no free subnet",
    )
    return any(each in said.lower() for each in words)


def _driver_options(value: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"driver_options must be a mapping: got {_specs.shown(value)}")
    return {
        _specs.text("driver_options: a key", key): _specs.text(f"driver_options[{_specs.shown(key)}]", given)
        for key, given in value.items()
    }


def _subnet(written: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    with suppress(ValueError):
        if isinstance(written, str) and "%" not in written:  # a number would be read as an address
            return ipaddress.ip_network(written)
    raise InvalidOptionError(
        f"subnet: {_specs.shown(written)} is no network; write one such as '10.20.30.0/24'"
    )


def _ipam(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> dict[str, Any]:
    return {"Config": [{"Subnet": str(subnet)}]}
