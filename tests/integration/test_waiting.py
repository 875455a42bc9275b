"""Waiting for what runs in a container: ready is noticed at once, dead is told at once."""

import time
from datetime import datetime
from itertools import repeat
from typing import Any

import psycopg
import pytest

import dockertest

from .conftest import Engine

SLEEP = ("sleep", "600")
DIES = ("sh", "-c", "echo on its way; echo 'no space for the database' >&2; exit 3")


def never() -> bool:
    """A service that is never ready."""
    return False


def test_a_container_that_dies_at_once_ends_the_wait(pool: dockertest.Pool) -> None:
    """Exit code, reason and last log lines are told at once."""
    with pool.run("busybox:1.35", cmd=DIES) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.ContainerExitedError) as caught:
            resource.retry(never)
        assert time.monotonic() - began < 5  # far from the minute that a poll would take
    assert caught.value.exit_code == 3
    assert not caught.value.oom_killed
    report = caught.value.report
    assert report is not None
    assert (report.name, report.id, report.status, report.exit_code) == (
        resource.name,
        resource.id,
        "exited",
        3,
    )
    assert report.attempts > 0
    assert str(report) == str(caught.value)
    assert report.more in str(report)
    assert "no space for the database" in caught.value.logs
    assert "exit code 3" in str(caught.value)
    assert "    no space for the database" in str(caught.value)


def test_a_container_that_dies_later_ends_the_wait(pool: dockertest.Pool) -> None:
    """Within a pause and 0.2 s of its death by the engine's own clock; the best of three, for a busy machine."""
    late = []
    for _ in range(3):
        with pool.run("busybox:1.35", cmd=["sh", "-c", "sleep 1; exit 4"]) as resource:
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 4"):
                resource.retry(never, wait=lambda: repeat(0.3))
            told = time.time()
            died, _, fraction = resource.container.attrs["State"]["FinishedAt"].rstrip("Z").partition(".")
        late.append(told - datetime.fromisoformat(f"{died}+00:00").timestamp() - float(f"0.{fraction}"))
    assert 0 <= min(late) < 0.3 + 0.2


def test_a_pool_watches_for_failures_and_tells_each_once() -> None:
    """A container that ended well is no failure; one that failed is told once, and then the wait goes on."""
    with dockertest.Pool() as pool:
        pool.run("busybox:1.35", cmd=["true"])
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(never, max_wait=0.5)
        failed = pool.run("busybox:1.35", cmd=DIES)
        with pytest.raises(dockertest.ContainerExitedError, match=failed.name):
            pool.retry(never)
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(never, max_wait=0.3)


def test_one_that_is_started_again_is_watched_again() -> None:
    """Its next death is another one, however the last one ended the wait."""
    with dockertest.Pool() as pool:
        failed = pool.run("busybox:1.35", cmd=DIES)
        for _ in range(2):
            with pytest.raises(dockertest.ContainerExitedError, match=failed.name):
                pool.retry(never, max_wait=10)
            failed.start()


def test_watch_names_what_is_watched(pool: dockertest.Pool) -> None:
    """Any end of what is named counts, and with nothing named nothing does."""
    with pool.run("busybox:1.35", cmd=["true"]) as ended, pool.run("busybox:1.35", cmd=SLEEP) as running:
        with pytest.raises(dockertest.ContainerExitedError, match="exit code 0"):
            pool.retry(never, watch=(running, ended))
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(never, watch=(), max_wait=0.3)
        with pytest.raises(dockertest.ContainerExitedError, match=ended.name):
            dockertest.retry(never, watch=(ended,))


def test_one_that_removes_itself_has_ended_too(pool: dockertest.Pool) -> None:
    """A container with AutoRemove vanishes when it ends; the wait for it ends all the same."""
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sleep", "1"])
    with pool.run_with_options(options, lambda host_config: host_config.update(AutoRemove=True)) as resource:
        with pytest.raises(dockertest.ContainerExitedError, match=r"is gone|has ended") as caught:
            resource.retry(never, max_wait=20)
        assert caught.value.exit_code in (None, 0), "0 if it was asked between its end and its removal"
        dockertest.retry(lambda: resource.status == "removed")
        for ask in (
            lambda: resource.get_port(80),
            lambda: resource.wait_for_log("ready"),
            lambda: resource.exec(["true"]),
        ):
            with pytest.raises(dockertest.ContainerExitedError, match="is gone"):
                ask()


@pytest.mark.differs("want of memory")
def test_out_of_memory_is_told_apart_from_a_kill(pool: dockertest.Pool, engine: Engine) -> None:
    """Both end with 137; the engine knows which was which."""
    eats = dockertest.RunOptions(
        repository="busybox", tag="1.35", cmd=["sh", "-c", "sleep 0.2; tail /dev/zero"]
    )

    def limit(host_config: dict[str, Any]) -> None:
        host_config.update(Memory=16 << 20, MemorySwap=16 << 20)

    with pool.run_with_options(eats, limit) as resource:
        with pytest.raises(dockertest.ContainerExitedError, match="out of memory") as caught:
            resource.retry(never, max_wait=30)
        assert caught.value.oom_killed
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        engine.client.api.kill(resource.id)
        with pytest.raises(dockertest.ContainerExitedError, match="SIGKILL") as caught:
            resource.retry(never)
        assert not caught.value.oom_killed


def test_a_ping_that_never_succeeds_ends_at_max_wait(pool: dockertest.Pool) -> None:
    """The error has attempts, seconds, the last failure as text and cause, and the container's state and last lines."""
    with pool.run(
        "busybox:1.35", cmd=["sh", "-c", "echo still starting; sleep 600"], exposed_ports=[80]
    ) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError) as caught:
            resource.retry(lambda: 1 / 0, max_wait=1)
        assert 1 <= time.monotonic() - began < 1.2 + 1  # 0.2 s is the promise; the rest is for a busy machine
    text = str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert f"{caught.value.attempts} attempts: ZeroDivisionError: division by zero" in text
    assert "is running" in text
    assert f"80/tcp -> {pool.publish_ip}:" in text
    assert "    still starting" in text


def test_the_value_of_the_ping_is_given_back(pool: dockertest.Pool) -> None:
    """`connection = resource.retry(connect)` is the live connection."""
    with pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret", "POSTGRES_DB": "shop"}) as resource:
        connection = resource.retry(
            lambda: psycopg.connect(
                host=resource.get_bound_ip(5432),
                port=resource.get_port(5432),
                user="postgres",
                password="secret",
                dbname="shop",
            )
        )
        with connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("shop",)


def test_a_mistake_in_the_ping_ends_the_wait_at_once(pool: dockertest.Pool) -> None:
    """A port that was never exposed does not come with time."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.PortNotPublishedError):
            pool.retry(lambda: resource.get_port(80))
        assert time.monotonic() - began < 5
