"""
What some engines do not do, for reasons of their own: the tests marked so are skipped there, and counted as skipped.

The README's table of engines says the same to users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Engine(Protocol):
    """The engine under test."""

    is_podman: bool
    is_local: bool
    version: tuple[int, ...]


# What a test is marked with -> on which engines, and why.
DIFFERENCES: dict[str, tuple[Callable[[Engine], bool], str]] = {
    "health checks": (
        lambda engine: engine.is_podman,
        "Podman has systemd run its health checks, and none runs here",
    ),
    "BuildKit": (
        lambda engine: engine.is_podman,
        "Podman has no BuildKit of its own: buildx pulls one from Docker Hub",
    ),
    "an abandoned build": (
        lambda engine: engine.is_podman,
        "Podman builds on when whoever asked for it is gone",
    ),
    "bytes of a pull": (
        lambda engine: engine.is_podman,
        "Podman tells the layers of a pull, not their bytes",
    ),
    "missing mounts": (
        lambda engine: engine.is_podman,
        "Podman makes a mount's source that is missing",
    ),
    "names that are no text": (
        lambda engine: engine.is_podman,
        "Podman reads .dockerignore once more, and takes all names that are no text for one",
    ),
    "unread stdin": (
        lambda engine: engine.is_podman,
        "Podman drops the last output of a command that ends without having read its stdin",
    ),
    "want of memory": (
        lambda engine: engine.is_podman and engine.version < (5,),
        "Podman 4 does not tell an end for want of memory",
    ),
}
