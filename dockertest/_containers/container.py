"""The handle of a container, shared by session, liveness monitor and `Resource`."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from dockertest import _clock
from dockertest._cleanup.reaper import IDLE
from dockertest._cleanup.registry import registry
from dockertest._containers import files, logs
from dockertest._engine import networks, sdk
from dockertest._engine.inspection import Inspection
from dockertest._engine.reachability import join_host_port
from dockertest._image_name import ImageName
from dockertest._interruption import interrupts_package
from dockertest._options import LogTarget, RunOptions
from dockertest._report import Report, indented, label
from dockertest._runtime import Runtime
from dockertest._validation import RESERVED_LABELS
from dockertest.errors import (
    ContainerExitedError,
    ContainerStartError,
    DockertestError,
    EngineError,
    ResourceClosedError,
)

if TYPE_CHECKING:
    from dockertest._containers.forward import LogForwarder

BINDING_SECONDS = 2.0  # how long an engine may take to bind the ports of a container that it has started
POLL_SECONDS = 0.01
# How long a stopped container may take to be started again by `docker restart`. Docker does not show beforehand that it will be.
RESTART_SECONDS = 5.0
COMMIT_SECONDS = 1800.0  # how long an engine may be silent while it stores an image
_OUR_LABEL = re.compile(rf"{re.escape(RESERVED_LABELS)}[A-Za-z0-9._-]+", re.ASCII)
LONGEST_STOP_SECONDS = 60.0  # how far back a stop may have begun that ended a container
LATE_EVENT_SECONDS = 0.3  # how long after the end of a container Docker may record the signal that ended it
_PORT_IN_USE = re.compile(r":(\d+): bind: address already in use")
# A hint, and the words of the engines that it is for.
_START_HINTS = {
    "free the host port, or leave the choice of a port to the engine": (
        "port is already allocated",
        "address already in use",
    ),
    "check cmd= and entrypoint=: the first word must be a program in the image": (
        'exec: "',
        "executable file",
    ),
}


class Ownership(Enum):
    """
    Who removes a container.

    The one transition is from OWNED to REUSED or SHARED, by `Container.hand_over`.
    """

    OWNED = "owned"  # this session
    REUSED = "reused"  # `Pool.prune(reused=True)`; it outlives the session
    SHARED = "shared"  # the last process of the test run
    BORROWED = "borrowed"  # its own maker; it was only looked up


class State(Enum):
    """Whether a handle is still in use."""

    OPEN = "open"
    CLOSED = "closed"
    REMOVED = "removed"  # closed, and the container is gone from the engine


class Container:
    """
    A handle of one container.

    Attributes:
        id: The container's full id.
        image: The image's name, for messages.
        ownership: Who removes the container.
        state: Whether this handle is in use.
        options: What it was started with; `None` for a borrowed one.
        exit_acknowledged: Whether the exit was asked for, waited for or reported; reset by a start.
        is_spare: Whether the container was not taken from its `Standby` yet.
        sdk: The docker SDK's `Container`; its `attrs` are updated by every inspection.
    """

    def __init__(
        self,
        runtime: Runtime,
        inspection: Inspection,
        *,
        image: str,
        options: RunOptions | None = None,
        ownership: Ownership = Ownership.OWNED,
        is_spare: bool = False,
    ) -> None:
        self.id = inspection.id
        self.is_spare = is_spare
        self.image = image
        self.options = options
        self.ownership = ownership
        self.state = State.OPEN
        self.exit_acknowledged = False
        self.inspection = inspection
        self.sdk: sdk.SdkContainer = runtime.engine.container(inspection.attrs)
        self._runtime = runtime
        self._is_kept = False
        self._is_paused = False
        self._forwarder: LogForwarder | None = None
        self._was_ready = False
        self._expires_at: float | None = None  # on the monotonic clock
        self._restarts = 0  # those of this process that are in progress
        self._after_removal: list[Callable[[], object]] = []
        self._after_failure: list[Callable[[], object]] = []
        self._on_close: list[Callable[[], object]] = []
        self._pid = os.getpid()
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """The container's name, as the engine reported it last."""
        return self.inspection.name

    @property
    def label(self) -> str:
        """The container's name and short id, for messages."""
        return label(self.name, self.id)

    @property
    def is_open(self) -> bool:
        """Whether this handle is in use."""
        return self.state is State.OPEN

    @property
    def is_removed(self) -> bool:
        """Whether this handle has removed the container."""
        return self.state is State.REMOVED

    @property
    def was_ready(self) -> bool:
        """Whether a wait for this container has succeeded."""
        return self._was_ready

    @property
    def has_deadline(self) -> bool:
        """Whether a time has been set with `expire`."""
        return self._expires_at is not None

    @property
    def has_expired(self) -> bool:
        """Whether the time set with `expire` is up."""
        return self._expires_at is not None and _clock.monotonic() >= self._expires_at

    def check_open(self) -> None:
        """
        Raise an error if this handle is closed.

        Raises:
            ResourceClosedError: It is.
        """
        if not self.is_open:
            raise ResourceClosedError(
                f"{self.label} is closed", hint="use it before its pool or with block ends"
            )

    def inspect(self, timeout: float | None = None) -> Inspection:
        """
        Ask the engine for the container's state.

        Args:
            timeout: Seconds that the engine may take, if less than the pool's `timeout`.

        Raises:
            EngineError: The engine did not answer, or the container is gone (`status` is 404).
        """
        engine = self._runtime.engine
        self.inspection = inspection = engine.inspect(self.id, timeout=timeout)
        self.sdk.attrs = dict(inspection.attrs)
        if self._pid != os.getpid():
            self.sdk.client = engine.client  # that of this forked child
        return inspection

    def inspect_alive(self, timeout: float | None = None) -> Inspection:
        """
        Ask the engine for the container's state, and raise an error if it has ended.

        Raises:
            ContainerExitedError: It has ended, or is gone.
            EngineError: The engine did not answer.
        """
        inspection = self._inspect_or_removed(timeout)
        if inspection.has_ended and self._restarts == 0:
            raise ContainerExitedError.of(self.describe(inspection, timeout))
        return inspection

    def check_alive(self, timeout: float) -> None:
        """
        Raise an error if the container has ended, but not if the engine fails.

        Raises:
            ContainerExitedError: It has ended, or is gone.
        """
        try:
            inspection = self._inspect_or_removed(timeout)
            if inspection.has_ended and not self._comes_back(inspection, timeout):
                raise ContainerExitedError.of(self.describe(inspection, timeout))
        except ContainerExitedError:
            raise
        except DockertestError:
            pass

    def report(self) -> Report:
        """
        Return the container's state and last log lines.

        Each of the two requests to the engine times out after 5 s.
        """
        try:
            return self.describe(self.inspect(timeout=5), timeout=5)
        except DockertestError as error:
            if getattr(error, "status", None) == 404:
                return self._report_removed()
            return replace(self._report_removed(), status="unknown", error=str(error))

    def describe(self, inspection: Inspection, timeout: float | None = None) -> Report:
        """Return a report of *inspection* and the container's last log lines."""
        return Report(
            name=inspection.name,
            id=inspection.id,
            image=self.image,
            status="expired" if inspection.has_ended and self.has_expired else inspection.status,
            exit_code=inspection.exit_code,
            oom_killed=inspection.oom_killed,
            error=inspection.error,
            health=inspection.health_output,
            ports=published(inspection),
            logs=logs.last_lines(self._runtime.engine, self.id, tty=inspection.tty, timeout=timeout),
            cli=self._cli,
        )

    @contextmanager
    def restarting(self) -> Iterator[None]:
        """While the body restarts the container, an ended one is not taken for dead."""
        self._restarts += 1
        try:
            yield
        finally:
            self._restarts -= 1

    def start(self, ownership: Ownership) -> None:
        """
        Start a container that was just created, and wait until its ports are bound.

        Args:
            ownership: Whose it is as soon as it runs.

        Raises:
            ContainerStartError: The engine could not start it.
        """
        what = f"start {self.label} of {self.image}"
        try:
            self._send_start(what)
        except ContainerStartError as error:
            report = self.report()
            if not report.error:  # Some engines keep no record of it.
                report = replace(report, error=str(error.args[0]).removeprefix(f"cannot {what}: "))
            words = str(error.args[0])
            hints = (hint for hint, parts in _START_HINTS.items() if any(part in words for part in parts))
            raise ContainerStartError(
                f"{words}{indented(report.logs)}", report=report, hint=error.hint or next(hints, "")
            ) from error.__cause__
        if ownership is not Ownership.OWNED:
            self.hand_over(ownership)
        self.await_ports()

    def _send_start(self, what: str) -> None:
        """
        Start the container, at a port of a range that no program of the host uses.

        Older versions of Docker know only which ports containers use. When they are asked again, they try the next port of the
        range.
        """
        tried: set[int] = set()
        while True:
            try:
                self._runtime.engine.send(
                    "post", f"/containers/{self.id}/start", what=what, error=ContainerStartError
                )
            except ContainerStartError as error:
                port = int(match[1]) if (match := _PORT_IN_USE.search(str(error.args[0]))) else 0
                if not port or port in tried or not self._is_in_range(port):
                    raise
                tried.add(port)
            else:
                return

    def _is_in_range(self, port: int) -> bool:
        """Return whether the engine has chosen a port of the host from a range."""
        try:
            host = self.inspect().attrs.get("HostConfig") or {}
        except DockertestError:  # The container removes itself.
            return False
        bindings = [one for bound in (host.get("PortBindings") or {}).values() for one in bound or ()]
        ranges = [str(binding.get("HostPort")).partition("-") for binding in bindings]
        return any(dash and int(first) <= port <= int(last) for first, dash, last in ranges)

    def pause(self) -> None:
        """
        Freeze all processes of the container.

        Raises:
            EngineError: The engine refused, for example because the container is not running.
        """
        self._send("pause")
        self._is_paused = True

    def unpause(self, *, only_ours: bool = False) -> None:
        """
        Let a paused container continue.

        Args:
            only_ours: Do nothing unless it was paused by this handle, and it still is.

        Raises:
            EngineError: The engine refused, for example because the container is not paused.
        """
        if self._is_paused or not only_ours:
            self._is_paused = False
            try:
                self._send("unpause")
            except EngineError as error:
                # Meanwhile it may have ended, or someone else may have unpaused it.
                if error.status is None or not only_ours:
                    raise

    def commit(self, image: ImageName) -> str:
        """
        Store the container's file system and configuration as an image; return its id.

        Raises:
            EngineError: The engine refused.
        """
        labels = [name for name in self.inspect().labels if _OUR_LABEL.fullmatch(name)]
        what = f"commit {self.label} to {str(image)!r}"
        params = {
            "container": self.id,
            "repo": image.repository,
            "tag": image.tag,
            # An image inherits the labels of the container, and no request can remove one. Ours count as absent if empty.
            "changes": [f"LABEL {name}=" for name in labels],
        }
        engine = self._runtime.engine
        response = engine.send(
            "post", "/commit", what=what, params=params, body={}, extra_timeout=COMMIT_SECONDS
        )
        with engine.translate_errors(what):
            image_id = f"sha256:{str(response.json()['Id']).removeprefix('sha256:')}"
        self._runtime.images.own_names.add(image)
        return image_id

    def forward_log(self, target: LogTarget, *, since: float = 0.0) -> None:
        """
        Pass the log on until this handle is closed.

        Args:
            since: The time of the first line to pass on; the first line of all by default.
        """
        from dockertest._containers.forward import LogForwarder

        engine = self._runtime.engine
        self._forwarder = LogForwarder(engine, self.id, target, tty=self.inspection.tty, since=since)

    def continue_log(self) -> None:
        """Pass on at once what the container writes after it was started again."""
        if self._forwarder:
            self._forwarder.wake()

    def _finish_log(self, *, is_removal: bool) -> None:
        """
        Pass the rest of the log on.

        If the container is to be removed, it is killed first, so that the rest is complete.
        """
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is None:
            return
        if is_removal:
            self.acknowledge_exit()
            with suppress(DockertestError):  # It has ended.
                self._send("kill")
        forwarder.finish(is_interruption=interrupts_package())

    def acknowledge_exit(self, *, is_acknowledged: bool = True) -> None:
        """Keep `Pool.retry` from reporting the exit; a start resets that."""
        self.exit_acknowledged = is_acknowledged

    def await_ports(self, inspection: Inspection | None = None) -> Inspection:
        """
        Wait up to 2 s until the published ports are bound.

        Some engines bind them a moment after the start.

        Args:
            inspection: What is known already, to save a request.
        """
        deadline = _clock.monotonic() + BINDING_SECONDS
        inspection = inspection or self.inspect()
        # Nothing is published in an internal network; `get_port` raises the error.
        if are_bound(inspection) or networks.are_internal(self._runtime.engine, inspection.networks):
            return inspection
        while not are_bound(inspection) and _clock.monotonic() < deadline:
            _clock.sleep(POLL_SECONDS)
            inspection = self.inspect()
        return inspection

    @contextmanager
    def measured_readiness(self) -> Iterator[None]:
        """Record the first successful wait in the timeline, as the service's readiness."""
        if self._was_ready:
            yield
            return
        with self._runtime.timeline.step("ready", self.image) as step:
            step |= {"container": self.id, "name": self.name}
            yield
        self._was_ready = True

    def hand_over(self, ownership: Ownership) -> None:
        """Hand an owned container over to others; closing then leaves it running."""
        if self.ownership is not Ownership.OWNED:
            raise ValueError(f"a container that is {self.ownership.value} cannot be handed over")
        self.ownership = ownership

    def hand_out(self) -> None:
        """Let the user have a container that was a spare until now."""
        self.is_spare = False
        if self.options and self.options.parsed.log_to is not None:
            self.forward_log(self.options.parsed.log_to)

    def keep(self) -> None:
        """Leave the container running for good, and print how to reach and remove it."""
        if self._is_kept:
            return
        session = self._runtime.session
        networks = [endpoint.network_id for endpoint in self.inspection.networks.values()]
        session.keep(self.id, networks, [mount.name for mount in self.inspection.mounts])
        if self.has_deadline:
            session.forget_deadline(self.id)
            self._expires_at = None
        self._is_kept = True
        self._announce_kept()

    def keep_failed(self) -> None:
        """Keep the container and its data after a failed test, if the user wants that."""
        if not self._runtime.defaults.keep_failed:
            return
        self.keep()
        for callback in self._after_failure:
            callback()

    @property
    def is_kept_on_failure(self) -> bool:
        """Whether a test or a `with` body that fails may keep the container."""
        return self._runtime.defaults.keep_failed and self.ownership is not Ownership.BORROWED

    def on_failure(self, callback: Callable[[], object]) -> None:
        """Call *callback* when the container is kept because a test has failed."""
        self._after_failure.append(callback)

    def expire(self, seconds: float | None) -> None:
        """
        Schedule the removal of the container by the reaper in *seconds*.

        `None` cancels the removal. Nothing is scheduled for a container that is kept already.

        Raises:
            InvalidOptionError: The reaper is turned off, or does not work.
        """
        if seconds is not None and self.is_kept:
            return
        self._runtime.session.expire(self.id, seconds)
        self._expires_at = None if seconds is None else _clock.monotonic() + seconds

    def on_removal(self, callback: Callable[[], object]) -> None:
        """Call *callback* after the container has been removed by this handle."""
        self._after_removal.append(callback)

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call *callback* when this handle has been closed, with or without a removal."""
        self._on_close.append(callback)

    @property
    def is_kept(self) -> bool:
        """Whether closing leaves the container standing for inspection."""
        is_ours = self.ownership is not Ownership.BORROWED and not self.is_spare
        return (self._runtime.defaults.keep or self._is_kept) and is_ours

    def close(self) -> None:
        """
        Remove an owned container, and release any other.

        In a forked child, only the handle is closed.

        Raises:
            EngineError: The engine did not remove it; close again to try again.
        """
        if self._pid != os.getpid():  # The thread that held the lock at the fork may not exist here.
            self.state = State.CLOSED
        elif self.is_kept:
            self.release_kept()
        else:
            self.release(remove=self.ownership is Ownership.OWNED)

    def release_kept(self) -> None:
        """
        Release a kept container, and print how to reach and remove it.

        This is printed at most once, here or by `keep`.
        """
        if self.is_open and not self._is_kept:
            if IDLE in self.inspection.labels or self.ownership is Ownership.SHARED:
                self._runtime.session.keep(self.id, (), ())  # Otherwise the last session removes it.
            self._announce_kept()
        self.release(remove=False)

    def release(self, *, remove: bool) -> None:
        """
        Let go of the container, and *remove* it or leave it as it is.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        if self.is_open:
            with suppress(DockertestError):  # It has ended, or someone else let it continue.
                self.unpause(only_ours=True)
            self._finish_log(is_removal=remove)
        # Two removals do no harm, so a signal handler does not wait for one that it has interrupted.
        is_interruption = interrupts_package()
        if is_interruption:
            files.end_interrupted_transfers(self.id)
        with nullcontext() if is_interruption else self._lock:
            is_removal = remove and not self.is_removed
            if is_removal:
                with self._runtime.timeline.step("close", self.image) as step:
                    step |= {"container": self.id, "name": self.name}
                    self._runtime.engine.remove(self.id)
                self.state = State.REMOVED
            elif self.is_open:
                self.state = State.CLOSED
        # Without the lock, since these take others.
        session = self._runtime.session
        while self._on_close:
            self._on_close.pop()()
        if is_removal:
            for callback in self._after_removal:
                callback()
            if self.has_deadline:
                session.forget_deadline(self.id)
        session.untrack(self, is_gone=self.is_removed)

    def release_unless_started(self, ownership: Ownership) -> None:
        """
        Release a container, and remove it only if it is not running.

        Others may take the container once it runs.

        Args:
            ownership: Whose it is as soon as it runs.

        Raises:
            EngineError: The engine did not answer.
        """
        if self._runtime.engine.remove_unless_running(self.id):
            self.state = State.REMOVED
        else:
            self.hand_over(ownership)
        self.release(remove=False)

    def _send(self, verb: str) -> None:
        path = f"/containers/{self.id}/{verb}"
        self._runtime.engine.send("post", path, what=f"{verb} {self.label}")

    def _inspect_or_removed(self, timeout: float | None) -> Inspection:
        try:
            return self.inspect(timeout)
        except EngineError as error:
            if error.status != 404:
                raise
            raise ContainerExitedError.of(self._report_removed()) from error

    def _comes_back(self, inspection: Inspection, timeout: float) -> bool:
        """Return whether an ended container soon runs again, as in `docker restart`."""
        if self._restarts:
            return True
        # Podman reports a container as ended until its policy restarts it.
        has_policy = inspection.has_policy and self._runtime.engine.is_podman
        if not (has_policy or self._was_stopped(inspection, timeout)):
            return False
        deadline = _clock.monotonic() + RESTART_SECONDS
        while inspection.has_ended and _clock.monotonic() < deadline:
            _clock.sleep(POLL_SECONDS)
            inspection = self._inspect_or_removed(timeout)
        return not inspection.has_ended

    def _was_stopped(self, inspection: Inspection, timeout: float) -> bool:
        """
        Return whether the container ended because someone stopped it.

        A restart begins in this way.
        """
        engine = self._runtime.engine
        # Podman announces a restart before it stops the container, and sends no event of its own for that stop.
        stops = ["kill", "stop", *(["restart"] if engine.is_podman else [])]
        params = {
            "since": f"{inspection.finished_at - LONGEST_STOP_SECONDS:.9f}",
            "filters": json.dumps({"container": [self.id], "event": [*stops, "start"]}),
        }
        if engine.is_podman:  # With a time that has passed, it might leave out any event.
            params["stream"] = "false"
        else:  # The request ends at that time, or at once if it has passed.
            params["until"] = f"{inspection.finished_at + LATE_EVENT_SECONDS:.9f}"
        what = f"read the events of {self.label}"
        try:
            response = engine.send("get", "/events", what=what, params=params, timeout=timeout, stream=True)
            signals: list[str] = []
            for event in engine.messages(response, what):
                if event.get("Action") == "start":
                    if event.get("timeNano", 0) / 1e9 > inspection.finished_at:
                        break
                    signals.clear()  # What ended it before does not count.
                else:
                    signals.append((event.get("Actor") or {}).get("Attributes", {}).get("signal", ""))
        except DockertestError:  # A proxy may refuse this request; the exit is known all the same.
            return False
        # Someone who kills a container at once, or removes it, does not want it back.
        return any(signal not in ("9", "SIGKILL") for signal in signals)

    def _report_removed(self) -> Report:
        status = "expired" if self.has_expired else "removed"
        return Report(name=self.name, id=self.id, image=self.image, status=status, cli=self._cli)

    @property
    def _cli(self) -> str:
        return self._runtime.engine.endpoint.cli

    def _announce_kept(self) -> None:
        ports = ", ".join(self._reachable_ports()) or "nothing is published"
        registry.keep(
            f"kept {self.label} of {self.image}: {ports}; look: {self._cli} logs {self.id[:12]}; "
            f"remove: {self._cli} rm -f -v {self.id[:12]}"
        )

    def _reachable_ports(self) -> Iterator[str]:
        for port in self.inspection.ports:
            with suppress(DockertestError):  # It cannot be reached from where this process runs.
                if address := self._runtime.reachability.address(self.inspection, port):
                    yield f"{port} -> {join_host_port(*address)}"


def are_bound(inspection: Inspection) -> bool:
    """
    Return whether all published ports are bound, or none will be.

    None will be bound if the container is not running, or if its network mode names no network.
    """
    return (
        all(inspection.ports.get(port) for port in inspection.published_ports)
        or inspection.status != "running"
        or networks.is_special_mode(inspection.network_mode)
    )


def published(inspection: Inspection) -> tuple[str, ...]:
    """Return the published ports, such as `"5432/tcp -> 127.0.0.1:49153"`."""
    return tuple(
        f"{port} -> {join_host_port(bound.host_ip, bound.host_port)}"
        for port, bindings in inspection.ports.items()
        for bound in bindings
    )
