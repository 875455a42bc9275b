"""A running container, as the user holds it."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, overload

from typing_extensions import Self, Unpack

from dockertest import _create, _engine, _exec, _files, _logs, _network, _report, _retry, _specs
from dockertest._engine import Engine
from dockertest._exec import ExecOptions, ExecResult
from dockertest._options import NetworkSpec, network_id
from dockertest.errors import (
    DockertestError,
    EngineError,
    InvalidOptionError,
    NotInNetworkError,
    PortNotPublishedError,
    ResourceClosedError,
    RetryTimeoutError,
)

log = logging.getLogger("dockertest")

T = TypeVar("T")


class Owner(Protocol):
    """What made a container, as far as the container has to know it."""

    max_wait: float
    keep: bool

    def _forget(self, handle: Resource) -> None:
        """Stop caring for a container that is gone."""

    def _expire(self, container: str, seconds: float | None) -> None:
        """Have a container removed when its time is up."""


@dataclass(eq=False, repr=False)
class Resource:
    """
    One container.

    A container that a pool started is removed, with its anonymous volumes, by `close()`, at the end of a `with`, when
    the pool is closed, and when the interpreter ends. A borrowed one (found by its name) is only let go of.

    Attributes:
        id: The container's full id.
        name: Its name.
        container: The docker SDK's `Container`, fresh after every method here that changes it.
    """

    id: str
    name: str
    container: _engine.SdkContainer
    _engine: Engine
    _owner: Owner
    _image: str
    _borrowed: bool = False
    _end_expected: bool = field(default=False, init=False)
    _expires: bool = field(default=False, init=False)
    _removed: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __repr__(self) -> str:
        return f"<Resource {self._image} {self.name!r} {self.id[:12]}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_port(self, port: str | int) -> int:
        """
        Give the port to connect to from here.

        Args:
            port: The container's port: `"5432/tcp"`, `"5432"` or `5432`.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[1]

    def get_bound_ip(self, port: str | int) -> str:
        """
        Give the address to connect to from here, without the port.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            ContainerExitedError: The container has ended.
        """
        return self._address(port)[0]

    def get_host_port(self, port: str | int) -> str:
        """
        Give address and port to connect to from here: `"127.0.0.1:49153"`, an IPv6 address in brackets.

        Raises:
            PortNotPublishedError: The container does not publish that port.
            ContainerExitedError: The container has ended.
        """
        host, number = self._address(port)
        return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"

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
        Run a command in the container, and give its exit code and output.

        Args:
            cmd: The program and its arguments; `["sh", "-c", "…"]` for what a shell is to take apart.
            text: Whether the result's output is text, read as UTF-8, or bytes.
            options: All by keyword, none needed:

                - `env`: more environment, a mapping or `"K=V"` strings.
                - `stdin`: what the command reads: bytes, text or a binary stream, which is read by a thread. A
                  stream whose `read` blocks keeps that thread until it returns.
                - `stdout`, `stderr`: binary writers that get the bytes as they come; the result's are empty then.
                - `tty`: give the command a terminal: one stream of output, and stdin ends with a typed Ctrl-D.
                - `user`: who runs it, `"name"`, `"name:group"` or numbers; the container's own user by default.
                - `working_dir`: the folder it starts in; the container's own by default.
                - `timeout`: seconds that it may take; for ever by default, however silent it is.
                - `check`: raise an error for an exit code other than 0.

        Raises:
            ExecError: The exit code is not 0, and *check* is set.
            ExecTimeoutError: The command did not end in time. It goes on inside the container: no engine can end it.
            InvalidOptionError: An option has a value that cannot work; the engine was not asked.
            ContainerExitedError: The container has ended.
        """
        self._check_open()
        try:
            return _exec.run(self._engine, self.id, self._label, cmd, text=text, **options)
        except EngineError as error:
            if error.status is not None:  # refused: most likely it does not run
                self._check_open()
                self._check_alive(self._engine.timeout)
            raise

    def retry(
        self,
        op: Callable[[], T],
        *,
        max_wait: float | None = None,
        wait: _retry.Wait | None = None,
        max_attempts: int | None = None,
        on: _retry.ExceptionTypes = Exception,
        giveup: Callable[[BaseException], bool] | None = None,
    ) -> T:
        """
        Call *op* until it returns, and return what it returned; an end of this container ends the wait.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default. At least one call is made.
            wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`.
            max_attempts: Calls of *op* after which to give up.
            on: The exceptions that mean not yet; so does the value `False` itself.
            giveup: Asked about each failure; a true answer raises it at once.

        Raises:
            RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
            ContainerExitedError: The container has ended.
        """
        return _retry.retry(
            op,
            max_wait=self._owner.max_wait if max_wait is None else max_wait,
            wait=wait,
            max_attempts=max_attempts,
            on=on,
            giveup=giveup,
            watch=(self,),
        )

    @property
    def status(self) -> str:
        """The engine's word for the container's state, asked afresh: `"running"`, `"exited"`, …; `"removed"` if it is gone."""
        try:
            return str(self._refresh()["State"]["Status"])
        except EngineError as error:
            if error.status == 404:
                return "removed"
            raise

    @property
    def health(self) -> str:
        """What the health check says, asked afresh: `"starting"`, `"healthy"`, `"unhealthy"`; `"none"` where there is none."""
        return _report.health(self._refresh())

    def wait_healthy(self, max_wait: float | None = None) -> None:
        """
        Wait until the container's health check says that it is healthy.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: The container has no health check.
            RetryTimeoutError: It is not healthy in time.
            ContainerExitedError: It has ended.
        """

        def is_healthy() -> bool:
            health = self.health
            if health == "none":
                raise InvalidOptionError(
                    f"{self._label} has no health check; give healthcheck=, or use retry"
                )
            return health == "healthy"

        self.retry(is_healthy, max_wait=max_wait)

    def logs(
        self, *, tail: int | None = None, since: float | None = None, stdout: bool = True, stderr: bool = True
    ) -> str:
        """
        Give what the container has written so far, standard output and error as they came.

        Args:
            tail: Only the last so many lines.
            since: Only what was written after that time, in seconds since 1970 (`time.time()`).
            stdout: Whether standard output is among it.
            stderr: Whether standard error is among it.
        """
        tty = self._config("Tty")
        return _logs.read(
            self._engine, self.id, tty=tty, tail=tail, since=since, stdout=stdout, stderr=stderr
        )

    def stream_logs(self) -> _logs.LogStream:
        """
        Give the lines of the log as they come, from the first on.

        The iterator ends with the container, or on its `close()` from any thread.
        """
        return _logs.LogStream(self._engine, self.id, tty=self._config("Tty"))

    def wait_for_log(
        self, pattern: str | re.Pattern[str], *, count: int = 1, max_wait: float | None = None
    ) -> re.Match[str]:
        """
        Wait until the log has a match of *pattern*, and give it.

        A line in a log is no proof that a service answers; where it can be asked, `retry` asks it.

        Args:
            pattern: A regular expression, searched for in each line.
            count: The match to wait for: the second one, say.
            max_wait: Seconds after which to give up, the pool's `max_wait` by default.

        Raises:
            RetryTimeoutError: There is no such match in time.
            ContainerExitedError: The container has ended without.
        """
        limit = self._owner.max_wait if max_wait is None else _specs.seconds("max_wait", max_wait)
        return _logs.wait_for(self.stream_logs, re.compile(pattern), count, limit, self)

    def read_file(self, path: str) -> bytes:
        """
        Give what is in a file of the container, which may have ended meanwhile.

        Args:
            path: The file's absolute path. A link is followed, within the container.

        Raises:
            EngineError: There is no such file (its `status` is 404), or it is a folder, device, pipe or socket.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing.
        """
        self._check_open()
        return _files.read(self._engine, self.container.attrs, path)

    def write_file(self, path: str, data: bytes | str, *, mode: int = 0o644) -> None:
        """
        Make a file in the container, root's own, in place of one that is there.

        A new file takes the place of the old one: what has the old one open still sees that.

        Args:
            path: The file's absolute path. A link is followed, within the container; missing folders are made, with mode
                0755.
            data: What shall be in it; text is written in UTF-8.
            mode: Its mode.

        Raises:
            EngineError: The engine refused, such as where all files are read-only; or *path* is a folder.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing; or *data* or *mode* cannot be.
        """
        self._check_open()
        _files.write(self._engine, self.container.attrs, path, data, mode)

    def copy_in(self, src: str | os.PathLike[str], path: str) -> None:
        """
        Copy a local file or folder into the container, as `docker cp` and `cp -a` do; all in it becomes root's own.

        - Where *path* is a folder, or ends in `/`, the copy goes into it, under the name of *src*.
        - Otherwise *path* is the name of the copy; a file that is there is replaced.
        - Where *src* is written with `/.` at its end, what is in it goes into *path*, a folder that is made where it is
          missing and keeps its mode where it is not.

        Modes, links and empty folders survive. A link in a folder is copied as a link and never followed; *src* itself
        is, if it is one. Devices, pipes and sockets are left out, with a warning.

        Args:
            src: A local file or folder.
            path: An absolute path in the container. Missing folders are made, with mode 0755; what is in folders that
                are there already stays.

        Raises:
            EngineError: The engine refused, such as to put a folder where a file is, or where all files are read-only.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing; or *src* is neither file nor folder.
            OSError: A local file cannot be read.
        """
        self._check_open()
        _files.copy_in(self._engine, self.container.attrs, src, path)

    def copy_out(self, path: str, dst: str | os.PathLike[str]) -> None:
        """
        Copy a file or folder out of the container, as `docker cp` does.

        - Where *dst* is a folder, or ends in `/`, the copy goes into it, under the name of *path*.
        - Otherwise *dst* is the name of the copy; a file that is there is replaced.
        - Where *path* has `/.` at its end, what is in it goes into *dst*, a folder that is made where it is missing.

        Nothing is written anywhere else, whatever the container says. Modes survive but for bits such as set-uid, owners
        and times do not. So do links that lead to somewhere in the copied folder, written without `..` behind a name.
        Other links, and whatever else would lead out, are refused: the rest is copied, and then an error names them.
        Devices and pipes are left out, with a warning. What was copied before an error stays.

        Args:
            path: An absolute path in the container, which may have ended meanwhile. It is followed if it is a link.
            dst: A local path. Missing folders are made; what is in folders that are there already stays.

        Raises:
            EngineError: There is no such file or folder (its `status` is 404), or something in it was refused.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing.
            OSError: A local file cannot be written.
        """
        self._check_open()
        _files.copy_out(self._engine, self.container.attrs, path, dst)

    def get_ip_in_network(self, network: NetworkSpec) -> str:
        """
        Give the container's address in a network, for other containers there to connect to.

        Args:
            network: A `Network`, its name or its id.

        Raises:
            NotInNetworkError: The container is not connected to it.
            ContainerExitedError: The container has ended, and has no address any more.
        """
        self._check_open()
        attrs = self._refresh()
        joined = attrs["NetworkSettings"].get("Networks") or {}
        wanted = network_id("network", network)
        names = {wanted, getattr(network, "name", wanted)}
        for name, end in joined.items():
            if names & {name, end.get("NetworkID")}:
                if found := end.get("IPAddress") or end.get("GlobalIPv6Address"):
                    return str(found)
                if _has_ended(attrs):
                    raise _report.exited(self._tell(attrs))
        raise NotInNetworkError(
            f"{self._label} has no address in network {min(names)!r}; it is in: {', '.join(joined) or 'none'}"
        )

    def connect_to_network(self, network: NetworkSpec, *, aliases: Sequence[str] = ()) -> None:
        """
        Connect the container to a network.

        Args:
            network: A `Network`, its name or its id.
            aliases: Names that other containers there find it by.
        """
        self._check_open()
        config = _create.endpoint_config(_specs.texts("aliases", aliases))
        self._engine.connect_network(network_id("network", network), self.id, config)
        self._refresh()

    def disconnect_from_network(self, network: NetworkSpec) -> None:
        """
        Disconnect the container from a network.

        Raises:
            NotInNetworkError: The container is not connected to it.
        """
        self._check_open()
        try:
            _network.disconnect(self._engine, network_id("network", network), self.id)
        except EngineError as error:
            if "not connected" in str(error):
                raise NotInNetworkError(
                    f"{self._label} is not in network {network_id('network', network)!r}"
                ) from error
            raise
        self._refresh()

    def stop(self, timeout: float = 10) -> None:
        """
        Stop the container; one that has ended already is no error.

        Args:
            timeout: Seconds that its command has to end before it is killed.
        """
        self._control("stop", _specs.seconds("timeout", timeout), ended=True)

    def start(self) -> None:
        """Start the container again; its published ports may be others than before."""
        self._control("start", ended=False)

    def restart(self, timeout: float = 10) -> None:
        """
        Stop the container and start it again; its published ports may be others than before.

        Args:
            timeout: Seconds that its command has to end before it is killed.
        """
        self._control("restart", _specs.seconds("timeout", timeout), ended=False)

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until the container ends, and give its exit code.

        Args:
            timeout: Seconds after which to give up; never by default.

        Raises:
            RetryTimeoutError: It has not ended in time.
        """
        self._check_open()
        self._end_expected = True
        limit = float("inf") if timeout is None else _specs.seconds("timeout", timeout)
        code = self._engine.wait(self.id, limit)
        if code is None:
            raise RetryTimeoutError(
                f"{self._label} has not ended within {limit:g} s", attempts=1, elapsed=limit
            )
        with suppress(EngineError):  # one that removes itself is gone now
            self._refresh()
        return code

    def refresh(self) -> None:
        """Ask the engine for everything in `container` again."""
        self._check_open()
        self._refresh()

    def expire(self, seconds: float | None) -> None:
        """
        Have the container removed when the time is up; calling again sets a new time.

        It is removed even when this process hangs, or is gone.

        Args:
            seconds: From now; `None` cancels.

        Raises:
            InvalidOptionError: There is no reaper to do it.
        """
        self._check_open()
        limit = None if seconds is None else _specs.seconds("seconds", seconds)
        self._owner._expire(self.id, limit)
        self._expires = limit is not None

    def close(self) -> None:
        """
        Let go of the container: one that a pool started is removed, a borrowed one left alone. Closing twice is nothing.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        self._let_go(remove=not self._borrowed and not self._kept())

    def _let_go(self, *, remove: bool) -> None:
        with self._lock:
            if remove and not self._removed:
                self._engine.remove(self.id)
                self._removed = True
            self._closed = True
            if self._expires and self._removed:
                self._owner._expire(self.id, None)
        self._owner._forget(self)

    def _kept(self) -> bool:
        """Whether the pool keeps what it made; then say, once, how to reach and how to remove it."""
        kept = self._owner.keep and not self._borrowed
        if kept and not self._closed:
            attrs = self.container.attrs
            ports = _report.ports(attrs) or ("nothing is published",)
            print(  # asked for with keep=True or DOCKERTEST_KEEP=1, by somebody who looks at the screen
                f"kept {self._label} of {self._image}: {', '.join(ports)}; look: docker logs {self.id[:12]}; "
                f"remove: docker rm -f -v {self.id[:12]}",
                file=sys.stderr,
            )
        return kept

    def _control(self, verb: str, timeout: float | None = None, *, ended: bool) -> None:
        """Have the engine stop, start or restart the container."""
        self._check_open()
        self._end_expected = ended
        self._engine.send(
            "post",
            f"/containers/{self.id}/{verb}",
            what=f"{verb} {self._label}",
            params={} if timeout is None else {"t": math.ceil(timeout)},
            patience=timeout or 0,
        )
        self._await_ports() if not ended else self._refresh()

    def _await_ports(self) -> None:
        """Wait until the ports are bound: on some engines that comes a moment after the start."""
        deadline = time.monotonic() + 2
        while True:
            attrs = self._refresh()
            bound = attrs["NetworkSettings"].get("Ports") or {}
            wanted = _create.bound_ports(attrs["HostConfig"])
            if all(bound.get(port) for port in wanted) or attrs["State"].get("Status") != "running":
                return
            if time.monotonic() > deadline:
                return  # such as in an internal network, where nothing is published; `get_port` will say so
            time.sleep(0.01)

    def _config(self, key: str) -> bool:
        self._check_open()
        return bool((self.container.attrs.get("Config") or {}).get(key))

    @property
    def _label(self) -> str:
        return _report.label(self.name, self.id)

    def _refresh(self, within: float | None = None) -> dict[str, Any]:
        """Ask the engine what is the case now."""
        attrs = self._engine.inspect(self.id, within=within)
        self.container = self._engine.container(attrs)
        self.name = str(attrs["Name"]).lstrip("/")
        return attrs

    def _address(self, port: str | int) -> tuple[str, int]:
        self._check_open()
        wanted = _specs.container_port("port", port)
        attrs = self._refresh()
        ports = attrs["NetworkSettings"].get("Ports") or {}
        bound = ports.get(wanted)
        if not bound:
            if _has_ended(attrs):
                raise _report.exited(self._tell(attrs))
            published = tuple(each for each in ports if ports[each])
            raise PortNotPublishedError(
                f"{self._label} does not publish {wanted}; published: {', '.join(published) or 'nothing'}",
                port=wanted,
                published=published,
            )
        # The order of several bindings is the engine's own; an IPv4 one is reached from more places.
        chosen = min(bound, key=lambda each: ":" in each["HostIp"])
        return self._reachable(chosen["HostIp"]), int(chosen["HostPort"])

    def _reachable(self, bound_ip: str) -> str:
        """Give the address at which a port bound to *bound_ip* on the engine's host is reached from here."""
        endpoint = self._engine.endpoint
        if not endpoint.is_local:
            return endpoint.host
        return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound_ip, bound_ip)  # noqa: S104 - a comparison

    def _tell(self, attrs: dict[str, Any], within: float | None = None) -> _report.Report:
        tty = bool((attrs.get("Config") or {}).get("Tty"))
        logs = _logs.last_lines(self._engine, self.id, tty=tty, within=within)
        return _report.report(attrs, self._image, logs)

    def _check_open(self) -> None:
        if self._closed:
            raise ResourceClosedError(f"{self._label} is closed")

    def _check_alive(self, within: float) -> None:
        """Raise `ContainerExitedError` if the container has ended, in whatever way."""
        try:
            attrs = self._refresh(within)
        except EngineError as error:
            if error.status != 404:
                return  # the engine's trouble says nothing about the container
            raise _report.exited(self._gone()) from error
        except DockertestError:
            return
        if _has_ended(attrs):
            raise _report.exited(self._tell(attrs, within))

    def _gone(self) -> _report.Report:
        return _report.Report(name=self.name, id=self.id, image=self._image, status="removed")

    def _evidence(self) -> str:
        try:
            return f"  {self._tell(self._refresh(within=5), within=5)}"
        except EngineError as error:
            return f"  {self._gone() if error.status == 404 else error}"
        except DockertestError as error:
            return f"  {error}"


def _has_ended(attrs: dict[str, Any]) -> bool:
    return attrs["State"].get("Status") in ("exited", "dead")
