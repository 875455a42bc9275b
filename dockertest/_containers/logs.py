"""A container's log: read, followed, and searched."""

from __future__ import annotations

import codecs
import math
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Self

from dockertest import _clock, _validation
from dockertest._engine import streams
from dockertest._engine.client import EngineClient, is_read_timeout
from dockertest._engine.inspection import parse_timestamp
from dockertest._engine.sdk import end_stream
from dockertest._report import Report
from dockertest._retry import Watched
from dockertest.errors import (
    DockertestError,
    DockerUnavailableError,
    EngineError,
    InvalidOptionError,
    LogFailureError,
    RetryTimeoutError,
)

RECONNECT_SECONDS = 0.2  # until an interrupted log is followed again, if the container has not ended
RESUME_OVERLAP_SECONDS = 2.0  # of messages requested again, since those of two streams may be out of order
RECENT_MESSAGES = 10_000  # that are remembered if their times are precise
CHECK_SECONDS = 5.0  # that the engine may take to answer whether the container has ended
RESTART_SECONDS = 2.0  # that Podman may take to restart a container by its policy
POLL_SECONDS = 0.02
_HALF_WRITTEN = "is not a valid container log line"  # in Podman's answer
_REQUESTS = 10  # for a log with such a line
CUTS = 3  # in a row that come within a second
SAFE_SECONDS = 0.1  # Podman leaves lines out of a followed log from 0.25 s after the container has ended.

_SECOND = 10**9  # nanoseconds
_MESSAGE_BYTES = 16384  # of the longest message; longer lines consist of several
_CLOCK_SECONDS = 60  # that the engine's clock may be ahead
_REMEMBERED_NANOSECONDS = int((RESUME_OVERLAP_SECONDS + 1) * _SECOND)
_STREAMS = (streams.STDIN, streams.STDOUT, streams.STDERR)

# RFC 3339. Docker writes nine digits of a second, Podman none.
_TIMESTAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ", re.ASCII)
_DOCKER_TIMESTAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) ", re.ASCII)


def read(
    engine: EngineClient,
    container: str,
    *,
    tty: bool,
    tail: int | None = None,
    since: float | None = None,
    stdout: bool = True,
    stderr: bool = True,
    max_bytes: int | None = streams.MAX_OUTPUT_BYTES,
    timeout: float | None = None,
    is_partial: bool = False,
) -> str:
    """
    Return a container's log so far; `Resource.logs` describes the options.

    Args:
        is_partial: If the engine cannot read all of it, return the rest, which ends with the engine's error.
    """
    params: dict[str, object] = {
        "stdout": int(stdout),
        "stderr": int(stderr),
        "tail": "all" if tail is None else tail,
    }
    if tail is not None and (not isinstance(tail, int) or tail < 0):  # engines take any other value for "all"
        raise InvalidOptionError(
            f"invalid tail {_validation.format_value(tail)}: expected a number of lines, 0 or more"
        )
    if since is not None:
        if not isinstance(since, (int, float)) or not math.isfinite(since):
            raise InvalidOptionError(
                f"invalid since {_validation.format_value(since)}: expected seconds since the epoch",
                hint="call .timestamp() of a datetime",
            )
        params["since"] = f"{since:.9f}"
    end = streams.TailBuffer(_validation.parse_size("max_bytes", max_bytes))
    what = f"read the log of container {container[:12]}"
    response = _send(engine, container, what, params, stream=True, timeout=timeout)
    with engine.translate_errors(what, timeout), response:
        for stream, payload in _payloads(response, what, tty=tty):
            if stream == streams.ENGINE_ERROR and not is_partial:
                raise _engine_error(what, payload)
            end.write(payload)
    content = end.getvalue()
    del end  # the text takes as much memory again
    return content.decode("utf-8", "replace")


def _send(
    engine: EngineClient, container: str, what: str, params: Mapping[str, object], **options: Any
) -> Any:
    """
    Ask for a log, and return the response.

    Podman 4 refuses if it reads a line that is just being written.
    """
    path = f"/containers/{container}/logs"
    for _ in range(_REQUESTS - 1):
        try:
            return engine.send("get", path, what=what, params=params, **options)
        except EngineError as error:
            if _HALF_WRITTEN not in str(error):
                raise
            _clock.sleep(POLL_SECONDS)
    return engine.send("get", path, what=what, params=params, **options)


def _payloads(response: Any, what: str, *, tty: bool) -> Iterator[streams.Frame]:
    chunks: Iterator[bytes] = response.iter_content(streams.CHUNK_BYTES)
    if tty:
        for chunk in chunks:
            yield streams.STDOUT, chunk
        return
    decoder = streams.FrameDecoder(what)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.finish()


def _engine_error(what: str, payload: bytes) -> EngineError:
    words = payload.decode("utf-8", "replace").strip()
    return EngineError(f"cannot {what}: the engine reported: {words}", reason="log")


def last_lines(engine: EngineClient, container: str, *, tty: bool, timeout: float | None = None) -> str:
    """Return a log's last lines for an error message, or why they cannot be read."""
    try:
        return read(
            engine,
            container,
            tty=tty,
            tail=streams.EVIDENCE_LINES,
            max_bytes=streams.CHUNK_BYTES,
            timeout=timeout,
            is_partial=True,
        ).rstrip()
    except DockertestError as error:
        return f"({error})"


class LogStream(Iterator[str]):
    """
    The lines of a container's log as they are written, from the first one on.

    The lines have no line ends. The iterator ends when the container ends, or when `close()` is called from any thread.
    Lines that the engine sends again, after an interruption or because it has rotated the log, are left out. Podman's times
    are too coarse to recognize all of them, so that some may be repeated.
    """

    def __init__(
        self,
        engine: EngineClient,
        container: str,
        *,
        tty: bool,
        since: float = 0.0,
        is_followed: bool = True,
    ) -> None:
        # Nothing in here refers back to this object. So if a loop is left early, its connection is closed at once.
        self._log = FollowedLog(engine, container, tty=tty, since=since)
        if not is_followed:
            self._log.is_last.set()
        self._log.open()
        self._lines: Generator[str, None, None] = _lines(self._log.messages())

    def __next__(self) -> str:
        return next(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """
        End the stream.

        If a thread waits for the next line, its iteration ends.
        """
        self._log.closed.set()
        for close in (
            lambda: end_stream(self._log.response),
            self._lines.close,
            lambda: self._log.response.close(),
        ):
            with suppress(Exception):  # it may be ending by itself, or another thread may be reading it
                close()

    def __del__(self) -> None:
        if hasattr(self, "_lines"):  # else it could not be opened
            self.close()


class FollowedLog:
    """
    A log that is read while it is written.

    Attributes:
        closed: Set to end the messages at once.
        is_last: Set to end the messages after those that have been written until then.
        has_begun: Whether anything has been requested.
    """

    def __init__(self, engine: EngineClient, container: str, *, tty: bool, since: float = 0.0) -> None:
        """
        Request nothing yet.

        Args:
            since: The time of the first message, in seconds since the epoch.
        """
        self._engine = engine
        self._container = container
        self._tty = tty
        self._what = f"follow the log of container {container[:12]}"
        self._position = Position(has_unique_times=not engine.is_podman)
        self._since = since
        self.closed = threading.Event()
        self.is_last = threading.Event()
        self.has_begun = False
        self.response: Any = None
        self._followed: Any = None  # the response, unless it ends by itself
        self._is_polled = False  # whether the response is empty, and another request has to be sent
        self._last_end = 0.0  # when the container had ended before the response, by the engine's clock
        self._safe_until = -math.inf  # when to look again whether it has ended since

    def open(self) -> None:
        """
        Send the first request.

        Raises:
            EngineError: The engine refused.
        """
        self.has_begun = True
        self.response = self._open(follow=not self.is_last.is_set())

    def lines(self) -> Iterator[str]:
        """
        Yield the lines from the last position on, until the container ends.

        This may be called again after that.
        """
        self.open()
        return _lines(self.messages())

    def end_following(self) -> None:
        """End another thread's request for new messages, so that it checks `is_last`."""
        with suppress(Exception):  # It may be ending by itself.
            if self._followed is not None:
                end_stream(self._followed)

    def _open(self, *, follow: bool) -> Any:
        if follow and self._engine.is_podman:
            follow = self._runs()
        # Podman 4 does not begin its answer before there is a message.
        self._is_polled = follow and self._engine.is_podman_4 and not self._has_messages()
        follow = follow and not self._is_polled
        # In the middle of a terminal's line, Podman's times, of whole seconds, cannot be distinguished from those of a program.
        has_times = not (self._tty and self._engine.is_podman)
        params: dict[str, object] = {
            "stdout": 1,
            "stderr": 1,
            "follow": int(follow),
            "timestamps": int(has_times),
        }
        if since := max(self._position.time / 1e9 - RESUME_OVERLAP_SECONDS, self._since):
            params["since"] = f"{since:.9f}"
        response = _send(self._engine, self._container, self._what, params, stream=True)
        self._followed = response if follow else None
        return response

    def messages(self) -> Iterator[streams.Frame]:
        """
        Yield each message with its stream as it arrives.

        The messages end when the container ends or the log is closed. Docker ends some followed logs before their last
        lines: https://github.com/moby/moby/issues/43860. It also ends them when a container is restarted. So the log is
        read again from the last known message on, once more after the container has ended. Podman leaves lines out of a
        followed log once the container has ended, so nothing that arrives after that is used.
        """
        cuts = 0
        try:
            while True:
                began = _clock.monotonic()
                try:
                    yield from self._new_messages()
                except EngineError as error:
                    # Proxies close silent connections, and engines stop at an incomplete message.
                    is_cut = error.reason in ("disconnected", "log") and self._followed is not None
                    cuts = cuts + 1 if is_cut and _clock.monotonic() < began + 1 else 0
                    is_over = cuts > CUTS if is_cut else not is_read_timeout(error)
                    if is_over and not self.is_last.is_set():
                        raise
                    # A container may be silent for any time, but the engine has to answer.
                    try:
                        self._engine.inspect(self._container)
                    except DockerUnavailableError:
                        if is_cut:  # by the end of the engine
                            raise error from None
                        raise
                if self.closed.is_set() or self._is_final:
                    return
                is_last = self.is_last.is_set()
                has_ended = not is_last and self._engine.wait(self._container, RECONNECT_SECONDS) is not None
                self.response = self._open(follow=not is_last and (not has_ended or self._engine.is_podman))
                if self.closed.is_set():
                    self.response.close()
                    return
        except DockertestError as error:
            # The container and its log have been removed, or are being removed.
            if not self.closed.is_set() and getattr(error, "status", None) not in (404, 409):
                raise

    def _new_messages(self) -> Iterator[streams.Frame]:
        """Yield the messages of the current response that were not yielded before."""
        self._position.start_again()
        with self._engine.translate_errors(self._what), self.response:
            for stream, time, message in self._received():
                if self._followed is not None and self._engine.is_podman and self._has_ended():
                    return
                if self._position.is_new(stream, time, message):
                    yield stream, message

    @property
    def _is_final(self) -> bool:
        """Whether nothing is requested after the response."""
        return self._followed is None and not self._is_polled

    def _runs(self) -> bool:
        """
        Return whether the container runs, and note when it last ended.

        If it has ended and has a restart policy, wait up to 2 s until it runs again.
        """
        inspection = self._engine.inspect(self._container)
        deadline = _clock.monotonic() + RESTART_SECONDS
        while inspection.has_ended and inspection.has_policy and _clock.monotonic() < deadline:
            _clock.sleep(POLL_SECONDS)
            inspection = self._engine.inspect(self._container)
        self._last_end = inspection.finished_at
        return not inspection.has_ended

    def _has_messages(self) -> bool:
        params: dict[str, object] = {"stdout": 1, "stderr": 1, "tail": 1}
        if self._since:
            params["since"] = f"{self._since:.9f}"
        response = _send(self._engine, self._container, self._what, params)
        return bool(response.content)

    def _has_ended(self) -> bool:
        """
        Return whether the container has ended since the response began.

        This is true even if it runs again.
        """
        if _clock.monotonic() < self._safe_until:
            return False
        began = _clock.monotonic()
        try:
            inspection = self._engine.inspect(self._container)
        except EngineError as error:
            if error.status != 404:
                raise
            self._safe_until = math.inf  # There is nothing left to read again.
            return False
        self._safe_until = began + SAFE_SECONDS
        return inspection.has_ended or inspection.finished_at != self._last_end

    def _received(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield each message with its stream, before it its time in nanoseconds."""
        if self._tty:
            # Podman's messages have no times here.
            was_restarted = (
                not self._engine.is_podman and self._engine.inspect(self._container).finished_at > 0
            )
            while line := streams.read_line(self.response):
                if self._engine.is_podman and not line.endswith(b"\n") and not self._is_final:
                    return  # Podman 4 may end a followed log in the middle of a line. The next response has all of it.
                # A program may write such a line too, but hardly with the id of its container.
                if self._container.encode() in line and (error := streams.parse_error(line, self._what)):
                    raise error
                latest = int(_clock.time() + _CLOCK_SECONDS) * _SECOND if was_restarted else 0
                for time, message in split_terminal_line(line, latest):
                    yield streams.STDOUT, time, message
            return
        for stream, frame in streams.frames(self.response, self._what):
            if stream == streams.ENGINE_ERROR:
                raise _engine_error(self._what, frame)
            yield stream, *split_timestamp(frame)


class Position:
    """
    How far a log has been read.

    The position is a time, not a number of bytes: rotation removes the beginning of a log. Messages that the engine may send
    again are also distinguished by their content. In doubt, a message counts as new.
    """

    def __init__(self, *, has_unique_times: bool = True) -> None:
        """
        Begin before the first message.

        Args:
            has_unique_times: Whether two lines of a stream never have the same precise time. On Podman 5, all lines that a
                program writes at once have the same one.
        """
        self._has_unique_times = has_unique_times
        self._streams: dict[int, _StreamPosition] = {}

    @property
    def time(self) -> int:
        """
        The time of the last message, in nanoseconds since the epoch.

        It is 0 if there was no message, or it had no time.
        """
        return max((stream.newest for stream in self._streams.values()), default=0)

    def start_again(self) -> None:
        """Expect to receive messages again that are not new."""
        for stream in self._streams.values():
            stream.start_again()

    def is_new(self, stream: int, time: int, message: bytes) -> bool:
        """Return whether a message has not been received before, and remember it."""
        position = self._streams.get(stream)
        if position is None:
            position = self._streams[stream] = _StreamPosition(self._has_unique_times)
        return position.is_new(time, message)


class _StreamPosition:
    """
    How far one stream has been read.

    Messages are sent again in two cases. In a new response, all of the last seconds are; Podman may also send those that were
    missing in the middle of the last one. And after Docker has rotated a log, it repeats some within one response.

    Attributes:
        newest: The time of the last message, in nanoseconds since the epoch.
    """

    def __init__(self, has_unique_times: bool) -> None:
        self.newest = 0
        self._has_unique_times = has_unique_times
        self._messages: deque[tuple[int, int]] = (
            deque()
        )  # those that are remembered: time, and hash of time and content
        self._counts: Counter[int] = Counter()  # of these, by hash
        self._received: Counter[int] = Counter()  # how often since the times began again, by hash
        self._forgotten = -1  # time of the last message that is no longer remembered
        self._repeats_forgotten = True  # whether this response may still contain such messages
        self._is_resumed = False  # whether all of this response so far may have been received before
        self._last = 0  # time of the message before
        self._is_whole = True  # whether that ended a line

    def start_again(self) -> None:
        """Expect to receive the remembered messages again."""
        self._received.clear()
        self._is_resumed, self._last, self._is_whole = True, 0, True
        self._repeats_forgotten = True

    def is_new(self, time: int, message: bytes) -> bool:
        """Return whether a message has not been received before, and remember it."""
        key = hash((time, message))
        was_whole, self._is_whole = self._is_whole, message.endswith(b"\n")
        if time < self._last:
            self._received.clear()
        self._last = time
        if time > self.newest:
            self._is_resumed = False
        if self._is_known(time, key, is_line=was_whole and self._is_whole):
            self._received[key] += 1
            if self._is_resumed and key == self._messages[-1][1]:
                # What follows is new, even if the engine's clock was set back.
                self._repeats_forgotten = False
            return False
        if time != self.newest and not self._is_resumed:
            self._received.clear()
            self.newest = time
        if self._is_resumed or self._received:
            self._received[key] += 1
        self._remember(time, key)
        return True

    def _is_known(self, time: int, key: int, *, is_line: bool) -> bool:
        if self._is_resumed and self._repeats_forgotten and time <= self._forgotten:
            return True
        if self._is_resumed or (time % _SECOND and (time < self.newest or self._received)):
            return self._received[key] < self._counts[key]
        # Only parts of a long line can have the same time in nanoseconds and the same content.
        is_precise = self._has_unique_times and bool(time % _SECOND)
        return is_precise and time == self.newest and is_line and key in self._counts

    def _remember(self, time: int, key: int) -> None:
        self._messages.append((time, key))
        self._counts[key] += 1
        limit = RECENT_MESSAGES if time % _SECOND else math.inf  # Others look like those of the same second.
        while len(self._messages) > limit or self._messages[0][0] < self.newest - _REMEMBERED_NANOSECONDS:
            self._forgotten, oldest = self._messages.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]


def split_timestamp(message: bytes) -> tuple[int, bytes]:
    """Return the leading time of a message in nanoseconds, or 0, and the rest."""
    match = _TIMESTAMP.match(message)
    time = _nanoseconds(match) if match else 0
    return (time, message[match.end() :]) if match and time else (0, message)


def split_terminal_line(line: bytes, latest: int = 0) -> Iterator[tuple[int, bytes]]:
    """
    Yield the messages in one line of a terminal's output, each with its time.

    Times are in nanoseconds. A line longer than 16 KiB consists of several messages, and so does one that was continued
    after a restart. The log of a terminal has no frames, so their times stand in the middle of the line. A program may
    write such times too, such as the end of a certificate. Those of the engine stand after 16 KiB, or elsewhere between
    the time of the message before and *latest*.

    Args:
        line: The line.
        latest: Until when it may have been continued after a restart; 0 for a container that was never restarted.
    """
    time, _ = split_timestamp(line)
    if not time:
        yield 0, line
        return
    start = line.index(b" ") + 1
    for match in _DOCKER_TIMESTAMP.finditer(line, start):
        later = _nanoseconds(match)
        if time <= later and (match.start() - start == _MESSAGE_BYTES or later <= latest):
            yield time, line[start : match.start()]
            time, start = later, match.end()
    yield time, line[start:]


def _nanoseconds(match: re.Match[bytes]) -> int:
    return _seconds(match[1] + match[3]) * 10**9 + int((match[2] or b"").ljust(9, b"0"))


@lru_cache(maxsize=16)
def _seconds(timestamp: bytes) -> int:
    try:
        return int(parse_timestamp(timestamp.decode()))
    except ValueError:  # digits that are not a date
        return 0


@dataclass(frozen=True, slots=True)
class LogCondition:
    """
    What `Resource.wait_for_log` waits for.

    Attributes:
        pattern: What to search for in each line.
        count: Which match to wait for.
        fail_on: What ends the wait at once; `None` for nothing.
    """

    pattern: re.Pattern[str]
    count: int
    fail_on: re.Pattern[str] | None

    @classmethod
    def parse(cls, pattern: object, count: object, fail_on: object) -> Self:
        """
        Return the condition for the arguments of `Resource.wait_for_log`.

        Raises:
            InvalidOptionError: One of them is invalid.
        """
        if not isinstance(count, int) or count < 1:
            raise InvalidOptionError(
                f"invalid count {_validation.format_value(count)}: expected a whole number, 1 or more"
            )
        return cls(
            _parse_pattern("pattern", pattern),
            count,
            None if fail_on is None else _parse_pattern("fail_on", fail_on),
        )


def wait_for(
    open_log: Callable[[bool], LogStream], condition: LogCondition, max_wait: float, watched: Watched
) -> re.Match[str]:
    """
    Wait for a match in the lines of a log; see `Resource.wait_for_log`.

    Args:
        open_log: Called with whether to follow the log. Without time to wait, the lines so far are searched.
        condition: What to wait for.
        max_wait: Seconds after which to give up.
        watched: The container.
    """
    began = _clock.monotonic()
    while True:
        try:
            stream = open_log(max_wait > 0)
        except EngineError:
            watched.check_alive(CHECK_SECONDS)  # an auto-removed container takes its log with it
            raise
        search = _Search(condition)
        seconds = began + max_wait - _clock.monotonic() if max_wait > 0 else None
        if match := search.run(stream, seconds):
            return match
        if search.failure is not None:
            raise _log_failure(search.failure, condition, watched.report())
        elapsed = _clock.monotonic() - began
        if elapsed >= max_wait:
            break
        watched.check_alive(CHECK_SECONDS)  # if it is alive, it has been restarted and its log continues
    report = watched.report()
    times = "found" if condition.count == 1 else f"found {condition.count} times"
    raise RetryTimeoutError(
        f"{condition.pattern.pattern!r} was not {times} in the log within {elapsed:.1f} s\n  {report}",
        attempts=1,
        elapsed=elapsed,
        reports=(report,),
        hint="the log contains exactly this text, but it is a regular expression: use re.escape()"
        if search.has_literal
        else "",
    )


def _log_failure(line: str, condition: LogCondition, report: Report) -> LogFailureError:
    expression = condition.fail_on.pattern if condition.fail_on else ""
    return LogFailureError(
        f"the log line {line!r} matches fail_on={expression!r}\n  {report}", line=line, report=report
    )


def _parse_pattern(name: str, pattern: object) -> re.Pattern[str]:
    if isinstance(pattern, str):
        try:
            return re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidOptionError(
                f"invalid {name} {_validation.format_value(pattern)}: {error}",
                hint="use re.escape() for literal text",
            ) from None
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        return pattern
    raise InvalidOptionError(
        f"invalid {name} {_validation.format_value(pattern)}: expected a regular expression for text, since log "
        "lines are text"
    )


class _Search:
    """
    One search through a stream.

    Attributes:
        failure: The line that matched `fail_on`; `None` if there was none.
        has_literal: Whether the text of the pattern itself was found instead of a match.
    """

    def __init__(self, condition: LogCondition) -> None:
        self._condition = condition
        self.failure: str | None = None
        self.has_literal = False

    def run(self, stream: LogStream, seconds: float | None) -> re.Match[str] | None:
        """
        Return the match that the condition requires, or `None`.

        It is `None` after a failure, or if the stream or the time ends first. Without *seconds*, the time is not limited.
        """
        with stream:
            matches = islice(self._matches(stream), self._condition.count - 1, None)
            if seconds is None:
                return next(matches, None)
            timer = threading.Timer(seconds, stream.close)
            timer.daemon = True
            timer.start()
            try:
                return next(matches, None)
            finally:
                timer.cancel()

    def _matches(self, lines: Iterator[str]) -> Iterator[re.Match[str]]:
        pattern, fail_on = self._condition.pattern, self._condition.fail_on
        for line in lines:
            if fail_on is not None and fail_on.search(line):
                self.failure = line
                return
            self.has_literal = self.has_literal or pattern.pattern in line
            yield from pattern.finditer(line)


def _lines(messages: Iterator[streams.Frame]) -> Generator[str, None, None]:
    """
    Join messages to lines, separately for each stream.

    A message may end in the middle of a line or character.
    """
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in _STREAMS}
    unfinished: dict[int, list[str]] = {stream: [] for stream in decoders}
    for stream, message in messages:
        *line_ends, rest = decoders[stream].decode(message).split("\n")
        for line_end in line_ends:
            line = "".join([*unfinished[stream], line_end])
            unfinished[stream] = []
            yield line.removesuffix("\r")
        unfinished[stream].append(rest)
    for stream, decoder in decoders.items():
        if line := "".join([*unfinished[stream], decoder.decode(b"", final=True)]):
            yield line.removesuffix("\r")
