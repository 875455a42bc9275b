"""
Make the images that tests and examples need available: `make images`.

    python -m tests.images.make [IMAGE…]

Prints the prefix that goes before their names: nothing for the official images, `dockertest.local/` for stand-ins
built from Debian's packages where no registry is reached. What a person may want to read goes to standard error.
"""

import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker.errors

import dockertest
from tests.images.standins import PREFIX, MakeError, build_outdated, outdated, present, say

# The official names; those whose stand-ins take longest to build come first.
NEEDED = (
    "zookeeper:3.8",
    "rabbitmq:3.10",
    "postgres:15",
    "mariadb:10.11",
    "nginx:1.22",
    "eclipse-mosquitto:2.0",
    "redis:7.0",
    "coreos/etcd:v3.4.23",
    "registry:2",
    "influxdb:1.6",
    "memcached:1.6",
    "nats:2.9",
    "python:3.11",
    "busybox:1.35",
)
# Where an official image is, if not on Docker Hub.
REGISTRY = {"coreos/etcd:v3.4.23": "quay.io/"}
REGISTRY_SECONDS = 4.0


def main(names: Sequence[str]) -> int:
    """Print the prefix under which the images are there."""
    try:
        if unknown := set(names) - set(NEEDED):
            raise MakeError(f"unknown images: {', '.join(sorted(unknown))}; known: {', '.join(NEEDED)}")
        with dockertest.Pool() as pool:
            print(provide(pool, names or NEEDED, os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")))
    except (MakeError, dockertest.DockertestError, docker.errors.DockerException) as error:
        say(str(error))
        return 1
    return 0


def provide(pool: dockertest.Pool, names: Sequence[str], wished: str) -> str:
    """Make the images available, under the prefix that the user wishes if there is one; give the prefix."""
    prefix = wished and wished.rstrip("/") + "/"
    if prefix not in ("", PREFIX):
        pull_missing(pool, names, prefix)
        return prefix
    if not prefix and not missing(pool, names, ""):
        return ""
    if outdated(pool, names):
        with alone():  # whoever waited here finds them made
            if not prefix and outdated(pool, names) and pulled_officials(pool, names):
                return ""
            build_outdated(pool, names)
    return PREFIX


def pulled_officials(pool: dockertest.Pool, names: Sequence[str]) -> bool:
    """Pull the official images; `False` if they cannot be had."""
    try:
        ask_registry(names[0])
        pull_missing(pool, names, "")
    except MakeError as error:
        say(f"{error}\nno official images: stand-ins built from Debian's packages take their place")
        return False
    return True


def ask_registry(name: str) -> None:
    """Fail within seconds if no registry is reached. The engine has to ask: it has proxies and mirrors of its own."""
    with dockertest.Pool(timeout=REGISTRY_SECONDS) as pool:
        api: Any = pool.client.api  # whose stubs leave some of it untyped
        try:
            # Without credentials: asking a broken helper for them would make public images fail.
            api.inspect_distribution(name, auth_config={})
        except (docker.errors.APIError, OSError) as error:
            if "not supported" not in str(error):
                raise MakeError(f"cannot reach Docker Hub: {words(error)}") from error
            ask_registry_ourselves()


def ask_registry_ourselves() -> None:
    """Do as `ask_registry` where the engine does not know how to ask, as Podman."""
    try:
        socket.create_connection(("registry-1.docker.io", 443), timeout=REGISTRY_SECONDS).close()
    except OSError as error:
        raise MakeError(f"cannot reach Docker Hub: {error}") from error


def pull_missing(pool: dockertest.Pool, names: Sequence[str], prefix: str) -> None:
    """Pull the images under *prefix* that are not there."""
    for name in missing(pool, names, prefix):
        say(f"pulling {name}")
        repository, _, tag = name.rpartition(":")
        hint = "; its prefix comes from DOCKERTEST_IMAGE_PREFIX" if prefix else ""
        try:
            for message in pool.client.api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in message:
                    raise MakeError(f"cannot pull {name}: {message['error']}{hint}")
        except (docker.errors.DockerException, OSError) as error:
            raise MakeError(f"cannot pull {name}: {words(error)}{hint}") from error


def words(error: Exception) -> str:
    """Say what the engine said, without the docker SDK's frame around it."""
    return str(getattr(error, "explanation", None) or error)


def missing(pool: dockertest.Pool, names: Sequence[str], prefix: str) -> list[str]:
    """Give the full names of the images that are not there under *prefix*, or officially."""
    there = present(pool)
    full = [(prefix or REGISTRY.get(name, "")) + name for name in names]
    return [name for name in full if name not in there]


@contextmanager
def alone() -> Iterator[None]:
    """Let one process of this user at a time do what is within."""
    with Path(tempfile.gettempdir(), f"dockertest-images-{os.geteuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
