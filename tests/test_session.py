"""Parallel calls, a process's own resources, and the container it may run in."""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from dockertest import Report, ResourceClosedError
from dockertest._cleanup.reaper_client import reaper_client
from dockertest._cleanup.registry import registry
from dockertest._cleanup.session import (
    Members,
    labels,
    new_session,
)
from dockertest._concurrency import run_in_parallel
from dockertest._engine.reachability import own_container_ids
from dockertest._settings import state_folder

ONE, TWO = "1" * 64, "2" * 64


def returning(value: object) -> "Callable[[], object]":
    return lambda: value


def raising(error: BaseException) -> "Callable[[], NoReturn]":
    def call() -> NoReturn:
        raise error

    return call


def test_members_may_be_changed_by_several_threads() -> None:
    """None that is added is lost, and none that is removed comes back."""

    class Item:
        is_spare = False

        def __init__(self, name: str, meanwhile: "Callable[[], object] | None" = None) -> None:
            self.name, self._meanwhile = name, meanwhile

        @property
        def id(self) -> str:
            meanwhile, self._meanwhile = self._meanwhile, None
            if meanwhile:
                meanwhile()
            return self.name

    def change() -> None:
        members.untrack(second, is_gone=True)
        members.containers.append(added)

    members: Any = Members()
    first, second, added = Item("first"), Item("second"), Item("added")
    last = Item("last", change)
    members.containers += [first, second, last]
    members.untrack(first, is_gone=True)
    assert members.containers == [last, added]


class TestRunInParallel:
    """Calls made at the same time."""

    def test_results_are_in_the_order_of_the_calls(self) -> None:
        """The order in which the calls return does not matter."""
        gate = threading.Event()

        def last() -> str:
            assert gate.wait(10)
            return "last"

        def first() -> str:
            gate.set()
            return "first"

        assert run_in_parallel([last, first]) == ["last", "first"]

    def test_calls_run_at_the_same_time(self) -> None:
        """Each call waits for all the others."""
        together = threading.Barrier(16, timeout=10)
        assert sorted(run_in_parallel([together.wait] * 16)) == list(range(16))  # type: ignore[type-var]

    def test_an_error_is_a_result(self) -> None:
        """The other calls are still made."""
        error = ValueError("wrong")
        assert run_in_parallel([returning(1), raising(error), returning(3)]) == [1, error, 3]

    def test_there_are_no_more_threads_than_workers(self) -> None:
        """The caller's thread is one of them."""
        used: set[int] = set()
        assert run_in_parallel([lambda: used.add(threading.get_ident())] * 100, workers=3) == [None] * 100
        assert len(used) <= 3

    def test_one_worker_makes_one_call_after_another(self) -> None:
        """They run in the caller's thread."""
        assert set(run_in_parallel([threading.get_ident] * 5, workers=1)) == {threading.get_ident()}

    def test_no_calls_have_no_results(self) -> None:
        """No thread is started."""
        assert run_in_parallel([]) == []

    def test_all_threads_have_ended_afterwards(self) -> None:
        """None is left behind."""
        before = threading.active_count()
        run_in_parallel([returning(1)] * 10)
        assert threading.active_count() == before

    def test_calls_are_sequential_if_no_thread_can_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This happens while the interpreter shuts down."""
        monkeypatch.setattr(
            threading.Thread, "start", lambda _: raising(RuntimeError("can't start new thread"))()
        )
        error = ValueError("wrong")
        calls = [returning(1), raising(error), threading.get_ident]
        assert run_in_parallel(calls) == [1, error, threading.get_ident()]

    def test_an_interrupt_in_the_callers_thread_is_raised(self) -> None:
        """Ctrl-C is not a result."""
        with pytest.raises(KeyboardInterrupt):
            run_in_parallel([raising(KeyboardInterrupt())], workers=1)

    def test_an_outcome_in_another_thread_is_raised_after_all_calls(self) -> None:
        """The exception of `pytest.skip` is not derived from `Exception`."""
        caller, made = threading.get_ident(), []
        together = threading.Barrier(2, timeout=10)

        def call() -> None:
            together.wait()  # Each of the first two calls has a thread of its own.
            if threading.get_ident() != caller:
                pytest.skip("not today")

        with pytest.raises(pytest.skip.Exception, match="not today"):
            run_in_parallel([call, call, lambda: made.append(1)], workers=2)
        assert made == [1]


def run(program: str, tmp_path: Path) -> "list[str]":
    """
    Run a program in a new interpreter, and return the lines that it prints.

    It runs outside the working tree.
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_open_objects_are_closed_at_exit(tmp_path: Path) -> None:
    """
    The newest is closed first, and a failure is logged.

    A forked child leaves them to its parent.
    """
    program = """
import logging, os, sys
from dockertest._cleanup.registry import registry
from dockertest._engine.reachability import own_container_ids
from dockertest._settings import state_folder
from dockertest._concurrency import run_in_parallel

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")

class Thing:
    def __init__(self, name):
        self.name = name
        registry.add(self, None)
    def close(self):
        run_in_parallel([lambda: os.write(1, f"closed {self.name}\\n".encode())] * 2)
        if self.name == "second":
            raise OSError("cannot")

kept = [Thing(name) for name in ("first", "second", "third", "gone")]
registry.discard(kept.pop())
if hasattr(os, "fork") and os.fork() == 0:
    sys.exit()
if hasattr(os, "fork"):
    os.wait()
print("end", flush=True)
"""
    assert run(program, tmp_path) == [
        "end",
        *["closed third"] * 2,
        *["closed second"] * 2,
        "ERROR cannot",
        *["closed first"] * 2,
    ]


def test_the_state_folder_is_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is in the home directory if that is writable.

    Otherwise it is in the temporary directory. It is never a relative path.
    """
    temporary, home = tmp_path / "tmp", tmp_path / "home"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert state_folder({"XDG_STATE_HOME": str(home)}) == home / "dockertest"
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).startswith(str(home)))  # as for root
    (fallback,) = {state_folder({"XDG_STATE_HOME": str(home)}), *temporary.iterdir()}
    monkeypatch.setattr(os.path, "expanduser", str)  # a user without an entry in the system's user database
    monkeypatch.chdir(tmp_path)
    for environ in ({}, {"XDG_STATE_HOME": "state"}):
        assert state_folder(environ) == fallback
    assert sorted(tmp_path.iterdir()) == [home, temporary]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no such permissions")
def test_a_state_folder_writable_by_others_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link or folder of another user is skipped; excessive permissions are removed."""
    temporary, home, foreign = tmp_path / "tmp", tmp_path / "home", tmp_path / "foreign"
    for folder in (temporary, home, foreign):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder = home / "dockertest"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert state_folder({"XDG_STATE_HOME": str(home)}) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    folder.symlink_to(foreign)
    assert state_folder({"XDG_STATE_HOME": str(home)}) == folder
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)  # to whom none of these folders belong
    assert not state_folder({"XDG_STATE_HOME": str(home)}).exists()


def test_a_read_only_system_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing lock is only a warning."""

    def fail() -> NoReturn:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    monkeypatch.setattr(os.path, "expanduser", str)
    assert not state_folder({}).exists()
    assert Path("/proc/nothing/dockertest") in state_folder({"XDG_STATE_HOME": "/proc/nothing"}).parents


def test_each_home_has_its_own_reaper_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder is in it, and the first pool may be made in a temporary one."""
    engine = cast("Any", SimpleNamespace(endpoint="an engine", address=dict, address_obstacle=str))
    monkeypatch.setattr(registry, "reaper_clients", {})
    folders = []
    for home in ("one", "two", "one"):
        monkeypatch.setenv("HOME", str(tmp_path / home))
        folders.append(reaper_client(engine, {}).records.folder)
    assert folders == [tmp_path / home / ".local/state/dockertest" for home in ("one", "two", "one")]


FORK_DURING_USE = """
import fcntl, os, signal, sys, threading, time, warnings
from pathlib import Path
from types import SimpleNamespace
from dockertest._cleanup.prepared import PreparedRecords
from dockertest._cleanup.reaper import Records

folder, key = Path(sys.argv[1]), "a" * 32
prepared = PreparedRecords(SimpleNamespace(records=Records(folder), engine_url=""))
with (folder / f"{key}.in-use").open("w") as other:
    fcntl.flock(other, fcntl.LOCK_EX)  # as a process that is removing the image
    thread = threading.Thread(target=prepared.use, args=(key,))
    thread.start()
    while prepared._changing.acquire(blocking=False):
        prepared._changing.release()
        time.sleep(0.01)  # until the thread has the lock
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # by os.fork, from Python 3.12 on
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        prepared.release_all()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
thread.join()
prepared.release_all()
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="system: it cannot fork")
def test_a_forked_child_does_not_wait_for_a_prepared_image(tmp_path: Path) -> None:
    """A thread of its parent was waiting for the image's lock during the fork."""
    program = [sys.executable, "-X", "dev", "-W", "error", "-c", FORK_DURING_USE, str(tmp_path)]
    assert subprocess.run(program, check=False).returncode == 0


def test_a_session_is_unique() -> None:
    """Its name has 128 random bits."""
    assert len({new_session() for _ in range(100)}) == 100
    assert re.fullmatch("[0-9a-f]{32}", new_session())


def test_labels_identify_the_owner() -> None:
    """They hold the session, the identity and, if requested, the expiry time."""
    ours = {"dockertest.managed": "true", "dockertest.session": "abc", "dockertest.identity": "me"}
    assert labels("abc", "me") == ours
    limited = labels("abc", "me", 60)
    assert time.time() + 50 < int(limited.pop("dockertest.expires")) < time.time() + 70
    assert limited == ours


class Thing:
    """Something that can be closed."""

    def __init__(self, closed: "list[str]", name: str, failure: "Exception | None" = None) -> None:
        self.id, self.name, self.closed, self.failure = name, f"name of {name}", closed, failure
        self.is_spare = False

    def close(self) -> None:
        self.closed.append(self.id)
        if self.failure:
            raise self.failure

    def keep_failed(self) -> None: ...

    def report(self) -> Report:
        raise NotImplementedError


class TestMembers:
    """The containers and networks that a pool owns and has to remove."""

    def test_networks_are_removed_after_the_containers_in_them(self) -> None:
        """Engines refuse to remove a network that is in use."""
        closed: list[str] = []
        members = Members()
        members.networks.append(Thing(closed, "net"))
        for name in "abc":
            members.containers.append(Thing(closed, name))
        assert len(members) == 4
        assert members.close(10) == []
        assert sorted(closed[:3]) == ["a", "b", "c"]
        assert closed[3:] == ["net"]

    def test_a_failure_does_not_stop_the_others(self) -> None:
        """All members are closed, and the failure is returned."""
        closed: list[str] = []
        failure = OSError("cannot")
        members = Members()
        members.containers.append(Thing(closed, "a", failure))
        members.containers.append(Thing(closed, "b"))
        members.networks.append(Thing(closed, "net"))
        assert members.close(10) == [failure]
        assert sorted(closed) == ["a", "b", "net"]

    def test_an_untracked_member_is_not_closed(self) -> None:
        """Untracking twice, or an unknown member, has no effect."""
        closed: list[str] = []
        members = Members()
        container, network = Thing(closed, "a"), Thing(closed, "n")
        members.containers.append(container)
        members.networks.append(network)
        for member in (container, container, network, Thing(closed, "unknown")):
            members.untrack(member, is_gone=False)
        assert members.close(10) == []
        assert closed == []

    def test_handles_of_one_container_are_untracked_one_by_one(self) -> None:
        """
        Two threads may reuse the same container.

        Once it is removed, all its handles are untracked.
        """
        members = Members()
        handles = [Thing([], "a"), Thing([], "a"), Thing([], "a")]
        for handle in handles:
            members.containers.append(handle)
        members.untrack(handles[1], is_gone=False)
        assert [*map(id, members.containers)] == [id(handles[0]), id(handles[2])]
        members.untrack(handles[0], is_gone=True)
        assert members.containers == []

    def test_a_network_is_known_by_name_and_id(self) -> None:
        """Users may pass either."""
        members = Members()
        members.networks.append(Thing([], "net"))
        assert [members.owns_network(network) for network in ("net", "name of net", "ne")] == [
            True,
            True,
            False,
        ]

    def test_nothing_is_created_after_close(self) -> None:
        """It would never be removed."""
        members = Members()
        members.close(10)
        with pytest.raises(ResourceClosedError, match="the pool is closed"), members.creating():
            pytest.fail("nothing is created any more")

    def test_close_waits_for_a_running_creation(self) -> None:
        """The new container is removed as well."""
        closed: list[str] = []
        members = Members()
        begun, ending = threading.Event(), threading.Event()

        def create() -> None:
            with members.creating():
                begun.set()
                assert ending.wait(10)
                members.containers.append(Thing(closed, "late"))

        def close() -> None:
            assert begun.wait(10)
            threading.Timer(0.02, ending.set).start()
            assert members.close(10) == []

        assert [result for result in run_in_parallel([create, close]) if isinstance(result, Exception)] == []
        assert closed == ["late"]

    def test_close_does_not_wait_forever(self) -> None:
        """The engine may hang."""
        members = Members()
        with members.creating():
            assert members.close(0.01) == []


MOUNTS = """
1 2 8:1 / / rw - overlay overlay rw
3 2 8:1 /docker/containers/{one}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda1 rw
4 2 8:1 /docker/containers/{one}/hostname /etc/hostname rw - ext4 /dev/vda1 rw
5 2 8:1 /docker/containers/{two}/shm /var/lib/other/{two}/shm rw - tmpfs shm rw
6 2
"""


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "hostname", "ids"),
    [
        (None, None, "laptop", []),
        (None, None, "3f2a9c1b71de", ["3f2a9c1b71de"]),
        (MOUNTS, "0::/", "changed", [ONE]),
        (MOUNTS, "0::/", "3f2a9c1b71de", [ONE, "3f2a9c1b71de"]),
        ("1 2 8:1 / / rw - overlay overlay rw", f"12:pids:/docker/{TWO}\n1:name=systemd:/docker/{TWO}", "x", [TWO]),
        (MOUNTS, f"12:pids:/docker/{TWO}", "x", [ONE, TWO]),
        (None, f"12:pids:/system.slice/docker-{TWO}.scope", "x", [TWO]),
        (None, f"12:pids:/x/{TWO}0", "x", []),
        (MOUNTS.replace("/etc/", "/elsewhere/"), "0::/", "3F2A9C1B71DE", []),
        ("\0\udcff", "\0", "", []),
    ],
)  # fmt: skip
def test_the_container_of_this_process_is_detected(
    mountinfo: "str | None", cgroup: "str | None", hostname: str, ids: "list[str]", tmp_path: Path
) -> None:
    """
    Its id comes from mounts by the engine, cgroup v1 or the host name.

    It does not come from other containers' mounts.
    """
    for name, text in (("mountinfo", mountinfo), ("cgroup", cgroup)):
        if text is not None:
            written = text.replace("{one}", ONE).replace("{two}", TWO)
            (tmp_path / name).write_bytes(os.fsencode(written))
    assert own_container_ids(tmp_path, hostname) == ids


def test_the_current_process_is_inspected_by_default() -> None:
    """Each candidate looks like an id."""
    for candidate in own_container_ids():
        assert re.fullmatch("[0-9a-f]{64}|[0-9a-f]{12}", candidate)
