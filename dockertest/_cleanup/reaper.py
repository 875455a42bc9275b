"""
The reaper: a small process that removes what the user's process leaves behind.

It does this however the user's process ends.

*How it starts.* A pool starts it before the first create request. It detaches, so that nothing that ends the user's
process ends it too, and ignores every signal that can be ignored. It uses the standard library alone and is run as a
file, as source text or as a fork; see `reaper_client`. Its standard input and output are one socket, whose other end
the user's process holds.

*What it is sent.* Lines of JSON: the engine, then each session that begins or ends, each deadline of a container, and
each program that creates things for the user's process, such as Docker Compose. A message with a number is confirmed by
that number, once it has been acted on. The reaper contacts nothing but that engine.

*What it does.* When the socket ends, or the user's process does (a copy of the socket may live on in a child process),
it kills these programs, removes everything with the labels of the sessions that are left, and looks again for a while,
because an engine may still be creating what it was asked for. Meanwhile it removes containers whose deadline has
passed, and what sessions left that died together with their reapers.

*How it ends.* When no session and no deadline is left, or the engine has not answered for `GIVE_UP_SECONDS` after the
user's process ended. Locks and deadlines are files in the state folder, so the next session's reaper finishes the work.

*What it must not remove:*

- Anything that is not labelled by this library, or whose session is not proven dead; see `Evidence.is_dead`.
- What the user asked to keep. `Records.keep` makes a note in the state folder, because labels cannot be changed.
- A container to be reused that was ever started: others may have taken it. The owner changes when the engine starts the
  container, at one point that the engine's own lock on the container makes atomic. Reaper and maker therefore remove
  such a container without force. The engine refuses that if it has been started, and refuses to start it once the
  removal has begun.
- A container that a living session holds; see below.

*Holding.* Several sessions may use one container that has to go when none of them does: at once if it is shared by a
test run, after a pause if it is reused with `idle`. It belongs to no session. Its label has a key, and only the
protocol of that key removes it:

1. A session holds a key by the file `KEY.SESSION.holder`. The hold is as good as the session's lock: once the kernel
   has unlocked that, the file means nothing. So a hold ends with its process, however that ends.
2. To begin or end a hold, to see whether there are others, and to remove the container is done under the exclusive
   lock of `KEY.gate` alone. A process holds first, and looks for the container afterwards. What it then finds can
   no longer be removed by others, and while one is being removed it waits for the gate and then makes a new one.
3. Whoever ends a hold removes the container if no living session holds the key: the process itself when its pool is
   closed, otherwise its reaper, which is sent the key before the hold begins. Every reaper looks again for
   `LATE_CREATION_SECONDS`, so that it also finishes what another one has begun.
4. If the reapers are killed too, the next session of the same user finds the container by its label, and ends it in the
   same way. Only if the gate exists in its state folder, though: else the holders may be recorded elsewhere.
5. The gate contains the time at which the last hold ended, from which `idle` counts. It is empty while the key is held. If
   it was not written because all processes were killed, the count begins when a session notices that.

The key contains everything that decides who may take the container. For a test run that includes the engine's
address, the boot, the PID namespace and the state folder, so that all its sessions see each other's locks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import os
import queue
import re
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import strftime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import quote, urlsplit

if TYPE_CHECKING or __name__ == "__main__":
    import time
else:  # Some of these functions also run in the user's process, where a test may mock time.
    from dockertest import _clock as time

if TYPE_CHECKING:
    import http.client
    import ssl

MANAGED = "dockertest.managed"
SESSION = "dockertest.session"
IDENTITY = "dockertest.identity"
EXPIRES = "dockertest.expires"
REUSE = "dockertest.reuse"
VOLUME = "dockertest.volume"  # a random value, by which the maker of a volume recognizes it
SHARED = "dockertest.shared"
IDLE = "dockertest.idle"
INTERMEDIATE = "dockertest.intermediate"
"""`"true"` for an image that a session makes on the way to another one, or that is removed with its container."""
BUILT = "dockertest.built"
"""
The name of a built image that is removed with its container. The label makes the image unique, so that it has no other name: engines
refuse to remove an image with two names by its id.
"""
PREPARED = "dockertest.prepared"
"""The key of a prepared image; see `Records.prepared`."""
PREPARED_KEY_FILE = "prepared-key"
"""The file in the state folder with the secret that the keys are made with."""
PREPARED_OWNER = "dockertest.prepared-owner"
"""Whose records a prepared image is in; see `Records.owner`."""
PREPARED_EXPIRES = "dockertest.prepared-expires"
"""The time, in seconds since 1970, after which a prepared image is no longer used."""

ELSEWHERE = "-elsewhere"
"""Ends the PID namespace in an identity if the engine is not proven to run on the same boot of the same machine."""

LATE_CREATION_SECONDS = 15.0  # A busy engine may finish a creation this long after its client died.
QUIET_SECONDS = 1.0  # A session that begins has the engine and the processors to itself for this long.
GIVE_UP_SECONDS = 120.0  # Without the user's process, and without an answer from the engine.
RETRY_SECONDS = 60.0  # The longest pause between two attempts; the first is half a second.
REQUEST_SECONDS = 30.0
STALE_LOCK_SECONDS = 3600.0  # The file of a free lock stays for this long if nothing is left of its session.
PREPARED_UNUSED_SECONDS = 14 * 86400.0  # A prepared image that was not used for this long is removed.

Request = Callable[[str, str, Any], tuple[int, Any]]
"""Sends method, path and body to the engine; returns the status and the parsed answer."""

_SESSION_FORM = re.compile(r"[0-9a-z]{1,64}")
_IDENTITY_FORM = re.compile(r"[0-9A-Za-z_-]{0,64}(?:\.[0-9A-Za-z_-]{0,64}){3}")
_EXPIRES_FORM = re.compile(r"[0-9]{1,12}")
_KEY_FORM = re.compile(r"[0-9a-f]{64}")
_IDLE_FORM = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")
_CONTAINER_FORM = re.compile(r"[0-9a-f]{64}")
_VOLUME_FORM = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}")
_KEPT_FORM = re.compile(rf"{_SESSION_FORM.pattern}|volume\.{_VOLUME_FORM.pattern}")
_NO_VOLUMES = (403, 404, 405, 501)  # A proxy in front of the engine allows no volumes, or an engine has none.
_KINDS = ("containers", "networks", "volumes")  # in the order of their removal
_PREPARED_FORM = re.compile(r"[0-9a-f]{32}")
_ENGINE_PROGRAMS = ("dockerd", "podman")


# Talk to the engine


class Engine:
    """An engine, reached by HTTP over a unix socket, TCP, TLS or a command like ssh."""

    def __init__(self, address: Mapping[str, Any]) -> None:
        self._url = urlsplit(address["url"])
        self._dial: list[str] = address.get("dial") or []
        path = self._url.path if self._url.scheme in ("http", "https") else ""  # That of a socket is a file.
        self._prefix = f"{path}/v{address['api']}"
        self._headers = {"Content-Type": "application/json", **(address.get("headers") or {})}
        self._tls = _tls_context(address) if self._url.scheme == "https" else None

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request; return the status and the parsed answer."""
        with contextlib.closing(self._connect()) as connection:
            payload = None if body is None else json.dumps(body)
            connection.request(method, self._prefix + path, payload, self._headers)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text[:1] in (b"{", b"[") else None

    def _connect(self) -> http.client.HTTPConnection:
        import http.client  # It takes as long to import as all the rest, and is not needed while the user waits.

        if self._url.scheme in ("http", "https"):
            host, port = self._url.hostname or "localhost", self._url.port or (2376 if self._tls else 2375)
            if self._tls:
                return http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=self._tls)
            return http.client.HTTPConnection(host, port, timeout=REQUEST_SECONDS)
        connection = http.client.HTTPConnection("localhost", timeout=REQUEST_SECONDS)
        connection.sock = _run_connected(self._dial) if self._dial else socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(REQUEST_SECONDS)
        if not self._dial:
            connection.sock.connect(self._url.path)
        return connection


def _tls_context(address: Mapping[str, Any]) -> ssl.SSLContext:
    """Read the certificates now, because their folder may be temporary."""
    import ssl

    context = ssl.create_default_context(cafile=address.get("ca"))
    context.verify_flags &= (
        ~ssl.VERIFY_X509_STRICT
    )  # As the docker SDK, which accepts the CAs that Docker's manual makes.
    if not address["verify"]:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if address.get("cert"):
        context.load_cert_chain(address["cert"], address.get("key"))
    return context


def _run_connected(command: list[str]) -> socket.socket:
    """
    Run a command, and return a socket to its standard input and output.

    The process ends with the socket.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # an earlier one
    near, far = socket.socketpair()
    with far:
        ends = [(os.POSIX_SPAWN_DUP2, far.fileno(), descriptor) for descriptor in (0, 1)]
        # Signals that this process ignores end the command as usual.
        os.posix_spawn(command[0], command, os.environ, file_actions=ends, setsigdef=ignored_signals())
    return near


class ListError(OSError):
    """The engine refused to list containers, networks or volumes."""

    def __init__(self, kind: str, status: int) -> None:
        super().__init__(f"cannot list {kind}: the engine answered with status {status}")
        self.is_login_refused = status in (401, 403, 407)


_LIST_PATHS = {
    "containers": "containers/json?all=1&",
    "networks": "networks?",
    "volumes": "volumes?",
    "images": "images/json?",
}
_LIST_REPEATS, _LIST_PAUSE_SECONDS = 10, 0.1


def list_labelled(request: Request, kind: str, *labels: str) -> list[dict[str, Any]]:
    """
    Return the containers, networks, volumes or images that have all *labels*.

    The id of a volume is its name.

    Raises:
        OSError: The engine does not answer, or refuses.
    """
    filters = quote(json.dumps({"label": labels}))
    path = f"/{_LIST_PATHS[kind]}filters={filters}"
    status, answer = request("GET", path, None)
    for _ in range(_LIST_REPEATS):
        if kind != "images" or status != 500:
            break
        # Podman cannot list images while another one is being removed.
        time.sleep(_LIST_PAUSE_SECONDS)
        status, answer = request("GET", path, None)
    if kind == "volumes":
        if status in _NO_VOLUMES:
            return []
        volumes = answer.get("Volumes") if isinstance(answer, dict) else None
        answer = [
            {**volume, "Id": volume["Name"]}
            for volume in volumes or []
            if isinstance(volume, dict) and _VOLUME_FORM.fullmatch(str(volume.get("Name")))
        ]
    if status != 200 or not isinstance(answer, list):
        raise ListError(kind, status)
    return [thing for thing in answer if isinstance(thing, dict) and isinstance(thing.get("Id"), str)]


def list_managed(request: Request) -> dict[str, list[dict[str, Any]]]:
    """
    Return, by kind, everything but images that this library has made.

    Raises:
        OSError: The engine does not answer, or refuses.
    """
    return {kind: list_labelled(request, kind, MANAGED) for kind in _KINDS}


def remove(request: Request, kind: str, thing: str, *, force: bool = True, session: str = "") -> bool:
    """
    Remove one container, network, volume or image; return whether it is gone.

    Args:
        kind: `"containers"`, `"networks"`, `"volumes"` or `"images"`. What is attached to a network is disconnected first. A
            volume or image that is in use stays.
        force: Whether a container is removed even if it is running. Without force, the engine itself decides whether
            the container has been started.
        session: The session whose volume it is. Volumes have no ids, so another session may have made one of that name.
    """
    path = f"/{kind}/{quote(thing, safe='')}"
    if kind == "volumes":
        _, volume = request("GET", path, None)
        if labels_of(volume or {}).get(SESSION) != session:
            return True
    elif kind == "networks":
        _, network = request("GET", path, None)
        for container in (network or {}).get("Containers") or {}:
            request("POST", f"{path}/disconnect", {"Container": container, "Force": True})
    elif kind == "images":
        pass
    elif force:
        request("POST", f"{path}/kill", None)  # Podman 5 would wait for 10 s before it does this itself.
        path += "?force=1&v=1"
    else:
        path += "?v=1"
    status, _ = request("DELETE", path, None)
    return status < 300 or status == 404


def start_thread(function: Callable[[Any], object], argument: Any) -> threading.Thread:
    """Call *function* in a thread, and ignore its failure."""

    def call() -> None:
        with contextlib.suppress(Exception):
            function(argument)

    thread = threading.Thread(target=call, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # No thread can be started while an interpreter ends, or beyond a limit.
        call()
    return thread


# Files in the state folder


class Records:
    """
    The records of one user's sessions in the state folder.

    Sessions write them for each other and for later sessions.

    - `SESSION.lock` is locked while the session's process lives, and names its engine.
    - `CONTAINER.deadline` holds the time at which a container is removed. Several processes, each with a reaper, may hold the
      same container: the last one to set a deadline wins.
    - `ID.kept` means that a container, a network or all of a session must stay until a person removes it, and
      `volume.NAME.kept` that a volume must.
    - `NAME.temporary` is a folder with secrets of a process, which is locked while the process lives.
    - `KEY.SESSION.holder` means that the session holds the containers with that key.
    - `KEY.gate` is locked while holds of that key change. It contains the engine, and when the last hold ended.
    - `KEY.prepared` describes a prepared image; the file's time is that of the last use. The pools that use the image hold
      a shared lock of `KEY.in-use`, and a process that prepares it an exclusive one of `KEY.preparing`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock_path(self, session: str) -> Path:
        """Return the path of a session's lock."""
        return self.folder / f"{session}.lock"

    def is_unlocked(self, session: str) -> bool:
        """Return whether a lock exists and is free, so the session's process is gone."""
        try:
            import fcntl

            with self.lock_path(session).open("rb") as file:
                # A shared lock, so that two processes that look at the same time do not take each other for its owner.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
        except (OSError, ImportError):
            return False

    def is_living(self, session: str) -> bool:
        """Return whether a session has a lock, and that is not known to be free."""
        return self.lock_path(session).exists() and not self.is_unlocked(session)

    def remove_lock(self, session: str) -> None:
        """Remove the lock of a session that has ended."""
        self._remove(self.lock_path(session))

    def stale_locks(self, engine: str) -> list[str]:
        """Return the sessions on an engine that began long ago and are over."""
        return [
            path.stem
            for path in self._listed(".lock")
            if self._read(path) == engine
            and self._age(path) > STALE_LOCK_SECONDS
            and self.is_unlocked(path.stem)
        ]

    def set_deadline(self, container: str, engine: str, boot: str, seconds: float | None) -> None:
        """Write down that a container's time is up in *seconds*; `None` for never."""
        left = math.inf if seconds is None else seconds
        fields = (time.monotonic() + left, time.time() + left, boot or "-", engine)
        self._write(self._deadline_path(container), " ".join(map(str, fields)))

    def seconds_left(self, container: str, boot: str) -> float:
        """Return the seconds until the last recorded deadline; 0 if none is known."""
        fields = self._read(self._deadline_path(container)).split(" ", 3)
        try:
            # The monotonic clock cannot be changed, but starts again at each boot.
            if fields[2] == (boot or "-"):
                return float(fields[0]) - time.monotonic()
            return float(fields[1]) - time.time()
        except (IndexError, ValueError):
            return 0.0

    def deadlines(self, engine: str) -> list[str]:
        """Return the containers on an engine that have a deadline."""
        return [
            path.stem
            for path in self._listed(".deadline")
            if _CONTAINER_FORM.fullmatch(path.stem) and self._read(path).split(" ", 3)[3:] == [engine]
        ]

    def forget_deadline(self, container: str) -> None:
        """Remove the deadline of a container that is gone."""
        self._remove(self._deadline_path(container))

    def keep(self, thing: str, engine: str) -> bool:
        """
        Record that a thing must stay, and return whether that worked.

        *thing* is the id of a container, network or session, or the `record_name` of a volume.
        """
        return self._write(self._kept_path(thing), engine)

    def is_kept(self, thing: Mapping[str, Any]) -> bool:
        """
        Return whether a container, network or volume, or its whole session, must stay.

        *thing* is in the form in which the engine lists it.
        """
        session = labels_of(thing).get(SESSION, "")
        # In this order, a session's mark may be replaced by those of its things while another process looks at them.
        names = (session if _SESSION_FORM.fullmatch(session) else "", record_name(thing))
        return any(_KEPT_FORM.fullmatch(name) and self._kept_path(name).exists() for name in names)

    def kept(self, engine: str) -> list[str]:
        """Return the ids that were marked as kept on an engine more than an hour ago."""
        return [
            path.stem
            for path in self._listed(".kept")
            if self._read(path) == engine and self._age(path) > STALE_LOCK_SECONDS
        ]

    def forget_kept(self, thing: str) -> None:
        """Remove the note about something that is gone."""
        self._remove(self._kept_path(thing))

    @contextlib.contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """
        Lend a private folder. If this process is killed, a later session removes it.

        Raises:
            OSError: It cannot be created.
        """
        import shutil
        import tempfile

        made = Path(tempfile.mkdtemp(dir=self.folder if self.folder.is_dir() else None, prefix="dockertest-"))
        path, lock = made, None
        try:
            with contextlib.suppress(
                OSError, ImportError
            ):  # Without a lock, nothing proves that it is left over.
                import fcntl

                lock = os.open(made, os.O_RDONLY)
                fcntl.flock(lock, fcntl.LOCK_EX)
                path = made.rename(
                    made.with_suffix(".temporary")
                )  # Locked from the moment others look at it.
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            if lock is not None:
                os.close(lock)

    def remove_temporary_folders(self) -> None:
        """Remove the folders of processes that were killed."""
        import shutil

        for path in self._listed(".temporary"):
            with contextlib.suppress(OSError, ImportError):
                import fcntl

                lock = os.open(path, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                finally:
                    os.close(lock)

    @contextlib.contextmanager
    def gate(self, key: str) -> Iterator[Gate]:
        """
        Lock the gate of a key in the body.

        Raises:
            BlockingIOError: Another process or thread has locked it.
            OSError: The state folder cannot be written to, or the system has no such locks.
        """
        try:
            import fcntl
        except ImportError as error:
            raise OSError(errno.ENOTSUP, "this system has no file locks", str(self.folder)) from error
        path = self._gate_path(key)
        while True:
            file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_at(path, file):  # else it was removed before it was locked
                    yield Gate(file, path)
                    return
            finally:
                self.unlock(file)

    def has_gate(self, key: str) -> bool:
        """Return whether holds of a key are recorded in this folder."""
        return self._gate_path(key).exists()

    def begin_hold(self, key: str, session: str, engine: str) -> None:
        """
        Let a session hold a key.

        Raises:
            BlockingIOError: The gate is locked; try again.
            OSError: The state folder cannot be written to.
        """
        with self.gate(key) as gate:
            gate.write(engine)
            self._holder_path(key, session).touch(mode=0o600)

    def end_hold(self, key: str, session: str) -> None:
        """Let a session hold a key no longer."""
        self._remove(self._holder_path(key, session))

    def is_held(self, key: str, *, beside: str = "") -> bool:
        """
        Return whether a living session other than *beside* holds a key.

        Records of dead sessions that it finds are removed.
        """
        for path in self._listed(".holder"):
            held, _, session = path.stem.partition(".")
            if held != key or session == beside:
                continue
            if self.is_living(session):
                return True
            self._remove(path)
        return False

    def stale_gates(self, engine: str) -> list[str]:
        """Return the keys on an engine that have not been held for long."""
        return [
            path.stem
            for path in self._listed(".gate")
            if self._read(path).split("\n")[0] == engine and self._age(path) > STALE_LOCK_SECONDS
        ]

    def remove_stale_gate(self, key: str) -> None:
        """Remove the gate of a key of which nothing is left, unless it is held or locked."""
        with contextlib.suppress(OSError), self.gate(key) as gate:
            if not self.is_held(key):
                gate.remove()

    @staticmethod
    def _is_at(path: Path, file: int) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(file))
        except FileNotFoundError:
            return False

    def _gate_path(self, key: str) -> Path:
        return self.folder / f"{key}.gate"

    def _holder_path(self, key: str, session: str) -> Path:
        return self.folder / f"{key}.{session}.holder"

    def owner(self) -> str:
        """
        Return the owner in the labels of the prepared images recorded in this folder.

        It is empty if the folder has no `PREPARED_KEY_FILE`.

        It follows from the secret that their keys are made with. Users and machines would not do: several containers may
        have the same user and machine id, and each of them a state folder of its own.
        """
        import hashlib

        secret = self._read(self.folder / PREPARED_KEY_FILE)
        return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else ""

    def prepared(self, key: str) -> dict[str, Any]:
        """
        Return the record of a prepared image; empty if there is none.

        Its fields are `image`, the id; `name`; `engine`; `created`, in seconds since 1970; `series`, which it shares with
        those that it replaces; and `superseded`, whether another one of its series was prepared while this one was not in
        use.
        """
        with contextlib.suppress(ValueError):
            record = json.loads(self._read(self._prepared_path(key)) or "{}")
            if isinstance(record, dict):
                return record
        return {}

    def prepared_keys(self, engine: str) -> list[str]:
        """Return the keys of the prepared images on an engine."""
        keys = [path.stem for path in self._listed(".prepared") if _PREPARED_FORM.fullmatch(path.stem)]
        return [key for key in keys if self.prepared(key).get("engine") == engine]

    def set_prepared(self, key: str, record: Mapping[str, Any]) -> bool:
        """Record a prepared image, which is in use now; return whether that worked."""
        return self._write(self._prepared_path(key), json.dumps(record))

    def supersede(self, key: str) -> None:
        """Mark a prepared image as replaced, without changing the time of its last use."""
        path = self._prepared_path(key)
        with contextlib.suppress(OSError):
            status = path.stat()
            self._write(path, json.dumps({**self.prepared(key), "superseded": True}))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def last_use(self, key: str) -> float | None:
        """Return a prepared image's last use in seconds since 1970; `None` if unknown."""
        try:
            return self._prepared_path(key).stat().st_mtime
        except OSError:
            return None

    def touch_prepared(self, key: str) -> None:
        """Write down that a prepared image is used now."""
        if (record := self.prepared(key)).get("superseded"):
            self.set_prepared(key, {**record, "superseded": False})
        with contextlib.suppress(OSError):
            os.utime(self._prepared_path(key))

    def forget_prepared(self, key: str) -> None:
        """
        Remove the records of a prepared image that is gone.

        The caller holds its lock exclusively.
        """
        for suffix in ("prepared", "preparing", "in-use"):
            self._remove(self.folder / f"{key}.{suffix}")

    def lock(self, name: str, *, shared: bool) -> int | None:
        """
        Lock a file, and return its descriptor; `None` if it is locked already.

        A missing file is created.

        Raises:
            OSError: The file cannot be opened.
        """
        import fcntl

        path = self.folder / name
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:  # It was removed between the two calls.
                pass
            os.close(descriptor)

    @staticmethod
    def unlock(descriptor: int) -> None:
        """Unlock a file, also if a forked child has a copy of its descriptor."""
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    @contextlib.contextmanager
    def removing_prepared(self, key: str) -> Iterator[bool]:
        """Keep a prepared image from being used in the body; yield whether it is unused."""
        try:
            descriptor = self.lock(f"{key}.in-use", shared=False)
        except ImportError:  # Engines refuse to remove an image that a container uses.
            yield True
            return
        except OSError:
            yield False
            return
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                self.unlock(descriptor)

    def _prepared_path(self, key: str) -> Path:
        return self.folder / f"{key}.prepared"

    def _deadline_path(self, container: str) -> Path:
        return self.folder / f"{container}.deadline"

    def _kept_path(self, thing: str) -> Path:
        return self.folder / f"{thing}.kept"

    def _listed(self, suffix: str) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.suffix == suffix]
        except OSError:
            return []

    @staticmethod
    def _write(path: Path, text: str) -> bool:
        """Write a whole file at once; a failure leaves the old one."""
        try:
            fresh = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        except OSError:
            return False
        return True

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @staticmethod
    def _age(path: Path) -> float:
        try:
            return time.time() - path.stat().st_mtime
        except OSError:
            return 0.0

    @staticmethod
    def _remove(path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


class Gate:
    """The locked gate of a key; see *Holding* at the top."""

    def __init__(self, file: int, path: Path) -> None:
        self._file = file
        self._path = path

    def write(self, engine: str, ended: str = "") -> None:
        """Write down the engine, and when the last hold ended."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{engine}\n{ended}".encode(), 0)

    def seconds_unheld(self, boot: str) -> float:
        """
        Return the seconds for which the key has not been held.

        Counting begins with the first call after a hold.
        """
        engine, _, ended = os.pread(self._file, 65536, 0).decode(errors="replace").partition("\n")
        try:
            monotonic, wall, recorded_boot = ended.split()
            if recorded_boot == (boot or "-"):
                return time.monotonic() - float(monotonic)
            return time.time() - float(wall)
        except ValueError:
            self.write(engine, f"{time.monotonic()} {time.time()} {boot or '-'}")
            return 0.0

    def remove(self) -> None:
        """Remove the file; a process that waits for its lock creates a new one."""
        with contextlib.suppress(OSError):
            self._path.unlink()


# Decide whose a container is


class Hold(NamedTuple):
    """
    What sessions hold together, as it stands in a container's labels.

    Attributes:
        label: `SHARED` or `REUSE`.
        key: The label's value.
        idle: Seconds after the last hold at which the container is removed; `None` for never.
    """

    label: str
    key: str
    idle: float | None


def hold_of(labels: Mapping[str, str]) -> Hold | None:
    """
    Return the hold of a container that is removed automatically; else `None`.

    Such a container is shared, or reused with `idle`.
    """
    if _KEY_FORM.fullmatch(labels.get(SHARED, "")):
        return Hold(SHARED, labels[SHARED], 0.0)
    if _KEY_FORM.fullmatch(labels.get(REUSE, "")) and _IDLE_FORM.fullmatch(labels.get(IDLE, "")):
        return Hold(REUSE, labels[REUSE], float(labels[IDLE]))
    return None


def labels_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a container, network or volume as the engine lists it."""
    labels = thing.get("Labels")
    if not isinstance(labels, dict):
        return {}
    return {name: value for name, value in labels.items() if isinstance(value, str)}


def record_name(thing: Mapping[str, Any]) -> str:
    """Return the name of a thing's `.kept` record: its id, or `volume.NAME`."""
    return f"volume.{thing['Id']}" if "Mountpoint" in thing else str(thing.get("Id", ""))


def is_ours(labels: Mapping[str, str]) -> bool:
    """
    Return whether the labels are a complete set of this library's labels.

    Otherwise they mean nothing.
    """
    return bool(
        labels.get(MANAGED) == "true"
        and _SESSION_FORM.fullmatch(labels.get(SESSION, ""))
        and _IDENTITY_FORM.fullmatch(labels.get(IDENTITY, ""))
    )


def expiry(labels: Mapping[str, str], label: str = EXPIRES) -> int | None:
    """
    Return the expiry time in seconds since 1970; `None` for never.

    After that time, any session may remove this.
    """
    written = labels.get(label, "")
    return int(written) if _EXPIRES_FORM.fullmatch(written) else None


def is_expired(labels: Mapping[str, str]) -> bool:
    """
    Return whether the expiry time in our labels has passed.

    The session may still be alive, and may have made other things since.
    """
    expires = expiry(labels)
    return is_ours(labels) and expires is not None and expires < time.time()


def was_handed_over(container: Mapping[str, Any]) -> bool:
    """
    Return whether others may have taken a listed container.

    This applies to a shared container, and to a container for reuse that was started.
    """
    labels = labels_of(container)
    return bool(labels.get(SHARED)) or (bool(labels.get(REUSE)) and container.get("State") != "created")


class Evidence(NamedTuple):
    """
    What this process knows about itself and its engine, to judge other sessions.

    Attributes:
        identity: User, machine, boot and PID namespace, joined by full stops.
        records: The state folder.
        engine: The engine's address, as it stands in the records.
        is_on_this_boot: Returns whether the engine is proven to run on this boot of this machine. Called only when the
            answer matters, since it may ask the engine.
    """

    identity: str
    records: Records
    engine: str
    is_on_this_boot: Callable[[], bool]

    def is_dead(self, labels: Mapping[str, str]) -> bool:
        """
        Return whether the session that wrote these labels has provably ended.

        Either its identity is this process's and its lock is free. Or it ran on an earlier boot of this machine, and
        both it and this process have proven that the engine runs there too: machines may share a machine id (cloned
        virtual ones do), and a local socket may lead to another machine. Names and ages prove nothing.
        """
        if not is_ours(labels):
            return False
        theirs = labels[IDENTITY]
        if is_same_place(theirs, self.identity):
            return self.records.is_unlocked(labels[SESSION])
        return _is_of_earlier_boot(theirs, self.identity) and self.is_on_this_boot()

    def sees_holders(self, labels: Mapping[str, str]) -> bool:
        """Return whether the records show all living sessions that may hold a container."""
        hold = hold_of(labels)
        if hold is None or not is_ours(labels):
            return False
        if is_same_place(labels[IDENTITY], self.identity):
            return self.records.has_gate(hold.key)
        is_recorded = hold.label == SHARED or self.records.has_gate(hold.key)
        return is_recorded and _is_of_earlier_boot(labels[IDENTITY], self.identity) and self.is_on_this_boot()

    def may_go(self, thing: Mapping[str, Any], *, reused: bool) -> bool:
        """Return whether a thing may be removed whose session is not known to be dead."""
        labels = labels_of(thing)
        if not (reused and is_ours(labels) and labels.get(REUSE) and was_handed_over(thing)):
            return is_expired(labels)
        return labels[IDENTITY].split(".")[:2] == self.identity.split(".")[:2] or is_expired(labels)


def is_same_place(theirs: str, ours: str) -> bool:
    """
    Return whether two identities have the same user, machine, boot and namespace.

    The namespace is the PID namespace.
    """
    return _words(theirs) == _words(ours)


def _is_of_earlier_boot(theirs: str, ours: str) -> bool:
    their_boot, our_boot = _words(theirs)[2], _words(ours)[2]
    is_proven = bool(their_boot and our_boot) and ELSEWHERE not in theirs
    return is_proven and _words(theirs)[:2] == _words(ours)[:2] and their_boot != our_boot


def boot_of(identity: str) -> str:
    """Return the boot in an identity; empty if it is unknown."""
    return _words(identity)[2]


def _words(identity: str) -> list[str]:
    user, machine, boot, namespace = identity.split(".")
    return [user, machine, boot, namespace.removesuffix(ELSEWHERE)]


def gather_evidence(identity: str, records: Records, url: str, request: Request) -> Evidence:
    """Return the evidence about an engine, which is asked for a proof at most once."""
    return Evidence(
        identity, records, url, functools.cache(lambda: is_engine_behind(url) or has_container_here(request))
    )


def is_engine_behind(url: str) -> bool:
    """
    Return whether the listener of a unix socket is an engine on this machine.

    A socket may be forwarded to another machine by ssh, socat or a proxy. The kernel reports the process id of the
    listener: 0 if it runs outside of this PID namespace. If systemd listens for Docker, the daemon is its child.
    """
    path = urlsplit(url).path
    if not url.startswith("unix://") or not hasattr(socket, "SO_PEERCRED"):
        return False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(REQUEST_SECONDS)
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            listener = struct.unpack("3i", credentials)[0]
        program = _program(listener)
        if program == "systemd" and os.path.realpath(path) == "/run/docker.sock":
            daemon = int(Path("/run/docker.pid").read_text(encoding="ascii"))
            return _program(daemon) == "dockerd" and _stat(daemon)[1] == str(listener)
    except (OSError, ValueError, IndexError):
        return False
    return program in _ENGINE_PROGRAMS


def has_container_here(request: Request) -> bool:
    """
    Return whether a container of the engine runs on this machine's kernel.

    If it does, so does the engine.

    The engine reports the process id of a container, and the cgroup of the process with that id names the container.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        _, containers = request("GET", "/containers/json", None)
        for container in (containers or [])[:5]:
            _, inspection = request("GET", f"/containers/{container['Id']}/json", None)
            group = Path(f"/proc/{int(inspection['State']['Pid'])}/cgroup")
            with contextlib.suppress(OSError):
                if container["Id"] in group.read_text(encoding="utf-8", errors="replace"):
                    return True
    return False


def _program(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text(encoding="utf-8", errors="replace").strip()


def _stat(process: int) -> list[str]:
    """
    Return the fields of `/proc/PID/stat` that follow the program's name.

    The first ones are the state and the parent's id.
    """
    text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


# Remove what dead sessions left


def release(
    request: Request, records: Records, hold: Hold, *, session: str = "", boot: str = ""
) -> tuple[float | None, list[str]]:
    """
    End a session's hold, and remove the container if its time is up.

    An empty *session* ends no hold. A container that a living session holds is not removed.

    Returns:
        The seconds after which to call this again, or `None` if nothing is left to do; and the ids of removed containers.

    Raises:
        BlockingIOError: The gate is locked, or the engine has not removed the container yet; try again.
        OSError: The engine does not answer, or refuses.
    """
    with records.gate(hold.key) as gate:
        records.end_hold(hold.key, session)
        if hold.idle is None or records.is_held(hold.key):
            return None, []
        seconds_left = hold.idle - gate.seconds_unheld(boot)
        if seconds_left > 0:
            return seconds_left, []
        listed = list_labelled(request, "containers", f"{hold.label}={hold.key}")
        ids = [container["Id"] for container in listed if not records.is_kept(container)]
        left = [container for container in ids if not remove(request, "containers", container)]
        if left:
            raise BlockingIOError(errno.EBUSY, f"container {left[0][:12]} is still there")
        gate.remove()
        return None, ids


def remove_sessions(request: Request, sessions: Iterable[str], records: Records) -> list[str]:
    """
    Remove what these sessions made, containers first, and return the ids.

    The ids are those of all containers, networks and volumes that it tried to remove, and of the removed images.

    What the user keeps stays, and so do containers that were handed over to those who reuse or share them.
    """
    ids: list[str] = []
    labels = [f"{SESSION}={session}" for session in sessions]
    for kind in _KINDS:
        listed = [thing for label in labels for thing in list_labelled(request, kind, label)]
        ids += _remove_in_parallel(
            request, kind, [one for one in listed if not (was_handed_over(one) or records.is_kept(one))]
        )
    for label in labels:
        images = _list_intermediate(request, label)
        ids += [image["Id"] for image in images if remove(request, "images", image["Id"])]
    return ids


def _list_intermediate(request: Request, label: str = f"{INTERMEDIATE}=true") -> list[dict[str, Any]]:
    """Return the sessions' intermediate images; none if a proxy hides all images."""
    with contextlib.suppress(ListError):
        # Podman 4 finds no image by two labels.
        listed = list_labelled(request, "images", label)
        return [image for image in listed if labels_of(image).get(INTERMEDIATE) == "true"]
    return []


def recover(
    request: Request,
    evidence: Evidence,
    *,
    reused: bool = False,
    on_idle: Callable[[Hold, float], object] = lambda _hold, _seconds: None,
    prepared: bool = False,
    unused: float = PREPARED_UNUSED_SECONDS,
) -> list[str]:
    """
    Remove the leftovers of dead sessions and expired things; return the ids.

    Args:
        reused: Remove also the containers that this user started for reuse on this machine.
        on_idle: Called with what no session holds any more, and the seconds after which it has to go.
        prepared: Remove all prepared images of this user on this machine that are not in use.
        unused: Seconds after its last use when a prepared image is removed.

    Raises:
        OSError: The engine does not answer, or refuses.
    """
    records = evidence.records
    listed = list_managed(request)
    images = _list_intermediate(request)
    labels = [labels_of(thing) for things in (*listed.values(), images) for thing in things]
    dead = {one[SESSION] for one in labels if evidence.is_dead(one)}
    ids = remove_sessions(request, dead, records)
    for hold in {hold for one in labels if evidence.sees_holders(one) and (hold := hold_of(one))}:
        with contextlib.suppress(BlockingIOError):  # Another process is doing it.
            seconds, removed = release(request, records, hold, boot=boot_of(evidence.identity))
            ids += removed
            if seconds:
                on_idle(hold, seconds)
    for kind, things in listed.items():
        left = [thing for thing in things if thing["Id"] not in ids and not records.is_kept(thing)]
        expired = [thing for thing in left if evidence.may_go(thing, reused=reused)]
        ids += _remove_in_parallel(request, kind, expired, force=True)
    outdated = [image["Id"] for image in images if image["Id"] not in ids and is_expired(labels_of(image))]
    ids += [image for image in outdated if remove(request, "images", image)]
    known = {one.get(name, "") for one in labels for name in (SESSION, SHARED, REUSE)}
    known |= {record_name(thing) for one in listed.values() for thing in one}
    ids += _tidy(request, evidence, known)
    with contextlib.suppress(ListError):  # A proxy hides all images.
        ids += _tidy_prepared(request, evidence, unused=-1.0 if prepared else unused)
    return ids


def _tidy_prepared(request: Request, evidence: Evidence, *, unused: float) -> list[str]:
    """
    Remove prepared images that are no longer needed, and return their ids.

    Those that this state folder has the records of go if they are superseded, were not used for *unused* seconds, or are
    not on record any more. The others go once their time is up. What an open pool uses stays.
    """
    records = evidence.records
    ids, keys = [], set()
    owner = records.owner()
    for image in list_labelled(request, "images", PREPARED):
        labels = labels_of(image)
        key = labels[PREPARED]
        keys.add(key)
        is_own = bool(owner) and labels.get(PREPARED_OWNER) == owner
        if not _PREPARED_FORM.fullmatch(key) or not (is_own or _is_past(labels.get(PREPARED_EXPIRES, ""))):
            continue
        with records.removing_prepared(key) as is_free:
            record = records.prepared(key)
            is_current = record.get("image") == image["Id"] and not record.get("superseded")
            idle = time.time() - (records.last_use(key) or 0.0)
            if not is_free or (is_own and is_current and 0 <= idle <= unused):
                continue
            if remove(request, "images", image["Id"]):
                ids.append(image["Id"])
                if record.get("image", image["Id"]) == image["Id"]:
                    records.forget_prepared(key)
    for key in set(records.prepared_keys(evidence.engine)) - keys:
        with records.removing_prepared(key) as is_free:
            if is_free:
                records.forget_prepared(key)
    return ids


def _is_past(stamp: str) -> bool:
    return bool(_EXPIRES_FORM.fullmatch(stamp)) and int(stamp) < time.time()


def _tidy(request: Request, evidence: Evidence, known: set[str]) -> list[str]:
    """
    Remove overdue containers and stale records, and return the containers' ids.

    A container is overdue if its reaper died before the deadline. A record is stale if it describes something that is
    gone.
    """
    records, engine = evidence.records, evidence.engine
    records.remove_temporary_folders()
    for session in set(records.stale_locks(engine)) - known:
        records.remove_lock(session)
    for key in set(records.stale_gates(engine)) - known:
        records.remove_stale_gate(key)
    for thing in set(records.kept(engine)) - known:
        if not _exists(request, thing):
            records.forget_kept(thing)
    ids = []
    for container in records.deadlines(engine):
        is_there = container in known or _exists(request, container)
        is_kept = is_there and records.is_kept({"Id": container})
        if is_there and not is_kept and records.seconds_left(container, boot_of(evidence.identity)) <= 0:
            is_there = not remove(request, "containers", container)
            ids.append(container)
        if not is_there or is_kept:
            records.forget_deadline(container)
    return ids


def short(thing: str) -> str:
    """Return the short form of an id; the name of a volume is not shortened."""
    return thing[:12] if _CONTAINER_FORM.fullmatch(thing) else thing


def _exists(request: Request, thing: str) -> bool:
    """
    Return whether a container, network or volume exists on the engine.

    *thing* is the id of a container or network, or the `record_name` of a volume.
    """
    if thing.startswith("volume."):
        return request("GET", f"/volumes/{quote(thing.removeprefix('volume.'), safe='')}", None)[0] != 404
    paths = (f"/containers/{quote(thing, safe='')}/json", f"/networks/{quote(thing, safe='')}")
    return any(request("GET", path, None)[0] != 404 for path in paths)


def _remove_in_parallel(
    request: Request, kind: str, things: Iterable[Mapping[str, Any]], *, force: bool = False
) -> list[str]:
    """
    Remove things in parallel, and return their ids.

    The ids include those of failed removals. The next list contains these things again.
    """
    ids = []
    threads = []
    for thing in things:
        labels = labels_of(thing)
        is_forced = force or not labels.get(REUSE)  # See the top of this module.
        call = partial(remove, request, kind, force=is_forced, session=labels.get(SESSION, ""))
        threads.append(start_thread(call, thing["Id"]))
        ids.append(thing["Id"])
    for thread in threads:
        if thread.ident:
            thread.join()
    return ids


# The process itself


class WatchedProcess:
    """The user's process, watched directly in case a copy of the socket outlives it."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._descriptor: int | None = None
        self._started = self._start_time()
        with contextlib.suppress(AttributeError, OSError):  # Linux before 5.3, other systems
            self._descriptor = os.pidfd_open(process)
        if os.getppid() != process:  # It has ended, or its children live in a PID namespace of their own.
            self._started = ""
            self._descriptor = None

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that the process sends, until the socket or the process ends."""
        unread = b""
        while self._wait_for_data() and (data := _read(0)):
            *lines, unread = (unread + data).split(b"\n")
            yield from lines

    def _wait_for_data(self) -> bool:
        """Wait for data; return `False` once the process has ended and all is read."""
        if not hasattr(select, "poll"):
            return True  # Windows has neither, nor processes that inherit what they are not given.
        poll = select.poll()
        poll.register(0, select.POLLIN)
        if self._descriptor is not None:
            poll.register(self._descriptor, select.POLLIN)
        while True:
            can_wait = self._descriptor is not None or not self._started
            ready = [descriptor for descriptor, _ in poll.poll(None if can_wait else 1000)]
            if 0 in ready:
                return True
            if ready or self._start_time() != self._started:
                return False

    def _start_time(self) -> str:
        return start_time(self._process)


def start_time(process: int) -> str:
    """Return a process's start time; empty if it has ended or is not in `/proc`."""
    try:
        fields = _stat(process)
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def end_session(leader: int, started: str) -> None:
    """
    Kill a program that leads a session of its own, and all that it has started.

    Args:
        started: When it was started. If its id belongs to another process by now, nothing is killed.
    """
    if start_time(leader) not in ("", started):
        return
    members = [leader]
    with contextlib.suppress(OSError):  # Plugins of newer docker CLIs have a process group of their own.
        processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        members += [process for process in processes if _session_of(process) == str(leader)]
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: on Windows
        os.killpg(leader, signal.SIGKILL)
    for process in members:
        with contextlib.suppress(OSError):
            os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _session_of(process: int) -> str:
    try:
        return _stat(process)[3]
    except (OSError, IndexError):
        return ""


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # The other end was closed with confirmations unread.
        return b""


class Retry:
    """When to try something again: soon at first, then at ever longer intervals."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.at = -math.inf
        self._pause = 0.25

    def later(self) -> None:
        """Set the time of the next attempt."""
        self._pause = min(2 * self._pause, RETRY_SECONDS)
        self.at = time.monotonic() + self._pause


class Reaper:
    """
    The state of the user's process, and the work that is left.

    The loop never waits for the engine, which may be frozen, or stuck on one container. Each request is sent by a
    thread of its own, which puts its result into the same queue as the messages of the user's process.
    """

    def __init__(self, watched: WatchedProcess) -> None:
        self._watched = watched
        self._events: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._is_watching = True  # whether the user's process is alive
        self._sessions: set[str] = set()
        self._holds: dict[str, set[Hold]] = {}  # by session
        self._idle: dict[str, Hold] = {}  # what has a deadline because no session holds it, by key
        # By container, or by the key of an idle one; infinite while it is being removed
        self._deadlines: dict[str, float] = {}
        self._programs: dict[int, str] = {}  # with the time of their start
        self._retries: dict[str, Retry] = {}  # by container that could not be removed
        self._sweeps: dict[str, Retry] = {}  # by dead session
        self._recovery = Retry()
        self._recovery_at = math.inf
        self._is_recovering = False
        self._visit = Retry()
        self._answered_at = time.monotonic()
        self._trouble = ""
        self._log_file = ""
        self._unused = PREPARED_UNUSED_SECONDS
        self._handlers: dict[str, Callable[..., None]] = {
            # What the user's process sends
            "engine": self._on_engine,
            "ping": self._on_ping,
            "begin": self._on_begin,
            "end": self._on_end,
            "abandon": self._on_abandon,
            "expire": self._on_expire,
            "hold": self._on_hold,
            "idle": self._on_idle,
            "program": self._on_program,
            # What else happens
            "hangup": self._on_hangup,
            "recovered": self._on_recovered,
            "swept": self._on_swept,
            "postponed": self._on_postponed,
            "failed": self._on_failed,
            "gone": self._on_gone,
        }

    def run(self) -> None:
        """Act on messages and deadlines until the user's process ends; then clean up."""
        threading.Thread(target=self._listen, daemon=True).start()
        while not self._is_done():
            with contextlib.suppress(queue.Empty):
                kind, event = self._events.get(timeout=self._pause())
                self._handle(kind, event)
            self._act()

    def _is_done(self) -> bool:
        if self._is_watching or self._is_recovering:
            return False
        if not (self._sweeps or self._deadlines):
            return True
        if (
            not self._sweeps
            and time.monotonic() - max(self._answered_at, self._visit.since) > GIVE_UP_SECONDS
        ):
            self._write_log(f"giving up: the engine has not answered for {GIVE_UP_SECONDS:g} s")
            return True
        return False

    def _listen(self) -> None:
        for line in self._watched.lines():
            event = json.loads(line)
            self._events.put((event.pop("message"), event))
        self._events.put(("hangup", {}))

    def _handle(self, kind: str, event: dict[str, Any]) -> None:
        number = event.pop("confirm", None)
        self._handlers[kind](**event)
        if number is not None:
            send({"confirmed": number})

    def _on_engine(self, address: dict[str, Any], identity: str, state: str, log: str, unused: float) -> None:
        """Remember what to work with; this is always the first message."""
        self._log_file, self._unused = log, unused
        self._address, self._identity = address, identity
        self._request = Engine(address).request
        self._records = Records(Path(state))

    def _on_ping(self) -> None:
        """Do nothing; the message is confirmed."""

    def _on_begin(self, session: str) -> None:
        self._sessions.add(session)
        self._recovery = Retry()
        # Another one that is running may have looked too early.
        self._recovery_at = min(self._recovery_at, time.monotonic() + QUIET_SECONDS)

    def _on_end(self, session: str) -> None:
        self._sessions.discard(session)
        self._holds.pop(session, None)

    def _on_abandon(self, session: str) -> None:
        """Look for what a session may have left that has ended in doubt."""
        self._sessions.discard(session)
        self._sweeps[session] = Retry()

    def _on_expire(self, container: str, seconds: float | None) -> None:
        self._retries.pop(container, None)
        if seconds is None:
            self._deadlines.pop(container, None)
        else:
            self._deadlines[container] = time.monotonic() + seconds

    def _on_hold(self, session: str, label: str, key: str, idle: float | None) -> None:
        """Remember what a session is about to hold."""
        self._holds.setdefault(session, set()).add(Hold(label, key, idle))

    def _on_idle(self, label: str, key: str, idle: float, seconds: float) -> None:
        """
        Check in *seconds* whether a container is still not held by any session.

        This happens even if the user's process has ended.
        """
        self._idle[key] = Hold(label, key, idle)
        self._on_expire(key, seconds)

    def _on_program(self, process: int, is_running: bool) -> None:
        """Remember or forget a program that creates things for the user's process."""
        if is_running:
            self._programs[process] = start_time(process)
        else:
            self._programs.pop(process, None)

    def _on_hangup(self) -> None:
        """Clean up after the user's process."""
        self._is_watching = False
        for process, started in self._programs.items():  # first, so that they create nothing more
            end_session(process, started)
        self._visit = Retry()
        self._write_log("the user's process has ended")
        for session in self._sessions:
            self._sweeps[session] = Retry()
        self._recovery_at = self._recovery_at if self._recovery_at == math.inf else 0.0

    def _on_recovered(self, found: list[str] | None) -> None:
        """
        Repeat the recovery if it failed or found something.

        The engine may have refused a removal, or still create something.
        """
        self._is_recovering = False
        is_late = time.monotonic() - self._recovery.since >= LATE_CREATION_SECONDS
        if self._is_watching and (found is None or (found and not is_late)):
            self._recovery.later()
            self._recovery_at = min(self._recovery_at, self._recovery.at)

    def _on_swept(self, session: str, found: list[str] | None) -> None:
        """Repeat the sweep of a dead session, as an engine may still create something."""
        sweep = self._sweeps[session]
        elapsed = time.monotonic() - sweep.since
        if found == [] and elapsed >= LATE_CREATION_SECONDS:
            del self._sweeps[session]
            self._holds.pop(session, None)
            self._records.remove_lock(session)
        elif elapsed >= GIVE_UP_SECONDS:  # Its lock stays, for the next session's reaper.
            del self._sweeps[session]
            self._holds.pop(session, None)
        else:
            sweep.at = time.monotonic() + min(1.0, 0.1 + elapsed / 4)

    def _on_postponed(self, container: str, seconds: float) -> None:
        """Wait for the deadline of a container that another process has set."""
        if self._deadlines.get(container) == math.inf:  # else this process has set a new one meanwhile
            self._deadlines[container] = time.monotonic() + seconds

    def _on_failed(self, container: str) -> None:
        """Try again to remove a container whose time is up."""
        retry = self._retries.setdefault(container, Retry())
        retry.later()
        if self._deadlines.get(container) == math.inf:
            self._deadlines[container] = retry.at

    def _on_gone(self, container: str) -> None:
        self._idle.pop(container, None)
        self._records.forget_deadline(container)
        self._deadlines.pop(container, None)
        self._retries.pop(container, None)

    # What is to be done

    def _pause(self) -> float | None:
        """Return the seconds until something is to be done; `None` if nothing is."""
        times = [math.inf, *self._deadlines.values(), *(sweep.at for sweep in self._sweeps.values())]
        if not self._is_recovering:
            times.append(self._recovery_at)
        if not self._is_watching and self._deadlines:
            times.append(self._visit.at)
        return None if min(times) == math.inf else max(0.0, min(times) - time.monotonic())

    def _act(self) -> None:
        """Start all work that is due. It is due again only when its result is known."""
        now = time.monotonic()
        if self._recovery_at <= now and not self._is_recovering:
            self._recovery_at = math.inf
            self._is_recovering = True
            start_thread(self._recover, None)
        for container in [container for container, at in self._deadlines.items() if at <= now]:
            self._deadlines[container] = math.inf
            start_thread(self._enforce, container)
        for session in [session for session, sweep in self._sweeps.items() if sweep.at <= now]:
            self._sweeps[session].at = math.inf
            start_thread(self._sweep, session)
        if not self._is_watching and not self._sweeps and self._deadlines and self._visit.at <= now:
            self._visit.later()
            for container in self._deadlines:
                start_thread(self._look_for, container)

    def _recover(self, _: object) -> None:
        evidence = gather_evidence(self._identity, self._records, self._address["url"], self._request)
        found = self._try(partial(recover, evidence=evidence, unused=self._unused, on_idle=self._postpone))
        self._events.put(("recovered", {"found": found}))

    def _sweep(self, session: str) -> None:
        found = self._try(partial(self._remove_session, session))
        self._events.put(("swept", {"session": session, "found": found}))

    def _remove_session(self, session: str, request: Request) -> list[str]:
        """Remove what a dead session made, and what it alone held; return the ids."""
        ids = remove_sessions(request, [session], self._records)
        for hold in list(self._holds.get(session, ())):
            seconds, removed = release(
                request, self._records, hold, session=session, boot=boot_of(self._identity)
            )
            ids += removed
            if seconds:
                self._postpone(hold, seconds)
        return ids

    def _postpone(self, hold: Hold, seconds: float) -> None:
        self._events.put(("idle", {**hold._asdict(), "seconds": seconds}))

    def _enforce_idle(self, hold: Hold) -> None:
        """
        Remove a container that no session has held for long enough.

        If a session holds it, this reaper leaves it to that session.
        """
        outcome = self._try(partial(release, records=self._records, hold=hold, boot=boot_of(self._identity)))
        if outcome is None:
            self._events.put(("failed", {"container": hold.key}))
        elif outcome[0]:
            self._events.put(("postponed", {"container": hold.key, "seconds": outcome[0]}))
        else:
            self._events.put(("gone", {"container": hold.key}))

    def _enforce(self, container: str) -> None:
        """
        Remove a container whose time is up.

        It stays if another process has extended its deadline, or if the user keeps it.
        """
        if hold := self._idle.get(container):
            self._enforce_idle(hold)
            return
        left = self._records.seconds_left(container, boot_of(self._identity))
        if left > 0:
            self._events.put(("postponed", {"container": container, "seconds": left}))
        elif self._records.is_kept({"Id": container}):
            self._events.put(("gone", {"container": container}))
        else:
            if container not in self._retries:
                self._write_log(f"the deadline of container {container[:12]} has passed")
            is_gone = self._try(partial(remove, kind="containers", thing=container))
            self._events.put(("gone" if is_gone else "failed", {"container": container}))

    def _look_for(self, container: str) -> None:
        """
        Forget a container's deadline if the container no longer exists.

        After the user's process has ended, the reaper only stays for deadlines of containers that exist.
        """
        if hold := self._idle.get(container):
            if (
                self._try(lambda request: list_labelled(request, "containers", f"{hold.label}={hold.key}"))
                == []
            ):
                self._events.put(("gone", {"container": container}))
            return
        answer = self._try(lambda request: request("GET", f"/containers/{container}/json", None))
        if answer and answer[0] == 404:
            self._events.put(("gone", {"container": container}))

    def _try(self, act: Callable[[Request], Any]) -> Any:
        """
        Call *act* with the engine's request function; return `None` if it fails.

        The caller tries again.
        """
        try:
            result = act(self._request)
        except Exception as error:  # noqa: BLE001 - no caller is left to catch it
            self._report_trouble(error)
            return None
        self._answered_at = time.monotonic()
        self._trouble = ""
        if isinstance(result, list) and result:
            self._write_log(f"removed {', '.join(map(short, result))}")
        return result

    def _report_trouble(self, error: Exception) -> None:
        """
        Log a failure once, however often it is repeated.

        A refused login is also reported to the user's process.
        """
        text = f"{type(error).__name__}: {error}"
        if text == self._trouble:
            return
        self._trouble = text
        self._write_log(f"{text}; trying again")
        if isinstance(error, ListError) and error.is_login_refused and self._is_watching:
            send({"trouble": str(error)})

    def _write_log(self, text: str) -> None:
        if self._log_file:
            with contextlib.suppress(OSError), Path(self._log_file).open("a", encoding="utf-8") as file:
                file.write(f"{strftime('%Y-%m-%d %H:%M:%S')} reaper {os.getpid()}: {text}\n")


def send(answer: dict[str, Any]) -> None:
    """Send a line to the user's process, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def ignored_signals() -> set[signal.Signals]:
    """
    Return the signals that the reaper ignores.

    They would end or stop it. Signals that cannot be ignored and signals of a crash are excluded.
    """
    names = (  # noqa: SIM905 - a list would take eighteen lines
        "SIGTERM SIGHUP SIGINT SIGQUIT SIGPIPE SIGALRM SIGUSR1 SIGUSR2 SIGVTALRM SIGPROF SIGIO SIGPWR SIGTTIN SIGTTOU "
        "SIGTSTP SIGXCPU SIGXFSZ SIGBREAK"
    ).split()
    return {getattr(signal, name) for name in names if hasattr(signal, name)}


def run(process: int) -> None:
    """Run as the reaper of *process*, the parent process, until no work is left."""
    for number in ignored_signals():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # They were blocked until now; see `reaper_client`.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored_signals())
    watched = WatchedProcess(process)
    if hasattr(os, "fork") and (child := os.fork()):
        # The system's first process waits for the child, unless that is the user's process; see `reaper_client`.
        send({"process": child})
        os._exit(0)
    try:
        Reaper(watched).run()
    except Exception as error:
        send({"trouble": f"it failed with {type(error).__name__}: {error}"})
        raise


def run_in_fork(connection: int) -> None:
    """
    Fork this process into a reaper that reads from *connection*.

    This is for frozen programs, which have no Python interpreter to start.

    The reaper shares nothing with the user's program but memory that is not used again. It inherits no descriptor but
    *connection*, runs no exit handler and no finalizer, and has imported all that it needs, since another thread may
    have held an import lock at the fork, and the files of a frozen program may be gone when it ends.
    """
    import http.client
    import ssl
    import warnings

    _loaded = http.client, ssl
    watched = os.getpid()
    copy = os.dup(connection)  # The child's fork handlers close the one that its parent uses.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside other threads: it is meant
            child = os.fork()
        if not child:
            _run_forked(copy, watched)
    finally:
        os.close(copy)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def _run_forked(connection: int, watched: int) -> NoReturn:
    import gc

    try:
        gc.disable()
        signal.set_wakeup_fd(-1)
        os.setsid()
        os.chdir("/")
        os.dup2(connection, 0)
        os.dup2(connection, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        run(watched)
    finally:
        os._exit(0)


if __name__ == "__main__":
    run(int(sys.argv[1]))
