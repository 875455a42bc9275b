"""
Streamed responses of an engine, as bytes and as frames.

The bytes are returned as they arrive. The frames carry stdout and stderr.

The only module that reaches below a `requests.Response`. Its public interface cannot return available bytes without
waiting for more, and the docker SDK, which reads the socket instead, loses what Python has buffered already:
https://github.com/docker/docker-py/issues/3332 and https://github.com/docker/docker-py/issues/425.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from dockertest.errors import EngineError

CHUNK_BYTES = 65536  # read from or written to a connection at a time
MAX_OUTPUT_BYTES = 64 << 20  # of one stream of output that are kept by default
EVIDENCE_LINES = 20  # lines of output that an error message quotes
KEEPALIVE_SECONDS = 30  # of silence before the system checks that the other host is still there

STDIN, STDOUT, STDERR, ENGINE_ERROR = range(4)  # a frame's stream; the last carries the engine's own messages

_BLOCK_BYTES = 1 << 20
_HEADER = struct.Struct(">B3sL")
_ERROR_START = b'{"cause"'  # as long as a header

Frame = tuple[int, bytes]


class FrameDecoder:
    """
    Split multiplexed output into frames.

    The chunks that the output arrives in may begin and end anywhere.

    A frame is a header of eight bytes and a payload. The header's first byte is the stream, its last four are the
    payload's length: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach

    In the place of a header, Podman may write an error, as a line of JSON.
    """

    def __init__(self, what: str) -> None:
        """
        Create a decoder for one stream of output.

        Args:
            what: What is done with the output, for error messages: "read the log of container 'pg'".
        """
        self._what = what
        self._buffer = bytearray()

    @property
    def missing(self) -> int:
        """The number of bytes that complete the current header or payload."""
        size = len(self._buffer)
        if self._buffer.startswith(_ERROR_START):
            return 1  # up to the end of the line
        return _HEADER.size - size if size < _HEADER.size else _HEADER.size + self._header(0)[1] - size

    def feed(self, chunk: bytes) -> list[Frame]:
        """
        Return the frames that *chunk* completes, each as its stream and payload.

        Raises:
            EngineError: The output is not multiplexed, or is an error.
        """
        self._buffer += chunk
        frames, start = [], 0
        with memoryview(self._buffer) as buffer:
            while len(buffer) - start >= _HEADER.size and not self._buffer.startswith(_ERROR_START, start):
                stream, length = self._header(start)
                end = start + _HEADER.size + length
                if end > len(buffer):
                    break
                frames.append((stream, bytes(buffer[start + _HEADER.size : end])))
                start = end
        del self._buffer[:start]
        if not frames and self._buffer.endswith(b"\n") and (error := parse_error(self._buffer, self._what)):
            raise error
        return frames

    def finish(self) -> None:
        """
        Check that the output ended with a whole frame.

        Raises:
            EngineError: The last frame is truncated, or an error is in its place.
        """
        if error := parse_error(self._buffer, self._what):
            raise error
        if self._buffer:
            raise EngineError(
                f"cannot {self._what}: the engine closed the connection in the middle of a frame",
                hint="it may have been stopped or restarted: check it with dockertest doctor",
            )

    def _header(self, start: int) -> tuple[int, int]:
        stream, padding, length = _HEADER.unpack_from(self._buffer, start)
        if stream > ENGINE_ERROR or any(padding):
            # A length read from anything but a header would make us wait for gigabytes.
            raise EngineError(
                f"cannot {self._what}: the engine's response is not in Docker's multiplexed format, "
                "as if the container had a terminal"
            )
        return stream, length


def parse_error(line: bytes | bytearray, what: str) -> EngineError | None:
    """
    Return the error in a line that Podman writes into a response.

    Podman does this if it has sent the status already. See
    https://github.com/containers/podman/blob/v4.3.1/pkg/api/handlers/utils/errors.go
    """
    if not line.startswith(_ERROR_START):
        return None
    try:
        reported = json.loads(line)
        cause, message, status = str(reported["cause"]), str(reported["message"]), int(reported["response"])
    except (ValueError, KeyError, TypeError):
        return None
    return EngineError(
        f"cannot {what}: the engine reported: {message}",
        status=404 if cause.startswith("no such") else status,
    )


class TailBuffer:
    """
    The end of an output whose size is unknown.

    Attributes:
        omitted: The number of bytes at the beginning that are no longer kept.
    """

    def __init__(self, max_bytes: int | None) -> None:
        """Keep the last *max_bytes*, or everything if that is `None`."""
        self.omitted = 0
        self._max_bytes = max_bytes
        self._size = 0
        self._blocks = deque([bytearray()])

    def write(self, data: bytes) -> None:
        """Append *data*, and forget the beginning if it is too much."""
        if len(self._blocks[-1]) >= _BLOCK_BYTES:
            self._blocks.append(bytearray())
        self._blocks[-1] += data
        self._size += len(data)
        if self._max_bytes is None:
            return
        while self._size - len(self._blocks[0]) >= self._max_bytes:
            self._forget(len(self._blocks.popleft()))

    def getvalue(self) -> bytes:
        """
        Return the bytes that are kept.

        If some were omitted, the first line states how many.
        """
        self._trim()
        if not self.omitted:
            return b"".join(self._blocks)
        note = f"[dockertest omitted {self.omitted} bytes here; max_bytes is {self._max_bytes}]\n"
        return b"".join([note.encode(), *self._blocks])

    def _trim(self) -> None:
        excess = self._size - self._max_bytes if self._max_bytes is not None else 0
        if excess > 0:
            del self._blocks[0][:excess]
            self._forget(excess)

    def _forget(self, size: int) -> None:
        self._size -= size
        self.omitted += size


def frames(response: Any, what: str) -> Iterator[Frame]:
    """
    Yield the frames of a multiplexed response as they arrive.

    Raises:
        EngineError: The response is truncated, or not multiplexed.
    """
    decoder = FrameDecoder(what)
    # The SDK's own ssh connections can only wait for exactly as much as they are asked for.
    exact = not can_read_available(response)
    while chunk := (_body(response).read(decoder.missing) if exact else read_available(response)):
        yield from decoder.feed(chunk)
    decoder.finish()


def can_read_available(response: Any) -> bool:
    """
    Return whether `read_available` works for a response.

    It does not work on the docker SDK's own ssh connections, made with paramiko.
    """
    return hasattr(_body(response).fp, "read1")


def read_available(response: Any) -> bytes:
    """
    Return a response's available bytes, or wait for some; `b""` at its end.

    Only urllib3 2.1 and later have such a method, and we support older ones: https://github.com/urllib3/urllib3/pull/3186
    """
    chunk: bytes = _body(response).read1(CHUNK_BYTES)
    return chunk


def read_line(response: Any) -> bytes:
    """Return the next line of a response once it is complete; `b""` at its end."""
    line: bytes = _body(response).readline()
    return line


def buffered_reader(response: Any) -> Callable[[int], bytes | None]:
    """
    Return the function that reads an upgraded connection after its headers.

    `http.client` reads headers through a buffer, so the first output may be in it already:
    https://github.com/python/cpython/blob/v3.11.7/Lib/http/client.py#L263
    """
    read: Callable[[int], bytes | None] = _body(response).fp.read1
    return read


def connection(response: Any) -> Any:
    """
    Return the socket below a response.

    For a named pipe of Windows, it is the docker SDK's object instead of a socket.

    It is `_sock` of Python's own `socket.SocketIO`, `sock` of the SDK's:
    https://github.com/docker/docker-py/blob/7.2.0/docker/transport/npipesocket.py#L206-L208
    """
    reader = _body(response).fp
    raw = getattr(reader, "raw", reader)
    return next((getattr(raw, name) for name in ("_sock", "sock") if hasattr(raw, name)), None)


def enable_keepalive(connection: Any) -> None:
    """
    Make a TCP connection survive firewalls that forget silent ones.

    Other connections are not changed.
    """
    if getattr(connection, "family", None) not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)


def continue_after_timeout(response: Any) -> None:
    """
    Allow a response to be read again after a timeout.

    Otherwise `socket.SocketIO` refuses that. See
    https://github.com/python/cpython/blob/v3.11.7/Lib/socket.py#L702-L707
    """
    reader = _body(response).fp
    raw = getattr(reader, "raw", reader)
    if hasattr(raw, "_timeout_occurred"):
        raw._timeout_occurred = False


def _body(response: Any) -> Any:
    """Return the `http.client.HTTPResponse` in a `requests.Response`."""
    return response.raw._fp
