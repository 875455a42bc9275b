"""
Connect containers to the host's loopback: `RunOptions.host_access_ports`.

A container can then reach servers of this process's host, even if they listen on loopback only.

The name `host.docker.internal` leads to the gateway of the container's network, which is an address of the host, or, if this
process runs in a container, to that container. There a relay listens on the same port. Every other container, and every
host that routes packets here, can send them to this address too, so the relay serves only the addresses of the containers
that were granted access. A packet with a forged address does not help an attacker, since the answers go to the container.
"""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import logging
import socket
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from dockertest import _clock
from dockertest._cleanup.registry import registry
from dockertest._concurrency import start_thread
from dockertest._containers import exec as exec_
from dockertest._containers.container import Container
from dockertest._engine.client import quote_path
from dockertest._engine.networks import is_special_mode
from dockertest._engine.reachability import Networks, join_host_port
from dockertest._interruption import interrupts_package
from dockertest._options import HOST_NAME, defines_host
from dockertest._relay import Relay
from dockertest._runtime import Runtime
from dockertest.errors import (
    DockertestError,
    EngineError,
    ExecTimeoutError,
    HostAccessError,
    InvalidOptionError,
)

log = logging.getLogger("dockertest")

FIRST_WAIT_SECONDS = 2  # that the container's program may take to connect
LONGEST_WAIT_SECONDS = 5.0  # the same with the start of that program
LAST_WAIT_SECONDS = 0.5  # for a connection that has arrived, but was not accepted yet

# Connects to a host and a port with the first of these programs that the image has.
_CONNECT = f"""
unset http_proxy all_proxy ALL_PROXY
if command -v nc >&2; then nc -w {FIRST_WAIT_SECONDS} "$1" "$2" </dev/null
elif command -v bash >&2; then bash -c ': <>"/dev/tcp/$0/$1"' "$1" "$2"
elif command -v python3 >&2; then python3 -c 'import socket, sys; socket.create_connection(sys.argv[1:], {FIRST_WAIT_SECONDS})' "$1" "$2"
elif command -v curl >&2; then curl -m {FIRST_WAIT_SECONDS} "http://$1:$2"
elif command -v perl >&2; then perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new("$ARGV[0]:$ARGV[1]")' "$1" "$2"
elif command -v wget >&2; then wget -T {FIRST_WAIT_SECONDS} -O /dev/null "http://$1:$2"
else exit 127
fi
"""
# What such a program prints when it is rejected.
_REJECTED = (b"refused", b"unreachable", b"timed out", b"no route", b"prohibited")


@dataclass(eq=False)
class HostAccess:
    """
    The access of one container that is going to be created.

    Attributes:
        address: Where to listen; `None` if the engine's own `host.docker.internal` leads to the loopback of this machine.
        ports: The ports to be reached.
        subnet: The container's network, for messages; empty if it does not matter.
    """

    runtime: Runtime
    address: str | None
    ports: tuple[int, ...]
    subnet: str = ""

    def open(self, container: Container) -> None:
        """
        Listen until the container's handle is closed.

        Raises:
            HostAccessError: This process cannot listen there.
        """
        if self.address is not None:
            for port in self.ports:
                with registry.forwarders_lock:
                    _open_forwarder(self.address, port, container, self.runtime)

    def verify(self, container: Container) -> None:
        """
        Check that the running container can connect to the address.

        If its image has no program for that, nothing is known, and no error is raised.

        A port of its own is used, since a server of the user's may count its connections.

        Raises:
            HostAccessError: It cannot.
        """
        forwarders = [registry.forwarders.get((self.address or "", port)) for port in self.ports]
        if any(forwarder and forwarder.is_reachable for forwarder in forwarders):
            return
        with contextlib.closing(_listener(self.address or "127.0.0.1")) as listener:
            is_reached = self._is_reached(container, listener)
        if is_reached:
            for forwarder in filter(None, forwarders):
                forwarder.is_reachable = True
        if is_reached is not False:
            return
        where = self.address or "the loopback of this machine"
        raise HostAccessError(
            f"host_access_ports: {container.label} cannot connect to {where} at {HOST_NAME}: its packets do not arrive",
            hint="let the firewall of this machine accept packets from the container's network"
            + (f", for example with: ufw allow from {self.subnet}" if self.subnet else ""),
            reason="blocked",
        )

    def _is_reached(self, container: Container, listener: socket.socket) -> bool | None:
        """Return whether a program in the container can connect, or `None` if unknown."""
        arrived = threading.Event()

        def accept() -> None:
            with contextlib.suppress(OSError):
                listener.accept()[0].close()
                arrived.set()

        if start_thread(accept, "dockertest-host-access") is None:
            return None
        command = ["sh", "-c", _CONNECT, "sh", HOST_NAME, str(listener.getsockname()[1])]
        began = _clock.monotonic()
        output = io.BytesIO()
        try:
            exec_.run(
                self.runtime.engine,
                container.id,
                container.label,
                command,
                stdout=output,
                stderr=output,
                timeout=LONGEST_WAIT_SECONDS,
            )
        except ExecTimeoutError:
            pass
        except EngineError as error:  # It has ended already, or has no shell.
            log.debug("%s: cannot check the access to the host: %s", container.label, error)
        # On a busy machine it may not have begun yet: it prints its path first. One that fails for another reason, such as an
        # unknown option, proves nothing either.
        words = output.getvalue().lower()
        has_waited = bool(words) and _clock.monotonic() - began >= FIRST_WAIT_SECONDS
        has_failed = has_waited or any(word in words for word in _REJECTED)
        is_reached = arrived.wait(LAST_WAIT_SECONDS if has_failed else 0.0)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # which ends the thread
        if is_reached:
            return True
        return False if has_failed and not container.inspect().has_ended else None


@dataclass(eq=False)
class Forwarder:
    """
    A relay from an address that containers can connect to.

    Attributes:
        relay: `None` if the user's server accepts connections there by itself.
        granted: The containers that are served, by id.
        is_reachable: Whether one of them has been seen to reach the address.
    """

    relay: Relay | None = None
    granted: dict[str, Runtime] = field(default_factory=dict)
    is_reachable: bool = False

    def peers(self) -> Collection[str]:
        """
        Return the addresses that are served now.

        After a restart, a container may have another one.
        """
        peers = set()
        for container, runtime in list(self.granted.items()):
            with contextlib.suppress(DockertestError):
                inspection = runtime.engine.inspect(container)
                if not inspection.has_ended:
                    peers |= {endpoint.ip for endpoint in inspection.networks.values() if endpoint.ip}
        return peers


def plan(runtime: Runtime, body: dict[str, Any], ports: tuple[int, ...]) -> HostAccess:
    """
    Find out where a container reaches this process.

    Add the name for it to *body*, the body of the create request, unless the engine defines that name by itself.

    Raises:
        InvalidOptionError: The engine is on another host, or the container's network does not lead to this one.
    """
    host_config = body["HostConfig"]
    extra_hosts = host_config.setdefault("ExtraHosts", [])
    for host in filter(defines_host, map(str, extra_hosts)):
        raise InvalidOptionError(
            f"ExtraHosts: {host!r} cannot be combined with host_access_ports, which defines {HOST_NAME}",
            hint="leave it out of ExtraHosts",
        )
    engine, mode = runtime.engine, host_config.get("NetworkMode") or ""
    if not engine.endpoint.is_local:
        raise InvalidOptionError(
            f"host_access_ports: the engine at {engine.endpoint} is on another host, whose containers cannot connect to this one",
            hint="run the server in a container",
        )
    if is_special_mode(mode):
        raise InvalidOptionError(
            f"host_access_ports: a container in network mode {mode!r} cannot be granted access",
            hint="it reaches the server at localhost" if mode == "host" else "use a network",
        )
    own = runtime.reachability.own_networks()
    info = engine.info()
    if own is None and (sys.platform != "linux" or info.get("OperatingSystem") == "Docker Desktop"):
        if not engine.is_podman:  # which defines that name by itself
            extra_hosts.append(f"{HOST_NAME}:host-gateway")
        return HostAccess(runtime, None, ports)
    network = _network(runtime, mode)
    if own is not None:
        address, subnet = _own_address(network, own), ""
    else:
        if engine.is_rootless:
            raise InvalidOptionError(
                "host_access_ports: the engine runs without root, so that its networks do not lead to this host",
                hint="use an engine that runs as root, or run the server in a container",
            )
        address, subnet = _gateway(network)
    extra_hosts.append(f"{HOST_NAME}:{address}")
    return HostAccess(runtime, address, ports, subnet)


def _network(runtime: Runtime, mode: str) -> dict[str, Any]:
    """
    Return the network that a container with a network mode will be in.

    Raises:
        InvalidOptionError: It is internal.
    """
    default = "podman" if runtime.engine.is_podman else "bridge"
    name = default if mode in ("", "default", "bridge") else mode
    network: dict[str, Any] = runtime.engine.get(
        f"/networks/{quote_path(name)}", what=f"inspect network {name!r}"
    )
    if network.get("Internal"):
        raise InvalidOptionError(
            f"host_access_ports: the network {network['Name']!r} is internal, so that its containers reach no host",
            hint="use a network that is not internal",
        )
    return network


def _own_address(network: dict[str, Any], own: Networks) -> str:
    """
    Return the address of this process's container in a network.

    Raises:
        InvalidOptionError: It has none.
    """
    for endpoint in own.values():
        if endpoint.ip and endpoint.network_id in (network["Id"], network["Name"]):
            return endpoint.ip
    raise InvalidOptionError(
        f"host_access_ports: this process runs in a container that is not connected to the network {network['Name']!r}",
        hint=f"connect it, or use one of: {', '.join(own)}",
    )


def _gateway(network: dict[str, Any]) -> tuple[str, str]:
    """
    Return the host's address in a network, and the network's subnet.

    An IPv4 address is preferred.

    Raises:
        InvalidOptionError: It has none.
    """
    configs = (network.get("IPAM") or {}).get("Config") or ()
    for config in sorted(configs, key=lambda config: ":" in str(config.get("Subnet"))):
        subnet = str(config.get("Subnet") or "")
        if gateway := config.get("Gateway"):
            return str(gateway).partition("/")[0], subnet
        if subnet and network.get("Driver") == "bridge":  # Docker's default network before it is used
            return str(next(ipaddress.ip_network(subnet).hosts())), subnet
    raise InvalidOptionError(
        f"host_access_ports: the network {network['Name']!r} has no gateway to this host",
        hint="use a network with the driver bridge",
    )


def _open_forwarder(address: str, port: int, container: Container, runtime: Runtime) -> None:
    """
    Let a container connect through a forwarder.

    All containers of this process share the forwarder of an address and port.
    """
    key = (address, port)
    forwarder: Forwarder = registry.forwarders.get(key) or Forwarder()
    forwarder.relay = forwarder.relay or _listen(address, port, forwarder, is_future=runtime.engine.is_podman)
    forwarder.granted[container.id] = runtime
    registry.forwarders[key] = forwarder

    def close() -> None:
        with contextlib.nullcontext() if interrupts_package() else registry.forwarders_lock:
            forwarder.granted.pop(container.id, None)
            if not forwarder.granted and registry.forwarders.get(key) is forwarder:
                del registry.forwarders[key]
                if forwarder.relay:
                    forwarder.relay.close()

    container.on_close(close)


def _listen(address: str, port: int, forwarder: Forwarder, *, is_future: bool) -> Relay | None:
    """
    Return a relay to a port of this machine's loopback.

    Return `None` if a server already listens on this port of all addresses.

    Args:
        is_future: Whether the engine makes the address with the first container of a network, as Podman does.

    Raises:
        HostAccessError: This process cannot listen there.
    """
    try:
        return Relay(address, lambda: ("localhost", port), forwarder.peers, port=port, is_future=is_future)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_taken_everywhere(port):
            return None
        raise _listening_failed(address, port, error) from error


def _listening_failed(address: str, port: int, error: OSError) -> HostAccessError:
    reason, hint = {
        errno.EADDRINUSE: (
            "in-use",
            "another process grants access to this port; use another port in each process",
        ),
        errno.EACCES: ("permission", "use a port above 1023"),
    }.get(
        error.errno or 0,
        (
            "address",
            "the engine runs in a network of its own, for example in a virtual machine; run the server in a container",
        ),
    )
    return HostAccessError(
        f"host_access_ports: cannot listen on {join_host_port(address, port)}: {error.strerror}",
        hint=hint,
        reason=reason,
    )


def _is_taken_everywhere(port: int) -> bool:
    """Return whether a server listens on a port of all addresses, not of only one."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.77.77.77", port))  # an unusual address of loopback
    except OSError:
        return True
    return False


def _listener(address: str) -> socket.socket:
    """
    Return a socket that listens on a free port.

    Raises:
        HostAccessError: This machine does not have that address.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        listener.bind((address, 0))
        listener.listen()
    except OSError as error:
        listener.close()
        raise _listening_failed(address, 0, error) from error
    return listener
