"""What the engine reports about a container or an image, as frozen values. Pure."""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from dockertest._public import public
from dockertest._secret import Assignment

_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(?:Z|([+-])(\d\d):(\d\d))?")
DEFAULT_STOP_SECONDS = 10.0  # of Docker and Podman, until they kill a container
# Podman calls a container "stopped" until it has cleaned up.
ENDED_STATUSES = ("exited", "stopped", "dead", "removing")


@dataclass(frozen=True, slots=True)
class BoundPort:
    """An address and port of the engine's host that a container's port is bound to."""

    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkEndpoint:
    """
    A container's endpoint in one network.

    Attributes:
        network_id: The network's id; on Podman its name.
        ip: The container's IPv4 address, else its global IPv6 address; empty while it has none.
        gateway: The network's IPv4 gateway; empty if it has none.
        aliases: Names by which other containers there can reach it, without those that the engine adds.
    """

    network_id: str
    ip: str
    gateway: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """
    A volume, host folder or tmpfs in a container.

    `kind` is the engine's word, such as `"bind"`. `name` is the name of a volume.
    """

    kind: str
    target: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """
    One answer to `GET /containers/{id}/json`.

    Attributes:
        image: The image's name as the container was created from it.
        status: The engine's word: `"created"`, `"running"`, `"paused"`, `"restarting"`, `"exited"`, `"dead"`, …
        exit_code: The exit code of the first process; `None` unless the container has ended.
        error: Why the engine could not start it; empty otherwise.
        stop_signal: The signal that a stop sends; empty for the engine's default.
        stop_timeout: The seconds that a stop may wait for the command to end.
        started_at: When it was last started, in seconds since the epoch by the engine's clock; 0 if it never was.
        finished_at: When it last ended, in seconds since the epoch by the engine's clock; 0 if it never did.
        health: `"starting"`, `"healthy"` or `"unhealthy"`; `"none"` without a health check.
        health_output: The last output of the health check.
        has_healthcheck: Whether a health check is declared, by the image or the options.
        published_ports: The container ports that are to be published, bound or not.
        ports: Where each container port is bound at this moment.
        is_read_only: Whether the container's own file system is mounted read-only.
        attrs: The whole answer.
    """

    id: str
    name: str
    image: str
    image_id: str
    status: str
    exit_code: int | None
    oom_killed: bool
    error: str
    started_at: float
    finished_at: float
    health: str
    health_output: str
    has_healthcheck: bool
    tty: bool
    hostname: str
    stop_signal: str
    stop_timeout: float
    labels: Mapping[str, str]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    exposed_ports: tuple[str, ...]
    network_mode: str
    published_ports: tuple[str, ...]
    auto_remove: bool
    ports: Mapping[str, tuple[BoundPort, ...]]
    networks: Mapping[str, NetworkEndpoint]
    mounts: tuple[MountPoint, ...]
    tmpfs: tuple[str, ...]
    is_read_only: bool
    attrs: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, attrs: Mapping[str, Any]) -> Self:
        """Read the engine's answer; parts that an engine leaves out are empty."""
        state = attrs.get("State") or {}
        config = attrs.get("Config") or {}
        host = attrs.get("HostConfig") or {}
        network = attrs.get("NetworkSettings") or {}
        status = str(state.get("Status") or "unknown")
        if status == "stopped":  # as Podman calls it until it has cleaned up
            status = "exited"
        has_ended = status in ENDED_STATUSES
        health = state.get("Health") or {}
        checks = health.get("Log") or []
        return cls(
            id=str(attrs.get("Id", "")),
            name=str(attrs.get("Name", "")).lstrip("/"),
            image=str(config.get("Image", "")),
            image_id=str(attrs.get("Image", "")),
            status=status,
            exit_code=state.get("ExitCode") if has_ended else None,
            oom_killed=has_ended and bool(state.get("OOMKilled")),
            error=str(state.get("Error") or ""),
            started_at=parse_timestamp(str(state.get("StartedAt") or "")),
            finished_at=parse_timestamp(str(state.get("FinishedAt") or "")),
            health=str(health.get("Status") or "none"),
            health_output=str(checks[-1].get("Output", "")).strip() if checks else "",
            has_healthcheck=_declares_healthcheck(config),
            tty=bool(config.get("Tty")),
            hostname=str(config.get("Hostname") or ""),
            stop_signal=str(config.get("StopSignal") or ""),
            stop_timeout=_stop_timeout(config.get("StopTimeout")),
            labels=dict(config.get("Labels") or {}),
            env=tuple(Assignment(pair) for pair in config.get("Env") or ()),
            entrypoint=_words(config.get("Entrypoint")),
            command=_words(config.get("Cmd")),
            exposed_ports=_ports(config.get("ExposedPorts")),
            network_mode=str(host.get("NetworkMode") or ""),
            # Podman 4 also lists the ports that are only exposed.
            published_ports=_ports(port for port, bound in (host.get("PortBindings") or {}).items() if bound),
            auto_remove=bool(host.get("AutoRemove")),
            ports={
                port: tuple(BoundPort(str(one.get("HostIp", "")), int(one["HostPort"])) for one in bound)
                for port, bound in (network.get("Ports") or {}).items()
                if bound
            },
            networks={
                name: NetworkEndpoint(
                    network_id=str(endpoint.get("NetworkID") or ""),
                    ip=str(endpoint.get("IPAddress") or endpoint.get("GlobalIPv6Address") or ""),
                    gateway=str(endpoint.get("Gateway") or ""),
                    aliases=_own_aliases(endpoint.get("Aliases"), attrs),
                )
                for name, endpoint in (network.get("Networks") or {}).items()
            },
            mounts=tuple(
                MountPoint(
                    kind=str(one.get("Type", "")),
                    target=str(one["Destination"]),
                    name=str(one.get("Name") or ""),
                )
                for one in attrs.get("Mounts") or ()
            ),
            tmpfs=tuple(host.get("Tmpfs") or ()),
            is_read_only=bool(host.get("ReadonlyRootfs")),
            attrs=attrs,
        )

    @property
    def has_ended(self) -> bool:
        """Whether the container has ended."""
        return self.status in ENDED_STATUSES

    @property
    def has_policy(self) -> bool:
        """Whether its policy restarts the container if it has just ended by itself."""
        policy = (self.attrs.get("HostConfig") or {}).get("RestartPolicy") or {}
        name, limit = policy.get("Name"), policy.get("MaximumRetryCount") or math.inf
        is_retried = self.exit_code != 0 and self.attrs.get("RestartCount", 0) < limit
        return name in ("always", "unless-stopped") or (name == "on-failure" and is_retried)


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """
    A local image, as the engine describes it.

    Attributes:
        id: Its id, with the algorithm: `"sha256:…"`.
        platform: Operating system, architecture and variant, such as `("linux", "arm64", "v8")`; empty strings where the
            engine does not report them.
        exposed_ports: The container ports that the image exposes, such as `"5432/tcp"`.
        env: Its environment, as `"K=V"` strings.
        entrypoint: The program that a container starts, with its first arguments; empty for none.
        command: The arguments for the entrypoint, or the command if there is none.
        labels: Its labels.
        volumes: The paths that it declares as volumes.
        stop_signal: The signal that a stop sends; empty for the engine's default.
        has_healthcheck: Whether it declares a health check.
        attrs: The engine's whole answer to `GET /images/{name}/json`.
    """

    id: str
    platform: tuple[str, str, str]
    exposed_ports: tuple[str, ...]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    labels: Mapping[str, str]
    volumes: tuple[str, ...]
    stop_signal: str
    has_healthcheck: bool
    attrs: Mapping[str, Any] = field(repr=False, compare=False)


def parse_image(attrs: Mapping[str, Any]) -> Image:
    """Return an image from the engine's answer; missing parts are empty."""
    config = attrs.get("Config") or {}
    return Image(
        id=str(attrs.get("Id", "")),
        platform=(
            str(attrs.get("Os") or ""),
            str(attrs.get("Architecture") or ""),
            str(attrs.get("Variant") or ""),
        ),
        exposed_ports=_ports(config.get("ExposedPorts")),
        env=tuple(Assignment(pair) for pair in config.get("Env") or ()),
        entrypoint=_words(config.get("Entrypoint")),
        command=_words(config.get("Cmd")),
        labels=dict(config.get("Labels") or {}),
        volumes=tuple(config.get("Volumes") or ()),
        stop_signal=str(config.get("StopSignal") or ""),
        has_healthcheck=_declares_healthcheck(config),
        attrs=attrs,
    )


def parse_timestamp(stamp: str) -> float:
    """
    Return an engine's timestamp in seconds since the epoch.

    An example of such a timestamp is `2026-11-23T12:00:00.123456789Z`.
    """
    match = _STAMP.match(stamp)
    if not match or match[1].startswith("0001"):  # Go's zero time: it never happened
        return 0.0
    sign = -1 if match[4] == "-" else 1
    offset = sign * (int(match[5]) * 3600 + int(match[6]) * 60) if match[4] else 0
    whole = calendar.timegm(tuple(int(part) for part in re.split("[-T:]", f"{match[1]}T{match[2]}")))
    return max(0.0, whole - offset + float(match[3] or 0))


def _ports(names: Iterable[str] | None) -> tuple[str, ...]:
    """
    Return container ports with their protocols, once each.

    The configuration of an image may leave out `/tcp`.
    """
    return tuple(dict.fromkeys((port if "/" in port else f"{port}/tcp").lower() for port in names or ()))


def _own_aliases(value: object, attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """
    Return a container's aliases without its short id and its name.

    Some engines add these to the aliases.
    """
    added = (str(attrs.get("Id", ""))[:12], str(attrs.get("Name", "")).lstrip("/"))
    return tuple(alias for alias in _words(value) if alias not in added)


def _words(value: object) -> tuple[str, ...]:
    """Return a command as words; Podman writes some as one string."""
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(value) if isinstance(value, (list, tuple)) else ()


def _stop_timeout(configured: object) -> float:
    """Return the engine's default if nothing is configured, an hour for no limit."""
    seconds = float(configured) if isinstance(configured, int) else DEFAULT_STOP_SECONDS
    return 3600.0 if seconds < 0 else seconds


def _declares_healthcheck(config: Mapping[str, Any]) -> bool:
    test = (config.get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test[:1] != ["NONE"]
