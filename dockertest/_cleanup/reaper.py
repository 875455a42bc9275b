"""
The process that outlives this one and removes what it made. Standard library alone, and run as a file of its own.

A pool starts it, detached, before it makes the first thing, and holds the writing end of its standard input. JSON
lines come through it: which engine, which sessions, which deadlines. When the writing process is gone, however it went,
the pipe ends, and what its sessions made is removed. It never contacts anything but the engine it was told.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    import http.client
    import ssl

MANAGED = "dockertest.managed"
SESSION = "dockertest.session"
IDENTITY = "dockertest.identity"
EXPIRES = "dockertest.expires"
REUSE = "dockertest.reuse"

LOOK_AGAIN = 15.0  # seconds in which a busy engine may still finish a creation whose client is dead
QUIET = 1.0  # seconds in which a session that begins has the engine and the processors to itself
GIVE_UP = 120.0  # after so many it is left alone
SILENCE = 30.0  # seconds that one request may take
Request = Callable[[str, str, Any], tuple[int, Any]]


class Engine:
    """The engine, by HTTP over a unix socket, TCP, TLS, or a command such as ssh."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._url = urlsplit(said["url"])
        self._dial: list[str] = said.get("dial") or []
        path = self._url.path if self._url.scheme in ("http", "https") else ""  # a socket's is a file
        self._prefix = f"{path}/v{said['api']}"
        self._headers = {"Content-Type": "application/json", **(said.get("headers") or {})}
        self._tls = _tls(said) if self._url.scheme == "https" else None

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request, and give status and answer."""
        with contextlib.closing(self._connect()) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, self._prefix + path, sent, self._headers)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text[:1] in (b"{", b"[") else None

    def _connect(self) -> http.client.HTTPConnection:
        import http.client  # takes as long as all the rest, and is not needed while the user waits

        if self._url.scheme in ("http", "https"):
            at = self._url.hostname or "localhost", self._url.port or (2376 if self._tls else 2375)
            if self._tls:
                return http.client.HTTPSConnection(*at, timeout=SILENCE, context=self._tls)
            return http.client.HTTPConnection(*at, timeout=SILENCE)
        connection = http.client.HTTPConnection("localhost", timeout=SILENCE)
        connection.sock = _dialled(self._dial) if self._dial else socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SILENCE)
        if not self._dial:
            connection.sock.connect(self._url.path)
        return connection


def _tls(said: dict[str, Any]) -> ssl.SSLContext:
    """Read the certificates, at once: their folder need not last."""
    import ssl

    context = ssl.create_default_context(cafile=said.get("ca"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as everybody else who talks to engines
    if not said["verify"]:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if said.get("cert"):
        context.load_cert_chain(said["cert"], said.get("key"))
    return context


def _dialled(command: list[str]) -> socket.socket:
    """Give a socket whose other end is a command's standard input and output; the command ends with it."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # an earlier one
    near, far = socket.socketpair()
    with far:
        ends = [(os.POSIX_SPAWN_DUP2, far.fileno(), each) for each in (0, 1)]
        os.posix_spawn(command[0], command, os.environ, file_actions=ends)
    return near


def listed(request: Request, kind: str, label: str) -> list[dict[str, Any]]:
    """List the containers or networks that have a label."""
    filters = quote(json.dumps({"label": [label]}))
    asked = "containers/json?all=1&" if kind == "containers" else "networks?"
    status, answer = request("GET", f"/{asked}filters={filters}", None)
    if status != 200 or not isinstance(answer, list):
        raise OSError(f"the engine answered {status} to a list of {kind}")
    return answer


def remove(request: Request, kind: str, thing: str) -> bool:
    """Remove one container, or one network after all that is attached to it; say whether it is gone."""
    path = f"/{kind}/{quote(thing, safe='')}"
    if kind == "containers":
        request("POST", f"{path}/kill", None)  # Podman 5 would wait for 10 s before it does so itself
    else:
        _, network = request("GET", path, None)
        for container in (network or {}).get("Containers") or {}:
            request("POST", f"{path}/disconnect", {"Container": container, "Force": True})
    status, _ = request("DELETE", path if kind == "networks" else f"{path}?force=1&v=1", None)
    return status < 300 or status == 404


def outlives_its_session(thing: dict[str, Any]) -> bool:
    """Whether it is a container to be reused; one that was never started is of no use to anybody."""
    return REUSE in (thing.get("Labels") or {}) and thing.get("State") != "created"


def remove_all(request: Request, sessions: Iterable[str]) -> list[str]:
    """Remove what these sessions made, containers side by side and then networks; give what there was."""
    found: list[str] = []
    labels = [f"{SESSION}={session}" for session in sessions]
    for kind in ("containers", "networks"):
        there = [each for label in labels for each in listed(request, kind, label)]
        things = [each["Id"] for each in there if not outlives_its_session(each)]
        remove_side_by_side(request, kind, things)
        found += things
    return found


def remove_side_by_side(request: Request, kind: str, things: list[str]) -> None:
    """Remove things at the same time; one that fails is tried again by whoever finds it in the next list."""
    for thread in [aside(partial(remove, request, kind), thing) for thing in things]:
        if thread.ident:
            thread.join()


def aside(act: Callable[[Any], object], about: Any) -> threading.Thread:
    """Do something in a thread of its own, which says nothing of what fails."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            act(about)

    thread = threading.Thread(target=quietly, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # none can be started while an interpreter ends, or where there are too many
        quietly()
    return thread


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether it is the complete set of our labels: only then they count."""
    is_named = labels.get(SESSION, "").isalnum() and labels.get(IDENTITY, "").count(".") == 3
    return is_named and labels.get(MANAGED) == "true"


def time_is_up(labels: Mapping[str, str]) -> bool:
    """Whether the time written on a thing is over; its session may well live, and make others."""
    expires = labels.get(EXPIRES, "")
    return is_ours(labels) and expires.isdecimal() and float(expires) < time.time()


def is_dead(labels: Mapping[str, str], identity: str, state: Path, *, local: bool) -> bool:
    """
    Whether the session that these labels name is provably over: its process is gone, or the machine was started anew.

    Names and ages say nothing, and when unknown, nothing is touched.
    """
    if not is_ours(labels):
        return False
    theirs = labels[IDENTITY]
    lock = state / f"{labels[SESSION]}.lock"
    return (theirs == identity and _lock_is_free(lock)) or (local and _of_an_earlier_boot(theirs, identity))


def recover(request: Request, identity: str, state: Path, *, local: bool, reused: bool = False) -> list[str]:
    """Remove what dead sessions left, and what is to be reused if its time is up or *reused* says so; give the ids."""
    there = {kind: listed(request, kind, MANAGED) for kind in ("containers", "networks")}
    every = [each.get("Labels") or {} for things in there.values() for each in things]
    dead = {labels[SESSION] for labels in every if is_dead(labels, identity, state, local=local)}
    found = remove_all(request, dead)
    for kind, things in there.items():
        over = [each["Id"] for each in things if each["Id"] not in found and _is_over(each, identity, reused)]
        remove_side_by_side(request, kind, over)
        found += over
    for session in dead:
        with contextlib.suppress(OSError):
            (state / f"{session}.lock").unlink()
    return found


def _is_over(thing: dict[str, Any], identity: str, reused: bool) -> bool:
    """Whether a thing may go: its time is up, or it is reused and the user on whose machine it was started says so."""
    labels = thing.get("Labels") or {}
    if not (reused and is_ours(labels) and outlives_its_session(thing)):
        return time_is_up(labels)
    return bool(labels[IDENTITY].split(".")[:2] == identity.split(".")[:2]) or time_is_up(labels)


def _of_an_earlier_boot(theirs: str, ours: str) -> bool:
    """Whether an identity is of this machine and user, but of another boot; of an unknown one nothing is known."""
    *their_machine, their_boot, _ = theirs.split(".")
    *our_machine, our_boot, _ = ours.split(".")
    return bool(our_boot and their_boot) and their_machine == our_machine and their_boot != our_boot


def write_deadline(state: Path, container: str, seconds: float | None) -> None:
    """
    Write down in how many *seconds* a container's time is up, `None` for never.

    A container may be held by several processes, each with a reaper of its own: what was said last counts for all.
    """
    with contextlib.suppress(OSError):  # then each reaper knows only what it was told itself
        fresh = state / f"{container}.{os.getpid()}"
        fresh.write_text(str(math.inf if seconds is None else time.monotonic() + seconds), encoding="ascii")
        fresh.replace(_deadline(state, container))


def forget_deadline(state: Path, container: str) -> None:
    """Forget what was written down of a container that is gone."""
    with contextlib.suppress(OSError):
        _deadline(state, container).unlink()


def _left(state: Path, container: str) -> float:
    """Give the seconds that a container has left, going by what is written down."""
    try:
        return float(_deadline(state, container).read_text(encoding="ascii")) - time.monotonic()
    except (OSError, ValueError):
        return 0.0


def _deadline(state: Path, container: str) -> Path:
    return state / f"{container}.deadline"


def _lock_is_free(path: Path) -> bool:
    """Whether nobody holds the lock of a session; a lock that is not there says nothing."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (OSError, ImportError):
        return False


class Reaper:
    """
    What is known of the process that is watched, and what is to be done.

    The loop never waits for the engine, which may be frozen, or stuck on one container: whatever asks it does so in a
    thread of its own, and what came of it is heard like what that process says.
    """

    def __init__(self) -> None:
        self._request: Request = lambda *_: (503, None)
        self._state, self._log = Path(), ""
        self._recover: Callable[[Request], list[str]] = lambda _request: []
        self._recovery = threading.Thread()
        self._recover_at = math.inf
        self._heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self._alive = True
        self._sessions: set[str] = set()
        self._deadlines: dict[str, float] = {}  # by container
        self._looks: dict[str, tuple[float, float]] = {}  # by dead session: since when, and when next
        self._visited = -math.inf

    def run(self) -> None:
        """Listen until the pipe ends, enforce deadlines meanwhile; then remove what is left, and end."""
        threading.Thread(target=self._listen, daemon=True).start()
        while self._alive or self._looks or self._deadlines:
            with contextlib.suppress(queue.Empty):
                self._hear(self._heard.get(timeout=self._pause()))
            self._act()
        if self._recovery.is_alive():
            self._recovery.join()

    def _listen(self) -> None:
        try:
            for line in sys.stdin.buffer:
                self._heard.put(json.loads(line))
        finally:
            self._heard.put({"over": True})

    def _hear(self, said: dict[str, Any]) -> None:
        if "engine" in said:
            self._request = Engine(said["engine"]).request
            self._state, self._log = Path(said["state"]), said["log"]
            mine, local = said["identity"], said["local"]
            self._recover = lambda request: recover(request, mine, self._state, local=local)
        elif "begin" in said:
            self._sessions.add(said["begin"])
            if not self._recovery.is_alive():  # one that is under way does for this session, too
                self._recover_at = min(self._recover_at, time.monotonic() + QUIET)
        elif "end" in said:
            self._sessions.discard(said["end"])
        elif "dead" in said:
            self._sessions.discard(said["dead"])
            self._looks[said["dead"]] = (time.monotonic(), 0.0)
        elif "looked" in said:
            self._looked(**said)
        elif "over" in said:
            self._alive = False
            self._say("the process that was watched is gone or done")
            self._looks |= dict.fromkeys(self._sessions, (time.monotonic(), 0.0))
            self._recover_at = self._recover_at if self._recover_at == math.inf else 0.0
        elif said["in"] is None:
            self._deadlines.pop(said["expire"], None)
        else:
            self._deadlines[said["expire"]] = time.monotonic() + said["in"]

    def _pause(self) -> float:
        """Give the seconds until there is something to do; once a minute see whether there still is."""
        due = [self._recover_at, *self._deadlines.values(), *(when for _, when in self._looks.values())]
        return min(60.0, max(0.0, min(due) - time.monotonic()))

    def _act(self) -> None:
        """Begin what is due; nothing is due again before it is known what came of it."""
        now = time.monotonic()
        if self._recover_at <= now:
            self._recover_at = math.inf
            self._recovery = aside(self._try, self._recover)
        for container in [each for each, when in self._deadlines.items() if when <= now]:
            self._deadlines[container] = math.inf
            aside(self._enforce, container)
        for session in [each for each, (_, when) in self._looks.items() if when <= now]:
            self._looks[session] = (self._looks[session][0], math.inf)
            aside(self._look, session)
        if not self._alive and not self._looks and now >= self._visited + 1:
            self._visited = now
            for container in self._deadlines:  # it outlives the process: stay for it, as long as it is there
                aside(self._visit, container)

    def _enforce(self, container: str) -> None:
        left = _left(self._state, container)
        if left <= 0:
            self._say(f"the time of container {container[:12]} is up")
            left = math.inf if self._try(partial(remove, kind="containers", thing=container)) else 1.0
            if left == math.inf:
                forget_deadline(self._state, container)
        self._heard.put({"expire": container, "in": None if left == math.inf else left})

    def _look(self, session: str) -> None:
        self._heard.put({"looked": session, "found": self._try(partial(remove_all, sessions=[session]))})

    def _visit(self, container: str) -> None:
        answer = self._try(lambda request: request("GET", f"/containers/{container}/json", None))
        if answer and answer[0] == 404:
            forget_deadline(self._state, container)
            self._heard.put({"expire": container, "in": None})

    def _looked(self, looked: str, found: list[str] | None) -> None:
        """Look again for what a dead session left, since an engine may still be finishing what it was asked for."""
        since, _ = self._looks.pop(looked)
        waited = time.monotonic() - since
        if found == [] and waited >= LOOK_AGAIN:
            with contextlib.suppress(OSError):
                (self._state / f"{looked}.lock").unlink()
        elif waited < GIVE_UP:
            self._looks[looked] = (since, time.monotonic() + min(1.0, 0.1 + waited / 4))

    def _try(self, act: Callable[[Request], Any]) -> Any:
        """Do something with the engine; `None` if it failed, which is written down and tried again by the caller."""
        try:
            done = act(self._request)
        except Exception as error:  # noqa: BLE001 - nobody is left to catch it, and what is left is tried again
            self._say(f"{type(error).__name__}: {error}")
            return None
        if isinstance(done, list) and done:
            self._say(f"removed {', '.join(each[:12] for each in done)}")
        return done

    def _say(self, text: str) -> None:
        if self._log:
            with contextlib.suppress(OSError), Path(self._log).open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} reaper {os.getpid()}: {text}\n")


def main() -> None:
    """Detach for good, so that nothing that ends the watched process ends this one, and run."""
    if hasattr(os, "fork") and os.fork():
        os._exit(0)
    Reaper().run()


if __name__ == "__main__":
    main()
