"""What a user asks for: values that check themselves. Knows nothing of the engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypedDict

from dockertest import _image_name as _reference
from dockertest import _validation as _specs
from dockertest import _values
from dockertest._values import (
    AuthConfig,
    BindingSpecs,
    EnvSpec,
    FileSpec,
    Healthcheck,
    NetworkSpec,
    PortSpec,
    PullPolicy,
    write,
)
from dockertest.errors import InvalidOptionError


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
        reuse: `True` takes a running container of the same image and the same options, started by any process of this
            user on this host, instead of a new one; the name of a group shares it with everyone on the engine who
            names that group. Closing leaves it running; `Pool.purge` and `Pool.prune(reused=True)` remove it. One that
            is dead, paused or unhealthy is replaced.
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
    reuse: bool | str = False

    def __post_init__(self) -> None:
        # Without a repository this is for a build, which names the image after the container.
        _reference.reference("repository", "unnamed" if self.repository == "" else self.repository, self.tag)
        for name in ("hostname", "working_dir", "network_id", "user", "platform"):
            value = getattr(self, name)
            write(self, **{name: "" if value is None else _specs.text(name, value)})
        for name in _LISTS:
            write(self, **{name: _specs.texts(name, getattr(self, name))})
        for name in ("privileged", "tty"):
            _specs.boolean(name, getattr(self, name))
        write(
            self,
            name=_specs.container_name("name", self.name),
            env=_specs.environment("env", self.env),
            mounts=tuple(
                str(_specs.mount(f"mounts[{i}]", m))
                for i, m in enumerate(_specs.texts("mounts", self.mounts))
            ),
            exposed_ports=_specs.container_ports("exposed_ports", self.exposed_ports),
            networks=_values.networks(self.networks),
            labels=_specs.labels("labels", self.labels),
            port_bindings=_values.port_bindings(self.port_bindings),
            tmpfs=_values.tmpfs(self.tmpfs),
            shm_size=_specs.size("shm_size", self.shm_size),
            publish_ip=_specs.address("publish_ip", self.publish_ip) or None,
        )
        write(self, files=_values.files(self.files, in_memory=_values.tmpfs(self.tmpfs)))
        self._check_choices()

    def _check_choices(self) -> None:
        if self.auth is not None and not isinstance(self.auth, AuthConfig):
            raise InvalidOptionError("auth must be an AuthConfig (not shown here: it may be a secret)")
        if self.pull not in ("missing", "always", "never"):
            raise InvalidOptionError(
                f"pull: {_specs.shown(self.pull)} is none of 'missing', 'always', 'never'"
            )
        if not isinstance(self.reuse, bool) and not _specs.text("reuse", self.reuse):
            raise InvalidOptionError("reuse: '' is no name of a group; write one, True or False")
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
            _values.healthcheck(self.healthcheck)

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
        folder = _values.local_path("context_dir", self.context_dir)
        if not folder.is_dir():
            raise InvalidOptionError(f"context_dir: {str(folder)!r} is no folder")
        if not (folder / _specs.text("dockerfile", self.dockerfile)).is_file():
            raise InvalidOptionError(f"dockerfile: {str(folder / self.dockerfile)!r} is no file")
        if self.version not in ("1", "2"):
            raise InvalidOptionError(f"version: {self.version!r} is neither '1' nor '2'")
        auths = self.auth if isinstance(self.auth, Mapping) else {"": self.auth}
        auths = {} if self.auth is None else auths
        if not all(isinstance(key, str) and isinstance(each, AuthConfig) for key, each in auths.items()):
            raise InvalidOptionError(
                "auth must be an AuthConfig, or a mapping of registries to them (not shown here)"
            )
        _specs.boolean("no_cache", self.no_cache)
        _specs.boolean("remove_image", self.remove_image)
        write(
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
    """The fields of `RunOptions` that `Pool.run` takes as keywords, each with the sentence that editors show."""

    name: str
    """The container's name; a random one of the engine's when empty."""
    hostname: str
    """The host name that the container sees."""
    entrypoint: Sequence[str]
    """Replaces the image's entrypoint."""
    cmd: Sequence[str]
    """Replaces the image's command."""
    mounts: Sequence[str]
    """`"source:target[:ro]"`, the source an absolute path of the engine's host or a volume's name."""
    links: Sequence[str]
    """`"container[:alias]"`, the engine's old way to name other containers."""
    exposed_ports: Sequence[PortSpec]
    """Ports to publish besides those that the image exposes."""
    extra_hosts: Sequence[str]
    """`"host:address"` lines for the container's `/etc/hosts`."""
    cap_add: Sequence[str]
    """Kernel capabilities to add, such as `"NET_ADMIN"`."""
    security_opt: Sequence[str]
    """Security options, such as `"seccomp=unconfined"`."""
    dns: Sequence[str]
    """Addresses of name servers."""
    working_dir: str
    """The folder that the command starts in."""
    network_id: str
    """A network by id or name, as in Go; the same as one of `networks`."""
    networks: Sequence[NetworkSpec]
    """Networks to be connected to from the start: `Network` objects, names or ids."""
    network_aliases: Sequence[str]
    """Names that other containers on these networks find this one by."""
    labels: Mapping[str, str]
    """Labels; those beginning with `dockertest.` are refused."""
    auth: AuthConfig | None
    """Credentials for the registry."""
    port_bindings: BindingSpecs
    """A container port to the host port, `PortBinding`, or list of them, to publish it on."""
    privileged: bool
    """Give the container all rights on the engine's host."""
    user: str
    """The user that the command runs as, `"name"` or `"uid:gid"`."""
    tty: bool
    """Give the command a terminal."""
    platform: str
    """The platform of image and container, such as `"linux/arm64"`."""
    tmpfs: Mapping[str, str] | Sequence[str]
    """Paths kept in memory: a sequence, or a mapping to mount options such as `"size=64m"`."""
    shm_size: int | str | None
    """Size of `/dev/shm`, in bytes or as `"256m"`."""
    init: bool | None
    """Run a small init as the first process, which reaps zombies."""
    stop_timeout: float | None
    """Seconds that a stop waits for the command to end before it is killed."""
    healthcheck: Healthcheck | None
    """A shell command, or a mapping of `test` (a string or sequence), `retries`, and, in seconds, `interval`, `timeout` and `start_period`."""
    pull: PullPolicy
    """When to pull the image: `"missing"`, `"always"` or `"never"`."""
    publish_ip: str | None
    """The address that ports are published on, instead of the pool's."""
    files: Mapping[str, FileSpec]
    """Files to put into the container before it starts."""
    reuse: bool | str
    """`True` takes a running container of the same image and the same options, started by any process of this user on this host, instead of a new one; the name of a group shares it with everyone on the engine who names that group."""


_LISTS = ("entrypoint", "cmd", "links", "extra_hosts", "cap_add", "security_opt", "dns", "network_aliases")
