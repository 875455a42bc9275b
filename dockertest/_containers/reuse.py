"""Find a running container with the same options, reused or shared by a test run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from dockertest import _clock
from dockertest._cleanup.reaper import ELSEWHERE, SHARED, Hold, is_expired
from dockertest._containers import files
from dockertest._containers.create import CreateRequest
from dockertest._engine.client import EngineClient, quote_path
from dockertest._engine.inspection import Image, Inspection
from dockertest._options import Reuse, RunOptions
from dockertest._report import label
from dockertest.errors import ContainerCreateError, EngineError

T = TypeVar("T")

RESTART_SECONDS = 10.0  # how long a shared container may take to run again that another process has stopped


def key(options: RunOptions, request: CreateRequest, image: Image, owner: Sequence[object]) -> str:
    """
    Return the hash that interchangeable containers share.

    It covers the image's id (its name may be given to another image), the request after the modifiers but without our
    own labels, the files, and who uses the container together: see `owner_of_reused` and `owner_of_shared`.
    """
    environment = {pair.name: pair.value for pair in options.parsed.env}  # Its order means nothing.
    body = {**request.body, "Image": image.id, "Env": environment}
    body["Labels"] = {
        name: value for name, value in body["Labels"].items() if not name.startswith("dockertest.")
    }
    content = {
        "owner": owner,
        "body": body,
        "networks": request.networks,
        "name": options.name,
        "platform": options.platform,
        "files": files.digest(options.parsed.files) if options.parsed.files else "",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def owner_of_reused(reuse: Reuse, identity: str, folder: Path) -> list[object]:
    """
    Return who may take a reused container: a group, or a user on a host.

    For a container with an idle time, the state folder matters too: see `owner_of_shared`.
    """
    if reuse.group is not None:
        return ["group", reuse.group]
    user_and_machine = identity.split(".")[:2]
    if reuse.idle is None:
        return ["user", *user_and_machine]
    return ["user", *user_and_machine, reuse.idle, _folder_id(folder)]


def owner_of_shared(run_id: str, engine: str, identity: str, folder: Path) -> list[object]:
    """
    Return who may take a shared container: a test run.

    A session must see the locks of all others that may take the container. So they have the boot, PID namespace and state
    folder in common, and the engine's address, since each engine has its own container.
    """
    return ["run", run_id, engine, identity.removesuffix(ELSEWHERE), _folder_id(folder)]


def _folder_id(folder: Path) -> list[int]:
    try:
        status = folder.stat()
    except OSError:  # Holding the container will fail.
        return []
    return [status.st_dev, status.st_ino]


def take(
    engine: EngineClient,
    name: str,
    hold: Hold,
    request: CreateRequest,
    image: Image,
    *,
    is_dead: Callable[[Mapping[str, str]], bool],
    is_held: Callable[[], bool],
    replace: Callable[[Inspection], bool],
    make: Callable[[], T],
) -> Inspection | T:
    """
    Return the inspection of the container *name*, or else the result of *make*.

    Args:
        hold: What the session holds already; it has the container's label.
        request: What *make* would send; the container is compared with it.
        image: The image that *make* would start.
        is_dead: Returns whether the session that wrote some labels has provably ended.
        is_held: Returns whether other living sessions use the container.
        replace: Removes a container with other options that has this name; returns whether that is allowed.
        make: Creates and starts the container.

    Raises:
        ContainerCreateError: Another container has this name, or is not started in time; or *make* failed.
    """
    deadline = _clock.monotonic() + engine.timeout
    while True:
        inspection = _find(engine, name, hold, is_dead, is_held, replace)
        if inspection:
            if not _matches(inspection, request, image):
                raise _name_taken(inspection, hold, engine.endpoint.cli)
            return inspection
        try:
            return make()
        except ContainerCreateError as error:
            # Another process was faster: engines reserve a name a moment before they show its container.
            if "in use" not in str(error) or _clock.monotonic() > deadline:
                raise
            _clock.sleep(0.01)


def _find(
    engine: EngineClient,
    name: str,
    hold: Hold,
    is_dead: Callable[[Mapping[str, str]], bool],
    is_held: Callable[[], bool],
    replace: Callable[[Inspection], bool],
) -> Inspection | None:
    """
    Return the container that can be taken, or `None` if one has to be made.

    One that is dead, paused, unhealthy or past its time is removed. One that a living session has created and is about
    to start is waited for, and for a while so is a shared one that another process may be restarting.
    """
    began = _clock.monotonic()
    while True:
        inspection = _inspect(engine, name)
        if not inspection:
            return None
        if inspection.labels.get(hold.label) != hold.key:
            if replace(inspection):
                continue
            raise _name_taken(inspection, hold, engine.endpoint.cli)
        if _is_usable(inspection):
            return inspection
        elapsed = _clock.monotonic() - began
        is_shared = hold.label == SHARED and not is_expired(inspection.labels) and is_held()
        if is_shared and inspection.status == "running":  # Those who use it must not lose it.
            return inspection
        is_starting = inspection.status in ("created", "restarting") and not is_dead(inspection.labels)
        if is_starting and elapsed > engine.timeout:
            raise _never_started(inspection, engine.timeout, engine.endpoint.cli)
        if is_starting or (is_shared and elapsed < RESTART_SECONDS and inspection.status != "removing"):
            _clock.sleep(0.02)
        else:
            _discard(engine, inspection)


def _discard(engine: EngineClient, inspection: Inspection) -> None:
    """
    Remove a container that cannot be taken.

    By its id, since another process may have replaced it already. One that is not running may be started by another
    process at this moment, and is only removed if it was not.
    """
    if inspection.status in ("running", "paused", "restarting"):
        engine.remove(inspection.id)
    else:
        engine.remove_unless_running(inspection.id)


def _inspect(engine: EngineClient, name: str) -> Inspection | None:
    try:
        return engine.inspect(quote_path(name))
    except EngineError as error:
        if error.status == 404:
            return None
        raise


def _matches(inspection: Inspection, request: CreateRequest, image: Image) -> bool:
    """
    Return whether a container matches its reuse label.

    Everybody who may use the engine can read that label and copy it to a container of their own.
    """
    body = request.body
    return (
        inspection.image_id.removeprefix("sha256:") == image.id.removeprefix("sha256:")
        and set(body["Env"]) <= set(inspection.env)
        and inspection.command == tuple(body.get("Cmd") or (() if body.get("Entrypoint") else image.command))
        and inspection.entrypoint == tuple(body.get("Entrypoint") or image.entrypoint)
    )


def _is_usable(inspection: Inspection) -> bool:
    return (
        inspection.status == "running"
        and inspection.health != "unhealthy"
        and not is_expired(inspection.labels)
    )


def _name_taken(inspection: Inspection, hold: Hold, cli: str) -> ContainerCreateError:
    subject = label(inspection.name, inspection.id)
    if hold.label == SHARED:
        return ContainerCreateError(
            f"{subject} has the name of the container to share, but was started with other options, from another image, "
            "by another test run or by hand",
            hint=f"leave out name, or remove it with: {cli} rm -f -v {inspection.id[:12]}",
        )
    return ContainerCreateError(
        f"{subject} has the name of the container to reuse, but was started with other "
        "options, from another image, by another user or by hand",
        hint=f"choose another name, or remove it with: {cli} rm -f -v {inspection.id[:12]}",
    )


def _never_started(inspection: Inspection, seconds: float, cli: str) -> ContainerCreateError:
    return ContainerCreateError(
        f"{label(inspection.name, inspection.id)} was created by another session for reuse, and is not running after "
        f"{seconds:g} s",
        hint=f"if that session is over, remove it with: {cli} rm -f -v {inspection.id[:12]}",
    )
