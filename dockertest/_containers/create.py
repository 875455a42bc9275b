"""Write `RunOptions` as the engine's create request. Pure."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dockertest._engine.inspection import Image
from dockertest._engine.networks import is_special_mode
from dockertest._options import PortBinding, RunOptions
from dockertest._validation import RESERVED_LABELS, HealthcheckSpec, Mount, format_value
from dockertest.errors import InvalidOptionError

Modifier = Callable[[dict[str, Any]], object]
_NANOSECONDS = 10**9
_PODMAN_WITH_GPUS = (5, 4)
_ANY_FREE_PORT = (PortBinding(),)


@dataclass(frozen=True)
class CreateRequest:
    """
    What to send to create a container.

    Attributes:
        body: The JSON body of `POST /containers/create`.
        networks: The networks to connect to before the start, in addition to the first one, which is in the body.
    """

    body: dict[str, Any] = field(repr=False)  # It contains the environment.
    networks: tuple[str, ...]


def create_request(
    options: RunOptions,
    image: Image,
    *,
    image_name: str,
    labels: Mapping[str, str],
    publish_ip: str,
    network: str = "",
    owned_volumes: Collection[str] = (),
    modifiers: tuple[Modifier, ...] = (),
) -> CreateRequest:
    """
    Return the request that creates a container.

    Args:
        options: What to start.
        image: The image; its exposed ports are published.
        image_name: The name or id to create the container from.
        labels: Our own labels, in addition to the user's.
        publish_ip: The address for ports whose binding has none.
        network: The id of the network to use if *options* name none; the engine's default if empty.
        owned_volumes: The volumes that are removed with this session.
        modifiers: Called in turn with the engine's host configuration.
    """
    networks = options.parsed.networks
    # A container that shares another one's network cannot publish ports: engines refuse to create it.
    is_shared = bool(networks) and networks[0].startswith("container:")
    exposed = image.exposed_ports if options.publish_all_ports and not is_shared else ()
    host_config = _host_config(options, exposed, options.parsed.publish_ip or publish_ip)
    if owned_volumes:
        host_config |= _mounts(options.parsed.mounts, owned_volumes, labels)
    if networks or network:
        host_config["NetworkMode"] = networks[0] if networks else network
    host_config |= copy.deepcopy(dict(options.host_config))  # A modifier may change nested values.
    for index, modify in enumerate(modifiers):
        if not callable(modify):
            raise InvalidOptionError(f"modifiers[{index}] must be callable: got {format_value(modify)}")
        modify(host_config)
    body: dict[str, Any] = {
        "Image": image_name,
        "Hostname": options.hostname,
        "User": options.user,
        "Tty": options.tty,
        "Env": list(options.parsed.env),
        "WorkingDir": options.working_dir,
        "Labels": {**_overwritten_labels(image), **options.parsed.labels, **labels},
        "HostConfig": host_config,
    }
    if options.entrypoint:
        body["Entrypoint"] = list(options.entrypoint)
    if options.cmd:
        body["Cmd"] = list(options.cmd)
    if options.stop_timeout is not None:
        body["StopTimeout"] = math.ceil(options.stop_timeout)  # A part of a second must not become zero.
    if options.parsed.healthcheck is not None:
        body["Healthcheck"] = _healthcheck(options.parsed.healthcheck)
    body |= options.container_config
    # After the modifiers, since engines silently ignore a binding of a port that is not exposed.
    bound: dict[str, Any] = {port: {} for port in host_config.get("PortBindings") or ()}
    body["ExposedPorts"] = {**(body.get("ExposedPorts") or {}), **bound}
    joined = _first_endpoint(options, network, host_config)
    if joined:
        body["NetworkingConfig"] = {
            "EndpointsConfig": {joined: endpoint_config(joined, options.network_aliases)}
        }
    return CreateRequest(body, networks[1:])


def _first_endpoint(options: RunOptions, network: str, host_config: Mapping[str, Any]) -> str:
    """Return the network whose endpoint is part of the request; empty for none."""
    networks = options.parsed.networks
    if not networks:  # A modifier may have chosen another mode.
        return network if host_config.get("NetworkMode") == network else ""
    # Podman refuses an endpoint in "host" or "none". With aliases the engine's own error explains the mistake.
    return networks[0] if options.network_aliases or not is_special_mode(networks[0]) else ""


def adapt_to_podman(request: CreateRequest, version: tuple[int, ...]) -> None:
    """
    Write GPUs as Podman expects them.

    Options that it would ignore, or refuse without a clear reason, are refused here.

    Raises:
        InvalidOptionError: The engine would ignore the GPUs, or have to choose a free port of a range.
    """
    host_config = request.body["HostConfig"]
    if requests := host_config.get("DeviceRequests"):
        if () < version < _PODMAN_WITH_GPUS:
            raise InvalidOptionError(
                f"gpus: Podman {'.'.join(map(str, version))} would ignore them",
                hint="use Podman 5.4 or newer, or devices=",
            )
        host_config["DeviceRequests"] = [_as_cdi(one) for one in requests]
    for port, bindings in (host_config.get("PortBindings") or {}).items():
        if any("-" in str(binding.get("HostPort")) for binding in bindings or ()):
            raise InvalidOptionError(
                f"port_bindings: Podman cannot choose a port of the host for {port} from a range",
                hint='use a single port, or "" for any free port',
            )


def endpoint_config(network: str, aliases: Iterable[str] = ()) -> dict[str, Any]:
    """
    Return the engine's configuration of a container's endpoint in a network.

    Older versions of Docker keep only the name of the network until the start, unless they get its id here too. Several of
    their networks may have that name.
    """
    names = list(aliases)
    return {"NetworkID": network, **({"Aliases": names} if names else {})}


def _overwritten_labels(image: Image) -> dict[str, str]:
    """
    Return empty values for our own labels that the image carries.

    An engine adds the labels of an image to those of the container. An image that was committed from one of our containers
    carries its expiry time, its session and its reuse key. No request can remove a label; ours count as absent if empty.
    """
    return {name: "" for name in image.labels if name.startswith(RESERVED_LABELS)}


def _host_config(options: RunOptions, exposed: Iterable[str], publish_ip: str) -> dict[str, Any]:
    parsed = options.parsed
    ports = dict.fromkeys([*exposed, *parsed.exposed_ports, *parsed.port_bindings])
    host_config: dict[str, Any] = {
        "PortBindings": {
            port: _bindings(parsed.port_bindings.get(port) or _ANY_FREE_PORT, publish_ip) for port in ports
        },
        "Links": list(options.links),
        "ExtraHosts": list(options.extra_hosts),
        "CapAdd": list(options.cap_add),
        "SecurityOpt": list(parsed.security_opt),
        "Dns": list(options.dns),
        "Privileged": options.privileged,
        **_mounts(parsed.mounts),
    }
    if parsed.shm_size is not None:
        host_config["ShmSize"] = parsed.shm_size
    if parsed.tmpfs:
        host_config["Tmpfs"] = dict(parsed.tmpfs)
    if options.init is not None:
        host_config["Init"] = options.init
    return host_config | _limits(options)


def _limits(options: RunOptions) -> dict[str, Any]:
    """Return what else a container may use and do, as far as it is set."""
    parsed = options.parsed
    host_config: dict[str, Any] = {
        "Memory": parsed.memory,
        "NanoCpus": parsed.cpus and round(parsed.cpus * _NANOSECONDS),
        "DeviceRequests": _gpu_requests(parsed.gpus),
        "Ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in parsed.ulimits.items()
        ],
        "CapDrop": list(options.cap_drop),
        "Sysctls": dict(parsed.sysctls),
        "Devices": [
            {"PathOnHost": one.source, "PathInContainer": one.target, "CgroupPermissions": one.mode}
            for one in parsed.devices
        ],
        "ReadonlyRootfs": options.read_only,
        "PidMode": options.pid_mode,
        "IpcMode": options.ipc_mode,
        "RestartPolicy": _restart_policy(options.restart),
    }
    return {key: value for key, value in host_config.items() if value}


def _as_cdi(request: dict[str, Any]) -> dict[str, Any]:
    """
    Return a request for NVIDIA's GPUs by their names.

    Podman knows only those of the Container Device Interface: https://github.com/cncf-tags/container-device-interface
    """
    if request.get("Driver") == "cdi" or request.get("Capabilities") != [["gpu"]]:
        return request
    count = request.get("Count")
    names = ["all"] if count == -1 else list(map(str, range(count or 0)))
    return {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={name}" for name in names]}


def _gpu_requests(gpus: int | str | None) -> list[dict[str, Any]]:
    if gpus is None:
        return []
    return [{"Driver": "", "Count": -1 if gpus == "all" else gpus, "Capabilities": [["gpu"]]}]


def _restart_policy(policy: str) -> dict[str, Any]:
    name, _, count = policy.partition(":")
    return {} if name == "no" else {"Name": name, "MaximumRetryCount": int(count or 0)}


def _bindings(bindings: Iterable[PortBinding], publish_ip: str) -> list[dict[str, str]]:
    return [
        {"HostIp": binding.host_ip or publish_ip, "HostPort": str(binding.host_port)} for binding in bindings
    ]


def _mounts(
    mounts: Iterable[Mount], owned_volumes: Collection[str] = (), labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """
    Return the engine's form of mounts.

    A host path is sent as `Mounts`, where the engine refuses one that does not exist; for `Binds` it would create an
    empty directory that root owns. Only `Binds` supports modes other than `ro` and `rw`. Volumes are sent as `Binds`, except
    for those of *owned_volumes*. The reaper of a killed process may have removed one already when the engine begins to create
    the container, which creates the volume again. With *labels* the reaper finds it.
    """
    as_mounts, as_binds = [], []
    for mount in mounts:
        if mount.is_bind and set(mount.modes) <= {"ro", "rw"}:
            as_mounts.append(
                {
                    "Type": "bind",
                    "Source": mount.source,
                    "Target": mount.target,
                    "ReadOnly": "ro" in mount.modes,
                }
            )
        elif mount.source in owned_volumes and set(mount.modes) <= {"ro", "rw"}:
            as_mounts.append(
                {
                    "Type": "volume",
                    "Source": mount.source,
                    "Target": mount.target,
                    "ReadOnly": "ro" in mount.modes,
                    "VolumeOptions": {"Labels": dict(labels or {})},
                }
            )
        else:
            as_binds.append(str(mount))
    return {"Mounts": as_mounts, "Binds": as_binds}


def _healthcheck(spec: HealthcheckSpec) -> dict[str, Any]:
    """Return the engine's form of a health check, its times in nanoseconds."""
    times = {"Interval": spec.interval, "Timeout": spec.timeout, "StartPeriod": spec.start_period}
    return {
        **({} if spec.test is None else {"Test": list(spec.test)}),
        **{name: int(seconds * _NANOSECONDS) for name, seconds in times.items() if seconds is not None},
        **({} if spec.retries is None else {"Retries": spec.retries}),
    }
