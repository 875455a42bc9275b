"""Stopping, starting, waiting and asking: what a container does in the time between its start and its end."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dockertest
from dockertest._cleanup import session as _session

from .conftest import Engine

SLEEP = ("sleep", "600")


def test_a_stopped_container_starts_again_with_its_ports(pool: dockertest.Pool) -> None:
    """Ports are read again after a start, since the engine may give others."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080], stop_timeout=1) as resource:
        resource.stop(timeout=0)
        assert resource.status == resource.container.status == "exited"
        with pytest.raises(dockertest.ContainerExitedError):
            resource.get_port(8080)
        resource.start()
        assert resource.status == resource.container.status == "running"
        assert resource.get_port(8080) > 0
        resource.restart(timeout=0)
        assert resource.get_port(8080) > 0


def test_a_stop_gives_the_command_its_time(pool: dockertest.Pool) -> None:
    """A command that handles the signal ends by itself, with its own exit code."""
    ends = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with pool.run("busybox:1.35", cmd=["sh", "-c", ends]) as resource:
        resource.wait_for_log("ready")
        resource.stop(timeout=20)
        assert resource.wait(10) == 7


def test_wait_gives_the_exit_code(pool: dockertest.Pool) -> None:
    """Whether it ends later or has ended already."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "sleep 0.5; exit 5"]) as resource:
        assert resource.wait() == 5
        assert resource.wait(1) == resource.wait(0) == 5
        assert resource.container.status == "exited"


def test_a_wait_that_takes_too_long_ends(pool: dockertest.Pool) -> None:
    """Past its time it is a `RetryTimeoutError`, and the container goes on."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError, match=r"has not ended within 0\.5 s"):
            resource.wait(0.5)
        with pytest.raises(dockertest.RetryTimeoutError, match=r"has not ended within 0 s"):
            resource.wait(0)
        assert time.monotonic() - began < 5
        assert resource.status == "running"


def test_a_pool_leaves_out_what_the_user_stopped_or_waited_for(pool: dockertest.Pool) -> None:
    """An end that was asked for is no death to be told; after a new start it is watched again."""
    with pool.run("busybox:1.35", cmd=SLEEP) as stopped, pool.run("busybox:1.35", cmd=["false"]) as waited:
        stopped.stop(timeout=0)
        waited.wait(10)
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(lambda: False, max_wait=0.3)
        stopped.start()
        stopped.container.kill()
        with pytest.raises(dockertest.ContainerExitedError, match=stopped.name):
            pool.retry(lambda: False)


def test_status_of_a_container_that_is_gone(pool: dockertest.Pool, engine: Engine) -> None:
    """Somebody removed it: that is a state, not an error."""
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    engine.client.api.remove_container(resource.id, force=True)
    assert resource.status == "removed"
    resource.close()


@pytest.mark.differs("health checks")
def test_healthy_is_waited_for(pool: dockertest.Pool) -> None:
    """The health check decides; without one there is nothing to wait for."""
    check = {"test": ["CMD", "test", "-e", "/tmp/ready"], "interval": 0.2, "retries": 100}
    with pool.run(
        "busybox:1.35", cmd=["sh", "-c", "sleep 0.5; touch /tmp/ready; sleep 600"], healthcheck=check
    ) as it:
        assert it.health == "starting"
        it.wait_healthy(max_wait=30)
        assert it.health == "healthy"
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        assert resource.health == "none"
        with pytest.raises(dockertest.InvalidOptionError, match="no health check"):
            resource.wait_healthy()


@pytest.mark.differs("health checks")
def test_an_unhealthy_container_tells_why(pool: dockertest.Pool) -> None:
    """What the health check says, and its own output, are in the time-out's text."""
    check = {"test": "echo the disk is full; exit 1", "interval": 0.2, "retries": 1}
    with pool.run("busybox:1.35", cmd=SLEEP, healthcheck=check) as resource:
        dockertest.retry(lambda: resource.health == "unhealthy", max_wait=30)
        with pytest.raises(
            dockertest.RetryTimeoutError, match=r"is unhealthy\n(?s:.*)health check: the disk is full"
        ):
            resource.wait_healthy(max_wait=0.2)


def test_a_borrowed_container_is_left_alone(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Closing what was found lets go of it; purging removes it."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[80]) as resource:
        with dockertest.Pool() as other:
            found = other.container_by_name(name)
            assert found is not None
            assert found.get_port(80) == resource.get_port(80)
            found.close()
            with pytest.raises(dockertest.ResourceClosedError):
                found.get_port(80)
        assert engine.has(name)
        borrowed = pool.container_by_name(name)
        assert borrowed is not None
        pool.purge(borrowed)
        assert not engine.has(name)


def test_this_process_is_in_no_container(pool: dockertest.Pool) -> None:
    """On the engine's host the list of mounts has other containers' ids in it; none of them is ours."""
    with pool.run("busybox:1.35", cmd=SLEEP), pytest.raises(dockertest.NotInContainerError):
        pool.current_container()


def test_a_wrong_time_is_refused(pool: dockertest.Pool) -> None:
    """Times are seconds, zero or more."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        for call in (resource.stop, resource.expire, resource.wait):
            with pytest.raises(dockertest.InvalidOptionError):
                call(-1)


def test_run_all_starts_side_by_side_in_order(pool: dockertest.Pool) -> None:
    """The list has the order of the options."""
    made = pool.run_all(
        [
            dockertest.RunOptions(repository="busybox", tag="1.35", cmd=SLEEP, labels={"index": str(index)})
            for index in range(5)
        ]
    )
    assert [each.container.attrs["Config"]["Labels"]["index"] for each in made] == ["0", "1", "2", "3", "4"]
    for each in made:
        each.close()


def test_run_all_is_rolled_back_as_one(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """One that cannot start takes the others with it, and its error is what is raised."""
    options = [
        dockertest.RunOptions(repository="busybox", tag="1.35", name=f"{name}-{index}", cmd=[command, "600"])
        for index, command in enumerate(("sleep", "no-such-command", "sleep"))
    ]
    with pytest.raises(dockertest.ContainerStartError, match="no-such-command"):
        pool.run_all(options)
    assert not any(engine.has(f"{name}-{index}") for index in range(3))


def test_a_client_of_ones_own_is_used_and_not_closed(engine: Engine) -> None:
    """The pool works through it, and it works on after the pool."""
    with dockertest.Pool(client=engine.client) as pool:
        assert pool.client is engine.client
        resource = pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80])
        assert resource.get_host_port(80).startswith(f"{engine.host}:")
    assert not engine.has(resource.id)
    assert engine.client.ping()


@pytest.mark.parametrize("hostname", ["", "changed"])
def test_a_process_in_a_container_finds_its_own(pool: dockertest.Pool, hostname: str, tmp_path: Path) -> None:
    """What the system says inside a real container names it, whatever its host name is."""
    with pool.run("busybox:1.35", cmd=SLEEP, hostname=hostname) as resource:
        for file in ("mountinfo", "cgroup"):
            (tmp_path / file).write_text(resource.exec(["cat", f"/proc/self/{file}"]).stdout)
        inside = resource.exec(["hostname"]).stdout.strip()
        assert _session.own_container_ids(tmp_path, hostname=inside)[0] == resource.id
        (tmp_path / "cgroup").write_text("0::/\n")  # as cgroup v2 has it
        assert _session.own_container_ids(tmp_path, hostname=inside)[0] == resource.id


def test_what_others_changed_is_seen_after_a_refresh(
    pool: dockertest.Pool, engine: Engine, name: str
) -> None:
    """`container` is as fresh as the last method that asked; `refresh` asks for its own sake."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        engine.client.api.rename(resource.id, name)
        engine.client.api.pause(resource.id)
        resource.refresh()
        assert (resource.name, resource.container.status) == (name, "paused")
        engine.client.api.unpause(resource.id)


@pytest.mark.parametrize(
    "call",
    [
        lambda each: each.get_port(80),
        lambda each: each.get_bound_ip(80),
        lambda each: each.get_host_port(80),
        lambda each: each.exec(["true"]),
        lambda each: each.get_ip_in_network("bridge"),
        lambda each: each.connect_to_network("bridge"),
        lambda each: each.disconnect_from_network("bridge"),
        lambda each: each.expire(1),
        lambda each: each.retry(lambda: True),
        lambda each: each.wait_healthy(),
        lambda each: each.logs(),
        lambda each: each.stream_logs(),
        lambda each: each.wait_for_log("x"),
        lambda each: each.read_file("/etc/passwd"),
        lambda each: each.write_file("/tmp/file", b""),
        lambda each: each.copy_in("/etc/hostname", "/tmp/file"),
        lambda each: each.copy_out("/etc/passwd", "/tmp/never-written"),
        lambda each: each.stop(),
        lambda each: each.start(),
        lambda each: each.restart(),
        lambda each: each.wait(1),
        lambda each: each.refresh(),
        lambda each: each.__enter__(),
    ],
)
def test_nothing_works_on_a_closed_resource(
    closed: dockertest.Resource, call: Callable[[Any], object]
) -> None:
    """Each method says that it is closed, and by which name it went."""
    with pytest.raises(dockertest.ResourceClosedError, match=closed.name):
        call(closed)


@pytest.fixture(scope="module")
def closed(pool: dockertest.Pool) -> dockertest.Resource:
    """A container that was, and is closed."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        return resource


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.run("busybox:1.35"),
        lambda pool: pool.run_with_options(dockertest.RunOptions(repository="busybox")),
        lambda pool: pool.run_all([dockertest.RunOptions(repository="busybox")]),
        lambda pool: pool.container_by_name("name"),
        lambda pool: pool.remove_container_by_name("name"),
        lambda pool: pool.current_container(),
        lambda pool: pool.create_network(),
        lambda pool: pool.networks_by_name("name"),
        lambda pool: pool.prune(),
        lambda pool: pool.__enter__(),
    ],
)
def test_nothing_works_on_a_closed_pool(call: Callable[[Any], object]) -> None:
    """Each method that needs the engine says that the pool is closed."""
    pool = dockertest.Pool()
    pool.close()
    with pytest.raises(dockertest.ResourceClosedError, match="pool is closed"):
        call(pool)
