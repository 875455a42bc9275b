"""
Relay TCP connections to another address, with faults on demand.

The relay listens on a port of this process. One thread serves all connections of a relay. A second one runs for a
moment when connections arrive: it finds out where they go, which may need the engine, and serves all that have arrived
meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import struct
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any

from dockertest import _clock
from dockertest._concurrency import start_thread
from dockertest.errors import EngineError

log = logging.getLogger("dockertest")

Address = tuple[str, int]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
CHUNK_BYTES = 1 << 16
QUEUED_BYTES = 1 << 18  # Beyond this, a sender is made to wait.
DELAYED_BYTES = 1 << 22  # A delay keeps more in flight.
BURST_SECONDS = 0.02  # A limited stream sends what this time allows, then pauses.
FULL_SECONDS = 0.1  # before connections are accepted again when there are no descriptors left
_RESET_ON_CLOSE = struct.pack("ii", 1, 0) if os.name != "nt" else struct.pack("hh", 1, 0)
_IP_FREEBIND = 15  # ip(7); the socket module does not have it
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Mode(Enum):
    """What a relay does with connections."""

    OPEN = "open"
    FROZEN = "frozen"  # They are accepted, but nothing is transferred.
    CUT = "cut"  # They are reset, and new ones are refused.


@dataclass(frozen=True, slots=True)
class Faults:
    """
    What a relay does to the traffic.

    Attributes:
        delay: Seconds by which everything that comes from the target is late.
        rate: Bytes per second in each direction of each connection; 0 for no limit.
    """

    mode: Mode = Mode.OPEN
    delay: float = 0.0
    rate: float = 0.0


class _Mark(Enum):
    """The end of a stream, in its queue, so that it stays behind the data."""

    END = "end"
    RESET = "reset"


class _Stream:
    """One direction of a connection."""

    __slots__ = (
        "connection",
        "free_at",
        "has_ended",
        "is_blocked",
        "is_finished",
        "queue",
        "size",
        "source",
        "target",
    )

    def __init__(self, connection: _Connection, source: socket.socket, target: socket.socket) -> None:
        self.connection = connection
        self.source = source
        self.target = target
        self.queue: deque[tuple[float, memoryview | _Mark]] = deque()  # with the time of arrival
        self.size = 0  # bytes in the queue
        self.free_at = 0.0  # when a limited stream may send more
        self.has_ended = False  # The source sends no more.
        self.is_blocked = False  # The target's buffer is full.
        self.is_finished = False  # The target was sent everything, its end included.


class _Connection:
    """One client, and the server that it is connected to."""

    __slots__ = ("addresses", "client", "down", "is_broken", "is_closed", "peer", "server", "up")

    def __init__(self, client: socket.socket, peer: str) -> None:
        self.client = client
        self.peer = peer
        self.server: socket.socket | None = None
        self.addresses: list[tuple[Any, ...]] = []  # those left to try, as getaddrinfo returns them
        self.up: _Stream | None = None  # from client to server; there once they are connected
        self.down: _Stream | None = None
        self.is_broken = False  # One side does not accept any more.
        self.is_closed = False


class Relay:
    """
    A listening socket, its connections, and the thread that serves them.

    In a forked child all of it is closed, so that only the parent decides about the connections.

    Attributes:
        address: The host and port that it listens on.
    """

    def __init__(
        self,
        host: str,
        find_target: Callable[[], Address],
        find_peers: Callable[[], Collection[str]] | None = None,
        *,
        port: int = 0,
        is_future: bool = False,
    ) -> None:
        """
        Listen.

        Args:
            host: The IP address to listen on.
            find_target: Called in a thread for new connections; returns where they go, or raises an exception, so that
                they are reset.
            find_peers: Called before *find_target*; returns the IP addresses that are served. All others are reset.
            port: The port to listen on; 0 for a free one.
            is_future: Whether this machine may get the address later only; for Linux.

        Raises:
            EngineError: There are no descriptors or threads left.
            OSError: This machine does not have that address, or the port is in use.
        """
        self._find_target = find_target
        self._find_peers = find_peers
        self._is_future = is_future
        self._faults = Faults()
        self._connections: set[_Connection] = set()
        self._unrouted: list[_Connection] = []
        self._is_routing = False
        self._events: dict[socket.socket, int] = {}  # what the selector waits for
        self._timers: dict[_Stream | None, float] = {}  # when to look at a stream, or at the listener, again
        self._commands: deque[Callable[[], None]] = deque()
        self._is_closed = False
        self._pid = os.getpid()
        self._lock = (
            threading.Lock()
        )  # held while connections change, so that a forked child knows all of them
        self._sockets: list[socket.socket] = []
        try:
            self._open(host, port)
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError) and error.errno in _FULL:
                raise EngineError(
                    f"cannot open a proxy: {(error.strerror or '').lower()}",
                    hint="close files or sockets, or raise the limit (ulimit -n)",
                    reason="files",
                ) from error
            raise

    def _open(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # A socket that is bound but does not listen reserves the port while connections are refused.
        self._reservation = self._bound(family, (host, port))
        self.address: Address = self._reservation.getsockname()[:2]
        self._family = family
        self._wakeup, self._waker = socket.socketpair()
        self._sockets += [self._wakeup, self._waker]
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakeup, READ)
        self._listener: socket.socket | None = None
        self._listen()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_weak(self._lock_for_fork),
                after_in_parent=_weak(self._unlock_after_fork),
                after_in_child=_weak(self._leave_to_parent),
            )
        thread = start_thread(self._serve, "dockertest-relay")
        if thread is None:
            raise EngineError(
                "cannot open a proxy: no thread can be started",
                hint="end some threads, or raise the limit (ulimit -u)",
            )
        self._thread = thread

    # Called by other threads

    @property
    def is_closed(self) -> bool:
        """Whether this process cannot use it any more."""
        return self._is_closed or self._pid != os.getpid()

    @property
    def faults(self) -> Faults:
        """What is done to the traffic now."""
        return self._faults

    def change_faults(self, **changes: Any) -> None:
        """
        Change some fields of `Faults`, also for the connections that exist.

        The change is complete when this returns.

        Raises:
            OSError: The port cannot be listened on again after a cut.
        """
        self._call(lambda: self._apply(replace(self._faults, **changes)))

    def close(self) -> None:
        """Reset all connections and stop listening; closing twice does nothing."""
        if not self.is_closed:
            self._call(self._close)
            self._thread.join()

    def _call(self, act: Callable[[], None]) -> None:
        """Run *act* in the relay's thread, and raise its exception in this one."""
        done = threading.Event()
        failures: list[Exception] = []

        def command() -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread
                failures.append(error)
            finally:
                done.set()

        self._post(command)
        while not done.wait(1.0) and self._thread.is_alive():
            pass
        if failures:
            raise failures[0]

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        with suppress(
            OSError
        ):  # The buffer is full, so that the thread wakes up anyway; or the relay is closed.
            self._waker.send(b"\0")

    # The thread

    def _serve(self) -> None:
        while not self._is_closed:
            ready = self._selector.select(self._pause())
            with self._lock:
                for key, events in ready:
                    if key.fileobj is self._wakeup:
                        self._obey()
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif (
                        key.data is not None and not key.data.is_closed
                    ):  # else a listener that is closed by now
                        self._guarded(key.data, partial(self._progress, key.data, key.fileobj, events))
                self._run_timers()
                self._route_new()

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass
        while self._commands:
            self._commands.popleft()()
            if self._is_closed:
                return

    def _pause(self) -> float | None:
        return max(0.0, min(self._timers.values()) - _clock.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = _clock.monotonic()
        for stream in [stream for stream, at in self._timers.items() if at <= now]:
            if self._timers.pop(stream, None) is None:  # Another one has closed its connection.
                continue
            if stream is None:
                self._watch(self._listener, READ)
            else:
                self._guarded(stream.connection, partial(self._push, stream))

    def _guarded(self, connection: _Connection, act: Callable[[], None]) -> None:
        """Serve one connection; a failure ends that one alone."""
        try:
            act()
            if not connection.is_closed:
                self._watch_connection(connection)
        except Exception as error:  # noqa: BLE001 - the other connections continue
            log.debug("a connection through %s:%s failed: %s", *self.address, error)
            self._reset(connection)

    # Faults

    def _apply(self, faults: Faults) -> None:
        self._faults = faults
        if faults.mode is Mode.CUT:
            self._stop_listening()
            for connection in list(self._connections):
                self._reset(connection)
        elif self._listener is None:
            self._listen()
        for connection in list(self._connections):
            if connection.up and connection.down:
                for stream in (connection.up, connection.down):
                    self._guarded(connection, partial(self._push, stream))
            elif connection.server:
                self._watch_connection(connection)

    def _close(self) -> None:
        self._stop_listening()
        for connection in list(self._connections):
            self._reset(connection)
        self._is_closed = True
        self._selector.close()
        for one in self._sockets:
            one.close()

    def _abandon(self) -> None:
        """
        Close this process's copies of the sockets without ending the connections.

        The connections are not shut down, since they belong to the parent process.
        """
        self._is_closed = True
        copies = [*self._sockets, getattr(self, "_listener", None), getattr(self, "_selector", None)]
        for connection in list(self._connections):
            copies += [connection.client, connection.server]
        for copy in copies:
            if copy is not None:
                with suppress(OSError):
                    copy.close()
        self._connections.clear()

    def _lock_for_fork(self) -> None:
        self._lock.acquire()

    def _unlock_after_fork(self) -> None:
        self._lock.release()

    def _leave_to_parent(self) -> None:
        self._lock = threading.Lock()  # The thread that forked holds the old one.
        self._abandon()

    # New connections

    def _bound(self, family: int, address: Address) -> socket.socket:
        bound = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(bound)
        if os.name != "nt":  # There, this option would let other programs take the port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform != "linux" and hasattr(socket, "SO_REUSEPORT"):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self._is_future:
            bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # It also holds for IPv6.
        bound.bind(address)
        return bound

    def _listen(self) -> None:
        if os.name == "nt":
            self._sockets.remove(self._reservation)
            self._reservation.close()
        self._listener = self._bound(self._family, self.address)
        self._listener.setblocking(False)
        self._listener.listen(1024)
        self._watch(self._listener, READ)

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._timers.pop(None, None)
        self._watch(self._listener, 0)
        self._sockets.remove(self._listener)
        self._listener.close()
        self._listener = None
        if os.name == "nt":
            self._reservation = self._bound(self._family, self.address)

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                client, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._watch(self._listener, 0)
                    self._timers[None] = _clock.monotonic() + FULL_SECONDS
                    return
                continue  # The client is gone already.
            except Exception as error:  # noqa: BLE001 - such as from a tool that blocks sockets
                log.debug("%s:%s cannot accept a connection: %s", *self.address, error)
                return
            client.setblocking(False)
            connection = _Connection(client, peer[0])
            self._connections.add(connection)
            self._unrouted.append(connection)

    def _route_new(self) -> None:
        """Find out in a thread where the connections go that have arrived."""
        if not self._unrouted or self._is_routing or self._faults.mode is not Mode.OPEN:
            return
        batch, self._unrouted = self._unrouted, []
        self._is_routing = True
        if start_thread(partial(self._route, batch), "dockertest-relay-route") is None:
            self._connect_all(batch, None, [])

    def _route(self, batch: list[_Connection]) -> None:
        peers: Collection[str] | None = None
        addresses: list[tuple[Any, ...]] = []
        try:
            peers = None if self._find_peers is None else self._find_peers()
            addresses = _resolve(*self._find_target())
        except Exception as error:  # noqa: BLE001 - the client sees a reset
            log.debug("%s:%s resets %d connections: %s", *self.address, len(batch), error)
        self._post(partial(self._connect_all, batch, peers, addresses))

    def _connect_all(
        self, batch: list[_Connection], peers: Collection[str] | None, addresses: list[tuple[Any, ...]]
    ) -> None:
        self._is_routing = False
        for connection in batch:
            if connection.is_closed:
                continue
            if not addresses or (peers is not None and connection.peer not in peers):
                self._reset(connection)
                continue
            connection.addresses = list(addresses)
            self._guarded(connection, partial(self._connect, connection))

    def _connect(self, connection: _Connection) -> None:
        """Begin to connect to the next address; reset the client if there is none."""
        while connection.addresses:
            family, kind, protocol, _, address = connection.addresses.pop(0)
            connection.server = server = socket.socket(family, kind, protocol)
            server.setblocking(False)
            if server.connect_ex(address) in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN):
                return
            server.close()
        connection.server = None
        self._reset(connection)

    def _finish_connect(self, connection: _Connection, server: socket.socket) -> None:
        if server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._watch(server, 0)
            server.close()
            self._connect(connection)
            return
        for side in (connection.client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.up = _Stream(connection, connection.client, server)
        connection.down = _Stream(connection, server, connection.client)

    # Connections

    def _progress(self, connection: _Connection, ready: Any, events: int) -> None:
        up, down = connection.up, connection.down
        if up is None or down is None:
            self._finish_connect(connection, ready)
            return
        incoming, outgoing = (up, down) if ready is connection.client else (down, up)
        if events & WRITE:
            outgoing.is_blocked = False
            self._push(outgoing)
        if events & READ and not connection.is_closed:
            self._receive(incoming)
            self._push(incoming)

    def _receive(self, stream: _Stream) -> None:
        now = _clock.monotonic()
        try:
            data = stream.source.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            stream.has_ended = True
            stream.queue.append((now, _Mark.RESET))
            return
        if data:
            stream.queue.append((now, memoryview(data)))
            stream.size += len(data)
        else:
            stream.has_ended = True
            stream.queue.append((now, _Mark.RESET if stream.connection.is_broken else _Mark.END))

    def _push(self, stream: _Stream) -> None:
        """Send the data that is due, and set a timer for the rest."""
        self._timers.pop(stream, None)
        faults, connection = self._faults, stream.connection
        delay = faults.delay if stream is connection.down else 0.0
        while (
            stream.queue and not connection.is_closed and not stream.is_blocked and faults.mode is Mode.OPEN
        ):
            arrival, item = stream.queue[0]
            due = max(arrival + delay, stream.free_at if faults.rate else 0.0)
            if due > _clock.monotonic():
                self._timers[stream] = due
                return
            if isinstance(item, _Mark):
                self._finish(stream, item)
            else:
                self._send(stream, arrival, item)

    def _send(self, stream: _Stream, arrival: float, data: memoryview) -> None:
        rate = self._faults.rate
        burst = data[: max(1, int(rate * BURST_SECONDS))] if rate else data
        try:
            sent = stream.target.send(burst)
        except BlockingIOError:
            stream.is_blocked = True
            return
        except OSError:
            self._break(stream)
            return
        if rate:
            now = _clock.monotonic()
            stream.free_at = max(stream.free_at, now - BURST_SECONDS) + sent / rate
        stream.size -= sent
        if sent == len(data):
            stream.queue.popleft()
        else:
            stream.queue[0] = (arrival, data[sent:])

    def _break(self, stream: _Stream) -> None:
        """
        Record that the target accepts no more data.

        Data that the target has sent before is still passed on.
        """
        connection = stream.connection
        stream.queue.clear()
        stream.size = 0
        stream.has_ended = stream.is_finished = connection.is_broken = True
        opposite = connection.down if stream is connection.up else connection.up
        if opposite is None or opposite.is_finished:
            self._reset(connection)

    def _finish(self, stream: _Stream, mark: _Mark) -> None:
        """Pass on the end of a stream."""
        connection = stream.connection
        stream.queue.clear()
        if mark is _Mark.RESET or connection.is_broken:
            self._reset(connection)
            return
        stream.is_finished = True
        opposite = connection.down if stream is connection.up else connection.up
        if opposite is not None and opposite.is_finished:
            self._discard(connection)
            return
        with suppress(OSError):  # It has ended on its own.
            stream.target.shutdown(socket.SHUT_WR)

    def _reset(self, connection: _Connection) -> None:
        for side in (connection.client, connection.server):
            if side is not None:
                with suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._discard(connection)

    def _discard(self, connection: _Connection) -> None:
        connection.is_closed = True
        self._connections.discard(connection)
        if connection in self._unrouted:
            self._unrouted.remove(connection)
        for stream in (connection.up, connection.down):
            self._timers.pop(stream, None) if stream else None
        for side in (connection.client, connection.server):
            if side is not None:
                self._watch(side, 0)
                side.close()

    # What the selector waits for

    def _watch_connection(self, connection: _Connection) -> None:
        up, down, server = connection.up, connection.down, connection.server
        is_frozen = self._faults.mode is not Mode.OPEN
        if server is None:
            return
        if up is None or down is None:
            self._watch(server, 0 if is_frozen else WRITE, connection)
            return
        limit = DELAYED_BYTES if self._faults.delay else QUEUED_BYTES
        for incoming, outgoing in ((up, down), (down, up)):
            reads = READ if not incoming.has_ended and incoming.size < limit else 0
            writes = WRITE if outgoing.is_blocked else 0
            self._watch(incoming.source, 0 if is_frozen else reads | writes, connection)

    def _watch(
        self, watched: socket.socket | None, events: int, connection: _Connection | None = None
    ) -> None:
        if watched is None:
            return
        before = self._events.get(watched, 0)
        if events == before:
            return
        if not events:
            del self._events[watched]
            self._selector.unregister(watched)
            return
        self._events[watched] = events
        if before:
            self._selector.modify(watched, events, connection)
        else:
            self._selector.register(watched, events, connection)


def _resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """
    Return the addresses of a host name, as `getaddrinfo` does.

    `localhost` has an IPv4 and an IPv6 address here, although some systems define only one of them.
    """
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    return [address for one in hosts for address in socket.getaddrinfo(one, port, type=socket.SOCK_STREAM)]


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """
    Return a function that calls *method* as long as its object exists.

    Fork hooks need this, since they cannot be removed.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if bound := reference():
            bound()

    return call
