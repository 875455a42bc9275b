"""Fixtures and helpers for tests with a real engine."""

import os
import re
import secrets
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.errors
import pytest

import dockertest
from tests.conftest import NO_UNUSED_PLUGINS

from .differences import DIFFERENCES


@pytest.fixture(scope="session")
def pool(dockertest_pool: dockertest.Pool) -> dockertest.Pool:
    """
    A pool that tests must not close.

    Without an engine, the tests are skipped, or fail in CI.
    """
    return dockertest_pool


@pytest.fixture
def local(pool: dockertest.Pool) -> str:
    """The path of the engine's socket, for proxies in front of it."""
    endpoint = str(pool.endpoint)
    if not endpoint.startswith("unix://"):
        pytest.skip("engine: it is remote, and has no socket here")
    return endpoint.removeprefix("unix://")


@contextmanager
def dead_port(port: int = 0) -> Iterator[str]:
    """
    Provide the address of a port that drops every packet.

    The queue of the port is full, so the system drops the packets.
    """
    with ExitStack() as opened, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(0)
        for _ in range(8):
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(server.getsockname())
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that does not answer at all."""
    with dead_port() as address:
        yield address


@pytest.fixture
def name() -> str:
    """A name that nothing else on the engine has."""
    return f"dockertest-{secrets.token_hex(6)}"


class Engine:
    """The engine as the plain docker SDK sees it, to check what really exists."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        info = client.version()
        self.is_podman = "Podman" in str(info.get("Components"))
        self.version = tuple(int(part) for part in re.findall(r"\d+", info["Version"])[:2])
        self.is_local = client.api.base_url.startswith("http+docker://")
        # `host` is where this process reaches published ports, `here` where the engine reaches this process.
        self.host = self.here = "127.0.0.1"
        if not self.is_local:
            remote = urlsplit(client.api.base_url)
            self.host = str(remote.hostname)
            with socket.create_connection((self.host, remote.port or 2375)) as near:
                self.here = near.getsockname()[0]

    def has(self, container: str) -> bool:
        """Return whether a container with that name or id exists, in any state."""
        try:
            self.client.api.inspect_container(container)
        except docker.errors.APIError as error:
            if "no such container" not in str(error).lower():  # Podman answers 500 while it removes one.
                raise
            return False
        return True

    def inspect(self, container: str) -> dict[str, Any]:
        """Return the engine's description of a container."""
        attrs: dict[str, Any] = self.client.api.inspect_container(container)
        return attrs

    def remove(self, container: str) -> None:
        """
        Kill and remove a container, running or not, if it exists.

        Without the kill, Podman 5 would wait for 10 s.
        """
        with suppress(docker.errors.APIError):  # It does not run.
            self.client.api.kill(container)
        with suppress(docker.errors.NotFound):
            self.client.api.remove_container(container, force=True, v=True)

    def has_volume(self, volume: str) -> bool:
        """Return whether a volume exists."""
        return any(item.name == volume for item in self.client.volumes.list())

    def has_image(self, name: str) -> bool:
        """Return whether an image with that name exists."""
        try:
            self.client.images.get(name)
        except docker.errors.ImageNotFound:
            return False
        return True

    def images(self, label: str, *, everything: bool = False) -> list[str]:
        """
        Return the ids of the images with a label.

        It retries, because Podman cannot list images while another one is being removed.
        """
        listed = dockertest.retry(
            lambda: self.client.api.images(filters={"label": label}, all=everything), max_wait=10
        )
        return [image["Id"] for image in listed]

    def labelled(self, label: str) -> list[str]:
        """Return the ids of the containers with a label."""
        return [
            container["Id"] for container in self.client.api.containers(all=True, filters={"label": label})
        ]


@pytest.fixture(scope="session")
def engine(pool: dockertest.Pool) -> Engine:
    """The engine, without dockertest in between."""
    return Engine(pool.client)


def without_tls_warning(errors: str) -> str:
    """Return error output without the warning about an engine without TLS."""
    return re.sub(r"(?m)^tcp://.* does not use TLS: .*\n", "", errors)


class Suite:
    """A folder of a user's tests, which run in a separate process with a time limit."""

    def __init__(self, folder: Path, label: str) -> None:
        self.folder = folder
        self.label = label
        self.seconds = 120

    def write(self, name: str, text: str) -> None:
        """Write a file, with `LABEL` replaced by a label that is unique on the engine."""
        text = textwrap.dedent(text).replace("LABEL", repr({self.label: "1"}))
        (self.folder / name).write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs a Python module with warnings as errors."""
        return [sys.executable, "-W", "error", "-m", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """
        Return the environment for the process, updated with *more*.

        It has no variables that affect which tests are skipped or which plugins load.
        """
        ours = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "DOCKERTEST_REQUIRED", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        }
        return {**ours, "COLUMNS": "120", "PYTEST_ADDOPTS": NO_UNUSED_PLUGINS, **more}

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a Python module, and return its exit code and its output."""
        ended = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        return ended.returncode, ended.stdout


@pytest.fixture
def suite(tmp_path: Path, name: str) -> Suite:
    """An empty folder for tests to run."""
    return Suite(tmp_path, name)


@pytest.fixture(autouse=True)
def _differences(request: pytest.FixtureRequest) -> None:
    """Skip tests of features that this engine does not support."""
    for mark in request.node.iter_markers("differs"):
        skip_if_unsupported(mark.args[0], request.getfixturevalue("engine"))


def skip_if_unsupported(feature: str, engine: Engine) -> None:
    """
    Skip a test of a feature that this engine does not support.

    `DIFFERENCES` contains the reason.
    """
    is_unsupported, reason = DIFFERENCES[feature]
    if is_unsupported(engine):
        pytest.skip(reason if reason.startswith("machine: ") else f"engine: {reason}")
