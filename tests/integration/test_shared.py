"""All processes of a test run share one container until the last of them ends."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dockertest
from dockertest import RunOptions
from dockertest._cleanup import reaper_client
from tests.engines.fault_proxy import Fault, FaultProxy, relay, swallow

from .conftest import Engine, Suite

# Takes the shared container, prints its id, and ends with its standard input.
WORKER = """
import dockertest, sys
with dockertest.Pool() as pool:
    server = pool.run("busybox:1.35", cmd=["sleep", "600"], labels={sys.argv[1]: "1"}, shared=True)
    print(server.id, flush=True)
    sys.stdin.read()
    assert server.status == "running"
"""
# Takes the shared container again and again.
RACER = """
import dockertest, sys
for _ in range(int(sys.argv[2])):
    with dockertest.Pool() as pool:
        server = pool.run("busybox:1.35", cmd=["sleep", "600"], labels={sys.argv[1]: "1"}, shared=True)
        assert server.exec(["echo", "up"]).stdout == "up\\n"
    print(server.id, flush=True)
"""


class Worker:
    """A process of a test run that uses the shared container until its input ends."""

    def __init__(self, name: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DOCKERTEST_RUN_ID": name, **environment},
        )

    def taken(self) -> str:
        """Return the id of its container as soon as it has one."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        """Let it end normally, and return its exit code."""
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it as a crash does."""
        self.process.send_signal(how)
        self.process.communicate(timeout=60)


def server(name: str) -> RunOptions:
    """Return the options for a shared container."""
    return RunOptions(repository="busybox:1.35", cmd=["sleep", "600"], labels={name: "1"}, shared=True)


def wait_until_removed(engine: Engine, name: str) -> None:
    """Wait until no container of a test is left, and look again after a moment."""
    dockertest.retry(lambda: not engine.labelled(name), max_wait=30)


def hold_up(is_waiting: threading.Event, may_go_on: threading.Event) -> Fault:
    """Return a fault that forwards a request once *may_go_on* is set."""

    def fault(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
        is_waiting.set()
        may_go_on.wait(30)
        relay(client, forward())

    return fault


class TestLife:
    """It is there as long as one process of the run uses it."""

    def test_pools_of_one_process_share_it(self, engine: Engine, name: str) -> None:
        """It is removed with the last pool, not with the one that has started it."""
        with dockertest.Pool() as first, dockertest.Pool() as second:
            made, taken = first.run_with_options(server(name)), second.run_with_options(server(name))
            assert made.id == taken.id
            first.close()
            taken.close()
            assert engine.inspect(made.id)["State"]["Running"]
            assert second.run_with_options(server(name)).id == made.id
        assert not engine.has(made.id)

    def test_the_last_of_several_processes_removes_it(self, engine: Engine, name: str) -> None:
        """
        The processes start at the same time and share one container.

        No process takes it from the others, even if it is killed.
        """
        workers = [Worker(name) for _ in range(4)]
        ids = {worker.taken() for worker in workers}
        assert ids == set(engine.labelled(name))
        assert len(ids) == 1
        workers[0].kill()
        workers[1].kill(signal.SIGTERM)
        assert workers[2].end() == 0
        with dockertest.Pool() as pool:
            pool.prune()
        assert engine.inspect(ids.pop())["State"]["Running"]
        assert workers[3].end() == 0
        assert engine.labelled(name) == []

    def test_nothing_is_left_of_killed_reapers(self, engine: Engine, name: str, tmp_path: Path) -> None:
        """
        The next session removes the container of a run that was killed completely.

        The processes have no reaper, as if it had been killed, too.
        """
        environment = {"XDG_STATE_HOME": str(tmp_path)}
        workers = [Worker(name, **environment, DOCKERTEST_REAPER="0") for _ in range(2)]
        (container,) = {worker.taken() for worker in workers}
        workers[0].kill()
        code = "import dockertest\nwith dockertest.Pool() as pool:\n    print(*pool.prune())"
        prune = [sys.executable, "-c", code]
        subprocess.run(prune, env={**os.environ, **environment}, check=True)
        assert engine.has(container), "a living process lost its container"
        workers[1].kill()
        subprocess.run(prune, env=dict(os.environ), check=True)
        assert engine.has(container), "its holders are recorded in another state folder"
        ended = subprocess.run(
            prune, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
        )
        assert ended.stdout.split() == [container]
        assert not engine.has(container)
        assert [path.name for path in (tmp_path / "dockertest").iterdir() if path.suffix != ".lock"] == []

    def test_another_run_has_its_own(self, engine: Engine, name: str) -> None:
        """Runs at the same time do not see each other."""
        first, second = Worker(name), Worker(name, DOCKERTEST_RUN_ID=f"{name}-2")
        assert first.taken() != second.taken()
        assert first.end() == second.end() == 0
        assert engine.labelled(name) == []

    @pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.soak)])
    def test_killing_all_at_random_moments_leaves_nothing(
        self, engine: Engine, name: str, rounds: int
    ) -> None:
        """Each process is killed at a random moment of its import, start or work."""
        seed = int.from_bytes(os.urandom(4), "big")
        print(f"seed {seed}")
        chance = random.Random(seed)
        for _ in range(rounds):
            workers = [Worker(name) for _ in range(4)]
            for moment in sorted(chance.uniform(0, 0.6) for _ in workers):
                time.sleep(moment)  # The moment is the subject of the test.
                workers.pop(chance.randrange(len(workers))).kill()
            wait_until_removed(engine, name)

    @pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.soak)])
    def test_sessions_race_against_the_removal(self, engine: Engine, name: str, rounds: int) -> None:
        """
        A new session gets a working container while the last session removes one.

        The container works for as long as the session needs it.
        """
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, name, str(rounds)],
                stdout=subprocess.PIPE,
                env={**os.environ, "DOCKERTEST_RUN_ID": name},
            )
            for _ in range(3)
        ]
        outputs = [racer.communicate(timeout=600)[0].split() for racer in racers]
        assert [racer.returncode for racer in racers] == [0, 0, 0]
        assert [len(output) for output in outputs] == [rounds] * 3
        assert engine.labelled(name) == []

    def test_a_session_waits_for_the_end_of_a_removal(self, name: str, tmp_path: Path) -> None:
        """It must not take the container that is about to be removed."""
        is_waiting, may_go_on = threading.Event(), threading.Event()
        with FaultProxy(tmp_path / "x").running() as proxy:
            last, following = dockertest.Pool(proxy.endpoint), dockertest.Pool(proxy.endpoint)
            with following:
                first = last.run_with_options(server(name))
                proxy.next(f"DELETE .*/{first.id}", hold_up(is_waiting, may_go_on))
                closing = threading.Thread(target=last.close)
                closing.start()
                assert is_waiting.wait(30)
                threading.Timer(0.3, may_go_on.set).start()
                second = following.run_with_options(server(name))
                assert may_go_on.is_set()
                assert second.id != first.id
                assert second.status == "running"
                closing.join()

    def test_all_threads_wait_for_the_end_of_a_removal(self, name: str, tmp_path: Path) -> None:
        """Also one that finds another thread waiting already."""
        is_waiting, may_go_on = threading.Event(), threading.Event()
        taken: list[dockertest.Resource] = []
        with FaultProxy(tmp_path / "x").running() as proxy:
            last = dockertest.Pool(proxy.endpoint)
            with dockertest.Pool(proxy.endpoint) as following:
                first = last.run_with_options(server(name))
                proxy.next(f"DELETE .*/{first.id}", hold_up(is_waiting, may_go_on))
                closing = threading.Thread(target=last.close)
                closing.start()
                assert is_waiting.wait(30)
                threads = [
                    threading.Thread(target=lambda: taken.append(following.run_with_options(server(name))))
                    for _ in range(2)
                ]
                for thread in threads:
                    thread.start()
                time.sleep(0.5)  # in which they could take the container that is being removed
                assert taken == []
                may_go_on.set()
                for thread in (*threads, closing):
                    thread.join()
                assert {one.status for one in taken} == {"running"}
                assert len({one.id for one in taken} - {first.id}) == 1

    def test_two_threads_may_close_the_pool(self, engine: Engine, name: str) -> None:
        """The second close does nothing."""
        failures: list[Exception] = []

        def close() -> None:
            try:
                pool.close()
            except Exception as error:  # noqa: BLE001 - raised by the test
                failures.append(error)

        pool = dockertest.Pool()
        made = pool.run_with_options(server(name))
        threads = [threading.Thread(target=close) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert not engine.has(made.id)

    def test_a_signal_handler_may_close_the_pool_that_is_being_closed(
        self, engine: Engine, name: str, tmp_path: Path
    ) -> None:
        """It does not wait for the removal that it has interrupted."""
        seconds: list[float] = []

        def close(_signal: int, _frame: object) -> None:
            began = time.monotonic()
            pool.close()
            seconds.append(time.monotonic() - began)

        def interrupt(client: "socket.socket", forward: "Callable[[], socket.socket]") -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.3)  # while the handler runs
            relay(client, forward())

        former = signal.signal(signal.SIGUSR1, close)
        try:
            with FaultProxy(tmp_path / "x").running() as proxy:
                pool = dockertest.Pool(proxy.endpoint)
                made = pool.run_with_options(server(name))
                proxy.next(f"DELETE .*/{made.id}", interrupt)
                pool.close()
        finally:
            signal.signal(signal.SIGUSR1, former)
        assert len(seconds) == 1
        assert seconds[0] < 5
        assert not engine.has(made.id)

    def test_a_failed_removal_is_reported_and_tried_again(
        self, engine: Engine, name: str, tmp_path: Path
    ) -> None:
        """As with any other container."""
        with FaultProxy(tmp_path / "x").running() as proxy:
            pool = dockertest.Pool(proxy.endpoint, timeout=10)
            made = pool.run_with_options(server(name))
            proxy.next("GET .*/containers/json", swallow)
            with pytest.raises(
                dockertest.CleanupError, match=r"--filter label=dockertest\.shared=[0-9a-f]{64}"
            ):
                pool.close()
            pool.close()
            assert not engine.has(made.id)

    def test_it_may_be_restarted_meanwhile(self, engine: Engine, name: str) -> None:
        """Who arrives while another process restarts it gets the same one."""
        with dockertest.Pool() as pool, dockertest.Pool() as late:
            made = pool.run_with_options(server(name))
            made.stop(0)
            starting = threading.Timer(0.5, made.start)
            starting.start()
            assert late.run_with_options(server(name)).id == made.id
            starting.join()
            made.restart(0)
            assert late.run_with_options(server(name)).id == made.id
        assert engine.labelled(name) == []

    def test_a_dead_one_is_replaced(self, engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that arrives later must not fail for that."""
        monkeypatch.setattr("dockertest._containers.reuse.RESTART_SECONDS", 0.1)
        with dockertest.Pool() as pool:
            made = pool.run_with_options(server(name))
            engine.client.api.kill(made.id)
            other = pool.run_with_options(server(name))
            assert other.id != made.id
            assert engine.labelled(name) == [other.id]
        assert engine.labelled(name) == []

    def test_its_exit_ends_a_wait(self, engine: Engine, name: str) -> None:
        """This also applies if another session has started it."""
        with dockertest.Pool() as first, dockertest.Pool() as second:
            first.run_with_options(server(name))
            taken = second.run_with_options(server(name))
            threading.Timer(0.2, engine.client.api.kill, [taken.id]).start()
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 137"):
                second.retry(lambda: False, max_wait=20)

    def test_a_kept_one_stays(self, engine: Engine, name: str) -> None:
        """The last process does not remove what any of them keeps."""
        with dockertest.Pool() as first, dockertest.Pool() as second:
            made = first.run_with_options(server(name))
            second.keep = True
            second.run_with_options(server(name))
            second.close()
        assert engine.inspect(made.id)["State"]["Running"]
        engine.remove(made.id)

    def test_the_inventory_shows_whether_it_is_used(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        It lives as long as any session that uses it, not only as its creator.

        The test has its own identity, since it prunes the reused containers of others, too.
        """
        place = reaper_client.identity(Path()).partition(".")[2]
        monkeypatch.setattr(reaper_client, "identity", lambda _folder: f"{name}.{place}")
        monkeypatch.setattr("dockertest._cleanup.registry.registry.reaper_clients", {})
        with dockertest.Pool(reaper=False) as observer, dockertest.Pool(reaper=False) as second:
            with dockertest.Pool(reaper=False) as first:
                made = first.run_with_options(server(name))
                second.run_with_options(server(name))
            (item,) = [item for item in observer.inventory() if item.id == made.id]
            assert item.standing == "living"
            assert made.id not in observer.prune(reused=True)


class TestOptions:
    """What cannot be combined with it."""

    def test_a_network_of_the_pool_is_rejected(self, name: str) -> None:
        """The network would be removed with the pool."""
        with (
            dockertest.Pool() as pool,
            pool.create_network() as network,
            pytest.raises(dockertest.InvalidOptionError, match="shared: the container would outlive"),
        ):
            pool.run("busybox:1.35", networks=[network], labels={name: "1"}, shared=True)

    def test_another_run_has_taken_the_name(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error has a remedy."""
        with dockertest.Pool() as pool:
            made = pool.run("busybox:1.35", cmd=["sleep", "600"], name=name, shared=True)
            monkeypatch.setenv("DOCKERTEST_RUN_ID", f"{name}-2")
            other = dockertest.Pool()
            with other, pytest.raises(dockertest.ContainerCreateError, match="leave out name") as caught:
                other.run("busybox:1.35", cmd=["sleep", "600"], name=name, shared=True)
            assert f"docker rm -f -v {made.id[:12]}" in str(caught.value)
            assert made.status == "running"

    def test_a_state_folder_is_needed(
        self, engine: Engine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without locks it would be unknown whether the container is used."""
        monkeypatch.setattr("dockertest._containers.launch.state_folder", lambda _environ: tmp_path / "none")
        monkeypatch.setattr(
            "dockertest._cleanup.reaper_client.state_folder", lambda _environ: tmp_path / "none"
        )
        monkeypatch.setattr("dockertest._cleanup.registry.registry.reaper_clients", {})
        with dockertest.Pool(reaper=False) as pool:
            with pytest.raises(dockertest.InvalidOptionError, match="shared: cannot record in") as caught:
                pool.run_with_options(server(name))
            assert "XDG_STATE_HOME" in caught.value.hint
        assert engine.labelled(name) == []


TESTS = """
import dockertest, glob, os, pytest

@pytest.fixture(scope="session")
def server(dockertest_pool):
    server = dockertest_pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL, shared=True)
    # Otherwise a worker that starts late might find that all others have ended, and start another one.
    open("uses-" + os.environ["PYTEST_XDIST_WORKER"], "w").close()
    dockertest.retry(lambda: len(glob.glob("uses-*")) >= 4, max_wait=60)
    return server

@pytest.mark.parametrize("number", range(24))
def test_one(server, number):
    if number == int(os.environ.get("CRASH", -1)):
        os.kill(os.getpid(), 9)
    assert server.exec(["echo", "up"]).stdout == "up\\n"
    with open("seen", "a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {server.id}\\n")
"""

MULTIPROCESSING = """
import dockertest, multiprocessing, sys

def work(number):
    global pool
    pool = dockertest.Pool()
    return pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL, shared=True).id

if __name__ == "__main__":
    if "parent" in sys.argv:
        pool = dockertest.Pool()
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as workers:
        print(len(set(workers.map(work, range(6), chunksize=1))))
        workers.close()
        workers.join()
"""


CLASSES = """
import dockertest, glob, json, os, sys, unittest
import psycopg
from dockertest.postgres import TemplateDatabase
from dockertest.testcase import DockerTestCase

def migrate(url):
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE item (name text)")
    with open("migrated", "a") as file:
        file.write("x")

class Case(DockerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.template = TemplateDatabase(cls.pool, migrate, version="1", labels=LABEL, shared=True)
        cls.addClassCleanup(cls.template.close)
        # A process that starts late might otherwise find that the other has ended, and start another server.
        open(f"uses-{os.getpid()}", "w").close()
        dockertest.retry(lambda: len(glob.glob("uses-*")) >= 2, max_wait=60)

    def test_it(self):
        with self.template.clone() as database, psycopg.connect(database.url) as connection:
            assert connection.execute("SELECT * FROM item").fetchall() == []
            connection.execute("INSERT INTO item VALUES ('mine')")
        with open("seen", "a") as file:
            file.write(self.template.resource.id + "\\n")

class FirstTest(Case):
    pass

class SecondTest(Case):
    pass

del Case
"""


class TestRunners:
    """Processes of one run know that they belong together."""

    @pytest.fixture
    def tests(self, suite: Suite) -> Suite:
        """Tests with a shared container, in a folder of their own."""
        suite.write("test_it.py", TESTS)
        suite.write("work.py", MULTIPROCESSING)
        suite.write("classes.py", CLASSES)
        return suite

    @pytest.mark.soak
    def test_workers_of_xdist(self, tests: Suite, engine: Engine) -> None:
        """Twenty-four tests by four workers see one container, and leave none."""
        code, output = tests.run("pytest", "-n", "4", "test_it.py")
        assert code == 0, output
        seen = (tests.folder / "seen").read_text().splitlines()
        assert len(seen) == 24
        assert len({line.split()[1] for line in seen}) == 1
        assert engine.labelled(tests.label) == []

    def test_a_worker_of_xdist_that_crashes(self, tests: Suite, engine: Engine) -> None:
        """
        A crash does not take the shared container from the other workers.

        Four workers run twenty-four tests with one container.
        """
        code, output = tests.run("pytest", "-n", "4", "test_it.py", CRASH="5")
        assert code == 1, output
        assert "1 failed, 23 passed" in output
        seen = (tests.folder / "seen").read_text().splitlines()
        assert len(seen) == 23
        # pytest-xdist replaces the worker, maybe after all others have ended.
        assert len({line.split()[1] for line in seen if not line.startswith("gw4 ")}) == 1
        wait_until_removed(engine, tests.label)

    @pytest.mark.parametrize(("method", "parent"), [("fork", "no-pool"), ("spawn", "parent")])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_multiprocessing(self, tests: Suite, engine: Engine, method: str, parent: str) -> None:
        """Workers find the run even if their parent has not made a pool before."""
        ended = subprocess.run(
            [sys.executable, "work.py", method, parent],
            cwd=tests.folder,
            env={name: value for name, value in os.environ.items() if name != "DOCKERTEST_RUN_ID"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        assert ended.stdout == "1\n"
        wait_until_removed(engine, tests.label)

    def test_classes_of_several_processes(self, tests: Suite, engine: Engine) -> None:
        """
        Two processes with two classes each need one server and one migration.

        The server also stays between their classes.
        """
        command, environment = (
            tests.command("unittest", "classes"),
            tests.environment(DOCKERTEST_RUN_ID=tests.label),
        )
        processes = [
            subprocess.Popen(command, cwd=tests.folder, env=environment, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        outputs = [process.communicate(timeout=120)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        seen = (tests.folder / "seen").read_text().split()
        assert len(seen) == 4
        assert len(set(seen)) == 1
        assert (tests.folder / "migrated").read_text() == "x"
        assert engine.labelled(tests.label) == []
