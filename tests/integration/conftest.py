"""What tests with a real engine share."""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest

import dockertest


@pytest.fixture(scope="session")
def pool() -> Iterator[dockertest.Pool]:
    """A pool for tests that do not close it; without an engine skip, but fail in CI."""
    try:
        pool = dockertest.Pool()
    except dockertest.DockerUnavailableError as error:
        if os.environ.get("DOCKERTEST_REQUIRED") == "1" or os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with pool:
        yield pool


@pytest.fixture
def name() -> str:
    """A name that nothing else on the engine has."""
    return f"dockertest-{secrets.token_hex(6)}"


class Engine:
    """The engine as the plain docker SDK shows it, to ask what is really there."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

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
