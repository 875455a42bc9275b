"""
Unusual ways to start a program, narrow limits, and competing processes.

The processes compete for one reused container.
"""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest

from .conftest import Engine
from .test_reaper import wait_until_removed

MAKE = """
import os, signal, sys, time, dockertest
pool = dockertest.Pool()
network = pool.create_network()
resource = pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network])
assert resource.exec(["echo", "hi"]).stdout == "hi\\n"
with open(sys.argv[1] + ".draft", "w") as file:
    file.write(pool._runtime.session.id)
os.rename(file.name, sys.argv[1])
"""


def session_of(file: Path) -> str:
    """
    Return the session that a program has written to a file.

    Wait for the file, which the program writes once it has used its containers.
    """
    dockertest.retry(file.exists, max_wait=60)
    return file.read_text()


@pytest.mark.parametrize("streams", ["/dev/null", "closed"])
def test_a_program_started_by_a_daemon_leaves_nothing(engine: Engine, tmp_path: Path, streams: str) -> None:
    """
    A program without a terminal or standard streams leaves nothing.

    Cron has no terminal, a small environment and another folder. Some daemons have no standard streams.
    """
    code = ("import os\nos.closerange(0, 3)\n" if streams == "closed" else "") + MAKE + "time.sleep(600)"
    kept = ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKERTEST_IMAGE_PREFIX")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "session")],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", **{key: os.environ[key] for key in kept if key in os.environ}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        try:
            session = session_of(tmp_path / "session")
        finally:
            process.kill()
    wait_until_removed(engine, session)


def test_the_end_of_a_terminal_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    """
    A program that is ended by SIGHUP leaves nothing.

    When tmux or an ssh connection ends, the kernel sends SIGHUP to all programs in its terminal.
    """
    pid, terminal = pty.fork()
    if not pid:
        code = MAKE + "time.sleep(600)"
        os.execv(
            sys.executable,
            [sys.executable, "-c", code, str(tmp_path / "session")],
        )
    try:
        session = session_of(tmp_path / "session")
    except dockertest.RetryTimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGHUP
    wait_until_removed(engine, session)


def test_a_program_with_little_memory(engine: Engine, tmp_path: Path) -> None:
    """Neither the pool nor its reaper needs much; the limit applies to both."""
    code = MAKE + "os.kill(os.getpid(), signal.SIGKILL)"
    limit = 600 << 20  # of addresses, of which Python's threads reserve 8 MiB each
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "session")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    wait_until_removed(engine, session_of(tmp_path / "session"))


def test_a_program_that_cannot_start_threads(engine: Engine, tmp_path: Path) -> None:
    """
    A whole session works, and the reaper removes what a kill leaves.

    Starting a thread fails at a limit of processes.
    """
    code = "import threading\nthreading.stack_size(1 << 46)  # more than any machine has\n" + MAKE
    ended = subprocess.run(
        [sys.executable, "-c", code + "os.kill(os.getpid(), signal.SIGKILL)", str(tmp_path / "session")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    wait_until_removed(engine, session_of(tmp_path / "session"))


# Each child is a process of its own with a pool of its own. The parent kills some of them at any moment.
COMPETITORS = """
import json, os, random, signal, sys, dockertest
from dockertest import Pool, RunOptions

name, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = RunOptions(repository="busybox", tag="1.35", name=name, cmd=["sleep", "600"], reuse=True)

def compete(reading, writing):
    os.read(reading, 1)
    resource = Pool().run_with_options(options)
    os.write(writing, f"{os.getpid()} {resource.id} {resource.exec(['echo', 'hi']).exit_code}\\n".encode())
    signal.pause()

gate, go = os.pipe()
reading, writing = os.pipe()
children = []
for _ in range(number):
    child = os.fork()
    if not child:
        os.close(go)
        try:
            compete(gate, writing)
        finally:
            os._exit(1)
    children.append(child)
os.close(writing)
os.write(go, bytes(number))
chance = random.Random(seed)
doomed = chance.sample(children, number // 2)
for child in doomed:
    signal.sigtimedwait([], chance.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
told = os.fdopen(reading)
living = set(children) - set(doomed)
results = {}
while living - set(results):
    pid, container, code = told.readline().split()
    results[int(pid)] = container, code
print(json.dumps(sorted({results[pid] for pid in living})), flush=True)
for child in living:
    os.kill(child, signal.SIGKILL)
"""


def compete(engine: Engine, name: str, number: int, seed: int) -> None:
    """
    Kill half of the processes that compete for one reused container.

    Check that the others share one running container.
    """
    with dockertest.Pool() as pool:
        try:
            ended = subprocess.run(
                [sys.executable, "-c", COMPETITORS, name, str(number), str(seed)],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            ((container, code),) = json.loads(ended.stdout)
            assert code == "0"
            assert container not in pool.prune()
            assert engine.inspect(container)["State"]["Running"]
        finally:
            pool.remove_container_by_name(name)


def test_killed_processes_do_not_take_a_shared_container_with_them(engine: Engine, name: str) -> None:
    """Six of twelve competing processes are killed at random moments."""
    compete(engine, name, 12, 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_fifty_processes_compete_for_a_shared_container(engine: Engine, name: str, seed: int) -> None:
    """Twenty-five of fifty are killed at random moments."""
    compete(engine, name, 50, seed)


PRUNES = """
import dockertest
pool = dockertest.Pool()
print("ready", flush=True)
while True:
    pool.prune()
"""


def test_pruning_does_not_disturb_the_start_of_a_reused_container(engine: Engine, name: str) -> None:
    """It is created, started and taken while another process prunes without a pause."""
    pruning = subprocess.Popen([sys.executable, "-c", PRUNES], stdout=subprocess.PIPE, text=True)
    with pruning:
        assert pruning.stdout
        assert pruning.stdout.readline() == "ready\n"
        try:
            for _ in range(5):
                with dockertest.Pool() as maker, dockertest.Pool() as taker:
                    made = maker.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=True)
                    taken = taker.run("busybox:1.35", name=name, cmd=["sleep", "600"], reuse=True)
                    assert made.id == taken.id
                    assert taken.exec(["echo", "hi"]).stdout == "hi\n"
                    taker.purge(taken)
            assert pruning.poll() is None
        finally:
            pruning.kill()
