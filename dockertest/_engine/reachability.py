"""
The address at which a container's port can be reached.

It depends on whether this process runs on the engine's host, on another host, or inside a container.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from dockertest._engine import networks
from dockertest._engine.client import EngineClient
from dockertest._engine.inspection import BoundPort, Inspection, NetworkEndpoint
from dockertest.errors import EngineError, NotInNetworkError

_ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - what engines report for a port that is bound to all addresses
DEFAULT_NETWORKS = (
    "bridge",
    "podman",
)  # where engines put a container without a network of its own; they have no names

_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

Networks = Mapping[str, NetworkEndpoint]


class Reachability:
    """
    The position of this process relative to the engine.

    Whether this process runs in a container is determined once, when it first matters. The networks of that container
    are looked up each time, since a program may connect its own container to another network.
    """

    def __init__(self, engine: EngineClient, override: str) -> None:
        """
        Contact nothing yet.

        Args:
            override: The host name or address at which published ports are reachable; empty to detect it.
        """
        self._engine = engine
        self._override = override
        self._may_be_inside = engine.endpoint.is_socket and not override

    def address(self, inspection: Inspection, port: str) -> tuple[str, int] | None:
        """
        Return the host and port at which a container's port can be reached.

        The result is `None` if the port is not published, unless it is exposed and this process runs in a container that
        shares a network with the other one.

        Args:
            inspection: The container.
            port: Its port, such as `"5432/tcp"`.

        Raises:
            NotInNetworkError: This process runs in a container that cannot reach it.
        """
        bound = inspection.ports.get(port, ())
        own = self._own_networks()
        if own is not None and (bound or port in inspection.exposed_ports):
            shared = {endpoint.network_id for endpoint in own.values()} - {""}
            for joined in inspection.networks.values():
                if joined.ip and joined.network_id in shared:
                    return joined.ip, int(port.split("/")[0])
        if not bound:
            return None
        # The order of several bindings is up to the engine; an IPv4 address can be reached from more places. The loopback of
        # its host can be reached only from there.
        endpoint = self._engine.endpoint
        is_elsewhere = not endpoint.is_local or own is not None
        is_ipv6 = endpoint.is_ipv6 and not endpoint.is_local and not self._override
        binding = min(
            bound,
            key=lambda binding: (
                is_elsewhere and _is_loopback(binding.host_ip),
                (":" in binding.host_ip) != is_ipv6,
            ),
        )
        return self._host(binding, own, inspection), binding.host_port

    def network(self) -> str:
        """
        Return the id of the network that new containers have to join to be reachable.

        It is one with a way out if there is one. The result is empty if the default network is sufficient.
        """
        own = self._own_networks() or {}
        if set(own) & set(DEFAULT_NETWORKS):
            return ""
        # Docker accepts several networks of the same name.
        ids = [endpoint.network_id or name for name, endpoint in own.items()]
        if len(ids) < 2:
            return ids[0] if ids else ""
        outward = (network for network in ids if not networks.are_internal(self._engine, [network]))
        return next(outward, ids[0])

    def _host(self, binding: BoundPort, own: Networks | None, inspection: Inspection) -> str:
        """Return the address at which a port bound on the engine's host can be reached."""
        endpoint, bound_ip = self._engine.endpoint, binding.host_ip
        if self._override:
            return self._override
        if not endpoint.is_local:
            return endpoint.host
        if own is None:
            return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound_ip, bound_ip)  # noqa: S104 - a comparison
        gateways = [endpoint.gateway for endpoint in own.values() if endpoint.gateway]
        # Podman isolates its networks from each other, so that a gateway leads nowhere.
        if bound_ip in _ANY_ADDRESS and gateways and not self._engine.is_podman:
            return gateways[0]
        if bound_ip not in _ANY_ADDRESS and not _is_loopback(bound_ip):
            return bound_ip
        raise _unreachable(inspection, bound_ip, own)

    def own_networks(self) -> Networks | None:
        """
        Return the networks of the container that this process runs in.

        An override for published ports is ignored. `None` outside of a container, and in one that uses the host's network.
        """
        return self._lookup() if self._engine.endpoint.is_socket else None

    def _own_networks(self) -> Networks | None:
        """
        Return the networks in which this process's container has an address.

        `None` outside of a container, and in one that uses the host's network.
        """
        own = self._lookup() if self._may_be_inside else None
        self._may_be_inside = own is not None
        return own and {name: endpoint for name, endpoint in own.items() if endpoint.ip}

    def _lookup(self) -> Networks | None:
        own = own_container(self._engine)
        return _networks(self._engine, own) if own else None


def join_host_port(host: str, port: int) -> str:
    """Return an address as URLs write it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(bound_ip: str) -> bool:
    return bound_ip not in _ANY_ADDRESS and ipaddress.ip_address(bound_ip).is_loopback


def _unreachable(inspection: Inspection, bound_ip: str, own: Networks) -> NotInNetworkError:
    return NotInNetworkError(
        f"cannot reach container {inspection.name!r}: it shares no network with the container of this process, which "
        f"cannot connect to a port published on {bound_ip or 'the host'}",
        hint=f"connect it to one of: {', '.join(own)}"
        if own
        else "set DOCKERTEST_PUBLISH_IP to an address that this process can connect to, and DOCKERTEST_HOST_OVERRIDE to "
        "its host",
    )


def _networks(engine: EngineClient, inspection: Inspection) -> Networks | None:
    """
    Return a container's networks; `None` for those of the host.

    If the container uses the network of another one, these are the networks of the other one.
    """
    mode = inspection.network_mode
    if mode.startswith("container:"):
        return _networks(engine, engine.inspect(mode.partition(":")[2]))
    return None if mode == "host" else inspection.networks


def own_container(engine: EngineClient) -> Inspection | None:
    """Return this process's own container; `None` if the engine does not know one."""
    for container in own_container_ids():
        try:
            return engine.inspect(container)
        except EngineError as error:
            if error.status != 404:
                raise
    return None


def own_container_ids(proc: Path = Path("/proc/self"), hostname: str | None = None) -> list[str]:
    """
    Return possible ids of the container of this process, likeliest first.

    The mounts of three files, which every engine makes, contain it. cgroup v2 does not, and a host's list of mounts
    contains the ids of other containers. Next comes cgroup v1, then the host name unless it was changed.
    """
    ids = [
        match
        for line in _lines(proc / "mountinfo")
        if len(line.split()) > 4 and line.split()[4] in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
        for match in _CONTAINER_ID.findall(line)
    ]
    ids += [match for line in _lines(proc / "cgroup") for match in _CONTAINER_ID.findall(line)]
    short = socket.gethostname() if hostname is None else hostname
    return list(dict.fromkeys([*ids, *([short] if re.fullmatch("[0-9a-f]{12}", short) else [])]))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
