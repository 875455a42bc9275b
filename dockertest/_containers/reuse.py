"""Reuse: which running container is just what somebody asks for. Finds and judges it; makes none."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dockertest import _report, _values
from dockertest._cleanup.reaper import EXPIRES, REUSE
from dockertest._containers import files as _files
from dockertest._containers.create import CreateRequest
from dockertest._engine.client import Engine, quoted
from dockertest._options import RunOptions
from dockertest.errors import ContainerCreateError, EngineError

T = TypeVar("T")


def key(options: RunOptions, request: CreateRequest, image: Mapping[str, Any], identity: str) -> str:
    """
    Give what two containers have in common that can stand for one another.

    It is a hash of the image itself (its name may come to mean another), of the request after the modifiers but for
    our own labels, of the files put in, and of who shares it: a user on a host, or a group by its name.
    """
    user_and_machine = identity.split(".")[:2]
    environment = dict(each.split("=", 1) for each in request.body["Env"])  # in it, order means nothing
    body = {**request.body, "Image": image.get("Id"), "Env": environment}
    body["Labels"] = {
        name: value for name, value in body["Labels"].items() if not name.startswith("dockertest.")
    }
    said = {
        "owner": ["user", *user_and_machine] if options.reuse is True else ["group", options.reuse],
        "body": body,
        "networks": request.networks,
        "name": options.name,
        "platform": options.platform,
        "files": _files.digest(_values.files(options.files)) if options.files else "",
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def take(
    engine: Engine,
    name: str,
    wanted: str,
    is_dead: Callable[[Mapping[str, str]], bool],
    make: Callable[[], T],
) -> dict[str, Any] | T:
    """
    Give the engine's inspection of the container of that *name*, or else what *make* gives.

    Raises:
        ContainerCreateError: What has this name is something else, or is not started in time; or *make* failed.
    """
    deadline = time.monotonic() + engine.timeout
    while True:
        found = _find(engine, name, wanted, is_dead)
        if found:
            return found
        try:
            return make()
        except ContainerCreateError as error:
            # Somebody else was faster: engines give a name away a moment before they show who has it.
            if "in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _find(
    engine: Engine, name: str, wanted: str, is_dead: Callable[[Mapping[str, str]], bool]
) -> dict[str, Any] | None:
    """
    Give the container that can be taken, or `None` if one has to be made.

    One that is dead, paused, unhealthy or past its time is removed. One that another session has created and is about
    to start is waited for, unless *is_dead* knows from its labels that this session is over.
    """
    deadline = time.monotonic() + engine.timeout
    while True:
        attrs = _inspect(engine, name)
        if not attrs:
            return None
        labels = attrs["Config"].get("Labels") or {}
        if labels.get(REUSE) != wanted:
            raise _taken(attrs)
        if _is_usable(attrs, labels):
            return attrs
        is_coming = attrs["State"].get("Status") in ("created", "restarting") and not is_dead(labels)
        if not is_coming:
            engine.remove(attrs["Id"])  # by its id: another process may have replaced it already
        elif time.monotonic() > deadline:
            raise _never_started(attrs, engine.timeout)
        else:
            time.sleep(0.02)


def _inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    try:
        return engine.inspect(quoted(name))
    except EngineError as error:
        if error.status == 404:
            return None
        raise


def _is_usable(attrs: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    expires = labels.get(EXPIRES, "")
    return (
        attrs["State"].get("Status") == "running"
        and _report.health(attrs) != "unhealthy"
        and not (expires.isdecimal() and float(expires) < time.time())
    )


def _taken(attrs: Mapping[str, Any]) -> ContainerCreateError:
    label = _report.label(str(attrs["Name"]).lstrip("/"), str(attrs["Id"]))
    return ContainerCreateError(
        f"{label} has the name that a container to be reused would get, but is another: it was started with other "
        f"options, of another image, by another user, or by hand; give another name, or remove it with: docker rm -f -v {attrs['Id'][:12]}"
    )


def _never_started(attrs: Mapping[str, Any], seconds: float) -> ContainerCreateError:
    label = _report.label(str(attrs["Name"]).lstrip("/"), str(attrs["Id"]))
    return ContainerCreateError(
        f"{label} was created by another session to be reused, and is not running after {seconds:g} s; "
        f"if that session is over, remove it with: docker rm -f -v {attrs['Id'][:12]}"
    )
