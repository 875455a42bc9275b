"""Reading, following and searching a container's log."""

import gc
import math
import re
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, answer, relay

from .conftest import Engine

TICKS = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done")


@pytest.mark.parametrize("tty", [False, True])
def test_reading_a_log(pool: dockertest.Pool, tty: bool) -> None:
    """All lines or only the last ones, with and without a terminal."""
    with pool.run(
        "busybox:1.35", cmd=["sh", "-c", "for i in 1 2 3; do echo line $i; done"], tty=tty
    ) as resource:
        resource.wait(30)
        assert resource.logs().split() == ["line", "1", "line", "2", "line", "3"]
        assert resource.logs(tail=1).strip() == "line 3"
        assert list(resource.stream_logs()) == ["line 1", "line 2", "line 3"]


def test_since_omits_older_lines(pool: dockertest.Pool) -> None:
    """It is a time as returned by `time.time()`."""
    script = "echo old; until test -e /continue; do sleep 0.1; done; echo new"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        resource.wait_for_log("old")
        moment = time.time()
        resource.write_file("/continue", b"")
        resource.wait(30)
        assert resource.logs(since=moment) == "new\n"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda resource: resource.logs(tail="all"), "invalid tail 'all': .*"),
        (lambda resource: resource.logs(tail=-1), "invalid tail -1: .*"),
        (
            lambda resource: resource.logs(since=datetime.now(UTC)),
            r"invalid since .*\.timestamp\(\)",
        ),
        (lambda resource: resource.logs(since=math.nan), "invalid since nan: .*"),
        (lambda resource: resource.wait_for_log("first", count=0), "invalid count 0: .*"),
        (lambda resource: resource.wait_for_log("("), r"invalid pattern '\(': missing \).*re\.escape\(\)"),
        (lambda resource: resource.wait_for_log("x{99999999999}"), "invalid pattern 'x.*': the repetition.*"),
        (lambda resource: resource.wait_for_log(cast("Any", b"first")), "invalid pattern b'first': .*text"),
        (lambda resource: resource.wait_for_log(cast("Any", re.compile(b"x"))), "invalid pattern .*text"),
        (lambda resource: resource.wait_for_log(cast("Any", None)), "invalid pattern None: .*text"),
    ],
)
def test_invalid_options_are_rejected(
    pool: dockertest.Pool, call: Callable[[dockertest.Resource], object], message: str
) -> None:
    """Engines would return the whole log or an obscure error."""
    with (
        pool.run("busybox:1.35", cmd=["echo", "first"]) as resource,
        pytest.raises(dockertest.InvalidOptionError, match=message),
    ):
        call(resource)


def test_a_followed_log_has_every_line_once(pool: dockertest.Pool) -> None:
    """Ten thousand lines with multi-byte characters arrive complete and in order."""
    script = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo \"$i grüße\"; done; printf 'no end of line'"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        lines = list(resource.stream_logs())
    expected = [*(f"{index} grüße" for index in range(1, 10001)), "no end of line"]
    assert lines == expected


def test_the_log_of_a_container_that_has_ended_is_followed_completely(pool: dockertest.Pool) -> None:
    """All lines arrive once, also if the container ends before they have been read."""
    with pool.run("busybox:1.35", cmd=["seq", "40000"]) as resource:
        for _ in range(2):
            assert list(resource.stream_logs()) == [str(index) for index in range(1, 40001)]


def test_equal_lines_written_at_once_are_all_followed(pool: dockertest.Pool) -> None:
    """On Podman 5, they have the same time. They are found while the container runs."""
    script = "sleep 0.5; printf 'same\\nsame\\nsame\\n'; sleep 600"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        assert resource.wait_for_log("same", count=3, max_wait=10)


def test_a_large_log_does_not_exhaust_memory(pool: dockertest.Pool) -> None:
    """
    By default, the last 64 MiB are returned.

    A line at the beginning reports the omission.
    """
    script = "head -c 70000000 /dev/zero | tr '\\0' x | fold -w 9999; echo; echo the end"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        resource.wait(60)
        tracemalloc.start()
        try:
            text = resource.logs()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2.2 * (64 << 20)
    note, _, end = text.partition("\n")
    assert re.fullmatch(r"\[dockertest omitted \d+ bytes here; max_bytes is 67108864\]", note)
    assert len(end) == 64 << 20
    assert end.endswith("x\nthe end\n")


@pytest.mark.parametrize("tty", [False, True])
def test_max_bytes_limits_a_log(pool: dockertest.Pool, tty: bool) -> None:
    """The end of the log is returned, or all of it with `None`."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "seq 1000"], tty=tty) as resource:
        resource.wait(30)
        numbers = [str(number) for number in range(1, 1001)]
        assert resource.logs().split() == resource.logs(max_bytes=None).split() == numbers
        note, _, end = resource.logs(max_bytes=20).partition("\n")
        assert note.endswith("bytes here; max_bytes is 20]")
        assert end.split()[-3:] == numbers[-3:]
        assert len(end) == 20
        with pytest.raises(dockertest.InvalidOptionError, match="max_bytes"):
            resource.logs(max_bytes=0)


@pytest.mark.parametrize("tty", [False, True])
def test_a_followed_log_survives_rotation_and_restarts(
    pool: dockertest.Pool, engine: Engine, tty: bool
) -> None:
    """
    No line is split, and on Docker none is lost or repeated.

    After a rotation, the beginning of the log is missing.

    Podman reads a log four times a second, and misses lines that are written and removed in between.
    """
    script = """
        n=$(cat /n 2>/dev/null || echo 0); echo $((n+1)) > /n; sleep 2; echo run$n READY; i=0
        while [ $i -lt 300 ]; do
            echo run$n line $i xxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); [ $((i%20)) = 0 ] && sleep 0.02
        done
        [ $n -lt 2 ] && exit 1; exit 0"""

    def rotate_and_restart(host_config: dict[str, Any]) -> None:
        host_config["RestartPolicy"] = {"Name": "on-failure", "MaximumRetryCount": 5}
        host_config["LogConfig"] = {"Type": "json-file", "Config": {"max-size": "30k", "max-file": "1"}}

    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sh", "-c", script], tty=tty)
    with pool.run_with_options(options, rotate_and_restart) as resource:
        lines = list(resource.stream_logs())
    expected = {f"run{run} line {line} xxxxxxxxxxxxxxxxxxxxx" for run in range(3) for line in range(300)}
    expected |= {f"run{run} READY" for run in range(3)}
    assert set(lines) <= expected
    assert lines[-1] == "run2 line 299 xxxxxxxxxxxxxxxxxxxxx"
    assert engine.is_podman or sorted(lines) == sorted(expected)


def test_an_unfinished_line_of_a_terminal_is_continued_after_a_restart(pool: dockertest.Pool) -> None:
    """A terminal's log has no frames that would separate the two parts."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo first; printf 'no end'"], tty=True) as resource:
        resource.wait(30)
        resource.start()
        resource.wait(30)
        assert list(resource.stream_logs()) == ["first", "no endfirst", "no end"]


@pytest.mark.parametrize("tty", [False, True])
def test_a_long_line_arrives_complete(pool: dockertest.Pool, tty: bool) -> None:
    """The engine splits lines longer than 16 KiB; the stream joins them again."""
    script = "dd if=/dev/zero bs=100000 count=1 2>/dev/null | tr '\\0' x; echo; echo after"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script], tty=tty) as resource:
        assert [len(line) for line in resource.stream_logs()] == [100000, 5]


def test_a_response_that_ends_in_the_middle_of_a_line_is_requested_again(
    pool: dockertest.Pool, engine: Engine, tmp_path: Path
) -> None:
    """
    The part of the line is not repeated.

    Podman 4 ends a followed log so if the container ends at that moment.
    """
    if not engine.is_podman:
        pytest.skip("engine: it is not Podman")

    def end_early(client: "socket.socket", _forward: "Callable[[], socket.socket]") -> None:
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + 20_000 * b"x")

    script = "dd if=/dev/zero bs=100000 count=1 2>/dev/null | tr '\\0' x; echo; echo after; exec sleep 600"
    with (
        pool.run("busybox:1.35", cmd=["sh", "-c", script], tty=True) as resource,
        FaultProxy(tmp_path / "x").running() as proxy,
        dockertest.Pool(proxy.endpoint) as behind,
    ):
        resource.wait_for_log("after", max_wait=30)
        proxy.next("GET .*/logs.*follow=1", end_early)
        seen = behind.container_by_name(resource.name)
        assert seen
        with seen.stream_logs() as lines:
            assert [len(next(lines)) for _ in range(2)] == [100_000, 5]


@pytest.mark.parametrize("tty", [False, True])
def test_times_that_a_program_writes_are_part_of_its_lines(pool: dockertest.Pool, tty: bool) -> None:
    """A time in the future is not taken for that of the line."""
    text = "valid until 2999-01-01T00:00:00.000000000Z for all"
    command = ["sh", "-c", f"echo {text}; sleep 2; echo end"]
    with (
        pool.run("busybox:1.35", tty=tty, cmd=command) as resource,
        resource.stream_logs() as lines,
    ):
        assert list(lines) == [text, "end"]


def test_a_followed_log_survives_a_proxy_that_closes_silent_connections(
    pool: dockertest.Pool, tmp_path: Path
) -> None:
    """It is followed again, with every line once."""

    def close_soon(client: "socket.socket", forward: "Callable[[], socket.socket]") -> None:
        def close() -> None:
            with suppress(OSError):  # The answer has ended before.
                upstream.shutdown(socket.SHUT_RDWR)

        with forward() as upstream:
            threading.Timer(1.5, close).start()
            relay(client, upstream)

    script = "echo a; sleep 2; echo b; sleep 2; echo c"
    with (
        pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource,
        FaultProxy(tmp_path / "x").running() as proxy,
        dockertest.Pool(proxy.endpoint) as behind,
    ):
        proxy.next("GET .*/logs", close_soon)
        proxy.next("GET .*/logs", close_soon)
        seen = behind.container_by_name(resource.name)
        assert seen
        with seen.stream_logs() as lines:
            assert list(lines) == ["a", "b", "c"]


def test_a_very_long_line_takes_no_longer_than_many_short_ones(pool: dockertest.Pool) -> None:
    """
    It arrives in thousands of messages.

    Appending each of them to the previous ones would take minutes.
    """
    script = "head -c 60000000 /dev/zero | tr '\\0' x; printf '\\303'"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as writer:
        writer.wait(60)
        began = time.monotonic()
        with writer.stream_logs() as stream:
            (line,) = stream
        assert time.monotonic() - began < 20
        assert len(line) == 60_000_001
        assert line.endswith("x\ufffd")  # an incomplete character at the end is marked


@pytest.mark.parametrize("tty", [False, True])
def test_a_stream_is_closed_from_another_thread(pool: dockertest.Pool, tty: bool) -> None:
    """A reader that waits for a line stops iterating without an error."""
    with pool.run("busybox:1.35", cmd=TICKS, tty=tty) as resource:
        stream = resource.stream_logs()
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(stream))
        thread.start()
        dockertest.retry(lambda: len(lines) >= 3)
        stream.close()
        thread.join(10)
        assert not thread.is_alive()
        assert lines[:3] == ["tick 1", "tick 2", "tick 3"]


def test_a_stream_ends_when_its_container_is_removed(pool: dockertest.Pool) -> None:
    """
    Threads that follow the log stop.

    The engine cannot read the rest of the log.
    """
    with pool.run("busybox:1.35", cmd=TICKS) as resource, ThreadPoolExecutor() as threads:
        lines: list[str] = []
        waiting = threads.submit(resource.wait_for_log, "never")
        following = threads.submit(lambda: lines.extend(resource.stream_logs()))
        dockertest.retry(lambda: len(lines) >= 3)
        resource.close()
        following.result(10)
        with pytest.raises(dockertest.ContainerExitedError):
            waiting.result(10)


def test_an_abandoned_stream_closes_its_connection(pool: dockertest.Pool) -> None:
    """
    There is no `ResourceWarning`.

    This applies to a loop that is left by `break`, and to one that was never started.
    """
    with pool.run("busybox:1.35", cmd=TICKS) as resource:
        for line in resource.stream_logs():
            assert line == "tick 1"
            break
        resource.stream_logs()
        with resource.stream_logs() as stream:
            assert next(stream) == "tick 1"
        gc.collect()


def test_wait_for_log_returns_the_match(pool: dockertest.Pool) -> None:
    """*count* selects a later match, and the match has the groups of the expression."""
    with pool.run("busybox:1.35", cmd=TICKS) as resource:
        match = resource.wait_for_log(r"tick (\d+)", count=4, max_wait=30)
        assert match[1] == "4"
        assert resource.wait_for_log(re.compile("TICK", re.IGNORECASE), max_wait=30)


def test_wait_for_log_times_out(pool: dockertest.Pool) -> None:
    """The error has the last lines of the log."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo still starting; sleep 600"]) as resource:
        began = time.monotonic()
        with pytest.raises(dockertest.RetryTimeoutError, match="still starting") as caught:
            resource.wait_for_log("ready", max_wait=0.5)
        assert 0.5 <= time.monotonic() - began < 30
        assert re.match(r"'ready' was not found in the log within [\d.]+ s\n", str(caught.value))
        with pytest.raises(dockertest.RetryTimeoutError, match=r"^'still' was not found 2 times in the log"):
            resource.wait_for_log("still", count=2, max_wait=0)


def test_wait_for_log_without_time_searches_the_lines_so_far(pool: dockertest.Pool) -> None:
    """It does so each time, and does not follow the log."""
    script = "echo ready; sleep 600"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script]) as resource:
        resource.wait_for_log("ready", max_wait=30)
        for _ in range(20):
            assert resource.wait_for_log("ready", max_wait=0)
        with pytest.raises(dockertest.RetryTimeoutError, match="'never' was not found in the log"):
            resource.wait_for_log("never", max_wait=0)
        with pytest.raises(dockertest.LogFailureError):
            resource.wait_for_log("never", fail_on="ready", max_wait=0)


def test_wait_for_log_ends_with_the_container(pool: dockertest.Pool) -> None:
    """A container that has exited writes no more lines."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo going down; exit 9"]) as resource:
        with pytest.raises(dockertest.ContainerExitedError, match="going down") as caught:
            resource.wait_for_log("ready")
        assert caught.value.exit_code == 9


def test_wait_for_log_continues_after_a_restart(engine: Engine, tmp_path: Path) -> None:
    """A container that was started again continues its log."""
    script = "[ -e /again ] && echo ready && exec sleep 600; touch /again; echo first"
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", script])
        resource.wait(30)

        def start_first(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
            engine.client.api.start(resource.id)
            relay(client, forward())

        proxy.next(r"^GET \S*/containers/\S*/json", start_first)  # follows the end of the log
        assert resource.wait_for_log("ready|first", count=2, max_wait=30)[0] == "ready"


def test_an_engine_that_cannot_read_the_whole_log_is_reported(tmp_path: Path) -> None:
    """It writes its error into the answer, as a stream of its own."""

    def broken(client: socket.socket, _forward: Callable[[], socket.socket]) -> None:
        messages = ((1, b"line 1\n"), (3, b"Error grabbing logs: unexpected EOF\n"))
        body = b"".join(struct.pack(">BxxxL", stream, len(text)) + text for stream, text in messages)
        client.sendall(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", "echo up; sleep 600"])
        proxy.next("/logs.*follow=1", broken)
        with resource.stream_logs() as lines:
            assert next(line for line in lines if line != "line 1") == "up"
        proxy.next("/logs", broken)
        with pytest.raises(
            dockertest.EngineError, match="engine reported: Error grabbing logs: unexpected EOF"
        ):
            resource.logs()
        resource.container.kill()
        proxy.next("/logs", broken)
        with pytest.raises(dockertest.ContainerExitedError) as caught:
            pool.retry(lambda: False)
        assert caught.value.logs == "line 1\nError grabbing logs: unexpected EOF"


def test_a_half_written_line_is_read_again(tmp_path: Path) -> None:
    """Podman 4 refuses a request that comes while a line is being written."""
    refusal = "unable to read log file x for /x/ctr.log : '2026-11-30T03:' is not a valid container log line"
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=["echo", "hello"])
        resource.wait(60)

        def followed() -> str:
            with resource.stream_logs() as lines:
                return next(lines)

        reads: tuple[Callable[[], str], ...] = (resource.logs, followed)
        for read in reads:
            proxy.next("/logs", answer(500, refusal))
            assert read().strip() == "hello"
