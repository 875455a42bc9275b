"""A container may be silent for as long as it likes, an engine may not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, freeze

SILENT = ("sh", "-c", "echo first; sleep 5; echo second; exit 3")


@pytest.fixture
def proxy(tmp_path: Path, local: str) -> Iterator[FaultProxy]:
    """Stands in front of the engine, and can be as good as frozen."""
    with FaultProxy(tmp_path / "silent.sock", local).running() as proxy:
        yield proxy


@pytest.fixture
def pool(proxy: FaultProxy) -> Iterator[dockertest.Pool]:
    """A pool that gives the engine three seconds, in which a busy one starts a container."""
    with dockertest.Pool(proxy.endpoint, timeout=3) as pool:
        yield pool


def test_a_silent_container_is_waited_for(pool: dockertest.Pool) -> None:
    """Longer than the engine may take for an answer: by `wait`, with a time of one's own or none, and by its log."""
    with pool.run("busybox:1.35", cmd=SILENT) as resource:
        assert list(resource.stream_logs()) == ["first", "second"]
    with pool.run("busybox:1.35", cmd=SILENT) as resource:
        assert resource.wait() == 3
    with pool.run("busybox:1.35", cmd=SILENT) as resource:
        with pytest.raises(dockertest.RetryTimeoutError):
            resource.wait(1.5)
        assert resource.wait(30) == 3


def test_a_frozen_engine_is_told_while_a_container_is_waited_for(
    pool: dockertest.Pool, proxy: FaultProxy
) -> None:
    """It names what was asked, and the seconds."""
    with pool.run("busybox:1.35", cmd=["sleep", "600"]) as resource:
        proxy.next("POST .*/wait", freeze)
        proxy.next(f"GET .*{resource.id}/json", freeze)
        began = time.monotonic()
        with pytest.raises(dockertest.EngineError, match="did not answer within 3 s"):
            resource.wait()
        assert time.monotonic() - began < 15


def test_a_frozen_engine_is_asked_for_all_reports_at_once(pool: dockertest.Pool, proxy: FaultProxy) -> None:
    """However many containers a time-out is to tell of, its own time is that of one."""
    made = [pool.run("busybox:1.35", cmd=["sleep", "600"], stop_timeout=0) for _ in range(4)]
    for each in made:
        proxy.next(f"GET .*{each.id}/json", freeze)
    began = time.monotonic()
    with pytest.raises(dockertest.RetryTimeoutError) as caught:
        pool.retry(lambda: False, max_attempts=1)
    assert time.monotonic() - began < 9  # one after another they would take twelve
    assert [each.status for each in caught.value.reports] == ["unknown"] * 4


def test_a_frozen_engine_is_told_while_a_log_is_followed(pool: dockertest.Pool, proxy: FaultProxy) -> None:
    """Although there was a first line."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo first; sleep 600"]) as resource:
        resource.wait_for_log("first")
        with resource.stream_logs() as lines:
            assert next(lines) == "first"
            proxy.next(f"GET .*{resource.id}/json", freeze)
            began = time.monotonic()
            with pytest.raises(dockertest.EngineError, match="did not answer within 3 s"):
                next(lines)
            assert time.monotonic() - began < 15
