"""Turn `RunOptions` into the engine's create request. Pure: contacts nothing, reads no environment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dockertest import _validation as _specs
from dockertest import _values
from dockertest._options import RunOptions
from dockertest._values import PortBinding

Modifier = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class CreateRequest:
    """
    What to send.

    Attributes:
        body: The JSON body of `POST /containers/create`.
        networks: The networks to connect to before the start, besides the first one, which is in the body.
    """

    body: dict[str, Any] = field(repr=False)  # has the environment in it
    networks: tuple[str, ...]


def create_request(
    options: RunOptions,
    image: Mapping[str, Any],
    *,
    image_name: str,
    labels: Mapping[str, str],
    publish_ip: str,
    network: str = "",
    modifiers: tuple[Modifier, ...] = (),
) -> CreateRequest:
    """
    Give the request for a container of *image*.

    Args:
        image: The engine's inspection of the image, for the ports that it exposes.
        image_name: The name or id to create it from.
        labels: Our own labels, besides the user's.
        publish_ip: The address for ports that no binding names one for.
        network: The network to be in where *options* name none; the engine's own if empty.
    """
    networks = _networks(options)
    # What shares another container's network publishes nothing: engines refuse to create it otherwise.
    shares = bool(networks) and networks[0].startswith("container:")
    exposed = {} if shares else (image.get("Config") or {}).get("ExposedPorts") or {}
    host_config = _host_config(options, exposed, options.publish_ip or publish_ip)
    if networks or network:
        host_config["NetworkMode"] = networks[0] if networks else network
    for modify in modifiers:
        modify(host_config)
    body: dict[str, Any] = {
        "Image": image_name,
        "Hostname": options.hostname,
        "User": options.user,
        "Tty": options.tty,
        "Env": list(_specs.environment("env", options.env)),
        "WorkingDir": options.working_dir,
        "Labels": {**options.labels, **labels},
        # After the modifiers: a port that is bound but not exposed, engines leave out without a word.
        "ExposedPorts": {port: {} for port in host_config.get("PortBindings") or ()},
        "HostConfig": host_config,
    }
    if options.entrypoint:
        body["Entrypoint"] = list(options.entrypoint)
    if options.cmd:
        body["Cmd"] = list(options.cmd)
    if options.stop_timeout is not None:
        body["StopTimeout"] = math.ceil(options.stop_timeout)  # as `stop` does: part of a second is not none
    if options.healthcheck is not None:
        body["Healthcheck"] = _values.healthcheck(options.healthcheck)
    # Podman refuses an end of what is no network; that aliases are of no use there, engines say themselves.
    if networks and (options.network_aliases or not is_no_network(networks[0])):
        body["NetworkingConfig"] = {
            "EndpointsConfig": {networks[0]: endpoint_config(options.network_aliases)}
        }
    return CreateRequest(body, networks[1:])


def endpoint_config(aliases: tuple[str, ...] | Any) -> dict[str, Any]:
    """Give a container's end of a network, as the engine writes it."""
    return {"Aliases": list(aliases)} if aliases else {}


def _host_config(options: RunOptions, exposed: Iterable[str], publish_ip: str) -> dict[str, Any]:
    bindings = _values.port_bindings(options.port_bindings)
    ports = dict.fromkeys(
        [*exposed, *_specs.container_ports("exposed_ports", options.exposed_ports), *bindings]
    )
    host_config: dict[str, Any] = {
        "PortBindings": {
            port: _bindings(bindings.get(port) or (PortBinding(),), publish_ip) for port in ports
        },
        "Links": list(options.links),
        "ExtraHosts": list(options.extra_hosts),
        "CapAdd": list(options.cap_add),
        "SecurityOpt": list(options.security_opt),
        "Dns": list(options.dns),
        "Privileged": options.privileged,
        **_mounts(options),
    }
    if options.shm_size is not None:
        host_config["ShmSize"] = _specs.size("shm_size", options.shm_size)
    if options.tmpfs:
        host_config["Tmpfs"] = _values.tmpfs(options.tmpfs)
    if options.init is not None:
        host_config["Init"] = options.init
    return host_config


def _bindings(bindings: tuple[PortBinding, ...], publish_ip: str) -> list[dict[str, str]]:
    return [{"HostIp": each.host_ip or publish_ip, "HostPort": str(each.host_port)} for each in bindings]


def _mounts(options: RunOptions) -> dict[str, Any]:
    """
    Give mounts as the engine writes them.

    A plain path goes as `Mounts`, since the engine then refuses one that is not there; as `Binds` it would make an
    empty folder of that name on its host, owned by root. `Binds` alone knows the other modes, such as SELinux's `z`.
    """
    mounts = [_specs.mount("mounts", each) for each in options.mounts]
    plain = [each for each in mounts if each.is_bind and set(each.modes) <= {"ro", "rw"}]
    return {
        "Mounts": [
            {"Type": "bind", "Source": each.source, "Target": each.target, "ReadOnly": "ro" in each.modes}
            for each in plain
        ],
        "Binds": [str(each) for each in mounts if each not in plain],
    }


def _networks(options: RunOptions) -> tuple[str, ...]:
    named = [options.network_id] if options.network_id else []
    named += [_values.network_id("networks", network) for network in options.networks]
    return tuple(dict.fromkeys(named))


def bound_ports(host_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the container ports that the engine binds for a container with this host config."""
    if is_no_network(str(host_config.get("NetworkMode") or "")):
        return ()
    return tuple(host_config.get("PortBindings") or ())


def is_no_network(mode: str) -> bool:
    """Whether it stands where a network's name stands, and is none: the host's, nobody's or another container's."""
    return mode in ("host", "none") or mode.startswith("container:")
