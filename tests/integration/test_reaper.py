"""What a process leaves that ends in a way that no Python code survives."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dockertest
from dockertest._cleanup import reaper as _reaper
from tests.engines.fault_proxy import FaultProxy, freeze
from tests.engines.tls_front import Front, certificates

from .conftest import Engine, besides_plain_tcp

SLEEP = ("sleep", "600")

PROGRAM = """
import dockertest, json, os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which whoever started the tests with nohup has them ignore
pool = dockertest.Pool()
network = pool.create_network()
options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sleep", "600"], networks=[network])
made = pool.run_all([options] * 3)
print(json.dumps({"session": pool._session_id, "containers": [each.id for each in made], "network": network.id}))
sys.stdout.flush()
"""


def sessions_things(engine: Engine, session: str) -> int:
    """Count what there is of a session: containers and networks."""
    label = f"dockertest.session={session}"
    return len(engine.labelled(label)) + len(engine.client.networks.list(filters={"label": label}))


def gone(engine: Engine, session: str) -> None:
    """Wait until there is nothing of a session."""
    dockertest.retry(lambda: sessions_things(engine, session) == 0, max_wait=15)


@contextmanager
def program(
    code: str, *before: str, **environment: str
) -> "Iterator[tuple[subprocess.Popen[str], dict[str, str]]]":
    """Run a program that prints what it made, and give both; *before* is the command that runs it."""
    started = subprocess.Popen(
        [*before, sys.executable, "-W", "error", "-c", PROGRAM + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with started:
        assert started.stdout is not None
        line = started.stdout.readline()
        try:
            assert line, started.stderr.read() if started.stderr else ""
            yield started, json.loads(line)
        finally:
            started.kill()


def reapers() -> set[int]:
    """Give the process ids of all reapers."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"reaper.py" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name
)
def test_a_signal_leaves_nothing(engine: Engine, sent: signal.Signals) -> None:
    """Whatever signal ends it, containers and network are gone within seconds, and a bystander's are not."""
    with dockertest.Pool() as bystander:
        kept = bystander.run("busybox:1.35", cmd=SLEEP)
        with program("time.sleep(600)") as (started, made):
            assert sessions_things(engine, made["session"]) == 4
            started.send_signal(sent)
            started.wait(30)
        gone(engine, made["session"])
        assert engine.has(kept.id)


@pytest.mark.parametrize("ending", ["os._exit(3)", "os.abort()", "raise SystemExit(1)", "1 / 0"])
def test_an_abrupt_end_leaves_nothing(engine: Engine, ending: str) -> None:
    """No exit hook runs for some of them; the pipe ends for all."""
    with program(ending) as (started, made):
        started.communicate(timeout=60)
    gone(engine, made["session"])


def kill_with_reaper(engine: Engine, rounds: int) -> None:
    """Kill a process together with its reaper, so often; each time the next session removes all of it, and nothing else."""
    with dockertest.Pool() as bystander:
        kept = bystander.run("busybox:1.35", cmd=SLEEP)
        for index in range(rounds):
            with program("time.sleep(600)") as (started, made):
                both = [dockertest.retry(lambda: only_one(started.pid)), started.pid]
                for sent in (signal.SIGSTOP, signal.SIGKILL):  # neither sees the other's end
                    for each in both:
                        os.kill(each, sent)
                started.wait(30)
            assert sessions_things(engine, made["session"]) == 4
            with dockertest.Pool(reaper=index % 2 == 0) as following:
                if following.reaper:
                    following.create_network()
                else:
                    assert set(made["containers"]) <= set(following.prune())
                gone(engine, made["session"])
            assert engine.has(kept.id)


def test_a_killed_process_and_its_killed_reaper_are_recovered_by_the_next_session(engine: Engine) -> None:
    """The lock of the dead session is free: the next one's reaper, or `prune`, removes what it left."""
    kill_with_reaper(engine, 2)


@pytest.mark.soak
def test_twenty_killed_processes_and_reapers_are_recovered_by_the_next_session(engine: Engine) -> None:
    """What holds twice, holds twenty times."""
    kill_with_reaper(engine, 20)


def test_a_session_in_another_pid_namespace_is_left_alone(engine: Engine, pool: dockertest.Pool) -> None:
    """Even where it is dead: whether a process lives can be known within its own namespace alone."""
    unshare = (
        "unshare",
        *(() if os.geteuid() == 0 else ("--map-root-user",)),
        "--pid",
        "--fork",
        "--kill-child",
    )
    with program("time.sleep(600)", *unshare, DOCKERTEST_REAPER="0") as (started, made):
        session = made["session"]
        started.kill()
        started.wait(30)
    try:
        with dockertest.Pool() as following:
            following.create_network()
            assert not {*made["containers"], made["network"]} & set(following.prune())
        assert sessions_things(engine, session) == 4
    finally:
        for container in made["containers"]:
            engine.client.api.remove_container(container, force=True)
        engine.client.api.remove_network(made["network"])


def only_one(process: int) -> int:
    """Give the reaper of a process, once the one that started it has made way."""
    (watching,) = [each for each in reapers() if parent_session_pipe(each, process)]
    return watching


def parent_session_pipe(reaper: int, process: int) -> bool:
    """Whether a reaper reads from a pipe that a process writes to."""
    try:
        pipe = Path(f"/proc/{reaper}/fd/0").readlink()
        links = [link.readlink() for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()]
    except OSError:
        return False
    return str(pipe).startswith("pipe:") and pipe in links


def test_what_is_not_completely_ours_is_never_touched(
    engine: Engine, pool: dockertest.Pool, name: str
) -> None:
    """A label copied by hand, another host's identity, a session that never had a lock: all unknown, all left alone."""
    labels = pool.client.containers.run  # the plain SDK starts them, as somebody else would
    image = f"{pool.image_prefix}busybox:1.35"
    ours = {"dockertest.managed": "true", "dockertest.session": "0" * 32, "dockertest.identity": "0.a.b.1"}
    made = [
        labels(image, ["sleep", "600"], name=f"{name}-{index}", detach=True, labels=given)
        for index, given in enumerate(
            ({"dockertest.managed": "true"}, ours, {"dockertest.session": "../../etc/passwd"})
        )
    ]
    try:
        pool.prune()
        assert all(engine.has(str(each.id)) for each in made)
    finally:
        for each in made:
            each.remove(force=True)


def test_what_is_past_its_time_to_live_is_removed_by_anybody(engine: Engine, pool: dockertest.Pool) -> None:
    """`DOCKERTEST_TTL` covers what nobody can know to be dead."""
    with program("time.sleep(600)", DOCKERTEST_TTL="1", DOCKERTEST_REAPER="0") as (_, made):
        expires = max(
            int(pool.client.containers.get(each).labels["dockertest.expires"]) for each in made["containers"]
        )
        dockertest.retry(lambda: time.time() > expires + 1, max_wait=10)
        pool.prune()  # or whoever comes first, such as the tests of another Python on this engine
        dockertest.retry(lambda: not any(map(engine.has, made["containers"])), max_wait=10)


def test_a_time_to_live_is_that_of_one_thing(engine: Engine, pool: dockertest.Pool) -> None:
    """A session that is older than that keeps what it made since, and the lock that says that it lives."""
    with dockertest.Pool() as old:
        old._ttl = -10
        late = old.run("busybox:1.35", cmd=SLEEP)
        old._ttl = 3600
        since = old.run("busybox:1.35", cmd=SLEEP)
        pool.prune()
        dockertest.retry(lambda: not engine.has(late.id), max_wait=10)  # by whoever comes first
        assert engine.has(since.id)
        assert old._lifeline.standing(since.container.labels) == "living"


def test_of_an_unknown_boot_nothing_is_known(tmp_path: Path) -> None:
    """Not everywhere does a system tell it: not in gVisor, say, beside which the same engine serves others that know theirs."""
    ours, theirs = "0.machine.boot.1", "0.machine.{}.1"
    labels = {"dockertest.managed": "true", "dockertest.session": "a"}
    for boot, dead in (("another", True), ("", False)):
        named = {**labels, "dockertest.identity": theirs.format(boot)}
        assert _reaper.is_dead(named, ours, tmp_path, local=True) is dead
        assert not _reaper.is_dead(named, ours, tmp_path, local=False)


def test_a_clean_close_ends_the_reaper() -> None:
    """Nothing of ours runs when there is nothing left to remove."""
    code = """
pool.close()
time.sleep(600)
"""
    with program(code) as (started, _):
        dockertest.retry(
            lambda: not any(parent_session_pipe(each, started.pid) for each in reapers()), max_wait=10
        )
        assert started.poll() is None


def test_a_forked_child_keeps_nothing(engine: Engine) -> None:
    """A child that outlives its parent does not keep the parent's containers."""
    code = """
child = os.fork() or time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""
    with program(code) as (started, made):
        assert started.stdout
        child = int(started.stdout.readline())
        started.kill()
        started.wait(30)
        gone(engine, made["session"])
        assert Path(f"/proc/{child}").exists()
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_is_warned_of_nothing() -> None:
    """The reaper is not its child: it ends without a word, as do the workers of test runners that fork."""
    code = """
import os, sys, dockertest
with dockertest.Pool() as pool:
    pool.create_network()
    if os.fork() == 0:
        sys.exit()
    os.wait()
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, besides_plain_tcp(ended.stderr)) == (0, "")


def test_a_hanging_process_does_not_stop_a_deadline(engine: Engine) -> None:
    """The reaper enforces it, while the process itself is stopped."""
    with program("made[0].expire(1); os.kill(os.getpid(), signal.SIGSTOP)") as (_, made):
        dockertest.retry(lambda: not engine.has(made["containers"][0]), max_wait=15)
        assert engine.has(made["containers"][1])
    gone(engine, made["session"])


def test_a_frozen_engine_does_not_delay_a_deadline(engine: Engine, tmp_path: Path) -> None:
    """Neither the recovery of dead sessions nor a container that cannot be removed is waited for."""
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        proxy.next("GET .*/containers/json", freeze)  # by which recovery begins
        stuck, other = (pool.run("busybox:1.35", cmd=SLEEP) for _ in range(2))
        dockertest.retry(lambda: any("/containers/json" in each for each in proxy.requests), max_wait=10)
        proxy.next(f"DELETE .*{stuck.id}", freeze)
        began = time.monotonic()
        stuck.expire(0)
        dockertest.retry(lambda: any(stuck.id in each and "DELETE" in each for each in proxy.requests))
        other.expire(1)
        dockertest.retry(lambda: not engine.has(other.id), max_wait=15)
        assert time.monotonic() - began < 10
        assert engine.has(stuck.id)


def test_a_stopped_reaper_blocks_nobody(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """With its pipe full there is a warning and work goes on; when it goes on itself, the living keep everything."""
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        reaper = dockertest.retry(lambda: only_one(os.getpid()))
        os.kill(reaper, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(dockertest.InvalidOptionError, match="reaper"):
                set_deadlines(resource, 5000)
            assert time.monotonic() - began < 10
            assert "the reaper does not listen" in caplog.text
            with dockertest.Pool() as other:
                other.run("busybox:1.35", cmd=SLEEP).close()
        finally:
            os.kill(reaper, signal.SIGCONT)
        dockertest.retry(lambda: expires(resource), max_wait=10)  # it has read what was in the pipe
        assert engine.has(resource.id)


def set_deadlines(resource: dockertest.Resource, count: int) -> None:
    """Say so often when a container's time is up; 64 KiB of it are in the pipe long before the end."""
    for _ in range(count):
        resource.expire(3600)


def expires(resource: dockertest.Resource) -> bool:
    """Set a deadline and take it back; `False` while the reaper does not hear it."""
    try:
        resource.expire(3600)
    except dockertest.InvalidOptionError:
        return False
    resource.expire(None)
    return True


def test_the_reaper_writes_to_the_file_that_one_names(engine: Engine, tmp_path: Path) -> None:
    """What it did and what went wrong, for those who wonder."""
    file = tmp_path / "reaper.log"
    with program("os._exit(0)", DOCKERTEST_REAPER_LOG=str(file)) as (started, made):
        started.wait(30)
    gone(engine, made["session"])
    dockertest.retry(lambda: made["network"][:12] in file.read_text(), max_wait=10)


def test_relative_paths_are_those_of_the_process(engine: Engine, local: str, tmp_path: Path) -> None:
    """The reaper works in another folder: certificates, its own log and the locks are found all the same."""
    context = certificates(tmp_path)
    named = {"DOCKER_CERT_PATH": ".", "DOCKERTEST_REAPER_LOG": "reaper.log", "XDG_STATE_HOME": "state"}
    with Front(local, context) as front:
        where = ("env", "-C", str(tmp_path))
        with program("os._exit(0)", *where, DOCKER_HOST=front.url, **named) as (started, made):
            started.wait(30)
        gone(engine, made["session"])
    dockertest.retry(lambda: made["network"][:12] in (tmp_path / "reaper.log").read_text(), max_wait=10)
    assert not (tmp_path / "state").exists()


STARTS = """
import os, sys, dockertest
from dockertest._cleanup import reaper as _reaper
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
pool = dockertest.Pool()
{trouble}
made = pool.run("busybox:1.35", cmd=["sleep", "600"])
print(made.status, flush=True)
"""
MANY_OPEN = """
soft, hard = getrlimit(RLIMIT_NOFILE)
setrlimit(RLIMIT_NOFILE, (0, hard))
pool._begin()
setrlimit(RLIMIT_NOFILE, (soft, hard))
"""


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("sys.executable = None", "there is no Python"),
        ("sys.executable = ''", "there is no Python"),
        ("sys.frozen = True", "there is no Python"),
        ("_reaper.__file__ = '/package.zip/_reaper.py'", "ended with exit code 2"),
        (MANY_OPEN, "Too many open files"),
    ],
    ids=["unknown", "embedded", "frozen", "zip", "no descriptor"],
)
def test_a_reaper_that_cannot_start_is_one_warning(trouble: str, why: str) -> None:
    """Work goes on without it, and its end as well."""
    ended = subprocess.run(
        [sys.executable, "-c", STARTS.format(trouble=trouble)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "running\n"), ended.stderr
    (warning,) = [line for line in ended.stderr.splitlines() if "reaper" in line]
    assert warning.startswith("the reaper cannot start, so what a killed process leaves has to be removed")
    assert why in warning


def test_a_python_that_needs_its_library_path_has_it(engine: Engine, tmp_path: Path) -> None:
    """As those of GitHub's actions/setup-python and of software collections, which are linked to a library of their own."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" ] && exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    code = f"sys.executable = {str(python)!r}\n{PROGRAM}os._exit(0)"
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    gone(engine, json.loads(ended.stdout)["session"])


def test_a_process_that_closes_all_descriptors_is_told(engine: Engine) -> None:
    """To the reaper that is its end, so its containers are gone; closing the pool afterwards is no riddle."""
    code = """
import os, dockertest
pool = dockertest.Pool()
pool.run("busybox:1.35", cmd=["sleep", "600"])
print(pool._session_id, flush=True)
os.closerange(3, 256)
try:
    pool.close()
except dockertest.CleanupError:
    assert not pool.endpoint.startswith("unix://")  # a connection over TLS does not notice before it is used
os._exit(0)  # what urllib3 does at the end is not for this test
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    gone(engine, ended.stdout.strip())


def test_no_reaper_no_expire(engine: Engine) -> None:
    """Without one a deadline could not be held, and that is said."""
    with dockertest.Pool(reaper=False) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        with pytest.raises(dockertest.InvalidOptionError, match="reaper"):
            resource.expire(1)
