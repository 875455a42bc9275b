"""Where a container's port is reached from here: on this machine, on the engine's host, or from inside a container."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from dockertest._cleanup import session as _session
from dockertest._engine.client import Engine
from dockertest.errors import EngineError, NotInNetworkError

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - what engines say
_ENGINES_OWN = ("bridge", "podman")  # the networks in which containers are that nobody puts elsewhere


class Standpoint:
    """
    Where this process stands, seen from the engine.

    Whether it is in a container is asked when it is first needed, and once; in which networks, every time: a program may
    well connect its own container to another.
    """

    def __init__(self, engine: Engine, override: str) -> None:
        """
        Ask nothing yet.

        Args:
            override: The name or address at which published ports are reached, where nobody can guess it.
        """
        self._engine = engine
        self._override = override
        self._may_be_inside = True

    def address(self, attrs: Mapping[str, Any], port: str) -> tuple[str, int] | None:
        """
        Give where a container's port is reached, `None` where it is not published.

        Args:
            attrs: The engine's inspection of the container.
            port: The container's port, such as `"5432/tcp"`.

        Raises:
            NotInNetworkError: From inside this process's container it is not reached.
        """
        bound = (attrs["NetworkSettings"].get("Ports") or {}).get(port)
        own = self._own_networks()
        if own is not None and (bound or port in (attrs["Config"].get("ExposedPorts") or {})):
            for end in (attrs["NetworkSettings"].get("Networks") or {}).values():
                ip = _address(end)
                if ip and end.get("NetworkID") in [each.get("NetworkID") for each in own.values()]:
                    return ip, int(port.split("/")[0])
        if not bound:
            return None
        # The order of several bindings is the engine's own; an IPv4 one is reached from more places.
        chosen = min(bound, key=lambda each: ":" in each["HostIp"])
        return self._host(chosen["HostIp"], own, attrs), int(chosen["HostPort"])

    def network(self) -> str:
        """Give the network to put containers in, so that they are reached from here; empty if the engine's own will do."""
        named = list(self._own_networks() or ())
        return named[0] if named and not set(named) & set(_ENGINES_OWN) else ""

    def _host(self, bound_ip: str, own: Mapping[str, Any] | None, attrs: Mapping[str, Any]) -> str:
        """Give the address at which a port bound to *bound_ip* on the engine's host is reached."""
        endpoint = self._engine.endpoint
        if self._override:
            return self._override
        if not endpoint.is_local:
            return endpoint.host
        if own is None:
            return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound_ip, bound_ip)  # noqa: S104 - a comparison
        gateways = [str(end["Gateway"]) for end in own.values() if end.get("Gateway")]
        if bound_ip in _EVERYWHERE and gateways and not self._engine.is_podman:  # which keeps networks apart
            return gateways[0]
        if bound_ip not in _EVERYWHERE and not ipaddress.ip_address(bound_ip).is_loopback:
            return bound_ip
        name = str(attrs["Name"]).lstrip("/")
        remedy = (
            f"connect it to: {', '.join(own)}"
            if own
            else "say in DOCKERTEST_HOST_OVERRIDE where its ports are reached, and publish them there"
        )
        raise NotInNetworkError(
            f"container {name!r} shares no network with the container that this process runs in, and a port published on "
            f"{bound_ip or 'its host'} is not reached from there; {remedy}"
        )

    def _own_networks(self) -> Mapping[str, Any] | None:
        """
        Give the networks in which the container that this process runs in has an address.

        `None` outside of a container, or in the host's network.
        """
        if self._override or not self._engine.endpoint.is_socket:
            return None
        own = self._asked()
        return own and {name: end for name, end in own.items() if _address(end)}

    def _asked(self) -> Mapping[str, Any] | None:
        own = own_container(self._engine) if self._may_be_inside else None
        self._may_be_inside = own is not None
        return own and _networks(self._engine, own)


def _address(end: Mapping[str, Any]) -> str:
    return str(end.get("IPAddress") or end.get("GlobalIPv6Address") or "")


def _networks(engine: Engine, attrs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Give the networks that a container is in, by whatever container it is; `None` for those of the host."""
    mode = str(attrs["HostConfig"].get("NetworkMode"))
    if mode.startswith("container:"):
        return _networks(engine, engine.inspect(mode.partition(":")[2]))
    return None if mode == "host" else attrs["NetworkSettings"].get("Networks") or {}


def own_container(engine: Engine) -> dict[str, Any] | None:
    """Give the engine's inspection of the container that this process runs in; `None` if it knows none."""
    for container in _session.own_container_ids():
        try:
            return engine.inspect(container)
        except EngineError as error:
            if error.status != 404:
                raise
    return None
