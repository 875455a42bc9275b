"""Containers with `reuse` outlive their session and are reused by later ones."""

import functools
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
from typing import Any

import pytest

import dockertest
from dockertest import RunOptions
from dockertest._cleanup import reaper_client as _lifeline
from tests.engines.fault_proxy import FaultProxy, edit, swallow

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
    """Options for a reused container with a unique name, removed after the test."""
    yield RunOptions(repository="busybox:1.35", name=name, cmd=["sleep", "600"], reuse=True)
    pool.remove_container_by_name(name)


class TestMatching:
    """Only a container with exactly the requested configuration is reused."""

    def test_the_second_run_reuses_the_container(self, server: RunOptions, engine: Engine) -> None:
        """The container outlives the first pool, and another pool reuses it."""
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
        assert engine.inspect(first.id)["State"]["Running"]
        with dockertest.Pool() as pool:
            second = pool.run_with_options(server)
            assert second.id == first.id
            assert second.exec(["echo", "alive"]).stdout == "alive\n"
            second.close()
            assert engine.has(first.id)

    def test_a_name_is_not_required(self, engine: Engine) -> None:
        """Without one, the container's name is derived from its configuration."""
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
    def test_other_options_require_another_container(
        self, server: RunOptions, engine: Engine, change: "dict[str, object]"
    ) -> None:
        """
        The wrong server must not be used silently.

        The error names the container and the remedy.
        """
        fields = {"repository": "busybox:1.35", "name": server.name, "cmd": ["sleep", "600"], "reuse": True}
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
            with pytest.raises(
                dockertest.ContainerCreateError, match="has the name of the container to reuse"
            ) as caught:
                pool.run_with_options(RunOptions(**{**fields, **change}))  # type: ignore[arg-type]
            assert f"remove it with: docker rm -f -v {first.id[:12]}" in str(caught.value)
            assert engine.inspect(first.id)["State"]["Running"]

    def test_the_order_of_the_environment_is_ignored(self, server: RunOptions) -> None:
        """
        The order of a set differs between processes.

        If it mattered, each worker of a test runner would start a server.
        """
        variables = ["A=1", "B=2", "C=3=4"]
        with dockertest.Pool() as pool:
            ids = {
                pool.run_with_options(replace(server, env=env)).id
                for env in (variables, variables[::-1], {"B": 2, "C": "3=4", "A": 1})
            }
            assert len(ids) == 1
            with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                pool.run_with_options(replace(server, env={"A": 1, "B": 2}))

    def test_modifiers_are_compared(self, server: RunOptions) -> None:
        """The final request is compared, not the options."""
        with dockertest.Pool() as pool:
            pool.run_with_options(server)
            with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                pool.run_with_options(server, lambda host: host.update(ShmSize=1 << 27))

    def test_files_are_compared_by_content(self, server: RunOptions, name: str, tmp_path: Path) -> None:
        """Dates are ignored, because a checkout changes them."""
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

    @pytest.mark.parametrize(
        "difference", [{"command": ["sleep", "601"]}, {"environment": {"A": "2"}}], ids=str
    )
    def test_copied_labels_are_not_sufficient(
        self, server: RunOptions, engine: Engine, difference: "dict[str, Any]"
    ) -> None:
        """Another user can copy all labels to a container with another configuration."""
        options = replace(server, env={"A": "1"})
        with dockertest.Pool() as pool:
            original = pool.run_with_options(options)
            labels = original.container.labels
            pool.purge(original)
            own = {"command": ["sleep", "600"], "environment": {"A": "1"}, **difference}
            image = f"{os.environ['DOCKERTEST_IMAGE_PREFIX']}busybox:1.35"
            fake = engine.client.containers.run(image, name=server.name, labels=labels, detach=True, **own)
            with pytest.raises(dockertest.ContainerCreateError, match="or by hand"):
                pool.run_with_options(options)
            assert engine.inspect(str(fake.id))["State"]["Running"]
            fake.remove(force=True, v=True)

    def test_a_container_started_by_hand_is_never_reused(self, server: RunOptions, engine: Engine) -> None:
        """If it has the same name, it is left alone and reported."""
        own = engine.client.containers.run(
            "dockertest.local/busybox:1.35", ["sleep", "600"], name=server.name, detach=True
        )
        with dockertest.Pool() as pool:
            with pytest.raises(dockertest.ContainerCreateError, match="or by hand"):
                pool.run_with_options(server)
            assert engine.has(str(own.id))

    def test_a_network_of_the_pool_is_rejected(self, server: RunOptions, name: str) -> None:
        """The pool would remove the network, and each run would leave another container."""
        with dockertest.Pool() as pool, pool.create_network() as network:
            for key in (network, network.name, network.id):
                with pytest.raises(dockertest.InvalidOptionError, match="reuse: the container would outlive"):
                    pool.run("busybox:1.35", name=name, networks=[key], reuse=True)
            assert pool.container_by_name(name) is None

    def test_a_group_has_its_own_containers(self, engine: Engine, name: str) -> None:
        """They are shared by all users of the group's name."""
        with dockertest.Pool() as pool:
            command = ["sh", "-c", f"sleep 600 # {name}"]
            resources = [pool.run("busybox:1.35", cmd=command, reuse=group) for group in (True, name, name)]
            try:
                assert resources[0].id != resources[1].id == resources[2].id
            finally:
                for resource in resources:
                    pool.purge(resource)


class TestReplacing:
    """Unusable containers are replaced."""

    @pytest.mark.parametrize("ending", ["kill", "pause", "stop"])
    def test_a_dead_or_paused_container(self, server: RunOptions, engine: Engine, ending: str) -> None:
        """No other process would start it again."""
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
    def test_an_unhealthy_container(self, engine: Engine, name: str) -> None:
        """The result of the health check decides."""
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

    def test_an_expired_container(
        self, server: RunOptions, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Any session may remove it at any moment, so it is no longer reused."""
        monkeypatch.setenv("DOCKERTEST_TTL", "8")
        with dockertest.Pool() as pool:
            first = pool.run_with_options(server)
            dockertest.retry(lambda: pool.run_with_options(server).id != first.id, max_wait=60)
        assert not engine.has(first.id)

    def test_a_container_that_was_never_started(self, server: RunOptions, engine: Engine) -> None:
        """
        Its creator was killed before the start, without a reaper.

        The creator's lock is free.
        """
        code = """
import dockertest, os, signal, sys
from dockertest._containers import launch as _launch
pool = dockertest.Pool(reaper=False)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
_launch._start = die
pool.run("busybox:1.35", name=sys.argv[1], cmd=["sleep", "600"], reuse=True)
"""
        subprocess.run([sys.executable, "-c", code, server.name], check=False)
        created = engine.inspect(server.name)
        assert created["State"]["Status"] == "created"
        with dockertest.Pool(timeout=5) as pool:
            reused = pool.run_with_options(server)
            assert reused.id != created["Id"]
            assert reused.status == "running"


class TestEnd:
    """`Reuse` removes a container that is no longer used, or has other options."""

    def test_an_idle_one_is_removed(self, engine: Engine, name: str) -> None:
        """
        The time counts from the end of the last session.

        The reaper of the process keeps running for it.
        """
        code = """
import dockertest, sys
with dockertest.Pool() as pool:
    reuse = dockertest.Reuse(idle=float(sys.argv[2]))
    print(pool.run("busybox:1.35", name=sys.argv[1], cmd=["sleep", "600"], reuse=reuse).id)
"""
        command = [sys.executable, "-c", code, name, "12"]
        run = functools.partial(subprocess.run, command, stdout=subprocess.PIPE, text=True, check=True)
        first = run()
        second = run()
        ended = time.monotonic()
        assert first.stdout == second.stdout
        dockertest.retry(lambda: not engine.has(name), max_wait=40)
        assert time.monotonic() - ended > 8

    def test_an_idle_one_is_kept_while_a_session_uses_it(self, engine: Engine, name: str) -> None:
        """This does not depend on which session has started it."""
        reuse = dockertest.Reuse(idle=0)
        with dockertest.Pool() as user:
            with dockertest.Pool() as maker:
                made = maker.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=reuse)
                assert user.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=reuse).id == made.id
            user.prune()
            assert made.id in engine.labelled("dockertest.idle=0.000")
        dockertest.retry(lambda: not engine.has(made.id), max_wait=15)

    def test_an_idle_one_is_kept_by_a_pool_that_keeps(self, engine: Engine, name: str) -> None:
        """Also if another session has started it."""
        options = RunOptions(
            repository="busybox:1.35", name=name, cmd=["sleep", "600"], reuse=dockertest.Reuse(idle=1)
        )
        with dockertest.Pool() as maker, dockertest.Pool(keep=True) as keeper, dockertest.Pool() as other:
            made = maker.run_with_options(options)
            assert keeper.run_with_options(options).id == made.id
            maker.close()
            keeper.close()
            assert other.run("busybox:1.35", cmd=["sleep", "4"]).wait() == 0
            assert engine.has(made.id)
            other.remove_container_by_name(name)

    @pytest.mark.parametrize("reaper", ["0", "1"])
    def test_an_idle_one_of_a_killed_process_is_removed(
        self, engine: Engine, name: str, reaper: str, tmp_path: Path
    ) -> None:
        """Its reaper does it, or the next session's if that is gone too."""
        code = """
import dockertest, os, signal, sys
pool = dockertest.Pool()
reuse = dockertest.Reuse(idle=1)
print(pool.run("busybox:1.35", name=sys.argv[1], cmd=["sleep", "600"], reuse=reuse).id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        killed = subprocess.run(
            [sys.executable, "-c", code, name],
            env={**environment, "DOCKERTEST_REAPER": reaper},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        if reaper == "0":
            assert engine.inspect(name)["State"]["Running"]
            code = "import dockertest\nwith dockertest.Pool() as pool:\n    pool.create_network()"
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        dockertest.retry(lambda: not engine.has(name), max_wait=15)

    def test_one_with_other_options_is_replaced(self, server: RunOptions, engine: Engine) -> None:
        """But not while a living session uses it."""
        other = replace(server, env={"A": "1"}, reuse=dockertest.Reuse(replaces=True))
        with dockertest.Pool() as pool, dockertest.Pool() as user:
            with dockertest.Pool() as maker:
                made = maker.run_with_options(server)
                assert user.run_with_options(server).id == made.id
            with pytest.raises(dockertest.ContainerCreateError, match="used by a living session"):
                pool.run_with_options(other)
            user.close()
            replacing = pool.run_with_options(other)
            assert replacing.id != made.id
            assert not engine.has(made.id)
            with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                pool.run_with_options(server)

    def test_one_that_this_pool_has_used_is_replaced(self, server: RunOptions, engine: Engine) -> None:
        """Once its handle is closed."""
        with dockertest.Pool() as pool:
            made = pool.run_with_options(server)
            other = replace(server, env={"A": "1"}, reuse=dockertest.Reuse(replaces=True))
            with pytest.raises(dockertest.ContainerCreateError, match="this pool still uses it"):
                pool.run_with_options(other)
            made.close()
            replacing = pool.run_with_options(other)
            assert replacing.status == "running"
            assert not engine.has(made.id)
            pool.purge(replacing)

    def test_one_of_another_owner_is_not_replaced(self, engine: Engine, name: str) -> None:
        """
        A container that was started by hand or belongs to a group is not replaced.

        The use of a group's container cannot be detected.
        """
        reuse = dockertest.Reuse(replaces=True)
        image = f"{os.environ['DOCKERTEST_IMAGE_PREFIX']}busybox:1.35"
        own = engine.client.containers.run(image, ["sleep", "600"], name=name, detach=True)
        with dockertest.Pool() as pool:
            with pytest.raises(dockertest.ContainerCreateError, match="or by hand"):
                pool.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=reuse)
            own.remove(force=True, v=True)
            group = pool.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=name)
            with pytest.raises(dockertest.ContainerCreateError, match="has the name"):
                pool.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=reuse)
            pool.purge(group)


class TestSharing:
    """The engine guarantees that a name is unique."""

    def test_a_container_that_was_just_started_has_its_ports(
        self, server: RunOptions, tmp_path: Path
    ) -> None:
        """Engines report it as running shortly before its ports are bound."""
        options = replace(server, exposed_ports=["8080"])
        with FaultProxy(tmp_path / "x").running() as proxy, dockertest.Pool(proxy.endpoint) as other:
            with dockertest.Pool(proxy.endpoint) as first:
                first.run_with_options(options)
            proxy.next(
                f"GET .*/containers/{server.name}/json",
                edit(rb'"Ports":{"8080/tcp":\[{[^]]*"HostPort":"\d+"}\]', b'"Ports":{"8080/tcp":null'),
            )
            reused = other.run_with_options(options)
            assert reused.container.attrs["NetworkSettings"]["Ports"]["8080/tcp"]

    def test_ten_processes_share_one_container(self, server: RunOptions, engine: Engine) -> None:
        """It is still running after all of them are killed."""
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
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            ids = {process.stdout.readline().strip() for process in processes if process.stdout}
            assert len(ids) == 1
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        with dockertest.Pool() as pool:
            assert pool.run_with_options(server).id == ids.pop()

    def test_ctrl_c_during_the_start_does_not_remove_a_shared_container(
        self, server: RunOptions, tmp_path: Path
    ) -> None:
        """
        Its creator is interrupted before it receives the response to the start.

        At that time, another process already uses the container.
        """
        code = """
import dockertest, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
pool = dockertest.Pool(sys.argv[1])
pool.run("busybox:1.35", name=sys.argv[2], cmd=["sleep", "600"], reuse=True)
"""
        with FaultProxy(tmp_path / "x").running() as proxy, dockertest.Pool() as pool:
            proxy.next("POST .*/start", swallow)
            creator = subprocess.Popen([sys.executable, "-c", code, proxy.endpoint, server.name])
            with creator:
                dockertest.retry(lambda: pool.container_by_name(server.name) is not None, max_wait=30)
                shared = pool.container_by_name(server.name)
                assert shared is not None
                dockertest.retry(lambda: shared.status == "running", max_wait=30)
                assert pool.run_with_options(server).id == shared.id
                creator.send_signal(signal.SIGINT)
                creator.wait(30)
            assert shared.status == "running"
            assert shared.id not in pool.prune()
            assert shared.status == "running"

    def test_two_runs_return_two_handles(self, server: RunOptions) -> None:
        """Closing one does not affect the other."""
        with dockertest.Pool() as pool:
            first, second = pool.run_with_options(server), pool.run_with_options(server)
            first.close()
            assert second.status == "running"
            with pytest.raises(dockertest.ResourceClosedError):
                first.exec(["true"])


class TestRemoval:
    """A reused container is removed only on request."""

    def test_the_reaper_keeps_it(self, server: RunOptions, engine: Engine, tmp_path: Path) -> None:
        """After a kill, the rest of the session is removed, but not the reused container."""
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
            pool.prune()  # its session is dead, but it has to stay
            assert pool.run_with_options(server).id == reused

    def test_a_deadline_removes_it_after_the_process_has_exited(
        self, server: RunOptions, engine: Engine
    ) -> None:
        """`expire` stays effective when the pool is closed."""
        with dockertest.Pool() as pool:
            resource = pool.run_with_options(server)
            resource.expire(6)
        assert engine.has(resource.id)
        dockertest.retry(lambda: not engine.has(resource.id), max_wait=60)

    @pytest.mark.parametrize("deadline", [600, None])
    def test_the_last_deadline_is_effective(
        self, server: RunOptions, engine: Engine, deadline: "float | None"
    ) -> None:
        """The reaper of an earlier process ignores a deadline that has been replaced."""
        code = f"""
import dockertest
with dockertest.Pool() as pool:
    pool.run("busybox:1.35", name={server.name!r}, cmd=["sleep", "600"], reuse=True).expire(7)
"""
        subprocess.run([sys.executable, "-c", code], check=True)
        with dockertest.Pool() as pool:
            resource = pool.run_with_options(server)
            resource.expire(deadline)
            other = pool.run("busybox:1.35", cmd=["sleep", "600"])
            other.expire(8)
            # The first deadline has passed by then.
            dockertest.retry(lambda: not engine.has(other.id), max_wait=60)
            assert engine.inspect(resource.id)["State"]["Running"]
            resource.expire(0)
            dockertest.retry(lambda: not engine.has(resource.id), max_wait=15)
            # The reaper forgets the deadline when it has the engine's answer, which is later.
            folder = pool._runtime.session._reaper._records.folder
            dockertest.retry(lambda: not list(folder.glob(f"{resource.id}*")), max_wait=15)

    def test_purge_removes_it(self, server: RunOptions, engine: Engine) -> None:
        """Any handle can remove it. Other handles can no longer be used."""
        with dockertest.Pool() as pool:
            first, second = pool.run_with_options(server), pool.run_with_options(server)
            pool.purge(second)
            assert not engine.has(first.id)
            assert len(pool._runtime.session) == 0

    def test_prune_removes_it_on_request(
        self, server: RunOptions, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Only the same user may do that.

        The test has its own identity, since other containers are in use.
        """
        user, _, machine = server.name, *_lifeline.identity(Path()).split(".")[:2]
        monkeypatch.setattr(_lifeline, "identity", lambda _folder: f"{user}.{machine}.boot.1")
        with dockertest.Pool(reaper=False) as pool:
            resource = pool.run_with_options(server)
        with dockertest.Pool(reaper=False) as pool:
            assert resource.id not in pool.prune()
            monkeypatch.setattr(_lifeline, "identity", lambda _folder: f"{user}-other.{machine}.boot.1")
            assert resource.id not in pool.prune(reused=True)
            monkeypatch.setattr(_lifeline, "identity", lambda _folder: f"{user}.{machine}.boot.2")
            assert engine.has(resource.id)
            assert resource.id in pool.prune(reused=True)
        assert not engine.has(resource.id)

    def test_its_exit_ends_a_wait(self, server: RunOptions, engine: Engine) -> None:
        """This also applies if another session created it."""
        with dockertest.Pool() as pool:
            pool.run_with_options(server)
        with dockertest.Pool() as pool:
            reused = pool.run_with_options(server)
            killing = threading.Timer(0.2, lambda: engine.client.containers.get(reused.id).kill())
            killing.start()
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 137"):
                pool.retry(lambda: False, max_wait=20)
            killing.join()
