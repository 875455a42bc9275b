"""A container's log. One conversation with the engine each; keeps nothing."""

from __future__ import annotations

import codecs
import math
import re
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from typing_extensions import Self

from dockertest import _validation as _specs
from dockertest._engine.client import Engine, was_silent
from dockertest._engine.sdk import border, shut
from dockertest._retry import Watched
from dockertest.errors import DockertestError, EngineError, InvalidOptionError, RetryTimeoutError

TAIL = 20  # lines of evidence in an error
_STREAMS = (0, 1, 2)  # the engine's numbers for standard input, output and error


def read(
    engine: Engine,
    container: str,
    *,
    tty: bool,
    tail: int | None = None,
    since: float | None = None,
    stdout: bool = True,
    stderr: bool = True,
    within: float | None = None,
) -> str:
    """Give what the container has written so far, standard output and error in the order of the engine's."""
    params: dict[str, object] = {
        "stdout": int(stdout),
        "stderr": int(stderr),
        "tail": "all" if tail is None else tail,
    }
    if tail is not None and (not isinstance(tail, int) or tail < 0):  # engines take any other for "all"
        raise InvalidOptionError(f"tail must be a whole number from 0: got {_specs.shown(tail)}")
    if since is not None:
        if not isinstance(since, (int, float)) or not math.isfinite(since):
            raise InvalidOptionError(
                f"since must be seconds since 1970, which a datetime has as .timestamp(): got {_specs.shown(since)}"
            )
        params["since"] = f"{since:.9f}"
    what = f"read the log of container {container[:12]}"
    response = engine.send("get", f"/containers/{container}/logs", what=what, params=params, within=within)
    raw: bytes = response.content
    return (raw if tty else b"".join(_frames(raw))).decode("utf-8", "replace")


def last_lines(engine: Engine, container: str, *, tty: bool, within: float | None = None) -> str:
    """Give the last lines as evidence for an error; why there are none, where they cannot be read."""
    try:
        return read(engine, container, tty=tty, tail=TAIL, within=within).rstrip()
    except DockertestError as error:
        return f"({error})"


class LogStream(Iterator[str]):
    """
    The lines of a container's log, from the first on, as they come; each without its line end.

    It ends with the container, or on `close()` from any thread.
    """

    def __init__(self, engine: Engine, container: str, *, tty: bool) -> None:
        # Nothing that it holds holds it, so that a loop that is left early closes the connection there and then.
        self._log = _Followed(engine, container, tty=tty)
        self._lines: Generator[str, None, None] = _lines(self._log.chunks())

    def __next__(self) -> str:
        return next(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; whoever waits for its next line gets the end."""
        self._log.closed.set()
        for close in (
            lambda: shut(self._log.response),
            self._lines.close,
            lambda: self._log.response.close(),
        ):
            with suppress(Exception):  # it may just be ending by itself, or somebody may just be reading it
                close()

    def __del__(self) -> None:
        if hasattr(self, "_lines"):  # else it failed to open
            self.close()


class _Followed:
    """A log that is read while it is written."""

    def __init__(self, engine: Engine, container: str, *, tty: bool) -> None:
        self._engine = engine
        self._container = container
        self._tty = tty
        self._what = f"follow the log of container {container[:12]}"
        self._seen: dict[int, int] = dict.fromkeys(_STREAMS, 0)  # bytes given so far
        self.closed = threading.Event()
        self.response = self._open(follow=True)

    def _open(self, *, follow: bool) -> Any:
        return self._engine.send(
            "get",
            f"/containers/{self._container}/logs",
            what=self._what,
            params={"stdout": 1, "stderr": 1, "follow": int(follow)},
            stream=True,
        )

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """
        Give what comes, by stream, until the end; what a `close` breaks off is an end and no error.

        Docker ends some followed logs before their last lines (its own `docker logs -f` loses them too): so the log is
        read once more when the container has ended, and what was given already is left out.
        """
        try:
            follow = True
            while True:
                try:
                    yield from self._read()
                except EngineError as error:
                    if not was_silent(error):
                        raise
                    # The container may be silent for as long as it likes, but is the engine still there?
                    self._engine.inspect(self._container)
                if not follow or self.closed.is_set():
                    return
                follow = self._engine.wait(self._container, 0.2) is None
                self.response = self._open(follow=follow)
                if self.closed.is_set():
                    self.response.close()
                    return
        except DockertestError as error:
            # It is gone, log and all, or just about to be.
            if not self.closed.is_set() and getattr(error, "status", None) not in (404, 409):
                raise

    def _read(self) -> Iterator[tuple[int, bytes]]:
        """Give what the open answer has beyond what was given before."""
        known = dict(self._seen)
        with border(self._engine.timeout, self._what), self.response:
            for stream, chunk in _raw(self.response) if self._tty else _framed(self.response):
                old = min(known[stream], len(chunk))
                known[stream] -= old
                self._seen[stream] += len(chunk) - old
                if len(chunk) > old:
                    yield stream, chunk[old:]


def wait_for(
    follow: Callable[[], LogStream], pattern: re.Pattern[str], count: int, max_wait: float, watched: Watched
) -> re.Match[str]:
    """
    Wait for the *count*-th match of *pattern* in the lines that *follow* gives, and give it.

    Raises:
        RetryTimeoutError: It did not come within *max_wait* seconds.
        ContainerExitedError: The container has ended without.
    """
    if not isinstance(count, int) or count < 1:
        raise InvalidOptionError(f"count must be a whole number from 1: got {_specs.shown(count)}")
    began = time.monotonic()
    while True:
        try:
            stream = follow()
        except EngineError:
            watched._check_alive(5)  # one that removes itself takes its log with it
            raise
        if match := _search(stream, pattern, count, began + max_wait - time.monotonic()):
            return match
        elapsed = time.monotonic() - began
        if elapsed >= max_wait:
            break
        watched._check_alive(5)  # else it was started again meanwhile, and its log goes on
    reports = watched._reports()
    evidence = "".join(f"\n  {report}" for report in reports)
    times = "found" if count == 1 else f"found {count} times"
    raise RetryTimeoutError(
        f"{pattern.pattern!r} was not {times} in the log within {elapsed:.1f} s{evidence}",
        attempts=1,
        elapsed=elapsed,
        reports=reports,
    )


def _search(stream: LogStream, pattern: re.Pattern[str], count: int, seconds: float) -> re.Match[str] | None:
    """Give the *count*-th match; `None` if the stream, or the time, ends without."""
    with stream:
        timer = threading.Timer(seconds, stream.close)
        timer.daemon = True
        timer.start()
        try:
            matches = (match for line in stream for match in pattern.finditer(line))
            return next(islice(matches, count - 1, None), None)
        finally:
            timer.cancel()


def _raw(response: Any) -> Iterator[tuple[int, bytes]]:
    while line := response.raw._fp.readline(65536):
        yield 1, line


def _framed(response: Any) -> Iterator[tuple[int, bytes]]:
    read = response.raw._fp.read
    while header := read(8):
        stream, length = struct.unpack(">BxxxL", header)
        yield stream, read(length)


def _lines(chunks: Iterator[tuple[int, bytes]]) -> Generator[str, None, None]:
    """Put chunks together to lines, each stream for itself: a chunk may end in the middle of a line or character."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in _STREAMS}
    begun: dict[int, list[str]] = {stream: [] for stream in decoders}
    for stream, chunk in chunks:
        *ends, rest = decoders[stream].decode(chunk).split("\n")
        for end in ends:
            line = "".join([*begun[stream], end])
            begun[stream] = []
            yield line.removesuffix("\r")
        begun[stream].append(rest)
    for stream, decoder in decoders.items():
        if line := "".join([*begun[stream], decoder.decode(b"", final=True)]):
            yield line.removesuffix("\r")


def _frames(raw: bytes) -> Iterator[bytes]:
    """Take the engine's frames apart: a header of 8 bytes, the last four the length, then that many bytes."""
    start = 0
    while start + 8 <= len(raw):
        (length,) = struct.unpack_from(">L", raw, start + 4)
        yield raw[start + 8 : start + 8 + length]
        start += 8 + length
