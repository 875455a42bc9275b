"""
The clients that are compared.

These are plain calls of the docker SDK, testcontainers-python, and this library.
"""

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import docker
import psycopg

import dockertest

# The sidecar of testcontainers needs an image and a mount of the engine's socket. Without it, testcontainers is 0.3 s faster
# than in its default configuration.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
warnings.filterwarnings("ignore", module="testcontainers")
warnings.filterwarnings("ignore", message=".*testcontainers.*")

PREFIX = os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")
POSTGRES = f"{PREFIX}postgres:15"
BUSYBOX = f"{PREFIX}busybox:1.35"
ENV = {"POSTGRES_USER": "test", "POSTGRES_PASSWORD": "test", "POSTGRES_DB": "test"}
SLEEP = ["sleep", "600"]
# The settings of TemplateDatabase's server, for the clients that are compared with it.
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=128MB")
FAST = ["postgres", *(word for setting in SETTINGS for word in ("-c", setting))]
MEMORY, PGDATA = {"/dockertest": ""}, {"PGDATA": "/dockertest/data"}


@dataclass
class Started:
    """A server that accepts connections."""

    container: str
    url: str
    seconds: float
    remove: Callable[[], object]


class Client(Protocol):
    """A library that starts a server."""

    name: str

    def postgres(self, command: "list[str]") -> Started:
        """Start a server, and wait until it has accepted a connection."""
        ...


def url(address: str) -> str:
    """Return the URL of the database."""
    return f"postgresql://test:test@{address}/test"


class DockerSdk:
    """
    The lower bound, with as few requests as possible.

    It tries to connect every 10 ms.
    """

    name = "docker SDK"

    def __init__(self) -> None:
        self.api: Any = docker.DockerClient(version="1.41").api

    def start(
        self, image: str, command: "list[str]", env: "dict[str, str] | None" = None, port: int = 0
    ) -> str:
        """Create and start a container."""
        host_config = self.api.create_host_config(port_bindings={port: ("127.0.0.1",)} if port else None)
        ports = [(port, "tcp")] if port else None
        created = self.api.create_container(
            image, command, environment=env, ports=ports, host_config=host_config
        )
        self.api.start(created["Id"])
        return str(created["Id"])

    def remove(self, container: str) -> None:
        """Remove a container."""
        self.api.remove_container(container, v=True, force=True)

    def postgres(self, command: "list[str]") -> Started:
        """Start a server, and wait until it has accepted a connection."""
        began = time.perf_counter()
        container = self.start(POSTGRES, command, ENV, 5432)
        ports = self.api.inspect_container(container)["NetworkSettings"]["Ports"]
        address = f"127.0.0.1:{ports['5432/tcp'][0]['HostPort']}"
        while True:
            try:
                psycopg.connect(url(address)).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.01)
        seconds = time.perf_counter() - began
        return Started(container, url(address), seconds, lambda: self.remove(container))


class Testcontainers:
    """The most widely used library."""

    name = "testcontainers"

    def postgres(self, command: "list[str]", *, in_memory: bool = False) -> Started:
        """Start a server, and wait until it has accepted a connection."""
        from testcontainers.community.postgres import PostgresContainer

        began = time.perf_counter()
        container = PostgresContainer(POSTGRES, username="test", password="test", dbname="test", driver=None)
        if in_memory:
            container.with_tmpfs_mount("/dockertest").with_envs(**PGDATA)
        container.with_command(command).start()
        address = container.get_connection_url()
        psycopg.connect(address).close()
        seconds = time.perf_counter() - began
        return Started(container.get_wrapped_container().id, address, seconds, container.stop)


class Ours:
    """This library."""

    name = "dockertest"

    def __init__(self) -> None:
        self.pool = dockertest.Pool()

    def postgres(self, command: "list[str]") -> Started:
        """Start a server, and wait until it has accepted a connection."""
        began = time.perf_counter()
        server = self.pool.run(POSTGRES, env=ENV, cmd=command)
        address = server.get_host_port(5432)
        server.retry(lambda: psycopg.connect(url(address))).close()
        seconds = time.perf_counter() - began
        return Started(server.id, url(address), seconds, server.close)


def versions(pool: dockertest.Pool) -> "dict[str, str]":
    """Return the versions of the compared libraries, the engine and the machine."""
    engine = pool.client.version()
    kind = engine["Components"][0]["Name"].replace("Engine", "Docker").removesuffix(" Docker")
    libraries = {name: version(name) for name in ("docker", "testcontainers", "dockertest-py", "psycopg")}
    return {
        "engine": f"{kind} {engine['Version']}",
        "postgres": POSTGRES,
        "cores": str(os.cpu_count()),
        "load at the start": f"{os.getloadavg()[0]:.2f}",
        **libraries,
    }
