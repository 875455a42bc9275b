"""
Durations, time limits and expiry times are real, even with mocked clocks.

A test may mock `time` and `datetime`.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from time_machine import travel

import dockertest
from dockertest import _clock
from tests.engines.tls_front import Front, certificates

from .conftest import Engine, without_tls_warning

SLEEP = ("sleep", "600")
PAST = datetime(2001, 9, 9, tzinfo=UTC)
FUTURE = datetime(2101, 9, 9, tzinfo=UTC)


def frozen_in_the_past() -> AbstractContextManager[object]:
    """Stop the clocks with freezegun."""
    return freeze_time(PAST)


def frozen_in_the_future() -> AbstractContextManager[object]:
    """Stop the clocks with freezegun."""
    return freeze_time(FUTURE)


def stopped_in_the_past() -> AbstractContextManager[object]:
    """Stop the wall clock with time-machine."""
    return travel(PAST, tick=False)


def moved_to_the_future() -> AbstractContextManager[object]:
    """Move the wall clock with time-machine."""
    return travel(FUTURE)


MOCKS = [frozen_in_the_past, frozen_in_the_future, stopped_in_the_past, moved_to_the_future]


@pytest.fixture(params=MOCKS)
def mock(request: pytest.FixtureRequest) -> "Callable[[], AbstractContextManager[object]]":
    """A function that returns a context manager which mocks time."""
    mocked: Callable[[], AbstractContextManager[object]] = request.param
    return mocked


@pytest.fixture
def mocked_time(mock: "Callable[[], AbstractContextManager[object]]") -> Iterator[None]:
    """Mocked time during the whole test."""
    with mock():
        yield


class Stopwatch:
    """The real seconds since its creation."""

    def __init__(self) -> None:
        self._began = _clock.monotonic()

    @property
    def elapsed(self) -> float:
        """The seconds until now."""
        return _clock.monotonic() - self._began


@pytest.mark.usefixtures("mocked_time")
class TestMockedTime:
    """Calls in a test that mocks time."""

    def test_retry_gives_up_on_time(self, pool: dockertest.Pool) -> None:
        """Frozen time must not make it retry forever. The error states the real duration."""
        watch = Stopwatch()
        with pytest.raises(
            dockertest.RetryTimeoutError, match=r"^gave up after \d+\.\d s and \d+ attempts"
        ) as caught:
            pool.retry(lambda: False, max_wait=1)
        assert 1 <= caught.value.elapsed <= watch.elapsed < 60

    def test_retry_async_gives_up_on_time(self, pool: dockertest.Pool) -> None:
        """Freezing time also stops the clock of asyncio's event loop."""

        async def not_ready() -> bool:
            return False

        watch = Stopwatch()
        with pytest.raises(dockertest.RetryTimeoutError) as caught:
            asyncio.run(pool.retry_async(not_ready, max_wait=1))
        assert 1 <= caught.value.elapsed <= watch.elapsed < 60
        assert caught.value.attempts >= 2

    def test_an_attempt_that_hangs_is_cancelled(self, pool: dockertest.Pool) -> None:
        """`attempt_timeout` is a real duration."""

        async def hang() -> None:
            await asyncio.Event().wait()

        watch = Stopwatch()
        with pytest.raises(dockertest.RetryTimeoutError, match=r"took longer than 0\.1 s"):
            asyncio.run(pool.retry_async(hang, attempt_timeout=0.1, max_wait=0.5))
        assert 0.5 <= watch.elapsed < 60

    def test_a_container_expires(self, pool: dockertest.Pool, engine: Engine) -> None:
        """The reaper removes it after the real time."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            watch = Stopwatch()
            resource.expire(1)
            dockertest.retry(lambda: not engine.has(resource.id), max_wait=20)
            assert watch.elapsed >= 1

    def test_a_container_that_expires_late_stays(self, pool: dockertest.Pool, engine: Engine) -> None:
        """It is not removed because a mocked clock is ahead or behind."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            resource.expire(600)
            with pytest.raises(dockertest.RetryTimeoutError):
                dockertest.retry(lambda: not engine.has(resource.id), max_wait=1)

    def test_the_expiry_label_is_in_the_real_future(
        self, monkeypatch: pytest.MonkeyPatch, engine: Engine
    ) -> None:
        """Other sessions compare the label of `DOCKERTEST_TTL` with their own clock."""
        monkeypatch.setenv("DOCKERTEST_TTL", "600")
        with dockertest.Pool() as own, own.run("busybox:1.35", cmd=SLEEP) as resource:
            expires = float(engine.inspect(resource.id)["Config"]["Labels"]["dockertest.expires"])
            assert 500 < expires - _clock.time() < 700

    def test_pruning_leaves_a_container_that_has_not_expired(
        self, monkeypatch: pytest.MonkeyPatch, engine: Engine
    ) -> None:
        """A session in mocked time compares expiry labels with the real time."""
        monkeypatch.setenv("DOCKERTEST_TTL", "600")
        with dockertest.Pool() as own, own.run("busybox:1.35", cmd=SLEEP) as resource:
            assert resource.id not in own.prune()
            assert engine.has(resource.id)

    def test_waiting_for_an_exit_times_out(self, pool: dockertest.Pool) -> None:
        """`wait` and `wait_for_log` use the real clock."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            watch = Stopwatch()
            with pytest.raises(dockertest.RetryTimeoutError):
                resource.wait(timeout=0.5)
            with pytest.raises(dockertest.RetryTimeoutError):
                resource.wait_for_log("never", max_wait=0.5)
            assert 1 <= watch.elapsed < 20

    def test_stop_and_start_return(self, pool: dockertest.Pool) -> None:
        """Neither call waits for a stopped clock."""
        with pool.run("nginx:1.22") as resource:
            watch = Stopwatch()
            resource.stop(timeout=1)
            assert resource.wait(timeout=10) is not None
            resource.start()
            assert resource.get_port("80/tcp")
            assert watch.elapsed < 20

    def test_a_command_times_out(self, pool: dockertest.Pool) -> None:
        """`exec` uses the real clock."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            watch = Stopwatch()
            with pytest.raises(dockertest.ExecTimeoutError):
                resource.exec(["sleep", "60"], timeout=0.5)
            assert resource.exec(["true"], timeout=30).exit_code == 0
            assert watch.elapsed < 20

    def test_the_timeline_has_real_durations(self, pool: dockertest.Pool) -> None:
        """Start and duration of each step are real."""
        before = _clock.time()
        with pool.run("busybox:1.35", cmd=SLEEP):
            start = next(step for step in reversed(pool.timeline()) if step.kind == "start")
        assert 0 < start.seconds < 60
        assert before - 1 < start.began < _clock.time() + 1


def test_an_engine_with_tls_is_reached(
    mock: "Callable[[], AbstractContextManager[object]]", local: str, tmp_path: Path
) -> None:
    """
    Certificates are verified at the real time.

    urllib3's warning about the date is not an error.
    """
    with (
        Front(local, certificates(tmp_path)) as front,
        mock(),
        dockertest.Pool(front.url, cert_path=tmp_path) as own,
        own.run("busybox:1.35", cmd=SLEEP) as resource,
    ):
        assert resource.status == "running"


@pytest.mark.parametrize("module", ["freezegun", "time_machine"])
def test_dockertest_may_be_imported_in_mocked_time(module: str) -> None:
    """Import, start, wait and exit all work in mocked time."""
    begin = {"freezegun": "freeze_time", "time_machine": "travel"}[module]
    code = f"""
import datetime, {module}
with {module}.{begin}(datetime.datetime(2001, 9, 9, tzinfo=datetime.timezone.utc)):
    import dockertest
    with dockertest.Pool() as pool:
        pool.run("busybox:1.35", cmd=["sleep", "600"])
        try:
            pool.retry(lambda: False, max_wait=1)
        except dockertest.RetryTimeoutError as error:
            print(error.elapsed)
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert 1 <= float(done.stdout) < 10
    assert without_tls_warning(done.stderr) == ""
    assert time.monotonic() - began < 40


def test_freezing_time_with_the_fixture_of_pytest_freezer(
    pool: dockertest.Pool, freezer: FrozenDateTimeFactory
) -> None:
    """Moving frozen time by an hour does not end a wait."""
    freezer.move_to(PAST)
    calls = []

    def ready_at_third_call() -> bool:
        freezer.tick(3600)
        calls.append(time.time())
        return len(calls) == 3

    assert pool.retry(ready_at_third_call, max_wait=30)
    assert calls[2] - calls[0] == 7200
