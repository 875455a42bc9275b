"""Both directions of one connection at the same time, each with its own end. Knows sockets and TLS, not engines."""

from __future__ import annotations

import io
import os
import select
import selectors
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from typing_extensions import Self

from dockertest.errors import InvalidOptionError

CHUNK = 65536  # bytes in hand at a time, in each direction
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Reader(Protocol):
    """A binary stream to read from."""

    def read(self, size: int, /) -> bytes:
        """Give at most *size* bytes; none at the end."""
        ...


class TimeUp(Exception):
    """The time is up; a signal within the package, no error of its own."""


class Clock:
    """One deadline, *limit* seconds from now; none if that is `None`."""

    def __init__(self, limit: float | None) -> None:
        self._end = None if limit is None else time.monotonic() + limit

    def left(self) -> float | None:
        """Give the seconds that are left, `None` for ever; raise `TimeUp` when there are none."""
        left = None if self._end is None else self._end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeUp
        return left


class Duplex:
    """
    Send what a feed has and give what comes, both at once: else the two ends would wait for each other for ever.

    All of it in one thread, since a TLS connection is not for two.
    """

    def __init__(
        self,
        connection: socket.socket,
        feed: Feed,
        guard: Callable[[], AbstractContextManager[None]],
        *,
        farewell: bytes = b"",
    ) -> None:
        """
        Take over *connection*.

        Args:
            guard: Stands around each call to the system.
            farewell: Sent at the end of the feed, instead of ending the direction.
        """
        self._connection = connection
        self._connection.settimeout(0)
        self._feed = feed
        self._guard = guard
        self._farewell = farewell
        self._pending = memoryview(b"")
        self._fed = self._ended = False

    def chunks(self, early: Callable[[int], bytes | None], clock: Clock) -> Iterator[bytes]:
        """Give what comes, as it comes; first what *early* reads, which came before this took over."""
        yield self._receive(early) or b""
        while True:
            incoming, fed, outgoing = self._wait(clock.left())
            # First what comes: a connection that was reset may still have something to say.
            if incoming:
                chunk = self._receive(self._connection.recv)
                if chunk == b"":
                    return
                yield chunk or b""
            if fed:
                self._take()
            if outgoing:
                self._send()

    def _wait(self, left: float | None) -> tuple[bool, bool, bool]:
        sending = bool(self._pending) or (self._fed and not self._ended)
        # `poll` keeps nothing of a descriptor between two calls, as `_close_notify` needs it.
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as waiting:
            waiting.register(
                self._connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if sending else 0)
            )
            if not sending and not self._fed:
                waiting.register(self._feed.outlet, selectors.EVENT_READ)
            ready = {key.fileobj: events for key, events in waiting.select(left)}
        events = ready.get(self._connection, 0)
        fed = self._feed.outlet in ready
        return bool(events & selectors.EVENT_READ), fed, bool(events & selectors.EVENT_WRITE)

    def _receive(self, receive: Callable[[int], bytes | None]) -> bytes | None:
        """Give what is there; `None` if there is nothing yet, nothing at the end."""
        with self._guard():
            try:
                return receive(CHUNK)
            except _LATER:
                return None
            except (ssl.SSLZeroReturnError, ConnectionError):
                # A reset is the end, too: that of one who did not read all that was sent.
                return b""

    def _take(self) -> None:
        chunk = self._feed.take()
        self._fed = not chunk
        self._ended = bool(self._fed and self._farewell)
        self._pending = memoryview(chunk or self._farewell)

    def _send(self) -> None:
        with self._guard():
            try:
                if self._pending:
                    self._pending = self._pending[self._connection.send(self._pending) :]
                else:
                    self._ended = True
                    _end(self._connection)
            except _LATER:
                pass
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                # Nobody reads on there; what they wrote is still to come.
                self._fed = self._ended = True
                self._pending = memoryview(b"")


class Feed:
    """
    What a stream gives, as a socket that can be waited for: a thread reads the stream, since that may block.

    Attributes:
        outlet: Readable when there is something to take.
    """

    def __init__(self, stream: Reader) -> None:
        self.outlet, self._inlet = socket.socketpair()
        self._stream: Any = stream
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._pump, name="dockertest-stdin", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        failure = self._failure
        self.outlet.close()
        # Nothing ends a `read` of the user's that does not return: its thread ends when it does.
        self._thread.join(0.5)
        self._failure = None
        try:
            if failure is not None and kind is None:
                raise failure
        finally:
            del failure  # its traceback holds this frame

    def take(self) -> bytes:
        """Give the next bytes, none at the end; raise what the stream raised."""
        chunk = self.outlet.recv(CHUNK)
        if not chunk and self._failure is not None:
            raise self._failure
        return chunk

    def _pump(self) -> None:
        read = getattr(self._stream, "read1", self._stream.read)  # what is there, not all that was asked for
        with self._inlet:
            try:
                while self._await():
                    chunk = read(CHUNK)
                    if not isinstance(chunk, (bytes, bytearray, memoryview)):
                        raise InvalidOptionError(
                            f"stdin must be a binary stream: its read() gave a {type(chunk).__name__}"
                        )
                    if not chunk or not self._push(chunk):
                        return
            except BaseException as failure:  # noqa: BLE001 - raised again where the stream's owner is
                self._failure = failure

    def _push(self, chunk: bytes | bytearray | memoryview) -> bool:
        try:
            self._inlet.sendall(chunk)
        except OSError:
            return False  # nobody takes it any more
        return True

    def _await(self) -> bool:
        """Wait until the stream has something, where the system can tell; false if nobody waits for it any more."""
        raw = getattr(self._stream, "raw", self._stream)
        # Of other streams it is not known what they keep of what they have read; those may block.
        if not isinstance(raw, io.FileIO) or not hasattr(select, "poll"):
            return True
        waiting = select.poll()
        waiting.register(raw, select.POLLIN)
        waiting.register(self._inlet, select.POLLIN)
        ready = dict(waiting.poll(0)) or _buffered(self._stream, raw.fileno()) or dict(waiting.poll())
        return self._inlet.fileno() not in ready


def _buffered(stream: Any, descriptor: int) -> set[int]:
    """Give the descriptor of a pipe if its stream has already read more from it than it has given."""
    if not isinstance(stream, io.BufferedReader) or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return set()  # of files all can be read at once, and of a terminal one line is read at a time
    blocking = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        return {descriptor} if stream.peek(1) else set()
    finally:
        os.set_blocking(descriptor, blocking)


def _end(connection: socket.socket) -> None:
    """End the way out and leave the way in open."""
    if isinstance(connection, ssl.SSLSocket):
        _close_notify(connection)
    else:
        with suppress(OSError):  # the other end is gone already
            connection.shutdown(socket.SHUT_WR)


def _close_notify(connection: ssl.SSLSocket) -> None:
    """
    Tell the other end of a TLS connection that nothing more comes, and be ready to read on.

    That is what Go's `CloseWrite` does. Python's `unwrap` says it too, but wants the answer at once, and to read
    anything else meanwhile breaks the connection, with the output in flight. So it gets another socket under its
    descriptor for as long as it talks, from which nothing comes; what it said is then sent on.
    """
    if os.name == "nt":
        # Sockets are no descriptors there. Docker takes this for the end too, others may for a broken connection.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        return
    descriptor = connection.fileno()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        kept = os.dup(descriptor)
        try:
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
            try:
                with suppress(ssl.SSLWantReadError):
                    connection.unwrap()
            finally:
                os.dup2(kept, descriptor, inheritable=False)
        finally:
            os.close(kept)
        os.write(descriptor, ours.recv(CHUNK))
