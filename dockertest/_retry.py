"""
Call an operation until it succeeds or the time is up.

Containers are watched through the `Monitor` protocol only.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypedDict, TypeVar, Unpack

from dockertest import _clock, _concurrency, _report, _validation
from dockertest._report import Report
from dockertest.errors import (
    ContainerExitedError,
    InvalidOptionError,
    NotInNetworkError,
    PortNotPublishedError,
    ResourceClosedError,
    RetryTimeoutError,
)

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., object])
Wait = Callable[[], Iterable["float | None"]]
ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]

DEFAULT_MAX_WAIT_SECONDS = 60.0

# An engine gets at least this long to answer, however little time is left, so that it can answer at all.
CHECK_SECONDS = 0.5

# A cancelled call gets at least this long to end.
CANCEL_SECONDS = 0.5

# Programming mistakes, which no wait can fix.
MISTAKES = (
    InvalidOptionError,
    PortNotPublishedError,
    NotInNetworkError,
    ResourceClosedError,
    NameError,
    ImportError,
)


class Monitor(Protocol):
    """What is asked between two calls whether waiting still makes sense."""

    def check(self, timeout: float) -> None:
        """
        Raise `ContainerExitedError` if a container has ended.

        The engine must answer within *timeout* seconds.
        """

    def reports(self) -> tuple[Report, ...]:
        """Return the state and last log lines of each container."""
        ...


class Watched(Protocol):
    """A container whose end ends the wait."""

    def check_alive(self, timeout: float) -> None:
        """
        Raise `ContainerExitedError` if it has ended.

        The engine must answer within *timeout* seconds.
        """

    def report(self) -> Report:
        """Return its state and last log lines."""
        ...


class AttemptOptions(TypedDict, total=False):
    """Optional keywords of `Resource.retry` and of every other function that retries."""

    max_wait: float | None
    """Seconds after which to give up: the pool's `max_wait` by default, or 60 without a pool. *op* is called at least once."""
    wait: Wait | None
    """
    Called to get the pauses between two calls, in seconds: `backoff.fibo`, or `lambda: itertools.repeat(0.5)`.

    When the pauses end, so does the wait. By default the first pause is 10 ms and later ones are about 5 % of the time
    waited so far, at most 0.5 s.
    """
    max_attempts: int | None
    """Number of calls of *op* after which to give up. There is no limit by default."""
    on: ExceptionTypes
    """Exceptions that mean "not ready yet", `Exception` by default. All others are raised at once."""
    giveup: Callable[[BaseException], bool] | None
    """Called with each exception. If it returns a true value, the exception is raised at once."""


class RetryOptions(AttemptOptions, total=False):
    """Keywords of `retry` and `Pool.retry`. All are optional."""

    watch: Sequence[Watched] | None
    """
    Containers whose end, with any exit code, ends the wait.

    `retry` watches nothing by default. `Pool.retry` watches all containers of the pool by default: the first failure of
    one of them ends the wait, and a failure that was raised once is not raised again.
    """


class AsyncAttemptOptions(AttemptOptions, total=False):
    """Keywords of `Resource.retry_async`. All are optional."""

    attempt_timeout: float | None
    """
    Seconds that one call may take. After that it is cancelled, and counts as "not ready yet", unless it still returns a
    result. Unlimited by default.

    A call that ignores its cancellation ends the wait after *max_wait*, and is left running.
    """


class AsyncRetryOptions(RetryOptions, AsyncAttemptOptions, total=False):
    """Keywords of `retry_async` and `Pool.retry_async`. All are optional."""


_DEFAULTS: dict[str, object] = {
    "max_wait": DEFAULT_MAX_WAIT_SECONDS,
    "wait": None,
    "max_attempts": None,
    "on": Exception,
    "giveup": None,
    "watch": (),
    "attempt_timeout": None,
}


def show_keywords(options: type[AttemptOptions], **defaults: object) -> Callable[[Function], Function]:
    """
    Return a decorator that replaces `**options` in a signature by each keyword.

    `help` and the reference then show the keywords.

    Args:
        options: The `TypedDict` with the keywords.
        defaults: Defaults that differ from those of `retry`.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default={**_DEFAULTS, **defaults}[name],
                annotation=getattr(annotation, "__forward_arg__", annotation),
            )
            for name, annotation in options.__annotations__.items()
        ]
        positional = [
            each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        function.__signature__ = signature.replace(parameters=[*positional, *keywords])  # type: ignore[attr-defined]
        return function

    return decorate


@show_keywords(RetryOptions)
def retry(op: Callable[[], T], **options: Unpack[RetryOptions]) -> T:
    """
    Call *op* until it returns, and return what it returned.

    An exception, or the value `False` itself, means "not ready yet". Programming mistakes end the wait at once
    (`InvalidOptionError`, `PortNotPublishedError`, `NotInNetworkError`, `ResourceClosedError`, `NameError`,
    `ImportError`), unless `on` names them.

    Args:
        op: Called without arguments, in the caller's thread. A call that hangs cannot be interrupted.
        options: `max_wait`, `wait`, `max_attempts`, `on`, `giveup` and `watch`, as described in `RetryOptions`.

    Raises:
        RetryTimeoutError: *op* still failed after `max_wait` or `max_attempts`. The last failure is the cause.
        ContainerExitedError: A watched container has ended.
        InvalidOptionError: An option has a bad value, or *op* cannot be called.
    """
    watch = options.pop("watch", None)
    monitor = WatchList(watch) if watch else None
    others: AttemptOptions = options
    return run(op, monitor=monitor, **others)


@show_keywords(AsyncRetryOptions)
async def retry_async(op: Callable[[], Awaitable[T]], **options: Unpack[AsyncRetryOptions]) -> T:
    """
    Do what `retry` does for a coroutine function, without blocking the event loop.

    Args:
        op: Called without arguments, and awaited.
        options: Those of `retry`, and `attempt_timeout`, as described in `AsyncRetryOptions`.

    Raises:
        RetryTimeoutError: *op* still failed after `max_wait` or `max_attempts`. The last failure is the cause.
        ContainerExitedError: A watched container has ended.
        InvalidOptionError: An option has a bad value, or *op* is not a coroutine function.
    """
    watch = options.pop("watch", None)
    monitor = WatchList(watch) if watch else None
    others: AsyncAttemptOptions = options
    return await run_async(op, monitor=monitor, **others)


def run(
    op: Callable[[], T],
    *,
    monitor: Monitor | None,
    default_max_wait: float | None = None,
    **options: Unpack[AttemptOptions],
) -> T:
    """
    Do what `retry` does, with a monitor.

    Args:
        op: Called until it returns.
        monitor: Asked after each failed call.
        default_max_wait: Seconds to wait where `max_wait` is missing or `None`, which is refused without a default.
        options: Those of `retry`.
    """
    _check_callable(op)
    _set_default(options, "retry", AttemptOptions, default_max_wait)
    with Attempts(monitor, options) as attempts:
        while True:
            try:
                value = op()
            except attempts.on as failure:
                if attempts.note_failure(failure):
                    raise
            else:
                if isinstance(value, Coroutine):
                    value.close()  # Else Python warns that it was never awaited.
                    raise InvalidOptionError("op is a coroutine function", hint="use retry_async")
                if value is not False:
                    return value
                attempts.note_failure(None)
            attempts.check()
            _clock.sleep(attempts.pause())


async def run_async(
    op: Callable[[], Awaitable[T]],
    *,
    monitor: Monitor | None,
    default_max_wait: float | None = None,
    **options: Unpack[AsyncAttemptOptions],
) -> T:
    """
    Do what `retry_async` does, with a monitor.

    Args:
        op: Called and awaited until it returns.
        monitor: Asked after each failed call, in a thread.
        default_max_wait: Seconds to wait where `max_wait` is missing or `None`, which is refused without a default.
        options: Those of `retry_async`.
    """
    _check_asyncio()
    _check_callable(op)
    _set_default(options, "retry_async", AsyncAttemptOptions, default_max_wait)
    attempt_timeout = options.pop("attempt_timeout", None)
    if attempt_timeout is not None:
        _validation.parse_seconds("attempt_timeout", attempt_timeout)
    with Attempts(monitor, options) as attempts:
        while True:
            try:
                value = await _await_within(attempt_timeout, op, attempts)
            except _AttemptTimeout as timeout:
                if attempts.note_failure(timeout.error, is_last=timeout.is_running):
                    raise timeout.error from None
            except attempts.on as failure:
                if attempts.note_failure(failure):
                    raise
            else:
                if value is not False:
                    return value
                attempts.note_failure(None)
            if monitor is None:
                attempts.check()
            else:  # The engine's answer must not block other tasks.
                await _concurrency.call_in_thread(attempts.check)
            await _concurrency.sleep_async(attempts.pause())


def _check_callable(op: object) -> None:
    """
    Refuse a value instead of a function.

    The value is not shown, since a connection may contain a password.
    """
    if not callable(op):
        raise InvalidOptionError(
            f"op must be callable: got a value of type {type(op).__name__}",
            hint="write retry(connect), not retry(connect())",
        )


def _check_asyncio() -> None:
    """
    Refuse libraries other than asyncio at once.

    Trio can run inside asyncio's loop, but its tasks are not asyncio's.
    """
    import asyncio

    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        raise InvalidOptionError(
            "retry_async works with asyncio alone, and no asyncio task is running here",
            hint="call retry with a plain function in a thread: await trio.to_thread.run_sync(retry, connect)",
        )


def _set_default(
    options: AttemptOptions, function: str, known: type[AttemptOptions], max_wait: float | None
) -> None:
    """Refuse unknown keywords as Python does, and put in the default of `max_wait`."""
    for name in options:
        if name not in known.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    if max_wait is not None and options.get("max_wait") is None:
        options["max_wait"] = max_wait


class _AttemptTimeout(BaseException):
    """
    An attempt took too long.

    It has a class of its own, since *op* may raise `TimeoutError` itself.

    Attributes:
        error: What counts as the failure of the attempt.
        is_running: Whether the call continues, since it ignored its cancellation.
    """

    def __init__(self, error: TimeoutError, *, is_running: bool) -> None:
        super().__init__(error)
        self.error = error
        self.is_running = is_running


async def _await_within(seconds: float | None, op: Callable[[], Awaitable[T]], attempts: Attempts) -> T:
    """Call and await *op*; after *seconds* cancel it and raise `_AttemptTimeout`."""
    import asyncio

    awaitable = op()
    if not isinstance(awaitable, Awaitable):
        raise InvalidOptionError(
            f"op must be a coroutine function: it returned a {type(awaitable).__name__}",
            hint="use retry for other functions",
        )
    if seconds is None:
        return await awaitable
    call = asyncio.ensure_future(awaitable)
    call.add_done_callback(_retrieve_exception)
    message = f"the call took longer than {seconds:g} s"
    try:
        if await _has_ended(call, seconds):
            return call.result()
        call.cancel()
        has_ended = await _has_ended(call, max(CANCEL_SECONDS, attempts.remaining()))
    except BaseException as error:
        call.cancel()
        if isinstance(error, asyncio.CancelledError):
            await _wait_for_cleanup(call)
        raise
    if not has_ended:
        raise _AttemptTimeout(TimeoutError(f"{message} and ignored its cancellation"), is_running=True)
    if call.cancelled() or call.exception():
        raise _AttemptTimeout(TimeoutError(message), is_running=False)
    return call.result()  # It was about to return.


async def _wait_for_cleanup(call: asyncio.Future[T]) -> None:
    """
    Wait until a cancelled call has ended, for at most `CANCEL_SECONDS`.

    It may have a connection to close. Another cancellation does not end the wait.
    """
    import asyncio

    deadline = _clock.monotonic() + CANCEL_SECONDS
    while not call.done() and (seconds := deadline - _clock.monotonic()) > 0:
        with suppress(asyncio.CancelledError):
            await _has_ended(call, seconds)


async def _has_ended(call: asyncio.Future[T], seconds: float) -> bool:
    """
    Wait for *call* for at most *seconds*, and return whether it has ended.

    The seconds are measured by the real clock.
    """
    import asyncio

    timer = asyncio.ensure_future(_concurrency.sleep_async(seconds))
    both: list[asyncio.Future[Any]] = [call, timer]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return call.done()


def _retrieve_exception(call: asyncio.Future[T]) -> None:
    """Keep the loop from logging an unretrieved exception of a cancelled call."""
    if not call.cancelled():
        call.exception()


def default_wait() -> Iterator[float | None]:
    """
    Return the default pauses between two calls, in seconds.

    The first one is 10 ms. Later ones are about 5 % of the time waited so far, at most 0.5 s. A service is noticed soon
    after it is ready, and a slow one is not called too often.
    """
    try:
        import backoff
    except OSError:  # No file descriptor is left. The operation itself may free some.
        return (min(0.01 * 1.05 ** min(count, 100), 0.5) for count in itertools.count())
    return backoff.expo(base=1.05, factor=0.01, max_value=0.5)


class WatchList:
    """The monitor of the containers that a caller names with `watch`."""

    def __init__(self, watch: Sequence[Watched]) -> None:
        self._watched = tuple(watch)

    def check(self, timeout: float) -> None:
        """Raise `ContainerExitedError` if a container has ended, with any exit code."""
        for container in self._watched:
            container.check_alive(timeout)

    def reports(self) -> tuple[Report, ...]:
        """Return the state and last log lines of each container."""
        return tuple(container.report() for container in self._watched)


def _describe(failure: BaseException) -> str:
    """Return the class and message of an exception, whose own `__str__` may fail."""
    try:
        message = str(failure)
    except Exception as error:  # noqa: BLE001 - the user's class may raise anything
        message = f"(no message: its __str__ raised {type(error).__name__})"
    return f"{type(failure).__name__}: {message}".strip()


class Attempts:
    """What `retry` and `retry_async` share: limits, pauses, and the error at the end."""

    def __init__(self, monitor: Monitor | None, options: AttemptOptions) -> None:
        self._max_wait = _validation.parse_seconds(
            "max_wait", options.get("max_wait", DEFAULT_MAX_WAIT_SECONDS)
        )
        wait = options.get("wait")
        if wait is not None and not callable(wait):
            raise InvalidOptionError(
                f"wait must be a callable that returns pauses: got {_validation.format_value(wait)}",
                hint="write wait=backoff.fibo, not wait=backoff.fibo(), or lambda: itertools.repeat(0.5)",
            )
        max_attempts = options.get("max_attempts")
        if max_attempts is not None and (not isinstance(max_attempts, int) or max_attempts < 1):
            raise InvalidOptionError(
                f"max_attempts must be a whole number from 1: got {_validation.format_value(max_attempts)}"
            )
        on = options.get("on", Exception)
        self.on = on if isinstance(on, tuple) else (on,)
        if not all(isinstance(item, type) and issubclass(item, BaseException) for item in self.on):
            raise InvalidOptionError(
                f"on must be an exception class or a tuple of them: got {_validation.format_value(on)}"
            )
        self._max_attempts = max_attempts
        self._wait = wait
        self._giveup = options.get("giveup")
        self._monitor = monitor
        # The default is loaded before the first call, after which there may be no file descriptor left for an import.
        self._pauses: Iterator[float | None] | None = default_wait() if wait is None else None
        self._count = 0
        self._last: BaseException | None = None
        self._next_at: float | None = None
        self._began = _clock.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The traceback of the last failure holds the caller's frames, and these hold this object: break the cycle, so
        # that a connection in those frames is closed now and not when the garbage is collected.
        self._last = None

    def note_failure(self, failure: BaseException | None, *, is_last: bool = False) -> bool:
        """
        Record a failed call, and return whether no wait can fix its failure.

        If a wait may fix it, also record when to make the next call, if any.

        Args:
            failure: What the call raised; `None` if it returned `False`.
            is_last: Whether there must be no further call.
        """
        failed_at = _clock.monotonic()
        self._count += 1
        self._last = failure
        if failure is not None and (self._is_mistake(failure) or (self._giveup and self._giveup(failure))):
            return True
        self._next_at = None
        if not is_last and self._count != self._max_attempts and self.remaining() > 0:
            pause = self._next_pause()
            self._next_at = None if pause is None else failed_at + pause
        return False

    def check(self) -> None:
        """Ask the monitor, then the limits; raise if the wait is over."""
        if self._monitor is not None:
            try:
                self._monitor.check(max(CHECK_SECONDS, self.remaining()))
            except ContainerExitedError as error:
                raise self._exited(error) from error.__cause__
        if self._next_at is None or self.remaining() <= 0:
            raise self._timeout() from self._last

    def pause(self) -> float:
        """
        Return the seconds until the next call.

        The time since the last failure counts as part of the pause.
        """
        next_at = self._began if self._next_at is None else self._next_at
        return max(0.0, min(next_at - _clock.monotonic(), self.remaining()))

    def _next_pause(self) -> float | None:
        if self._pauses is None and self._wait is not None:
            pauses: object = self._wait()
            if not isinstance(pauses, Iterable):
                raise InvalidOptionError(
                    f"wait must return an iterator of seconds: got {_validation.format_value(pauses)}"
                )
            self._pauses = iter(pauses)
        pause = next((pause for pause in self._pauses or () if pause is not None), None)
        return None if pause is None else _validation.parse_seconds("wait: a pause", pause)

    def remaining(self) -> float:
        """Return the seconds until `max_wait`; negative after that."""
        return self._began + self._max_wait - _clock.monotonic()

    def _is_mistake(self, failure: BaseException) -> bool:
        is_named = any(isinstance(failure, item) and issubclass(item, MISTAKES) for item in self.on)
        return isinstance(failure, MISTAKES) and not is_named

    def _timeout(self) -> RetryTimeoutError:
        elapsed = _clock.monotonic() - self._began
        last = "the call returned False" if self._last is None else _describe(self._last)
        reports = () if self._monitor is None else self._monitor.reports()
        evidence = "".join(f"\n  {report}" for report in reports)
        return RetryTimeoutError(
            f"gave up after {elapsed:.1f} s and {_report.tries(self._count)}: {last}{evidence}",
            hint="" if self.remaining() > 0 else "if it only needs more time, set max_wait=",
            attempts=self._count,
            elapsed=elapsed,
            reports=tuple(replace(report, attempts=self._count, elapsed=elapsed) for report in reports),
        )

    def _exited(self, error: ContainerExitedError) -> ContainerExitedError:
        """Return the error with the time that was spent waiting for the container."""
        if error.report is None:
            return error
        elapsed = _clock.monotonic() - self._began
        return ContainerExitedError.of(replace(error.report, attempts=self._count, elapsed=elapsed))
