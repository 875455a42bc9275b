"""Both directions of one connection at once, each with an end of its own."""

from __future__ import annotations

import io
import math
import os
import select
import selectors
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, Self

from dockertest import _clock
from dockertest._engine.streams import CHUNK_BYTES
from dockertest.errors import InvalidOptionError

_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_JOIN_SECONDS = 0.5  # to wait for the thread that reads the user's stream


class Reader(Protocol):
    """A binary stream to read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes; nothing at the end."""
        ...


class DeadlineExceeded(Exception):
    """
    A deadline has passed.

    This is used within the package only. Users get an error of their own.
    """


class Deadline:
    """A point in time *seconds* from now, or never if that is `None`."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else _clock.monotonic() + seconds

    def remaining(self) -> float | None:
        """
        Return the seconds that remain, or `None` without a limit.

        If none remain, `DeadlineExceeded` is raised.
        """
        remaining = None if self._end is None else self._end - _clock.monotonic()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded
        return remaining

    def next_check(self, interval: float) -> float | None:
        """
        Return the seconds to wait before checking whether the engine still answers.

        `None` means to wait without a limit.
        """
        remaining = self.remaining()
        seconds = interval if remaining is None else min(remaining, interval)
        return seconds if math.isfinite(seconds) else None


class Duplex:
    """
    Send the content of a feed and receive data at the same time.

    Otherwise both ends could wait for each other forever. One thread does both, since a TLS connection must not be used by
    two at once.
    """

    def __init__(
        self,
        connection: socket.socket,
        feed: Feed,
        guard: Callable[[], AbstractContextManager[None]],
        check_engine: Callable[[Deadline], None],
        *,
        end_of_input: bytes = b"",
    ) -> None:
        """
        Take over *connection*.

        Args:
            guard: A context for each use of the connection, which translates errors.
            check_engine: Called after a long silence; it raises an error if the engine does not answer.
            end_of_input: Sent at the end of the feed, instead of closing this direction.
        """
        self._connection = connection
        self._connection.settimeout(0)
        self._feed = feed
        self._guard = guard
        self._check_engine = check_engine
        self._end_of_input = end_of_input
        self._pending = memoryview(b"")
        self._is_fed = self._is_ended = False

    def chunks(
        self, early: Callable[[int], bytes | None], deadline: Deadline, check_interval: float
    ) -> Iterator[bytes]:
        """
        Yield the received bytes, beginning with those that *early* returns.

        Args:
            early: Returns the bytes that were buffered before.
            check_interval: Seconds of silence after which the engine is asked whether it still answers.
        """
        yield self._receive(early) or b""
        while True:
            can_receive, can_take, can_send = self._wait(deadline.next_check(check_interval))
            if not (can_receive or can_take or can_send):
                self._check_engine(deadline)
            # Receive first: a connection that was reset may still have unread data.
            if can_receive:
                chunk = self._receive(self._connection.recv)
                if chunk == b"":
                    return
                yield chunk or b""
            if can_take:
                self._take()
            if can_send:
                self._send()

    def _wait(self, seconds: float | None) -> tuple[bool, bool, bool]:
        is_sending = bool(self._pending) or (self._is_fed and not self._is_ended)
        # Unlike epoll and kqueue, `poll` keeps no state of a descriptor between calls: `_close_notify` replaces it.
        with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
            selector.register(
                self._connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if is_sending else 0)
            )
            if not is_sending and not self._is_fed:
                selector.register(self._feed.outlet, selectors.EVENT_READ)
            ready = {key.fileobj: events for key, events in selector.select(seconds)}
        events = ready.get(self._connection, 0)
        can_take = self._feed.outlet in ready
        return bool(events & selectors.EVENT_READ), can_take, bool(events & selectors.EVENT_WRITE)

    def _receive(self, receive: Callable[[int], bytes | None]) -> bytes | None:
        """Return the received bytes, `None` if there are none yet, or `b""` at the end."""
        with self._guard():
            try:
                return receive(CHUNK_BYTES)
            except _NOT_READY:
                return None
            except (ssl.SSLZeroReturnError, ConnectionError):
                # A reset is the end too: that of a peer which did not read everything that was sent.
                return b""

    def _take(self) -> None:
        chunk = self._feed.take()
        self._is_fed = not chunk
        self._is_ended = bool(self._is_fed and self._end_of_input)
        self._pending = memoryview(chunk or self._end_of_input)

    def _send(self) -> None:
        with self._guard():
            try:
                if self._pending:
                    self._pending = self._pending[self._connection.send(self._pending) :]
                else:
                    self._is_ended = True
                    _end(self._connection)
            except _NOT_READY:
                pass
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                # The peer no longer reads. What it wrote before still has to be received.
                self._is_fed = self._is_ended = True
                self._pending = memoryview(b"")


class Feed:
    """
    The content of a stream, readable from a socket that can be polled.

    A thread reads the stream, since that may block.

    Attributes:
        outlet: A socket that is readable when there is data to take.
    """

    def __init__(self, stream: Reader) -> None:
        self.outlet, self._inlet = socket.socketpair()
        self._stream: Any = stream
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._forward, name="dockertest-stdin", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        failure = self._failure
        self.outlet.close()
        # Nothing can interrupt a `read` of the user's that blocks. Its thread ends when it returns.
        self._thread.join(_JOIN_SECONDS)
        self._failure = None
        try:
            if failure is not None and kind is None:
                raise failure
        finally:
            del failure  # its traceback refers to this frame

    def take(self) -> bytes:
        """Return the next bytes, or nothing at the end; raise what the stream raised."""
        chunk = self.outlet.recv(CHUNK_BYTES)
        if not chunk and self._failure is not None:
            raise self._failure
        return chunk

    def _forward(self) -> None:
        with self._inlet:
            try:
                while self._wait_for_data():
                    if not self._forward_chunk():
                        return
            except BaseException as failure:  # noqa: BLE001 - raised again in the caller's thread
                self._failure = failure

    def _forward_chunk(self) -> bool:
        """Read the next bytes and pass them on; return whether more may follow."""
        read = getattr(
            self._stream, "read1", self._stream.read
        )  # what is available, without waiting for more
        chunk = read(CHUNK_BYTES)
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            chunk = type(
                chunk
            ).__name__  # the content may be secret, and pytest's --showlocals shows variables
            raise InvalidOptionError(
                f"invalid stdin: expected a binary stream, but its read() returned a {chunk}",
                hint="pass .buffer of a text stream",
            )
        if not chunk:
            return False
        try:
            self._inlet.sendall(chunk)
        except OSError:
            return False  # the other end is closed: the command has ended
        return True

    def _wait_for_data(self) -> bool:
        """
        Wait for data, and return false if the other end is closed first.

        Return true immediately if the system cannot wait for this stream.
        """
        raw = getattr(self._stream, "raw", self._stream)
        # Other streams may have read ahead, which cannot be known, so reading them may block.
        if not isinstance(raw, io.FileIO) or not hasattr(select, "poll"):
            return True
        poller = select.poll()
        poller.register(raw, select.POLLIN)
        poller.register(self._inlet, select.POLLIN)
        ready = dict(poller.poll(0)) or _buffered(self._stream, raw.fileno()) or dict(poller.poll())
        return self._inlet.fileno() not in ready


def _buffered(stream: Any, descriptor: int) -> set[int]:
    """Return a set with a pipe's descriptor if its stream has buffered data."""
    if not isinstance(stream, io.BufferedReader) or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return set()  # files are always readable, and terminals are read line by line
    is_blocking = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        return {descriptor} if stream.peek(1) else set()
    finally:
        os.set_blocking(descriptor, is_blocking)


def _end(connection: socket.socket) -> None:
    """Close the sending direction and leave the receiving direction open."""
    if isinstance(connection, ssl.SSLSocket):
        _close_notify(connection)
    else:
        with suppress(OSError):  # the peer has closed the connection already
            connection.shutdown(socket.SHUT_WR)


def _close_notify(connection: ssl.SSLSocket) -> None:
    """
    Close the sending direction of a TLS connection, as Go's `CloseWrite` does.

    The receiving direction stays open. Python cannot do this. `unwrap` sends the alert, but then waits for the peer's, and
    data that arrives instead breaks the connection: https://github.com/python/cpython/issues/84132#issuecomment-1093865737.
    `SSLSocket.shutdown` ends TLS altogether: https://github.com/python/cpython/issues/124618. So `unwrap` gets another
    socket under the connection's descriptor, on which nothing arrives, and the alert that it wrote there is sent on. This
    relies on OpenSSL reading and writing by the descriptor's number (`SSL_set_fd` in
    https://github.com/python/cpython/blob/v3.11.7/Modules/_ssl.c).
    """
    if os.name == "nt":
        # Sockets are not descriptors there. Docker accepts the end of the TCP stream, other engines may not.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        return
    descriptor = connection.fileno()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        original = os.dup(descriptor)
        try:
            os.dup2(theirs.fileno(), descriptor, inheritable=False)
            try:
                with suppress(ssl.SSLWantReadError):
                    connection.unwrap()
            finally:
                os.dup2(original, descriptor, inheritable=False)
        finally:
            os.close(original)
        os.write(descriptor, ours.recv(CHUNK_BYTES))
