"""
The reaper cleans up after a process that ends without running Python code.

Other tests run without a reaper.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, answer, freeze, hold_until
from tests.engines.tls_front import Front, certificates

from .conftest import Engine, without_tls_warning

SLEEP = ("sleep", "600")
PACKAGE = Path(dockertest.__file__).parent

PROGRAM = """
import dockertest, json, os, signal, sys, time
from dockertest._cleanup import reaper_client
reaper_client.CONFIRM_SECONDS = 60  # A busy machine may take long to start the reaper.
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests
pool = dockertest.Pool()
network = pool.create_network()
options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sleep", "600"], networks=[network])
made = pool.run_all([options] * 3)
session = pool._runtime.session.id
print(json.dumps({"session": session, "containers": [one.id for one in made], "network": network.id}))
sys.stdout.flush()
"""


def count(engine: Engine, session: str) -> int:
    """Return how many containers and networks a session has."""
    label = f"dockertest.session={session}"
    return len(engine.labelled(label)) + len(engine.client.networks.list(filters={"label": label}))


def wait_until_removed(engine: Engine, session: str) -> None:
    """Wait until all containers and networks of a session are removed."""
    dockertest.retry(lambda: count(engine, session) == 0, max_wait=60)


@contextmanager
def program(
    code: str, *before: str, **environment: str
) -> "Iterator[tuple[subprocess.Popen[str], dict[str, str]]]":
    """
    Run `PROGRAM` and *code*, and yield the process and its output.

    *before* is a command that runs another command, such as `unshare`.
    """
    process = subprocess.Popen(
        [*before, sys.executable, "-W", "error", "-c", PROGRAM + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()


def reapers_of(process: int) -> list[int]:
    """
    Return the ids of the reapers that watch a process.

    The last argument of a reaper is the id of its process.
    """
    reapers = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if b"-I" in command and str(process).encode() == command[-2]:
                reapers.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return reapers


def reaper_of(process: int, others: Collection[int] = ()) -> int:
    """
    Return the id of a process's reaper that is not one of *others*.

    Wait until the intermediate process that started it has exited.
    """

    def find() -> int:
        (reaper,) = set(reapers_of(process)).difference(others)
        parent = int(Path(f"/proc/{reaper}/stat").read_text().rpartition(")")[2].split()[1])
        if parent == process:
            raise ValueError(f"{reaper} is the intermediate process")
        return reaper

    return dockertest.retry(find, on=(ValueError, OSError), max_wait=30)


def run(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program until it exits."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_signal_leaves_nothing(engine: Engine, number: signal.Signals) -> None:
    """
    The containers and the network are removed.

    Those of another session are not removed.
    """
    with dockertest.Pool() as bystander:
        other = bystander.run("busybox:1.35", cmd=SLEEP)
        with program("time.sleep(600)") as (process, created):
            assert count(engine, created["session"]) == 4
            process.send_signal(number)
            process.wait(30)
        wait_until_removed(engine, created["session"])
        assert engine.has(other.id)


@pytest.mark.parametrize("ending", ["os._exit(3)", "os.abort()", "raise SystemExit(1)", "1 / 0"])
def test_an_abrupt_exit_leaves_nothing(engine: Engine, ending: str) -> None:
    """Some of them skip exit handlers, but all of them close the socket."""
    with program(ending) as (process, created):
        process.communicate(timeout=60)
    wait_until_removed(engine, created["session"])


def kill_with_reaper() -> dict[str, str]:
    """Kill a process together with its reaper; return what it had created."""
    with program("time.sleep(600)") as (process, created):
        both = [reaper_of(process.pid), process.pid]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # Neither must detect the end of the other.
            for target in both:
                os.kill(target, number)
        process.wait(30)
    return created


def recover_from_kills(engine: Engine, rounds: int) -> None:
    """
    Kill a process together with its reaper.

    The next session must remove exactly what they left, in each round. No other reaper knows of these sessions.
    """
    others = set(reapers_of(os.getpid()))
    for index in range(rounds):
        dockertest.retry(lambda: set(reapers_of(os.getpid())) <= others, max_wait=60)
        with dockertest.Pool(reaper=False) as bystander:
            other = bystander.run("busybox:1.35", cmd=SLEEP)
            created = kill_with_reaper()
            assert count(engine, created["session"]) == 4
            with dockertest.Pool(reaper=index % 2 == 0) as following:
                if following.reaper:
                    following.create_network()
                else:
                    assert set(created["containers"]) <= set(following.prune())
                wait_until_removed(engine, created["session"])
            assert engine.has(other.id)


@pytest.fixture
def own_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A state folder of its own.

    Sessions of other tests do not clean up first.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.mark.usefixtures("own_sessions")
def test_the_next_session_cleans_up_after_a_killed_process_and_reaper(engine: Engine) -> None:
    """
    The reaper of the next session, or `prune`, removes the containers.

    The lock of the dead session is free.
    """
    recover_from_kills(engine, 2)


@pytest.mark.soak
@pytest.mark.usefixtures("own_sessions")
def test_the_next_session_recovers_twenty_times(engine: Engine) -> None:
    """The test above, twenty times."""
    recover_from_kills(engine, 20)


@pytest.mark.usefixtures("own_sessions")
def test_a_session_that_begins_during_a_recovery_has_one_of_its_own(engine: Engine, tmp_path: Path) -> None:
    """The other process may have died after that recovery had listed the containers."""
    path = tmp_path / "front.sock"
    with FaultProxy(path).running() as proxy, dockertest.Pool(proxy.endpoint) as first:
        is_killed = threading.Event()
        proxy.next("GET .*/images/json", hold_until(is_killed))  # It follows the lists of containers.
        first.create_network()
        dockertest.retry(lambda: any("/images/json" in line for line in proxy.requests), max_wait=30)
        session = kill_with_reaper()["session"]
        with dockertest.Pool(proxy.endpoint) as following:
            following.create_network()
            assert following._runtime.session.ensure_reaper()
            is_killed.set()
            wait_until_removed(engine, session)


@pytest.mark.usefixtures("own_sessions")
@pytest.mark.parametrize("request_line", ["GET .*/networks", "DELETE .*/containers/.*"])
def test_a_recovery_that_fails_is_repeated(engine: Engine, tmp_path: Path, request_line: str) -> None:
    """Nothing stays if the engine has refused a list or a removal once."""
    session = kill_with_reaper()["session"]
    with FaultProxy(tmp_path / "front.sock").running() as proxy:
        proxy.next(request_line, answer(500, "busy"))
        with dockertest.Pool(proxy.endpoint) as following:
            following.run("busybox:1.35", cmd=SLEEP)
            wait_until_removed(engine, session)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_reaper_ignores_signals(engine: Engine, moment: str) -> None:
    """
    Signals to the reaper do not prevent the cleanup.

    A service manager sends SIGTERM to all processes of a group, and a closed terminal sends SIGHUP.
    """
    with program("time.sleep(600)") as (process, created):
        reaper = reaper_of(process.pid)
        process.send_signal(signal.SIGSTOP)
        numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1]
        if moment == "before":
            for number in numbers:
                os.kill(reaper, number)
        process.kill()
        process.wait(30)
        if moment == "after":
            for number in numbers:
                os.kill(reaper, number)
        wait_until_removed(engine, created["session"])


def test_a_child_forked_by_c_code_does_not_delay_the_reaper(engine: Engine) -> None:
    """
    Python's fork handlers do not run in it, so it keeps the socket open.

    The reaper also watches the process.
    """
    code = """
import ctypes
child = ctypes.CDLL(None).fork() or time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""
    with program(code) as (process, created):
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait(30)
            wait_until_removed(engine, created["session"])
            assert Path(f"/proc/{child}").exists()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_clean_close_ends_the_reaper() -> None:
    """The reaper exits when nothing is left to remove."""
    with program("pool.close(); print(flush=True); time.sleep(600)") as (process, _):
        dockertest.retry(lambda: not reapers_of(process.pid), max_wait=60)
        assert process.poll() is None


def test_a_forked_child_does_not_keep_its_parents_containers(engine: Engine) -> None:
    """The parent's containers are removed while the child is still running."""
    code = """
child = os.fork() or time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""
    with program(code) as (process, created):
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait(30)
            wait_until_removed(engine, created["session"])
            assert Path(f"/proc/{child}").exists()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_exits_without_a_warning() -> None:
    """The reaper is not its child process. Some test runners fork workers like this."""
    code = """
import os, sys, dockertest
with dockertest.Pool() as pool:
    pool.create_network()
    if os.fork() == 0:
        sys.exit()
    os.wait()
"""
    ended = run(code)
    assert (ended.returncode, without_tls_warning(ended.stderr)) == (0, "")


# Deadlines


def test_a_deadline_applies_while_the_process_hangs(engine: Engine) -> None:
    """The reaper removes the container while the process is stopped."""
    with program("made[0].expire(1); os.kill(os.getpid(), signal.SIGSTOP)") as (_, created):
        dockertest.retry(lambda: not engine.has(created["containers"][0]), max_wait=60)
        assert engine.has(created["containers"][1])
    wait_until_removed(engine, created["session"])


def test_a_frozen_engine_does_not_delay_other_deadlines(engine: Engine, tmp_path: Path) -> None:
    """Neither recovery nor a container that cannot be removed delays them."""
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        proxy.next("GET .*/containers/json", freeze)  # the first request of recovery
        stuck, other = (pool.run("busybox:1.35", cmd=SLEEP) for _ in range(2))
        dockertest.retry(lambda: any("/containers/json" in line for line in proxy.requests), max_wait=30)
        proxy.next(f"DELETE .*{stuck.id}", freeze)
        began = time.monotonic()
        stuck.expire(0)
        dockertest.retry(lambda: any(stuck.id in line and "DELETE" in line for line in proxy.requests))
        other.expire(1)
        dockertest.retry(lambda: not engine.has(other.id), max_wait=30)
        assert time.monotonic() - began < 25  # The reaper waits for 30 s for the answer to a request.
        assert engine.has(stuck.id)


def test_a_stopped_reaper_does_not_block(
    engine: Engine, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """
    An unconfirmed deadline raises an error, and other failures are logged.

    Nothing is lost when the reaper continues.
    """
    others = reapers_of(os.getpid())
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        reaper = reaper_of(os.getpid(), others)
        os.kill(reaper, signal.SIGSTOP)
        try:
            began = time.monotonic()
            for _ in range(5):
                with pytest.raises(dockertest.InvalidOptionError, match="reaper"):
                    resource.expire(3600)
            assert time.monotonic() - began < 20  # Only the first call waits for 5 s.
            assert caplog.text.count("the reaper is not responding") == 1
            while pool._runtime.session._reaper._tell({"message": "end", "session": "0" * 200}):
                pass  # until the socket is full
            with dockertest.Pool(proxy.endpoint) as other:
                other.run("busybox:1.35", cmd=SLEEP).close()
            assert time.monotonic() - began < 60
        finally:
            os.kill(reaper, signal.SIGCONT)
        dockertest.retry(lambda: can_expire(resource), max_wait=60)
        assert engine.has(resource.id)


def can_expire(resource: dockertest.Resource) -> bool:
    """Set and cancel a deadline, and return whether the reaper confirms it."""
    try:
        resource.expire(3600)
    except dockertest.InvalidOptionError:
        return False
    resource.expire(None)
    return True


def test_a_reaper_without_an_engine_gives_up(engine: Engine, tmp_path: Path) -> None:
    """
    It retries with growing intervals and logs each problem once.

    This applies while it waits for a deadline.
    """
    source = (PACKAGE / "_cleanup" / "reaper.py").read_text(encoding="utf-8")
    impatient = tmp_path / "reaper.py"
    impatient.write_text(source.replace("GIVE_UP_SECONDS = 120.0", "GIVE_UP_SECONDS = 8.0"))
    log = tmp_path / "reaper.log"
    code = f"""
import os, dockertest
from dockertest._cleanup import reaper, reaper_client
reaper_client.CONFIRM_SECONDS = 60  # as above
reaper.__file__ = {str(impatient)!r}
pool = dockertest.Pool("unix://{tmp_path / "front.sock"}")
resource = pool.run("busybox:1.35", cmd=["sleep", "600"])
resource.expire(5)
print(resource.id, flush=True)
os._exit(0)
"""
    with FaultProxy(tmp_path / "front.sock").running():
        ended = run(code, DOCKERTEST_REAPER_LOG=str(log), XDG_STATE_HOME=str(tmp_path))
    container = ended.stdout.strip()
    assert container, ended.stderr
    try:
        dockertest.retry(lambda: "giving up" in log.read_text(), max_wait=40)
        lines = log.read_text().splitlines()
        assert sum("the deadline of container" in line for line in lines) == 1, lines
        assert sum("Refused" in line or "FileNotFound" in line for line in lines) <= 2, lines
        assert len(lines) <= 5, lines
        # The next session removes the container.
        (tmp_path / "front.sock").unlink()
        with FaultProxy(tmp_path / "front.sock").running():
            code = f"import dockertest; dockertest.Pool('unix://{tmp_path}/front.sock').prune()"
            pruned = run(code, XDG_STATE_HOME=str(tmp_path))
        assert not engine.has(container), pruned.stderr
        assert not list((tmp_path / "dockertest").glob("*.deadline"))
    finally:
        if engine.has(container):
            engine.remove(container)


# The log file and paths


def test_the_reaper_writes_a_log_file(engine: Engine, tmp_path: Path) -> None:
    """`DOCKERTEST_REAPER_LOG` is its path. It lists everything that was removed."""
    file = tmp_path / "reaper.log"
    # With a state folder of its own: the reapers of other tests remove what dead sessions in the common one left.
    own = {"DOCKERTEST_REAPER_LOG": str(file), "XDG_STATE_HOME": str(tmp_path)}
    with program("os._exit(0)", **own) as (process, created):
        process.wait(30)
    wait_until_removed(engine, created["session"])
    dockertest.retry(lambda: created["network"][:12] in file.read_text(), max_wait=10)


def test_relative_paths_refer_to_the_folder_of_the_process(
    engine: Engine, local: str, tmp_path: Path
) -> None:
    """The reaper runs in another folder and finds its certificates, log and locks."""
    context = certificates(tmp_path)
    named = {"DOCKER_CERT_PATH": ".", "DOCKERTEST_REAPER_LOG": "reaper.log", "XDG_STATE_HOME": "state"}
    named["HOME"] = str(tmp_path)  # as above
    with Front(local, context) as front:
        where = ("env", "-C", str(tmp_path))
        with program("os._exit(0)", *where, DOCKER_HOST=front.url, **named) as (process, created):
            process.wait(30)
        wait_until_removed(engine, created["session"])
        # The front has to pass the last answer on, or else the reaper looks again.
        log = tmp_path / "reaper.log"
        dockertest.retry(lambda: created["network"][:12] in log.read_text(), max_wait=10)
    assert not (tmp_path / "state").exists()


# How it is started


STARTS = """
import os, sys, dockertest
from dockertest._cleanup import reaper as _reaper
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
pool = dockertest.Pool()
{trouble}
made = pool.run("busybox:1.35", cmd=["sleep", "600"])
print(made.status, flush=True)
try:
    made.expire(600)
except dockertest.InvalidOptionError:
    print("not set", flush=True)
"""
MANY_OPEN = """
soft, hard = getrlimit(RLIMIT_NOFILE)
setrlimit(RLIMIT_NOFILE, (0, hard))
pool._runtime.session.begin()
setrlimit(RLIMIT_NOFILE, (soft, hard))
pool._runtime.session._reaper._start = lambda: False
"""


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("sys.executable = None", "there is no Python"),
        ("sys.executable = ''", "there is no Python"),
        ("import subprocess; subprocess.Popen = None", "not callable"),
        (MANY_OPEN, "Too many open files"),
    ],
    ids=["unknown", "embedded", "mocked", "no descriptor"],
)
def test_a_reaper_that_cannot_start_is_a_warning(trouble: str, reason: str) -> None:
    """Everything works without it, except for deadlines, which raise an error."""
    ended = subprocess.run(
        [sys.executable, "-c", STARTS.format(trouble=trouble)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "running\nnot set\n"), ended.stderr
    (warning,) = {line for line in ended.stderr.splitlines() if "reaper" in line}
    assert warning.startswith("the reaper cannot start: ")
    assert reason in warning


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "import os; os.fork() or os._exit(0)", "1 / 0"])
def test_a_reaper_that_exits_at_its_start_is_detected(text: str, tmp_path: Path) -> None:
    """`expire` raises an error, because no process would enforce the deadline."""
    file = tmp_path / "reaper.py"
    file.write_text(text)
    ended = subprocess.run(
        [sys.executable, "-c", STARTS.format(trouble=f"_reaper.__file__ = {str(file)!r}")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "running\nnot set\n"), ended.stderr
    assert "the reaper" in ended.stderr
    assert "containers may be left behind" in ended.stderr


def test_a_reaper_that_exits_is_replaced(engine: Engine) -> None:
    """The next message detects the exit, and the new reaper receives the old state."""
    code = """
os.kill(int(sys.stdin.readline()), signal.SIGKILL)
other = dockertest.Pool()
other.create_network()
print(other._runtime.session._reaper.ensure_listening(), flush=True)
os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        assert process.stdin
        created = json.loads(process.stdout.readline())
        process.stdin.write(f"{reaper_of(process.pid)}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"
    wait_until_removed(engine, created["session"])


def test_a_package_in_a_zip_file_has_a_reaper(engine: Engine, tmp_path: Path) -> None:
    """Its source is read from the archive, as in a zipapp."""
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in PACKAGE.rglob("*.py"):
            zipped.write(file, Path("dockertest") / file.relative_to(PACKAGE))
    code = f"import sys; sys.path.insert(0, {str(archive)!r})\n{PROGRAM}"
    code += "assert '.zip' in dockertest.__file__\nmade[0].expire(600)\nos.kill(os.getpid(), signal.SIGKILL)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    wait_until_removed(engine, json.loads(ended.stdout)["session"])


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process is not safe after a fork without exec"
)
def test_a_frozen_program_has_a_reaper(engine: Engine) -> None:
    """
    There is no Python to start, so the program is forked.

    The fork has neither its files nor its exit handlers.
    """
    code = f"""
import atexit, sys, threading
sys.frozen, sys.executable = True, "/bin/false"
atexit.register(print, "exit handler")
threading.Thread(target=threading.Event().wait, daemon=True).start()
{PROGRAM}
made[0].expire(600)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = run(code)  # Its output ends although the reaper is still running.
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    wait_until_removed(engine, json.loads(ended.stdout)["session"])


def test_a_python_with_a_library_path_has_a_reaper(engine: Engine, tmp_path: Path) -> None:
    """
    Some builds of Python need `LD_LIBRARY_PATH` for their shared library.

    Examples are Python from actions/setup-python and from a software collection.
    """
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" ] && exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    code = f"import sys\nsys.executable = {str(python)!r}\n{PROGRAM}os._exit(0)"
    ended = run(code, LD_LIBRARY_PATH=str(tmp_path))
    wait_until_removed(engine, json.loads(ended.stdout)["session"])


def test_without_a_reaper_there_are_no_deadlines(engine: Engine) -> None:
    """Nothing would enforce them."""
    with dockertest.Pool(reaper=False) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        with pytest.raises(dockertest.InvalidOptionError, match="reaper"):
            resource.expire(1)


def test_a_reaper_without_valid_credentials_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A user's own client may authenticate by means that the reaper does not have."""
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        proxy.next("GET .*/containers/json.*managed", answer(401, "who are you?"))
        pool.create_network()
        reaper = pool._runtime.session._reaper
        dockertest.retry(lambda: reaper.ensure_listening() and "401" in reaper.failure, max_wait=10)
        assert "the reaper has a problem: cannot list containers" in caplog.text


# What a process does to its own descriptors and signals


@pytest.mark.skipif(sys.platform != "linux", reason="system: only Linux has subreapers")
def test_no_reaper_stays_a_zombie_of_a_process_that_adopts_orphans() -> None:
    """The first process of a container does that."""
    code = """
import ctypes, os, dockertest
from pathlib import Path

def children():
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(path.read_text().rpartition(")")[2].split())
        except OSError:
            pass
    return [stat[0] for stat in stats if stat[1] == str(os.getpid())]

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
for _ in range(3):
    with dockertest.Pool() as pool:
        pool.create_network()
        assert pool._runtime.session.ensure_reaper()
    dockertest.retry(lambda: children() == ["Z"], max_wait=20)  # the last one
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_a_process_that_closes_all_descriptors_loses_its_containers(engine: Engine) -> None:
    """
    To the reaper, the process has ended.

    Closing the pool raises a `CleanupError` at most.
    """
    code = """
import os, dockertest
pool = dockertest.Pool()
pool.run("busybox:1.35", cmd=["sleep", "600"])
print(pool._runtime.session.id, flush=True)
os.closerange(3, 256)
try:
    pool.close()
except dockertest.CleanupError:
    assert not pool.endpoint.startswith("unix://")  # A connection over TLS notices it only when it is used.
os._exit(0)  # What urllib3 does at exit is not for this test.
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    wait_until_removed(engine, ended.stdout.strip())


def test_no_message_is_written_to_a_file_of_the_user(tmp_path: Path) -> None:
    """
    New files may get the descriptor numbers of our socket and locks.

    This happens after a program has closed all descriptors.
    """
    code = f"""
import os, dockertest
pool = dockertest.Pool()
network = pool.create_network()
client = pool._runtime.session._reaper
os.closerange(3, 256)
files = [open(f"{tmp_path}/{{index}}", "w+") for index in range(64)]
client.expire("0" * 64, 1000)
client.begin("1" * 32, reaper=True)
client.end("1" * 32)
client.end(pool._runtime.session.id)
client.close()
for file in files:
    file.write("mine")
    file.close()
os._exit(0)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert {file.read_text() for file in tmp_path.iterdir()} == {"mine"}


def test_a_dead_reaper_does_not_kill_a_process_with_the_default_sigpipe(engine: Engine) -> None:
    """Command-line programs often restore the default action of SIGPIPE."""
    code = """
import os, signal, sys, dockertest
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
pool = dockertest.Pool()
pool.create_network()
print(os.getpid(), flush=True)
sys.stdin.readline()
for _ in range(3):
    pool._runtime.session._reaper.forget_deadline("0" * 64)
pool.close()
print("closed", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stdin
        reaper = reaper_of(int(process.stdout.readline()))
        os.kill(reaper, signal.SIGKILL)
        dockertest.retry(lambda: not reapers_of(process.pid))
        output, errors = process.communicate("\n", timeout=60)
    assert (process.returncode, output) == (0, "closed\n"), errors
    assert errors.count("the reaper has ended") == 1
