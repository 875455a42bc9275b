"""
Start one container, or take one that is reused.

After a failure, no partly created container is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dockertest import _clock
from dockertest._cleanup.reaper import IDLE, REUSE, SHARED, Hold
from dockertest._cleanup.session import Session
from dockertest._containers import files, reuse
from dockertest._containers.container import Container, Ownership
from dockertest._containers.create import CreateRequest, endpoint_config
from dockertest._engine.inspection import Image, Inspection
from dockertest._options import RunOptions
from dockertest._report import label
from dockertest._runtime import Runtime
from dockertest._settings import state_folder
from dockertest.errors import (
    ContainerCreateError,
    DockertestError,
    InvalidOptionError,
    ResourceClosedError,
)

if TYPE_CHECKING:
    from dockertest._containers.host_access import HostAccess

log = logging.getLogger("dockertest")


def launch(
    runtime: Runtime,
    request: CreateRequest,
    options: RunOptions,
    *,
    image: str,
    name: str,
    before_start: Callable[[Container], object] | None = None,
    is_spare: bool = False,
) -> Container:
    """
    Create and start a container.

    Args:
        image: The image's name, for messages.
        name: The container's name; empty for one of the engine's choice.
        before_start: Called with the container that is about to be started.
        is_spare: Whether the container is out of use until `Container.hand_out` is called.

    Raises:
        ContainerCreateError: The engine refused to create it.
        ContainerStartError: The engine could not start it; it has been removed.
    """
    engine, session, timeline = runtime.engine, runtime.session, runtime.timeline
    if options.parsed.log_to is not None:
        from dockertest._containers import forward

        forward.check_target(options.parsed.log_to)
    access = _plan_host_access(runtime, request, options) if options.host_access_ports else None
    with session.creating(), timeline.step("create", image) as step:
        session.begin()
        container_id = engine.create(request.body, name=name, platform=options.platform)
        step["container"] = container_id
        created = Inspection.parse({"Id": container_id, "Name": name})
        container = Container(runtime, created, image=image, options=options, is_spare=is_spare)
        session.add(container)
    with (
        _removed_on_failure(runtime, container, _ownership(options)),
        timeline.step("start", image) as step,
    ):
        step["container"] = container_id
        session.check_open()  # A signal handler may have closed it.
        if before_start:
            before_start(container)
        if access:
            access.open(container)
        _start(runtime, container, request, options)
        step["name"] = container.inspection.name
        if access:
            access.verify(container)
        if options.parsed.log_to is not None and not is_spare:
            container.forward_log(options.parsed.log_to)
    session.check_reaper_start()
    return container


def take_or_launch(
    runtime: Runtime, request: CreateRequest, options: RunOptions, image: Image, *, image_name: str
) -> Container:
    """
    Take a running container with the same options, or start one for others.

    The engine lets only one process have the container's name, so that one of many creates it. How long the container
    stays is described at the top of `_cleanup.reaper`.

    Args:
        image_name: The image's name, for messages.

    Raises:
        InvalidOptionError: The container would outlive one of its networks or volumes, or holds of it cannot be recorded.
        ContainerCreateError: The engine refused to create it, or another container has its name.
        ContainerStartError: The engine could not start it; it has been removed.
    """
    session = runtime.session
    _check_needs(session, request, options)
    hold = _hold(runtime, request, options, image)
    _begin_hold(runtime, hold, options)
    name = options.name or f"dockertest-{hold.key[:32]}"
    request.body["Labels"][hold.label] = hold.key
    if hold.label == REUSE and hold.idle is not None:
        request.body["Labels"][IDLE] = f"{hold.idle:.3f}"
    taken = reuse.take(
        runtime.engine,
        name,
        hold,
        request,
        image,
        is_dead=session.is_dead_or_expired,
        is_held=lambda: session.is_held(hold),
        replace=lambda other: _replace(session, other, options),
        make=lambda: launch(runtime, request, options, image=image_name, name=name),
    )
    if isinstance(taken, Container):
        return taken
    with session.creating(), runtime.timeline.step("reuse", image_name) as step:
        container = Container(
            runtime, taken, image=image_name, options=options, ownership=_ownership(options)
        )
        step |= {"container": container.id, "name": container.name}
        session.add(container)
    if options.parsed.log_to is not None:
        container.forward_log(options.parsed.log_to, since=_clock.time())
    container.await_ports(taken)  # Its maker may have started it just now.
    return container


def _ownership(options: RunOptions) -> Ownership:
    """Return whose a container is as soon as it runs."""
    if options.shared:
        return Ownership.SHARED
    return Ownership.REUSED if options.parsed.reuse else Ownership.OWNED


def _hold(runtime: Runtime, request: CreateRequest, options: RunOptions, image: Image) -> Hold:
    """Return what the session has to hold before it looks for the container."""
    settings, session, reused = runtime.settings, runtime.session, options.parsed.reuse
    folder = state_folder(settings.environ)
    if reused:
        owner = reuse.owner_of_reused(reused, session.identity, folder)
        return Hold(REUSE, reuse.key(options, request, image, owner), reused.idle)
    owner = reuse.owner_of_shared(settings.run_id, session.engine_name, session.identity, folder)
    return Hold(SHARED, reuse.key(options, request, image, owner), 0.0)


def _begin_hold(runtime: Runtime, hold: Hold, options: RunOptions) -> None:
    reused = options.parsed.reuse
    if reused and reused.group is not None:  # Its users on other hosts could not see it.
        return
    with runtime.session.creating():
        try:
            runtime.session.hold(hold, runtime.engine.timeout)
        except BlockingIOError as error:
            raise ContainerCreateError(
                f"another process has been removing the container to take for {runtime.engine.timeout:g} s",
                hint="try again; if that process hangs, end it",
            ) from error
        except OSError as error:
            if hold.idle is None:  # It stays anyway. Only `replaces` cannot know that it is used.
                return
            option = "shared" if options.shared else "reuse: idle"
            raise InvalidOptionError(
                f"{option}: cannot record in {state_folder(runtime.settings.environ)} that this process uses the container: "
                f"{error.strerror}",
                hint="set XDG_STATE_HOME to a folder that this user can write to, on a system with file locks",
            ) from error


def _replace(session: Session, other: Inspection, options: RunOptions) -> bool:
    """Remove a container with other options, and return whether it is gone."""
    if options.parsed.reuse is None or not options.parsed.reuse.replaces:
        return False
    if session.has_open(other.id):
        raise ContainerCreateError(
            f"{label(other.name, other.id)} has the name of the container to reuse, but other options, and this pool "
            "still uses it, so that it is not replaced",
            hint="close it first, or choose another name",
        )
    is_gone = session.replace(other.labels, other.id)
    if is_gone is None:
        raise ContainerCreateError(
            f"{label(other.name, other.id)} has the name of the container to reuse, but other options, and is used by a "
            "living session, so that it is not replaced",
            hint="wait until that session has ended, or choose another name",
        )
    return is_gone


def _check_needs(session: Session, request: CreateRequest, options: RunOptions) -> None:
    option = "shared" if options.shared else "reuse"
    first = request.body["HostConfig"].get("NetworkMode", "")
    for network in (first, *request.networks):
        if session.owns_network(network):
            raise InvalidOptionError(
                f"{option}: the container would outlive its network {network[:12]!r}, which is removed with this pool",
                hint="use a network that stays, or none",
            )
    for mount in options.parsed.mounts:
        if session.owns_volume(mount.source):
            raise InvalidOptionError(
                f"{option}: the container would outlive its volume {mount.source!r}, which is removed with this pool",
                hint="use a volume that stays, by its name",
            )


@contextmanager
def _removed_on_failure(runtime: Runtime, container: Container, ownership: Ownership) -> Iterator[None]:
    """
    Leave no half-made container behind, not even after Ctrl-C.

    Args:
        ownership: Whose it is as soon as it runs: others may have taken the container already, although this process has
            not received the answer to the start.
    """
    try:
        yield
    except BaseException as failure:
        try:
            if ownership is not Ownership.OWNED and container.ownership is Ownership.OWNED:
                container.release_unless_started(ownership)
            else:
                container.release(remove=container.ownership is Ownership.OWNED)
        except DockertestError as error:
            log.error("%s", error)
        if runtime.session.is_closed and isinstance(failure, DockertestError):
            raise ResourceClosedError(
                "the pool was closed while it started a container",
                hint="close it after all threads that use it have ended",
            ) from failure
        raise


def _plan_host_access(runtime: Runtime, request: CreateRequest, options: RunOptions) -> HostAccess:
    from dockertest._containers import host_access

    return host_access.plan(runtime, request.body, tuple(map(int, options.host_access_ports)))


def _start(runtime: Runtime, container: Container, request: CreateRequest, options: RunOptions) -> None:
    engine = runtime.engine
    for network in request.networks:
        engine.connect_network(network, container.id, endpoint_config(network, options.network_aliases))
    if options.parsed.files:
        files.place(engine, container.inspect(), options.parsed.files)
    container.start(_ownership(options))
