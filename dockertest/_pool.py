"""A connection to one engine, and all that was started through it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from typing_extensions import Self, Unpack

from dockertest import (
    _build,
    _create,
    _endpoint,
    _engine,
    _files,
    _image,
    _lifeline,
    _logs,
    _network,
    _options,
    _report,
    _retry,
    _session,
    _specs,
)
from dockertest._create import Modifier
from dockertest._credentials import Credentials
from dockertest._engine import Engine
from dockertest._handle import Handle
from dockertest._network import Network, NetworkFields
from dockertest._options import BuildOptions, EnvSpec, RunFields, RunOptions
from dockertest._progress import OnProgress
from dockertest._resource import Resource
from dockertest.errors import (
    CleanupError,
    ContainerStartError,
    DockertestError,
    EngineError,
    InvalidOptionError,
    NotInContainerError,
    ResourceClosedError,
)

T = TypeVar("T")
log = logging.getLogger("dockertest")


@dataclass(eq=False, repr=False)
class Pool:
    """
    A connection to one container engine.

    Making one contacts the engine. All that is started through it is removed when it is closed, at the end of a
    `with`, and when the interpreter ends.

    Attributes:
        endpoint: `unix://`, `tcp://`, `http(s)://`, `ssh://` or `npipe://`; found by itself when `None` or empty.
        cert_path: Folder with `ca.pem`, `cert.pem` and `key.pem`, for TLS.
        client: The `docker.DockerClient` in use; one of your own is never closed.
        max_wait: Seconds that `retry` goes on.
        timeout: Seconds that the engine may be silent within one request.
        image_prefix: Put before image names that name no registry; by default `DOCKERTEST_IMAGE_PREFIX`.
        publish_ip: Address that ports are published on; by default `DOCKERTEST_PUBLISH_IP`, else 127.0.0.1 for a local
            engine and, with a warning, all addresses of a remote one.
        pull_progress: Called with a `PullProgress` while an image is pulled; by default it is logged.
        reaper: Have what the pool made removed even when this process is killed; `DOCKERTEST_REAPER=0` turns it off.
        keep: Leave everything standing for a look afterwards, and print how to reach and remove it; also with
            `DOCKERTEST_KEEP=1`.

    Raises:
        DockerUnavailableError: No engine answers; the text has every endpoint tried, and why.
        InvalidOptionError: An argument or environment variable has a value that cannot work.
    """

    endpoint: str | None = None
    _: KW_ONLY
    cert_path: str | os.PathLike[str] | None = None
    client: _engine.DockerClient = field(
        default=cast("_engine.DockerClient", None)
    )  # there in any case once the pool is made
    max_wait: float = 60.0
    timeout: float = 60.0
    image_prefix: str | None = None
    publish_ip: str | None = None
    pull_progress: OnProgress | None = None
    reaper: bool = True
    keep: bool = False
    _engine: Engine = field(init=False)
    _environ: dict[str, str] = field(init=False)
    _credentials: Credentials = field(init=False)
    _images: _image.Images = field(init=False)
    _session_id: str = field(init=False, default_factory=_session.new_session)
    _owned: _session.Belongings = field(init=False, default_factory=_session.Belongings)
    _watch: _session.Watch = field(init=False)
    _lifeline: _lifeline.Lifeline = field(init=False)
    _ttl: float | None = field(init=False)
    _warn_of: str = field(init=False, default="")

    def __post_init__(self) -> None:
        _specs.seconds("max_wait", self.max_wait)
        if not _specs.seconds("timeout", self.timeout):
            raise InvalidOptionError("timeout must be more than zero")
        environ = os.environ  # read here and nowhere else
        self.image_prefix = (
            environ.get("DOCKERTEST_IMAGE_PREFIX", "") if self.image_prefix is None else self.image_prefix
        )
        self.publish_ip = _specs.address("publish_ip", self.publish_ip) or _specs.address(
            "DOCKERTEST_PUBLISH_IP", environ.get("DOCKERTEST_PUBLISH_IP")
        )
        self.keep = self.keep or environ.get("DOCKERTEST_KEEP", "") not in ("", "0")
        self._engine = self._connect(environ)
        self._environ = dict(environ)
        self._credentials = Credentials(environ)
        self._images = _image.Images(self._engine, self._credentials)
        self.reaper = self.reaper and environ.get("DOCKERTEST_REAPER") != "0"
        self._lifeline = _lifeline.lifeline(self._engine, environ)
        ttl = environ.get("DOCKERTEST_TTL")
        self._ttl = _specs.duration("DOCKERTEST_TTL", ttl) if ttl else None
        self._watch = _session.Watch(self._engine, self._session_id, self._owned)
        self.client = self._engine.client
        self.endpoint = str(self._engine.endpoint)
        self._warn_of = "" if self.publish_ip or self._engine.endpoint.is_local else self.endpoint
        everywhere, here = "0.0.0.0", "127.0.0.1"  # noqa: S104 - a remote engine's loopback is reached by nobody
        self.publish_ip = self.publish_ip or (everywhere if self._warn_of else here)

    def __repr__(self) -> str:
        return f"<Pool {self.endpoint}, {len(self._owned)} made{' (closed)' if self._owned.closed else ''}>"

    def __enter__(self) -> Self:
        self._owned.check_open()
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        try:
            self.close()
        except CleanupError as error:
            if failure is None:
                raise
            log.error("%s", error)  # and let the failure of the body go on: it is what the user has to see

    def run(
        self, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container.

        It is removed, with its anonymous volumes, when it or this pool is closed and when the interpreter ends.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, where *repository* has none; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            InvalidOptionError: An option has a value that cannot work; the engine was not asked.
            ImagePullError: The image is not there and cannot be pulled.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        return self.run_with_options(RunOptions(repository=repository, tag=tag, env=env, **options))

    def run_with_options(self, options: RunOptions, *modifiers: Modifier) -> Resource:
        """
        Start a container as *options* say.

        Args:
            modifiers: Called in turn with the engine's host config, a dict with the engine's keys such as
                `{"ShmSize": 67108864}`, to change it last of all.

        Raises:
            InvalidOptionError: An option has a value that cannot work; the engine was not asked.
            ImagePullError: The image is not there and cannot be pulled.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        self._owned.check_open()
        name = _specs.reference("repository", options.repository, options.tag).prefixed(
            self.image_prefix or ""
        )
        image = self._images.obtain(
            name,
            pull=options.pull,
            platform=options.platform,
            auth=options.auth,
            on_progress=self.pull_progress,
        )
        return self._run(options, image, str(name), str(name), modifiers)

    def build_and_run(
        self, name: str, dockerfile_path: str | os.PathLike[str], env: EnvSpec = ()
    ) -> Resource:
        """
        Build an image from a Dockerfile, and start a container of it; both are called *name*.

        The image is kept: it is the cache of the next build.

        Args:
            name: What image and container are called.
            dockerfile_path: The Dockerfile; its folder is the build's context.
            env: The container's environment, a mapping or `"K=V"` strings.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        return self.build_and_run_with_options(dockerfile_path, RunOptions(name=name, env=env))

    def build_and_run_with_options(
        self, dockerfile_path: str | os.PathLike[str], options: RunOptions, *modifiers: Modifier
    ) -> Resource:
        """
        Build an image from a Dockerfile, and start a container of it as *options* say.

        Args:
            dockerfile_path: The Dockerfile; its folder is the build's context.
            options: What to start; the image is called `repository`, or else `name`, with `tag`.
            modifiers: As for `run_with_options`.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        path = Path(dockerfile_path)
        return self.build_and_run_with_build_options(
            BuildOptions(path.parent, path.name), options, *modifiers
        )

    def build_and_run_with_build_options(
        self, build_options: BuildOptions, run_options: RunOptions, *modifiers: Modifier
    ) -> Resource:
        """
        Build an image as *build_options* say, and start a container of it as *run_options* say.

        The container is made from the image that was just built, whatever its name has come to mean meanwhile.

        Args:
            build_options: What to build. One step may be silent for half an hour, then the build is given up.
            run_options: What to start; the image is called `repository`, or else `name`, with `tag`.
            modifiers: As for `run_with_options`.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        self._owned.check_open()
        name = _specs.reference(
            "repository or name", run_options.repository or run_options.name, run_options.tag
        )
        built = _build.build(self._engine, build_options, name, self._credentials, self._environ)
        image = _image.inspect(self._engine, _specs.reference("the image built", built))
        try:
            resource = self._run(run_options, image or {}, built, str(name), modifiers)
        except BaseException:
            if build_options.remove_image:
                _build.remove(self._engine, str(name))
            raise
        if build_options.remove_image:
            resource._after_removal = partial(_build.remove, self._engine, str(name))
        return resource

    def _run(
        self,
        options: RunOptions,
        image: Mapping[str, Any],
        made_of: str,
        called: str,
        modifiers: tuple[Modifier, ...],
    ) -> Resource:
        """Start a container of an image that is at hand: made of that name or id, and called so in what is told."""
        request = _create.create_request(
            options,
            image,
            image_name=made_of,
            labels=self._labels(),
            publish_ip=self.publish_ip or "",
            modifiers=modifiers,
        )
        if request.body["HostConfig"]["PortBindings"] and self._warn_of and not options.publish_ip:
            log.warning(
                "ports are published on all addresses of %s; set publish_ip to choose one", self._warn_of
            )
            self._warn_of = ""
        resource = self._make(request, options, called)
        with self._removed_on_failure(resource):
            self._start(resource, request, options)
        return resource

    def run_all(self, options: Sequence[RunOptions], *, max_workers: int | None = None) -> list[Resource]:
        """
        Start several containers side by side, and give them in the order of *options*; one failure removes the rest.

        Args:
            options: What to start.
            max_workers: How many to start at the same time; 16 by default.

        Raises:
            DockertestError: The first failure, as `run_with_options` raises it.
        """
        calls = [partial(self.run_with_options, each) for each in options]
        results = _session.side_by_side(calls, max_workers or 16)
        made = [each for each in results if isinstance(each, Resource)]
        failure = next((each for each in results if isinstance(each, Exception)), None)
        if failure is None:
            return made
        for left in _session.side_by_side([each.close for each in made]):
            if isinstance(left, Exception):
                log.error("%s", left)
        raise failure

    def container_by_name(self, name: str) -> Resource | None:
        """
        Give the container of just that name, borrowed: closing it, or this pool, leaves it running.

        Args:
            name: The whole name; part of one finds nothing.
        """
        self._owned.check_open()
        wanted = _specs.container_name("name", name.removeprefix("/"))
        try:
            attrs = self._engine.inspect(_engine.quoted(wanted))
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        if str(attrs["Name"]).lstrip("/") != wanted:  # the engine takes the beginning of an id as well
            return None
        return self._handle(attrs, str(attrs["Config"]["Image"]), borrowed=True)

    def remove_container_by_name(self, name: str) -> bool:
        """
        Remove the container of just that name, and its anonymous volumes, whoever made it.

        Args:
            name: The whole name; part of one finds nothing.

        Returns:
            Whether there was one.
        """
        found = self.container_by_name(name)
        if found is None:
            return False
        self.purge(found)
        self._owned.forget(found.id)
        return True

    def current_container(self) -> Resource:
        """
        Give the container that this process runs in, borrowed.

        Raises:
            NotInContainerError: It runs in none that this engine knows.
        """
        self._owned.check_open()
        for container in _session.own_container_ids():
            try:
                attrs = self._engine.inspect(container)
            except EngineError as error:
                if error.status != 404:
                    raise
            else:
                return self._handle(attrs, str(attrs["Config"]["Image"]), borrowed=True)
        raise NotInContainerError(
            f"this process does not run in a container that the engine at {self.endpoint} knows"
        )

    def create_network(self, name: str | None = None, **options: Unpack[NetworkFields]) -> Network:
        """
        Create a network, removed when it or this pool is closed and when the interpreter ends.

        Args:
            name: Its name; a random one when `None`.
            options: `driver` (`"bridge"`), `driver_options`, `internal` (no way out), `labels`, and `subnet`, such as
                `"10.20.30.0/24"`; by default the engine chooses, and if it has no addresses left, this library.

        Raises:
            InvalidOptionError: An option has a value that cannot work.
            EngineError: The engine refused, because the name is taken, say.
        """
        called = _specs.container_name("name", name) or f"dockertest-{_session.new_session()[:12]}"
        body = _network.network_request(called, self._labels(), options)
        with self._owned.creating():
            self._begin()
            network_id = _network.create(self._engine, body)
            network = self._network_handle({"Id": network_id, "Name": called})
            self._owned.add_network(network_id, network)
        return network

    def networks_by_name(self, name: str) -> list[Network]:
        """
        Give the networks of just that name, borrowed: closing them, or this pool, leaves them alone.

        Args:
            name: The whole name; part of one finds nothing.
        """
        self._owned.check_open()
        return [self._network_handle(each, borrowed=True) for each in _network.list_named(self._engine, name)]

    def remove_network(self, network: Network) -> None:
        """
        Remove a network, whoever made it; what is still attached to it is disconnected first.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        network._let_go(remove=True)

    def purge(self, resource: Resource) -> None:
        """
        Remove a container and its anonymous volumes, whoever made it; purging twice is no error.

        What this pool made stays if it is to `keep` it.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        resource._let_go(remove=not resource._kept())

    def retry(
        self,
        op: Callable[[], T],
        *,
        max_wait: float | None = None,
        wait: _retry.Wait | None = None,
        max_attempts: int | None = None,
        on: _retry.ExceptionTypes = Exception,
        giveup: Callable[[BaseException], bool] | None = None,
        watch: Sequence[Resource] | None = None,
    ) -> T:
        """
        Call *op* until it returns, and return what it returned: `conn = pool.retry(connect)`.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default. At least one call is made.
            wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`. By default 10 ms at
                first, then about a twentieth of the time waited, at most 0.5 s.
            max_attempts: Calls of *op* after which to give up.
            on: The exceptions that mean not yet; so does the value `False` itself.
            giveup: Asked about each failure; a true answer raises it at once.
            watch: Containers whose end, however it came, ends the wait. By default all that this pool runs, and only
                an end with a failure, told once.

        Raises:
            RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
            ContainerExitedError: A watched container has ended.
        """
        return _retry.retry(
            op,
            max_wait=self.max_wait if max_wait is None else max_wait,
            wait=wait,
            max_attempts=max_attempts,
            on=on,
            giveup=giveup,
            watch=(self._watch,) if watch is None else tuple(watch),
        )

    def prune(self) -> list[str]:
        """
        Remove what dead sessions left on this engine, and give the ids of the containers and networks that were there.

        Dead is a session whose process is known to be gone, or whose `DOCKERTEST_TTL` is over. What is not known to be
        dead is left alone: a living session's things, another host's or user's, and all that is not dockertest's.
        """
        self._owned.check_open()
        return self._lifeline.prune(self._engine)

    async def retry_async(
        self,
        op: Callable[[], Awaitable[T]],
        *,
        max_wait: float | None = None,
        wait: _retry.Wait | None = None,
        max_attempts: int | None = None,
        on: _retry.ExceptionTypes = Exception,
        giveup: Callable[[BaseException], bool] | None = None,
        watch: Sequence[Resource] | None = None,
        attempt_timeout: float | None = None,
    ) -> T:
        """
        Do what `retry` does for a coroutine function; other tasks go on meanwhile.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default. At least one call is made.
            wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`.
            max_attempts: Calls of *op* after which to give up.
            on: The exceptions that mean not yet; so does the value `False` itself.
            giveup: Asked about each failure; a true answer raises it at once.
            watch: Containers whose end, however it came, ends the wait; by default as in `retry`.
            attempt_timeout: Seconds that one call may take; one that takes longer is cancelled, and means not yet.

        Raises:
            RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
            ContainerExitedError: A watched container has ended.
        """
        return await _retry.retry_async(
            op,
            max_wait=self.max_wait if max_wait is None else max_wait,
            wait=wait,
            max_attempts=max_attempts,
            on=on,
            giveup=giveup,
            watch=(self._watch,) if watch is None else tuple(watch),
            attempt_timeout=attempt_timeout,
        )

    def close(self) -> None:
        """
        Remove everything that the pool made. Everything is tried; closing twice is nothing.

        Raises:
            CleanupError: Something is left; the text says what, and how to remove it. Close again to try again.
        """
        if self._owned.inherited:
            return
        failures = self._owned.close(self.timeout)
        if self._owned.doubtful and not self.keep:
            failures += self._sweep()
        if failures:
            left = "".join(f"\n  {error}" for error in failures)
            label = f"label={_session.SESSION}={self._session_id}"
            raise CleanupError(
                f"{len(failures)} of what the pool made could not be removed; remove it with: "
                f"docker rm -f -v $(docker ps -aq --filter {label}); docker network prune -f --filter {label}{left}",
                failures=tuple(failures),
            )
        self._lifeline.end(self._session_id, doubtful=self._owned.doubtful)
        _session.registry.discard(self)
        self._engine.close()

    def _forget(self, handle: Handle | Network) -> None:
        """Stop caring for something that is gone; called by its handle."""
        self._owned.forget(handle.id)

    def _expire(self, container: str, seconds: float | None) -> None:
        """Have a container removed when its time is up; called by its handle."""
        there = self.reaper and self._lifeline.expire(container, seconds)
        if not there and seconds is not None:
            raise InvalidOptionError(
                "expire needs the reaper; leave reaper=True, and DOCKERTEST_REAPER unset"
            )

    def _sweep(self) -> list[Exception]:
        """Remove what the engine made without our having been told, as when its answer was lost."""
        try:
            _lifeline.sweep(self._engine, self._session_id)
        except DockertestError as error:
            return [error]
        return []

    def _begin(self) -> None:
        """Before the first thing is made: have it removed when this process ends, however it ends."""
        _session.registry.add(self)
        if not self.keep:
            self._lifeline.begin(self._session_id, reaper=self.reaper)

    def _labels(self) -> dict[str, str]:
        return _session.labels(self._session_id, _lifeline.identity(), self._ttl)

    def _connect(self, environ: Mapping[str, str]) -> Engine:
        if self.client is not None:
            if self.endpoint or self.cert_path:
                raise InvalidOptionError(
                    "client: an endpoint or cert_path beside it would say the same again; give one"
                )
            return _engine.adopt(self.client, self.timeout)
        folder = None if self.cert_path is None else os.fspath(self.cert_path)
        return _engine.find(
            _endpoint.candidates(self.endpoint, folder, environ, platform=sys.platform), self.timeout
        )

    def _make(self, request: _create.CreateRequest, options: RunOptions, image: str) -> Resource:
        with self._owned.creating():
            self._begin()
            container_id = self._engine.create(request.body, name=options.name, platform=options.platform)
            resource = self._handle({"Id": container_id, "Name": options.name}, image)
            self._owned.add_container(container_id, resource)
        return resource

    def _handle(self, attrs: Mapping[str, Any], image: str, *, borrowed: bool = False) -> Resource:
        return Resource(
            id=str(attrs["Id"]),
            name=str(attrs["Name"]).lstrip("/"),
            container=self._engine.container(attrs),
            _engine=self._engine,
            _owner=self,
            _image=image,
            _borrowed=borrowed,
        )

    def _network_handle(self, attrs: Mapping[str, Any], *, borrowed: bool = False) -> Network:
        return Network(
            id=str(attrs["Id"]),
            name=str(attrs["Name"]),
            network=self._engine.network(attrs),
            _engine=self._engine,
            _owner=self,
            _borrowed=borrowed,
        )

    @contextmanager
    def _removed_on_failure(self, resource: Resource) -> Iterator[None]:
        """Leave no half-made container behind, whatever went wrong; Ctrl-C too."""
        try:
            yield
        except BaseException as failure:
            try:
                resource._let_go(remove=True)
            except DockertestError as error:
                log.error("%s", error)
            if self._owned.closed and isinstance(failure, DockertestError):
                raise ResourceClosedError("the pool was closed while it started a container") from failure
            raise

    def _start(self, resource: Resource, request: _create.CreateRequest, options: RunOptions) -> None:
        for network in request.networks:
            self._engine.connect_network(
                network, resource.id, _create.endpoint_config(options.network_aliases)
            )
        if options.files:
            _files.place(self._engine, resource.container.attrs, _options.files(options.files))
        try:
            self._engine.send(
                "post",
                f"/containers/{resource.id}/start",
                what=f"start {_report.label(resource.name, resource.id)} of {resource._image}",
                error=ContainerStartError,
            )
        except ContainerStartError as error:
            logs = _logs.last_lines(self._engine, resource.id, tty=options.tty)
            raise ContainerStartError(f"{error}{_report.indented(logs)}") from error.__cause__
        resource._await_ports()
