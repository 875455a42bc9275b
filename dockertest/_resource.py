"""A running container, as the user holds it."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Container as Container_
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeVar, Unpack, overload

from dockertest import _clock, _retry, _validation
from dockertest._cleanup.registry import Closable, registry
from dockertest._containers import exec as exec_
from dockertest._containers import files, logs
from dockertest._containers.container import Container
from dockertest._containers.create import endpoint_config
from dockertest._containers.exec import ExecOptions, ExecResult
from dockertest._containers.logs import LogCondition, LogStream
from dockertest._engine import networks, sdk
from dockertest._engine.inspection import DEFAULT_STOP_SECONDS, Inspection, NetworkEndpoint
from dockertest._engine.reachability import DEFAULT_NETWORKS, join_host_port
from dockertest._image_name import parse_image_name
from dockertest._interruption import is_of_handler
from dockertest._options import RunOptions, WaitCondition
from dockertest._public import public
from dockertest._report import Report, clean
from dockertest._retry import AsyncAttemptOptions, AttemptOptions, WatchList, show_keywords
from dockertest._runtime import Runtime
from dockertest._validation import NetworkSpec, parse_content, parse_network
from dockertest.errors import (
    ContainerExitedError,
    DockertestError,
    EngineError,
    InvalidOptionError,
    NotInNetworkError,
    PortNotBoundError,
    PortNotPublishedError,
    RetryTimeoutError,
)

if TYPE_CHECKING:
    from dockertest._proxy import Proxy
    from dockertest.services import Connection, Service, Settings

T = TypeVar("T")
_ENDING_SIGNALS = ("KILL", "TERM", "INT", "QUIT", "ABRT")
log = logging.getLogger("dockertest")

_LOOK_INSIDE_SECONDS = 5.0  # that `cat` may take in a container
_STAYS_OPEN_SECONDS = 1.0  # that a connection has to stay open to count as accepted by the service


@public
@dataclass(eq=False, repr=False)
class Resource:
    """
    One container.

    A container that a pool started is removed, with its anonymous volumes, by `close()`, at the end of a `with`, when
    the pool is closed, and when the interpreter ends. A borrowed one (found by its name) and one started with `reuse`
    stay. A shared one is removed when the last of its processes has closed its pool or ended.

    Attributes:
        id: The container's full id.
        name: The container's name.
        container: The docker SDK's `Container`, fresh after every method here that changes it.
    """

    id: str
    name: str
    container: sdk.SdkContainer
    _handle: Container = field(init=False)
    _runtime: Runtime = field(init=False)

    def __repr__(self) -> str:
        closed = "" if self._handle.is_open else " (closed)"
        return f"<Resource {self.image} {self.name!r} {self.id[:12]}{closed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Resource cannot be pickled, since it is tied to this process; pass its name, and look it up with "
            "Pool.container_by_name"
        )

    def __enter__(self) -> Self:
        self._handle.check_open()
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and postpones(self, failure, [self])):
            close_after(self, failure)

    @property
    def image(self) -> str:
        """The name of the image that the container was made from."""
        return self._handle.image

    # State

    @property
    def status(self) -> str:
        """
        The container's current state, such as `"running"` or `"exited"`.

        It is the engine's word for the state, or `"removed"` if the container is gone.
        """
        try:
            return self._inspect().status
        except EngineError as error:
            if error.status == 404:
                return "removed"
            raise

    @property
    def health(self) -> str:
        """
        The current result of the container's health check.

        It is `"starting"`, `"healthy"` or `"unhealthy"`, or `"none"` if the container has no health check.
        """
        return self._inspect().health

    def refresh(self) -> None:
        """Ask the engine for everything in `container` again."""
        self._handle.check_open()
        self._inspect()

    def report(self) -> Report:
        """
        Return the container's state and its last 20 log lines.

        A container that is gone has the status `"removed"`, or `"expired"` if the time set with `expire` is up.
        """
        return self._handle.report()

    def check_alive(self, timeout: float = 5.0) -> None:
        """
        Raise an error if the container has ended.

        If the engine cannot be asked, no error is raised.

        Args:
            timeout: Seconds that the engine may take to answer.

        Raises:
            ContainerExitedError: The container has ended, or is gone.
        """
        self._handle.check_alive(timeout)

    # Addresses

    def get_port(self, port: str | int) -> int:
        """
        Return the port to connect to from this process.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            PortNotBoundError: The engine has not bound it yet, as while the container restarts.
            NotInNetworkError: This process runs in a container from which it cannot be reached.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[1]

    def get_bound_ip(self, port: str | int) -> str:
        """
        Return the address to connect to from this process, without the port.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            PortNotBoundError: The engine has not bound it yet, as while the container restarts.
            NotInNetworkError: This process runs in a container from which it cannot be reached.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[0]

    def get_host_port(self, port: str | int) -> str:
        """
        Return the address and port to connect to from this process, as a string.

        Its form is `"127.0.0.1:49153"`. An IPv6 address is in brackets.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            PortNotBoundError: The engine has not bound it yet, as while the container restarts.
            NotInNetworkError: This process runs in a container from which it cannot be reached.
            ContainerExitedError: The container has ended.
        """
        return join_host_port(*self._address(port))

    def get_address(self, port: str | int) -> tuple[str, int]:
        """
        Return the host and port to connect to from this process, as a tuple.

        This is for clients that take them separately.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            PortNotBoundError: The engine has not bound it yet, as while the container restarts.
            NotInNetworkError: This process runs in a container from which it cannot be reached.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)

    def url(
        self, *, driver: str = "", database: str | None = None, network: NetworkSpec | None = None
    ) -> str:
        """
        Return the URL of the container's service, which contains the password.

        The service is the one that `RunOptions.service` names, else the one that the image is known for. User, password and
        database are those that the image makes from its environment and command.

        Args:
            driver: SQLAlchemy's name of a driver, for SQLAlchemy's form of the URL: with `"psycopg"` it begins with
                `postgresql+psycopg://`.
            database: The database to connect to; by default the one that the container was configured with.
            network: A `Network`, its name or its id, for the URL that other containers there use: with an alias of the
                container, else its name. In the engine's default network, which knows no names, with its address.

        Raises:
            InvalidOptionError: The service is unknown, has no databases or no SQLAlchemy dialect, or takes its password
                from a file that is not in `files`.
            NotInNetworkError: The container is not connected to *network*.
            PortNotPublishedError: The container does not publish the service's port.
            ContainerExitedError: The container has ended.
        """
        from dockertest import services

        self._handle.check_open()
        service = self._known_service()
        if network is None:
            address = self.get_host_port(service.port)
        else:
            address = join_host_port(self._host_in_network(network), int(str(service.port).partition("/")[0]))
        return services.url_of(service, self._settings(), address, driver=driver, database=database)

    def connection(self) -> Connection:
        """
        Return the host, port, user, password and database of the container's service.

        Raises:
            InvalidOptionError: The service is unknown, or takes its password from a file that is not in `files`.
            PortNotPublishedError: The container does not publish the service's port.
            ContainerExitedError: The container has ended.
        """
        from dockertest import services

        self._handle.check_open()
        service = self._known_service()
        return services.connection_of(service, self._settings(), self._address(service.port))

    def get_ip_in_network(self, network: NetworkSpec) -> str:
        """
        Return the container's address in a network, for other containers there.

        Args:
            network: A `Network`, its name or its id.

        Raises:
            NotInNetworkError: The container is not connected to it.
            ContainerExitedError: The container has ended, and has no address any more.
            EngineError: It has no address yet, as while it restarts (`reason` is `"restarting"`).
        """
        return self._endpoint(network)[1].ip

    def proxy(self, port: str | int) -> Proxy:
        """
        Return a TCP proxy to a port of the container.

        Use it to test how your program behaves during outages and on slow networks. It listens on loopback at an
        address that stays the same while the container is stopped and started, and is closed together with this
        resource.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            InvalidOptionError: *port* is not a TCP port.
            PortNotPublishedError: The container does not publish that port.
            PortNotBoundError: The engine has not bound it yet, as while the container restarts.
            NotInNetworkError: This process runs in a container from which it cannot be reached.
            ContainerExitedError: The container has ended.
        """
        from dockertest._proxy import open_proxy, parse_tcp_port

        container_port = parse_tcp_port(port)
        self._address(container_port)
        proxy = open_proxy(
            container_port,
            self._handle.label,
            partial(self._find_address, container_port),
            partial(self._url_at, container_port),
        )
        self._handle.on_close(proxy.close)
        return proxy

    # Networks

    def connect_to_network(self, network: NetworkSpec, *, aliases: Sequence[str] = ()) -> None:
        """
        Connect the container to a network.

        On Docker, this may change the ports of the host that the engine has chosen for a running container.

        Args:
            network: A `Network`, its name or its id.
            aliases: Names by which other containers there can reach it.

        Raises:
            EngineError: The engine refused.
        """
        self._handle.check_open()
        joined = parse_network("network", network)
        config = endpoint_config(joined, _validation.parse_strings("aliases", aliases))
        self._runtime.engine.connect_network(joined, self.id, config)
        self._inspect()

    def disconnect_from_network(self, network: NetworkSpec) -> None:
        """
        Disconnect the container from a network.

        On Docker, this may change the ports of the host that the engine has chosen for a running container.

        Args:
            network: A `Network`, its name or its id.

        Raises:
            NotInNetworkError: The container is not connected to it.
        """
        self._handle.check_open()
        try:
            networks.disconnect(self._runtime.engine, parse_network("network", network), self.id)
        except EngineError as error:
            if "not connected" in str(error):  # the engine's words
                raise NotInNetworkError(
                    f"{self._handle.label} is not in network {getattr(network, 'name', network)!r}"
                ) from error
            raise
        self._inspect()

    # Waiting

    @show_keywords(AttemptOptions, max_wait=None)
    def retry(self, op: Callable[[], T], **options: Unpack[AttemptOptions]) -> T:
        """
        Call *op* until it returns or the container exits, and return its result.

        Args:
            op: Called without arguments, in the caller's thread. A call that hangs cannot be interrupted.
            options: `max_wait`, `wait`, `max_attempts`, `on` and `giveup`, as described in `AttemptOptions`.

        Raises:
            RetryTimeoutError: *op* still failed after `max_wait` or `max_attempts`; its cause is the last failure.
            ContainerExitedError: The container has ended.
            InvalidOptionError: An option has an invalid value, or *op* cannot be called.
        """
        self._handle.check_open()
        monitor = WatchList([self._handle])
        with self._handle.measured_readiness():
            return _retry.run(
                op, monitor=monitor, default_max_wait=self._runtime.defaults.max_wait, **options
            )

    @show_keywords(AsyncAttemptOptions, max_wait=None)
    async def retry_async(self, op: Callable[[], Awaitable[T]], **options: Unpack[AsyncAttemptOptions]) -> T:
        """
        Do what `retry` does for a coroutine function, without blocking the event loop.

        Args:
            op: Called without arguments, and awaited.
            options: Those of `retry`, and `attempt_timeout`, as described in `AsyncAttemptOptions`.

        Raises:
            RetryTimeoutError: *op* still failed after `max_wait` or `max_attempts`; its cause is the last failure.
            ContainerExitedError: The container has ended.
            InvalidOptionError: An option has an invalid value, or *op* is not a coroutine function.
        """
        self._handle.check_open()
        monitor = WatchList([self._handle])
        with self._handle.measured_readiness():
            return await _retry.run_async(
                op, monitor=monitor, default_max_wait=self._runtime.defaults.max_wait, **options
            )

    def wait_ready(self, *, max_wait: float | None = None) -> None:
        """
        Wait until the container's service answers in its own protocol.

        Neither a driver nor a login is needed. The service is the one that `RunOptions.service` names, else the one
        that the image is known for: `dockertest.services` lists them. A server that the image starts for its own set-up
        does not count. For an unknown image, its health check is waited for.

        Args:
            max_wait: Seconds after which to give up; the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: The service is unknown, and the container has no health check.
            PortNotPublishedError: The container does not publish the service's port.
            RetryTimeoutError: The service is not ready in time.
            ContainerExitedError: The container has ended.
        """
        from dockertest import services

        self._handle.check_open()
        service = self._service()
        if service is None:
            if not self._handle.inspection.has_healthcheck:
                raise InvalidOptionError(
                    f"{self._handle.label} of {self.image} contains no known service and has no health check",
                    hint="set service= to the name of a known one, add yours with dockertest.services.register, set "
                    "healthcheck=, or use wait_for_http, wait_for_port, wait_for_log or retry",
                )
            self.wait_healthy(max_wait)
            return
        deadline = _clock.monotonic() + self._limit(max_wait)
        if service.log:
            # A line of an earlier run does not count.
            inspection = self._inspect()
            since = 0.0 if inspection.has_ended else inspection.finished_at
            self._search_log(LogCondition.parse(service.log, 1, None), max_wait, since)
        settings = services.settings(self._handle.inspection.attrs)
        self._wait_for_answer(
            service.port,
            lambda address: service.probe(address, settings),
            lambda: f"does not answer as {service.images[0]} does",
            max(0.0, deadline - _clock.monotonic()),
        )

    def wait_for_port(self, port: str | int, *, max_wait: float | None = None) -> None:
        """
        Wait until something in the container accepts connections at a TCP port.

        That the engine's own proxy accepts them does not count, and neither does a server that listens on the container's
        loopback only. A service that accepts connections may still refuse requests: prefer `wait_ready`, `wait_for_http`
        or `retry`. Where the image has no `cat`, the port counts as open once a connection stays open for a second.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.
            max_wait: Seconds after which to give up; the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: *port* is not a TCP port.
            PortNotPublishedError: The container does not publish that port.
            RetryTimeoutError: Nothing listens there in time.
            ContainerExitedError: The container has ended.
        """
        number = int(_validation.parse_port("port", port).partition("/")[0])
        self._wait_for_answer(
            port,
            lambda address: self._listens(number, address),
            lambda: "does not accept connections",
            max_wait,
        )

    def wait_for_http(
        self,
        port: str | int,
        path: str = "/",
        *,
        status: int | Container_[int] = range(200, 400),
        headers: Mapping[str, str] | None = None,
        tls: bool = False,
        max_wait: float | None = None,
    ) -> None:
        """
        Wait until an HTTP server in the container answers a `GET` request.

        Redirects are not followed, and proxies of the environment are not used.

        Args:
            port: The container's port: `"8080/tcp"`, `"8080"` or `8080`.
            path: The path to request, with its query.
            status: The expected status, or all that are; 200 to 399 by default.
            headers: Headers of the request. Messages never show their values.
            tls: Use HTTPS. The server's certificate is not verified.
            max_wait: Seconds after which to give up; the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: An argument has an invalid value.
            PortNotPublishedError: The container does not publish that port.
            RetryTimeoutError: There is no such answer in time; the message has the last status.
            ContainerExitedError: The container has ended.
        """
        from dockertest import _probes

        accepted = _validation.parse_statuses("status", status)
        _validation.parse_url_path("path", path)
        sent = _validation.parse_headers("headers", headers or {})
        _validation.parse_bool("tls", tls)
        answered = 0

        def is_answered(address: tuple[str, int]) -> bool:
            nonlocal answered
            answered = _probes.http_status(address, path, sent, tls=tls)
            return answered in accepted

        self._wait_for_answer(
            port, is_answered, lambda: f"answered GET {path} with status {answered}", max_wait
        )

    def wait_healthy(self, max_wait: float | None = None) -> None:
        """
        Wait until the container's health check succeeds.

        Args:
            max_wait: Seconds after which to give up; the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: The container has no health check.
            RetryTimeoutError: The container is not healthy in time.
            ContainerExitedError: The container has ended.
        """

        def check() -> None:
            health = self.health
            if health == "none":
                raise InvalidOptionError(
                    f"{self._handle.label} has no health check", hint="set healthcheck=, or use retry"
                )
            if health != "healthy":
                raise EngineError(f"{self._handle.label} is {health}")

        limit = self._runtime.defaults.max_wait if max_wait is None else max_wait
        self.retry(check, max_wait=limit, giveup=is_of_handler)

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until the container ends, and return its exit code.

        Args:
            timeout: Seconds after which to give up; never by default.

        Raises:
            RetryTimeoutError: The container has not ended in time.
            ContainerExitedError: The container is gone, and its exit code with it.
        """
        self._handle.check_open()
        limit = float("inf") if timeout is None else _validation.parse_seconds("timeout", timeout)
        was_acknowledged = self._handle.exit_acknowledged
        self._handle.acknowledge_exit()
        code = None
        try:
            code = self._runtime.engine.wait(self.id, limit)
        except EngineError as error:
            if error.status == 404:
                raise ContainerExitedError.of(self._handle.report()) from error
            raise
        finally:
            if code is None:
                self._handle.acknowledge_exit(is_acknowledged=was_acknowledged)
        if code is None:
            raise RetryTimeoutError(
                f"{self._handle.label} has not ended within {limit:g} s", attempts=1, elapsed=limit
            )
        with suppress(EngineError):  # One that removes itself is gone now.
            self._inspect()
        return code

    # Life cycle

    def stop(self, timeout: float | None = None) -> None:
        """
        Stop the container; succeed if it has already exited.

        Args:
            timeout: Seconds that its command has to end before it is killed; by default the container's `stop_timeout`, else
                10.

        Raises:
            EngineError: The engine refused.
        """
        self._handle.check_open()
        self._handle.acknowledge_exit()
        self._handle.unpause(only_ours=True)
        self._end("stop", timeout)
        self._inspect()

    def start(self) -> None:
        """
        Start the container again; its published ports may change.

        Raises:
            EngineError: The engine refused.
        """
        self._handle.check_open()
        self._handle.acknowledge_exit(is_acknowledged=False)
        self._control("start")
        self._handle.continue_log()
        self._sync(self._handle.await_ports())

    def restart(self, timeout: float | None = None) -> None:
        """
        Stop the container and start it again; its published ports may change.

        Args:
            timeout: Seconds that its command has to end before it is killed; by default the container's `stop_timeout`, else
                10.

        Raises:
            EngineError: The engine refused.
        """
        self._handle.check_open()
        self._handle.acknowledge_exit(is_acknowledged=False)
        self._handle.unpause(only_ours=True)
        with self._handle.restarting():
            self._end("restart", timeout)
            self._handle.continue_log()
            self._sync(self._handle.await_ports())

    def pause(self) -> None:
        """
        Freeze all processes of the container, as if its host hung.

        Connections stay open, and nothing answers. A paused container does not count as dead. It is unpaused by
        `unpause`, and when it is stopped or closed.

        Raises:
            EngineError: The engine refused, for example because the container is not running.
        """
        self._handle.check_open()
        self._handle.pause()
        self._inspect()

    def unpause(self) -> None:
        """
        Let a paused container continue.

        Raises:
            EngineError: The engine refused, for example because the container is not paused.
        """
        self._handle.check_open()
        self._handle.unpause()
        self._inspect()

    def kill(self, signal: str | int = "KILL") -> None:
        """
        Send a signal to the container's first process.

        An exit that follows from `KILL`, `TERM`, `INT`, `QUIT`, `ABRT` or the image's own stop signal counts as asked for:
        `Pool.retry` does not report it.

        Args:
            signal: `"KILL"`, which ends it at once as a crash would; `"HUP"`, `"SIGHUP"`, `1` or `signal.SIGHUP`.

        Raises:
            InvalidOptionError: There is no such signal.
            ContainerExitedError: The container has ended already.
            EngineError: The engine refused.
        """
        self._handle.check_open()
        name = _validation.parse_signal("signal", signal)
        was_acknowledged = self._handle.exit_acknowledged
        if name in _ENDING_SIGNALS or name == self._stop_signal():
            self._handle.acknowledge_exit()
        try:
            self._control("kill", {"signal": name})
        except EngineError as error:
            self._handle.acknowledge_exit(is_acknowledged=was_acknowledged)
            if error.status is not None:
                self._handle.inspect_alive()
            raise
        with suppress(EngineError):  # One that removes itself is gone now.
            self._inspect()

    def commit(self, repository: str, tag: str | None = None) -> str:
        """
        Store the container's file system and configuration as a local image.

        It works like `docker commit`. The container is paused meanwhile. Volumes are not part of the image, but the
        environment is, passwords included. The image stays until you remove it.

        Args:
            repository: The image's name; it may contain the tag.
            tag: The image's tag; `latest` by default.

        Returns:
            The image's id, which `Pool.run` accepts as a name.

        Raises:
            InvalidOptionError: An image cannot have that name.
            EngineError: The engine refused.
        """
        self._handle.check_open()
        image = parse_image_name("repository", repository, tag)
        if image.digest or image.is_id:
            raise InvalidOptionError(
                f"repository: {str(image)!r} cannot be the name of a new image",
                hint="use a name without a digest",
            )
        return self._handle.commit(image)

    def expire(self, seconds: float | None) -> None:
        """
        Set a time after which the reaper removes the container.

        Calling this again sets a new time. The container is removed even if this process hangs or is gone. A container that
        is kept already stays.

        Args:
            seconds: From now; `None` cancels.

        Raises:
            InvalidOptionError: The reaper is turned off, or does not work; the message has the reason.
        """
        self._handle.check_open()
        self._handle.expire(None if seconds is None else _validation.parse_seconds("seconds", seconds))

    def keep(self) -> None:
        """
        Leave the container running for good, and print how to reach and remove it.

        Neither `close`, its pool, `expire`, the reaper nor `prune` removes it any more, even if this process is killed.
        The resource stays usable. Calling this again does nothing. If `DOCKERTEST_TTL` is set, other users' sessions may
        remove it after that time; only a pool with `keep=True` sets no such time.

        Raises:
            ResourceClosedError: The resource is closed.
        """
        self._handle.check_open()
        self._handle.keep()

    def close(self) -> None:
        """
        Close the resource, and remove the container if a pool started it.

        A reused, shared or borrowed container is left alone. Closing twice does nothing. In a forked child, the
        parent's container is left alone.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        self._handle.close()

    # Inside the container

    @overload
    def exec(
        self, cmd: Sequence[str], *, text: Literal[True] = True, **options: Unpack[ExecOptions]
    ) -> ExecResult[str]: ...

    @overload
    def exec(
        self, cmd: Sequence[str], *, text: Literal[False], **options: Unpack[ExecOptions]
    ) -> ExecResult[bytes]: ...

    @overload
    def exec(
        self, cmd: Sequence[str], *, text: bool, **options: Unpack[ExecOptions]
    ) -> ExecResult[str] | ExecResult[bytes]: ...

    def exec(
        self, cmd: Sequence[str], *, text: bool = True, **options: Unpack[ExecOptions]
    ) -> ExecResult[str] | ExecResult[bytes]:
        """
        Run a command in the container, and return its exit code and output.

        Args:
            cmd: The program and its arguments. A shell command line is `["sh", "-c", "…"]`.
            text: Whether the output is decoded as UTF-8 (the default) or returned as bytes.
            options: Keyword arguments, all optional; see `ExecOptions`.

        Raises:
            ExecError: The exit code is not 0, and `check` is set.
            ExecTimeoutError: The command did not end within `timeout`. It keeps running inside the container, since
                engines have no request to end it.
            InvalidOptionError: An option has an invalid value; nothing was sent to the engine.
            ContainerExitedError: The container has ended.
        """
        exec_.hide_secrets(options)
        self._handle.check_open()
        try:
            return exec_.run(self._runtime.engine, self.id, self._handle.label, cmd, text=text, **options)
        except EngineError as error:
            if error.status is not None:  # The engine refused; most likely the container has ended.
                self._handle.check_open()
                self._handle.check_alive(self._runtime.engine.timeout)
            raise

    def logs(
        self,
        *,
        tail: int | None = None,
        since: float | None = None,
        stdout: bool = True,
        stderr: bool = True,
        max_bytes: int | None = 64 << 20,
    ) -> str:
        """
        Return the container's log so far, standard output and error in order.

        Args:
            tail: Return only this many lines from the end; all by default.
            since: Return only output from after this time, in seconds since the epoch (`time.time()`).
            stdout: Whether to include standard output.
            stderr: Whether to include standard error.
            max_bytes: Return at most this many bytes from the end, after a line with the number of omitted ones; 64 MiB
                by default, `None` for all of it.

        Raises:
            InvalidOptionError: *tail*, *since* or *max_bytes* is invalid.
        """
        self._handle.check_open()
        return logs.read(
            self._runtime.engine,
            self.id,
            tty=self._handle.inspection.tty,
            tail=tail,
            since=since,
            stdout=stdout,
            stderr=stderr,
            max_bytes=max_bytes,
        )

    def stream_logs(self) -> LogStream:
        """
        Return an iterator over the lines of the log as they are written.

        It begins with the first line of the log. It ends when the container ends, or when its `close()` is called from
        any thread.
        """
        self._handle.check_open()
        return LogStream(self._runtime.engine, self.id, tty=self._handle.inspection.tty)

    def wait_for_log(
        self,
        pattern: str | re.Pattern[str],
        *,
        count: int = 1,
        fail_on: str | re.Pattern[str] | None = None,
        max_wait: float | None = None,
    ) -> re.Match[str]:
        """
        Wait until *pattern* matches a line of the log, and return the match.

        A log line does not prove that a service answers. Prefer `retry` if the service can be asked. The search begins with
        the first line of the log, also after a restart: use *count* for a line of a later run.

        Args:
            pattern: A regular expression, searched for in each line.
            count: Which match to wait for; 2 is the second one.
            fail_on: A regular expression for a line that ends the wait at once, also if *pattern* matches it too.
            max_wait: Seconds after which to give up; the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: *pattern*, *count*, *fail_on* or *max_wait* is invalid.
            LogFailureError: A line matched *fail_on*.
            RetryTimeoutError: There is no such match in time.
            ContainerExitedError: The container has ended without a match.
        """
        return self._search_log(LogCondition.parse(pattern, count, fail_on), max_wait)

    def read_file(self, path: str) -> bytes:
        """
        Return the content of a file in the container, which may have ended.

        Args:
            path: The file's absolute path. A link is followed within the container.

        Raises:
            EngineError: There is no such file (`status` is 404), or it is a folder, device, pipe or socket.
            InvalidOptionError: The path is not absolute, or in a tmpfs or another in-memory folder, which engines
                cannot copy from.
        """
        self._handle.check_open()
        return files.read(self._runtime.engine, self._handle.inspection, path)

    def write_file(self, path: str, data: bytes | str, *, mode: int = 0o644) -> None:
        """
        Create or replace a file in the container; it belongs to root.

        An existing file is replaced, not overwritten: a process that has it open keeps seeing the old content.

        Args:
            path: The file's absolute path. A link is followed within the container. Missing folders are created with
                mode 0755.
            data: The content; text is encoded as UTF-8.
            mode: The file's mode; 0644 by default.

        Raises:
            EngineError: The engine refused, as for a read-only file system, or *path* is a folder.
            InvalidOptionError: The path is not absolute, or in a tmpfs or another in-memory folder, which engines
                cannot copy to; or *data* or *mode* is invalid.
        """
        self._handle.check_open()
        data = parse_content(
            "data", data
        )  # Its repr is hidden from tools that print the variables of a traceback.
        files.write(self._runtime.engine, self._handle.inspection, path, data, mode)

    def copy_in(self, src: str | os.PathLike[str], path: str) -> None:
        """
        Copy a local file or folder into the container, as `docker cp` does.

        - If *path* is a folder or ends in `/`, the copy goes into it, under the name of *src*.
        - Otherwise *path* is the name of the copy; an existing file is replaced.
        - If *src* ends in `/.`, its content goes into the folder *path*, which is created if it is missing and keeps its
          mode if it is not.

        All copies belong to root. Modes, links and empty folders are preserved. A link inside a folder is copied as a
        link; *src* itself is followed. Devices, pipes and sockets are skipped with a warning.

        Args:
            src: A local file or folder.
            path: An absolute path in the container. Missing folders are created with mode 0755; the content of existing
                folders stays.

        Raises:
            EngineError: The engine refused, as for a folder in place of a file or a read-only file system.
            InvalidOptionError: The path is not absolute, or in a tmpfs or another in-memory folder, which engines
                cannot copy to; or *src* is neither file nor folder.
            OSError: A local file cannot be read.
        """
        self._handle.check_open()
        files.copy_in(self._runtime.engine, self._handle.inspection, src, path)

    def copy_out(self, path: str, dst: str | os.PathLike[str]) -> None:
        """
        Copy a file or folder out of the container, as `docker cp` does.

        - If *dst* is a folder or ends in `/`, the copy goes into it, under the name of *path*.
        - Otherwise *dst* is the name of the copy; an existing file is replaced.
        - If *path* ends in `/.`, its content goes into the folder *dst*, which is created if it is missing.

        Nothing is ever written outside of *dst*. Modes are preserved except bits such as set-uid; owners and times are
        not. Links are preserved if they stay inside the copied folder and have no `..` after a name. Other links and
        names that lead outside are refused: the rest is copied, and then an error lists them. Devices and pipes are
        skipped with a warning. What was copied before an error stays.

        Args:
            path: An absolute path in the container, which may have ended. A link is followed.
            dst: A local path. Missing folders are created; the content of existing folders stays.

        Raises:
            EngineError: There is no such file or folder (`status` is 404), or a part of it was refused.
            InvalidOptionError: The path is not absolute, or in a tmpfs or another in-memory folder, which engines
                cannot copy from.
            OSError: A local file cannot be written.
        """
        self._handle.check_open()
        files.copy_out(self._runtime.engine, self._handle.inspection, path, dst)

    # Internal

    def _search_log(
        self, condition: LogCondition, max_wait: float | None, since: float = 0.0
    ) -> re.Match[str]:
        engine, tty = self._runtime.engine, self._handle.inspection.tty

        def open_log(is_followed: bool) -> LogStream:
            self._handle.check_open()
            return LogStream(engine, self.id, tty=tty, since=since, is_followed=is_followed)

        limit = self._limit(max_wait)
        with self._handle.measured_readiness():
            return logs.wait_for(open_log, condition, limit, self._handle)

    def _inspect(self) -> Inspection:
        return self._sync(self._handle.inspect())

    def _sync(self, inspection: Inspection) -> Inspection:
        self.name = inspection.name
        return inspection

    def _stop_signal(self) -> str:
        """Return the name of the signal that a stop sends."""
        written = self._handle.inspection.stop_signal
        try:
            return _validation.parse_signal("", int(written) if written.isdigit() else written or "TERM")
        except InvalidOptionError:
            return ""

    def _end(self, verb: str, timeout: float | None) -> None:
        """
        Stop or restart the container; by default in the time that it was created with.

        Podman would not wait at all for a restart without a time. Podman 4 reports 0 also if no time was configured.
        """
        if timeout is None:
            seconds = self._handle.inspection.stop_timeout
            seconds = seconds or (DEFAULT_STOP_SECONDS if self._runtime.engine.is_podman_4 else 0.0)
        else:
            seconds = _validation.parse_seconds("timeout", timeout)
        self._control(verb, {"t": math.ceil(seconds)}, patience=seconds)

    def _control(self, verb: str, params: dict[str, object] | None = None, *, patience: float = 0.0) -> None:
        self._runtime.engine.send(
            "post",
            f"/containers/{self.id}/{verb}",
            what=f"{verb} {self._handle.label}",
            params=params,
            extra_timeout=patience,
        )

    def _address(self, port: str | int) -> tuple[str, int]:
        self._handle.check_open()
        container_port = _validation.parse_port("port", port)
        # Some engines still report the ports of a container that has ended; they lead nowhere.
        return self._address_in(self._sync(self._handle.inspect_alive()), container_port)

    def _address_in(self, inspection: Inspection, container_port: str) -> tuple[str, int]:
        if address := self._runtime.reachability.address(inspection, container_port):
            return address
        published = tuple(inspection.ports)
        if container_port in inspection.published_ports and self._is_binding(inspection):
            raise PortNotBoundError(
                f"{self._handle.label} is {inspection.status}, and the engine has not bound {container_port} yet",
                port=container_port,
                hint="get the port within retry, so that it is asked for again",
            )
        hint = ""
        if inspection.network_mode == "host":
            hint = "a container in the host's network publishes no ports: connect to the server's own port on that host"
        elif not (
            published or inspection.published_ports or networks.is_special_mode(inspection.network_mode)
        ):
            hint = f"start it with exposed_ports=[{container_port!r}]"
        raise PortNotPublishedError(
            f"{self._handle.label} does not publish {container_port}; published: {', '.join(published) or 'nothing'}",
            port=container_port,
            published=published,
            hint=hint,
        )

    def _find_address(self, port: str) -> tuple[str, int]:
        """Return what `_address` does, without a report about a container that has ended."""
        inspection = self._runtime.engine.inspect(self.id)
        address = None if inspection.has_ended else self._runtime.reachability.address(inspection, port)
        if address is None:
            raise PortNotBoundError(f"{self._handle.label} is {inspection.status}", port=port)
        return address

    def _url_at(self, port: str, address: tuple[str, int]) -> str:
        """Return the URL of a known service that is reached at another address."""
        from dockertest import services

        service = self._service()
        if service is None or service.port != port:
            raise InvalidOptionError(
                f"no URL is known for {port} of {self._handle.label} of {self.image}",
                hint="use get_host_port() of the proxy",
            )
        return services.url_of(service, self._settings(), join_host_port(*address))

    def _endpoint(self, network: NetworkSpec) -> tuple[str, NetworkEndpoint]:
        """Return a network's name, and the container's endpoint, which has an address."""
        self._handle.check_open()
        inspection = self._inspect()
        network_id = parse_network("network", network)
        name = getattr(network, "name", network_id)
        names = {network_id, name}
        joined = inspection.networks
        if not names & {known for key, endpoint in joined.items() for known in (key, endpoint.network_id)}:
            names.add(networks.name_of(self._runtime.engine, network_id))  # Podman reports no ids here.
        for key, endpoint in joined.items():
            if names & {key, endpoint.network_id}:
                if endpoint.ip:
                    return key, endpoint
                if inspection.has_ended:
                    raise ContainerExitedError.of(self._handle.describe(inspection))
                if not networks.is_special_mode(key):  # While a container restarts, it keeps its networks.
                    raise EngineError(
                        f"{self._handle.label} is {inspection.status} and has no address in network {name!r} yet",
                        hint="get the address within retry, so that it is asked for again",
                        reason="restarting",
                    )
        raise NotInNetworkError(
            f"{self._handle.label} has no address in network {name!r}; it is in: "
            f"{clean(', '.join(joined), newline=' ') or 'none'}",
            hint="connect it with connect_to_network",
        )

    def _host_in_network(self, network: NetworkSpec) -> str:
        """Return the host name or address for other containers in a network."""
        name, endpoint = self._endpoint(network)
        if name in DEFAULT_NETWORKS:
            return endpoint.ip
        return endpoint.aliases[0] if endpoint.aliases else self.name

    def _service(self) -> Service | None:
        """Return the service in the container; `None` if it is unknown."""
        from dockertest import services

        options = self._handle.options
        if options and options.service:
            return services.named(options.service)
        return services.find(self.image, services.settings(self._handle.inspection.attrs))

    def _known_service(self) -> Service:
        if service := self._service():
            return service
        raise InvalidOptionError(
            f"{self._handle.label} of {self.image} contains no known service",
            hint="set service= to the name of a known one, or add yours with dockertest.services.register",
        )

    def _settings(self) -> Settings:
        """Return the settings of the container's service, those in files included."""
        from dockertest import services

        options = self._handle.options
        files = options.parsed.files if options else {}
        return services.settings(self._handle.inspection.attrs, files, self.read_file)

    def _wait_for_answer(
        self,
        port: str | int,
        is_ready: Callable[[tuple[str, int]], object],
        failure: Callable[[], str],
        max_wait: float | None,
    ) -> None:
        """
        Wait until a service at a port is ready.

        The address follows a restart without a request per attempt: the check that the container is alive reports it.

        Args:
            is_ready: Called with the address; may raise an exception instead of returning `False`.
            failure: Returns why the last call returned `False`.
        """
        from dockertest import _probes

        self._handle.check_open()
        container_port = _validation.parse_port("port", port)
        if not container_port.endswith("/tcp"):
            raise InvalidOptionError(f"port: {container_port} is not a TCP port")
        limit = self._limit(max_wait)
        deadline = _clock.monotonic() + limit
        self._sync(self._handle.inspect_alive())
        inspected: Inspection | None = None
        address = ("", 0)

        def attempt() -> None:
            nonlocal address, inspected
            latest = self._handle.inspection
            if inspected is None or (latest.ports, latest.networks) != (inspected.ports, inspected.networks):
                address, inspected = self._address_in(latest, container_port), latest
            where = f"{join_host_port(*address)} (container port {container_port})"
            with _probes.time_limit(deadline - _clock.monotonic()):
                try:
                    answers = is_ready(address)
                except OSError as error:
                    if is_of_handler(error):
                        raise
                    raise ConnectionError(f"{where} does not answer: {error}") from error
            if not answers:
                raise ConnectionError(f"{where} {failure()}")

        self.retry(attempt, max_wait=limit, wait=_pauses, giveup=is_of_handler)

    def _limit(self, max_wait: float | None) -> float:
        return (
            self._runtime.defaults.max_wait
            if max_wait is None
            else _validation.parse_seconds("max_wait", max_wait)
        )

    def _listens(self, port: int, address: tuple[str, int]) -> bool:
        """
        Return whether something in the container accepts connections at a port.

        The port is published at *address*. A connection to it alone proves nothing, since the engine's own proxy may
        accept it. A proxy on this machine closes the connection at once if nothing listens in the container, but others
        take longer. So the container's own table of connections decides.
        """
        from dockertest import _probes

        with _probes.kept_open(address) as is_open:
            if not is_open:
                return False
            try:
                tables = self.exec(["cat", "/proc/net/tcp", "/proc/net/tcp6"], timeout=_LOOK_INSIDE_SECONDS)
            except EngineError as error:
                if error.status is None or "executable" not in str(error):
                    raise
            else:
                if tables.exit_code not in (126, 127):
                    return _probes.is_listening(tables.stdout, port)
        # The image has no `cat`, so that nothing but the connection can be observed.
        with _probes.kept_open(address, _STAYS_OPEN_SECONDS) as is_open:
            return is_open

    def _is_binding(self, inspection: Inspection) -> bool:
        """Return whether the engine is still going to bind the published ports."""
        if networks.is_special_mode(inspection.network_mode):
            return False
        return not networks.are_internal(self._runtime.engine, inspection.networks)


def resource_of(runtime: Runtime, handle: Container) -> Resource:
    """Return the public object for a container."""
    resource = Resource(id=handle.id, name=handle.inspection.name, container=handle.sdk)
    resource._handle = handle
    resource._runtime = runtime
    return resource


def check_service(options: RunOptions) -> None:
    """
    Check the name of a service before anything is asked of the engine.

    Raises:
        InvalidOptionError: The service is unknown.
    """
    if options.service:
        from dockertest import services

        services.named(options.service)


def wait_as_asked(resource: Resource, condition: WaitCondition) -> None:
    """
    Wait as `RunOptions.wait_for` asks; after a failure, close the resource.

    This removes the container unless it is kept, or others may have taken it.
    """
    try:
        if condition == "ready":
            resource.wait_ready()
        elif condition == "healthy":
            resource.wait_healthy()
        elif condition == "port":
            _wait_for_ports(resource)
        else:
            resource.retry(partial(condition, resource))
    except BaseException:
        try:
            resource.close()
        except DockertestError as error:
            log.error("%s", error)
        raise


def _wait_for_ports(resource: Resource) -> None:
    """Wait until all published TCP ports accept connections."""
    handle = resource._handle
    ports = [port for port in handle.inspection.published_ports if port.endswith("/tcp")]
    if not ports:
        raise InvalidOptionError(
            f"wait_for: {handle.label} of {handle.image} publishes no TCP port", hint="set exposed_ports="
        )
    deadline = _clock.monotonic() + resource._runtime.defaults.max_wait
    for port in ports:
        resource.wait_for_port(port, max_wait=max(0.0, deadline - _clock.monotonic()))


def _pauses() -> Iterator[float]:
    """
    Yield the pauses between two probes, in seconds.

    The first one is 10 ms. Later ones are about 2 % of the time waited so far, at most 0.25 s.
    """
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.02, 0.25)


def purge(resource: Resource) -> None:
    """Remove a container, also of another owner, unless it is kept."""
    handle = resource._handle
    handle.release_kept() if handle.is_kept else handle.release(remove=True)


def hand_out(resource: Resource) -> None:
    """
    Turn a spare into a container of the user.

    Raises:
        ContainerExitedError: It has ended.
        EngineError: The engine did not answer.
    """
    resource._sync(resource._handle.inspect_alive())
    resource._handle.hand_out()


def on_close(resource: Resource, callback: Callable[[], object]) -> None:
    """Call *callback* when the resource has been closed, even if its container stays."""
    resource._handle.on_close(callback)


def on_failure(resource: Resource, callback: Callable[[], object]) -> None:
    """Call *callback* when the container is kept because a test has failed."""
    resource._handle.on_failure(callback)


def postpones(owner: Closable, failure: BaseException, resources: Iterable[Resource]) -> bool:
    """Return whether to close the owner of containers later because its body failed."""
    handles = [resource._handle for resource in resources]
    kept = [handle for handle in handles if handle.is_kept_on_failure]
    return bool(kept) and registry.postpones(owner, failure, kept)


def close_after(owner: Closable, failure: BaseException | None) -> None:
    """
    Close *owner* at the end of a `with` body, which may have failed.

    If both fail, the error of `close` is logged, since the failure of the body is what the user has to see.
    """
    try:
        owner.close()
    except Exception as error:
        if failure is None:
            raise
        log.error("%s", error)


def on_removal(resource: Resource, callback: Callable[[], object]) -> None:
    """Call *callback* after the container has been removed by its handle."""
    resource._handle.on_removal(callback)
