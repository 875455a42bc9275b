"""A container's log: whole, followed, and waited for."""

import gc
import math
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, relay

from .conftest import Engine

TICKS = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done")


@pytest.mark.parametrize("tty", [False, True])
def test_what_was_written_is_read(pool: dockertest.Pool, tty: bool) -> None:
    """With a terminal or without: every line, and the last lines alone."""
    with pool.run(
        "busybox:1.35", cmd=["sh", "-c", "for i in 1 2 3; do echo line $i; done"], tty=tty
    ) as resource:
        resource.wait(30)
        assert resource.logs().split() == ["line", "1", "line", "2", "line", "3"]
        assert resource.logs(tail=1).strip() == "line 3"
        assert list(resource.stream_logs()) == ["line 1", "line 2", "line 3"]


def test_since_leaves_out_what_is_older(pool: dockertest.Pool) -> None:
    """A point in time, as `time.time()` gives it."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo old; sleep 1.5; echo new"]) as resource:
        moment = time.time() + 0.7
        resource.wait(30)
        assert resource.logs(since=moment) == "new\n"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda resource: resource.logs(tail="all"), "tail must be .* 'all'"),
        (lambda resource: resource.logs(tail=-1), "tail must be .* -1"),
        (
            lambda resource: resource.logs(since=datetime.now(timezone.utc)),
            r"since must be .*\.timestamp\(\)",
        ),
        (lambda resource: resource.logs(since=math.nan), "since must be .* nan"),
        (lambda resource: resource.wait_for_log("first", count=0), "count must be .* 0"),
    ],
)
def test_what_is_no_number_is_refused(
    pool: dockertest.Pool, ask: Callable[[dockertest.Resource], object], said: str
) -> None:
    """Engines would give the whole log, or a riddle, and no match comes a zeroth time."""
    with (
        pool.run("busybox:1.35", cmd=["echo", "first"]) as resource,
        pytest.raises(dockertest.InvalidOptionError, match=said),
    ):
        ask(resource)


def test_a_followed_log_has_every_line_once(pool: dockertest.Pool) -> None:
    """Ten thousand lines, long ones and broken characters among them, arrive whole and in order."""
    script = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo \"$i grüße\"; done; printf 'no end of line'"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        lines = list(resource.stream_logs())
    assert lines == [*(f"{index} grüße" for index in range(1, 10001)), "no end of line"]


def test_a_long_line_arrives_whole(pool: dockertest.Pool) -> None:
    """The engine cuts lines of more than 16 KiB; the stream puts them together."""
    script = "dd if=/dev/zero bs=100000 count=1 2>/dev/null | tr '\\0' x; echo; echo after"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        assert [len(line) for line in resource.stream_logs()] == [100000, 5]


def test_a_very_long_line_costs_no_more_than_many_short_ones(pool: dockertest.Pool) -> None:
    """It comes in thousands of pieces: to put each to what was there before would take minutes."""
    script = "head -c 60000000 /dev/zero | tr '\\0' x; printf '\\303'"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as writer:
        writer.wait(60)
        began = time.monotonic()
        with writer.stream_logs() as stream:
            (line,) = stream
        assert time.monotonic() - began < 20
        assert len(line) == 60_000_001
        assert line.endswith("x\ufffd")  # what the log ends in the midst of is told, not dropped


@pytest.mark.parametrize("tty", [False, True])
def test_a_stream_is_closed_from_another_thread(pool: dockertest.Pool, tty: bool) -> None:
    """A reader in the middle of the stream gets its end, and no error."""
    with pool.run("busybox:1.35", cmd=TICKS, tty=tty) as resource:
        stream = resource.stream_logs()
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.extend(stream))
        thread.start()
        dockertest.retry(lambda: len(seen) >= 3)
        stream.close()
        thread.join(10)
        assert not thread.is_alive()
        assert seen[:3] == ["tick 1", "tick 2", "tick 3"]


def test_a_stream_ends_with_a_container_that_is_removed(pool: dockertest.Pool) -> None:
    """Whoever follows the log in a thread sees its end, though the engine will not read the rest any more."""
    with pool.run("busybox:1.35", cmd=TICKS) as resource, ThreadPoolExecutor() as threads:
        seen: list[str] = []
        waiting = threads.submit(resource.wait_for_log, "never")
        following = threads.submit(lambda: seen.extend(resource.stream_logs()))
        dockertest.retry(lambda: len(seen) >= 3)
        resource.close()
        following.result(10)
        with pytest.raises(dockertest.ContainerExitedError):
            waiting.result(10)


def test_a_stream_that_is_left_early_leaves_nothing_open(pool: dockertest.Pool) -> None:
    """`break` in the middle, or never begun: the connection goes with the iterator, without a warning."""
    with pool.run("busybox:1.35", cmd=TICKS) as resource:
        for line in resource.stream_logs():
            assert line == "tick 1"
            break
        resource.stream_logs()
        with resource.stream_logs() as stream:
            assert next(stream) == "tick 1"
        gc.collect()


def test_a_log_line_is_waited_for(pool: dockertest.Pool) -> None:
    """The count-th match is given, as a match with its groups."""
    with pool.run("busybox:1.35", cmd=TICKS) as resource:
        match = resource.wait_for_log(r"tick (\d+)", count=4, max_wait=30)
        assert match[1] == "4"
        assert resource.wait_for_log(re.compile("TICK", re.IGNORECASE), max_wait=30)


def test_a_line_that_never_comes(pool: dockertest.Pool) -> None:
    """Past its time it is a `RetryTimeoutError` with the last lines."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo still starting; sleep 600"]) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError, match="still starting") as caught:
            resource.wait_for_log("ready", max_wait=0.5)
        assert 0.5 <= time.monotonic() - began < 3
        assert re.match(r"'ready' was not found in the log within [\d.]+ s\n", str(caught.value))
        with pytest.raises(dockertest.RetryTimeoutError, match=r"^'still' was not found 2 times in the log"):
            resource.wait_for_log("still", count=2, max_wait=0)


def test_a_line_that_cannot_come_any_more(pool: dockertest.Pool) -> None:
    """The container has ended: that is told at once."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo going down; exit 9"]) as resource:
        with pytest.raises(dockertest.ContainerExitedError, match="going down") as caught:
            resource.wait_for_log("ready")
        assert caught.value.exit_code == 9


def test_a_line_is_waited_for_across_a_restart(engine: Engine, tmp_path: Path) -> None:
    """The log of a container that is running again goes on, and so does the wait."""
    script = "[ -e /again ] && echo ready && exec sleep 600; touch /again; echo first"
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", script])
        resource.wait(30)

        def start_first(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
            engine.client.api.start(resource.id)
            relay(client, forward())

        proxy.next(
            r"^GET \S*/containers/\S*/json", start_first
        )  # asked at the log's end whether it has ended
        assert resource.wait_for_log("ready|first", count=2, max_wait=30)[0] == "ready"
