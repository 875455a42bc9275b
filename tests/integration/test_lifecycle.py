"""Stopping, starting, waiting for and inspecting a running container."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dockertest
from dockertest._engine import reachability as _session

from ..engines.fault_proxy import FaultProxy, freeze  # noqa: TID252 - `tests` is on no path
from .conftest import Engine

SLEEP = ("sleep", "600")


def test_a_stopped_container_starts_again_with_its_ports(pool: dockertest.Pool) -> None:
    """The engine may assign new ports at each start."""
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


def test_stop_waits_for_the_command(pool: dockertest.Pool) -> None:
    """A command that handles the signal exits with its own code."""
    ends = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with pool.run("busybox:1.35", cmd=["sh", "-c", ends]) as resource:
        resource.wait_for_log("ready")
        resource.stop(timeout=20)
        assert resource.wait(10) == 7


@pytest.mark.parametrize("end", ["stop", "restart"])
@pytest.mark.parametrize(("stop_timeout", "seconds"), [(1, 1), (None, 10)])
def test_the_own_time_of_a_container_to_end(
    tmp_path: Path, end: str, stop_timeout: "int | None", seconds: int
) -> None:
    """By default, it has the time that it was created with, else that of the engines."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        # A shell as the first process ends at a signal only if it handles it.
        command = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"]
        resource = pool.run("busybox:1.35", cmd=command, stop_timeout=stop_timeout)
        resource.wait_for_log("ready")
        getattr(resource, end)()
        assert [line for line in proxy.requests if f"/{end}?t={seconds} " in line]


def test_wait_returns_the_exit_code(pool: dockertest.Pool) -> None:
    """The container may exit later or may have exited already."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "sleep 0.5; exit 5"]) as resource:
        assert resource.wait() == 5
        assert resource.wait(1) == resource.wait(0) == 5
        assert resource.container.status == "exited"


def test_wait_returns_the_exit_code_if_the_engine_is_slow(tmp_path: Path) -> None:
    """The state of the container decides if its exit is not reported in time."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", "exit 5"])
        assert resource.wait(30) == 5
        proxy.next("/wait", freeze)
        assert resource.wait(0) == 5


def test_wait_times_out(pool: dockertest.Pool) -> None:
    """It raises `RetryTimeoutError`, and the container keeps running."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError, match=r"has not ended within 0\.5 s"):
            resource.wait(0.5)
        with pytest.raises(dockertest.RetryTimeoutError, match=r"has not ended within 0 s"):
            resource.wait(0)
        assert time.monotonic() - began < 60
        assert resource.status == "running"
        resource.container.kill()
        with pytest.raises(dockertest.ContainerExitedError, match=resource.name):
            pool.retry(lambda: False)


def test_a_pool_ignores_containers_that_the_user_stopped_or_waited_for(pool: dockertest.Pool) -> None:
    """
    Their expected exits are not reported.

    After another start, they are watched again.
    """
    with pool.run("busybox:1.35", cmd=SLEEP) as stopped, pool.run("busybox:1.35", cmd=["false"]) as waited:
        stopped.stop(timeout=0)
        waited.wait(10)
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(lambda: False, max_wait=0.3)
        stopped.start()
        stopped.container.kill()
        with pytest.raises(dockertest.ContainerExitedError, match=stopped.name):
            pool.retry(lambda: False)


def test_the_status_of_a_removed_container(pool: dockertest.Pool, engine: Engine) -> None:
    """There is a status for it instead of an error."""
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    engine.remove(resource.id)
    assert resource.status == "removed"
    resource.close()


@pytest.mark.differs("health checks")
def test_wait_healthy(pool: dockertest.Pool) -> None:
    """The health check decides. A container without one raises an error."""
    check = {"test": ["CMD", "test", "-e", "/tmp/ready"], "interval": 0.2, "retries": 10_000}
    with pool.run("busybox:1.35", cmd=SLEEP, healthcheck=check) as resource:
        assert resource.health == "starting"
        resource.write_file("/tmp/ready", b"")
        resource.wait_healthy(max_wait=60)
        assert resource.health == "healthy"
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        assert resource.health == "none"
        with pytest.raises(dockertest.InvalidOptionError, match="no health check"):
            resource.wait_healthy()


@pytest.mark.differs("health checks")
def test_an_unhealthy_container_is_reported_with_the_reason(pool: dockertest.Pool) -> None:
    """The error contains the state and the output of the health check."""
    check = {"test": "echo the disk is full; exit 1", "interval": 0.2, "retries": 1}
    with pool.run("busybox:1.35", cmd=SLEEP, healthcheck=check) as resource:
        dockertest.retry(lambda: resource.health == "unhealthy", max_wait=30)
        with pytest.raises(
            dockertest.RetryTimeoutError, match=r"is unhealthy\n(?s:.*)health check: the disk is full"
        ):
            resource.wait_healthy(max_wait=0.2)


def test_closing_a_borrowed_container_keeps_it(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Only `purge` removes a container that was not started by the pool."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[80]) as resource:
        with dockertest.Pool() as other:
            borrowed = other.container_by_name(name)
            assert borrowed is not None
            assert borrowed.get_port(80) == resource.get_port(80)
            borrowed.close()
            with pytest.raises(dockertest.ResourceClosedError):
                borrowed.get_port(80)
        assert engine.has(name)
        borrowed = pool.container_by_name(name)
        assert borrowed is not None
        pool.purge(borrowed)
        assert not engine.has(name)


def test_this_process_is_not_in_a_container(pool: dockertest.Pool) -> None:
    """
    The ids of other containers in the list of mounts do not match.

    The list contains them on the engine's host.
    """
    with pool.run("busybox:1.35", cmd=SLEEP), pytest.raises(dockertest.NotInContainerError):
        pool.current_container()


def test_a_negative_time_is_rejected(pool: dockertest.Pool) -> None:
    """Times are zero or more seconds."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        for call in (resource.stop, resource.expire, resource.wait):
            with pytest.raises(dockertest.InvalidOptionError):
                call(-1)


def test_run_all_starts_in_parallel_and_keeps_the_order(pool: dockertest.Pool) -> None:
    """The list has the order of the options."""
    resources = pool.run_all(
        [
            dockertest.RunOptions(repository="busybox", tag="1.35", cmd=SLEEP, labels={"index": str(index)})
            for index in range(5)
        ]
    )
    assert [resource.container.attrs["Config"]["Labels"]["index"] for resource in resources] == [
        "0",
        "1",
        "2",
        "3",
        "4",
    ]
    for resource in resources:
        resource.close()


def test_run_all_is_rolled_back(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """If one container cannot start, the others are removed, and its error is raised."""
    options = [
        dockertest.RunOptions(repository="busybox", tag="1.35", name=f"{name}-{index}", cmd=[command, "600"])
        for index, command in enumerate(("sleep", "no-such-command", "sleep"))
    ]
    with pytest.raises(dockertest.ContainerStartError, match="no-such-command"):
        pool.run_all(options)
    assert not any(engine.has(f"{name}-{index}") for index in range(3))


def test_run_all_raises_the_outcome_of_a_wait(engine: Engine, name: str) -> None:
    """The exception of `pytest.fail` in `wait_for` is not derived from `Exception`."""

    def wait(resource: dockertest.Resource) -> None:
        if threading.current_thread() is threading.main_thread():
            dockertest.retry(lambda: failed, max_wait=20)
        else:
            failed.append(resource.id)
            pytest.fail("not ready")

    failed: list[str] = []
    options = dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP, labels={name: "1"}, wait_for=wait)
    with dockertest.Pool() as pool:
        with pytest.raises(pytest.fail.Exception, match="not ready"):
            pool.run_all([options] * 3, max_workers=2)
        assert engine.labelled(name) == []


def test_a_custom_client_is_used_and_not_closed(engine: Engine) -> None:
    """It works in the pool and after the pool was closed."""
    with dockertest.Pool(client=engine.client) as pool:
        assert pool.client is engine.client
        resource = pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80])
        assert resource.get_host_port(80).startswith(f"{engine.host}:")
    assert not engine.has(resource.id)
    assert engine.client.ping()


@pytest.mark.parametrize("hostname", ["", "changed"])
def test_a_process_in_a_container_detects_its_own_id(
    pool: dockertest.Pool, hostname: str, tmp_path: Path
) -> None:
    """The files in /proc in a container contain its id, regardless of its host name."""
    with pool.run("busybox:1.35", cmd=SLEEP, hostname=hostname) as resource:
        for file in ("mountinfo", "cgroup"):
            (tmp_path / file).write_text(resource.exec(["cat", f"/proc/self/{file}"]).stdout)
        inside = resource.exec(["hostname"]).stdout.strip()
        assert _session.own_container_ids(tmp_path, hostname=inside)[0] == resource.id
        (tmp_path / "cgroup").write_text("0::/\n")  # the form that cgroup v2 has
        assert _session.own_container_ids(tmp_path, hostname=inside)[0] == resource.id


def test_refresh_detects_changes_by_others(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """`container` has the state of the last request, and `refresh` updates it."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        engine.client.api.rename(resource.id, name)
        engine.client.api.pause(resource.id)
        resource.refresh()
        assert (resource.name, resource.container.status) == (name, "paused")
        engine.client.api.unpause(resource.id)


@pytest.mark.parametrize(
    "call",
    [
        lambda resource: resource.get_port(80),
        lambda resource: resource.get_bound_ip(80),
        lambda resource: resource.get_host_port(80),
        lambda resource: resource.exec(["true"]),
        lambda resource: resource.get_ip_in_network("bridge"),
        lambda resource: resource.connect_to_network("bridge"),
        lambda resource: resource.disconnect_from_network("bridge"),
        lambda resource: resource.expire(1),
        lambda resource: resource.retry(lambda: True),
        lambda resource: resource.wait_healthy(),
        lambda resource: resource.logs(),
        lambda resource: resource.stream_logs(),
        lambda resource: resource.wait_for_log("x"),
        lambda resource: resource.read_file("/etc/passwd"),
        lambda resource: resource.write_file("/tmp/file", b""),
        lambda resource: resource.copy_in("/etc/hostname", "/tmp/file"),
        lambda resource: resource.copy_out("/etc/passwd", "/tmp/never-written"),
        lambda resource: resource.stop(),
        lambda resource: resource.start(),
        lambda resource: resource.restart(),
        lambda resource: resource.wait(1),
        lambda resource: resource.refresh(),
        lambda resource: resource.__enter__(),
    ],
)
def test_a_closed_resource_cannot_be_used(closed: dockertest.Resource, call: Callable[[Any], object]) -> None:
    """Each method raises an error that names the resource."""
    with pytest.raises(dockertest.ResourceClosedError, match=closed.name):
        call(closed)


@pytest.fixture(scope="module")
def closed(pool: dockertest.Pool) -> dockertest.Resource:
    """A closed container."""
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
def test_a_closed_pool_cannot_be_used(call: Callable[[Any], object]) -> None:
    """Each method that needs the engine raises an error."""
    pool = dockertest.Pool()
    pool.close()
    with pytest.raises(dockertest.ResourceClosedError, match="pool is closed"):
        call(pool)
