"""What is mounted in a container, and so where engines copy files to, and where they would lose them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dockertest import _values
from dockertest.errors import InvalidOptionError

_IN_MEMORY = ("/dev", "/proc", "/sys")  # in every container


def of(attrs: Mapping[str, Any], path: str) -> str:
    """
    Give the volume that *path* lies in, else "/"; `InvalidOptionError` where Docker's archives do not look.

    Without the error a file written there would be lost without a word, hidden below what is mounted.
    """
    in_memory = _in_memory(attrs)
    mounts = {each["Destination"] for each in attrs.get("Mounts") or ()}
    around = [each for each in {*mounts, *in_memory} if _values.lies_in(path, each)]
    deepest = max(around, key=len, default="/")
    if deepest in in_memory:
        raise InvalidOptionError(
            f"path: {path!r} lies in {deepest!r}, which is kept in memory, where engines copy nothing; use exec"
        )
    return deepest


def checked(attrs: Mapping[str, Any], target: str, source: Path) -> str:
    """Give the volume that *target* lies in; `InvalidOptionError` also where part of *source* would be lost below it."""
    for folder in _in_memory(attrs):
        if folder == target or not _values.lies_in(folder, target):
            continue
        local = source / posixpath.relpath(folder, target)
        # Links in *source* are copied, not followed. An empty folder loses nothing.
        followed = Path(os.path.realpath(local.parent)) == local.parent
        if followed and os.path.lexists(local) and not (local.is_dir() and not any(local.iterdir())):
            raise InvalidOptionError(
                f"{os.fspath(local)!r} would lie in {folder!r}, which is kept in memory, where engines copy nothing; "
                "copy the rest without it, and use exec for this"
            )
    return of(attrs, target)


def _in_memory(attrs: Mapping[str, Any]) -> set[str]:
    tmpfs = (each["Destination"] for each in attrs.get("Mounts") or () if each["Type"] == "tmpfs")
    given = (attrs.get("HostConfig") or {}).get("Tmpfs") or ()
    return {posixpath.normpath(each) for each in (*_IN_MEMORY, *given, *tmpfs)}
