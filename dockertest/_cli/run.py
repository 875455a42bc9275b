"""`dockertest run`: a server to try something with, gone when its time is up or nobody wants it any more."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from dockertest import _report
from dockertest import services as _services
from dockertest._cli.terminal import Screen
from dockertest._options import RunOptions
from dockertest._pool import Pool
from dockertest._resource import Resource
from dockertest.errors import (
    ContainerExitedError,
    DockertestError,
    PortNotPublishedError,
)

# Seconds by which the reaper is later than this program: it is for the case that this program is gone, or hangs.
LATER = 1.0
# And seconds by which the time written on the container is later, after which any session may remove it: it counts from
# before the start, and is for the case that the reaper is gone, too.
LATEST = 15.0
LOOK = 0.5  # seconds between two looks at whether anybody still reads what is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """
    What to do with a container.

    Attributes:
        options: What to start.
        max_wait: Seconds that it may take to be ready.
        seconds: Seconds that it may live; `None` for as long as it is wanted.
        detach: Whether it stays when this program ends.
        follow: Whether its log is shown.
    """

    options: RunOptions
    max_wait: float
    seconds: float | None = None
    detach: bool = False
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """
    How it is known that a service is ready.

    Attributes:
        how: `"answers"`, `"healthy"`, `"bound"` (nothing is known but that its ports are), or `"started"`, without ports.
        url: How to connect, where that is known; with the password in it.
        elapsed: Seconds from the start.
    """

    how: str
    url: str
    elapsed: float

    def __str__(self) -> str:
        return {
            "answers": f"answers after {self.elapsed:.1f} s",
            "healthy": f"is healthy after {self.elapsed:.1f} s",
            "bound": "is started, its ports are bound; how it tells that it is ready is not known here",
        }.get(self.how, "is started, and publishes no port")


def run(wish: Wish, screen: Screen) -> int:
    """
    Start a container, tell where it listens, and stay with it until its end or the user's.

    Returns:
        The exit code for this program.

    Raises:
        DockertestError: It cannot be started, is not ready in time, or has ended with a failure.
    """
    with Pool(max_wait=wish.max_wait) as pool:
        pool._ttl = pool._ttl if wish.seconds is None else wish.seconds + LATEST
        resource = pool.run_with_options(wish.options)
        deadline = None if wish.seconds is None else time.monotonic() + wish.seconds
        try:
            if wish.seconds is not None:
                resource.expire(wish.seconds + LATER)
            readiness = _wait(resource, min(wish.max_wait, wish.seconds or wish.max_wait), screen)
            _tell(resource, readiness, deadline, screen)
            if wish.detach:
                _leave(resource, deadline, screen)
                return 0
            return _stay(resource, deadline, wish, screen)
        finally:
            _remove(resource, screen)


def _wait(resource: Resource, max_wait: float, screen: Screen) -> Readiness:
    """Wait until the service answers, as far as anybody knows how to ask it."""
    began = time.monotonic()
    attrs = resource.container.attrs
    settings = _services.settings(attrs)
    service = _services.find(resource._image, settings)
    how, url = "bound" if _report.ports(attrs) else "started", ""
    if service and _is_published(resource, service.port):
        port = service.port
        screen.note(f"started {resource._label}; waiting until it answers")

        def ping() -> None:
            if not service.is_serving((resource.get_bound_ip(port), resource.get_port(port)), settings):
                at = f"{resource.get_host_port(port)}, the container's {port}"
                raise ConnectionError(f"nothing answers as {service.images[0]} does at {at}")

        resource.retry(ping, max_wait=max_wait)
        how, url = "answers", service.url(settings, resource.get_host_port(port))
    elif _report.health(attrs) != "none":
        resource.wait_healthy(max_wait)
        how = "healthy"
    return Readiness(how=how, url=url, elapsed=time.monotonic() - began)


def _is_published(resource: Resource, port: str) -> bool:
    try:
        resource.get_port(port)
    except PortNotPublishedError:
        return False
    return True


def _addresses(resource: Resource) -> dict[str, str]:
    """Give where each published port is reached from here."""
    bound: dict[str, Any] = resource.container.attrs["NetworkSettings"].get("Ports") or {}
    ports = sorted((port for port in bound if bound[port]), key=lambda port: int(port.partition("/")[0]))
    return {port: resource.get_host_port(port) for port in ports}


def _tell(resource: Resource, readiness: Readiness, deadline: float | None, screen: Screen) -> None:
    """Say that it is ready, where it listens and how to connect."""
    addresses = _addresses(resource)
    if screen.as_json:
        screen.data(
            {
                "id": resource.id,
                "name": resource.name,
                "image": resource._image,
                "ready": readiness.how,
                "seconds": round(readiness.elapsed, 3),
                "ports": addresses,
                "url": readiness.url or None,
                "expires": None if deadline is None else round(time.time() + _left(deadline)),
            }
        )
        return
    screen.say(f"{resource._label} of {resource._image} {readiness}")
    for port, address in addresses.items():
        screen.say(f"  {port:<10} {address}")
    if readiness.url:
        screen.say(f"  {'connect':<10} {screen.styled(readiness.url, 'bold')}")


def _leave(resource: Resource, deadline: float | None, screen: Screen) -> None:
    """Have it outlive this program, until its time is up."""
    by_hand = f"docker rm -f -v {resource.id[:12]}"
    if deadline is None:
        screen.note(f"it stays until it is removed: {by_hand}")
    else:
        resource.expire(_left(deadline))
        screen.note(f"it is removed in {span(_left(deadline))}, or before with: {by_hand}")
    resource._let_go(remove=False)


def _remove(resource: Resource, screen: Screen) -> None:
    """Remove it, unless that is done, or it is left behind."""
    if not resource._closed:
        resource.close()
        if resource._removed:
            screen.note(f"removed {resource._label}")


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _stay(resource: Resource, deadline: float | None, wish: Wish, screen: Screen) -> int:
    """Stay until the container ends, its time is up, Ctrl-C, or nobody reads its log any more; then remove it."""
    if os.isatty(0):
        time_is_up = "" if deadline is None else f"; else it is removed in {span(_left(deadline))}"
        screen.note(f"Ctrl-C removes it{time_is_up}")
    watcher = Watcher(resource, screen, follow=wish.follow)
    watcher.start()
    try:
        while True:
            has_ended = watcher.ended.wait(_pause(deadline))
            if deadline is not None and not _left(deadline):
                screen.note("its time is up")
                return 0
            if has_ended:
                return _ended(resource, watcher, wish, screen)
            if screen.reader_is_gone():
                raise BrokenPipeError
    finally:
        _remove(resource, screen)
        watcher.join(LOOK)


def _pause(deadline: float | None) -> float:
    return LOOK if deadline is None else min(LOOK, _left(deadline))


def _ended(resource: Resource, watcher: Watcher, wish: Wish, screen: Screen) -> int:
    """Say what became of a container that has ended by itself, or was removed by somebody else."""
    if isinstance(watcher.failure, OSError):  # nobody reads the log any more, or it cannot be written
        raise watcher.failure
    (report,) = resource._reports()
    if watcher.failure and report.status not in ("exited", "dead", "removed"):
        raise watcher.failure
    if report.exit_code == 0 or (wish.follow and report.exit_code is not None):  # its log has been shown
        screen.note(f"{resource._label} {report.verdict}")
        return int(report.exit_code != 0)
    raise ContainerExitedError.of(report)


class Watcher(threading.Thread):
    """
    Waits for the end of a container, and meanwhile shows its log if asked.

    A thread, so that the one that gets Ctrl-C is never held up, by a silent engine or by a reader that does not read.
    """

    def __init__(self, resource: Resource, screen: Screen, *, follow: bool) -> None:
        super().__init__(name="dockertest", daemon=True)
        self.ended = threading.Event()
        self.failure: DockertestError | OSError | None = None
        self._resource = resource
        self._screen = screen
        self._follow = follow

    def run(self) -> None:
        """Watch, and keep what goes wrong."""
        try:
            if self._follow:
                with self._resource.stream_logs() as lines:
                    for line in lines:
                        self._screen.log(line)
            else:
                self._resource.wait()
        except (DockertestError, OSError) as error:
            self.failure = error
        self.ended.set()


def span(seconds: float) -> str:
    """Give a length of time in words, in its two largest units: "1 h 59 min"."""
    left = max(0, round(seconds))
    parts = [(left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count] or ["0 s"]
    return " ".join(shown[:2])
