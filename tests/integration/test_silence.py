"""A container may be silent indefinitely, but an engine must respond in time."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, freeze

TIMEOUT = 5.0  # of the pools here
SILENCE = "sleep 6"  # longer than that
RELEASED = f"echo first; until test -e /release; do sleep 0.1; done; {SILENCE}; echo second; exit 3"
Start = Callable[..., dockertest.Resource]


@pytest.fixture
def proxy(tmp_path: Path, local: str) -> Iterator[FaultProxy]:
    """A proxy in front of the engine that can freeze it."""
    with FaultProxy(tmp_path / "silent.sock", local).running() as proxy:
        yield proxy


@pytest.fixture
def impatient(proxy: FaultProxy) -> Iterator[dockertest.Pool]:
    """A pool with a short timeout, for requests that the engine answers at once."""
    with dockertest.Pool(proxy.endpoint, timeout=TIMEOUT) as pool:
        yield pool


@pytest.fixture
def start(impatient: dockertest.Pool) -> Iterator[Start]:
    """
    Yield a function that starts a container and returns it from `impatient`.

    The start may take as much time as a busy engine needs.
    """

    def start(*cmd: str) -> dockertest.Resource:
        started = patient.run("busybox:1.35", cmd=cmd, stop_timeout=0)
        resource = impatient.container_by_name(started.name)
        assert resource
        return resource

    with dockertest.Pool() as patient:
        yield start


def test_a_silent_container_is_waited_for(start: Start) -> None:
    """
    `wait` and a followed log may wait for longer than the pool's timeout.

    This applies to `wait` with and without a timeout of its own.
    """
    with ThreadPoolExecutor() as threads, start("sh", "-c", RELEASED) as resource:
        lines = threads.submit(lambda: list(resource.stream_logs()))
        code = threads.submit(resource.wait)
        with pytest.raises(dockertest.RetryTimeoutError):
            resource.wait(1.5)
        resource.write_file("/release", b"")
        assert resource.wait(60) == 3
        assert code.result() == 3
        assert lines.result() == ["first", "second"]


def test_a_frozen_engine_ends_the_wait_for_a_container(start: Start, proxy: FaultProxy) -> None:
    """The message contains the request and the timeout."""
    with start("sleep", "600") as resource:
        proxy.next("POST .*/wait", freeze)
        proxy.next(f"GET .*{resource.id}/json", freeze)
        began = time.monotonic()
        with pytest.raises(dockertest.EngineError, match="did not answer within 5 s"):
            resource.wait()
        assert time.monotonic() - began < 40


def test_a_frozen_engine_delays_all_reports_only_once(proxy: FaultProxy) -> None:
    """The reports of several containers are requested at the same time."""
    with dockertest.Pool(proxy.endpoint, timeout=8) as pool:
        options = dockertest.RunOptions(repository="busybox:1.35", cmd=["sleep", "600"], stop_timeout=0)
        containers = pool.run_all([options] * 4)
        for container in containers:
            proxy.next(f"GET .*{container.id}/json", freeze)
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError) as failure:
            pool.retry(lambda: False, max_attempts=1)
        assert time.monotonic() - began < 24  # one after another they would take 32 seconds
        assert [report.status for report in failure.value.reports] == ["unknown"] * 4


def test_a_frozen_engine_ends_a_followed_log(start: Start, proxy: FaultProxy) -> None:
    """This also applies after lines have arrived."""
    with start("sh", "-c", "echo first; sleep 600") as resource:
        resource.wait_for_log("first")
        with resource.stream_logs() as lines:
            assert next(lines) == "first"
            proxy.next(f"GET .*{resource.id}/json", freeze)
            began = time.monotonic()
            with pytest.raises(dockertest.EngineError, match="did not answer within 5 s"):
                next(lines)
            assert time.monotonic() - began < 40


@pytest.mark.parametrize("stdin", [None, b"input"], ids=["output only", "with input"])
def test_a_silent_command_is_waited_for(start: Start, stdin: "bytes | None") -> None:
    """
    Without a timeout, a command may be silent for longer than the pool's timeout.

    The engine still has to answer.
    """
    script = f"{'cat; ' if stdin else ''}echo first; {SILENCE}; echo second"
    with start("sleep", "600") as resource:
        result = resource.exec(["sh", "-c", script], stdin=stdin)
        assert result.stdout == ("input" if stdin else "") + "first\nsecond\n"


@pytest.mark.parametrize("stdin", [None, b"input"], ids=["output only", "with input"])
def test_a_frozen_engine_ends_a_silent_command(
    start: Start, proxy: FaultProxy, stdin: "bytes | None"
) -> None:
    """The engine is asked after each time without output."""
    with start("sleep", "600") as resource:
        proxy.next("GET .*/exec/.*/json", freeze)
        began = time.monotonic()
        with pytest.raises(
            dockertest.EngineError, match=r"run \['sleep', '600'\].*did not answer within 5 s"
        ):
            resource.exec(["sleep", "600"], stdin=stdin)
        assert time.monotonic() - began < 40
