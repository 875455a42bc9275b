"""Logs that are passed on while containers run."""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dockertest
from dockertest._containers import forward

COUNT = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"]


def forwarders() -> int:
    """Return the number of threads that pass logs on."""
    return sum(thread.name == "dockertest-log" for thread in threading.enumerate())


@pytest.mark.parametrize("kind", ["function", "path", "logger"])
def test_no_line_before_the_exit_is_lost(
    pool: dockertest.Pool, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The container ends at once, and the resource is closed right after that."""
    lines: list[str] = []
    path = tmp_path / "server.log"
    path.write_text("earlier\n")
    target = {"function": lines.append, "path": path, "logger": logging.getLogger("server")}[kind]
    script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; printf 'no end of line' >&2"
    caplog.set_level(logging.INFO, "server")
    with pool.run("busybox:1.35", cmd=["sh", "-c", script], log_to=target) as resource:  # type: ignore[arg-type]
        assert resource.wait(30) == 0
    if kind == "path":
        earlier, *lines = path.read_text().splitlines()
        assert earlier == "earlier"
    elif kind == "logger":
        lines = [record.getMessage() for record in caplog.records if record.name == "server"]
    assert [line for line in lines if line.startswith("line")] == [f"line {i}" for i in range(1, 3001)]
    assert lines.count("no end of line") == 1
    assert len(lines) == 3001
    assert not forwarders()


def test_a_running_container_loses_no_line_when_it_is_closed(pool: dockertest.Pool) -> None:
    """What it has written before arrives, in order and once."""
    lines: list[str] = []
    resource = pool.run("busybox:1.35", cmd=COUNT, log_to=lines.append)
    resource.wait_for_log("line 50$")
    written = resource.logs().splitlines()
    resource.close()
    assert lines[: len(written)] == written
    assert lines == [f"line {i}" for i in range(1, len(lines) + 1)]
    assert not forwarders()


def test_a_log_continues_after_a_restart(pool: dockertest.Pool) -> None:
    """Neither the end nor a new start repeats or loses a line."""
    lines: list[str] = []
    script = "echo start; trap 'echo stop; exit 0' TERM; while :; do sleep 0.05; done"
    with pool.run("busybox:1.35", cmd=["sh", "-c", script], log_to=lines.append) as resource:
        resource.wait_for_log("start")
        resource.stop()
        resource.start()
        resource.wait_for_log("start", count=2)
        resource.restart()
        resource.wait_for_log("start", count=3)
        dockertest.retry(lambda: lines.count("start") == 3, max_wait=10)
    assert [line for line in lines if line] == ["start", "stop", "start", "stop", "start"]


def test_a_log_continues_when_the_engine_restarts_the_container(pool: dockertest.Pool) -> None:
    """The lines of all attempts arrive."""
    lines: list[str] = []
    script = "echo >> /count; echo attempt $(wc -l < /count); exit 1"
    with pool.run(
        "busybox:1.35", cmd=["sh", "-c", script], restart="on-failure:2", log_to=lines.append
    ) as resource:
        dockertest.retry(lambda: len(set(lines)) == 3, max_wait=20)
        assert resource.logs().splitlines() == ["attempt 1", "attempt 2", "attempt 3"]
    assert list(dict.fromkeys(lines)) == ["attempt 1", "attempt 2", "attempt 3"]


def test_a_target_that_blocks_does_not_block_the_container(
    pool: dockertest.Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing gives up after a while, with a warning."""
    monkeypatch.setattr("dockertest._containers.forward.FINISH_SECONDS", 0.3)
    release = threading.Event()
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo a line of a log that nobody reads $i; done"
    resource = pool.run("busybox:1.35", cmd=["sh", "-c", script], log_to=lambda _: release.wait(60))
    try:
        assert resource.wait(60) == 0
        began = time.monotonic()
        resource.close()
        assert time.monotonic() - began < 10
        assert "were not accepted within 0.3 s" in caplog.text
    finally:
        release.set()
    dockertest.retry(lambda: not forwarders(), max_wait=30)


def test_a_target_that_fails_gets_the_next_line(
    pool: dockertest.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """There is one warning, however many lines fail."""
    lines: list[str] = []

    def target(line: str) -> None:
        lines.append(line)
        raise RuntimeError("not today")

    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo a; echo b; echo c"], log_to=target) as resource:
        resource.wait(20)
    assert lines == ["a", "b", "c"]
    assert caplog.text.count("not today") == 1


def test_a_target_may_close_the_container(pool: dockertest.Pool) -> None:
    """It runs in the thread that passes the log on, which does not wait for itself."""
    resources: list[dockertest.Resource] = []
    is_known = threading.Event()

    def target(line: str) -> None:
        is_known.wait(20)
        resources[0].close()

    resource = pool.run("busybox:1.35", cmd=COUNT, log_to=target)
    resources.append(resource)
    is_known.set()
    dockertest.retry(lambda: resource.status == "removed" and not forwarders(), max_wait=20)


def test_a_reused_container_is_followed_from_now_on(pool: dockertest.Pool, name: str) -> None:
    """
    Another `log_to` does not need another container.

    The lines of earlier sessions are not repeated.
    """
    first: list[str] = []
    second: list[str] = []
    options = {"name": name, "cmd": COUNT, "reuse": True}
    try:
        one = pool.run("busybox:1.35", log_to=first.append, **options)  # type: ignore[arg-type]
        one.wait_for_log("line 100$")
        other = pool.run("busybox:1.35", log_to=second.append, **options)  # type: ignore[arg-type]
        assert other.id == one.id
        dockertest.retry(lambda: bool(second), max_wait=10)
        one.close()
        other.close()
        assert first[0] == "line 1"
        assert second[0] != "line 1"
        assert not forwarders()
    finally:
        pool.remove_container_by_name(name)


def test_a_program_that_ends_without_closing(tmp_path: Path) -> None:
    """All lines that were written until then are in the file."""
    program = """
import sys, dockertest
resource = dockertest.Pool().run("busybox:1.35", cmd=["sh", "-c", "seq 1 500; sleep 600"], log_to=sys.argv[1])
resource.wait_for_log("^500$")
"""
    path = tmp_path / "server.log"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
    assert path.read_text().split() == [str(number) for number in range(1, 501)]


def test_a_file_that_cannot_be_opened(pool: dockertest.Pool, tmp_path: Path) -> None:
    """Nothing is created."""
    path = tmp_path / "pipe" / "server.log"
    path.parent.mkdir()
    options = dockertest.RunOptions(repository="busybox", tag="1.35", log_to=path)
    path.parent.rmdir()
    with pytest.raises(dockertest.InvalidOptionError, match="log_to: cannot open"):
        pool.run_with_options(options)


def test_the_escape_sequences_of_a_log_do_not_reach_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Its handlers may write to a terminal."""
    caplog.set_level(logging.INFO, "server")
    forward.Target(logging.getLogger("server")).write("\x1b]0;title\x07red \x1b[31m100%s")
    assert caplog.messages == ["red 100%s"]
