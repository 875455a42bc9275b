"""Waiting works for containers that a policy, the user or this process restarts."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dockertest
from dockertest._engine.inspection import parse_timestamp
from tests.engines.fault_proxy import FaultProxy, answer, answer_json

from .conftest import Engine

STOPS_AT_ONCE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]


def always_restart(config: "dict[str, object]") -> None:
    """Make the engine restart the container whenever it exits."""
    config["RestartPolicy"] = {"Name": "always"}


@contextmanager
def in_thread(action: "object") -> Iterator[None]:
    """Run *action* in a thread during the body."""
    assert callable(action)
    thread = threading.Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def server(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A container that exits as soon as it is stopped."""
    with pool.run("busybox:1.35", cmd=STOPS_AT_ONCE, exposed_ports=["8080"]) as resource:
        yield resource


@pytest.mark.differs("the state of a container that a policy restarts")
def test_a_port_that_is_not_bound_yet(pool: dockertest.Pool) -> None:
    """While a policy restarts the container, its port is published but not bound."""
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", cmd=["sh", "-c", "sleep 0.3; exit 1"], exposed_ports=["8080"]
    )
    with pool.run_with_options(options, always_restart) as resource:
        raised: dict[type[Exception], dockertest.DockertestError] = {}

        def is_detected() -> bool:
            try:
                resource.get_port(8080)
            except dockertest.DockertestError as error:
                raised[type(error)] = error
            return dockertest.PortNotBoundError in raised

        dockertest.retry(is_detected, max_wait=30)
        assert dockertest.PortNotPublishedError not in raised
        error = raised[dockertest.PortNotBoundError]
        assert getattr(error, "port", "") == "8080/tcp"
        assert error.hint
        with pytest.raises(dockertest.PortNotPublishedError):
            resource.get_port(9090)


def test_an_address_that_a_restarting_container_does_not_have_yet(
    pool: dockertest.Pool, engine: Engine
) -> None:
    """The container is connected to the network all the time, so `retry` asks again."""
    command = ["sh", "-c", "echo >>/starts; sleep 0.5; exit 1"]
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=command)
    network = "podman" if engine.is_podman else "bridge"
    reasons = set()
    with pool.run_with_options(options, always_restart) as resource:

        def address() -> str:
            try:
                return resource.get_ip_in_network(network)
            except dockertest.EngineError as error:
                reasons.add(error.reason)
                raise

        def was_restarted() -> bool:
            pool.retry(address, max_wait=60)
            starts = len(resource.read_file("/starts"))
            # Docker pauses longer before each restart, so one of the pauses is noticed even on a busy machine.
            return starts > 3 and (engine.is_podman or bool(reasons))

        dockertest.retry(was_restarted, max_wait=60)
    assert engine.is_podman or reasons == {"restarting"}


def test_retry_continues_while_a_policy_restarts_the_container(pool: dockertest.Pool, engine: Engine) -> None:
    """A server that crashes at its first start but not at its second becomes ready."""
    command = "test -f /once || { touch /once; sleep 0.5; exit 1; }; touch /ready; sleep 600"
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", cmd=["sh", "-c", command], exposed_ports=["8080"]
    )
    with pool.run_with_options(options, always_restart) as resource:
        assert resource.retry(lambda: resource.read_file("/ready"), max_wait=30) == b""
        assert resource.retry(lambda: resource.get_port(8080), max_wait=30) > 0


@pytest.fixture
def slow_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a busy machine more time between the stop and the start of a restart."""
    monkeypatch.setattr("dockertest._containers.container.RESTART_SECONDS", 30.0)


@pytest.mark.usefixtures("slow_restart")
def test_a_stop_may_be_recorded_after_the_end(local: str, engine: Engine, tmp_path: Path) -> None:
    """
    It counts as a stop.

    Docker records the signal after it has sent it, and the container may have ended by then.
    """
    is_over = threading.Event()
    with FaultProxy(tmp_path / "x", local).running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        server = pool.run("busybox:1.35", cmd=STOPS_AT_ONCE)

        def record_late(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
            ended = parse_timestamp(engine.inspect(server.id)["State"]["FinishedAt"])
            stop = {"Action": "kill", "Actor": {"Attributes": {"signal": "15"}}}
            answer_json({**stop, "timeNano": int((ended + 0.01) * 1e9)})(client, forward)

        def start_again() -> None:
            dockertest.retry(lambda: any("/events" in line for line in proxy.requests), max_wait=20)
            engine.client.api.start(server.id)
            is_over.set()

        proxy.next("/events", record_late)
        engine.client.api.stop(server.id, timeout=5)
        with in_thread(start_again):
            assert server.retry(is_over.is_set, max_wait=30) is True


@pytest.mark.usefixtures("slow_restart")
@pytest.mark.parametrize("by", ["docker", "resource"])
def test_a_restart_does_not_end_a_wait(server: dockertest.Resource, pool: dockertest.Pool, by: str) -> None:
    """The restart may be requested by another thread or process."""
    is_over = threading.Event()

    def restart() -> None:
        for _ in range(3):
            if by == "resource":
                server.restart(timeout=5)
            else:
                subprocess.run(["docker", "restart", "-t", "5", server.id], check=True, capture_output=True)
        is_over.set()

    with in_thread(restart):
        assert server.retry(is_over.is_set, max_wait=60, wait=None) is True
    is_over.clear()
    with in_thread(restart):
        assert pool.retry(is_over.is_set, max_wait=60, watch=[server]) is True


def test_a_container_that_is_stopped_is_reported(server: dockertest.Resource) -> None:
    """The wait for a possible restart is short."""
    stop = ["docker", "stop", "-t", "5", server.id]
    with (
        in_thread(lambda: subprocess.run(stop, check=True, capture_output=True)),
        pytest.raises(dockertest.ContainerExitedError) as caught,
    ):
        server.retry(lambda: False, max_wait=60)
    assert caught.value.exit_code == 0
    assert caught.value.report
    assert caught.value.report.elapsed < 25


def test_an_exit_is_reported_by_an_engine_that_refuses_events(tmp_path: Path) -> None:
    """Proxies in front of an engine often allow only some of its API."""
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", "exit 3"])
        dockertest.retry(lambda: resource.status == "exited", max_wait=10)
        proxy.next("GET .*/events", answer(403, "not allowed"))
        with pytest.raises(dockertest.ContainerExitedError) as caught:
            resource.retry(lambda: False, max_attempts=1)
    assert caught.value.exit_code == 3
