"""Things done side by side, what a process owns, and the container that it may run in."""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from dockertest import Report, ResourceClosedError
from dockertest._cleanup.session import (
    Belongings,
    labels,
    new_session,
    own_container_ids,
    side_by_side,
    state_folder,
)

ONE, TWO = "1" * 64, "2" * 64


def returning(value: object) -> "Callable[[], object]":
    return lambda: value


def raising(error: BaseException) -> "Callable[[], NoReturn]":
    def call() -> NoReturn:
        raise error

    return call


class TestSideBySide:
    """Calls made at the same time."""

    def test_results_come_in_the_order_of_the_calls(self) -> None:
        """Whichever was done first."""
        gate = threading.Event()

        def last() -> str:
            assert gate.wait(10)
            return "last"

        def first() -> str:
            gate.set()
            return "first"

        assert side_by_side([last, first]) == ["last", "first"]

    def test_they_run_at_the_same_time(self) -> None:
        """Each waits here for all the others."""
        together = threading.Barrier(16, timeout=10)
        assert sorted(side_by_side([together.wait] * 16)) == list(range(16))  # type: ignore[type-var]

    def test_an_error_is_a_result(self) -> None:
        """The others are made all the same."""
        error = ValueError("wrong")
        assert side_by_side([returning(1), raising(error), returning(3)]) == [1, error, 3]

    def test_there_are_no_more_threads_than_workers(self) -> None:
        """And one of them is the caller's own."""
        used: set[int] = set()
        assert side_by_side([lambda: used.add(threading.get_ident())] * 100, workers=3) == [None] * 100
        assert len(used) <= 3

    def test_one_worker_makes_one_call_after_another(self) -> None:
        """In the caller's thread."""
        assert set(side_by_side([threading.get_ident] * 5, workers=1)) == {threading.get_ident()}

    def test_nothing_to_do_is_nothing(self) -> None:
        """No thread, no result."""
        assert side_by_side([]) == []

    def test_all_threads_are_gone_afterwards(self) -> None:
        """Whoever calls it can go on."""
        before = threading.active_count()
        side_by_side([returning(1)] * 10)
        assert threading.active_count() == before

    def test_where_no_thread_can_be_started_calls_are_made_one_after_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As while the interpreter ends."""
        monkeypatch.setattr(
            threading.Thread, "start", lambda _: raising(RuntimeError("can't start new thread"))()
        )
        error = ValueError("wrong")
        calls = [returning(1), raising(error), threading.get_ident]
        assert side_by_side(calls) == [1, error, threading.get_ident()]

    def test_an_interrupt_in_the_callers_thread_comes_out(self) -> None:
        """Ctrl-C is not a result."""
        with pytest.raises(KeyboardInterrupt):
            side_by_side([raising(KeyboardInterrupt())], workers=1)


def run(program: str, tmp_path: Path) -> "list[str]":
    """Run a program in a new interpreter, away from the working tree, and give the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_what_is_open_at_the_end_is_closed(tmp_path: Path) -> None:
    """The newest first, side by side or not; one that fails is logged; a forked child leaves it to its parent."""
    program = """
import logging, os, sys
from dockertest._images.process import registry
from dockertest._cleanup.session import side_by_side

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")

class Thing:
    _timeline = None
    def __init__(self, name):
        self.name = name
        registry.add(self)
    def close(self):
        side_by_side([lambda: os.write(1, f"closed {self.name}\\n".encode())] * 2)
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


def test_the_state_folder_is_one_that_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home first; without one, or with one that is read-only, the folder for temporary files; never a relative path."""
    temporary, home = tmp_path / "tmp", tmp_path / "home"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert state_folder({"XDG_STATE_HOME": str(home)}) == home / "dockertest"
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).startswith(str(home)))  # as for root
    (fallback,) = {state_folder({"XDG_STATE_HOME": str(home)}), *temporary.iterdir()}
    monkeypatch.setattr(os.path, "expanduser", str)  # a user whom the system does not know
    monkeypatch.chdir(tmp_path)
    for said in ({}, {"XDG_STATE_HOME": "state"}):
        assert state_folder(said) == fallback
    assert sorted(tmp_path.iterdir()) == [home, temporary]


def test_a_system_that_cannot_be_written_to_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no lock then, and that is a warning."""

    def fail() -> NoReturn:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    monkeypatch.setattr(os.path, "expanduser", str)
    assert not state_folder({}).exists()
    assert state_folder({"XDG_STATE_HOME": "/proc/nothing"}) == Path("/proc/nothing/dockertest")


def test_a_session_is_like_no_other() -> None:
    """Its name is random, and long enough."""
    assert len({new_session() for _ in range(100)}) == 100
    assert re.fullmatch("[0-9a-f]{32}", new_session())


def test_labels_say_whose_it_is() -> None:
    """That it is ours, of which session of whom, and, where that is asked for, until when."""
    ours = {"dockertest.managed": "true", "dockertest.session": "abc", "dockertest.identity": "me"}
    assert labels("abc", "me") == ours
    limited = labels("abc", "me", 60)
    assert time.time() + 50 < int(limited.pop("dockertest.expires")) < time.time() + 70
    assert limited == ours


class Thing:
    """Something that can be closed."""

    _end_known = False
    _expires = False
    _removed = False
    _reused = False
    _was_ready = True

    def __init__(self, made: "list[str]", name: str, failure: "Exception | None" = None) -> None:
        self.id, self.name, self.made, self.failure = name, f"name of {name}", made, failure

    def close(self) -> None:
        self.made.append(self.id)
        if self.failure:
            raise self.failure

    def _check_alive(self, within: float) -> None: ...

    def _reports(self) -> "tuple[Report, ...]":
        return ()

    def _waited_for(self) -> "AbstractContextManager[None]":
        return nullcontext()


class TestBelongings:
    """What one pool made and has to remove."""

    def test_networks_go_after_the_containers_in_them(self) -> None:
        """Engines refuse the other order."""
        closed: list[str] = []
        belongings = Belongings()
        belongings.add_network(Thing(closed, "net"))
        for name in "abc":
            belongings.add_container(Thing(closed, name))
        assert len(belongings) == 4
        assert belongings.close(10) == []
        assert sorted(closed[:3]) == ["a", "b", "c"]
        assert closed[3:] == ["net"]

    def test_one_failure_stops_nothing(self) -> None:
        """All of them are given back."""
        closed: list[str] = []
        failure = OSError("cannot")
        belongings = Belongings()
        belongings.add_container(Thing(closed, "a", failure))
        belongings.add_container(Thing(closed, "b"))
        belongings.add_network(Thing(closed, "net"))
        assert belongings.close(10) == [failure]
        assert sorted(closed) == ["a", "b", "net"]

    def test_what_was_forgotten_is_left_alone(self) -> None:
        """Forgetting twice, or what was never there, is nothing."""
        closed: list[str] = []
        belongings = Belongings()
        container, network = Thing(closed, "a"), Thing(closed, "n")
        belongings.add_container(container)
        belongings.add_network(network)
        for each in (container, container, network, Thing(closed, "never there")):
            belongings.forget(each)
        assert belongings.close(10) == []
        assert closed == []

    def test_two_handles_of_one_container_are_forgotten_one_by_one(self) -> None:
        """As when two threads take the same reused one; but once it is gone, both."""
        belongings = Belongings()
        handles = [Thing([], "a"), Thing([], "a"), Thing([], "a")]
        for each in handles:
            belongings.add_container(each)
        belongings.forget(handles[1])
        assert [*map(id, belongings.containers())] == [id(handles[0]), id(handles[2])]
        handles[0]._removed = True
        belongings.forget(handles[0])
        assert belongings.containers() == []

    def test_a_network_is_known_by_name_and_id(self) -> None:
        """Whatever the user wrote."""
        belongings = Belongings()
        belongings.add_network(Thing([], "net"))
        assert [belongings.owns_network(each) for each in ("net", "name of net", "ne")] == [True, True, False]

    def test_nothing_is_made_after_the_end(self) -> None:
        """It would be left behind."""
        belongings = Belongings()
        belongings.close(10)
        with pytest.raises(ResourceClosedError, match="the pool is closed"), belongings.creating():
            pytest.fail("nothing is created any more")

    def test_the_end_waits_for_what_is_just_being_made(self) -> None:
        """So that it is removed as well."""
        closed: list[str] = []
        belongings = Belongings()
        begun, ending = threading.Event(), threading.Event()

        def create() -> None:
            with belongings.creating():
                begun.set()
                assert ending.wait(10)
                belongings.add_container(Thing(closed, "late"))

        def close() -> None:
            assert begun.wait(10)
            threading.Timer(0.02, ending.set).start()
            assert belongings.close(10) == []

        assert [each for each in side_by_side([create, close]) if isinstance(each, Exception)] == []
        assert closed == ["late"]

    def test_but_not_for_ever(self) -> None:
        """An engine may be stuck."""
        belongings = Belongings()
        with belongings.creating():
            assert belongings.close(0.01) == []


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
def test_the_container_that_this_process_may_run_in(
    mountinfo: "str | None", cgroup: "str | None", hostname: str, ids: "list[str]", tmp_path: Path
) -> None:
    """By the files that engines mount, by cgroup v1, by the host name; never by another container's mounts."""
    for name, text in (("mountinfo", mountinfo), ("cgroup", cgroup)):
        if text is not None:
            written = text.replace("{one}", ONE).replace("{two}", TWO)
            (tmp_path / name).write_bytes(os.fsencode(written))
    assert own_container_ids(tmp_path, hostname) == ids


def test_by_default_it_is_this_process() -> None:
    """Whatever it finds looks like an id."""
    for each in own_container_ids():
        assert re.fullmatch("[0-9a-f]{64}|[0-9a-f]{12}", each)
