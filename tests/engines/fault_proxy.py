"""
A proxy in front of a real engine that injects faults.

These are the faults of networks and of busy engines.
"""

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# The variable with a unix socket of the engine, if DOCKER_HOST has another kind of endpoint.
ENGINE_SOCKET = "TEST_ENGINE_SOCKET"

Fault = Callable[[socket.socket, Callable[[], socket.socket]], None]


def engine_socket() -> str:
    """Return the path of a unix socket of the engine under test."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    path = host.removeprefix("unix://") if host.startswith("unix://") else os.environ.get(ENGINE_SOCKET)
    assert path, f"{host} has no socket for a proxy; set {ENGINE_SOCKET} to one, as make test-engines does"
    return path


@dataclass
class FaultProxy:
    """
    Forwards each request to the engine, unless a fault was requested for it.

    Attributes:
        path: The proxy's own socket.
        requests: The first line of every request, such as `"POST /v1.41/containers/create HTTP/1.1"`.
        always: The fault of every request that has none of its own.
    """

    path: Path
    engine: str = field(default_factory=engine_socket)
    requests: list[str] = field(default_factory=list)
    always: Fault | None = None
    _faults: list[tuple[re.Pattern[str], Fault]] = field(default_factory=list)
    _numbered: dict[int, Fault] = field(default_factory=dict)
    _listener: socket.socket = field(init=False)
    _thread: threading.Thread = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        """The endpoint for a pool."""
        return f"unix://{self.path}"

    def next(self, pattern: str, fault: Fault) -> None:
        """Inject *fault* into the next request whose first line matches *pattern*, once."""
        with self._lock:
            self._faults.append((re.compile(pattern), fault))

    def at(self, number: int, fault: Fault) -> None:
        """Inject *fault* into the request with this number, counted from 0."""
        with self._lock:
            self._numbered[number] = fault

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """Listen until the end of the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Listen until `stop` is called."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on, as the socket of an engine does that has died."""
        with contextlib.suppress(OSError):  # It was stopped before.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def passed_on(self, head: bytes) -> bytes:
        """Return the head to forward to the engine; subclasses rewrite it."""
        return head

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = _read_head(client)
            if not head:
                return
            line = head.split(b"\r\n", 1)[0].decode()
            with self._lock:
                fault = self._numbered.pop(len(self.requests), None)
                self.requests.append(line)
                waiting = next((entry for entry in self._faults if entry[0].search(line)), None)
                if waiting and not fault:
                    self._faults.remove(waiting)
                    fault = waiting[1]
                fault = fault or self.always

            def forward() -> socket.socket:
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(self.engine)
                upstream.sendall(_one_request(self.passed_on(head)))
                return upstream

            if fault:
                fault(client, forward)
            else:
                relay(client, forward())


def answer(status: int, message: str) -> Fault:
    """Answer with an error instead of asking the engine."""
    return answer_json({"message": message}, status)


def answer_json(content: object, status: int = 200) -> Fault:
    """Answer with *content* instead of asking the engine."""

    def fault(client: socket.socket, _forward: Callable[[], socket.socket]) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} Fault\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)

    return fault


def refuse(_client: socket.socket, _forward: Callable[[], socket.socket]) -> None:
    """Close the connection without asking the engine."""


def freeze(client: socket.socket, _forward: Callable[[], socket.socket]) -> None:
    """Do not answer until the client closes the connection."""
    while client.recv(65536):
        pass


def swallow(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
    """
    Forward the request, and withhold the answer.

    This lasts until the client closes the connection.
    """
    with forward() as upstream:
        thread = threading.Thread(target=_carry, args=(client, upstream), daemon=True)
        thread.start()
        with contextlib.suppress(OSError):
            upstream.recv(65536)
        thread.join()


def delay(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
    """Forward the request, and delay the answer by half a second."""
    threading.Event().wait(0.5)
    relay(client, forward())


def hold_until(event: threading.Event) -> Fault:
    """Forward the request as soon as *event* is set."""

    def fault(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
        event.wait()
        relay(client, forward())

    return fault


def cut(after: int) -> Fault:
    """
    Forward the request, and close the connection early.

    It is closed after *after* bytes of the answer.
    """

    def fault(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
        with forward() as upstream:
            threading.Thread(target=_carry, args=(client, upstream), daemon=True).start()
            answered = b""
            with contextlib.suppress(OSError):
                while len(answered) < after and (data := upstream.recv(65536)):
                    answered += data
            client.sendall(answered[:after])
            client.shutdown(socket.SHUT_RDWR)

    return fault


def edit(pattern: bytes, replacement: bytes) -> Fault:
    """
    Replace matches of *pattern* in the answer by *replacement*.

    The replacement is padded with blanks to the same length.
    """

    def fault(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
        with forward() as upstream:
            threading.Thread(target=_carry, args=(client, upstream), daemon=True).start()
            answered = b""
            while data := upstream.recv(65536):
                answered += data
            client.sendall(re.sub(pattern, lambda match: replacement.ljust(len(match[0])), answered))
            client.shutdown(socket.SHUT_RDWR)

    return fault


def relay(client: socket.socket, upstream: socket.socket) -> None:
    """Copy bytes in both directions until both sides have closed theirs."""
    with upstream:
        thread = threading.Thread(target=_carry, args=(client, upstream), daemon=True)
        thread.start()
        _carry(upstream, client)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        thread.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _read_head(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(65536)
        if not data:
            return b""
        head += data
    return head


def _one_request(head: bytes) -> bytes:
    """
    Ask the engine to close the connection after its answer.

    So each connection has only one request.
    """
    if re.search(rb"\r\nUpgrade:", head, re.IGNORECASE):
        return head
    lines = re.sub(rb"\r\nConnection:[^\r]*", b"", head, flags=re.IGNORECASE)
    return lines.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
