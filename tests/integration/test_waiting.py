"""Waiting for a service detects success promptly and reports an exit immediately."""

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


def test_an_exited_container_ends_the_wait(pool: dockertest.Pool) -> None:
    """The error has the exit code, the reason and the last log lines."""
    with pool.run("busybox:1.35", cmd=DIES) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.ContainerExitedError) as caught:
            resource.retry(never)
        assert time.monotonic() - began < 40  # less than the default `max_wait` of a minute
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


def test_a_container_that_exits_later_ends_the_wait(pool: dockertest.Pool) -> None:
    """
    The error is raised within one pause and 0.2 s.

    Only the best of ten attempts counts, since the machine may be busy.
    """
    late: list[float] = []
    while len(late) < 10 and not any(0 <= seconds < 0.3 + 0.2 for seconds in late):
        with pool.run("busybox:1.35", cmd=["sh", "-c", "sleep 1; exit 4"]) as resource:
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 4"):
                resource.retry(never, wait=lambda: repeat(0.3))
            reported = time.time()
            died, _, fraction = resource.container.attrs["State"]["FinishedAt"].rstrip("Z").partition(".")
        late.append(reported - datetime.fromisoformat(f"{died}+00:00").timestamp() - float(f"0.{fraction}"))
    assert 0 <= min(late) < 0.3 + 0.2


def test_a_pool_reports_each_failed_container_once() -> None:
    """
    A container that exits successfully is not reported.

    After the report of a failure, further waits continue.
    """
    with dockertest.Pool() as pool:
        pool.run("busybox:1.35", cmd=["true"])
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(never, max_wait=0.5)
        failed = pool.run("busybox:1.35", cmd=DIES)
        with pytest.raises(dockertest.ContainerExitedError, match=failed.name):
            pool.retry(never)
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(never, max_wait=0.3)


def test_a_restarted_container_is_watched_again() -> None:
    """Its next exit is reported as well."""
    with dockertest.Pool() as pool:
        failed = pool.run("busybox:1.35", cmd=DIES)
        for _ in range(2):
            with pytest.raises(dockertest.ContainerExitedError, match=failed.name):
                pool.retry(never, max_wait=10)
            failed.start()


def test_watch_selects_the_containers(pool: dockertest.Pool) -> None:
    """Any exit of a selected container counts, and an empty selection watches none."""
    with pool.run("busybox:1.35", cmd=["true"]) as ended, pool.run("busybox:1.35", cmd=SLEEP) as running:
        with pytest.raises(dockertest.ContainerExitedError, match="exit code 0"):
            pool.retry(never, watch=(running, ended))
        with pytest.raises(dockertest.RetryTimeoutError):
            pool.retry(never, watch=(), max_wait=0.3)
        with pytest.raises(dockertest.ContainerExitedError, match=ended.name):
            dockertest.retry(never, watch=(ended,))


def test_a_container_with_auto_remove_has_exited(pool: dockertest.Pool, engine: Engine) -> None:
    """It disappears when it exits, and the wait ends nevertheless."""
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sleep", "600"])
    with pool.run_with_options(options, lambda host_config: host_config.update(AutoRemove=True)) as resource:
        engine.client.api.kill(resource.id)
        with pytest.raises(dockertest.ContainerExitedError, match=r"is gone|has ended") as caught:
            resource.retry(never, max_wait=20)
        assert caught.value.exit_code in (None, 137), "137 if it was asked between its end and its removal"
        dockertest.retry(lambda: resource.status == "removed")
        for ask in (
            lambda: resource.get_port(80),
            lambda: resource.wait_for_log("ready"),
            lambda: resource.exec(["true"]),
        ):
            with pytest.raises(dockertest.ContainerExitedError, match="is gone"):
                ask()


@pytest.mark.differs("out-of-memory kills")
@pytest.mark.differs("limits of memory")
def test_an_out_of_memory_kill_differs_from_another_kill(pool: dockertest.Pool, engine: Engine) -> None:
    """
    Both exit with code 137, but the engine reports the difference.

    The shell survives its child, since a busy engine may notice the lack of memory later than an exit.
    """
    eats = dockertest.RunOptions(
        repository="busybox", tag="1.35", cmd=["sh", "-c", "sleep 0.2; tail /dev/zero; sleep 1; exit 137"]
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


def test_a_failing_call_ends_at_max_wait(pool: dockertest.Pool) -> None:
    """
    The error has the attempts, the time and the last exception.

    It also has the container's state and last lines.
    """
    with pool.run(
        "busybox:1.35", cmd=["sh", "-c", "echo still starting; sleep 600"], exposed_ports=[80]
    ) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError) as caught:
            resource.retry(lambda: 1 / 0, max_wait=1)
        assert 1 <= caught.value.elapsed <= time.monotonic() - began < 40  # less than the default `max_wait`
    text = str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert f"{caught.value.attempts} attempts: ZeroDivisionError: division by zero" in text
    assert "is running" in text
    assert f"80/tcp -> {pool.publish_ip}:" in text
    assert "    still starting" in text


def test_retry_returns_the_result_of_the_call(pool: dockertest.Pool) -> None:
    """`connection = resource.retry(connect)` is an open connection."""
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


def test_an_error_of_the_caller_ends_the_wait_immediately(pool: dockertest.Pool) -> None:
    """Waiting does not help if a port was never exposed."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.PortNotPublishedError):
            pool.retry(lambda: resource.get_port(80))
        assert time.monotonic() - began < 40
