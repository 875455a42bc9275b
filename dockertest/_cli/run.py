"""`dockertest run`: start a server, and remove it at the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from dockertest import (
    ContainerExitedError,
    DockertestError,
    InvalidOptionError,
    Pool,
    PortNotPublishedError,
    Resource,
    RetryTimeoutError,
    RunOptions,
    _clock,
    services,
)
from dockertest._cli.terminal import Console, Styled, format_duration
from dockertest._report import label

# How much later than this program the reaper removes the container. It is needed only if this program is gone or hangs.
REAPER_DELAY_SECONDS = 1.0
# How much later than its time any session may remove the container, if the reaper is gone too. This counts from before
# the start, which may include a pull.
EXPIRY_DELAY_SECONDS = 15.0
READER_CHECK_SECONDS = 0.5  # between two checks whether anything still reads our output


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """
    What `dockertest run` was asked to do.

    Attributes:
        options: What to start.
        max_wait: Seconds that the service may take to become ready.
        seconds: Seconds after which the container is removed; `None` for no limit.
        detach: Whether the container is left running.
        follow: Whether to print the container's log.
    """

    options: RunOptions
    max_wait: float
    seconds: float | None = None
    detach: bool = False
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """
    What is known of a service when the wait for it is over.

    Attributes:
        how: `"answers"`; `"healthy"`; `"bound"`, if all that is known is that its ports are published; or `"started"`, if
            it has no ports.
        url: The URL to connect with, password included; empty if unknown.
        elapsed: Seconds since the start.
    """

    how: str
    url: str
    elapsed: float

    def __str__(self) -> str:
        if self.how == "answers":
            return f"answers after {self.elapsed:.1f} s"
        if self.how == "healthy":
            return f"is healthy after {self.elapsed:.1f} s"
        if self.how == "bound":
            return "has started; dockertest does not know how to check whether this service is ready"
        return "has started; it publishes no ports"


def run(request: RunRequest, console: Console, endpoints: Sequence[str] = ()) -> int:
    """
    Start a container, print its addresses, and wait until it exits.

    The wait also ends when the time is up, on Ctrl-C, and when the output is closed. With `RunRequest.detach` there is no
    wait.

    Args:
        request: What to do.
        console: Where to print.
        endpoints: The first of these engines that answers is used; the usual one if empty.

    Returns:
        The exit code of this program.

    Raises:
        DockertestError: The container cannot be started, is not ready in time, or has failed.
    """
    ttl = None if request.seconds is None else request.seconds + EXPIRY_DELAY_SECONDS
    with _first_pool(endpoints, console, max_wait=request.max_wait, ttl=ttl) as pool:
        resource = pool.run_with_options(request.options)
        deadline = None if request.seconds is None else _clock.monotonic() + request.seconds
        with ExitStack() as removal:
            removal.callback(_remove, pool, resource, console)
            if request.seconds is not None:
                resource.expire(request.seconds + REAPER_DELAY_SECONDS)
            max_wait = min(request.max_wait, request.seconds or request.max_wait)
            try:
                readiness = _wait_until_ready(resource, max_wait, console)
            except RetryTimeoutError as error:
                error.hint = "if it only needs more time, set --wait"
                raise
            _print_addresses(resource, readiness, deadline, console)
            if request.detach:
                removal.pop_all()
                _detach(pool, resource, deadline, console)
                return 0
            return _stay(resource, deadline, request, console, removal)


def _first_pool(endpoints: Sequence[str], console: Console, *, max_wait: float, ttl: float | None) -> Pool:
    for endpoint in endpoints[:-1]:
        try:
            return Pool(endpoint, max_wait=max_wait, ttl=ttl)
        except DockertestError as error:
            console.note(f"dockertest: {error}")
    return Pool(endpoints[-1] if endpoints else None, max_wait=max_wait, ttl=ttl)


def _wait_until_ready(resource: Resource, max_wait: float, console: Console) -> Readiness:
    """Wait until the service answers, if it is a known one, or is healthy."""
    began = _clock.monotonic()
    service = services.find(resource.image, services.settings(resource.container.attrs))
    how, url = "bound" if _published_ports(resource) else "started", ""
    if service and _is_published(resource, service.port):
        console.note(f"started {_label(resource)}; waiting until it answers")
        resource.wait_ready(max_wait=max_wait)
        how = "answers"
        try:
            url = resource.url()
        except InvalidOptionError as error:  # The image makes up its password, for example.
            console.note(f"dockertest: no URL: {error}")
    elif resource.health != "none":
        resource.wait_healthy(max_wait)
        how = "healthy"
    return Readiness(how=how, url=url, elapsed=_clock.monotonic() - began)


def _is_published(resource: Resource, port: str | int) -> bool:
    try:
        resource.get_port(port)
    except PortNotPublishedError:
        return False
    return True


def _published_ports(resource: Resource) -> list[str]:
    """Return the container ports that are bound, in numerical order."""
    bound = [port for port, bindings in resource.container.ports.items() if bindings]
    return sorted(bound, key=lambda port: int(port.partition("/")[0]))


def _print_addresses(
    resource: Resource, readiness: Readiness, deadline: float | None, console: Console
) -> None:
    """Print that the service is ready, where it listens and how to connect."""
    addresses = {port: resource.get_host_port(port) for port in _published_ports(resource)}
    if console.as_json:
        expires = None if deadline is None else round(_clock.time() + _seconds_left(deadline))
        console.print_json(
            {
                "id": resource.id,
                "name": resource.name,
                "image": resource.image,
                "ready": readiness.how,
                "seconds": round(readiness.elapsed, 3),
                "ports": addresses,
                "url": readiness.url or None,
                "expires": expires,
            }
        )
        return
    console.print(f"{_label(resource)} of {resource.image} {readiness}")
    for port, address in addresses.items():
        console.print(f"  {port:<10} {address}")
    if readiness.url:
        console.print(f"  {'connect':<10} ", Styled(readiness.url, "bold"))


def _detach(pool: Pool, resource: Resource, deadline: float | None, console: Console) -> None:
    """
    Leave the container running.

    The reaper removes it at its deadline, if it has one.
    """
    if deadline is None:
        resource.keep()
        return
    resource.expire(_seconds_left(deadline))
    console.note(f"it will be removed in {format_duration(_seconds_left(deadline))}")
    pool.keep = True  # after `expire`, which does nothing for a kept container


def _remove(pool: Pool, resource: Resource, console: Console) -> None:
    resource.close()
    if not pool.keep:
        console.note(f"removed {_label(resource)}")


def _stay(
    resource: Resource, deadline: float | None, request: RunRequest, console: Console, removal: ExitStack
) -> int:
    """
    Wait until the container exits, and remove it.

    The wait also ends when the time is up, on Ctrl-C, and when the output is closed. The container is removed before this
    waits for the thread that reads its log.
    """
    if os.isatty(0):
        left = "" if deadline is None else format_duration(_seconds_left(deadline))
        console.note("press Ctrl-C to remove it" + (f" before its time is up, in {left}" if left else ""))
    watcher = Watcher(resource, console, follow=request.follow)
    watcher.start()
    try:
        while True:
            has_ended = watcher.ended.wait(_pause(deadline))
            if deadline is not None and not _seconds_left(deadline):
                console.note("its time is up")
                return 0
            if has_ended:
                return _exit_code(resource, watcher, request, console)
            if console.is_reader_gone():
                raise BrokenPipeError
    finally:
        removal.close()
        watcher.join(READER_CHECK_SECONDS)


def _seconds_left(deadline: float) -> float:
    return max(0.0, deadline - _clock.monotonic())


def _pause(deadline: float | None) -> float:
    return READER_CHECK_SECONDS if deadline is None else min(READER_CHECK_SECONDS, _seconds_left(deadline))


def _exit_code(resource: Resource, watcher: Watcher, request: RunRequest, console: Console) -> int:
    """Return this program's exit code for a container that exited or was removed."""
    if isinstance(watcher.failure, OSError):  # The log cannot be printed.
        raise watcher.failure
    report = resource.report()
    if watcher.failure and report.status not in ("exited", "dead", "removed"):
        raise watcher.failure
    if report.exit_code == 0 or (request.follow and report.exit_code is not None):
        console.note(
            f"{_label(resource)} {report.verdict}"
        )  # Its log has been printed if that was asked for.
        return int(report.exit_code != 0)
    raise ContainerExitedError.of(report)


def _label(resource: Resource) -> str:
    return label(resource.name, resource.id)


class Watcher(threading.Thread):
    """
    Waits for the container's exit, and prints its log if that was asked for.

    It is a thread, so that the main thread can react to Ctrl-C while the engine or the reader of our output hangs.
    """

    def __init__(self, resource: Resource, console: Console, *, follow: bool) -> None:
        super().__init__(name="dockertest", daemon=True)
        self.ended = threading.Event()
        self.failure: DockertestError | OSError | None = None
        self._resource = resource
        self._console = console
        self._follow = follow

    def run(self) -> None:
        """Wait, and store a failure."""
        try:
            if self._follow:
                with self._resource.stream_logs() as lines:
                    for line in lines:
                        self._console.log(line)
            else:
                self._resource.wait()
        except (DockertestError, OSError) as error:
            self.failure = error
        self.ended.set()
