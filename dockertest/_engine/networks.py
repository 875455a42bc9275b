"""Networks, as the engine's API has them."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable
from typing import Any

from dockertest import _clock
from dockertest._engine.client import RECHECK_SECONDS, EngineClient, quote_path
from dockertest.errors import EngineError, InvalidOptionError

# Reserved for benchmarks (RFC 2544) and routed nowhere, so a network from this range does not conflict with others when
# the engine's own address pools are exhausted.
_SPARE = ipaddress.IPv4Network("198.18.0.0/15")
_PODMAN_DEFAULTS = ("podman", "bridge")
_HOST_GATEWAY = ":host-gateway"
# What engines answer when they have no addresses left: Docker 20.10, later Dockers, Podman.
_EXHAUSTED = (
    "non-overlapping",
    "address pools have been fully subnetted",
    "could not find free subnet",
    "no free subnet",
)
# What engines answer to a disconnection while the container is being removed, or has just left the network.
_LEAVING = ("marked for removal", "not connected")


def create(engine: EngineClient, body: dict[str, Any]) -> str:
    """
    Create a network and return its id.

    If the engine's address pools are exhausted, a subnet is chosen here.

    Raises:
        EngineError: The engine refused.
    """
    what = f"create network {body['Name']!r}"
    try:
        return _create(engine, body, what)
    except EngineError as error:
        is_exhausted = any(phrase in str(error).lower() for phrase in _EXHAUSTED)
        if "IPAM" in body or not is_exhausted:
            raise
        failure = error
    for subnet in random.sample(list(_SPARE.subnets(new_prefix=24)), 64):
        try:
            return _create(engine, {**body, "IPAM": ipam(subnet)}, what)
        except EngineError as error:
            if "overlap" not in str(error).lower():
                raise
    raise failure


def ipam(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> dict[str, Any]:
    """Return a subnet as the create request has it."""
    return {"Config": [{"Subnet": str(subnet)}]}


def list_named(engine: EngineClient, name: str) -> list[dict[str, Any]]:
    """List the networks of exactly that name; older engines may have several."""
    listed = engine.list_networks(name=name)
    # Podman calls its default network "podman" in its containers, and "bridge" in this list, as Docker does.
    shown = "bridge" if engine.is_podman and name == "podman" else name
    return [{**network, "Name": name} for network in listed if network["Name"] == shown]


def is_special_mode(mode: str) -> bool:
    """
    Return whether a network mode is `host`, `none` or another container's.

    Such a mode does not name a network.
    """
    return mode in ("host", "none") or mode.startswith("container:")


def resolve_host_gateway(engine: EngineClient, host_config: dict[str, Any]) -> None:
    """
    Replace `host-gateway` in a container's additional hosts on Podman before 5.

    The replacement is the gateway of the container's network. These versions write the word itself to `/etc/hosts`, where no
    program understands it.

    Raises:
        InvalidOptionError: The container has no gateway that leads to the engine's host.
    """
    hosts: list[str] = host_config.get("ExtraHosts") or []
    if not (engine.is_podman and any(host.endswith(_HOST_GATEWAY) for host in hosts)):
        return
    what = "resolve host-gateway"
    server = engine.send("get", "/_ping", what=what).headers.get("Server", "")
    if not server.startswith(("Libpod/3.", "Libpod/4.")):
        return
    mode = host_config.get("NetworkMode") or "podman"
    if is_special_mode(mode) or engine.is_rootless:
        raise InvalidOptionError(
            "extra_hosts: this version of Podman does not support host-gateway, and the container has no gateway that leads "
            "to the engine's host",
            hint="use the name host.containers.internal, which Podman defines by itself, or Podman 5",
        )
    network = engine.get(f"/networks/{quote_path(mode)}", what=f"inspect network {mode!r}")
    gateway = network["IPAM"]["Config"][0]["Gateway"]
    host_config["ExtraHosts"] = [
        f"{host.removesuffix(_HOST_GATEWAY)}:{gateway}" if host.endswith(_HOST_GATEWAY) else host
        for host in hosts
    ]


def are_internal(engine: EngineClient, names: Iterable[str]) -> bool:
    """
    Return whether there is at least one network and all of them are internal.

    Such networks have no way out, so that no port is published.
    """
    try:
        answers = [
            engine.get(f"/networks/{quote_path(name)}", what=f"inspect network {name!r}") for name in names
        ]
    except EngineError:
        return False
    return bool(answers) and all(answer.get("Internal") for answer in answers)


def name_of(engine: EngineClient, network: str) -> str:
    """Return the name of the network with id *network*; the id if it is not found."""
    try:
        return str(
            engine.get(f"/networks/{quote_path(network)}", what=f"inspect network {network!r}")["Name"]
        )
    except EngineError as error:
        if error.status != 404:
            raise
        return network


def disconnect(engine: EngineClient, network: str, container: str) -> None:
    """Disconnect a container, running or not, from a network."""
    engine.send(
        "post",
        f"/networks/{quote_path(network)}/disconnect",
        what=f"disconnect container {container[:12]} from network {network!r}",
        body={"Container": container, "Force": True},
    )


def remove(engine: EngineClient, network: str, name: str) -> None:
    """
    Remove a network after disconnecting its containers.

    It is not an error if the network no longer exists.
    """
    path, what = f"/networks/{quote_path(network)}", f"remove network {name!r}"
    deadline = _clock.monotonic() + engine.timeout
    try:
        # Podman removes a network that is in use, and its containers still believe that they are connected. Its default
        # network it never removes.
        if engine.is_podman and name not in _PODMAN_DEFAULTS:
            _disconnect_all(engine, network, path, what)
        while not _delete(engine, path, what, is_last=_clock.monotonic() > deadline):
            _disconnect_all(engine, network, path, what)
            _clock.sleep(RECHECK_SECONDS)
    except EngineError as error:
        if error.status != 404:
            raise


def _create(engine: EngineClient, body: dict[str, Any], what: str) -> str:
    response = engine.send("post", "/networks/create", what=what, body=body)
    with engine.translate_errors(what):  # The answer may have been cut short.
        return str(response.json()["Id"])


def _delete(engine: EngineClient, path: str, what: str, *, is_last: bool) -> bool:
    """
    Remove a network, and return whether nothing was attached to it.

    In the last attempt, the engine's error is raised instead.
    """
    try:
        engine.send("delete", path, what=what)
    except EngineError as error:
        # Only on these words are containers disconnected: Docker refuses to remove its own bridge with other ones.
        if is_last or "active endpoints" not in str(error):
            raise
        return False
    return True


def _disconnect_all(engine: EngineClient, network: str, path: str, what: str) -> None:
    """Disconnect the containers of a network, except for those being removed."""
    for container in engine.get(path, what=what).get("Containers") or {}:
        try:
            disconnect(engine, network, container)
        except EngineError as error:
            if error.status != 404 and not any(words in str(error) for words in _LEAVING):
                raise
