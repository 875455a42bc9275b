"""A connection to one container engine."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar, Unpack, cast

from dockertest import _network, _resource, _retry, _settings, _validation
from dockertest._cleanup.inventory import InventoryItem
from dockertest._cleanup.reaper import BUILT, INTERMEDIATE, VOLUME
from dockertest._cleanup.reaper_client import reaper_client
from dockertest._cleanup.registry import registry
from dockertest._cleanup.session import Session, new_session
from dockertest._concurrency import run_in_parallel
from dockertest._containers import watch
from dockertest._containers.container import Container, Ownership
from dockertest._containers.create import Modifier, adapt_to_podman, create_request
from dockertest._containers.launch import launch, take_or_launch
from dockertest._containers.watch import LivenessMonitor
from dockertest._engine import connect, endpoint, networks, reachability, sdk, volumes
from dockertest._engine.client import EngineClient, quote_path
from dockertest._engine.inspection import Image, Inspection
from dockertest._engine.reachability import Reachability
from dockertest._image_name import ImageName, parse_image_name
from dockertest._images.credentials import Credentials
from dockertest._images.progress import OnProgress
from dockertest._images.pull import ImageStore
from dockertest._network import Network, NetworkFields
from dockertest._options import (
    AuthConfig,
    BuildOptions,
    EnvSpec,
    PullPolicy,
    RunFields,
    RunOptions,
    VersionSpec,
    image_to_build,
    image_to_run,
)
from dockertest._public import public
from dockertest._resource import Resource, close_after, resource_of
from dockertest._retry import (
    AsyncAttemptOptions,
    AsyncRetryOptions,
    AttemptOptions,
    Monitor,
    RetryOptions,
    Watched,
    WatchList,
    show_keywords,
)
from dockertest._runtime import Runtime
from dockertest._settings import Defaults, Settings
from dockertest._timeline import Step, Timeline
from dockertest._volume import Volume, volume_of
from dockertest.errors import (
    EngineError,
    ImagePullError,
    InvalidOptionError,
    NotInContainerError,
)

if TYPE_CHECKING:
    from dockertest._compose import Compose
    from dockertest._prepared import PreparedImage
    from dockertest._standby import Standby

T = TypeVar("T")
Options = TypeVar("Options", RunOptions, BuildOptions)
log = logging.getLogger("dockertest")


class _Default(Generic[T]):
    """
    A field of `Pool` that its resources share, so that they see a later change.

    Go's users set `pool.MaxWait` after they have made the pool. See "Descriptor-typed fields" in
    https://docs.python.org/3/library/dataclasses.html.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, pool: Pool | None, owner: object = None) -> T:
        return cast("T", getattr(Defaults() if pool is None else pool._defaults, self._name))

    def __set__(self, pool: Pool, value: T) -> None:
        setattr(pool._defaults, self._name, value)


class _Client:
    """
    The field with the docker SDK's client that a pool uses.

    It is the client that the user passed in, or else the engine's, of which a forked child gets a new one.
    """

    def __get__(self, pool: Pool | None, owner: object = None) -> sdk.DockerClient | None:
        return None if pool is None else pool._runtime.engine.client

    def __set__(self, pool: Pool, value: sdk.DockerClient | None) -> None:
        pool._given_client = value


@public
@dataclass(eq=False, repr=False)
class Pool:
    """
    A connection to one container engine.

    Making one contacts the engine. Everything started through it is removed when it is closed, at the end of a
    `with`, and when the interpreter ends.

    Attributes:
        endpoint: `unix://`, `tcp://`, `http(s)://`, `ssh://` or `npipe://`; detected when `None` or empty, from
            `DOCKERTEST_ENDPOINTS` first.
        cert_path: Folder with `ca.pem`, `cert.pem` and `key.pem`, for TLS.
        client: The `docker.DockerClient` in use. One that you pass in is never closed.
        max_wait: Seconds after which `retry` gives up; 60 by default. It may be changed at any time.
        timeout: Seconds without data after which a request to the engine, a pull included, times out; 60 by default.
        image_prefix: Prepended to image names without a registry, such as `"registry.corp:5000/"`; by default
            `DOCKERTEST_IMAGE_PREFIX`.
        publish_ip: Address that ports are published on; by default `DOCKERTEST_PUBLISH_IP`, else 127.0.0.1 for a local
            engine and, with a warning, all addresses of a remote one.
        pull_progress: Called with a `PullProgress` while an image is pulled; by default progress is logged, and shown if
            standard error is a terminal.
        reaper: Whether a small process beside this one removes what the pool made if this process is killed;
            `DOCKERTEST_REAPER=0` turns it off.
        keep: Keep all containers, networks and volumes for inspection, and print how to reach and remove them; also
            `DOCKERTEST_KEEP=1`. It may be changed at any time.
        ttl: Seconds after which any later session may remove what the pool made, as a last resort; by default
            `DOCKERTEST_TTL`, else never.

    Raises:
        DockerUnavailableError: No engine answers; the text lists every endpoint tried, and why it failed.
        InvalidOptionError: An argument or environment variable has an invalid value.
    """

    _defaults: Defaults = field(init=False, default_factory=Defaults)
    endpoint: str | None = None
    _: KW_ONLY
    cert_path: str | os.PathLike[str] | None = None
    client: sdk.DockerClient = cast("sdk.DockerClient", _Client())  # noqa: RUF009 - one descriptor for all pools
    max_wait: float = cast("float", _Default())
    timeout: float = 60.0
    image_prefix: str | None = None
    publish_ip: str | None = None
    pull_progress: OnProgress | None = None
    reaper: bool = True
    keep: bool = cast("bool", _Default())
    ttl: float | None = None
    _given_client: sdk.DockerClient | None = field(init=False)
    _runtime: Runtime = field(init=False)
    _warns_of_public_ports: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        _validation.parse_seconds("max_wait", self.max_wait)
        if not _validation.parse_seconds("timeout", self.timeout):
            raise InvalidOptionError("timeout must be more than 0 seconds: got 0")
        _settings.export_run_id(os.environ)
        settings = Settings.read(os.environ)
        prefix = settings.image_prefix if self.image_prefix is None else self.image_prefix
        self.image_prefix = _settings.parse_image_prefix("image_prefix", prefix)
        publish_ip = _validation.parse_ip_address("publish_ip", self.publish_ip) or settings.publish_ip
        self.ttl = settings.ttl if self.ttl is None else _validation.parse_seconds("ttl", self.ttl)
        self.keep = self.keep or settings.keep
        self._defaults.keep_failed = settings.keep_failed
        self.reaper = self.reaper and settings.reaper
        engine = self._connect(settings)
        timeline = Timeline()
        self._runtime = Runtime(
            engine=engine,
            images=ImageStore(engine, Credentials(settings.environ), timeline, settings.environ),
            reachability=Reachability(engine, settings.host_override),
            session=Session(
                engine,
                reaper_client(engine, settings.environ),
                timeline,
                self._defaults,
                use_reaper=self.reaper,
                ttl=self.ttl,
            ),
            timeline=timeline,
            settings=settings,
            defaults=self._defaults,
        )
        self.endpoint = str(engine.endpoint)
        self._warns_of_public_ports = not (publish_ip or engine.endpoint.is_local)
        # Nobody else reaches a remote engine's loopback, and an engine's IPv4 ports are not bound at its IPv6 address.
        everywhere = "::" if engine.endpoint.is_ipv6 else "0.0.0.0"  # noqa: S104 - with a warning
        self.publish_ip = publish_ip or (everywhere if self._warns_of_public_ports else "127.0.0.1")

    def __repr__(self) -> str:
        session = self._runtime.session
        return f"<Pool {self.endpoint}, {len(session)} made{' (closed)' if session.is_closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Pool cannot be pickled, since it is tied to this process; make one in each process"
        )

    def __enter__(self) -> Self:
        self._runtime.session.check_open()
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and self._runtime.session.postpones(self, failure)):
            close_after(self, failure)

    def close(self) -> None:
        """
        Remove everything that the pool made.

        One failure does not stop the rest, and closing twice does nothing. In a forked child, the parent's things are
        left alone.

        Raises:
            CleanupError: Something is left; the message lists it, and how to remove it. Close again to try again.
        """
        self._runtime.session.close()

    # Start containers

    def run(
        self, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container.

        It is removed, with its anonymous volumes, when it or this pool is closed and when the interpreter ends.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, unless *repository* has one; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            InvalidOptionError: An option has an invalid value; nothing was sent to the engine.
            ImagePullError: The image is missing and cannot be pulled.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: The engine could not start it; it has been removed.
            HostAccessError: The container cannot reach the ports that `host_access_ports` names.
            RetryTimeoutError: What `wait_for` names did not come in time; the container has been removed.
            ContainerExitedError: The container has ended during that wait.
        """
        try:
            made = RunOptions(repository=repository, tag=tag, env=env, **options)
        finally:
            del env, options  # Tools that print the variables of a traceback must not show secrets.
        return self.run_with_options(made)

    def run_with_options(self, options: RunOptions | PreparedImage, *modifiers: Modifier) -> Resource:
        """
        Start a container as *options* describe it.

        Args:
            options: What to start; a prepared image starts with its data.
            modifiers: Called in turn with the engine's host configuration, a dict with the engine's keys such as
                `{"ShmSize": 67108864}`, to change it last of all.

        Raises:
            InvalidOptionError: An option has an invalid value; nothing was sent to the engine.
            ImagePullError: The image is missing and cannot be pulled.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: The engine could not start it; it has been removed.
            PrepareError: The prepared image no longer exists.
            HostAccessError: The container cannot reach the ports that `host_access_ports` names.
            RetryTimeoutError: What `wait_for` names did not come in time; the container has been removed.
            ContainerExitedError: The container has ended during that wait.
        """
        self._runtime.session.check_open()
        return self._start(*self._locate(options), modifiers)

    def run_all(
        self, options: Sequence[RunOptions | PreparedImage], *, max_workers: int | None = None
    ) -> list[Resource]:
        """
        Start several containers at the same time.

        If one fails, the others are closed as by `Resource.close`, which removes them unless they are reused, shared or
        kept.

        Args:
            options: What to start.
            max_workers: How many to start at the same time; 16 by default.

        Returns:
            The containers in the order of *options*.

        Raises:
            DockertestError: The first failure, as `run_with_options` raises it.
        """
        started: list[Resource] = []

        def start(one: RunOptions | PreparedImage) -> Resource:
            resource = self.run_with_options(one)
            started.append(resource)
            return resource

        try:
            results = run_in_parallel([partial(start, one) for one in options], max_workers or 16)
            if failure := next((result for result in results if isinstance(result, Exception)), None):
                raise failure
        except BaseException:
            for result in run_in_parallel([resource.close for resource in started]):
                if isinstance(result, Exception):
                    log.error("%s", result)
            raise
        return [result for result in results if isinstance(result, Resource)]

    def standby(
        self,
        options: RunOptions | PreparedImage,
        *,
        ready: Callable[[Resource], object] | None = None,
        count: int = 1,
        max_idle: float = 600.0,
    ) -> Standby:
        """
        Start containers ahead of need, for tests that each want a fresh one.

        `standby.take()` returns a container that is ready, and starts the next one in the background. The image is pulled
        first if it is missing. Containers that are not taken are removed when the standby or this pool is closed, and by
        the reaper if this process is killed.

        Args:
            options: What to start, also a prepared image. Fixed names, `network_aliases`, fixed host ports, `reuse` and
                `shared` are refused, since several containers run at the same time.
            ready: Called with a container until it returns, to wait for its server; by default `wait_for` of *options*, else
                `Resource.wait_ready`.
            count: How many containers to keep ready.
            max_idle: Seconds without a `take` after which the spares are removed. The next `take` starts new ones.

        Raises:
            InvalidOptionError: An argument has an invalid value, or two containers could not run at the same time.
            ImagePullError: The image is missing and cannot be pulled.
            PrepareError: The prepared image no longer exists.
        """
        from dockertest import _standby

        self._runtime.session.check_open()
        if ready is not None:
            _validation.check_callable("ready", ready, "a resource")
        parsed, condition = _standby.parse_options(options)
        located = self._locate(parsed)
        return _standby.Standby(
            located[3],
            self._runtime,
            partial(self._start, *located, is_spare=True),
            ready or condition or "ready",
            count,
            max_idle,
        )

    def build_and_run(
        self, name: str, dockerfile_path: str | os.PathLike[str], env: EnvSpec = ()
    ) -> Resource:
        """
        Build an image from a Dockerfile, and start a container of it.

        The image is kept: it is the cache of the next build.

        Args:
            name: The name of the image and of the container.
            dockerfile_path: The Dockerfile; its folder is the build's context.
            env: The container's environment, a mapping or `"K=V"` strings.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: The engine could not start it; it has been removed.
        """
        try:
            made = RunOptions(name=name, env=env)
        finally:
            del env  # Tools that print the variables of a traceback must not show secrets.
        return self.build_and_run_with_options(dockerfile_path, made)

    def build_and_run_with_options(
        self, dockerfile_path: str | os.PathLike[str], options: RunOptions, *modifiers: Modifier
    ) -> Resource:
        """
        Build an image from a Dockerfile, and start a container with *options*.

        Args:
            dockerfile_path: The Dockerfile; its folder is the build's context.
            options: What to start; the image is called `repository`, else `name`, with `tag`.
            modifiers: As for `run_with_options`.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: The engine could not start it; it has been removed.
        """
        path = _validation.parse_local_path("dockerfile_path", dockerfile_path)
        return self.build_and_run_with_build_options(
            BuildOptions(path.parent, path.name), options, *modifiers
        )

    def build_and_run_with_build_options(
        self, build_options: BuildOptions, run_options: RunOptions, *modifiers: Modifier
    ) -> Resource:
        """
        Build an image as *build_options* describe it, and start a container of it.

        The container is made from the image that was just built, even if another build has taken its name in the meantime.

        Args:
            build_options: What to build. A build times out when a step prints nothing for half an hour.
            run_options: What to start; the image is called `repository`, else `name`, with `tag`.
            modifiers: As for `run_with_options`.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: The engine could not start it; it has been removed.
        """
        images, session = self._runtime.images, self._runtime.session
        session.check_open()
        _resource.check_service(run_options)
        build_options = self._with_platform(build_options)
        name = image_to_build(run_options)
        labels: dict[str, str] = {}
        outlives_session = run_options.shared or run_options.parsed.reuse or self._runtime.defaults.keep
        if build_options.remove_image and not outlives_session:
            session.begin()
            labels = {**session.labels(), INTERMEDIATE: "true", BUILT: str(name)}
        with self._runtime.timeline.step("build", str(name)):
            image_id = images.build(build_options, name, labels)
        try:
            image = images.obtain(parse_image_name("the image built", image_id), pull="never")
            resource = self._start(run_options, image, image_id, str(name), modifiers)
        except BaseException:
            if build_options.remove_image:
                images.remove(name, image_id)
            raise
        if build_options.remove_image:
            _resource.on_removal(resource, partial(images.remove, name, image_id))
        return resource

    def compose(
        self,
        path: str | os.PathLike[str],
        *,
        project: str | None = None,
        profiles: Sequence[str] = (),
        env: EnvSpec = (),
    ) -> Compose:
        """
        Start the services of a Compose file, and wait until they run and are healthy.

        `docker compose` starts the services. Everything is removed when the project or this pool is closed, and by the
        reaper if this process is killed. Services without a health check have to run for half a second; one-shot
        services may end with exit code 0.

        Args:
            path: The Compose file, or its folder, whose `compose.override.yaml` is used, too.
            project: The project's name; a random one by default. An existing project is an error.
            profiles: The profiles to activate.
            env: Variables for the file, in addition to those of this process, as a mapping or `"K=V"` strings.

        Returns:
            The project: `compose["db"]` is the `Resource` of a service.

        Raises:
            InvalidOptionError: An argument is invalid, or the engine is Podman.
            ComposeError: `docker compose` is missing or failed, the project exists, or a service failed or was not
                healthy within the pool's `max_wait`. Nothing is left of it.
        """
        from dockertest import _compose

        try:
            return _compose.start(
                self._runtime,
                path,
                project=project,
                profiles=profiles,
                env=env,
                image_prefix=self.image_prefix or "",
            )
        finally:
            del env  # Tools that print the variables of a traceback must not show secrets.

    # Images

    def pull(
        self,
        image: str,
        tag: str | None = None,
        *,
        platform: str = "",
        auth: AuthConfig | None = None,
        policy: PullPolicy = "always",
    ) -> Image:
        """
        Pull an image, as `run` does before it starts a container.

        Args:
            image: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, unless *image* has one; `latest` by default.
            platform: The platform, such as `"linux/arm64"`; by default `DOCKER_DEFAULT_PLATFORM`, else the engine's own.
            auth: Credentials for the registry; those of the docker CLI by default.
            policy: `"always"` asks the registry for a newer image, `"missing"` only for one that is not available
                locally, `"never"` not at all.

        Returns:
            The local image: its id, command, exposed ports and so on.

        Raises:
            InvalidOptionError: An argument is invalid.
            ImagePullError: The image cannot be pulled.
        """
        self._runtime.session.check_open()
        options = self._with_platform(
            RunOptions(repository=image, tag=tag, platform=platform, auth=auth, pull=policy)
        )
        return self._runtime.images.obtain(
            self._prefixed(image_to_run(options)),
            pull=options.pull,
            platform=options.platform,
            auth=options.auth,
            on_progress=self.pull_progress,
        )

    def prepare(
        self,
        options: RunOptions,
        fill: Callable[[Resource], object] | None = None,
        *,
        ready: Callable[[Resource], object] | None = None,
        version: VersionSpec = "",
        max_age: float | None = 7 * 86400.0,
        max_wait: float | None = None,
    ) -> PreparedImage:
        """
        Return an image of a server that is already set up and filled with data.

        Its containers start with the data, in a fraction of the time.

        The first call starts the server, waits until it is ready, calls *fill*, stops the server and stores it with its
        volumes as a local image. Later calls, in this process and in others of this user on this host, take milliseconds.
        If several processes call it at the same time, one makes the image and the others wait. The image is made again if the base image, the
        options, the code of *fill*, the values bound to it, or *version* changes.

        Args:
            options: What to start. Name, networks, ports, labels and limits do not belong to the image. Host folders must be
                mounted with `:ro`, and named volumes are refused.
            fill: Called with the container of the ready server, to fill it. What it raises is raised unchanged, and nothing is
                left.
            ready: Called with the container until it returns, to wait for the server; `Resource.wait_ready` by default.
            version: What the data depends on in addition to the code of *fill*: a `str` that you change by hand, the
                `pathlib.Path` of a file or folder whose content counts, or several of both.
            max_age: Seconds after which the image is made again, since certificates and leases in it expire; 7 days by
                default, `None` for never.
            max_wait: Seconds to wait for the server to be ready; the pool's `max_wait` by default.

        Returns:
            The image, to start containers of with `run_with_options`, `run_all` or `standby`.

        Raises:
            InvalidOptionError: An argument is invalid, or data would be outside of the container.
            ImagePullError: The base image is missing and cannot be pulled.
            PrepareError: The server did not stop by its stop signal, or the image cannot be stored.
            ContainerExitedError: The server ended too early.
            RetryTimeoutError: The server is not ready in time.
        """
        self._runtime.session.check_open()
        if not isinstance(options, RunOptions):
            raise InvalidOptionError(f"invalid options {options!r}: expected RunOptions")
        if max_age is not None:
            _validation.parse_seconds("max_age", max_age)
        options = self._with_platform(options)
        name, image = self._obtain(options)
        from dockertest import _prepared

        return _prepared.prepare(
            self._runtime,
            options,
            fill,
            image=image,
            display_name=str(name),
            publish_ip=self.publish_ip or "",
            ready=ready,
            version=version,
            max_age=max_age,
            max_wait=max_wait,
        )

    # Find and remove containers

    def container_by_name(self, name: str) -> Resource | None:
        """
        Return the container of exactly that name, or `None` if none exists.

        The container is borrowed: closing it, or this pool, leaves it running.

        Args:
            name: The whole name; a part of one finds nothing.

        Raises:
            InvalidOptionError: No container can have that name.
        """
        self._runtime.session.check_open()
        wanted = _validation.parse_name("name", _validation.parse_str("name", name).removeprefix("/"))
        if not wanted:
            raise InvalidOptionError("name is empty", hint="use a container's whole name")
        try:
            inspection = self._runtime.engine.inspect(quote_path(wanted))
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        if inspection.name != wanted:  # The engine also accepts the beginning of an id.
            return None
        return self._borrowed(inspection)

    def remove_container_by_name(self, name: str) -> bool:
        """
        Remove the container of exactly that name, with its anonymous volumes.

        The container may belong to another owner.

        Args:
            name: The whole name; a part of one finds nothing.

        Returns:
            Whether there was one.
        """
        resource = self.container_by_name(name)
        if resource is None:
            return False
        self.purge(resource)
        return True

    def current_container(self) -> Resource:
        """
        Return the container that this process runs in, borrowed.

        Raises:
            NotInContainerError: It runs in none that this engine knows.
        """
        self._runtime.session.check_open()
        if inspection := reachability.own_container(self._runtime.engine):
            return self._borrowed(inspection)
        raise NotInContainerError(
            f"this process does not run in a container that the engine at {self.endpoint} knows",
            hint="dockertest doctor shows which engine is used",
        )

    def purge(self, resource: Resource) -> None:
        """
        Remove a container with its anonymous volumes, even one of another owner.

        Purging twice does nothing. A container that this pool started stays if it is kept, by `keep=True` or
        `Resource.keep`.

        Args:
            resource: From `run`, or from `container_by_name` for another owner's.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        _resource.purge(resource)

    def prune(self, *, reused: bool = False, prepared: bool = False) -> list[str]:
        """
        Remove what dead sessions left on this engine.

        A session is the use of one pool by one process. It is dead if its process has provably ended, or its
        `DOCKERTEST_TTL` is over. Everything else is left alone: what living sessions, other hosts and other users made,
        and containers without dockertest's labels.

        Args:
            reused: Also remove the containers that this user started on this host with `reuse`, even if they are in use.
            prepared: Also remove all prepared images of this user on this host that no open pool uses. Without it, those go
                that were replaced, or not used for `DOCKERTEST_PREPARED_UNUSED`.

        Returns:
            The ids of the containers, networks and images, and the names of the volumes that were removed.

        Raises:
            EngineError: The engine cannot be asked.
        """
        unused = self._runtime.settings.prepared_unused
        return self._runtime.session.prune(reused=reused, prepared=prepared, unused=unused)

    def inventory(self) -> list[InventoryItem]:
        """
        Return everything on this engine that any dockertest session has made.

        Sessions on other machines are included.

        Returns:
            The containers, networks and volumes, then the prepared images.

        Raises:
            EngineError: The engine cannot be asked.
        """
        return self._runtime.session.inventory()

    # Networks

    def create_network(self, name: str | None = None, **options: Unpack[NetworkFields]) -> Network:
        """
        Create a network.

        It is removed when it or this pool is closed and when the interpreter ends.

        Args:
            name: The network's name; a random one when `None`.
            options: `driver` (`"bridge"`), `driver_options`, `internal` (no way out), `labels`, and `subnet`, such as
                `"10.20.30.0/24"`. By default the engine chooses a subnet; if its address pools are exhausted, dockertest
                does.

        Raises:
            InvalidOptionError: An option has an invalid value.
            EngineError: The engine refused, for example because the name is taken.
        """
        runtime = self._runtime
        network_name = _validation.parse_name("name", name) or f"dockertest-{new_session()[:12]}"
        body = _network.network_request(network_name, runtime.session.labels(), options)
        with runtime.session.creating():
            runtime.session.begin()
            network_id = networks.create(runtime.engine, body)
            network = _network.network_of(runtime, {"Id": network_id, "Name": network_name})
            runtime.session.add_network(network)
        return network

    def networks_by_name(self, name: str) -> list[Network]:
        """
        Return the networks of exactly that name.

        They are borrowed: closing them, or this pool, leaves them alone.

        Args:
            name: The whole name; a part of one finds nothing.
        """
        self._runtime.session.check_open()
        return [
            _network.network_of(self._runtime, attrs, Ownership.BORROWED)
            for attrs in networks.list_named(self._runtime.engine, name)
        ]

    def remove_network(self, network: Network) -> None:
        """
        Remove a network, even one of another owner.

        Containers that are still attached are disconnected first.

        Args:
            network: From `create_network` or `networks_by_name`.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        _network.release(network, remove=True)

    # Volumes

    def create_volume(self, name: str | None = None) -> Volume:
        """
        Create a volume.

        It is removed when it or this pool is closed and when the interpreter ends.

        Mount it with `mounts=[(volume, "/path")]`, or `(volume, "/path", "ro")`.

        Args:
            name: The volume's name; a random one when `None`.

        Raises:
            InvalidOptionError: A volume cannot have that name.
            EngineError: The engine refused, or there is a volume of that name (`status` is 409).
        """
        runtime = self._runtime
        volume_name = _validation.parse_name("name", name) or f"dockertest-{new_session()[:12]}"
        with runtime.session.creating():
            runtime.session.begin()
            labels = {**runtime.session.labels(), VOLUME: new_session()}
            volumes.create(runtime.engine, volume_name, labels)
            volume = volume_of(runtime, volume_name)
            runtime.session.add_volume(volume)
        return volume

    # Wait

    @show_keywords(RetryOptions, max_wait=None, watch=None)
    def retry(self, op: Callable[[], T], **options: Unpack[RetryOptions]) -> T:
        """
        Call *op* until it returns, and return its result.

        For example: `connection = pool.retry(connect)`. An exception, or the value `False` itself, means "not ready yet".
        Programming mistakes, such as a `NameError`, end the wait at once; `dockertest.retry` lists them. By default all
        containers of the pool are watched.

        Args:
            op: Called without arguments, in the caller's thread. A call that hangs cannot be interrupted.
            options: `max_wait`, `wait`, `max_attempts`, `on`, `giveup` and `watch`, as described in `RetryOptions`.

        Raises:
            RetryTimeoutError: *op* still failed after `max_wait` or `max_attempts`; its cause is the last failure.
            ContainerExitedError: A watched container has ended.
            InvalidOptionError: An option has an invalid value, or *op* cannot be called.
        """
        monitor = self._monitor(options.pop("watch", None))
        others: AttemptOptions = options
        with self._measured_readiness():
            return _retry.run(op, monitor=monitor, default_max_wait=self.max_wait, **others)

    @show_keywords(AsyncRetryOptions, max_wait=None, watch=None)
    async def retry_async(self, op: Callable[[], Awaitable[T]], **options: Unpack[AsyncRetryOptions]) -> T:
        """
        Do what `retry` does for a coroutine function, without blocking the event loop.

        Args:
            op: Called without arguments, and awaited.
            options: Those of `retry`, and `attempt_timeout`, as described in `AsyncRetryOptions`.

        Raises:
            RetryTimeoutError: *op* still failed after `max_wait` or `max_attempts`; its cause is the last failure.
            ContainerExitedError: A watched container has ended.
            InvalidOptionError: An option has an invalid value, or *op* is not a coroutine function.
        """
        monitor = self._monitor(options.pop("watch", None))
        others: AsyncAttemptOptions = options
        with self._measured_readiness():
            return await _retry.run_async(op, monitor=monitor, default_max_wait=self.max_wait, **others)

    def timeline(self) -> list[Step]:
        """
        Return what this pool did, when it did it, and how long it took.

        There is a step for each pull, build and start, and for the time that each service took to be ready.
        """
        return self._runtime.timeline.steps()

    # Internal

    def _connect(self, settings: Settings) -> EngineClient:
        if self._given_client is not None:
            if self.endpoint or self.cert_path:
                raise InvalidOptionError(
                    "client cannot be combined with endpoint or cert_path", hint="pass only one of them"
                )
            return connect.adopt(self._given_client, self.timeout)
        if not isinstance(self.cert_path, (str, os.PathLike, type(None))):
            raise InvalidOptionError(f"invalid cert_path {self.cert_path!r}: expected the path of a folder")
        folder = None if self.cert_path is None else os.fspath(self.cert_path)
        home = os.path.expanduser("~")  # noqa: PTH111 - never raises
        candidates = endpoint.candidates(
            self.endpoint, folder, settings.environ, home=home, platform=sys.platform
        )
        is_one_of_several = len(candidates) > 1 and candidates[0].why == _settings.ENDPOINTS
        if is_one_of_several:  # All pools of a process use the same one as long as it answers.
            candidates.sort(key=lambda candidate: candidate.url != registry.placed_at)
        engine = connect.find(candidates, self.timeout)
        if is_one_of_several:
            registry.placed_at = engine.endpoint.url
        for attempt in engine.passed_over:
            # A usual place normally has no engine. One that is busy is unexpected.
            is_unexpected = is_one_of_several or attempt.is_silent
            if is_unexpected and registry.is_first(f"skipping {attempt.endpoint}"):
                log.warning("skipping the engine at %s", attempt)
        if engine.endpoint.remark and registry.is_first(engine.endpoint.remark):
            log.warning("%s", engine.endpoint.remark)
        return engine

    def _prefixed(self, name: ImageName) -> ImageName:
        """Put the prefix before a name, unless this pool built or committed the image."""
        if name in self._runtime.images.own_names:
            return name
        by_id = self._runtime.images.find_by_id(name) if name.may_be_id else None
        return by_id or name.prefixed(self.image_prefix or "")

    def _start(
        self,
        options: RunOptions,
        image: Image,
        image_name: str,
        display_name: str,
        modifiers: tuple[Modifier, ...] = (),
        *,
        is_spare: bool = False,
    ) -> Resource:
        """Start a container from a local image; *display_name* is used in messages."""
        runtime = self._runtime
        mounted = [mount.source for mount in options.parsed.mounts]
        request = create_request(
            options,
            image,
            image_name=image_name,
            labels=runtime.session.labels(),
            publish_ip=self.publish_ip or "",
            network=runtime.reachability.network(),
            owned_volumes=runtime.session.owned_volumes(mounted) if mounted else (),
            modifiers=modifiers,
        )
        networks.resolve_host_gateway(runtime.engine, request.body["HostConfig"])
        if runtime.engine.is_podman:
            adapt_to_podman(request, runtime.engine.podman_version)
        if (
            self._warns_of_public_ports
            and request.body["HostConfig"]["PortBindings"]
            and not options.publish_ip
        ):
            log.warning(
                "ports are published on all addresses of %s; set publish_ip to choose one", self.endpoint
            )
            self._warns_of_public_ports = False
        if options.shared or options.parsed.reuse:
            container = take_or_launch(runtime, request, options, image, image_name=display_name)
        else:
            container = launch(
                runtime, request, options, image=display_name, name=options.name, is_spare=is_spare
            )
        resource = resource_of(runtime, container)
        if options.wait_for is not None:
            _resource.wait_as_asked(resource, options.wait_for)
        return resource

    def _locate(self, options: RunOptions | PreparedImage) -> tuple[RunOptions, Image, str, str]:
        """
        Return what to start, its local image, and two names of the image.

        The first name is the one to create a container with. The second one is for messages.
        """
        if isinstance(options, RunOptions):
            _resource.check_service(options)
            options = self._with_platform(options)
            name, image = self._obtain(options)
            shown = str(name)
            return options, image, shown, shown
        if options.engine != self.endpoint:
            raise InvalidOptionError(
                f"{options.name} was prepared on the engine at {options.engine}, and this pool uses {self.endpoint}",
                hint="prepare it with this pool",
            )
        from dockertest import _prepared

        image = _prepared.take(self._runtime, options)
        return _prepared.options_to_run(options, image), image, image.id, options.display_name

    def _with_platform(self, options: Options) -> Options:
        """Request the platform in `DOCKER_DEFAULT_PLATFORM`, unless the options name one."""
        platform = self._runtime.settings.platform
        return replace(options, platform=platform) if platform and not options.platform else options

    def _obtain(self, options: RunOptions) -> tuple[ImageName, Image]:
        """Return the prefixed image name and the image, which is pulled if necessary."""
        given = image_to_run(options)
        name = self._prefixed(given)
        try:
            image = self._runtime.images.obtain(
                name,
                pull=options.pull,
                platform=options.platform,
                auth=options.auth,
                on_progress=self.pull_progress,
            )
        except ImagePullError as error:
            if name != given and self._runtime.images.inspect(given):
                error.hint = (
                    f"{str(given)!r} exists here, but image_prefix was added to its name; tag it 'localhost/{given}', and use "
                    "that"
                )
            raise
        return name, image

    def _borrowed(self, inspection: Inspection) -> Resource:
        container = Container(self._runtime, inspection, image=inspection.image, ownership=Ownership.BORROWED)
        return resource_of(self._runtime, container)

    def _monitor(self, watched: Sequence[Watched] | None) -> Monitor:
        if watched is not None:
            return WatchList(watched)
        return LivenessMonitor(self._runtime.engine, self._runtime.session)

    def _measured_readiness(self) -> AbstractContextManager[None]:
        """Record when a service is ready, if only one container can be meant."""
        container = watch.waited_for(self._runtime.session.containers())
        return container.measured_readiness() if container else nullcontext()


def finish_test(*, failed: bool) -> None:
    """
    Keep the containers of a failed test, and close everything that was postponed.

    Containers are kept only if `DOCKERTEST_KEEP` is `failed`. Pools and containers are postponed if their `with` body
    failed while the outcome of the test was unknown.

    Args:
        failed: Whether the test, its set-up or its cleanup has failed.
    """
    registry.finish_test(failed=failed)


def close_for_class(pool: Pool) -> None:
    """
    Close the pool of a test class.

    Containers that the test run shares stay in use for the classes that follow.

    Raises:
        CleanupError: Something is left, as for `Pool.close`.
    """
    pool._runtime.session.close(keeps_shared=True)
