"""
Provide the images that tests and examples need: `make images`.

    python -m tests.images.make [IMAGE…]

Prints the prefix of their names: an empty one for the official images, `dockertest.local/` for stand-ins that are built
from Debian packages if no registry can be reached. Progress messages go to standard error.
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
from tests.images.standins import PREFIX, MakeError, build_outdated, log, outdated, present

# The official names. Images whose stand-ins take longest to build come first.
NEEDED = (
    "zookeeper:3.8",
    "rabbitmq:3.10",
    "postgres:15",
    "postgres:18",
    "mariadb:10.11",
    "mysql:9.7",
    "nginx:1.22",
    "eclipse-mosquitto:2.0",
    "redis:7.0",
    "valkey/valkey:9.1",
    "coreos/etcd:v3.4.23",
    "registry:2",
    "influxdb:1.6",
    "memcached:1.6",
    "nats:2.9",
    "python:3.11",
    "busybox:1.35",
)
# The registries of official images that are not on Docker Hub.
REGISTRY = {"coreos/etcd:v3.4.23": "quay.io/"}
REGISTRY_SECONDS = 4.0


def main(names: Sequence[str]) -> int:
    """Provide the images and print their prefix."""
    try:
        if unknown := set(names) - set(NEEDED):
            raise MakeError(f"unknown images: {', '.join(sorted(unknown))}; known: {', '.join(NEEDED)}")
        with dockertest.Pool() as pool:
            print(provide(pool, names or NEEDED, os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")))
    except (MakeError, dockertest.DockertestError, docker.errors.DockerException) as error:
        log(str(error))
        return 1
    return 0


def provide(pool: dockertest.Pool, names: Sequence[str], requested: str) -> str:
    """
    Make the images available, and return their prefix.

    It is the requested prefix, if that is not empty.
    """
    prefix = requested and requested.rstrip("/") + "/"
    if prefix not in ("", PREFIX):
        pull_missing(pool, names, prefix)
        return prefix
    if not prefix and not missing(pool, names, ""):
        return ""
    if outdated(pool, names):
        with exclusive():  # another process may have built them in the meantime
            if not prefix and outdated(pool, names) and pull_official(pool, names):
                return ""
            build_outdated(pool, names)
    return PREFIX


def pull_official(pool: dockertest.Pool, names: Sequence[str]) -> bool:
    """Pull the official images, and return whether this succeeded."""
    try:
        check_registry(names[0])
        pull_missing(pool, names, "")
    except MakeError as error:
        log(f"{error}\nusing stand-ins built from Debian packages instead of the official images")
        return False
    return True


def check_registry(name: str) -> None:
    """
    Fail within seconds if no registry can be reached.

    The engine is asked, since it may use proxies and mirrors.
    """
    with dockertest.Pool(timeout=REGISTRY_SECONDS) as pool:
        api: Any = pool.client.api  # the stubs are incomplete
        try:
            # Without credentials, since a broken credential helper would prevent the pull of public images.
            api.inspect_distribution(name, auth_config={})
        except (docker.errors.APIError, OSError) as error:
            if "not supported" not in str(error):
                raise MakeError(f"cannot reach Docker Hub: {message_of(error)}") from error
            check_registry_directly()


def check_registry_directly() -> None:
    """
    Check the registry as `check_registry` does, but without the engine.

    Some engines, such as Podman, do not support the request.
    """
    try:
        socket.create_connection(("registry-1.docker.io", 443), timeout=REGISTRY_SECONDS).close()
    except OSError as error:
        raise MakeError(f"cannot reach Docker Hub: {error}") from error


def pull_missing(pool: dockertest.Pool, names: Sequence[str], prefix: str) -> None:
    """Pull the missing images under *prefix*."""
    for name in missing(pool, names, prefix):
        log(f"pulling {name}")
        repository, _, tag = name.rpartition(":")
        hint = "; its prefix comes from DOCKERTEST_IMAGE_PREFIX" if prefix else ""
        try:
            for message in pool.client.api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in message:
                    raise MakeError(f"cannot pull {name}: {message['error']}{hint}")
        except (docker.errors.DockerException, OSError) as error:
            raise MakeError(f"cannot pull {name}: {message_of(error)}{hint}") from error


def message_of(error: Exception) -> str:
    """Return the engine's message, without the text that the docker SDK adds."""
    return str(getattr(error, "explanation", None) or error)


def missing(pool: dockertest.Pool, names: Sequence[str], prefix: str) -> list[str]:
    """
    Return the full names of the images that are missing under *prefix*.

    If it is empty, these are the official images.
    """
    images = present(pool)
    full = [(prefix or REGISTRY.get(name, "")) + name for name in names]
    return [name for name in full if name not in images]


@contextmanager
def exclusive() -> Iterator[None]:
    """Run the block in one process of this user at a time."""
    with Path(tempfile.gettempdir(), f"dockertest-images-{os.geteuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
