"""
Outages of an engine in the middle of a session.

The engine is killed and started again, or its network is cut.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import dockertest
from dockertest._engine import connect
from tests.engines.own import OwnEngine, missing

# The docker SDK does not close a socket that cannot be connected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SLEEP = ["sleep", "600"]
TIMEOUT = 5.0  # of the pools here


@pytest.fixture
def own(pool: dockertest.Pool, tmp_path_factory: pytest.TempPathFactory) -> OwnEngine:
    """An engine that the test may kill, not started yet."""
    if reason := missing():
        pytest.skip(f"machine: {reason}")
    if "DOCKER_HOST" in os.environ:
        pytest.skip("machine: this test starts an engine of its own, of this machine's version")
    return OwnEngine(tmp_path_factory.mktemp("own"))


@pytest.fixture
def image(pool: dockertest.Pool) -> str:
    """The full name of an image on both engines."""
    return f"{pool.image_prefix}busybox:1.35"


@pytest.mark.parametrize("restore", ["--live-restore", "--live-restore=false"], ids=["alive", "dead"])
def test_a_session_survives_the_death_of_its_engine(  # noqa: PLR0915 - one story
    own: OwnEngine, image: str, restore: str
) -> None:
    """
    Each call fails at once, and all containers are removed after the restart.

    After the restart, the containers are alive or dead, as the engine has them.
    """
    is_alive = restore == "--live-restore"
    with own.running(restore):
        own.load(image)
        with dockertest.Pool(own.endpoint, timeout=10) as pool:
            box = pool.run(image, cmd=["sh", "-c", "echo first; exec sleep 600"], stop_timeout=1)
            reused = pool.run(image, cmd=SLEEP, reuse=True, stop_timeout=1)
            pool.create_network()
            box.wait_for_log("first")
            with box.stream_logs() as lines:
                assert next(lines) == "first"
                own.kill()
                with pytest.raises(dockertest.EngineError, match="closed the connection"):
                    next(lines)
            for call in (
                box.logs,
                lambda: box.exec(["true"]),
                lambda: pool.run(image, cmd=SLEEP),
                pool.close,
            ):
                with pytest.raises(dockertest.DockertestError, match=r"refused|no such file"):
                    call()
            own.start(restore)
            assert box.status == ("running" if is_alive else "exited")
            assert box.logs() == "first\n"
            if is_alive:
                assert box.exec(["echo", "hi"]).stdout == "hi\n"
                assert pool.retry(lambda: "ready", watch=[box]) == "ready"
            else:
                with pytest.raises(dockertest.ContainerExitedError, match="137"):
                    pool.retry(lambda: False, watch=[box], max_wait=30)
            with dockertest.Pool(own.endpoint) as other:
                again = other.run(image, cmd=SLEEP, reuse=True, stop_timeout=1)
                assert (again.id == reused.id) is is_alive
                assert again.status == "running"
                other.purge(again)
        with dockertest.Pool(own.endpoint, reaper=False) as other:
            assert other.inventory() == []


def test_an_engine_that_is_just_starting_has_more_time(
    own: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It listens before it can answer.

    One that was started longer ago has four seconds.
    """
    with own.running():
        with own.suspended(8):
            began = time.monotonic()
            dockertest.Pool(own.endpoint, reaper=False).close()
            assert time.monotonic() - began > 6
        monkeypatch.setattr(connect, "START_SECONDS", 0)
        with own.suspended(8), pytest.raises(dockertest.DockerUnavailableError, match="within 4 s"):
            dockertest.Pool(own.endpoint, reaper=False)


KILLED = """
import sys, dockertest
pool = dockertest.Pool(sys.argv[1], timeout=10)
pool.create_network()
pool.run(sys.argv[2], cmd=["sleep", "600"])
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def victim() -> Iterator[Callable[[str, str], "subprocess.Popen[str]"]]:
    """Start a process that has a network and a container."""
    started: list[subprocess.Popen[str]] = []

    def start(endpoint: str, image: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, endpoint, image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_reaper_waits_for_an_engine_that_is_started_again(
    own: OwnEngine, image: str, victim: Callable[[str, str], "subprocess.Popen[str]"]
) -> None:
    """The process dies while the engine is dead."""
    with own.running("--live-restore"):
        own.load(image)
        process = victim(own.endpoint, image)
        own.kill()
        process.send_signal(signal.SIGKILL)
        process.wait()
        own.start("--live-restore")
        with dockertest.Pool(own.endpoint, reaper=False) as pool:
            dockertest.retry(lambda: not pool.inventory(), max_wait=30)


def test_a_network_partition_ends_every_call(  # noqa: PLR0915 - one story
    own: OwnEngine, image: str, victim: Callable[[str, str], "subprocess.Popen[str]"]
) -> None:
    """
    Packets are dropped, so that no connection is refused or reset.

    The reaper removes everything once the network is back.
    """
    with own.running():
        own.load(image)
        pool = dockertest.Pool(own.tcp_endpoint, timeout=TIMEOUT)
        box = pool.run(image, cmd=SLEEP)
        process = victim(own.tcp_endpoint, image)
        waiting: dict[str, Callable[[], object]] = {
            "exec": lambda: box.exec(SLEEP),
            "exec with input": lambda: box.exec(SLEEP, stdin=b"x"),
            "wait": box.wait,
            "stream_logs": lambda: list(box.stream_logs()),
            "wait_for_log": lambda: box.wait_for_log("never", max_wait=TIMEOUT),
            "retry": lambda: pool.retry(lambda: False, max_wait=TIMEOUT),
        }
        starting: dict[str, Callable[[], object]] = {
            "logs": box.logs,
            "run": lambda: pool.run(image, cmd=SLEEP),
            "reuse": lambda: pool.run(image, cmd=SLEEP, reuse=True),
            "read_file": lambda: box.read_file("/etc/hosts"),
            "create_network": pool.create_network,
            "prune": pool.prune,
            "close": box.close,
        }
        ends: dict[str, tuple[Exception | None, float]] = {}

        def call(name: str, function: Callable[[], object]) -> None:
            failure: Exception | None = None
            began = time.monotonic()
            try:
                function()
            except Exception as error:  # noqa: BLE001 - judged below
                failure = error
            ends[name] = failure, time.monotonic() - began

        def start(calls: "dict[str, Callable[[], object]]") -> "list[threading.Thread]":
            threads = [threading.Thread(target=call, args=each, daemon=True) for each in calls.items()]
            for thread in threads:
                thread.start()
            return threads

        threads = start(waiting)
        dockertest.retry(lambda: own.enter("ps", "-e", "-o", "args").count("sleep 600") >= 4, max_wait=15)
        with own.unreachable():
            process.send_signal(signal.SIGKILL)
            process.wait()
            threads += start(starting)
            for thread in threads:
                thread.join(12 * TIMEOUT)
            assert set(ends) == {*waiting, *starting}
            assert [
                name for name, (error, _) in ends.items() if not isinstance(error, dockertest.DockertestError)
            ] == []
            assert max(seconds for _, seconds in ends.values()) < 10 * TIMEOUT
            with pytest.raises(dockertest.CleanupError):
                pool.close()
        pool.close()
        with dockertest.Pool(own.endpoint, reaper=False) as other:
            dockertest.retry(lambda: not other.inventory(), max_wait=60)
