"""What tests with a real engine share."""

import os
import re
import secrets
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.errors
import pytest

import dockertest

from .differences import DIFFERENCES


@pytest.fixture(scope="session")
def pool(dockertest_pool: dockertest.Pool) -> dockertest.Pool:
    """A pool for tests that do not close it; without an engine skip, but fail in CI."""
    return dockertest_pool


@pytest.fixture
def local(pool: dockertest.Pool) -> str:
    """The path of the engine's socket, for what stands before it."""
    endpoint = str(pool.endpoint)
    if not endpoint.startswith("unix://"):
        pytest.skip("engine: it is remote, and has no socket here")
    return endpoint.removeprefix("unix://")


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that answers nothing at all: a queue that is full, so that the system drops whoever comes."""
    with ExitStack() as opened, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):
            knocking = opened.enter_context(socket.socket())
            knocking.setblocking(False)
            with suppress(BlockingIOError):
                knocking.connect(server.getsockname())
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def name() -> str:
    """A name that nothing else on the engine has."""
    return f"dockertest-{secrets.token_hex(6)}"


class Engine:
    """The engine as the plain docker SDK shows it, to ask what is really there."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        said = client.version()
        self.is_podman = "Podman" in str(said.get("Components"))
        self.version = tuple(int(part) for part in re.findall(r"\d+", said["Version"])[:2])
        self.is_local = client.api.base_url.startswith("http+docker://")
        # Where the ports that it publishes are reached from here, and where it reaches a server of this process.
        self.host = self.here = "127.0.0.1"
        if not self.is_local:
            remote = urlsplit(client.api.base_url)
            self.host = str(remote.hostname)
            with socket.create_connection((self.host, remote.port or 2375)) as near:
                self.here = near.getsockname()[0]

    def has(self, container: str) -> bool:
        """Whether a container of that name or id exists, in whatever state."""
        try:
            self.client.api.inspect_container(container)
        except docker.errors.NotFound:
            return False
        return True

    def inspect(self, container: str) -> dict[str, Any]:
        """Give what the engine knows of a container."""
        found: dict[str, Any] = self.client.api.inspect_container(container)
        return found

    def has_volume(self, volume: str) -> bool:
        """Whether a volume exists."""
        return any(each.name == volume for each in self.client.volumes.list())

    def labelled(self, label: str) -> list[str]:
        """Give the ids of the containers with a label."""
        return [each["Id"] for each in self.client.api.containers(all=True, filters={"label": label})]


@pytest.fixture(scope="session")
def engine(pool: dockertest.Pool) -> Engine:
    """The engine, asked directly."""
    return Engine(pool.client)


def besides_plain_tcp(errors: str) -> str:
    """Give what was said on standard error, but for the warning of an engine that is reached without TLS."""
    return re.sub(r"(?m)^tcp://.* speaks no TLS: .*\n", "", errors)


class Suite:
    """A folder with the tests of somebody else, which runs in processes of its own."""

    def __init__(self, folder: Path, label: str) -> None:
        self.folder = folder
        self.label = label

    def write(self, name: str, text: str) -> None:
        """Write a file; `LABEL` in it becomes a label that nothing else on the engine has."""
        text = textwrap.dedent(text).replace("LABEL", repr({self.label: "1"}))
        (self.folder / name).write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        """Give the command that runs a module of Python in this folder, with warnings as errors."""
        return [sys.executable, "-W", "error", "-m", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """Give this environment, but for what decides whether tests are skipped, with *more*."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "DOCKERTEST_REQUIRED", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        }
        return {**ours, "COLUMNS": "120", **more}

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a module of Python; give its exit code and all that it said."""
        ended = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return ended.returncode, ended.stdout


@pytest.fixture
def suite(tmp_path: Path, name: str) -> Suite:
    """An empty folder for tests that are to be run."""
    return Suite(tmp_path, name)


@pytest.fixture(autouse=True)
def _differences(request: pytest.FixtureRequest) -> None:
    """Skip what cannot hold on this engine, for the reason that stands in one place."""
    for mark in request.node.iter_markers("differs"):
        skip_where_it_differs(mark.args[0], request.getfixturevalue("engine"))


def skip_where_it_differs(what: str, engine: Engine) -> None:
    """Skip a test that cannot hold on this engine; the reason stands in one place."""
    differs, reason = DIFFERENCES[what]
    if differs(engine):
        pytest.skip(f"engine: {reason}")
