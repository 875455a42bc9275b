"""Containers that are frozen, get signals, or become images."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

import dockertest

from .conftest import Engine

SLEEP = ["sleep", "600"]
COUNT = ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]
HANDLES_SIGNALS = [
    "sh",
    "-c",
    "trap 'echo reload' HUP; trap 'exit 7' TERM; trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done",
]


class TestPause:
    """A paused container does nothing, but lives."""

    def test_a_paused_container_continues_where_it_stopped(self, pool: dockertest.Pool) -> None:
        """It is neither dead nor restarted."""
        with pool.run("busybox:1.35", cmd=COUNT) as resource:
            resource.wait_for_log("tick")
            resource.pause()
            assert resource.status == "paused"
            resource.check_alive()
            before = resource.logs()
            with pytest.raises(dockertest.RetryTimeoutError):
                pool.retry(lambda: resource.logs() != before, max_wait=0.5)
            resource.unpause()
            assert resource.status == "running"
            pool.retry(lambda: resource.logs() != before)

    def test_pausing_twice_is_an_error(self, pool: dockertest.Pool) -> None:
        """The engine's own words say what state the container is in."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            with pytest.raises(dockertest.EngineError, match="not paused"):
                resource.unpause()
            resource.pause()
            with pytest.raises(dockertest.EngineError, match="already paused"):
                resource.pause()

    @pytest.mark.parametrize("end", ["close", "stop", "restart", "kill"])
    def test_a_paused_container_can_be_ended(self, pool: dockertest.Pool, engine: Engine, end: str) -> None:
        """Engines disagree about that, so it is unpaused before."""
        resource = pool.run("busybox:1.35", cmd=HANDLES_SIGNALS, stop_timeout=60)
        resource.wait_for_log("ready")
        resource.pause()
        options = {"timeout": 60} if end in ("stop", "restart") else {}
        began = time.monotonic()
        getattr(resource, end)(**options)
        assert time.monotonic() - began < 40  # While it is paused, the signal has no effect for a minute.
        if end != "close":
            assert resource.status == ("running" if end == "restart" else "exited")
            resource.close()
        assert not engine.has(resource.id)

    @pytest.mark.parametrize("end", ["stop", "restart"])
    def test_one_that_was_killed_can_be_ended(self, pool: dockertest.Pool, end: str) -> None:
        """A kill ends the pause as well."""
        with pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0) as resource:
            resource.pause()
            resource.kill()
            if end == "stop":
                resource.start()
            getattr(resource, end)()
            assert resource.status == ("running" if end == "restart" else "exited")

    def test_a_reused_container_is_unpaused(self, pool: dockertest.Pool, name: str) -> None:
        """Others would replace it."""
        first = pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        try:
            first.pause()
            first.close()
            second = pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
            assert second.id == first.id
        finally:
            pool.remove_container_by_name(name)

    def test_a_paused_container_is_removed_after_a_kill(self, engine: Engine) -> None:
        """The reaper can remove it too."""
        program = """
import dockertest, sys
resource = dockertest.Pool().run("busybox:1.35", cmd=["sleep", "600"])
resource.pause()
print(resource.id, flush=True)
sys.stdin.read()
"""
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            container = process.stdout.readline().strip()
            os.kill(process.pid, signal.SIGKILL)
        dockertest.retry(lambda: not engine.has(container), max_wait=30)


class TestKill:
    """Signals from a test."""

    def test_a_container_that_is_killed_is_not_reported(self, pool: dockertest.Pool) -> None:
        """The test wanted it; a wait for that very container fails nevertheless."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            resource.kill()
            assert resource.status == resource.container.status == "exited"
            assert pool.retry(lambda: "others go on", max_wait=5) == "others go on"
            with pytest.raises(dockertest.ContainerExitedError, match="SIGKILL"):
                resource.retry(lambda: False, max_wait=5)
            with pytest.raises(dockertest.ContainerExitedError):
                resource.kill()
            resource.start()
            assert resource.status == "running"

    def test_a_signal_that_ends_nothing(self, pool: dockertest.Pool) -> None:
        """A crash after it is still reported."""
        with pool.run("busybox:1.35", cmd=HANDLES_SIGNALS) as resource:
            resource.wait_for_log("ready")
            names: list[str | int] = ["HUP", "sighup", 1, signal.SIGHUP]
            for count, name in enumerate(names, 1):
                resource.kill(name)
                resource.wait_for_log("reload", count=count)
            resource.kill("USR1")
            with pytest.raises(dockertest.ContainerExitedError) as error:
                pool.retry(lambda: False, max_wait=20)
            assert error.value.exit_code == 9

    def test_a_signal_that_the_command_handles(self, pool: dockertest.Pool) -> None:
        """It exits with its own code, which is not reported."""
        with pool.run("busybox:1.35", cmd=HANDLES_SIGNALS) as resource:
            resource.wait_for_log("ready")
            resource.kill("term")
            dockertest.retry(lambda: resource.status == "exited", max_wait=20)
            assert pool.retry(lambda: "others go on", max_wait=5) == "others go on"
            assert resource.wait() == 7


class TestCommit:
    """Images made of containers."""

    def test_an_image_has_the_files_and_the_settings(self, pool: dockertest.Pool, name: str) -> None:
        """A container of it has the state of the first one."""
        with pool.run("busybox:1.35", cmd=SLEEP, env={"COLOUR": "blue"}, labels={"mine": "1"}) as resource:
            resource.write_file("/data/state", "kept")
            image = resource.commit(name, "v1")
        try:
            assert image.startswith("sha256:")
            with pool.run(image) as copy:
                assert copy.read_file("/data/state") == b"kept"
                assert copy.exec(["sh", "-c", "echo $COLOUR"]).stdout == "blue\n"
                assert copy.container.labels["mine"] == "1"
        finally:
            pool.client.images.remove(f"{name}:v1")

    def test_a_container_of_the_image_is_not_ours(self, engine: Engine, name: str) -> None:
        """
        It has none of our labels' values.

        It stays when the session of the first container is cleaned up.
        """
        program = """
import dockertest, sys
pool = dockertest.Pool(ttl=3600)
resource = pool.run("busybox:1.35", cmd=["sleep", "600"])
print(resource.id, resource.commit(sys.argv[1]), flush=True)
sys.stdin.read()
"""
        command = [sys.executable, "-c", program, name]
        foreign = None
        try:
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout
                container, image = process.stdout.readline().split()
                foreign = engine.client.containers.run(image, ["sleep", "600"], detach=True)
                os.kill(process.pid, signal.SIGKILL)
            labels = engine.inspect(str(foreign.id))["Config"]["Labels"]
            assert not any(value for label, value in labels.items() if label.startswith("dockertest."))
            dockertest.retry(lambda: not engine.has(container), max_wait=30)
            with dockertest.Pool() as pool:
                assert foreign.id not in pool.prune()
                assert foreign.id not in [item.id for item in pool.inventory()]
            assert engine.inspect(str(foreign.id))["State"]["Running"]
        finally:
            if foreign:
                foreign.remove(force=True)
            engine.client.images.remove(f"{name}:latest")


def test_invalid_arguments_are_rejected(pool: dockertest.Pool) -> None:
    """The engine is not asked."""
    signals: list[Any] = ["", "NOPE", 0, 65, -9, "9x", None, True, b"KILL", 1.5]
    names = ["Upper", "a:b:c", "sha256:" + "0" * 64, "a@sha256:" + "0" * 64, ""]
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        for value in signals:
            with pytest.raises(dockertest.InvalidOptionError, match="signal: invalid"):
                resource.kill(value)
        for name in names:
            with pytest.raises(dockertest.InvalidOptionError, match="repository"):
                resource.commit(name)
        assert resource.status == "running"


def test_a_closed_resource_is_not_touched(pool: dockertest.Pool) -> None:
    """The error is `ResourceClosedError`."""
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    resource.close()
    for call in (resource.pause, resource.unpause, resource.kill, lambda: resource.commit("image")):
        with pytest.raises(dockertest.ResourceClosedError):
            call()
