"""Containers that outlive their session on purpose, and are taken again instead of started anew."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import dockertest
from dockertest import RunOptions
from dockertest._cleanup import reaper_client as _lifeline
from tests.engines.fault_proxy import FaultProxy, edit

from .conftest import Engine

PROGRAM = """
import dockertest, sys
pool = dockertest.Pool()
print("ready", flush=True)
sys.stdin.readline()
resource = pool.run("busybox:1.35", name=sys.argv[1], cmd=["sleep", "600"], reuse=True)
print(resource.id, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def server(name: str, pool: dockertest.Pool) -> Iterator[RunOptions]:
    """What to start: reused by whoever uses the same name, and gone after the test."""
    yield RunOptions(repository="busybox:1.35", name=name, cmd=["sleep", "600"], reuse=True)
    pool.remove_container_by_name(name)


class TestTaking:
    """What is just what is asked for is taken, all else is not."""

    def test_the_second_run_takes_the_first_ones_container(self, server: RunOptions, engine: Engine) -> None:
        """In another pool, after the first one is closed: closing leaves it running."""
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
        assert engine.inspect(first.id)["State"]["Running"]
        with dockertest.Pool() as pool:
            second = pool.run_with_options(server)
            assert second.id == first.id
            assert second.exec(["echo", "alive"]).stdout == "alive\n"
            second.close()
            assert engine.has(first.id)

    def test_a_name_of_ones_own_is_not_needed(self, engine: Engine) -> None:
        """Then the container is called after what it is."""
        with dockertest.Pool() as pool:
            command = ["sh", "-c", f"sleep 600 # {os.getpid()} {time.time()}"]
            first = pool.run("busybox:1.35", cmd=command, reuse=True)
            try:
                assert first.name.startswith("dockertest-")
                assert pool.run("busybox:1.35", cmd=command, reuse=True).id == first.id
            finally:
                pool.purge(first)
            assert not engine.has(first.id)

    @pytest.mark.parametrize(
        "change",
        [
            {"env": {"A": "1"}},
            {"cmd": ["sleep", "601"]},
            {"labels": {"a": "b"}},
            {"files": {"/etc/x": "y"}},
            {"exposed_ports": ["80"]},
            {"shm_size": "65m"},
            {"reuse": "some group"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_other_options_are_another_container(
        self, server: RunOptions, engine: Engine, change: "dict[str, object]"
    ) -> None:
        """It would silently be the wrong server otherwise; what has its name is named, with what helps."""
        fields = {"repository": "busybox:1.35", "name": server.name, "cmd": ["sleep", "600"], "reuse": True}
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
            with pytest.raises(
                dockertest.ContainerCreateError, match="has the name that a container to be"
            ) as told:
                pool.run_with_options(RunOptions(**{**fields, **change}))  # type: ignore[arg-type]
            assert f"remove it with: docker rm -f -v {first.id[:12]}" in str(told.value)
            assert engine.inspect(first.id)["State"]["Running"]

    def test_the_order_of_the_environment_does_not_count(self, server: RunOptions) -> None:
        """Workers of a test runner would else start a server each, since a set's order is each process's own."""
        variables = ["A=1", "B=2", "C=3=4"]
        with dockertest.Pool() as pool:
            ids = {
                pool.run_with_options(replace(server, env=env)).id
                for env in (variables, variables[::-1], {"B": 2, "C": "3=4", "A": 1})
            }
            assert len(ids) == 1
            with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                pool.run_with_options(replace(server, env={"A": 1, "B": 2}))

    def test_a_modifier_counts(self, server: RunOptions) -> None:
        """The final request is what is compared, not the options."""
        with dockertest.Pool() as pool:
            pool.run_with_options(server)
            with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                pool.run_with_options(server, lambda host: host.update(ShmSize=1 << 27))

    def test_files_count_by_what_is_in_them(self, server: RunOptions, name: str, tmp_path: Path) -> None:
        """Not by their dates: a checkout gives them new ones."""
        config = tmp_path / "conf.d"
        config.mkdir()
        (config / "a.conf").write_text("x = 1")
        options = RunOptions(
            repository="busybox:1.35",
            name=name,
            cmd=["sleep", "600"],
            files={"/etc/conf.d": config},
            reuse=True,
        )
        with dockertest.Pool() as pool:
            first = pool.run_with_options(options)
            os.utime(config / "a.conf", (1, 1))
            assert pool.run_with_options(options).id == first.id
            (config / "a.conf").write_text("x = 2")
            with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                pool.run_with_options(options)

    def test_a_container_of_ones_own_is_never_taken(self, server: RunOptions, engine: Engine) -> None:
        """Started by hand under the same name: it is left alone, and the error says so."""
        own = engine.client.containers.run(
            "dockertest.local/busybox:1.35", ["sleep", "600"], name=server.name, detach=True
        )
        with dockertest.Pool() as pool:
            with pytest.raises(dockertest.ContainerCreateError, match="or by hand"):
                pool.run_with_options(server)
            assert engine.has(str(own.id))

    def test_a_network_of_the_pool_is_refused(self, server: RunOptions, name: str) -> None:
        """It would go, and the container would stay, one more with each run."""
        with dockertest.Pool() as pool, pool.create_network() as network:
            for each in (network, network.name, network.id):
                with pytest.raises(dockertest.InvalidOptionError, match="reuse: the container would outlive"):
                    pool.run("busybox:1.35", name=name, networks=[each], reuse=True)
            assert pool.container_by_name(name) is None

    def test_a_group_is_another_owner(self, engine: Engine, name: str) -> None:
        """Who names it, shares it."""
        with dockertest.Pool() as pool:
            command = ["sh", "-c", f"sleep 600 # {name}"]
            made = [pool.run("busybox:1.35", cmd=command, reuse=each) for each in (True, name, name)]
            try:
                assert made[0].id != made[1].id == made[2].id
            finally:
                for each in made:
                    pool.purge(each)


class TestReplacing:
    """One that is of no use is replaced."""

    @pytest.mark.parametrize("ending", ["kill", "pause", "stop"])
    def test_a_dead_or_paused_one(self, server: RunOptions, engine: Engine, ending: str) -> None:
        """Nobody is there who would start it again."""
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
        getattr(engine.client.containers.get(first.id), ending)(
            **({"timeout": 0} if ending == "stop" else {})
        )
        with dockertest.Pool() as pool:
            second = pool.run_with_options(server)
            assert second.id != first.id
            assert second.status == "running"
        assert not engine.has(first.id)

    @pytest.mark.differs("health checks")
    def test_an_unhealthy_one(self, engine: Engine, name: str) -> None:
        """Its health check knows best."""
        options = RunOptions(
            repository="busybox:1.35",
            name=name,
            cmd=["sleep", "600"],
            healthcheck={"test": "test ! -e /ill", "interval": 0.1, "timeout": 5, "retries": 1},
            reuse=True,
        )
        with dockertest.Pool() as pool:
            first = pool.run_with_options(options)
            first.wait_healthy()
            assert pool.run_with_options(options).id == first.id
            first.write_file("/ill", b"")
            first.retry(lambda: first.health == "unhealthy")
            second = pool.run_with_options(options)
            assert second.id != first.id
            assert not engine.has(first.id)
            pool.purge(second)

    def test_one_past_its_time(
        self, server: RunOptions, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Any session may remove it at any moment, so it is not taken any more."""
        monkeypatch.setenv("DOCKERTEST_TTL", "1")
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
            dockertest.retry(lambda: pool.run_with_options(server).id != first.id, max_wait=10)
        assert not engine.has(first.id)

    def test_one_that_nobody_is_left_to_start(self, server: RunOptions, engine: Engine) -> None:
        """Its maker was killed between creating and starting it, with its reaper: the lock is free."""
        code = """
import dockertest, os, signal, sys
from dockertest import _launch
pool = dockertest.Pool(reaper=False)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
_launch.Launch._start = die
pool.run("busybox:1.35", name=sys.argv[1], cmd=["sleep", "600"], reuse=True)
"""
        subprocess.run([sys.executable, "-c", code, server.name], check=False)
        created = engine.inspect(server.name)
        assert created["State"]["Status"] == "created"
        with dockertest.Pool(timeout=5) as pool:
            taken = pool.run_with_options(server)
            assert taken.id != created["Id"]
            assert taken.status == "running"


class TestSharing:
    """The engine gives a name to one alone."""

    def test_one_that_has_just_been_started_is_taken_with_its_ports(
        self, server: RunOptions, tmp_path: Path
    ) -> None:
        """Engines call it running a moment before they have bound them."""
        options = replace(server, exposed_ports=["8080"])
        with FaultProxy(tmp_path / "x").running() as proxy, dockertest.Pool(proxy.endpoint) as other:
            with dockertest.Pool(proxy.endpoint) as first:
                first.run_with_options(options)
            proxy.next(
                f"GET .*/containers/{server.name}/json",
                edit(rb'"8080/tcp":\[{[^]]*"HostPort":"\d+"}\]', b'"8080/tcp":null'),
            )
            taken = other.run_with_options(options)
            assert taken.container.attrs["NetworkSettings"]["Ports"]["8080/tcp"]

    def test_ten_processes_get_one_container(self, server: RunOptions, engine: Engine) -> None:
        """And when all of them are killed, it is still there."""
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, server.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(10)
        ]
        try:
            for each in processes:
                assert each.stdout is not None
                assert each.stdout.readline() == "ready\n"
            for each in processes:
                assert each.stdin is not None
                each.stdin.write("go\n")
                each.stdin.flush()
            ids = {each.stdout.readline().strip() for each in processes if each.stdout}
            assert len(ids) == 1
        finally:
            for each in processes:
                each.kill()
                each.communicate()
        with dockertest.Pool() as pool:
            assert pool.run_with_options(server).id == ids.pop()

    def test_two_runs_of_one_pool_are_two_handles(self, server: RunOptions) -> None:
        """Closing the one leaves the other as it is."""
        with dockertest.Pool() as pool:
            first, second = pool.run_with_options(server), pool.run_with_options(server)
            first.close()
            assert second.status == "running"
            with pytest.raises(dockertest.ResourceClosedError):
                first.exec(["true"])


class TestEnding:
    """It goes when somebody says so, and only then."""

    def test_the_reaper_leaves_it(self, server: RunOptions, engine: Engine, tmp_path: Path) -> None:
        """Its process is killed: what else that session made is removed, the reused container stays."""
        code = """
import dockertest, json, os, signal, sys
pool = dockertest.Pool()
reused = pool.run("busybox:1.35", name=sys.argv[1], cmd=["sleep", "600"], reuse=True)
other = pool.run("busybox:1.35", cmd=["sleep", "600"])
print(json.dumps([reused.id, other.id]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        ended = subprocess.run(
            [sys.executable, "-c", code, server.name], stdout=subprocess.PIPE, text=True, check=False
        )
        assert ended.returncode == -signal.SIGKILL
        reused, other = json.loads(ended.stdout)
        dockertest.retry(lambda: not engine.has(other), max_wait=15)
        assert engine.inspect(reused)["State"]["Running"]
        with dockertest.Pool() as pool:
            pool.prune()  # of a dead session, but meant to stay
            assert pool.run_with_options(server).id == reused

    def test_a_deadline_ends_it_after_the_process(self, server: RunOptions, engine: Engine) -> None:
        """`expire` holds although the pool is closed."""
        with dockertest.Pool() as pool:
            resource = pool.run_with_options(server)
            resource.expire(1)
        assert engine.has(resource.id)
        dockertest.retry(lambda: not engine.has(resource.id), max_wait=15)

    @pytest.mark.parametrize("said", [600, None])
    def test_the_deadline_that_was_set_last_counts(
        self, server: RunOptions, engine: Engine, said: "float | None"
    ) -> None:
        """Whichever process set it, as when each run begins with one: the first one's reaper leaves the second one alone."""
        code = f"""
import dockertest
with dockertest.Pool() as pool:
    pool.run("busybox:1.35", name={server.name!r}, cmd=["sleep", "600"], reuse=True).expire(2)
"""
        subprocess.run([sys.executable, "-c", code], check=True)
        with dockertest.Pool() as pool:
            resource = pool.run_with_options(server)
            resource.expire(said)
            other = pool.run("busybox:1.35", cmd=["sleep", "600"])
            other.expire(3)
            # By then the first one's deadline is over.
            dockertest.retry(lambda: not engine.has(other.id), max_wait=15)
            assert engine.inspect(resource.id)["State"]["Running"]
            resource.expire(0)
            dockertest.retry(lambda: not engine.has(resource.id), max_wait=15)
            assert list(pool._lifeline._state.glob(f"{resource.id}*")) == []

    def test_purge_removes_it(self, server: RunOptions, engine: Engine) -> None:
        """By whichever handle; then other handles of it are of no use."""
        with dockertest.Pool() as pool:
            first, second = pool.run_with_options(server), pool.run_with_options(server)
            pool.purge(second)
            assert not engine.has(first.id)
            assert len(pool._owned) == 0

    def test_prune_removes_it_if_asked(
        self, server: RunOptions, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And only by its user: here one of the test's own, since the machine's has others in use."""
        user, _, machine = server.name, *_lifeline.identity().split(".")[:2]
        monkeypatch.setattr(_lifeline, "identity", lambda: f"{user}.{machine}.boot.1")
        with dockertest.Pool(reaper=False) as pool:
            resource = pool.run_with_options(server)
        with dockertest.Pool(reaper=False) as pool:
            assert resource.id not in pool.prune()
            monkeypatch.setattr(_lifeline, "identity", lambda: f"{user}-other.{machine}.boot.1")
            assert resource.id not in pool.prune(reused=True)
            monkeypatch.setattr(_lifeline, "identity", lambda: f"{user}.{machine}.boot.2")
            assert engine.has(resource.id)
            assert resource.id in pool.prune(reused=True)
        assert not engine.has(resource.id)

    def test_its_death_ends_a_wait(self, server: RunOptions, engine: Engine) -> None:
        """Although another session made it."""
        with dockertest.Pool() as pool:
            pool.run_with_options(server)
        with dockertest.Pool() as pool:
            taken = pool.run_with_options(server)
            killing = threading.Timer(0.2, lambda: engine.client.containers.get(taken.id).kill())
            killing.start()
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 137"):
                pool.retry(lambda: False, max_wait=20)
            killing.join()
