"""Text from engines and containers cannot control the terminal or forge lines."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import docker.models.networks
import pytest

import dockertest

from .conftest import Engine, Suite
from .test_command_line import COMMAND, Terminal

TITLE = "\x1b]0;title\x07"  # sets the title of the window
ERASE = "\x1b[2J"  # erases the screen
PRINT = f"printf '{TITLE}{ERASE}\\033[31mred\\033[0m 50%%\\r100%%\\n'; exit 3"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def network(engine: Engine, name: str) -> Iterator[docker.models.networks.Network]:
    """
    A network whose name has escape sequences and a line break.

    Docker accepts this name. The network has dockertest's labels.
    """
    created = engine.client.networks.create(
        f"{name}{TITLE}{ERASE}\nkept container 'x'",
        internal=True,
        labels={
            "dockertest.managed": "true",
            "dockertest.session": "0" * 32,
            "dockertest.identity": "1.2.3.4",
        },
    )
    yield created
    created.remove()


def test_a_log_in_an_error_is_sanitized(pool: dockertest.Pool) -> None:
    """Its text has no control characters, and the report has the original lines."""
    with (
        pool.run("busybox:1.35", cmd=["sh", "-c", PRINT]) as dead,
        pytest.raises(dockertest.ContainerExitedError) as caught,
    ):
        dead.retry(lambda: False)
    assert not CONTROL.search(str(caught.value))
    assert "\n    red 50% 100%" in str(caught.value)
    assert caught.value.report
    assert ERASE in caught.value.report.logs


@pytest.mark.differs("names of networks")
def test_a_network_name_in_an_error_is_sanitized(
    pool: dockertest.Pool, network: docker.models.networks.Network, name: str
) -> None:
    """The name does not start a new line."""
    with (
        pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network]) as resource,
        pytest.raises(dockertest.NotInNetworkError) as caught,
    ):
        resource.get_ip_in_network("bridge")
    assert not CONTROL.search(str(caught.value))
    assert f"it is in: {name} kept container 'x'" in str(caught.value)


@pytest.mark.differs("names of networks")
def test_a_network_name_in_a_list_is_sanitized(network: docker.models.networks.Network, name: str) -> None:
    """`ps` prints one line for it. JSON is ASCII."""
    ended = subprocess.run([*COMMAND, "ps"], capture_output=True, text=True, check=True)
    assert not CONTROL.search(ended.stdout)
    (row,) = [line for line in ended.stdout.splitlines() if name in line]
    assert row.startswith(str(network.id)[:12])
    ended = subprocess.run([*COMMAND, "ps", "--json"], capture_output=True, text=True, check=True)
    assert ended.stdout.isascii()
    assert network.name in [item["name"] for item in json.loads(ended.stdout)]


def test_a_log_in_a_pytest_section_is_sanitized(suite: Suite) -> None:
    """With and without pytest's own colours."""
    suite.write(
        "test_it.py",
        f"""
        def test_fails(dockertest_pool):
            dockertest_pool.run("busybox:1.35", cmd=["sh", "-c", {PRINT!r}]).wait()
            raise OSError
        """,
    )
    _, output = suite.run("pytest")
    assert "    red 50% 100%" in output
    assert not CONTROL.search(output)


def test_a_followed_log_keeps_only_its_colours(name: str, engine: Engine) -> None:
    """On a terminal, only colours remain, and a colour ends with its line."""
    terminal = Terminal("run", "-f", "busybox:1.35", "--name", name, "sh", "-c", PRINT.replace("exit 3", ""))
    assert terminal.end() == 0
    assert "\x1b[31mred\x1b[0m 50% 100%\x1b[0m\r\n" in terminal.shown
    assert TITLE not in terminal.shown
    assert ERASE not in terminal.shown


HOSTILE = {
    "dockertest.expires": ["9" * 5000, "9" * 400, "٣", "-1", "1e9", "\x1b[2J"],
    "dockertest.session": ["x" * 300, "../" * 100, "a/b", "\x1b[2J\n", ""],
    "dockertest.identity": ["", "....", "1.2.3.4.5", "\x1b[2J", "x" * 5000],
}


@pytest.mark.parametrize(("label", "value"), [(key, value) for key in HOSTILE for value in HOSTILE[key]])
def test_hostile_labels_are_ignored(name: str, engine: Engine, label: str, value: str) -> None:
    """`ps`, a new session and `prune` succeed, and do not remove the container."""
    labels = {
        "dockertest.managed": "true",
        "dockertest.session": name.rpartition("-")[2],
        "dockertest.identity": "1.2.3.4",
        label: value,
    }
    image = f"{os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}busybox:1.35"
    container = engine.client.containers.create(image, name=name, labels=labels)
    try:
        ended = subprocess.run([*COMMAND, "ps", "--json"], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        (item,) = [item for item in json.loads(ended.stdout) if item["name"] == name]
        assert item["standing"] == "elsewhere"
        ended = subprocess.run([*COMMAND, "ps"], capture_output=True, text=True, check=False)
        assert (ended.returncode, CONTROL.search(ended.stdout)) == (0, None), ended.stderr
        with dockertest.Pool() as pool:
            assert container.id not in pool.prune()
        assert engine.has(name)
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("expires", ["9" * 5000, "²", "\u0663"])
def test_hostile_labels_of_images_are_ignored(name: str, engine: Engine, expires: str) -> None:
    """Another user's image may claim to be a prepared one."""
    image = f"{os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}busybox:1.35"
    labels = {"dockertest.prepared": name, "dockertest.prepared-expires": expires}
    container = engine.client.containers.create(image, labels=labels)
    try:
        container.commit(name)  # with the container's labels
        ended = subprocess.run([*COMMAND, "ps", "--json"], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        # Podman adds a registry to the name.
        (item,) = [item for item in json.loads(ended.stdout) if item["name"].endswith(f"{name}:latest")]
        assert (item["standing"], item["expires"]) == ("elsewhere", None)
    finally:
        container.remove()
        engine.client.images.remove(name)


def test_the_doctor_ignores_hostile_labels(name: str, engine: Engine) -> None:
    """It counts such containers as those of another user."""
    image = f"{os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}busybox:1.35"
    labels = {key: values[0] for key, values in HOSTILE.items()} | {"dockertest.managed": "true"}
    container = engine.client.containers.create(image, name=name, labels=labels)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "dockertest", "doctor", "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        checks = {check["what"]: check for check in json.loads(ended.stdout)["findings"]}
        assert checks["leftovers"]["counts"]["elsewhere"] >= 1
    finally:
        container.remove(force=True)
