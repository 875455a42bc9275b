"""Volumes, as the engine's API has them."""

from __future__ import annotations

from collections.abc import Mapping

from dockertest._engine.client import EngineClient, quote_path
from dockertest.errors import EngineError


def create(engine: EngineClient, name: str, labels: Mapping[str, str]) -> None:
    """
    Create a volume.

    Args:
        labels: Labels that no other volume has, since engines return an existing volume of that name without an error.

    Raises:
        EngineError: The engine refused, or there is a volume of that name.
    """
    what = f"create volume {name!r}"
    response = engine.send("post", "/volumes/create", what=what, body={"Name": name, "Labels": dict(labels)})
    with engine.translate_errors(what):  # The answer may have been cut short.
        made = response.json().get("Labels") or {}
    if made != dict(labels):
        raise EngineError(
            f"cannot {what}: there is a volume of that name", hint="choose another name", status=409
        )


def remove(engine: EngineClient, name: str) -> None:
    """
    Remove a volume; one that does not exist is not an error.

    Raises:
        EngineError: The engine did not remove it, for example because a container uses it.
    """
    try:
        engine.send("delete", f"/volumes/{quote_path(name)}", what=f"remove volume {name!r}")
    except EngineError as error:
        if error.status != 404:
            raise
