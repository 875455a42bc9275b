"""
The user's side of the reaper: identity, locks and the socket to the reaper.

The identity is that of this process. The locks prove that it is alive.

`reaper` describes what the reaper does. The socket is written to before the reaper has started, so that the first
session is in it before the first create request leaves. What depends on the reaper, such as a deadline, is confirmed
by it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from dockertest import _clock
from dockertest._cleanup import reaper
from dockertest._cleanup.reaper import Evidence, Hold, Records
from dockertest._cleanup.registry import registry
from dockertest._engine.client import EngineClient
from dockertest._interruption import interrupts_package
from dockertest._settings import prepared_unused, state_folder
from dockertest.errors import DockertestError, EngineError

T = TypeVar("T")
log = logging.getLogger("dockertest")

CONFIRM_SECONDS = 5.0  # The reaper has this long to confirm a message, its own start included.
UNRESPONSIVE_SECONDS = 0.1  # And this long once it has failed to.
_MULTICAST_BIT = 1 << 40  # In a hardware address: uuid.getnode() made it up, see RFC 4122, section 4.5.
_DARWIN_SO_NOSIGPIPE = 0x1022  # sys/socket.h; Python has no name for it.


def identity(folder: Path) -> str:
    """
    Return user, machine, boot and PID namespace, joined by full stops.

    Only a process with the same four can be known to have ended.

    Args:
        folder: The state folder, where an id is kept for a machine that has none.
    """
    user = (
        str(os.getuid())
        if hasattr(os, "getuid")
        else hashlib.sha256(str(Path.home()).encode()).hexdigest()[:16]
    )
    machine = hashlib.sha256(_machine_id(folder).encode()).hexdigest()[:16]
    boot = _first_line("/proc/sys/kernel/random/boot_id").replace("-", "")
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return f"{user}.{machine}.{boot}.{namespace}"


def _machine_id(folder: Path) -> str:
    """
    Return the id of this machine.

    It is the system's own id, else a network card's address, else a random id that is generated once.
    """
    written = _first_line("/etc/machine-id")
    if written and written != "uninitialized":  # systemd writes that on a first boot.
        return written
    address = uuid.getnode()
    return f"{address:x}" if not address & _MULTICAST_BIT else _generated_machine_id(folder)


def _generated_machine_id(folder: Path) -> str:
    path = folder / "machine-id"
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.exists():
            fresh.write_text(secrets.token_hex(16), encoding="ascii")
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)  # The first one wins, and is never seen half-written.
            fresh.unlink()
    except OSError as error:
        log.debug("cannot write an id of this machine to %s: %s", path, error)
    return _first_line(str(path)) or f"{uuid.getnode():x}"


class Descriptor:
    """
    An open file that knows whether its number still means that file.

    A program that closes all descriptors, as daemons do, may get the same number for a file of its own.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._file = self._identify()

    def is_ours(self) -> bool:
        """Return whether it is still open as it was."""
        return self._file is not None and self._identify() == self._file

    def close(self) -> None:
        """Close it, unless the number means another file by now."""
        if self.is_ours():
            with contextlib.suppress(OSError):
                os.close(self.number)

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self.number)
        except OSError:
            return None
        return status.st_dev, status.st_ino


class Channel:
    """
    The connection to a reaper: lines of JSON both ways.

    On Windows, where a socket cannot be the standard input of a process, it is a pipe, and nothing is confirmed.

    Attributes:
        far: The other end, for the reaper; to be closed once it has started.
    """

    def __init__(self) -> None:
        """
        Open both ends.

        Raises:
            OSError: There are no descriptors left.
        """
        self._socket: socket.socket | None = None
        if os.name == "nt":
            far, near = os.pipe()
        else:
            self._socket, far_socket = socket.socketpair()
            self._socket.setblocking(False)  # A reaper that is stopped must not stop this process.
            if sys.platform == "darwin":
                self._socket.setsockopt(socket.SOL_SOCKET, _DARWIN_SO_NOSIGPIPE, 1)
            near, far = self._socket.fileno(), far_socket.detach()
        self.far = Descriptor(far)
        self._near = Descriptor(near)
        self._unsent = b""
        self._unread = b""

    def send(self, message: Mapping[str, Any], timeout: float) -> bool:
        """
        Send a message; return `False` if the buffer stays full for *timeout* seconds.

        Raises:
            OSError: The reaper has ended, or this process has closed the descriptor.
        """
        line = json.dumps(message).encode() + b"\n"
        deadline = _clock.monotonic() + timeout
        while not self._write(self._unsent + line):
            if _clock.monotonic() > deadline:
                return False
            _clock.sleep(0.02)
        return True

    def _write(self, data: bytes) -> bool:
        """
        Write as much as fits into the buffer; return `False` if nothing fits.

        The rest is kept, and sent before the next message.
        """
        self._check()
        if self._socket is None:
            return os.write(self._near.number, data) > 0
        try:
            # No SIGPIPE if the reaper has ended: its default action would end this process.
            sent = self._socket.send(data, getattr(socket, "MSG_NOSIGNAL", 0))
        except BlockingIOError:
            return False
        self._unsent = data[sent:]
        return True

    def answers(self, timeout: float) -> Iterator[dict[str, Any]]:
        """
        Yield the reaper's answers, and wait for at most *timeout* seconds in total.

        Raises:
            OSError: The reaper has ended, or this process has closed the descriptor.
        """
        deadline = _clock.monotonic() + timeout
        while self._socket is not None:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                yield json.loads(line)
            self._check()
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(max(0.0, deadline - _clock.monotonic()) * 1000):
                return
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("it has ended")
            self._unread += data

    def close(self) -> None:
        """Close both ends: for the reaper, this process has ended."""
        self.far.close()
        if self._socket is None:
            self._near.close()
        elif self._near.is_ours():
            self._socket.close()
        else:
            self._socket.detach()

    def _check(self) -> None:
        if not self._near.is_ours():
            raise BrokenPipeError("its descriptor was closed by this process")


class ReaperClient:
    """
    The reaper of one engine, for all pools of this process that use it.

    It runs from the first session that wants it until the last one has ended.

    Attributes:
        failure: Why there is no reaper, if one was needed and does not work; else empty.
    """

    def __init__(self, engine: EngineClient, environ: Mapping[str, str]) -> None:
        self.failure = ""
        self._reason: object = ""  # in the failure
        self._address = engine.address()
        self._obstacle = engine.address_obstacle()
        self._engine_name = str(engine.endpoint)
        # Python needs these two to start at all. The user's configuration of ssh may refer to any variable.
        is_ssh = bool((self._address or {}).get("dial"))
        names = [name for name in environ if is_ssh or name in ("LD_LIBRARY_PATH", "SYSTEMROOT")]
        self._environ = {"PATH": os.defpath, **{name: environ[name] for name in names}}
        self._records = Records(state_folder(environ))
        self._unused = prepared_unused(environ)
        log_file = environ.get("DOCKERTEST_REAPER_LOG")
        self._log_file = os.path.abspath(log_file) if log_file else ""  # noqa: PTH100 - the reaper runs elsewhere
        self._is_engine_here: bool | None = None
        self._lock = threading.RLock()
        self._locks: dict[str, Descriptor | None] = {}  # by session that has begun
        self._sessions: set[str] = set()  # those of them that want the reaper
        self._holds: dict[
            str, dict[Hold, bool]
        ] = {}  # by session, and whether other processes see each of them
        self._deadlines: dict[str, float] = {}  # by container
        self._idle: dict[Hold, float] = {}  # when a container may be removed that no session holds any more
        self._programs: set[int] = set()
        self._channel: Channel | None = None
        self._is_unresponsive = False
        self._last_number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._reapers: list[int] = []  # those that this process may have to wait for
        os.register_at_fork(after_in_child=self._release_in_child) if hasattr(
            os, "register_at_fork"
        ) else None

    @property
    def identity(self) -> str:
        """The identity of this process for this engine; see `reaper.Evidence.is_dead`."""
        if self._is_engine_here is None:
            self._is_engine_here = reaper.is_engine_behind(self._url)
        return identity(self._records.folder) + ("" if self._is_engine_here else reaper.ELSEWHERE)

    @property
    def engine_name(self) -> str:
        """The engine's address; one that leads to the same socket is the same."""
        scheme, _, path = self._url.partition("://")
        return f"unix://{os.path.realpath(path)}" if scheme == "unix" else self._url

    @property
    def records(self) -> Records:
        """The records of this user's sessions."""
        return self._records

    @property
    def engine_url(self) -> str:
        """The engine's address, as it stands in the records."""
        return self._url

    @property
    def _url(self) -> str:
        return str((self._address or {}).get("url", self._engine_name))

    def warn_of_obstacle(self) -> None:
        """Log once if a reaper could not reach the engine as this process's client does."""
        if self._obstacle and not self.failure:
            self._fail(
                "does not work", f"it cannot reach {self._engine_name} as the client does: {self._obstacle}"
            )

    # Sessions

    def begin(self, session: str, *, reaper: bool) -> None:
        """
        Make sure that what *session* makes is removed if this process is killed.

        When this returns, the first create request may leave.

        Args:
            reaper: Whether the reaper does it; else only the lock lets a later session do it.
        """
        with self._lock:
            needs_reaper = reaper and session not in self._sessions
            if session in self._locks and not needs_reaper:
                return
            lock = self._locks[session] if session in self._locks else self._take_lock(session)
            if needs_reaper:
                self._sessions.add(session)
                try:
                    self._introduce(session)
                except BaseException:
                    self._sessions.discard(session)
                    raise
            self._locks[session] = lock  # After Ctrl-C before this line it is begun again.

    def _introduce(self, session: str) -> None:
        """Send a session to the reaper; start one if there is none, or none any more."""
        if self._channel is not None:
            self._tell({"message": "begin", "session": session})
        if self._channel is None:
            self._start()

    def end(self, session: str, *, doubtful: bool = False) -> None:
        """
        Forget a session that has removed what it made.

        Args:
            doubtful: Whether the engine may still be creating something, so that the reaper has to look again.
        """
        with self._lock:
            if session not in self._locks:
                return
            lock = self._locks.pop(session)
            self._sessions.discard(session)
            self._holds.pop(session, None)
            self._tell({"message": "abandon" if doubtful else "end", "session": session})
            if lock is not None:
                lock.close()
            if not doubtful:
                self._records.remove_lock(session)
            if not self._locks:
                self._stop()

    def ensure_listening(self) -> bool:
        """
        Return whether the reaper responds; one that has ended is replaced first.

        This waits for up to `CONFIRM_SECONDS`.
        """
        with self._lock:
            # One that has died a moment ago is replaced.
            return self._confirm({"message": "ping"}) or (
                self._channel is None
                and bool(self._sessions)
                and self._start()
                and self._confirm({"message": "ping"})
            )

    def check_start(self) -> None:
        """
        Log a warning if the reaper is known to have failed to start.

        This does not wait for the reaper.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                code = self._process.returncode
                self._process = None
                if code:
                    self._fail("cannot start", f"{sys.executable} ended with exit code {code}")
            self._read_answers(0.0)

    # What several sessions hold; see the top of `reaper`

    def hold(self, session: str, hold: Hold, timeout: float) -> None:
        """
        Hold a container for a begun session, so that no other session removes it.

        Args:
            timeout: Seconds that another process may take to remove it just now.

        Raises:
            BlockingIOError: It takes longer.
            OSError: Holds cannot be recorded.
        """
        with self._lock:
            if self._locks.get(session) is None:
                raise OSError(errno.ENOLCK, "the session has no lock", str(self._records.folder))
            holds = self._holds.setdefault(session, {})
            if holds.setdefault(hold, False):
                return
            # The reaper knows it first. Otherwise the hold would stay if this process died in between.
            if session in self._sessions:
                self._tell({"message": "hold", "session": session, **hold._asdict()})
        try:
            # Another thread may be doing the same. Neither may look for the container before others see the hold.
            self._pass_gate(lambda: self._records.begin_hold(hold.key, session, self._url), timeout)
        except BaseException:
            if not holds.get(hold):
                holds.pop(hold, None)
            raise
        holds[hold] = True

    def is_held(self, hold: Hold, *, beside: str) -> bool:
        """Return whether a living session other than *beside* holds a container."""
        return self._records.is_held(hold.key, beside=beside)

    def holds(self, session: str) -> bool:
        """Return whether a session holds a container."""
        return bool(self._holds.get(session))

    def shares(self, session: str) -> bool:
        """Return whether a session holds a container that a test run shares."""
        return any(hold.label == reaper.SHARED for hold in self._holds.get(session, ()))

    def let_go(self, engine: EngineClient, session: str, timeout: float) -> list[Exception]:
        """
        End the holds of a session, and return the failures.

        A container that no living session holds any more is removed once its idle time has passed. A signal handler leaves
        those that are being removed at this moment: it may have interrupted that.

        Args:
            timeout: Seconds to wait for other processes that change their holds at this moment.
        """
        failures: list[Exception] = []
        is_interruption = interrupts_package()
        boot = reaper.boot_of(self.identity)
        for hold in list(self._holds.get(session, ())):
            end = partial(reaper.release, _request(engine), self._records, hold, session=session, boot=boot)
            try:
                seconds, _ = self._pass_gate(end, 0.0 if is_interruption else timeout)
            except (DockertestError, OSError) as error:
                if is_interruption and isinstance(error, BlockingIOError):
                    continue
                reason = error.strerror if isinstance(error, OSError) else str(error)
                which, cli = f"label={hold.label}={hold.key}", engine.endpoint.cli
                failures.append(
                    EngineError(
                        f"the container that others could take may still be there: {reason}",
                        hint=f"remove it with: {cli} rm -f -v $({cli} ps -aq --filter {which})",
                    )
                )
                continue
            self._holds.get(session, {}).pop(hold, None)
            if seconds is not None and session in self._sessions:
                with self._lock:
                    self._idle[hold] = _clock.monotonic() + seconds
                    self._tell({"message": "idle", "seconds": seconds, **hold._asdict()})
        return failures

    def replace(
        self, engine: EngineClient, labels: Mapping[str, str], container: str, *, beside: str
    ) -> bool | None:
        """
        Remove a container for reuse that has other options than wanted.

        Returns:
            Whether it is gone; `None` if a living session other than *beside* holds it, and `False` if that cannot be
            known.

        Raises:
            EngineError: The engine refused.
        """
        key = labels.get(reaper.REUSE, "")
        is_known = bool(key) and reaper.is_ours(labels) and self._records.has_gate(key)
        if not is_known or labels[reaper.IDENTITY].split(".")[:2] != self.identity.split(".")[:2]:
            return False

        def remove() -> bool | None:
            with self._records.gate(key) as gate:
                if self._records.is_held(key, beside=beside):
                    return None
                engine.remove(container)
                gate.remove()
                return True

        try:
            return self._pass_gate(remove, engine.timeout)
        except OSError:
            return False

    @staticmethod
    def _pass_gate(act: Callable[[], T], timeout: float) -> T:
        """Call *act* until the gate that it locks is free, and what it removes is gone."""
        deadline = _clock.monotonic() + timeout
        pause = 0.005
        while True:
            try:
                return act()
            except BlockingIOError:
                if _clock.monotonic() > deadline:
                    raise
                pause = min(2 * pause, 0.1)
                _clock.sleep(pause)

    @contextmanager
    def ends(self, process: int) -> Iterator[None]:
        """
        Let the reaper end a program if this process is killed within the body.

        It does so before it looks for leftovers.

        Args:
            process: The id of the program's first process, which leads a session of its own.
        """
        with self._lock:
            self._programs.add(process)
            self._tell({"message": "program", "process": process, "is_running": True})
        try:
            yield
        finally:
            with self._lock:
                self._programs.discard(process)
                self._tell({"message": "program", "process": process, "is_running": False})

    # Deadlines

    def expire(self, container: str, seconds: float | None) -> bool:
        """
        Set the deadline of a container, which holds even if this process ends.

        Args:
            seconds: From now; `None` for never.

        Returns:
            Whether the reaper has confirmed it. If not, `failure` has the reason.
        """
        with self._lock:
            if self._channel is None and seconds is not None and not self._start():
                return False
            # For the reapers of other processes too.
            self._records.set_deadline(container, self._url, reaper.boot_of(self.identity), seconds)
            if seconds is None:
                self._deadlines.pop(container, None)
            else:
                self._deadlines[container] = _clock.monotonic() + seconds
            return self._confirm({"message": "expire", "container": container, "seconds": seconds})

    def forget_deadline(self, container: str) -> None:
        """Cancel the deadline of a container that is gone."""
        with self._lock:
            self._records.forget_deadline(container)
            self._deadlines.pop(container, None)
            self._tell({"message": "expire", "container": container, "seconds": None})

    # What is kept

    def mark_kept(self, container: str, *, needed: Iterable[str] = ()) -> bool:
        """
        Keep a container, its networks and its volumes until a person removes them.

        No reaper and no later session of this user removes them, not even when `DOCKERTEST_TTL` or a deadline has passed.

        Args:
            container: Its whole id; or that of a network, or of a session if all that it makes is to stay.
            needed: The whole ids of the networks that it needs, and the `reaper.record_name` of the volumes.

        Returns:
            Whether that worked; else a warning is logged.
        """
        is_written = [self._records.keep(thing, self._url) for thing in (container, *needed)]
        if not all(is_written):
            log.warning(
                "cannot write to %s that %s is to be kept; a later session may remove it: set XDG_STATE_HOME to a folder "
                "that can be written to",
                self._records.folder,
                container[:12],
            )
        return all(is_written)

    def is_kept(self, thing: str) -> bool:
        """
        Return whether a container, network, volume or session was marked as kept.

        *thing* is its id, or the `reaper.record_name` of a volume.
        """
        return self._records.is_kept({"Id": thing})

    # Other sessions

    def prune(self, engine: EngineClient, *, reused: bool, prepared: bool, unused: float) -> list[str]:
        """
        Remove what dead sessions left on this engine; return the removed ids.

        Args:
            reused: Remove also the containers that this user started for reuse on this machine.
            prepared: Remove also all prepared images of this user on this machine that are not in use.
            unused: Seconds after its last use when a prepared image is removed in any case.
        """
        request, evidence = _request(engine), self._evidence(engine)
        tried = reaper.recover(request, evidence, reused=reused, prepared=prepared, unused=unused)
        listed = reaper.list_managed(request) if tried else {}
        left = {thing["Id"] for things in listed.values() for thing in things}.intersection(tried)
        if left:
            names = ", ".join(sorted(map(reaper.short, left)))
            log.warning("not removed: %s; if your containers use them, remove those first", names)
        return [thing for thing in tried if thing not in left]

    def sweep(self, engine: EngineClient, session: str) -> list[str]:
        """
        Remove everything with the label of a session, and return the ids.

        What the user keeps stays, and so do containers that were handed over. See `reaper.remove_sessions`.
        """
        return reaper.remove_sessions(_request(engine), [session], self._records)

    def is_dead_or_expired(self, labels: Mapping[str, str]) -> bool:
        """Return whether these labels have expired or their session has provably ended."""
        return reaper.is_expired(labels) or self._evidence().is_dead(labels)

    def standing(self, labels: Mapping[str, str], *, is_created: bool = False) -> str:
        """
        Return the status of the session that wrote these labels.

        Returns:
            `"dead"`; `"living"`; `"reused"`, if it outlives its session; `"kept"`, if a session of this user left it on
            purpose; or `"elsewhere"`, if it belongs to another user, machine or PID namespace.
        """
        if not reaper.is_ours(labels):
            return "elsewhere"
        if labels.get(reaper.SHARED):
            return self._standing_of_shared(labels)
        if labels.get(reaper.REUSE) and not is_created:
            return "reused"
        if self.is_kept(labels[reaper.SESSION]):
            return "kept"
        if self.is_dead_or_expired(labels):
            return "dead"
        if not reaper.is_same_place(labels[reaper.IDENTITY], self.identity):
            return "elsewhere"
        return "living" if self._records.lock_path(labels[reaper.SESSION]).exists() else "kept"

    def _standing_of_shared(self, labels: Mapping[str, str]) -> str:
        """
        Return the status of a test run.

        It lives as long as one of its sessions that hold the container.
        """
        if self.is_kept(labels[reaper.SESSION]):
            return "kept"
        if reaper.is_expired(labels) or self._evidence().sees_holders(labels):
            return "living" if self._records.is_held(labels[reaper.SHARED]) else "dead"
        return "elsewhere"

    def _evidence(self, engine: EngineClient | None = None) -> Evidence:
        """
        Return the evidence about the engine.

        Without *engine*, only the engine's socket can prove that it runs on this boot.
        """
        request = _request(engine) if engine else _unanswered
        return reaper.gather_evidence(self.identity, self._records, self._url, request)

    # The reaper itself

    def close(self) -> None:
        """Hang up when the interpreter ends. The reaper removes what still has a session."""
        with self._lock:
            self._stop()

    def _start(self) -> bool:
        """
        Start the reaper, and return whether that worked so far.

        All that it has to know is already waiting for it in the channel.
        """
        if self._address is None:
            self.warn_of_obstacle()
            return False
        self._collect_ended()
        try:
            self._channel = Channel()
            self._channel.send(self._first_message(self._address), CONFIRM_SECONDS)
            for message in self._state_messages():
                self._channel.send(message, CONFIRM_SECONDS)
            self._run(self._channel.far)
        except Exception as error:  # noqa: BLE001 - a test may have replaced `subprocess.Popen`
            self._fail("cannot start", error)
            return False
        except BaseException:
            self._stop()
            raise
        self._channel.far.close()
        self._is_unresponsive = False
        return True

    def _first_message(self, address: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "message": "engine",
            "address": address,
            "identity": self.identity,
            "state": str(self._records.folder),
            "log": self._log_file,
            "unused": self._unused,
        }

    def _state_messages(self) -> Iterator[dict[str, Any]]:
        """Yield what a reaper has to know that takes the place of one that is gone."""
        for session in self._sessions:
            yield {"message": "begin", "session": session}
            for hold in self._holds.get(session, ()):
                yield {"message": "hold", "session": session, **hold._asdict()}
        for hold, at in self._idle.items():
            yield {"message": "idle", "seconds": max(0.0, at - _clock.monotonic()), **hold._asdict()}
        for process in self._programs:
            yield {"message": "program", "process": process, "is_running": True}
        for container, at in self._deadlines.items():
            yield {"message": "expire", "container": container, "seconds": at - _clock.monotonic()}

    def _run(self, connection: Descriptor) -> None:
        """
        Run the reaper's code in a process of its own.

        Raises:
            OSError: It cannot be started.
        """
        if getattr(sys, "frozen", False) and sys.platform == "linux":
            with _blocked_signals():
                reaper.run_in_fork(connection.number)
            return
        if not sys.executable or getattr(sys, "frozen", False):
            raise FileNotFoundError("there is no Python to run it with, according to sys.executable")
        with _blocked_signals():  # Until the reaper ignores them.
            self._process = subprocess.Popen(  # noqa: S603 - Python itself, and code of this package
                [sys.executable, "-I", "-S", *_program(), str(os.getpid())],
                stdin=connection.number,
                stdout=subprocess.DEVNULL if os.name == "nt" else connection.number,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=self._environ,
                start_new_session=True,
            )

    def _tell(self, message: Mapping[str, Any]) -> bool:
        """Send a message to the reaper, if any; return whether it is in the socket."""
        if self._channel is None:
            return False
        try:
            is_sent = self._channel.send(message, self._patience())
        except OSError as error:
            self._fail("has ended", error)
            return False
        if not is_sent:
            self._warn_unresponsive()
        return is_sent

    def _confirm(self, message: Mapping[str, Any]) -> bool:
        """Send a message and wait until the reaper has acted on it."""
        self._last_number += 1
        if not self._tell({**message, "confirm": self._last_number}):
            return False
        if self._channel is not None and os.name == "nt":
            return self._process is None or self._process.poll() is None
        if self._read_answers(self._patience(), until=self._last_number):
            self._is_unresponsive = False
            return True
        if self._channel is not None:
            self._warn_unresponsive()
        return False

    def _read_answers(self, timeout: float, until: int | None = None) -> bool:
        """Read the reaper's answers; return whether message number *until* is confirmed."""
        if self._channel is None:
            return False
        try:
            for answer in self._channel.answers(timeout):
                self._note_process(answer)
                if trouble := answer.get("trouble"):
                    self._fail_softly(trouble)
                if until is not None and answer.get("confirmed") == until:
                    return True
        except OSError as error:
            self._fail("has ended", self._reason or error)
        return False

    def _patience(self) -> float:
        return UNRESPONSIVE_SECONDS if self._is_unresponsive else CONFIRM_SECONDS

    def _warn_unresponsive(self) -> None:
        """
        Log once that the reaper is not responding.

        The socket stays open, because its end would mean that this process is gone.
        """
        if not self._is_unresponsive:
            self.failure = "the reaper is not responding"
            log.warning(
                "the reaper is not responding; containers may be left behind if this process is killed"
            )
        self._is_unresponsive = True

    def _fail_softly(self, reason: str) -> None:
        self.failure, self._reason = f"the reaper has a problem: {reason}", reason
        log.warning("%s; containers may be left behind if this process is killed", self.failure)

    def _fail(self, what: str, reason: object) -> None:
        """Log that there is no reaper."""
        self.failure, self._reason = f"the reaper {what}: {reason}", reason
        log.warning("%s; containers may be left behind if this process is killed", self.failure)
        self._stop()

    def _stop(self) -> None:
        """
        Hang up, and wait for the process that was started.

        It ends as soon as it has forked the reaper, but on Windows, it is the reaper, which ends after the hangup.
        """
        channel, self._channel = self._channel, None
        process, self._process = self._process, None
        if channel is not None and os.name == "nt":
            channel.close()
        if process is not None:
            _clock.wait_for_exit(process, CONFIRM_SECONDS)
        if channel is not None:
            with contextlib.suppress(OSError):
                for answer in channel.answers(0.0):
                    self._note_process(answer)
            channel.close()
        self._collect_ended()

    def _note_process(self, answer: Mapping[str, Any]) -> None:
        if "process" in answer:
            self._reapers.append(answer["process"])

    def _collect_ended(self) -> None:
        """
        Collect the exit status of reapers that have ended.

        They are children of this process only if it adopts orphans, as the first process of a container does.
        """
        for process in list(self._reapers):
            with contextlib.suppress(ValueError):  # Code that has interrupted this was faster.
                try:
                    if os.waitpid(process, os.WNOHANG)[0]:
                        self._reapers.remove(process)
                except ChildProcessError:
                    self._reapers.remove(process)

    def _take_lock(self, session: str) -> Descriptor | None:
        """
        Lock the file that proves that this session is alive.

        The system unlocks it when this process ends.
        """
        path = self._records.lock_path(session)
        fresh = path.with_suffix(f".{os.getpid()}")
        try:
            lock = Descriptor(os.open(fresh, os.O_CREAT | os.O_RDWR, 0o600))
            os.write(lock.number, self._url.encode())
            with contextlib.suppress(ImportError):
                import fcntl

                fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.replace(path)  # It is locked from the moment at which others see it.
        except (
            OSError
        ) as error:  # A later session cannot know that this one is dead, and leaves its things alone.
            log.warning("cannot lock a file for this session in %s: %s", self._records.folder, error.strerror)
            return None
        return lock

    def _release_in_child(self) -> None:
        """
        Close a forked child's copies of the locks and of the channel.

        Otherwise they would keep the locks from being free and the reaper from acting.
        """
        self._lock = threading.RLock()
        for lock in self._locks.values():
            if lock is not None:
                lock.close()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.returncode = 0  # It is not this process's child.
        self._locks, self._sessions, self._deadlines, self._programs = {}, set(), {}, set()
        self._holds, self._idle, self._reapers = {}, {}, []
        self._channel, self._process, self._is_unresponsive = None, None, False


def reaper_client(engine: EngineClient, environ: Mapping[str, str]) -> ReaperClient:
    """
    Return this process's client for the reaper of an engine.

    All pools with the same state folder share it.
    """
    key = f"{engine.address() or engine.endpoint} {state_folder(environ)}"
    client = registry.reaper_clients.get(key)
    if not isinstance(client, ReaperClient):
        client = registry.reaper_clients.setdefault(key, ReaperClient(engine, environ))
    return cast("ReaperClient", client)


def _program() -> list[str]:
    """
    Return the Python arguments that run the reaper.

    They are its file, or its source text if this package is in an archive.
    """
    file = Path(reaper.__file__ or "")
    if file.is_file():
        return [str(file.resolve())]
    spec = importlib.util.find_spec(reaper.__name__)
    source = cast("Any", spec.loader).get_source(reaper.__name__) if spec and spec.loader else None
    if not source:
        raise FileNotFoundError(f"there is neither a file {file} nor its source text")
    return ["-c", source]


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Start a process in which the signals are blocked that the reaper will ignore."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, reaper.ignored_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _request(engine: EngineClient) -> reaper.Request:
    """Return the engine in the form in which the reaper's code talks to one."""
    what = "remove what a session left"

    def request(method: str, path: str, body: Any) -> tuple[int, Any]:
        try:
            verb = cast("Any", method.lower())
            response = engine.send(verb, path, what=what, body=body)
        except EngineError as error:
            if error.status is None:
                raise
            return error.status, None
        with engine.translate_errors(what):
            return response.status_code, response.json() if response.content else None

    return request


def _unanswered(_method: str, _path: str, _body: Any) -> tuple[int, Any]:
    return 503, None


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
