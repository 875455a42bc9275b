"""What ties the reaper to this process: who we are, the lock that says we live, and the pipe that ends when we do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dockertest._cleanup import reaper as _reaper
from dockertest._cleanup import session as _session
from dockertest._engine.client import Engine
from dockertest._engine.sdk import border
from dockertest._images import process as _process
from dockertest.errors import EngineError

log = logging.getLogger("dockertest")

PATIENCE = 5.0  # seconds that a reaper may take to listen


def identity() -> str:
    """Give user, machine, boot and PID namespace, in four words: only within all four can a process be known to be dead."""
    user = (
        str(os.getuid())
        if hasattr(os, "getuid")
        else hashlib.sha256(str(Path.home()).encode()).hexdigest()[:16]
    )
    machine = _first_line("/etc/machine-id") or f"{uuid.getnode():x}"
    boot = _first_line("/proc/sys/kernel/random/boot_id").replace("-", "")
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return f"{user}.{hashlib.sha256(machine.encode()).hexdigest()[:16]}.{boot}.{namespace}"


class Lifeline:
    """
    The reaper of one engine, for all pools of this process that use it.

    It runs from the first thing that is made until the last pool is closed.
    """

    def __init__(self, engine: Engine, environ: Mapping[str, str]) -> None:
        self._address = engine.address()
        # What Python needs to start at all, and ssh to be the one that the user has; nothing else has to be known.
        wanted: tuple[str, ...] = ("LD_LIBRARY_PATH", "SYSTEMROOT")
        wanted += ("HOME", "PATH", "SSH_AUTH_SOCK", "USER") if (self._address or {}).get("dial") else ()
        self._environ = {"PATH": os.defpath, **{each: environ[each] for each in wanted if each in environ}}
        self._local = engine.endpoint.is_local
        self._where = str(engine.endpoint)
        self._state = _session.state_folder(environ)
        # The reaper works elsewhere.
        self._log_file = os.path.abspath(file) if (file := environ.get("DOCKERTEST_REAPER_LOG")) else ""  # noqa: PTH100
        self._lock = threading.RLock()
        self._locks: dict[str, int | None] = {}  # the open lock file of each session
        self._pipe: int | None = None
        self._deaf = False  # whether the reaper has not heard the last that was said
        self._process: subprocess.Popen[bytes] | None = None
        os.register_at_fork(after_in_child=self._let_go) if hasattr(os, "register_at_fork") else None

    def begin(self, session: str, *, reaper: bool) -> None:
        """
        Have what *session* makes removed when this process is gone.

        The session is in the pipe when this returns: the first create request may leave. Without a reaper there is
        only the lock, so that the next session's reaper knows when this one is dead.
        """
        with self._lock:
            if session in self._locks:
                return
            lock = self._take_lock(session)
            if reaper and (self._pipe is not None or self._start()):
                self._tell({"begin": session})
            self._locks[session] = lock  # after Ctrl-C in between it is begun anew

    def end(self, session: str, *, doubtful: bool = False) -> None:
        """Forget a session that has removed what it made; *doubtful* where the engine may still be making something."""
        with self._lock:
            if session not in self._locks:
                return
            lock = self._locks.pop(session)
            if self._pipe is not None:
                self._tell({"dead" if doubtful else "end": session})
            _close(lock)
            if not doubtful:
                with contextlib.suppress(OSError):
                    self._lock_path(session).unlink()
            if not self._locks:
                self._stop()

    @property
    def has_reaper(self) -> bool:
        """Whether one runs, and hears what is said."""
        return self._pipe is not None and not self._deaf

    def settle(self) -> None:
        """Let go of the process that was started, once it has ended; say so if the reaper did not come up."""
        with self._lock:
            if self._process is None or self._process.poll() is None:
                return
            if code := self._process.returncode:
                _warn("cannot start", f"{sys.executable} ended with exit code {code}")
                self._stop()
            self._process = None

    def expire(self, container: str, seconds: float | None) -> bool:
        """Have a container removed in *seconds*, whatever becomes of this process; say whether a reaper is there."""
        with self._lock:
            if self._pipe is None and seconds is not None and not self._start():
                return False
            _reaper.write_deadline(self._state, container, seconds)  # for the reapers of others, too
            return self._pipe is not None and self._tell({"expire": container, "in": seconds})

    def expired(self, container: str) -> None:
        """Forget the time of a container that is gone."""
        with self._lock:
            _reaper.forget_deadline(self._state, container)
            if self._pipe is not None:
                self._tell({"expire": container, "in": None})

    def prune(self, engine: Engine, *, reused: bool = False) -> list[str]:
        """Remove what dead sessions left on this engine, and give the ids of it."""
        return _reaper.recover(_asking(engine), identity(), self._state, local=self._local, reused=reused)

    def is_dead(self, labels: Mapping[str, str]) -> bool:
        """Whether the session that put these labels on a thing is known to be over, or the thing's own time."""
        return _reaper.time_is_up(labels) or _reaper.is_dead(
            labels, identity(), self._state, local=self._local
        )

    def standing(self, labels: Mapping[str, str], *, is_created: bool = False) -> str:
        """
        Say what is known of the session that put these labels on a thing.

        It is `"dead"`; `"living"`; `"reused"`, and outlives its session unless it was only *is_created*; `"kept"`, left
        behind on purpose by a session of ours; or `"elsewhere"`, of another user, machine or PID namespace.
        """
        if _reaper.REUSE in labels and not is_created:
            return "reused"
        if self.is_dead(labels):
            return "dead"
        if labels.get(_reaper.IDENTITY) != identity():
            return "elsewhere"
        return "living" if self._lock_path(labels.get(_reaper.SESSION, "")).exists() else "kept"

    def close(self) -> None:
        """End the pipe, at the interpreter's end: what still has a session is the reaper's then."""
        with self._lock:
            self._stop()

    def _start(self) -> bool:
        """Start the reaper: its first lines are in the pipe before it is."""
        if self._address is None:
            _warn("does not work", f"it cannot reach {self._where}")
            return False
        reading = None
        try:
            if not sys.executable or getattr(sys, "frozen", False):
                raise FileNotFoundError("there is no Python to run it with, going by sys.executable")
            reading, self._pipe = os.pipe()
            if hasattr(os, "set_blocking"):
                os.set_blocking(self._pipe, False)  # a reaper that is stopped must not stop this process
            said = {"engine": self._address, "identity": identity(), "state": str(self._state)}
            self._tell({**said, "local": self._local, "log": self._log_file})
            self._process = subprocess.Popen(  # noqa: S603 - Python itself, and a file of this package
                [sys.executable, "-I", "-S", str(Path(_reaper.__file__).resolve())],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=self._environ,
                start_new_session=True,
            )
        except BaseException as error:
            self._stop()
            if not isinstance(error, OSError):
                raise
            _warn("cannot start", error)
            return False
        finally:
            _close(reading)
        return True

    def _tell(self, message: dict[str, Any]) -> bool:
        """Say something to the reaper; `False`, after a warning, if it does not hear it."""
        line = json.dumps(message).encode() + b"\n"
        deadline = time.monotonic() + (0.0 if self._deaf else PATIENCE)
        try:
            while not self._write(line):
                if time.monotonic() > deadline:
                    # The pipe stays open: its end would tell a reaper that goes on later that this process is dead.
                    if not self._deaf:
                        log.warning("the reaper does not listen, so what a killed process leaves may stay")
                    self._deaf = True
                    return False
                time.sleep(0.02)
        except OSError as error:
            _warn("is gone", error)
            self._stop()
            return False
        self._deaf = False
        return True

    def _write(self, line: bytes) -> bool:
        """Write a line, which is less than PIPE_BUF: all of it or nothing; `False` if the pipe is full."""
        with contextlib.suppress(BlockingIOError):
            return os.write(-1 if self._pipe is None else self._pipe, line) > 0
        return False

    def _stop(self) -> None:
        """End the pipe; the process that was started has long made way for one that is nobody's child."""
        _close(self._pipe)
        self._pipe = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            self._process = None

    def _take_lock(self, session: str) -> int | None:
        """Hold the lock that says that this session lives; the system releases it when this process is gone."""
        try:
            descriptor = os.open(self._lock_path(session), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:  # the next session cannot know that this one is dead, and leaves it alone
            log.warning("there is no lock for this session, since %s: %s", self._state, error.strerror)
            return None
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def _lock_path(self, session: str) -> Path:
        return self._state / f"{session}.lock"

    def _let_go(self) -> None:
        """In a forked child: neither keep the reaper from acting nor the lock from being free when the parent is gone."""
        self._lock = threading.RLock()
        for descriptor in (*self._locks.values(), self._pipe):
            _close(descriptor)
        if self._process is not None:
            self._process.returncode = 0  # it is not this process's to wait for
        self._locks, self._pipe, self._process, self._deaf = {}, None, None, False


def lifeline(engine: Engine, environ: Mapping[str, str]) -> Lifeline:
    """Give this process's lifeline for an engine: one for all pools."""
    key = f"{engine.address()}"
    found = _process.registry.lifelines.get(key)
    if not isinstance(found, Lifeline):
        found = _process.registry.lifelines.setdefault(key, Lifeline(engine, environ))
    return cast("Lifeline", found)


def sweep(engine: Engine, session: str) -> list[str]:
    """Remove all that has the label of a session, and give the ids of it."""
    return _reaper.remove_all(_asking(engine), [session])


def _asking(engine: Engine) -> _reaper.Request:
    """Give the engine in the form that the reaper's own code speaks to one."""
    what = "remove what a session left"

    def request(method: str, path: str, body: Any) -> tuple[int, Any]:
        try:
            verb = cast("Any", method.lower())
            response = engine.send(verb, path, what=what, body=body)
        except EngineError as error:
            if error.status is None:
                raise
            return error.status, None
        with border(engine.timeout, what):
            return response.status_code, response.json() if response.content else None

    return request


def _warn(what: str, why: object) -> None:
    log.warning("the reaper %s, so what a killed process leaves has to be removed by hand: %s", what, why)


def _close(descriptor: int | None) -> None:
    """Close what is open; somebody who closes all that a process has open was faster, then."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
