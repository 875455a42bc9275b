"""Containers that are started before they are needed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import dockertest
from dockertest import ContainerExitedError, InvalidOptionError, ResourceClosedError, RunOptions, embedding
from dockertest._cleanup import reaper

from .conftest import Engine

SERVER = ("sh", "-c", "trap 'exit 0' TERM; echo up; sleep 600 & wait")


def ready(resource: dockertest.Resource) -> None:
    """Wait until a container has written its first line."""
    resource.wait_for_log("up")


@pytest.fixture
def own(engine: Engine) -> Iterator[dockertest.Pool]:
    """A pool of one test, which leaves nothing behind."""
    with dockertest.Pool() as pool:
        yield pool
    assert standing(engine, pool) == []


@pytest.fixture
def server() -> RunOptions:
    """A server that is ready when it has written a line."""
    return RunOptions(repository="busybox:1.35", cmd=SERVER, wait_for=ready)


def standing(engine: Engine, pool: dockertest.Pool) -> list[str]:
    """Return the ids of all containers of a pool, spares included."""
    return engine.labelled(f"{reaper.SESSION}={pool._runtime.session.id}")


def filled(standby: dockertest.Standby, count: int = 1) -> list[dockertest.Resource]:
    """Wait until that many spares are ready, and return them."""
    stock = standby._stock()
    dockertest.retry(lambda: len(stock.ready) == count and not stock.starting, max_wait=20)
    return list(stock.ready)


class TestTake:
    """What `take` returns."""

    def test_it_returns_a_spare_and_starts_the_next(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine
    ) -> None:
        """Each container is taken once, and those that are not taken are removed."""
        with own.standby(server) as standby:
            (spare,) = filled(standby)
            assert repr(standby) == f"<Standby {own.image_prefix}busybox:1.35 (1 ready)>"
            first = standby.take()
            assert first is spare
            assert first.status == "running"
            second = standby.take()
            assert second.id != first.id
            filled(standby)
        assert sorted(standing(engine, own)) == sorted([first.id, second.id])
        first.close()
        assert standing(engine, own) == [second.id]

    def test_a_known_service_is_ready(self, own: dockertest.Pool) -> None:
        """
        Without `ready` and `wait_for`, a spare has answered in its own protocol.

        `expire` begins after `take`.
        """
        with own.standby(RunOptions(repository="redis:7.0")) as standby:
            resource = standby.take()
            assert resource.exec(["redis-cli", "ping"]).stdout == "PONG\n"
            resource.expire(600)
            resource.expire(None)

    def test_a_prepared_image_has_its_data(
        self, own: dockertest.Pool, server: RunOptions, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every spare has a copy of its own."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        with dockertest.Pool() as pool:
            prepared = pool.prepare(server, lambda it: it.write_file("/data", b"filled"), ready=ready)
            with pool.standby(prepared, count=2) as standby:
                first, second = standby.take(), standby.take()
                first.write_file("/data", b"changed")
                assert second.read_file("/data") == b"filled"
            pool.close()
        with dockertest.Pool() as pool:
            assert prepared.id in pool.prune(prepared=True)

    def test_threads_take_different_ones(self, own: dockertest.Pool, server: RunOptions) -> None:
        """Those that wait do not wait for each other."""
        with own.standby(server) as standby, ThreadPoolExecutor(4) as threads:
            taken = list(threads.map(lambda _: standby.take().id, range(4)))
            assert len(set(taken)) == 4

    def test_the_log_is_passed_on_after_it_was_taken(self, own: dockertest.Pool, server: RunOptions) -> None:
        """From the first line on."""
        lines: list[str] = []
        logging_server = RunOptions(
            repository="busybox:1.35", cmd=SERVER, wait_for=ready, log_to=lines.append
        )
        with own.standby(logging_server) as standby:
            filled(standby)
            assert lines == []
            standby.take()
            dockertest.retry(lambda: lines == ["up"])


class TestSpares:
    """Containers that were not taken."""

    def test_they_are_neither_watched_nor_reported(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine
    ) -> None:
        """The death of one is raised by `take`, which then starts another one."""
        with own.standby(server) as standby:
            (spare,) = filled(standby)
            assert spare.id not in [report.id for report in embedding.reports()]
            engine.client.api.kill(spare.id)
            own.retry(lambda: spare.status == "exited")
            with pytest.raises(ContainerExitedError) as raised:
                standby.take()
            assert raised.value.exit_code == 137
            assert not engine.has(spare.id)
            taken = standby.take()
            assert taken.id in [report.id for report in embedding.reports()]
            engine.client.api.kill(taken.id)
            with pytest.raises(ContainerExitedError):
                own.retry(lambda: False)

    def test_they_are_not_kept(self, server: RunOptions, engine: Engine) -> None:
        """With `keep`, containers are started when needed and kept from then on."""
        with dockertest.Pool() as pool, pool.standby(server) as standby:
            (spare,) = filled(standby)
            pool.keep = True
            standby.close()
            assert not engine.has(spare.id)
            with pool.standby(server) as other:
                assert filled(other, 0) == []
                kept = other.take()
                assert filled(other, 0) == []
        try:
            assert standing(engine, pool) == [kept.id]
        finally:
            engine.client.api.remove_container(kept.id, force=True)

    def test_idle_ones_are_removed(self, own: dockertest.Pool, server: RunOptions, engine: Engine) -> None:
        """The next `take` starts another one."""
        with own.standby(server, max_idle=0.2) as standby:
            dockertest.retry(lambda: not standby._stock().starting)
            dockertest.retry(lambda: not standing(engine, own))
            assert standby.take().status == "running"

    def test_they_go_with_the_pool(self, server: RunOptions, engine: Engine) -> None:
        """Then nothing can be taken any more."""
        pool = dockertest.Pool()
        standby = pool.standby(server, count=2)
        filled(standby, 2)
        pool.close()
        assert standing(engine, pool) == []
        with pytest.raises(ResourceClosedError, match="the pool is closed"):
            standby.take()
        standby.close()
        for thread in standby._stock().threads:
            thread.join(5)
            assert not thread.is_alive()

    def test_those_that_start_are_removed_too(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine
    ) -> None:
        """`close` does not wait until they are ready."""
        began = time.monotonic()
        with own.standby(server, ready=lambda it: False, count=2) as standby:
            dockertest.retry(lambda: len(standby._stock().booting) == 2)
        assert standing(engine, own) == []
        assert time.monotonic() - began < 15
        with pytest.raises(ResourceClosedError, match="the standby of"):
            standby.take()


class TestFailures:
    """What goes wrong in the background is raised by `take`."""

    def test_a_failure_is_raised_once(self, own: dockertest.Pool, server: RunOptions, engine: Engine) -> None:
        """The failed container is removed, and the next call starts another one."""
        error = NameError("ready")
        failures = [error]

        def fail_once(resource: dockertest.Resource) -> None:
            if failures:
                raise failures.pop()

        with own.standby(server, ready=fail_once) as standby:
            with pytest.raises(NameError) as raised:
                standby.take()
            assert raised.value is error
            assert standing(engine, own) == []
            assert standby.take().status == "running"

    def test_an_image_that_cannot_start_is_reported(self, own: dockertest.Pool) -> None:
        """With the engine's reason."""
        with own.standby(RunOptions(repository="busybox:1.35", cmd=["nonsense"])) as standby:
            for _ in range(2):
                with pytest.raises(dockertest.ContainerStartError, match="nonsense"):
                    standby.take()

    def test_a_wait_has_an_end(self, own: dockertest.Pool, server: RunOptions) -> None:
        """The error has the state of the containers that are not ready."""
        release = threading.Event()
        with own.standby(server, ready=lambda it: release.is_set()) as standby:
            dockertest.retry(lambda: bool(standby._stock().booting))
            with pytest.raises(dockertest.RetryTimeoutError, match=r"ready within 0\.1 s") as raised:
                standby.take(max_wait=0.1)
            assert raised.value.report
            assert raised.value.report.status == "running"
            release.set()
            assert standby.take().status == "running"

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "fixed"},
            {"shared": True},
            {"reuse": True},
            {"port_bindings": {"80": 8080}},
            {"networks": ["n"], "network_aliases": ["db"]},
            {"networks": ["host"]},
        ],
    )
    def test_options_of_which_there_can_be_only_one_are_refused(
        self, pool: dockertest.Pool, change: dict[str, Any]
    ) -> None:
        """Several containers run at the same time."""
        with pytest.raises(InvalidOptionError, match=f"{list(change)[-1]} cannot be combined with standby"):
            pool.standby(RunOptions(repository="busybox:1.35", **change))

    @pytest.mark.parametrize("change", [{"count": 0}, {"count": True}, {"max_idle": -1}, {"ready": "up"}])
    def test_invalid_arguments_are_refused(
        self, pool: dockertest.Pool, server: RunOptions, change: dict[str, Any]
    ) -> None:
        """Before anything is started."""
        with pytest.raises(InvalidOptionError, match=next(iter(change))):
            pool.standby(server, **change)


PROGRAM = """
import os, signal, sys, threading, time
import dockertest
def ready(resource):
    resource.wait_for_log("up")
options = dockertest.RunOptions(repository="busybox:1.35", cmd=sys.argv[2:], wait_for=ready)
pool = dockertest.Pool()
standby = pool.standby(options)
stock = standby._stock()
print(pool._runtime.session.id, flush=True)
"""
KILLED = """
standby.take()
print("taken", flush=True)
time.sleep(600)
"""
INTERRUPTED = """
never = pool.standby(options, ready=lambda resource: False)
dockertest.retry(lambda: bool(never._stock().booting))
threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    with pool, standby, never:
        never.take()
except KeyboardInterrupt:
    assert not pool.client.api.containers(all=True, filters={"label": f"dockertest.session={pool._runtime.session.id}"})
    print("interrupted", flush=True)
"""
CLOSED_BY_HANDLER = """
never = pool.standby(options, ready=lambda resource: False)
dockertest.retry(lambda: bool(never._stock().booting) and bool(stock.ready))
signal.signal(signal.SIGALRM, lambda *_: pool.close())
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    never.take()
except dockertest.ResourceClosedError:
    assert not pool.client.api.containers(all=True, filters={"label": f"dockertest.session={pool._runtime.session.id}"})
    print("closed", flush=True)
"""
FORKED = """
import warnings
warnings.simplefilter("ignore")  # Newer versions of Python warn of every fork beside a thread.
children = [os.fork()]
if children[0]:
    dockertest.retry(lambda: bool(stock.ready))
    children.append(os.fork())
if not all(children):
    taken = standby.take()
    label = taken.container.labels["dockertest.session"]
    is_own = label == pool._runtime.session.id != sys.argv[1] and standby._stock() is not stock
    standby.close()
    pool.close()
    os._exit(0 if is_own else 3)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert [spare.status for spare in stock.ready] == ["running"]
taken = standby.take()
assert taken.container.labels["dockertest.session"] == pool._runtime.session.id
pool.close()
print("forked", flush=True)
"""


class TestProcesses:
    """Spares end with their process."""

    def run(self, program: str) -> "subprocess.Popen[str]":
        """Start a program with a spare."""
        command = [sys.executable, "-c", PROGRAM + program, "", *SERVER]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))

    def test_a_killed_process_leaves_nothing(self, engine: Engine) -> None:
        """The reaper knows spares, and those that are being started."""
        with self.run(KILLED) as process:
            assert process.stdout
            label = f"{reaper.SESSION}={process.stdout.readline().strip()}"
            assert process.stdout.readline() == "taken\n"
            process.send_signal(signal.SIGKILL)
        dockertest.retry(lambda: not engine.labelled(label), max_wait=20)

    @pytest.mark.parametrize(
        ("program", "expected"),
        [(INTERRUPTED, "interrupted"), (CLOSED_BY_HANDLER, "closed"), (FORKED, "forked")],
        ids=["ctrl-c", "signal handler", "fork"],
    )
    def test_it_ends_cleanly(self, engine: Engine, program: str, expected: str) -> None:
        """
        The process exits with code 0, and nothing is left.

        This holds after Ctrl-C in `take`, after `close` in a signal handler, and with forked children.
        """
        with self.run(program) as process:
            output = process.communicate(timeout=60)[0].split()
        assert output[1:] == [expected]
        assert process.returncode == 0
        dockertest.retry(lambda: not engine.labelled(f"{reaper.SESSION}={output[0]}"), max_wait=20)
