"""Call something until it works, or the time is up. Knows containers only as something that may have ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from typing_extensions import Self

from dockertest import _report
from dockertest import _validation as _specs
from dockertest._report import Report
from dockertest.errors import (
    ContainerExitedError,
    InvalidOptionError,
    NotInNetworkError,
    PortNotPublishedError,
    ResourceClosedError,
    RetryTimeoutError,
)

T = TypeVar("T")
Wait = Callable[[], Iterable["float | None"]]
ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]

# Mistakes in the program: waiting does not mend them.
MISTAKES = (
    InvalidOptionError,
    PortNotPublishedError,
    NotInNetworkError,
    ResourceClosedError,
    NameError,
    ImportError,
)


class Watched(Protocol):
    """Something whose end ends the wait for it."""

    def _check_alive(self, within: float) -> None:
        """Raise `ContainerExitedError` if it has ended; ask for no longer than *within* seconds."""

    def _reports(self) -> tuple[Report, ...]:
        """Tell its state and its last log lines."""
        ...


def default_wait() -> Iterator[float | None]:
    """
    Pause 10 ms at first, then about a twentieth of the time already waited, at most 0.5 s.

    So a service is noticed soon after it is ready, and a slow one is not pestered.
    """
    import backoff

    return backoff.expo(base=1.05, factor=0.01, max_value=0.5)


def retry(
    op: Callable[[], T],
    *,
    max_wait: float = 60.0,
    wait: Wait | None = None,
    max_attempts: int | None = None,
    on: ExceptionTypes = Exception,
    giveup: Callable[[BaseException], bool] | None = None,
    watch: Sequence[Watched] = (),
) -> T:
    """
    Call *op* until it returns, and return what it returned.

    An exception in *on*, or the value `False` itself, means not yet. A mistake in the program ends the wait at once
    (`InvalidOptionError`, `PortNotPublishedError`, `NotInNetworkError`, `ResourceClosedError`, `NameError`,
    `ImportError`), unless *on* names it.

    Args:
        max_wait: Seconds after which to give up, 60 by default. At least one call is made.
        wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`; when they end, so does
            the wait. By default 10 ms at first, then about a twentieth of the time waited, at most 0.5 s.
        max_attempts: Calls of *op* after which to give up.
        on: The exceptions that mean not yet.
        giveup: Asked about each failure; a true answer raises it at once.
        watch: Containers whose end, however it came, ends the wait.

    Raises:
        RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
        ContainerExitedError: A watched container has ended.
    """
    _check_callable(op)
    with Attempts(max_wait, wait, max_attempts, on, giveup, watch) as attempts:
        while True:
            try:
                value = op()
            except attempts.on as failure:
                attempts.failed(failure)
            else:
                if isinstance(value, Coroutine):
                    value.close()  # or Python would complain that nobody awaited it
                    raise InvalidOptionError("op is a coroutine function; for those there is retry_async")
                if value is not False:
                    return value
                attempts.failed(None)
            time.sleep(attempts.pause())


async def retry_async(
    op: Callable[[], Awaitable[T]],
    *,
    max_wait: float = 60.0,
    wait: Wait | None = None,
    max_attempts: int | None = None,
    on: ExceptionTypes = Exception,
    giveup: Callable[[BaseException], bool] | None = None,
    watch: Sequence[Watched] = (),
    attempt_timeout: float | None = None,
) -> T:
    """
    Do what `retry` does for a coroutine function; other tasks go on meanwhile.

    Args:
        max_wait: Seconds after which to give up, 60 by default. At least one call is made.
        wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`.
        max_attempts: Calls of *op* after which to give up.
        on: The exceptions that mean not yet; so does the value `False` itself.
        giveup: Asked about each failure; a true answer raises it at once.
        watch: Containers whose end, however it came, ends the wait.
        attempt_timeout: Seconds that one call may take; one that takes longer is cancelled, and means not yet.

    Raises:
        RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
        ContainerExitedError: A watched container has ended.
    """
    import asyncio

    _check_callable(op)
    if attempt_timeout is not None:
        _specs.seconds("attempt_timeout", attempt_timeout)
    with Attempts(max_wait, wait, max_attempts, on, giveup, watch) as attempts:
        while True:
            failure: BaseException | None = None
            try:
                value = await _within(attempt_timeout, op)
            except _Overdue as overdue:
                failure = overdue.__cause__
            except attempts.on as error:
                failure = error
            else:
                if value is not False:
                    return value
            attempts.note(failure)
            # What is watched is asked in a thread: the engine's answer must not hold up the other tasks.
            await asyncio.to_thread(attempts.check)
            await asyncio.sleep(attempts.pause())


def _check_callable(op: object) -> None:
    """Refuse what calling would not mend; its value is not shown, since a connection's may have a password in it."""
    if not callable(op):
        raise InvalidOptionError(
            f"op must be callable: got a value of type {type(op).__name__}; write retry(connect), not retry(connect())"
        )


class _Overdue(BaseException):
    """An attempt took too long; a time-out of the caller's own is told apart from it."""


async def _within(seconds: float | None, op: Callable[[], Awaitable[T]]) -> T:
    import asyncio

    given = op()
    if not isinstance(given, Awaitable):
        raise InvalidOptionError(
            f"op must be a coroutine function: it gave a {type(given).__name__}; for any other there is retry"
        )
    if seconds is None:
        return await given
    call = asyncio.ensure_future(given)
    try:
        done, _ = await asyncio.wait([call], timeout=seconds)
    except BaseException:
        call.cancel()
        raise
    if done:
        return call.result()
    call.cancel()
    await asyncio.wait([call])
    if not call.cancelled():
        call.exception()  # of its own end; asked for, or the loop would complain that nobody did
    raise _Overdue from TimeoutError(f"the call took longer than {seconds:g} s")


class Attempts:
    """The bookkeeping between two calls: what `retry` and `retry_async` share."""

    def __init__(
        self,
        max_wait: float,
        wait: Wait | None,
        max_attempts: int | None,
        on: ExceptionTypes,
        giveup: Callable[[BaseException], bool] | None,
        watch: Sequence[Watched],
    ) -> None:
        self.max_wait = _specs.seconds("max_wait", max_wait)
        if wait is not None and not callable(wait):
            raise InvalidOptionError(
                f"wait must be a callable that gives pauses: got {_specs.shown(wait)}; "
                "write wait=backoff.fibo, not wait=backoff.fibo(), or lambda: itertools.repeat(0.5)"
            )
        if max_attempts is not None and (not isinstance(max_attempts, int) or max_attempts < 1):
            raise InvalidOptionError(
                f"max_attempts must be a whole number from 1: got {_specs.shown(max_attempts)}"
            )
        self.on = on if isinstance(on, tuple) else (on,)
        if not all(isinstance(each, type) and issubclass(each, BaseException) for each in self.on):
            raise InvalidOptionError(
                f"on must be an exception class or a tuple of them: got {_specs.shown(on)}"
            )
        self.max_attempts = max_attempts
        self._wait = wait or default_wait
        self._giveup = giveup
        self._watch = watch
        self._pauses: Iterator[float | None] | None = None
        self._count = 0
        self._last: BaseException | None = None
        self._began = self._failed_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The last failure's traceback holds the caller's frames, and these hold this: let go of what they keep open.
        self._last = None

    def failed(self, failure: BaseException | None) -> None:
        """Take note of a failed call; raise if that ends the wait."""
        self.note(failure)
        self.check()

    def note(self, failure: BaseException | None) -> None:
        """Take note of a failed call; raise the failure if it is one that waiting does not mend."""
        self._failed_at = time.monotonic()
        self._count += 1
        self._last = failure
        if failure is not None and (self._is_mistake(failure) or (self._giveup and self._giveup(failure))):
            raise failure

    def check(self) -> None:
        """Ask what is watched; raise if an end of that, or of the time, ends the wait."""
        for each in self._watch:
            try:
                each._check_alive(max(0.5, self._remaining()))
            except ContainerExitedError as error:
                raise self._exited(error) from error.__cause__
        if self._remaining() <= 0 or self._count == self.max_attempts:
            raise self._timeout() from self._last

    def pause(self) -> float:
        """Give the seconds until the next call, the time spent since the failure already taken off."""
        if self._pauses is None:
            given: object = self._wait()
            if not isinstance(given, Iterable):
                raise InvalidOptionError(f"wait must give an iterator of seconds: got {_specs.shown(given)}")
            self._pauses = iter(given)
        pause = next((each for each in self._pauses if each is not None), None)
        if pause is None:
            raise self._timeout() from self._last
        due = self._failed_at + _specs.seconds("wait: a pause", pause)
        return max(0.0, min(due - time.monotonic(), self._remaining()))

    def _remaining(self) -> float:
        return self._began + self.max_wait - time.monotonic()

    def _is_mistake(self, failure: BaseException) -> bool:
        named = any(isinstance(failure, each) and issubclass(each, MISTAKES) for each in self.on)
        return isinstance(failure, MISTAKES) and not named

    def _timeout(self) -> RetryTimeoutError:
        elapsed = time.monotonic() - self._began
        last = (
            "the call returned False" if self._last is None else f"{type(self._last).__name__}: {self._last}"
        )
        reports = tuple(report for each in self._watch for report in each._reports())
        evidence = "".join(f"\n  {report}" for report in reports)
        return RetryTimeoutError(
            f"gave up after {elapsed:.1f} s and {_report.tries(self._count)}: {last.strip()}{evidence}",
            attempts=self._count,
            elapsed=elapsed,
            reports=tuple(replace(each, attempts=self._count, elapsed=elapsed) for each in reports),
        )

    def _exited(self, error: ContainerExitedError) -> ContainerExitedError:
        """Tell how long the container that has ended was waited for."""
        if error.report is None:
            return error
        elapsed = time.monotonic() - self._began
        return ContainerExitedError.of(replace(error.report, attempts=self._count, elapsed=elapsed))
