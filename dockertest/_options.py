"""What a user asks for: values that check themselves. Knows nothing of the engine."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from dockertest import _specs
from dockertest.errors import InvalidOptionError

PullPolicy = Literal["missing", "always", "never"]
PortSpec = str | int
EnvSpec = Mapping[str, object] | Iterable[str]


class HasId(Protocol):
    """What can stand for a network besides its name or id: a `Network`, or the docker SDK's."""

    @property
    def id(self) -> str | None: ...


NetworkSpec = str | HasId


@dataclass(frozen=True, slots=True)
class PortBinding:
    """
    An address and port of the host.

    Attributes:
        host_ip: The address to publish on; empty for the pool's `publish_ip`.
        host_port: The port, as a number or a string; empty or `0` for any free one.
    """

    host_ip: str = ""
    host_port: str | int = ""

    def __post_init__(self) -> None:
        _set(self, host_ip=_specs.address("host_ip", self.host_ip))
        _set(self, host_port=_specs.host_port("host_port", self.host_port))


BindingSpec = str | int | PortBinding | Sequence[str | int | PortBinding]
# The keys are ports, as strings or numbers. A mapping of either is not one of both to a type checker, and a union of
# mappings leaves it without a word about the values.
BindingSpecs = Mapping[Any, BindingSpec]
Healthcheck = str | Mapping[str, Any]
FileSpec = bytes | str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """
    Credentials for a registry. Password and token are in no repr, log line or error.

    Attributes:
        username: The user's name.
        password: The password, or an access token used as one.
        server_address: The registry; the one that the image's name says when absent.
        identity_token: A token from an earlier login, instead of the password.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    server_address: str | None = None
    identity_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("username", "password", "server_address", "identity_token"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise InvalidOptionError(
                    f"auth: {name} must be a string (not shown here: it may be a secret)"
                )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunOptions:
    """
    What container to start. Checked when made: a bad value is an `InvalidOptionError` that names the field.

    Attributes:
        repository: The image, such as `"postgres"`; it may carry the tag or digest itself. For a build, what the image
            is to be called, `name` by default.
        tag: The image's tag, `latest` when neither this nor `repository` says one.
        name: The container's name; a random one of the engine's when empty.
        hostname: The host name that the container sees.
        env: The environment, a mapping or `"K=V"` strings; the values are shown nowhere.
        entrypoint: Replaces the image's entrypoint.
        cmd: Replaces the image's command.
        mounts: `"source:target[:ro]"`, the source an absolute path of the engine's host or a volume's name.
        links: `"container[:alias]"`, the engine's old way to name other containers.
        exposed_ports: Ports to publish besides those that the image exposes.
        extra_hosts: `"host:address"` lines for the container's `/etc/hosts`.
        cap_add: Kernel capabilities to add, such as `"NET_ADMIN"`.
        security_opt: Security options, such as `"seccomp=unconfined"`.
        dns: Addresses of name servers.
        working_dir: The folder that the command starts in.
        network_id: A network by id or name, as in Go; the same as one of `networks`.
        networks: Networks to be connected to from the start: `Network` objects, names or ids.
        network_aliases: Names that other containers on these networks find this one by.
        labels: Labels; those beginning with `dockertest.` are refused.
        auth: Credentials for the registry.
        port_bindings: A container port to the host port, `PortBinding`, or list of them, to publish it on.
        privileged: Give the container all rights on the engine's host.
        user: The user that the command runs as, `"name"` or `"uid:gid"`.
        tty: Give the command a terminal.
        platform: The platform of image and container, such as `"linux/arm64"`.
        tmpfs: Paths kept in memory: a sequence, or a mapping to mount options such as `"size=64m"`.
        shm_size: Size of `/dev/shm`, in bytes or as `"256m"`.
        init: Run a small init as the first process, which reaps zombies.
        stop_timeout: Seconds that a stop waits for the command to end before it is killed.
        healthcheck: A shell command, or a mapping of `test` (a string or sequence), `retries`, and, in seconds,
            `interval`, `timeout` and `start_period`.
        pull: When to pull the image: `"missing"`, `"always"` or `"never"`.
        publish_ip: The address that ports are published on, instead of the pool's.
        files: Files to put into the container before it starts. Maps an absolute path in it to what shall be there:
            `bytes`, a `str` (the text itself, in UTF-8, never a path), or the `pathlib.Path` of a local file or
            folder, read at the start. Local files keep their modes, others have 0644; all are root's. What is in a
            folder is added to one that is there; missing folders are made. No content is ever shown.
    """

    repository: str = ""
    tag: str | None = None
    name: str = ""
    hostname: str = ""
    env: EnvSpec = ()
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    mounts: Sequence[str] = ()
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
    pull: PullPolicy = "missing"
    publish_ip: str | None = None
    files: Mapping[str, FileSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.repository:
            _specs.reference("repository", self.repository, self.tag)
        for name in ("hostname", "working_dir", "network_id", "user", "platform"):
            value = getattr(self, name)
            _set(self, **{name: "" if value is None else _specs.text(name, value)})
        for name in _LISTS:
            _set(self, **{name: _specs.texts(name, getattr(self, name))})
        for name in ("privileged", "tty"):
            _specs.boolean(name, getattr(self, name))
        _set(
            self,
            name=_specs.container_name("name", self.name),
            env=_specs.environment("env", self.env),
            mounts=tuple(
                str(_specs.mount(f"mounts[{i}]", m))
                for i, m in enumerate(_specs.texts("mounts", self.mounts))
            ),
            exposed_ports=_specs.container_ports("exposed_ports", self.exposed_ports),
            networks=_networks(self.networks),
            labels=_specs.labels("labels", self.labels),
            port_bindings=port_bindings(self.port_bindings),
            tmpfs=tmpfs(self.tmpfs),
            shm_size=_specs.size("shm_size", self.shm_size),
            publish_ip=_specs.address("publish_ip", self.publish_ip) or None,
        )
        _set(self, files=files(self.files, in_memory=tmpfs(self.tmpfs)))
        self._check_choices()

    def _check_choices(self) -> None:
        if self.auth is not None and not isinstance(self.auth, AuthConfig):
            raise InvalidOptionError("auth must be an AuthConfig (not shown here: it may be a secret)")
        if self.pull not in ("missing", "always", "never"):
            raise InvalidOptionError(
                f"pull: {_specs.shown(self.pull)} is none of 'missing', 'always', 'never'"
            )
        if self.network_aliases and not (self.networks or self.network_id):
            raise InvalidOptionError(
                "network_aliases: only a network of one's own has aliases; give networks too"
            )
        if self.init is not None:
            _specs.boolean("init", self.init)
        if self.stop_timeout is not None:
            _specs.seconds("stop_timeout", self.stop_timeout)
        for index, server in enumerate(self.dns):
            if not _specs.address(f"dns[{index}]", server):
                raise InvalidOptionError(f"dns[{index}]: '' is no IP address")
        if self.healthcheck is not None:
            healthcheck(self.healthcheck)

    def __repr__(self) -> str:
        shown = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "env" and value:
                shown.append("env=({})".format(" ".join(f"'{pair.split('=', 1)[0]}=***'," for pair in value)))
            elif value or each.name == "repository":
                shown.append(f"{each.name}={value!r}")
        return f"RunOptions({', '.join(shown)})"


@dataclass(frozen=True, slots=True, repr=False)
class BuildOptions:
    """
    What image to build. Checked when made: a bad value is an `InvalidOptionError` that names the field.

    Attributes:
        context_dir: The folder that the build sees; what its `.dockerignore` names is left out.
        dockerfile: The Dockerfile, relative to that folder or absolute.
        build_args: Values for the Dockerfile's `ARG`s; they are shown nowhere.
        platform: The platform to build for, such as `"linux/arm64"`.
        version: `"1"`, the engine's classic builder, or `"2"`, BuildKit through `docker buildx`.
        auth: Credentials for the registries of base images: of one, or by registry.
        target: The stage of the Dockerfile to stop at.
        no_cache: Build every step anew.
        labels: Labels of the image; those beginning with `dockertest.` are refused.
        remove_image: Remove the image with its container, instead of keeping it as a cache.
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

    def __post_init__(self) -> None:
        folder = Path(self.context_dir)
        if not folder.is_dir():
            raise InvalidOptionError(f"context_dir: {str(folder)!r} is no folder")
        if not (folder / _specs.text("dockerfile", self.dockerfile)).is_file():
            raise InvalidOptionError(f"dockerfile: {str(folder / self.dockerfile)!r} is no file")
        if self.version not in ("1", "2"):
            raise InvalidOptionError(f"version: {self.version!r} is neither '1' nor '2'")
        auths = self.auth.values() if isinstance(self.auth, Mapping) else [self.auth]
        if not all(each is None or isinstance(each, AuthConfig) for each in auths):
            raise InvalidOptionError(
                "auth must be an AuthConfig, or a mapping of registries to them (not shown here)"
            )
        _specs.boolean("no_cache", self.no_cache)
        _specs.boolean("remove_image", self.remove_image)
        _set(
            self,
            build_args=_specs.environment("build_args", self.build_args),
            platform=_specs.text("platform", self.platform or ""),
            target=_specs.text("target", self.target or ""),
            labels=_specs.labels("labels", self.labels),
        )

    def __repr__(self) -> str:
        names = ", ".join(each.split("=", 1)[0] for each in _specs.environment("build_args", self.build_args))
        return (
            f"BuildOptions({str(self.context_dir)!r}, dockerfile={self.dockerfile!r}, build_args=({names}))"
        )


class RunFields(TypedDict, total=False):
    """The fields of `RunOptions` that `Pool.run` takes as keywords; what they mean stands there."""

    name: str
    hostname: str
    entrypoint: Sequence[str]
    cmd: Sequence[str]
    mounts: Sequence[str]
    links: Sequence[str]
    exposed_ports: Sequence[PortSpec]
    extra_hosts: Sequence[str]
    cap_add: Sequence[str]
    security_opt: Sequence[str]
    dns: Sequence[str]
    working_dir: str
    network_id: str
    networks: Sequence[NetworkSpec]
    network_aliases: Sequence[str]
    labels: Mapping[str, str]
    auth: AuthConfig | None
    port_bindings: BindingSpecs
    privileged: bool
    user: str
    tty: bool
    platform: str
    tmpfs: Mapping[str, str] | Sequence[str]
    shm_size: int | str | None
    init: bool | None
    stop_timeout: float | None
    healthcheck: Healthcheck | None
    pull: PullPolicy
    publish_ip: str | None
    files: Mapping[str, FileSpec]


_LISTS = ("entrypoint", "cmd", "links", "extra_hosts", "cap_add", "security_opt", "dns", "network_aliases")


def port_bindings(value: BindingSpecs) -> dict[str, tuple[PortBinding, ...]]:
    """Give port bindings with canonical ports, each bound to one or more `PortBinding`."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError(
            f"port_bindings must be a mapping: got {_specs.shown(value)}; write {{'5432/tcp': 15432}}"
        )
    found: dict[str, tuple[PortBinding, ...]] = {}
    for written, bound in value.items():
        port = _specs.container_port("port_bindings", written)
        if port in found:
            raise InvalidOptionError(f"port_bindings: {port} is there twice; write a list of its host ports")
        several = [bound] if isinstance(bound, (str, int, PortBinding)) else bound
        if isinstance(several, (bytes, Mapping)) or not isinstance(several, Iterable):
            raise InvalidOptionError(
                f"port_bindings[{written!r}]: {_specs.shown(bound)} is no port, PortBinding or list of them"
            )
        found[port] = tuple(
            each
            if isinstance(each, PortBinding)
            else PortBinding(host_port=_specs.host_port(f"port_bindings[{written!r}]", each))
            for each in several
        )
    return found


def tmpfs(value: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Give in-memory folders as a mapping of path to mount options."""
    paths = dict(value) if isinstance(value, Mapping) else dict.fromkeys(_specs.texts("tmpfs", value), "")
    for path, options in paths.items():
        if not _specs.text("tmpfs: a path", path).startswith("/"):
            raise InvalidOptionError(f"tmpfs: {path!r} is no absolute path")
        _specs.text(f"tmpfs[{path!r}]", options)
    return paths


def healthcheck(value: Healthcheck) -> dict[str, Any]:
    """Give a health check as the engine writes it, its times in nanoseconds."""
    written = {"test": value} if isinstance(value, str) else value
    known = {
        "test": "Test",
        "interval": "Interval",
        "timeout": "Timeout",
        "start_period": "StartPeriod",
        "retries": "Retries",
    }
    if not isinstance(written, Mapping) or not set(written) <= set(known):
        raise InvalidOptionError(
            f"healthcheck: {_specs.shown(value)} is neither a command nor a mapping of {', '.join(known)}"
        )
    request: dict[str, Any] = {}
    for key, given in written.items():
        if key == "test":
            request["Test"] = (
                ["CMD-SHELL", _specs.text("healthcheck: test", given)]
                if isinstance(given, str)
                else list(_specs.texts("healthcheck: test", given))
            )
        elif key == "retries":
            request["Retries"] = _retries(given)
        else:
            request[known[key]] = int(_specs.seconds(f"healthcheck: {key}", given) * 1e9)
    return request


def _retries(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**9:
        raise InvalidOptionError(
            f"healthcheck: retries must be a whole number, zero or more: got {_specs.shown(value)}"
        )
    return value


class Content(bytes):
    """What is in a file: never shown."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


def files(value: Mapping[str, FileSpec], *, in_memory: Iterable[str] = ()) -> dict[str, Content | Path]:
    """Give files as a mapping of canonical paths in the container to content, or to the local path it comes from."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError("files must be a mapping of paths in the container to what shall be there")
    found: dict[str, Content | Path] = {}
    for written, given in value.items():
        path = container_path("files", written)
        if path in found or path == "/" or written.endswith("/"):
            raise InvalidOptionError(f"files: {written!r} is there twice, or is no name of a file")
        for folder in in_memory:
            if lies_in(path, folder):  # Docker would lose it without a word
                raise InvalidOptionError(
                    f"files: {path!r} lies in the tmpfs {folder!r}, which is empty at the start"
                )
        if isinstance(given, os.PathLike):
            if not os.path.exists(given):  # noqa: PTH110 - may be no Path yet
                raise InvalidOptionError(f"files[{path!r}]: there is no {os.fspath(given)!r}")
            found[path] = Path(given)
        else:
            found[path] = file_content(f"files[{path!r}]", given)
    return found


def file_content(name: str, value: object) -> Content:
    """Give what is to be in a file; text is written in UTF-8."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value if isinstance(value, Content) else Content(value)
    if not isinstance(value, str):
        raise InvalidOptionError(f"{name} must be bytes or text: got a {type(value).__name__}")
    try:
        return Content(value.encode())
    except UnicodeEncodeError:
        raise InvalidOptionError(f"{name} has characters that UTF-8 cannot write; give bytes") from None


def container_path(name: str, value: object) -> str:
    """Give an absolute path in a container, without what does not count in it."""
    path = _specs.text(name, value)
    if not path.startswith("/"):
        raise InvalidOptionError(f"{name}: {_specs.shown(value)} is no absolute path in the container")
    return "/" + posixpath.normpath(path).lstrip("/")


def lies_in(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or something below it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _networks(value: Sequence[NetworkSpec]) -> tuple[NetworkSpec, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        shown = _specs.shown(value)
        raise InvalidOptionError(
            f"networks must be a sequence of networks, names or ids: got {shown}; write [{shown}]"
        )
    networks = tuple(value)
    for index, network in enumerate(networks):
        network_id(f"networks[{index}]", network)
    return networks


def network_id(field: str, value: NetworkSpec) -> str:
    """Give the name or id of a network, whatever stands for it."""
    named = getattr(value, "id", value)
    if not isinstance(named, str) or not _specs.text(field, named):
        raise InvalidOptionError(f"{field}: {_specs.shown(value)} is no Network, name or id")
    return named


def _set(value: object, **changes: object) -> None:
    """Write the canonical form into a frozen value, as its `__post_init__` may."""
    for name, new in changes.items():
        object.__setattr__(value, name, new)
