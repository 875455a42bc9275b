"""A container may be silent indefinitely, but an engine must respond in time."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, freeze

SILENT = ("sh", "-c", "echo first; sleep 5; echo second; exit 3")


@pytest.fixture
def proxy(tmp_path: Path, local: str) -> Iterator[FaultProxy]:
    """A proxy in front of the engine that can freeze it."""
    with FaultProxy(tmp_path / "silent.sock", local).running() as proxy:
        yield proxy


@pytest.fixture
def pool(proxy: FaultProxy) -> Iterator[dockertest.Pool]:
    """A pool with a timeout of three seconds, which is enough to start a container on a busy engine."""
    with dockertest.Pool(proxy.endpoint, timeout=3) as pool:
        yield pool


def test_a_silent_container_is_waited_for(pool: dockertest.Pool) -> None:
    """`wait`, with and without a timeout, and a followed log wait for longer than the pool's timeout."""
    with pool.run("busybox:1.35", cmd=SILENT) as resource:
        assert list(resource.stream_logs()) == ["first", "second"]
    with pool.run("busybox:1.35", cmd=SILENT) as resource:
        assert resource.wait() == 3
    with pool.run("busybox:1.35", cmd=SILENT) as resource:
        with pytest.raises(dockertest.RetryTimeoutError):
            resource.wait(1.5)
        assert resource.wait(30) == 3


def test_a_frozen_engine_ends_the_wait_for_a_container(pool: dockertest.Pool, proxy: FaultProxy) -> None:
    """The message contains the request and the timeout."""
    with pool.run("busybox:1.35", cmd=["sleep", "600"]) as resource:
        proxy.next("POST .*/wait", freeze)
        proxy.next(f"GET .*{resource.id}/json", freeze)
        start = time.monotonic()
        with pytest.raises(dockertest.EngineError, match="did not answer within 3 s"):
            resource.wait()
        assert time.monotonic() - start < 15


def test_a_frozen_engine_delays_all_reports_only_once(pool: dockertest.Pool, proxy: FaultProxy) -> None:
    """The reports of several containers are requested at the same time."""
    containers = [pool.run("busybox:1.35", cmd=["sleep", "600"], stop_timeout=0) for _ in range(4)]
    for container in containers:
        proxy.next(f"GET .*{container.id}/json", freeze)
    start = time.monotonic()
    with pytest.raises(dockertest.RetryTimeoutError) as failure:
        pool.retry(lambda: False, max_attempts=1)
    assert time.monotonic() - start < 9  # one after another they would take twelve seconds
    assert [report.status for report in failure.value.reports] == ["unknown"] * 4


def test_a_frozen_engine_ends_a_followed_log(pool: dockertest.Pool, proxy: FaultProxy) -> None:
    """This also applies after lines have arrived."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo first; sleep 600"]) as resource:
        resource.wait_for_log("first")
        with resource.stream_logs() as lines:
            assert next(lines) == "first"
            proxy.next(f"GET .*{resource.id}/json", freeze)
            start = time.monotonic()
            with pytest.raises(dockertest.EngineError, match="did not answer within 3 s"):
                next(lines)
            assert time.monotonic() - start < 15


@pytest.mark.parametrize("stdin", [None, b"input"], ids=["output only", "with input"])
def test_a_silent_command_is_waited_for(pool: dockertest.Pool, stdin: "bytes | None") -> None:
    """Without a timeout, a command may be silent for longer than the pool's timeout, but the engine has to answer."""
    script = "cat; echo first; sleep 5; echo second" if stdin else "echo first; sleep 5; echo second"
    with pool.run("busybox:1.35", cmd=["sleep", "600"]) as resource:
        result = resource.exec(["sh", "-c", script], stdin=stdin)
        assert result.stdout == ("input" if stdin else "") + "first\nsecond\n"


@pytest.mark.parametrize("stdin", [None, b"input"], ids=["output only", "with input"])
def test_a_frozen_engine_ends_a_silent_command(
    pool: dockertest.Pool, proxy: FaultProxy, stdin: "bytes | None"
) -> None:
    """The engine is asked after each time without output."""
    with pool.run("busybox:1.35", cmd=["sleep", "600"]) as resource:
        proxy.next("GET .*/exec/.*/json", freeze)
        start = time.monotonic()
        with pytest.raises(
            dockertest.EngineError, match=r"run \['sleep', '600'\].*did not answer within 3 s"
        ):
            resource.exec(["sleep", "600"], stdin=stdin)
        assert time.monotonic() - start < 15
