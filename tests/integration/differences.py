"""
Features that some engines do not support.

Tests marked with one of them are skipped on these engines.
docs/how-to/podman.md describes them to users.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Engine(Protocol):
    """The engine under test."""

    is_podman: bool
    is_local: bool
    version: tuple[int, ...]


# Podman 6 supports only these. A controller belongs either to them or to the cgroups of version 1.
CGROUPS_V2 = (Path("/sys/fs/cgroup/cgroup.controllers"), Path("/sys/fs/cgroup/unified/cgroup.controllers"))


def _has_memory_controller() -> bool:
    return any("memory" in path.read_text().split() for path in CGROUPS_V2 if path.exists())


# The argument of the mark `differs` -> whether an engine lacks that feature, and why. The reason begins with "machine: " if it
# is not the engine's.
DIFFERENCES: dict[str, tuple[Callable[[Engine], bool], str]] = {
    "health checks": (
        lambda engine: engine.is_podman,
        "Podman runs health checks by systemd, which does not run here",
    ),
    "BuildKit": (
        lambda engine: engine.is_podman,
        "Podman has no BuildKit of its own: buildx pulls one from Docker Hub",
    ),
    "features of BuildKit that the classic builder ignores": (
        lambda engine: not engine.is_podman and engine.version >= (26,),
        "from Docker 26 on, the classic builder ignores --link, --checksum and the lines of RUN <<EOF, without an error",
    ),
    "an abandoned build": (
        lambda engine: engine.is_podman,
        "Podman continues a build after its client has disconnected",
    ),
    "bytes of a pull": (
        lambda engine: engine.is_podman,
        "Podman reports the layers of a pull, but not their bytes",
    ),
    "missing mount sources": (
        lambda engine: engine.is_podman,
        "Podman creates a missing mount source",
    ),
    "undecodable file names": (
        lambda engine: engine.is_podman,
        "Podman also parses .dockerignore itself, and treats all undecodable names as the same",
    ),
    "copies of volumes": (
        lambda engine: engine.is_podman,
        "Podman copies the files of a volume inside of a container",
    ),
    "names of networks": (
        lambda engine: engine.is_podman,
        "Podman allows only letters, digits and .-_ in the names of networks",
    ),
    "the state of a container that a policy restarts": (
        lambda engine: engine.is_podman,
        "Podman reports a container that its policy restarts as exited, with its ports",
    ),
    "unread stdin": (
        lambda engine: engine.is_podman,
        "Podman drops the last output of a command that ends without having read its stdin",
    ),
    "Compose projects": (
        lambda engine: engine.is_podman,
        "Pool.compose refuses Podman",
    ),
    "ports at IPv6 addresses": (
        lambda engine: engine.is_podman,
        "Podman's default network has no IPv6, and a port that is published at :: does not answer",
    ),
    "networks of the same name": (
        lambda engine: engine.is_podman or engine.version >= (25,),
        "only Docker before 25 creates a second network of the same name",
    ),
    "host ports from a range": (
        lambda engine: engine.is_podman,
        "Podman cannot choose a port of the host from a range",
    ),
    "seccomp profiles": (
        lambda engine: engine.is_podman,
        "Podman expects the path of a profile on its own host",
    ),
    "limits of processes": (
        lambda engine: engine.is_podman and engine.version < (5,),
        "Podman 4 raises the limit of processes when another limit is set, which the kernel refuses here",
    ),
    "limits of memory": (
        lambda engine: engine.is_podman and engine.version >= (6,) and not _has_memory_controller(),
        "machine: Podman 6 needs the controller of memory in the cgroups of version 2",
    ),
    "out-of-memory kills": (
        lambda engine: engine.is_podman and engine.version < (5,),
        "Podman 4 does not report out-of-memory kills",
    ),
}
