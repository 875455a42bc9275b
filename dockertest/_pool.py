"""A connection to one engine, and all that was started through it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar, cast

from typing_extensions import Self, Unpack

from dockertest import _create, _endpoint, _engine, _image, _logs, _report, _retry, _session, _specs
from dockertest._create import Modifier
from dockertest._engine import Engine
from dockertest._image import OnProgress
from dockertest._options import EnvSpec, RunFields, RunOptions
from dockertest._resource import Resource
from dockertest.errors import (
    CleanupError,
    ContainerExitedError,
    ContainerStartError,
    DockertestError,
    InvalidOptionError,
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
    _engine: Engine = field(init=False)
    _session: str = field(init=False, default_factory=_session.new_session)
    _resources: dict[str, Resource] = field(init=False, default_factory=dict)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _creating: int = field(init=False, default=0)
    _closed: bool = field(init=False, default=False)
    _told: set[str] = field(init=False, default_factory=set)
    _warn_of: str = field(init=False, default="")
    _pid: int = field(init=False, default_factory=os.getpid)

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
        self._engine = self._connect(environ)
        self.client = self._engine.client
        self.endpoint = str(self._engine.endpoint)
        self._warn_of = "" if self.publish_ip or self._engine.endpoint.is_local else self.endpoint
        everywhere, here = "0.0.0.0", "127.0.0.1"  # noqa: S104 - a remote engine's loopback is reached by nobody
        self.publish_ip = self.publish_ip or (everywhere if self._warn_of else here)

    def __repr__(self) -> str:
        return (
            f"<Pool {self.endpoint}, {len(self._resources)} containers{' (closed)' if self._closed else ''}>"
        )

    def __enter__(self) -> Self:
        self._check_open()
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
        self._check_open()
        name = _specs.reference("repository", options.repository, options.tag).prefixed(
            self.image_prefix or ""
        )
        image = _image.obtain(
            self._engine,
            name,
            pull=options.pull,
            platform=options.platform,
            auth=options.auth,
            on_progress=self.pull_progress,
        )
        request = _create.create_request(
            options,
            image,
            image_name=str(name),
            labels=_session.labels(self._session),
            publish_ip=self.publish_ip or "",
            modifiers=modifiers,
        )
        if request.published and self._warn_of and not options.publish_ip:
            log.warning(
                "ports are published on all addresses of %s; set publish_ip to choose one", self._warn_of
            )
            self._warn_of = ""
        resource = self._make(request, options, str(name))
        with self._removed_on_failure(resource):
            self._start(resource, request, options)
        return resource

    def purge(self, resource: Resource) -> None:
        """
        Remove a container and its anonymous volumes, whoever made it; purging twice is no error.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        resource._remove()

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
            watch=(self,) if watch is None else tuple(watch),
        )

    def close(self) -> None:
        """
        Remove everything that the pool made. Everything is tried; closing twice is nothing.

        Raises:
            CleanupError: Something is left; the text says what, and how to remove it. Close again to try again.
        """
        if self._pid != os.getpid():
            return  # a forked child: what its parent made is its parent's
        with self._changed:
            self._closed = True
            # Whoever is just creating a container gets its answer first, so that none is made behind our back.
            self._changed.wait_for(lambda: not self._creating, timeout=self.timeout)
            owned = [each for each in self._resources.values() if not each._borrowed]
        failures = [
            error
            for error in _session.side_by_side([each.close for each in reversed(owned)])
            if isinstance(error, Exception)
        ]
        if failures:
            left = "".join(f"\n  {error}" for error in failures)
            raise CleanupError(
                f"{len(failures)} of {len(owned)} containers could not be removed; remove them with: docker rm -f -v "
                f"$(docker ps -aq --filter label={_session.SESSION}={self._session}){left}",
                failures=tuple(failures),
            )
        _session.registry.discard(self)
        self._engine.close()

    def forget(self, resource: Resource) -> None:
        """Stop caring for a container that is gone; called by the container itself."""
        with self._changed:
            self._resources.pop(resource.id, None)

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
        with self._changed:
            self._check_open()
            self._creating += 1
        try:
            container_id = self._engine.create(request.body, name=options.name, platform=options.platform)
            resource = Resource(
                id=container_id,
                name=options.name,
                container=self._engine.container({"Id": container_id, "Name": f"/{options.name}"}),
                _engine=self._engine,
                _owner=self,
                _image=image,
            )
            with self._changed:
                self._resources[container_id] = resource
            _session.registry.add(self)
            return resource
        finally:
            with self._changed:
                self._creating -= 1
                self._changed.notify_all()

    @contextmanager
    def _removed_on_failure(self, resource: Resource) -> Iterator[None]:
        """Leave no half-made container behind, whatever went wrong; Ctrl-C too."""
        try:
            yield
        except BaseException as failure:
            try:
                resource.close()
            except DockertestError as error:
                log.error("%s", error)
            if self._closed and isinstance(failure, DockertestError):
                raise ResourceClosedError("the pool was closed while it started a container") from failure
            raise

    def _start(self, resource: Resource, request: _create.CreateRequest, options: RunOptions) -> None:
        for network in request.networks:
            self._engine.connect_network(
                network, resource.id, _create.endpoint_config(options.network_aliases)
            )
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
        self._await_ports(resource, request.published)

    def _await_ports(self, resource: Resource, published: Sequence[str]) -> None:
        """Wait until the ports are bound: on some engines that comes a moment after the start."""
        deadline = time.monotonic() + 2
        while True:
            attrs = resource._refresh()
            bound = attrs["NetworkSettings"].get("Ports") or {}
            if all(bound.get(port) for port in published) or attrs["State"].get("Status") != "running":
                break
            if time.monotonic() > deadline:
                break  # such as in an internal network, where nothing is published; `get_port` will say so
            time.sleep(0.01)
        resource.name = str(attrs["Name"]).lstrip("/")

    def _check_open(self) -> None:
        if self._closed:
            raise ResourceClosedError("the pool is closed")

    def _check_alive(self, within: float) -> None:
        """Raise `ContainerExitedError` if a container that the pool runs has ended with a failure; tell each once."""
        try:
            listed = self._engine.containers([f"{_session.SESSION}={self._session}"], within=within)
        except DockertestError:
            return  # the engine's trouble says nothing about the containers
        states = {each["Id"]: each.get("State") for each in listed}
        with self._changed:
            watched = [each for each in self._resources.values() if each.id not in self._told]
        for resource in watched:
            if states.get(resource.id, "removed") in ("exited", "dead", "removed"):
                self._told.add(resource.id)
                try:
                    resource._check_alive(within)
                except ContainerExitedError as error:
                    if error.exit_code != 0:
                        raise

    def _evidence(self) -> str:
        with self._changed:
            watched = list(self._resources.values())
        return "\n".join(each._evidence() for each in watched)
