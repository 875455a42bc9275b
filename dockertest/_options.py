"""
Options of containers and images, parsed and validated when they are created.

They do not depend on an engine.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar

from dockertest import _validation
from dockertest._image_name import ImageName, parse_image_name
from dockertest._public import public
from dockertest._secret import Assignment
from dockertest._validation import (
    Content,
    Device,
    Healthcheck,
    HealthcheckSpec,
    Mount,
    MountSpec,
    NetworkSpec,
    set_fields,
)
from dockertest.errors import InvalidOptionError

P = TypeVar("P")
PullPolicy = Literal["missing", "always", "never"]
WaitCondition = (
    Literal["ready", "healthy", "port"] | Callable[[Any], object]
)  # it takes a Resource, which is in a layer above
PortSpec = str | int
UlimitSpecs = Mapping[str, Any] | Sequence[str]
EnvSpec = Mapping[str, object] | Iterable[str]
VersionSpec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
LogTarget = logging.Logger | Path | Callable[[str], object]
LogSpec = logging.Logger | str | os.PathLike[str] | Callable[[str], object]
_SECRET_ID = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SECCOMP = re.compile(r"seccomp[=:](?P<profile>.+)", re.DOTALL)
HOST_NAME = "host.docker.internal"
_ENGINE_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_UNSHOWN = "the value is not shown, since it may be a secret"
_AUTH_HINT = "write auth=dockertest.AuthConfig(username=…, password=…)"


@public
@dataclass(frozen=True, slots=True)
class PortBinding:
    """
    An address and port of the host.

    Attributes:
        host_ip: The address to publish on; the pool's `publish_ip` if empty.
        host_port: The port, a number or a string; any free port if empty or `0`, a free one of a range such as
            `"9000-9010"`.
    """

    host_ip: str = ""
    host_port: str | int = ""

    def __post_init__(self) -> None:
        set_fields(
            self,
            host_ip=_validation.parse_ip_address("host_ip", self.host_ip),
            host_port=_validation.parse_host_port("host_port", self.host_port),
        )


@public
@dataclass(frozen=True, slots=True)
class Reuse:
    """
    How a container is reused, and when that ends.

    Attributes:
        group: Share the container with everyone on this engine who names the same group. By default it belongs to this
            user on this host.
        idle: Remove the container when no session has used it for this number of seconds; by default it stays. A session is the
            use of one `Pool` by one process. Refused with `group`, since use by other hosts is invisible.
        replaces: Remove a container of the same name that was started for reuse with other options. While a living session
            uses that one, `ContainerCreateError` is raised. Refused with `group`.
    """

    group: str | None = None
    idle: float | None = None
    replaces: bool = False

    def __post_init__(self) -> None:
        if self.group is not None and not _validation.parse_str("reuse: group", self.group):
            raise InvalidOptionError("reuse: the name of the group is empty")
        if self.idle is not None:
            set_fields(self, idle=_validation.parse_seconds("reuse: idle", self.idle))
        _validation.parse_bool("reuse: replaces", self.replaces)
        if self.group is not None and (self.idle is not None or self.replaces):
            option = "replaces" if self.idle is None else "idle"
            raise InvalidOptionError(
                f"reuse: {option} cannot be combined with group, since use by other hosts is invisible",
                hint=f"leave out {option} or group",
            )


BindingSpec = str | int | PortBinding | Sequence[str | int | PortBinding]

# The keys are ports, as strings or numbers. To a type checker a mapping of either is not a mapping of both, and with a
# union of mappings it does not check the values.
BindingSpecs = Mapping[Any, BindingSpec]


T = TypeVar("T")


def _forgets_arguments(cls: type[T]) -> type[T]:
    """
    Keep a dataclass's arguments out of the traceback of an `InvalidOptionError`.

    They may be secret, and pytest's `--showlocals` and error trackers print the variables of every frame.
    """
    initialize: Callable[..., None] = cls.__init__

    @wraps(initialize)
    def init(self: T, *args: object, **kwargs: object) -> None:
        try:
            initialize(self, *args, **kwargs)
        except InvalidOptionError as error:
            raise error.with_traceback(None)  # noqa: B904 - it keeps its cause
        finally:
            del args, kwargs

    cls.__init__ = init  # type: ignore[assignment]
    return cls


@public
@_forgets_arguments
@dataclass(frozen=True, slots=True)
class AuthConfig:
    """
    Credentials for a registry.

    No `repr`, log line or error shows the password or the token.

    Attributes:
        username: The name of the user.
        password: The password, or an access token used as one.
        server_address: The registry; by default the one in the image's name.
        identity_token: A token from an earlier login, instead of the password.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    server_address: str | None = None
    identity_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("username", "password", "server_address", "identity_token"):
            value = getattr(self, name)
            # None for the others would be sent as the text "None".
            if value is None and name in ("server_address", "identity_token"):
                continue
            if not isinstance(value, str):
                raise InvalidOptionError(f"auth: {name} must be a string ({_UNSHOWN})")
            if problem := _validation.unsendable(value):
                raise InvalidOptionError(f"auth: {name} contains {problem} ({_UNSHOWN})")


@public
@_forgets_arguments
@dataclass(frozen=True, slots=True, repr=False)
class File:
    """
    The content of a file in a container, with its mode and owner.

    Attributes:
        data: The content; text is encoded as UTF-8. No `repr` or error shows it.
        mode: The permissions.
        owner: The numbers of the user and the group that own it, `"uid:gid"`.
    """

    data: bytes | str
    mode: int = 0o644
    owner: str = "0:0"

    def __post_init__(self) -> None:
        set_fields(
            self,
            data=_validation.parse_content("File: data", self.data),
            mode=_validation.parse_mode("File: mode", self.mode),
            owner=_validation.parse_owner("File: owner", self.owner),
        )

    def __repr__(self) -> str:
        if not isinstance(self.data, Content):
            return "File(…)"
        return f"File({self.data!r}, mode=0o{self.mode:o}, owner={self.owner!r})"


FileSpec = bytes | str | os.PathLike[str] | File


class _Parsed(Generic[P]):
    """
    Base class of options that keep their typed values beside their fields.

    Attributes:
        parsed: The typed values, which the rest of the package reads for fields with several spellings. It is not a
            dataclass field, so that `dataclasses.fields`, `asdict`, `replace`, `==` and `repr` only know what the user
            can set.
    """

    __slots__ = ("parsed",)
    if TYPE_CHECKING:
        parsed: P  # At run time `typing.get_type_hints` must not find it among the fields.

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), [getattr(self, name) for name in _field_names(self)], self.parsed)


Options = TypeVar("Options", bound=_Parsed[Any])


def _restore(cls: type[Options], values: Sequence[object], parsed: object) -> Options:
    """
    Return unpickled options without parsing them again.

    A local file that they name need not exist in this process.
    """
    options = cls.__new__(cls)
    set_fields(options, parsed=parsed, **dict(zip(_field_names(options), values, strict=True)))
    return options


def _field_names(options: Any) -> list[str]:
    return [option.name for option in fields(options)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRunOptions:
    """
    The typed values of those fields of `RunOptions` that accept several forms.

    Attributes:
        image: The image; `None` if no repository is given, as for a build that names it after the container.
        networks: The names and ids of `network_id` and `networks`, each of them once.
        security_opt: With the content of a seccomp profile in place of its path.
        publish_ip: The address to publish ports on; empty for the pool's.
        healthcheck: `None` for the image's own.
        files: Contents and local paths by path in the container.
        reuse: `None` without reuse.
    """

    image: ImageName | None
    env: tuple[Assignment, ...]
    mounts: tuple[Mount, ...]
    exposed_ports: tuple[str, ...]
    networks: tuple[str, ...]
    security_opt: tuple[str, ...]
    labels: Mapping[str, str]
    port_bindings: Mapping[str, tuple[PortBinding, ...]]
    tmpfs: Mapping[str, str]
    shm_size: int | None
    healthcheck: HealthcheckSpec | None
    publish_ip: str
    files: Mapping[str, Content | Path | File]
    memory: int | None
    cpus: float | None
    gpus: int | str | None
    ulimits: Mapping[str, tuple[int, int]]
    sysctls: Mapping[str, str]
    devices: tuple[Device, ...]
    log_to: LogTarget | None
    reuse: Reuse | None


@public
@_forgets_arguments
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunOptions(_Parsed[ParsedRunOptions]):
    """
    The options of a container to start.

    An invalid value raises `InvalidOptionError` immediately. The error names the field.

    Attributes:
        repository: The image, such as `"postgres"`; it may contain the tag or a digest. For a build, the name that
            the image gets; `name` by default.
        tag: The image's tag; `latest` by default, unless `repository` contains a tag or a digest.
        name: The container's name; by default the engine chooses one.
        hostname: The container's host name, at most 64 bytes.
        env: The environment, a mapping or `"K=V"` strings. Messages and `repr` never show the values.
        entrypoint: Replaces the image's entrypoint.
        cmd: Replaces the image's command.
        mounts: `"source:target[:ro]"`; the source is an absolute path on the engine's host or the name of a volume. Also
            `(volume, "/path")` and `(volume, "/path", "ro")` with a `Volume`, or with an absolute `pathlib.Path` of the
            engine's host.
        links: `"container[:alias]"`, the engine's legacy way to make other containers known by name.
        exposed_ports: Ports to publish in addition to those that the image exposes, and ranges such as `"7000-7003"`.
        extra_hosts: `"host:address"` lines for the container's `/etc/hosts`.
        cap_add: Kernel capabilities to add, such as `"NET_ADMIN"`.
        security_opt: Security options, such as `"seccomp=unconfined"` or `"seccomp=/path/to/profile.json"`. The profile is a
            file on this machine, which is read at once, as with the docker CLI.
        dns: Addresses of name servers.
        working_dir: The directory that the command starts in.
        network_id: The name or id of a network, as in Go; equivalent to an entry of `networks`.
        networks: Networks to connect to before the start: `Network` objects, names or ids.
        network_aliases: Names under which other containers on these networks reach this one.
        labels: Labels; those that begin with `dockertest.` are refused.
        auth: Credentials for the image's registry.
        port_bindings: Maps a container port to the host port, the `PortBinding`, or a list of them, to publish it on. With
            a range of host ports such as `"9000-9010"`, the engine uses one that is free. A range of container ports is
            bound one to one to a range of as many host ports, or, with `""`, each to any free port.
        privileged: Run the container with full access to the engine's host.
        user: The user that the command runs as, `"name"` or `"uid:gid"`.
        tty: Allocate a terminal for the command.
        platform: The platform of the image and the container, such as `"linux/arm64"`; by default
            `DOCKER_DEFAULT_PLATFORM`, else the engine's own.
        tmpfs: Paths to keep in memory: a sequence such as `["/run", "/tmp:size=64m"]`, or a mapping to mount options such
            as `"size=64m"`.
        shm_size: The size of `/dev/shm`, in bytes or as a string such as `"256m"`.
        init: Run a small init process as process 1, which reaps zombies.
        stop_timeout: Seconds to wait for the command to exit when the container is stopped, before it is killed.
        healthcheck: A shell command, or a mapping with the keys `test` (a string, or a sequence such as `["CMD", "true"]`),
            `retries`, and, in seconds, `interval`, `timeout` and `start_period`.
        service: The service that the image contains, such as `"postgres"`, for an image whose name does not show it; see
            `dockertest.services.known`.
        wait_for: What to wait for before the container is returned: `"ready"` (as `Resource.wait_ready` does),
            `"healthy"` (its health check), `"port"` (all published TCP ports accept connections), or a callable that takes
            the `Resource` and is called until it succeeds, as by `Resource.retry`. By default nothing is waited for. It may
            take the pool's `max_wait`; after a failure the container is removed, unless others may use it.
        pull: When to pull the image: `"missing"`, `"always"` or `"never"`.
        publish_ip: The address to publish ports on; the pool's by default.
        files: Files to put into the container before it starts. Maps an absolute path in the container to the
            content: `bytes`, a `str` (the text itself, never a path; encoded as UTF-8), or the `pathlib.Path` of a
            local file or directory, which is read when the container starts. Local files keep their modes, and get 0755 on Windows; others get
            0644; root owns all of them. A `File` sets mode and owner. A directory is merged into one that exists, and so are those in it; existing
            directories keep their owners and modes, missing ones are created.
            Messages and `repr` never show the contents.
        memory: The most memory that the container may use, in bytes or as a string such as `"512m"`.
        cpus: How many processors the container may use, such as `1.5`.
        gpus: `"all"`, or the number of GPUs that the container can use.
        ulimits: Resource limits: a mapping such as `{"nofile": 1024}` or `{"nofile": (1024, 4096)}`, soft and hard, or
            `"nofile=1024:4096"` strings; -1 means no limit.
        cap_drop: Kernel capabilities to remove, such as `"NET_RAW"` or `"ALL"`.
        sysctls: Kernel parameters of the container: a mapping such as `{"net.core.somaxconn": 1024}`, or `"name=value"`
            strings.
        devices: Devices of the engine's host, `"source[:target][:rwm]"`, such as `"/dev/fuse"`.
        read_only: Mount the container's own file system read-only; volumes and `tmpfs` stay writable.
        pid_mode: The PID namespace: `"host"` or `"container:NAME"`; its own by default.
        ipc_mode: The IPC namespace: `"host"`, `"private"`, `"shareable"`, `"none"` or `"container:NAME"`; the engine's
            default if empty.
        restart: When the engine restarts the container after its command has ended: `"no"`, `"on-failure"`,
            `"on-failure:3"` (at most three times) or `"always"`. A container that is being restarted does not count as
            dead.
        publish_all_ports: Publish every port that the image exposes. With `False`, only those of `exposed_ports` and
            `port_bindings` are published, which is much faster for an image that exposes hundreds.
        host_access_ports: TCP ports of the host of this process that the container reaches at `host.docker.internal`, also those of
            servers that listen on loopback only. The engine must be on that host. Cannot be combined with `reuse` and `shared`.
        log_to: Passes the container's log on, line by line, until the resource is closed: a `logging.Logger` (at level INFO), the
            path of a local file, which is created or appended to, or a function that is called with each line in a
            thread. A container that is reused is followed from now on.
        host_config: More of the engine's `HostConfig`, with the engine's own keys, such as `{"OomScoreAdj": 500}`. It is applied
            after the other fields and before modifiers. A key that is also set by a field is refused. `repr` hides the
            values.
        container_config: The same for the request's other keys, such as `{"StopSignal": "SIGINT"}`; not for `Env` and
            `Labels`.
        reuse: With `True`, use a running container with the same image and options that any process of this user on
            this host has started, if there is one. With the name of a group, share it with everyone on this engine
            who names the same group. Closing leaves it running; `Pool.purge` and `Pool.prune(reused=True)` remove it.
            A container that is dead, paused or unhealthy is replaced. A `Reuse` has further options, such as when
            the container is removed.
        shared: Use the same container in all processes of one test run of this user on this host: the first one starts
            it, and it is removed when the last one has closed its pool or has ended, even by SIGKILL. The run is
            `DOCKERTEST_RUN_ID`. A pool's own networks and volumes cannot be used with it. With several engines it is one
            for each of them.
    """

    repository: str = ""
    tag: str | None = None
    name: str = ""
    hostname: str = ""
    env: EnvSpec = ()
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    mounts: Sequence[MountSpec] = ()
    links: Sequence[str] = ()
    exposed_ports: Sequence[PortSpec] = ()
    extra_hosts: Sequence[str] = ()
    cap_add: Sequence[str] = ()
    security_opt: Sequence[str] = ()
    dns: Sequence[str] = ()
    working_dir: str = ""
    network_id: str = ""
    networks: Sequence[NetworkSpec] = ()
    network_aliases: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    auth: AuthConfig | None = None
    port_bindings: BindingSpecs = field(default_factory=dict)
    privileged: bool = False
    user: str = ""
    tty: bool = False
    platform: str = ""
    tmpfs: Mapping[str, str] | Sequence[str] = ()
    shm_size: int | str | None = None
    init: bool | None = None
    stop_timeout: float | None = None
    healthcheck: Healthcheck | None = None
    service: str = ""
    wait_for: WaitCondition | None = None
    pull: PullPolicy = "missing"
    publish_ip: str | None = None
    files: Mapping[str, FileSpec] = field(default_factory=dict)
    memory: int | str | None = None
    cpus: float | str | None = None
    gpus: int | str | None = None
    ulimits: UlimitSpecs = field(default_factory=dict)
    cap_drop: Sequence[str] = ()
    sysctls: Mapping[str, str | int] | Sequence[str] = field(default_factory=dict)
    devices: Sequence[str] = ()
    read_only: bool = False
    pid_mode: str = ""
    ipc_mode: str = ""
    restart: str = "no"
    publish_all_ports: bool = True
    host_access_ports: Sequence[PortSpec] = ()
    log_to: LogSpec | None = None
    host_config: Mapping[str, Any] = field(default_factory=dict)
    container_config: Mapping[str, Any] = field(default_factory=dict)
    reuse: bool | str | Reuse = False
    shared: bool = False

    def __post_init__(self) -> None:
        values = _validation.parse_fields(self, _PARSERS, _DEFAULTS)
        parsed = _parse_run_options(self, values)
        _check_choices(self, values, parsed)
        canonical = {
            **values,
            "parsed": parsed,
            "mounts": tuple(str(mount) for mount in parsed.mounts),
            "labels": dict(parsed.labels),
            "port_bindings": dict(parsed.port_bindings),
            "tmpfs": dict(parsed.tmpfs),
            "publish_ip": parsed.publish_ip or None,
            "files": dict(parsed.files),
            "devices": tuple(str(device) for device in parsed.devices),
            "log_to": parsed.log_to,
        }
        for name, value in canonical.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        if not hasattr(
            self, "parsed"
        ):  # Some values were not checked yet, and may be secrets in the wrong place.
            return "RunOptions(…)"
        shown = []
        for option in fields(self):
            value = getattr(self, option.name)
            is_set = value != option.default if option.name in _SET_BY_DEFAULT else bool(value)
            if option.name == "env" and value:
                shown.append("env=({})".format(" ".join(f"{pair!r}," for pair in self.parsed.env)))
            elif is_set or option.name == "repository":
                shown.append(f"{option.name}={value!r}")
        return f"RunOptions({', '.join(shown)})"


_SET_BY_DEFAULT = ("restart", "publish_all_ports")
_PARSERS: Mapping[str, _validation.Parser] = {
    "name": _validation.parse_name,
    "hostname": _validation.parse_hostname,
    "entrypoint": _validation.parse_strings,
    "cmd": _validation.parse_strings,
    "working_dir": _validation.parse_optional_str,
    "env": _validation.parse_environment,
    "mounts": _validation.parse_mounts,
    "links": _validation.parse_strings,
    "exposed_ports": _validation.parse_ports,
    "extra_hosts": _validation.parse_strings,
    "cap_add": _validation.parse_strings,
    "security_opt": _validation.parse_strings,
    "dns": _validation.parse_ip_addresses,
    "network_id": _validation.parse_optional_str,
    "networks": _validation.parse_networks,
    "network_aliases": _validation.parse_strings,
    "labels": _validation.parse_labels,
    "user": _validation.parse_optional_str,
    "tty": _validation.parse_bool,
    "platform": _validation.parse_optional_str,
    "privileged": _validation.parse_bool,
    "service": _validation.parse_optional_str,
    "shared": _validation.parse_bool,
    "tmpfs": _validation.parse_tmpfs,
    "shm_size": _validation.parse_size,
    "publish_ip": _validation.parse_ip_address,
    "memory": _validation.parse_size,
    "cpus": _validation.parse_cpus,
    "gpus": _validation.parse_gpus,
    "ulimits": _validation.parse_ulimits,
    "cap_drop": _validation.parse_strings,
    "sysctls": _validation.parse_sysctls,
    "devices": _validation.parse_devices,
    "read_only": _validation.parse_bool,
    "pid_mode": _validation.parse_pid_mode,
    "ipc_mode": _validation.parse_ipc_mode,
    "restart": _validation.parse_restart,
    "publish_all_ports": _validation.parse_bool,
    "host_access_ports": _validation.parse_host_ports,
    "host_config": _validation.parse_engine_config,
    "container_config": _validation.parse_engine_config,
}
"""The fields that need nothing but a parser of `_validation`, or that need one before anything else is done with them."""


_DEFAULTS: Mapping[str, object] = {
    option.name: option.default
    for option in fields(RunOptions)
    if option.default is not MISSING and option.name not in ("tmpfs", "publish_ip")
}
"""Defaults that are canonical: they need no parser."""


def _parse_run_options(options: RunOptions, values: Mapping[str, Any]) -> ParsedRunOptions:
    """
    Parse the fields that are not in `_PARSERS`, or that need further parsing.

    *values* contains the results of these parsers.
    """
    # The tag is checked even if a build will name the image after the container.
    is_unnamed = isinstance(options.repository, str) and not options.repository
    image = parse_image_name("repository", "unnamed" if is_unnamed else options.repository, options.tag)
    networks = [values["network_id"]] if values["network_id"] else []
    networks += [_validation.parse_network(f"networks[{i}]", one) for i, one in enumerate(values["networks"])]
    return ParsedRunOptions(
        image=None if is_unnamed else image,
        env=values["env"],
        mounts=values["mounts"],
        exposed_ports=values["exposed_ports"],
        networks=tuple(dict.fromkeys(networks)),
        security_opt=tuple(
            _parse_security_option(f"security_opt[{i}]", option)
            for i, option in enumerate(values["security_opt"])
        ),
        labels=values["labels"],
        port_bindings=_parse_port_bindings(options.port_bindings),
        tmpfs=values["tmpfs"],
        shm_size=values["shm_size"],
        healthcheck=None
        if options.healthcheck is None
        else _validation.parse_healthcheck(options.healthcheck),
        publish_ip=values["publish_ip"],
        files=_parse_files(options.files, in_memory=values["tmpfs"]),
        cpus=values["cpus"],
        memory=values["memory"],
        gpus=values["gpus"],
        ulimits=values["ulimits"],
        sysctls=values["sysctls"],
        devices=values["devices"],
        log_to=None if options.log_to is None else _parse_log_target(options.log_to),
        reuse=_parse_reuse(options.reuse),
    )


def _check_choices(options: RunOptions, values: Mapping[str, Any], parsed: ParsedRunOptions) -> None:
    """Check the fields that are kept as they are."""
    if options.auth is not None and not isinstance(options.auth, AuthConfig):
        raise InvalidOptionError(f"auth must be an AuthConfig ({_UNSHOWN})", hint=_AUTH_HINT)
    if not isinstance(options.pull, str) or options.pull not in ("missing", "always", "never"):
        raise InvalidOptionError(
            f"pull must be 'missing', 'always' or 'never': got {_validation.format_value(options.pull)}"
        )
    _check_wait_for(options.wait_for)
    if parsed.reuse and values["shared"]:
        raise InvalidOptionError(
            "shared cannot be combined with reuse",
            hint="shared=True ends with the test run; reuse=True outlives it",
        )
    if values["host_access_ports"]:
        _check_host_access(values, parsed)
    if values["network_aliases"] and not parsed.networks:
        raise InvalidOptionError(
            "network_aliases: aliases require a user-defined network", hint="set networks="
        )
    if values["host_config"] or values["container_config"]:
        _check_keys("host_config", values, _HOST_KEYS, options)
        _check_keys("container_config", values, _CONTAINER_KEYS, options)
    if options.init is not None:
        _validation.parse_bool("init", options.init)
    if options.stop_timeout is not None:
        _validation.parse_seconds("stop_timeout", options.stop_timeout)


def _check_host_access(values: Mapping[str, Any], parsed: ParsedRunOptions) -> None:
    if parsed.reuse or values["shared"]:
        raise InvalidOptionError(
            f"host_access_ports cannot be combined with {'reuse' if parsed.reuse else 'shared'}, since the access ends with "
            "this process",
            hint="leave out one of them",
        )
    for host in values["extra_hosts"]:
        if defines_host(host):
            raise InvalidOptionError(
                f"extra_hosts: {host!r} cannot be combined with host_access_ports, which defines {HOST_NAME}",
                hint="leave it out of extra_hosts",
            )


def defines_host(extra_host: str) -> bool:
    """
    Return whether a line of `extra_hosts` defines `host.docker.internal`.

    Containers reach this process's host at that name.
    """
    return re.split("[:=]", extra_host, maxsplit=1)[0].lower() == HOST_NAME


# The engine's keys by the fields that set them; `None` is always set by us, or must not be set without its field.
_HOST_KEYS: Mapping[str, tuple[str, ...] | None] = {
    "Env": None,
    "Labels": None,
    "PortBindings": ("port_bindings", "exposed_ports"),
    "Links": ("links",),
    "ExtraHosts": ("extra_hosts",),
    "CapAdd": ("cap_add",),
    "CapDrop": ("cap_drop",),
    "SecurityOpt": ("security_opt",),
    "Dns": ("dns",),
    "Privileged": ("privileged",),
    "Mounts": ("mounts",),
    "Binds": ("mounts",),
    "ShmSize": ("shm_size",),
    "Tmpfs": ("tmpfs",),
    "Init": ("init",),
    "NetworkMode": ("networks", "network_id"),
    "Memory": ("memory",),
    "NanoCpus": ("cpus",),
    "DeviceRequests": ("gpus",),
    "Ulimits": ("ulimits",),
    "Sysctls": ("sysctls",),
    "Devices": ("devices",),
    "ReadonlyRootfs": ("read_only",),
    "PidMode": ("pid_mode",),
    "IpcMode": ("ipc_mode",),
    "RestartPolicy": ("restart",),
}
_CONTAINER_KEYS: Mapping[str, tuple[str, ...] | None] = {
    "Env": None,
    "Labels": None,
    "Image": None,
    "HostConfig": None,
    "NetworkingConfig": None,
    "Hostname": ("hostname",),
    "User": ("user",),
    "Tty": ("tty",),
    "WorkingDir": ("working_dir",),
    "Entrypoint": ("entrypoint",),
    "Cmd": ("cmd",),
    "StopTimeout": ("stop_timeout",),
    "Healthcheck": ("healthcheck",),
}
_INSTEAD = {
    "Env": "env=",
    "Labels": "labels=",
    "Image": "repository=",
    "HostConfig": "host_config=",
    "NetworkingConfig": "networks=",
}


def _check_keys(
    name: str, values: Mapping[str, Any], known: Mapping[str, tuple[str, ...] | None], options: RunOptions
) -> None:
    """
    Refuse keys that cannot be set here, or that are also set by a field.

    Engines ignore the case of keys. If a key is repeated, they use the last one.
    """
    by_lower_case = {key.lower(): (key, names) for key, names in known.items()}
    for written in values[name]:
        key, names = by_lower_case.get(written.lower(), ("", ()))
        if names is None:
            raise InvalidOptionError(f"{name}: {written!r} cannot be set here", hint=f"use {_INSTEAD[key]}")
        for other in names:
            value = values[other] if other in values else getattr(options, other)
            is_empty = value is None or (isinstance(value, (str, tuple, dict)) and not value)
            if not is_empty and value != RunOptions.__dataclass_fields__[other].default:
                raise InvalidOptionError(
                    f"{name}: {written!r} is set by {other}= too", hint="use only one of the two"
                )


def _parse_log_target(value: LogSpec) -> LogTarget:
    if isinstance(value, logging.Logger):
        return value
    if isinstance(value, (str, os.PathLike)):
        path = Path(os.path.abspath(_validation.parse_local_path("log_to", value)))  # noqa: PTH100 - without following links
        if not str(value) or os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir it never raises
            raise InvalidOptionError(f"log_to: {str(value)!r} is not the path of a file")
        if not os.path.isdir(path.parent):  # noqa: PTH112
            raise InvalidOptionError(f"log_to: {str(path)!r} is in a directory that does not exist")
        return path
    if callable(value):
        return value
    raise InvalidOptionError(
        f"log_to must be a logging.Logger, a path or a function: got {_validation.format_value(value)}"
    )


def _check_wait_for(value: object) -> None:
    if value is None or callable(value) or (isinstance(value, str) and value in ("ready", "healthy", "port")):
        return
    raise InvalidOptionError(
        "wait_for must be 'ready', 'healthy', 'port' or a callable that takes the resource: "
        f"got {_validation.format_value(value)}"
    )


def _parse_reuse(reuse: object) -> Reuse | None:
    if isinstance(reuse, bool):
        return Reuse() if reuse else None
    if isinstance(reuse, Reuse):
        return reuse
    if not _validation.parse_str("reuse", reuse):
        raise InvalidOptionError("reuse must be True, False, the name of a group or a Reuse: got ''")
    return Reuse(group=str(reuse))


def image_to_run(options: RunOptions) -> ImageName:
    """
    Return the name of the image to start.

    Raises:
        InvalidOptionError: The options name no image.
    """
    if options.parsed.image is None:
        raise InvalidOptionError("repository: the name of the image is empty", hint="set repository=")
    return options.parsed.image


def image_to_build(options: RunOptions) -> ImageName:
    """
    Return the name of an image to build: `repository`, else `name`, with `tag`.

    Raises:
        InvalidOptionError: An image cannot have that name.
    """
    image = options.parsed.image or parse_image_name("repository or name", options.name, options.tag)
    if image.digest or image.is_id:
        raise InvalidOptionError(
            f"repository: {str(image)!r} cannot be the name of an image to build",
            hint="use a name without a digest",
        )
    return image


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedBuildOptions:
    """
    The typed values of those fields of `BuildOptions` that accept several forms.

    Attributes:
        context_dir: The directory, as an absolute path.
        dockerfile: The Dockerfile, the path of its directory included.
        auth: Credentials by registry; the key is empty for those of a single `AuthConfig`.
        secrets: Contents and local paths by id.
    """

    context_dir: Path
    dockerfile: Path
    build_args: tuple[Assignment, ...]
    platform: str
    target: str
    labels: Mapping[str, str]
    auth: Mapping[str, AuthConfig]
    secrets: Mapping[str, Content | Path]
    cache_from: tuple[str, ...]


@public
@_forgets_arguments
@dataclass(frozen=True, slots=True, repr=False)
class BuildOptions(_Parsed[ParsedBuildOptions]):
    """
    The options of an image to build.

    An invalid value raises `InvalidOptionError` immediately. The error names the field.

    Attributes:
        context_dir: The directory that the build can read. What its `.dockerignore` names is left out; a
            `<Dockerfile>.dockerignore` beside the Dockerfile takes precedence, as in `docker build`.
        dockerfile: The Dockerfile, relative to that directory or absolute.
        build_args: Values for the `ARG` instructions of the Dockerfile. Messages and `repr` never show them.
        platform: The platform to build for, such as `"linux/arm64"`; by default `DOCKER_DEFAULT_PLATFORM`, else the
            engine's own.
        version: `"1"`, the engine's classic builder, or `"2"`, BuildKit through `docker buildx`.
        auth: Credentials for the registries of base images: an `AuthConfig`, or a mapping of registries to them.
        target: The stage of the Dockerfile to build.
        no_cache: Run every step again instead of using its cached result.
        labels: Labels of the image; those that begin with `dockertest.` are refused.
        remove_image: Remove the image together with its container, also if this process is killed, instead of keeping it as a
            cache.
        secrets: Secrets for `RUN --mount=type=secret`, by id: `bytes`, or the path of a local file, which is read by the build.
            They become part of neither the image nor its history. They need version 2.
        cache_from: Where to find cached steps, such as `"registry:5000/app:cache"` or `"type=local,src=/path"`, as for
            `docker buildx build --cache-from`. It needs version 2.
    """

    context_dir: str | os.PathLike[str]
    dockerfile: str = "Dockerfile"
    build_args: EnvSpec = ()
    platform: str | None = None
    version: Literal["1", "2"] = "1"
    auth: AuthConfig | Mapping[str, AuthConfig] | None = None
    target: str | None = None
    no_cache: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    remove_image: bool = False
    secrets: Mapping[str, bytes | str | os.PathLike[str]] = field(default_factory=dict)
    cache_from: Sequence[str] = ()

    def __post_init__(self) -> None:
        parsed = _parse_build_options(self)
        if not isinstance(self.version, str) or self.version not in ("1", "2"):
            raise InvalidOptionError(
                f"version must be '1' or '2': got {_validation.format_value(self.version)}"
            )
        for name in ("secrets", "cache_from"):
            if self.version != "2" and getattr(parsed, name):
                raise InvalidOptionError(f"{name} needs BuildKit", hint="set version='2'")
        for name in parsed.labels:
            if self.version == "2" and "=" in name:
                raise InvalidOptionError(
                    f"labels: {name!r} contains '=', where `docker buildx build --label` ends the name",
                    hint="use another name, or version='1'",
                )
        _validation.parse_bool("no_cache", self.no_cache)
        _validation.parse_bool("remove_image", self.remove_image)
        set_fields(
            self,
            parsed=parsed,
            context_dir=parsed.context_dir,
            build_args=parsed.build_args,
            platform=parsed.platform,
            target=parsed.target,
            labels=dict(parsed.labels),
            secrets=dict(parsed.secrets),
            cache_from=parsed.cache_from,
        )

    def __repr__(self) -> str:
        if not hasattr(self, "parsed"):
            return "BuildOptions(…)"
        names = ", ".join(argument.name for argument in self.parsed.build_args)
        return (
            f"BuildOptions({str(self.context_dir)!r}, dockerfile={self.dockerfile!r}, build_args=({names}))"
        )


def _parse_build_options(options: BuildOptions) -> ParsedBuildOptions:
    folder = _validation.parse_local_path("context_dir", options.context_dir)
    if not folder.is_dir():
        raise InvalidOptionError(f"context_dir: {str(folder)!r} is not a directory")
    dockerfile = folder / _validation.parse_str("dockerfile", options.dockerfile)
    if not dockerfile.is_file():
        raise InvalidOptionError(f"dockerfile: {str(dockerfile)!r} is not a file")
    return ParsedBuildOptions(
        context_dir=folder,
        dockerfile=dockerfile,
        build_args=_validation.parse_environment("build_args", options.build_args),
        platform="" if options.platform is None else _validation.parse_str("platform", options.platform),
        target="" if options.target is None else _validation.parse_str("target", options.target),
        labels=_validation.parse_labels("labels", options.labels),
        auth=_parse_auths(options.auth),
        secrets=_parse_build_secrets(options.secrets),
        cache_from=_validation.parse_strings("cache_from", options.cache_from),
    )


def _parse_build_secrets(value: Mapping[str, bytes | str | os.PathLike[str]]) -> dict[str, Content | Path]:
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"secrets must be a mapping of ids to bytes or paths ({_UNSHOWN})")
    parsed: dict[str, Content | Path] = {}
    for name, secret in value.items():
        if not isinstance(name, str) or not _SECRET_ID.fullmatch(name):
            raise InvalidOptionError("secrets: an id must consist of letters, digits, '_', '.' and '-'")
        if isinstance(secret, (bytes, bytearray, memoryview)):
            parsed[name] = _validation.parse_content(f"secrets[{name!r}]", secret)
            continue
        if not isinstance(secret, (str, os.PathLike)):
            raise InvalidOptionError(f"secrets[{name!r}] must be bytes or a path ({_UNSHOWN})")
        path = _validation.parse_local_path(f"secrets[{name!r}]", secret)
        if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file it never raises
            raise InvalidOptionError(
                f"secrets[{name!r}]: there is no such file ({_UNSHOWN})", hint="pass a secret itself as bytes"
            )
        parsed[name] = path
    return parsed


def _parse_auths(value: AuthConfig | Mapping[str, AuthConfig] | None) -> dict[str, AuthConfig]:
    if value is None:
        return {}
    auths = dict(value) if isinstance(value, Mapping) else {"": value}
    if not all(isinstance(server, str) and isinstance(auth, AuthConfig) for server, auth in auths.items()):
        raise InvalidOptionError(
            f"auth must be an AuthConfig, or a mapping of registries to them ({_UNSHOWN})", hint=_AUTH_HINT
        )
    return auths


def _parse_security_option(name: str, value: str) -> str:
    """
    Replace the path of a seccomp profile in a security option with its content.

    Engines expect the profile itself.
    """
    match = _SECCOMP.fullmatch(value)
    if not match or match["profile"] in ("unconfined", "builtin") or match["profile"].startswith("{"):
        return value
    path = match["profile"]
    try:
        profile = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidOptionError(
            f"{name}: cannot read the seccomp profile {path!r}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise InvalidOptionError(
            f"{name}: the seccomp profile {path!r} is not valid JSON: {error}"
        ) from error
    return f"seccomp={json.dumps(profile, separators=(',', ':'))}"


def _parse_port_bindings(value: BindingSpecs) -> dict[str, tuple[PortBinding, ...]]:
    """
    Return the host ports of each container port.

    If a container port has none, the engine chooses one.
    """
    if not isinstance(value, Mapping):
        raise InvalidOptionError(
            f"port_bindings must be a mapping: got {_validation.format_value(value)}",
            hint="use one such as {'5432/tcp': 15432}",
        )
    parsed: dict[str, tuple[PortBinding, ...]] = {}
    for key, bound in value.items():
        ports = _validation.parse_port_range("port_bindings", key)
        bindings = [bound] if isinstance(bound, (str, int, PortBinding)) else bound
        if isinstance(bindings, (bytes, Mapping)) or not isinstance(bindings, Iterable):
            raise InvalidOptionError(
                f"port_bindings[{key!r}] must be a host port, a PortBinding or a list of them: "
                f"got {_validation.format_value(bound)}"
            )
        name = f"port_bindings[{key!r}]"
        spread = [_spread(name, _parse_binding(name, binding), len(ports)) for binding in bindings]
        for index, port in enumerate(ports):
            if port in parsed:
                raise InvalidOptionError(
                    f"port_bindings: {port} is listed twice", hint="use a list of its host ports"
                )
            parsed[port] = tuple(of_each[index] for of_each in spread)
    return parsed


def _spread(name: str, binding: PortBinding, count: int) -> Sequence[PortBinding]:
    """Return the bindings for *count* container ports in a row."""
    first, dash, last = str(binding.host_port).partition("-")
    if count == 1 or not first:
        return (binding,) * count
    if not dash or int(last) - int(first) + 1 != count:
        raise InvalidOptionError(
            f"{name}: {count} container ports need a range of as many host ports: got {binding.host_port!r}",
            hint='use "" for any free ports',
        )
    return [replace(binding, host_port=port) for port in range(int(first), int(last) + 1)]


def _parse_binding(name: str, value: str | int | PortBinding) -> PortBinding:
    if isinstance(value, PortBinding):
        return value
    return PortBinding(host_port=_validation.parse_host_port(name, value))


def _parse_files(
    value: Mapping[str, FileSpec], *, in_memory: Iterable[str] = ()
) -> dict[str, Content | Path | File]:
    """Return contents and existing local paths by path in the container."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError(
            f"files must be a mapping of paths in the container to contents ({_UNSHOWN})"
        )
    parsed: dict[str, Content | Path | File] = {}
    for key, content in value.items():
        path = _validation.parse_container_path("files", key)
        if path in parsed:
            raise InvalidOptionError(f"files: {path!r} is listed twice")
        _check_file_path(key, path, in_memory)
        if isinstance(content, os.PathLike):
            source = _validation.parse_local_path(f"files[{path!r}]", content)
            if not os.path.exists(source):  # noqa: PTH110 - unlike Path.exists it never raises
                raise InvalidOptionError(
                    f"files[{path!r}]: {str(source)!r} does not exist",
                    hint="pass the content itself as str or bytes",
                )
            parsed[path] = source
        elif isinstance(content, File):
            parsed[path] = content
        else:
            parsed[path] = _validation.parse_content(f"files[{path!r}]", content)
    return parsed


def _check_file_path(key: str, path: str, in_memory: Iterable[str]) -> None:
    if path == "/" or key.endswith("/"):
        raise InvalidOptionError(f"files: {key!r} is not the path of a file")
    if path in _ENGINE_FILES:
        raise InvalidOptionError(
            f"files: {path!r} is replaced by the engine when the container starts",
            hint="set its content with hostname=, extra_hosts= or dns=",
        )
    for folder in in_memory:
        if _validation.is_below(path, folder):  # Docker would lose it without a word.
            raise InvalidOptionError(
                f"files: {path!r} is in the tmpfs {folder!r}, which is empty when the container starts",
                hint="use another path, or write the file with exec",
            )


class RunFields(TypedDict, total=False):
    """
    The keywords of `Pool.run`, each with the sentences that editors show.

    Written by `python -m tests.run_fields`.
    """

    name: str
    """The container's name; by default the engine chooses one."""

    hostname: str
    """The container's host name, at most 64 bytes."""

    entrypoint: Sequence[str]
    """Replaces the image's entrypoint."""

    cmd: Sequence[str]
    """Replaces the image's command."""

    mounts: Sequence[MountSpec]
    """`"source:target[:ro]"`; the source is an absolute path on the engine's host or the name of a volume. Also `(volume, "/path")` and `(volume, "/path", "ro")` with a `Volume`, or with an absolute `pathlib.Path` of the engine's host."""

    links: Sequence[str]
    """`"container[:alias]"`, the engine's legacy way to make other containers known by name."""

    exposed_ports: Sequence[PortSpec]
    """Ports to publish in addition to those that the image exposes, and ranges such as `"7000-7003"`."""

    extra_hosts: Sequence[str]
    """`"host:address"` lines for the container's `/etc/hosts`."""

    cap_add: Sequence[str]
    """Kernel capabilities to add, such as `"NET_ADMIN"`."""

    security_opt: Sequence[str]
    """Security options, such as `"seccomp=unconfined"` or `"seccomp=/path/to/profile.json"`. The profile is a file on this machine, which is read at once, as with the docker CLI."""

    dns: Sequence[str]
    """Addresses of name servers."""

    working_dir: str
    """The directory that the command starts in."""

    network_id: str
    """The name or id of a network, as in Go; equivalent to an entry of `networks`."""

    networks: Sequence[NetworkSpec]
    """Networks to connect to before the start: `Network` objects, names or ids."""

    network_aliases: Sequence[str]
    """Names under which other containers on these networks reach this one."""

    labels: Mapping[str, str]
    """Labels; those that begin with `dockertest.` are refused."""

    auth: AuthConfig | None
    """Credentials for the image's registry."""

    port_bindings: BindingSpecs
    """Maps a container port to the host port, the `PortBinding`, or a list of them, to publish it on. With a range of host ports such as `"9000-9010"`, the engine uses one that is free. A range of container ports is bound one to one to a range of as many host ports, or, with `""`, each to any free port."""

    privileged: bool
    """Run the container with full access to the engine's host."""

    user: str
    """The user that the command runs as, `"name"` or `"uid:gid"`."""

    tty: bool
    """Allocate a terminal for the command."""

    platform: str
    """The platform of the image and the container, such as `"linux/arm64"`; by default `DOCKER_DEFAULT_PLATFORM`, else the engine's own."""

    tmpfs: Mapping[str, str] | Sequence[str]
    """Paths to keep in memory: a sequence such as `["/run", "/tmp:size=64m"]`, or a mapping to mount options such as `"size=64m"`."""

    shm_size: int | str | None
    """The size of `/dev/shm`, in bytes or as a string such as `"256m"`."""

    init: bool | None
    """Run a small init process as process 1, which reaps zombies."""

    stop_timeout: float | None
    """Seconds to wait for the command to exit when the container is stopped, before it is killed."""

    healthcheck: Healthcheck | None
    """A shell command, or a mapping with the keys `test` (a string, or a sequence such as `["CMD", "true"]`), `retries`, and, in seconds, `interval`, `timeout` and `start_period`."""

    service: str
    """The service that the image contains, such as `"postgres"`, for an image whose name does not show it; see `dockertest.services.known`."""

    wait_for: WaitCondition | None
    """What to wait for before the container is returned: `"ready"` (as `Resource.wait_ready` does), `"healthy"` (its health check), `"port"` (all published TCP ports accept connections), or a callable that takes the `Resource` and is called until it succeeds, as by `Resource.retry`. By default nothing is waited for. It may take the pool's `max_wait`; after a failure the container is removed, unless others may use it."""

    pull: PullPolicy
    """When to pull the image: `"missing"`, `"always"` or `"never"`."""

    publish_ip: str | None
    """The address to publish ports on; the pool's by default."""

    files: Mapping[str, FileSpec]
    """Files to put into the container before it starts. Maps an absolute path in the container to the content: `bytes`, a `str` (the text itself, never a path; encoded as UTF-8), or the `pathlib.Path` of a local file or directory, which is read when the container starts. Local files keep their modes, and get 0755 on Windows; others get 0644; root owns all of them. A `File` sets mode and owner. A directory is merged into one that exists, and so are those in it; existing directories keep their owners and modes, missing ones are created. Messages and `repr` never show the contents."""

    memory: int | str | None
    """The most memory that the container may use, in bytes or as a string such as `"512m"`."""

    cpus: float | str | None
    """How many processors the container may use, such as `1.5`."""

    gpus: int | str | None
    """`"all"`, or the number of GPUs that the container can use."""

    ulimits: UlimitSpecs
    """Resource limits: a mapping such as `{"nofile": 1024}` or `{"nofile": (1024, 4096)}`, soft and hard, or `"nofile=1024:4096"` strings; -1 means no limit."""

    cap_drop: Sequence[str]
    """Kernel capabilities to remove, such as `"NET_RAW"` or `"ALL"`."""

    sysctls: Mapping[str, str | int] | Sequence[str]
    """Kernel parameters of the container: a mapping such as `{"net.core.somaxconn": 1024}`, or `"name=value"` strings."""

    devices: Sequence[str]
    """Devices of the engine's host, `"source[:target][:rwm]"`, such as `"/dev/fuse"`."""

    read_only: bool
    """Mount the container's own file system read-only; volumes and `tmpfs` stay writable."""

    pid_mode: str
    """The PID namespace: `"host"` or `"container:NAME"`; its own by default."""

    ipc_mode: str
    """The IPC namespace: `"host"`, `"private"`, `"shareable"`, `"none"` or `"container:NAME"`; the engine's default if empty."""

    restart: str
    """When the engine restarts the container after its command has ended: `"no"`, `"on-failure"`, `"on-failure:3"` (at most three times) or `"always"`. A container that is being restarted does not count as dead."""

    publish_all_ports: bool
    """Publish every port that the image exposes. With `False`, only those of `exposed_ports` and `port_bindings` are published, which is much faster for an image that exposes hundreds."""

    host_access_ports: Sequence[PortSpec]
    """TCP ports of the host of this process that the container reaches at `host.docker.internal`, also those of servers that listen on loopback only. The engine must be on that host. Cannot be combined with `reuse` and `shared`."""

    log_to: LogSpec | None
    """Passes the container's log on, line by line, until the resource is closed: a `logging.Logger` (at level INFO), the path of a local file, which is created or appended to, or a function that is called with each line in a thread. A container that is reused is followed from now on."""

    host_config: Mapping[str, Any]
    """More of the engine's `HostConfig`, with the engine's own keys, such as `{"OomScoreAdj": 500}`. It is applied after the other fields and before modifiers. A key that is also set by a field is refused. `repr` hides the values."""

    container_config: Mapping[str, Any]
    """The same for the request's other keys, such as `{"StopSignal": "SIGINT"}`; not for `Env` and `Labels`."""

    reuse: bool | str | Reuse
    """With `True`, use a running container with the same image and options that any process of this user on this host has started, if there is one. With the name of a group, share it with everyone on this engine who names the same group. Closing leaves it running; `Pool.purge` and `Pool.prune(reused=True)` remove it. A container that is dead, paused or unhealthy is replaced. A `Reuse` has further options, such as when the container is removed."""

    shared: bool
    """Use the same container in all processes of one test run of this user on this host: the first one starts it, and it is removed when the last one has closed its pool or has ended, even by SIGKILL. The run is `DOCKERTEST_RUN_ID`. A pool's own networks and volumes cannot be used with it. With several engines it is one for each of them."""
