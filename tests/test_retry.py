"""`retry` and `retry_async` behave alike."""

import asyncio
import contextlib
import gc
import itertools
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import backoff
import pytest
import trio

from dockertest import (
    ContainerExitedError,
    EngineError,
    InvalidOptionError,
    NotInNetworkError,
    PortNotBoundError,
    PortNotPublishedError,
    Report,
    ResourceClosedError,
    RetryTimeoutError,
    retry,
    retry_async,
)
from dockertest._retry import default_wait

Call = Callable[..., Any]


def in_a_loop(op: Callable[[], object], **options: Any) -> object:
    """Call `retry_async` in an event loop of its own."""

    async def awaited() -> object:
        return op()

    return asyncio.run(retry_async(awaited, **options))


@pytest.fixture(params=[retry, in_a_loop], ids=["retry", "retry_async"])
def call(request: pytest.FixtureRequest) -> Call:
    """
    `retry` and `retry_async`, without pauses by default.

    `wait=None` selects the package's default pauses.
    """

    def waited(op: Callable[[], object], **options: Any) -> object:
        return request.param(op, **{"wait": no_pause, "max_wait": 5, **options})

    return waited


class Service:
    """
    An operation that fails a number of times, and then returns its answer.

    Attributes:
        failures: For each failing call, an exception to raise or a value to return.
        answer: The value that later calls return.
        heals: Whether the failures end. If not, the last failure repeats.
        called: The monotonic time of each call.
    """

    def __init__(self, *failures: object, answer: object = "ready", heals: bool = True) -> None:
        self.failures = failures
        self.answer = answer
        self.heals = heals
        self.called: list[float] = []

    def __call__(self) -> object:
        self.called.append(time.monotonic())
        turn = len(self.called) - 1
        if self.heals and turn >= len(self.failures):
            return self.answer
        outcome = self.failures[min(turn, len(self.failures) - 1)]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def pauses(self) -> "list[float]":
        """Seconds between one call and the next."""
        return [after - before for before, after in itertools.pairwise(self.called)]


def down(failure: object = ConnectionRefusedError("refused")) -> Service:
    """Return a service that never works."""
    return Service(failure, heals=False)


def no_pause() -> "Iterator[float]":
    """Return pauses of no length."""
    return itertools.repeat(0.0)


def test_returns_the_result_of_the_operation(call: Call) -> None:
    """A test can use the connection that was opened."""
    answer = object()
    assert call(Service(answer=answer)) is answer


def test_calls_again_after_an_exception(call: Call) -> None:
    """Any exception means "not ready yet"."""
    service = Service(ConnectionRefusedError("refused"), OSError("reset"), ValueError("half a handshake"))
    assert call(service, max_wait=10) == "ready"
    assert len(service.called) == 4


@pytest.mark.parametrize("answer", [None, 0, "", [], 0.0], ids=repr)
def test_only_false_itself_means_not_ready(call: Call, answer: object) -> None:
    """`0`, `None` and an empty result are results."""
    service = Service(False, answer=answer)
    assert call(service) == answer
    assert len(service.called) == 2


@pytest.mark.parametrize(
    "mistake",
    [
        InvalidOptionError("bad"),
        PortNotPublishedError("no such port"),
        NotInNetworkError("no"),
        ResourceClosedError("closed"),
        NameError("name 'psycpg' is not defined"),
        UnboundLocalError("referenced before assignment"),
        ImportError("no"),
        ModuleNotFoundError("no module named 'psycpg'"),
    ],
    ids=lambda mistake: type(mistake).__name__,
)
class TestMistakes:
    """Programming mistakes, which waiting cannot fix."""

    def test_a_mistake_ends_the_wait_immediately(self, call: Call, mistake: Exception) -> None:
        """The exception is raised unchanged after one call."""
        service = down(mistake)
        with pytest.raises(type(mistake)) as caught:
            call(service, max_wait=10)
        assert caught.value is mistake
        assert len(service.called) == 1

    def test_naming_a_base_class_makes_no_difference(self, call: Call, mistake: Exception) -> None:
        """`on=ValueError` does not name `InvalidOptionError`."""
        service = down(mistake)
        with pytest.raises(type(mistake)):
            call(service, max_wait=10, on=(LookupError, OSError, ValueError, Exception))
        assert len(service.called) == 1

    def test_a_mistake_that_is_named_means_not_ready(self, call: Call, mistake: Exception) -> None:
        """It may be named alone or in a tuple."""
        assert call(Service(mistake, mistake), on=type(mistake)) == "ready"
        assert call(Service(mistake, OSError()), on=(OSError, type(mistake))) == "ready"


def test_a_port_that_is_not_bound_means_not_ready(call: Call) -> None:
    """
    While a container restarts, its ports are not bound.

    A port that was never published is a mistake.
    """
    assert call(Service(PortNotBoundError("restarting"))) == "ready"


def test_other_exceptions_are_raised_immediately(call: Call) -> None:
    """`on` names the exceptions that mean "not ready yet"."""
    service = Service(ConnectionError("a"), KeyError("b"))
    with pytest.raises(KeyError, match="b"):
        call(service, on=ConnectionError)
    assert len(service.called) == 2


def test_on_accepts_a_tuple(call: Call) -> None:
    """Subclasses count, as in an `except` clause."""
    assert call(Service(ConnectionResetError(), KeyError("a")), on=(ConnectionError, KeyError)) == "ready"


def test_with_an_empty_tuple_only_false_means_not_ready(call: Call) -> None:
    """Every exception is raised immediately."""
    assert call(Service(False), on=()) == "ready"
    with pytest.raises(OSError, match="down"):
        call(down(OSError("down")), on=())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_raised_immediately(failure: "type[BaseException]") -> None:
    """Ctrl-C and `sys.exit` end the wait."""
    service = down(failure())
    with pytest.raises(failure):
        retry(service)
    assert len(service.called) == 1


def test_giveup_raises_the_exception_itself(call: Call) -> None:
    """It is not wrapped in a timeout."""
    wrong = PermissionError("password authentication failed")
    service = Service(OSError("starting up"), wrong)
    with pytest.raises(PermissionError) as caught:
        call(service, giveup=lambda failure: isinstance(failure, PermissionError))
    assert caught.value is wrong
    assert len(service.called) == 2


def test_giveup_is_called_with_exceptions_only(call: Call) -> None:
    """It is called in the caller's thread, and not for `False`."""
    arguments: list[object] = []
    first, second = OSError("a"), OSError("b")
    call(
        Service(first, False, second),
        giveup=lambda failure: arguments.extend([failure, threading.get_ident()]),
    )
    assert arguments == [first, threading.get_ident(), second, threading.get_ident()]


def test_max_attempts_limits_the_calls(call: Call) -> None:
    """The remaining time does not matter."""
    service = down()
    with pytest.raises(RetryTimeoutError, match="3 attempts") as caught:
        call(service, max_attempts=3, max_wait=60)
    assert len(service.called) == 3
    assert caught.value.attempts == 3
    assert caught.value.elapsed < 10


def test_one_attempt_is_one_call(call: Call) -> None:
    """There is no pause after the last call."""
    with pytest.raises(
        RetryTimeoutError, match=r"gave up after \d\.\d s and 1 attempt: ConnectionRefusedError"
    ) as caught:
        call(down(), max_attempts=1, wait=lambda: itertools.repeat(60.0))
    assert caught.value.hint == ""  # more time would not change it


def test_max_wait_of_zero_means_one_call(call: Call) -> None:
    """A result of that call is returned."""
    service = down()
    with pytest.raises(RetryTimeoutError) as caught:
        call(service, max_wait=0)
    assert len(service.called) == 1
    assert caught.value.attempts == 1
    assert call(Service(), max_wait=0) == "ready"


def test_a_time_out_has_attempts_seconds_and_the_last_failure(call: Call) -> None:
    """They are in its message and attributes; the failure is its cause."""
    last = ConnectionRefusedError("connection refused on 5432")
    service = Service(OSError("first"), last, heals=False)
    began = time.monotonic()
    with pytest.raises(RetryTimeoutError) as caught:
        call(service, max_wait=0.5, wait=None)
    assert caught.value.__cause__ is last
    assert caught.value.attempts == len(service.called)
    assert 0.5 <= caught.value.elapsed <= time.monotonic() - began
    assert str(caught.value) == (
        f"gave up after {caught.value.elapsed:.1f} s and {caught.value.attempts} attempts: "
        "ConnectionRefusedError: connection refused on 5432; if it only needs more time, set max_wait="
    )


def test_a_time_out_is_a_timeout_error(call: Call) -> None:
    """`except TimeoutError` catches it, and it can be pickled."""
    with pytest.raises(TimeoutError) as caught:
        call(down(), max_attempts=1)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.attempts) == (str(caught.value), 1)


def test_a_time_out_after_false_has_no_cause(call: Call) -> None:
    """An exception of an earlier call is not the cause."""
    with pytest.raises(RetryTimeoutError, match="the call returned False") as caught:
        call(Service(OSError("before"), False, heals=False), max_attempts=2)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_exception_without_a_message_is_named(call: Call) -> None:
    """The message contains its class."""
    with pytest.raises(RetryTimeoutError, match=r"1 attempt: TimeoutError:$"):
        call(down(TimeoutError()), max_attempts=1)


def test_the_last_pause_ends_at_the_deadline(call: Call) -> None:
    """One last call is made then."""
    service = down()
    began = time.monotonic()
    with pytest.raises(RetryTimeoutError):
        call(service, max_wait=1, wait=lambda: itertools.repeat(60.0))
    assert time.monotonic() - began < 30
    assert len(service.called) == 2
    assert service.called[1] - began >= 1


def test_the_duration_of_a_call_counts_towards_max_wait(call: Call) -> None:
    """A call that takes longer than `max_wait` is the last one."""

    def slow() -> bool:
        time.sleep(0.02)
        return False

    with pytest.raises(RetryTimeoutError) as caught:
        call(slow, max_wait=0.01)
    assert caught.value.attempts == 1


@pytest.mark.parametrize(
    ("wait", "pauses"),
    [
        (lambda: iter([0.02, 0.005]), [0.02, 0.005]),
        (lambda: [None, 0.01, None, None, 0.005, 0.01], [0.01, 0.005, 0.01]),
        (lambda: backoff.constant([0.005, 0.02]), [0.005, 0.02]),
        (lambda: (pause and pause / 200 for pause in backoff.fibo()), [0.005, 0.005, 0.01, 0.015]),
        (lambda: backoff.expo(factor=0.005), [0.005, 0.01, 0.02]),
        (lambda: backoff.expo(base=3, factor=0.005, max_value=0.01), [0.005, 0.01, 0.01]),
        (lambda: (0.01, 0, 0.005), [0.01, 0, 0.005]),
    ],
    ids=["iterator", "with-none", "constant", "fibo", "expo", "expo-capped", "tuple"],
)
def test_wait_determines_the_pauses(call: Call, wait: Any, pauses: "list[float]") -> None:
    """
    They are seconds, and `None` is skipped.

    `None` is the first value of backoff's generators.
    """
    service = Service(*[False] * len(pauses))
    call(service, wait=wait, max_wait=60)
    assert len(service.pauses) == len(pauses)
    for waited, pause in zip(service.pauses, pauses, strict=True):
        assert waited >= pause - 0.002
        assert waited < pause + 20  # generous, for a busy machine


def test_each_retry_has_its_own_pauses(call: Call) -> None:
    """`wait` is called once per retry."""
    for _ in range(2):
        service = Service(False)
        call(service, wait=lambda: iter([0.01]), max_wait=60)
        assert service.pauses[0] >= 0.008


def test_wait_is_not_called_without_a_pause(call: Call) -> None:
    """The first call may succeed."""
    assert call(Service(), wait=lambda: pytest.fail("no pause is needed")) == "ready"


def test_the_wait_ends_with_the_last_pause(call: Call) -> None:
    """There is one more call than pauses."""
    last = OSError("still down")
    service = down(last)
    with pytest.raises(RetryTimeoutError, match="3 attempts") as caught:
        call(service, wait=lambda: [None, 0, 0], max_wait=60)
    assert len(service.called) == 3
    assert caught.value.__cause__ is last


@pytest.mark.parametrize("pauses", [[], [None]])
def test_without_pauses_there_is_one_call(call: Call, pauses: "list[None]") -> None:
    """Its failure is in the error."""
    with pytest.raises(RetryTimeoutError, match="1 attempt: ConnectionRefusedError: refused"):
        call(down(), wait=lambda: pauses)


@pytest.mark.parametrize("op", [None, True, "postgresql://user:secret@host/db"])
def test_a_value_in_place_of_a_function_is_rejected(op: Any) -> None:
    """
    `retry(connect())` would fail for a minute.

    The value may be a secret, so the message does not contain it.
    """
    waits: list[Callable[[], object]] = [lambda: retry(op), lambda: asyncio.run(retry_async(op))]
    for wait in waits:
        with pytest.raises(InvalidOptionError, match=r"^op must be callable: .*retry\(connect\)") as caught:
            wait()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("pause", [-1, "0.1", float("nan"), float("inf"), True, 10**400])
def test_an_invalid_pause_is_rejected(call: Call, pause: object) -> None:
    """It is a programming mistake."""
    with pytest.raises(InvalidOptionError, match="wait: a pause must be a number of seconds"):
        call(down(), wait=lambda: [pause])


@pytest.mark.parametrize(
    "wait", [backoff.fibo(), iter([1.0]), [1.0], 0.5], ids=lambda wait: type(wait).__name__
)
def test_a_generator_in_place_of_a_function_is_rejected(call: Call, wait: object) -> None:
    """The first retry would exhaust it; the message shows the correct form."""
    with pytest.raises(InvalidOptionError, match=r"write wait=backoff\.fibo, not"):
        call(down(), wait=wait)


@pytest.mark.parametrize("pauses", [0.5, None, 10**5000], ids=["0.5", "None", "huge"])
def test_wait_must_return_an_iterable(call: Call, pauses: object) -> None:
    """A number is rejected."""
    with pytest.raises(InvalidOptionError, match="wait must return an iterator of seconds"):
        call(down(), wait=lambda: pauses)


@pytest.mark.parametrize("option", ["max_wait", "max_attempts", "on", "wait"])
@pytest.mark.parametrize(
    "value", ["1", -1, b"", object(), 10**5000], ids=["str", "-1", "bytes", "object", "huge"]
)
def test_invalid_options_are_rejected_before_the_first_call(call: Call, option: str, value: object) -> None:
    """The message begins with the option's name."""
    if option == "max_attempts" and value == 10**5000:
        return  # valid: practically unlimited
    service = Service()
    with pytest.raises(InvalidOptionError, match=f"^{option} must be"):
        call(service, **{option: value})
    assert not service.called


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_wait", None),
        ("max_wait", True),
        ("max_wait", float("inf")),
        ("max_wait", float("nan")),
        ("max_attempts", 0),
        ("max_attempts", 1.0),
        ("on", None),
        ("on", [OSError]),
        ("on", OSError("instance")),
        ("on", (OSError, "KeyError")),
        ("on", int),
    ],
)
def test_other_invalid_options_are_rejected(call: Call, option: str, value: object) -> None:
    """The message begins with the option's name."""
    with pytest.raises(InvalidOptionError, match=f"^{option} must be"):
        call(Service(), **{option: value})


def test_the_default_pauses_grow_with_the_elapsed_time() -> None:
    """
    The first is 10 ms.

    Later ones are about 5 % of the elapsed time, at most 0.5 s.
    """
    waited = 0.0
    pauses = [pause for pause in itertools.islice(default_wait(), 200) if pause is not None]
    assert pauses[0] == 0.01
    for pause in pauses:
        assert waited / 20 <= pause + 1e-9 or pause == 0.5
        assert pause <= min(0.5, 0.01 + waited / 20 + 1e-9)
        waited += pause
    assert pauses[-1] == 0.5


def test_a_ready_service_is_noticed_soon(call: Call) -> None:
    """The time between two calls is about 5 % of the elapsed time."""
    ready_at = time.monotonic() + 2
    began = time.monotonic()
    called = []

    def is_ready() -> bool:
        called.append(time.monotonic())
        return time.monotonic() >= ready_at

    call(is_ready, max_wait=60, wait=None)
    late = [after - before - (0.01 + (before - began) / 20) for before, after in itertools.pairwise(called)]
    assert sorted(late)[len(late) // 2] < 0.1  # generous, for a busy machine
    assert len(called) >= 5


def test_a_pause_includes_the_time_of_the_check() -> None:
    """A slow answer of the engine does not lengthen the pause."""

    class Slow:
        def check_alive(self, timeout: float) -> None:
            time.sleep(0.3)

        def report(self) -> Report:
            pytest.fail("the operation succeeded")

    service = Service(*[False] * 5)
    retry(service, wait=lambda: itertools.repeat(0.3), watch=[Slow()])
    assert min(service.pauses) < 0.55


class Dead:
    """A container that has ended after *checks* successful checks."""

    def __init__(self, checks: int = 0, name: str = "pg") -> None:
        self.alive_for = checks
        self._report = Report(
            name=name, id="3f" * 32, image="postgres:15", status="exited", exit_code=3, logs="no space"
        )
        self.timeouts: list[float] = []

    def check_alive(self, timeout: float) -> None:
        self.timeouts.append(timeout)
        if len(self.timeouts) > self.alive_for:
            raise ContainerExitedError.of(self._report)

    def report(self) -> Report:
        return self._report


class TestWatching:
    """Containers that are watched: if one of them exits, the wait ends."""

    def test_a_container_that_exits_ends_the_wait(self, call: Call) -> None:
        """The error contains its exit code and log."""
        service = down()
        with pytest.raises(ContainerExitedError, match="exit code 3") as caught:
            call(service, watch=[Dead(checks=1)])
        assert (caught.value.exit_code, caught.value.logs) == (3, "no space")
        assert len(service.called) == 2

    def test_the_error_has_the_elapsed_time(self, call: Call) -> None:
        """It is in the message and in the report."""
        began = time.monotonic()
        with pytest.raises(
            ContainerExitedError, match=r"\n  waited for: 3 attempts in \d+\.\d s\n"
        ) as caught:
            call(down(), watch=[Dead(checks=2)])
        assert caught.value.report is not None
        assert caught.value.report.attempts == 3
        assert 0 < caught.value.report.elapsed <= time.monotonic() - began

    def test_an_error_without_a_report_is_raised_unchanged(self, call: Call) -> None:
        """Other classes can be watched too."""

        class Other(Dead):
            def check_alive(self, timeout: float) -> None:
                raise ContainerExitedError("it is over")

        with pytest.raises(ContainerExitedError, match="it is over"):
            call(down(), watch=[Other()])

    def test_the_exit_of_a_container_takes_precedence_over_the_time_out(self, call: Call) -> None:
        """It is the cause, even after a single attempt."""
        with pytest.raises(ContainerExitedError):
            call(down(), watch=[Dead()], max_attempts=1, max_wait=0)

    def test_a_result_is_returned_even_if_the_container_has_exited(self, call: Call) -> None:
        """Nothing is checked after a success."""
        watched = Dead()
        assert call(Service(), watch=[watched]) == "ready"
        assert watched.timeouts == []

    def test_mistakes_and_giveup_take_precedence_over_the_exit_of_a_container(self, call: Call) -> None:
        """They explain the failure better."""
        with pytest.raises(NameError):
            call(down(NameError("psycpg")), watch=[Dead()])
        with pytest.raises(OSError, match="wrong password"):
            call(down(OSError("wrong password")), giveup=lambda _: True, watch=[Dead()])

    def test_a_check_is_limited_to_the_remaining_time(self, call: Call) -> None:
        """It has at least half a second, so that the engine can answer."""
        watched = Dead(checks=10**6)
        with pytest.raises(RetryTimeoutError):
            call(down(), watch=[watched], max_wait=0.02, wait=None)
        assert set(watched.timeouts) == {0.5}
        watched = Dead()
        with pytest.raises(ContainerExitedError):
            call(down(), watch=[watched], max_wait=40)
        assert 30 < watched.timeouts[0] <= 40

    def test_all_containers_are_checked_and_reported(self, call: Call) -> None:
        """Their states and last log lines are in the message of a timeout."""
        first, second = (Dead(checks=10, name=name) for name in "ab")
        with pytest.raises(RetryTimeoutError) as caught:
            call(down(), watch=[first, second], max_attempts=2)
        assert len(first.timeouts) == len(second.timeouts) == 2
        assert str(caught.value).splitlines()[1:] == [
            "  container 'a' (3f3f3f3f3f3f) of postgres:15 has ended with exit code 3",
            "  more: docker logs 3f3f3f3f3f3f; DOCKERTEST_KEEP=1 keeps the container",
            "    no space",
            "  container 'b' (3f3f3f3f3f3f) of postgres:15 has ended with exit code 3",
            "  more: docker logs 3f3f3f3f3f3f; DOCKERTEST_KEEP=1 keeps the container",
            "    no space",
        ]
        assert [report.name for report in caught.value.reports] == ["a", "b"]
        assert {report.attempts for report in caught.value.reports} == {2}
        assert caught.value.report == caught.value.reports[0]

    def test_on_does_not_apply_to_the_exit_of_a_container(self, call: Call) -> None:
        """It names only exceptions of the operation."""
        with pytest.raises(ContainerExitedError):
            call(down(), on=(Exception, ContainerExitedError), watch=[Dead()])


class Held:
    """Something that an exception refers to."""


def test_a_success_releases_the_last_failure(call: Call) -> None:
    """
    A failed connection does not stay open.

    Otherwise it would stay open until the next garbage collection.
    """
    held: list[weakref.ref[Held]] = []

    def fails_once() -> str:
        mine = Held()
        held.append(weakref.ref(mine))
        if len(held) == 1:
            raise OSError("down", mine)
        return "ready"

    with without_collection():
        call(fails_once)
        assert [reference() for reference in held] == [None, None]


def test_after_a_time_out_only_the_error_refers_to_the_last_failure() -> None:
    """The failure is released together with the error."""

    def fails() -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        raise OSError("down", mine)

    held: list[weakref.ref[Held]] = []
    with without_collection():
        with contextlib.suppress(RetryTimeoutError):
            retry(fails, max_attempts=2)
        assert held[0]() is None


@contextlib.contextmanager
def without_collection() -> "Iterator[None]":
    """Disable the collector of reference cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_the_operation_is_called_in_the_callers_thread(call: Call) -> None:
    """A connection may belong to the thread that opened it."""
    assert call(threading.get_ident, max_wait=0) == threading.get_ident()


class Unprintable(Exception):
    """An exception whose `str` fails, as that of some drivers does after a fork."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


def test_an_exception_without_a_message_does_not_replace_the_time_out(call: Call) -> None:
    """The error contains the exception's class, and the exception is its cause."""
    failure = Unprintable()
    with pytest.raises(RetryTimeoutError, match=r"Unprintable: \(no message: .* RuntimeError\)$") as caught:
        call(down(failure), max_attempts=1)
    assert caught.value.__cause__ is failure


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("when", ["before", "during"])
def test_retry_needs_no_file_descriptor(when: str) -> None:
    """A late import would fail and hide the error of the operation."""
    code = f"""
import os, resource, sys, dockertest
retry, files = dockertest.retry, []
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

def exhaust():
    while True:
        files.append(os.open(os.devnull, os.O_RDONLY))

def connect():
    if not files or {when!r} == "before":
        exhaust()
    raise ConnectionError("down")

if {when!r} == "before":
    try:
        exhaust()
    except OSError:
        pass
assert "backoff" not in sys.modules
try:
    retry(connect, max_attempts=3)
except dockertest.RetryTimeoutError as error:
    os.write(1, repr(error.attempts).encode())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("3", "")


class TestAsync:
    """Behaviour that is specific to coroutine functions."""

    def test_an_attempt_that_ignores_its_cancellation_ends_the_wait(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The wait ends in time; no second call is made while the first one is running."""
        calls = 0

        async def ignores_cancellation() -> None:
            nonlocal calls
            calls += 1
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()
            raise OSError("too late")

        async def main() -> None:
            began = time.monotonic()
            try:
                with pytest.raises(RetryTimeoutError, match="ignored its cancellation") as caught:
                    await retry_async(ignores_cancellation, attempt_timeout=0.05, max_wait=0.2)
                assert 0.2 <= time.monotonic() - began < 5
                assert caught.value.attempts == calls == 1
            finally:
                released.set()

        released = asyncio.Event()
        asyncio.run(main())
        gc.collect()
        assert not caplog.records

    def test_an_attempt_that_ends_late_is_followed_by_another(self) -> None:
        """A cancelled call may close its connection before the next one."""
        ended = 0

        async def closes_slowly() -> str:
            nonlocal ended
            if ended:
                return "ready"
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                ended += 1
            return "never"

        assert asyncio.run(retry_async(closes_slowly, attempt_timeout=0.01, max_wait=30)) == "ready"
        assert ended == 1

    def test_trio_is_rejected_before_the_first_call(self) -> None:
        """The error used to be "no running event loop", after the first failed call."""
        service = Service()

        async def wait() -> None:
            await retry_async(awaited(service))

        with pytest.raises(InvalidOptionError, match="asyncio alone") as caught:
            trio.run(wait)
        assert "trio.to_thread.run_sync" in caught.value.hint
        assert not service.called

    def test_trio_as_a_guest_of_asyncio_is_rejected(self) -> None:
        """An event loop is running, but the tasks are trio's."""

        async def host() -> object:
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            trio.lowlevel.start_guest_run(
                retry_async,
                awaited(Service()),
                run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
                done_callback=done.set_result,
            )
            return (await done).unwrap()

        with pytest.raises(InvalidOptionError, match="asyncio alone"):
            asyncio.run(host())

    def test_other_tasks_keep_running(self) -> None:
        """Neither a pause nor a request to the engine blocks them."""

        class Slow:
            def check_alive(self, timeout: float) -> None:
                assert went_on.wait(10)

            def report(self) -> Report:
                pytest.fail("the operation succeeded")

        went_on = threading.Event()

        async def other() -> None:
            went_on.set()

        async def main() -> object:
            waiting = asyncio.ensure_future(retry_async(awaited(Service(False)), watch=[Slow()]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await other()
            return await waiting

        assert asyncio.run(main()) == "ready"

    def test_an_attempt_that_takes_too_long_means_not_ready(self) -> None:
        """It is cancelled, and `on` need not name `TimeoutError`."""
        cancelled: list[bool] = []

        async def hangs_once() -> str:
            if cancelled:
                return "ready"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return "never"

        assert asyncio.run(retry_async(hangs_once, attempt_timeout=0.01, on=OSError)) == "ready"
        assert cancelled == [True]

    def test_the_last_attempt_that_took_too_long_is_the_cause(self) -> None:
        """The message contains the time limit."""

        async def hangs() -> None:
            await asyncio.Event().wait()

        with pytest.raises(RetryTimeoutError, match=r"the call took longer than 0\.01 s") as caught:
            asyncio.run(retry_async(hangs, attempt_timeout=0.01, max_attempts=2))
        assert isinstance(caught.value.__cause__, TimeoutError)

    def test_a_timeout_error_of_the_operation_is_raised(self) -> None:
        """It is unrelated to `attempt_timeout`."""
        with pytest.raises(TimeoutError, match="mine") as caught:
            asyncio.run(retry_async(awaited(down(TimeoutError("mine"))), attempt_timeout=10, on=KeyError))
        assert not isinstance(caught.value, RetryTimeoutError)

    @pytest.mark.parametrize("value", [-1, "1", float("nan"), True, 10**400])
    def test_an_invalid_attempt_timeout_is_rejected(self, value: Any) -> None:
        """The message begins with the option's name."""
        with pytest.raises(InvalidOptionError, match=r"^attempt_timeout must be"):
            asyncio.run(retry_async(awaited(Service()), attempt_timeout=value))

    @pytest.mark.parametrize("options", [{}, {"attempt_timeout": 60}], ids=["plain", "with-attempt-timeout"])
    def test_a_plain_function_is_rejected_immediately(self, options: Any) -> None:
        """Each further call would open another connection."""
        service: Any = Service()
        with pytest.raises(InvalidOptionError, match=r"^op must be a coroutine function: it returned a str"):
            asyncio.run(retry_async(service, **options))
        assert len(service.called) == 1

    def test_retry_rejects_a_coroutine_function(self) -> None:
        """The coroutine would count as a result."""
        with pytest.raises(InvalidOptionError, match=r"^op is a coroutine function; use retry_async$"):
            retry(awaited(down()))

    @pytest.mark.parametrize("options", [{}, {"attempt_timeout": 60}], ids=["plain", "with-attempt-timeout"])
    def test_cancelling_the_wait_cancels_the_call(self, options: Any) -> None:
        """Nothing keeps running."""
        ended = []

        async def hangs() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        async def main() -> None:
            waiting = asyncio.ensure_future(retry_async(hangs, **options))
            for _ in range(3):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(main())
        assert ended == [True]

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_cancelled_wait_ends_after_the_call(self, times: int) -> None:
        """
        The call may have a connection to close.

        Cancelling the wait twice does not change this.
        """
        events: list[str] = []

        async def closes_slowly() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                closing.set()
                for _ in range(20):
                    await asyncio.sleep(0)
                events.append("closed")

        async def main() -> None:
            waiting = asyncio.ensure_future(retry_async(closes_slowly, attempt_timeout=60))
            await started.wait()
            waiting.cancel()
            if times == 2:
                await closing.wait()
                waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            events.append("continued")

        started, closing = asyncio.Event(), asyncio.Event()
        asyncio.run(main())
        assert events == ["closed", "continued"]

    def test_a_cancelled_wait_does_not_depend_on_the_call(self) -> None:
        """A call that ignores its cancellation is left running."""

        async def ignores_cancellation() -> None:
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

        async def main() -> None:
            waiting = asyncio.ensure_future(retry_async(ignores_cancellation, attempt_timeout=60))
            for _ in range(3):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            released.set()

        released = asyncio.Event()
        asyncio.run(main())

    def test_a_result_at_the_time_out_is_returned(self) -> None:
        """A client that finishes its handshake is used, and not replaced by another one."""
        opened = []

        async def connects() -> str:
            opened.append(True)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "connection"

        assert asyncio.run(retry_async(connects, attempt_timeout=0.01, max_wait=30)) == "connection"
        assert opened == [True]

    def test_an_error_during_cancellation_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """A driver may fail to close its connection."""

        async def hangs() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("already closed")

        with pytest.raises(RetryTimeoutError, match="took longer"):
            asyncio.run(retry_async(hangs, attempt_timeout=0.01, max_attempts=1))
        gc.collect()
        assert not caplog.records


def awaited(op: Callable[[], object]) -> "Callable[[], Awaitable[object]]":
    """Return a coroutine function that calls a function."""

    async def call() -> object:
        return op()

    return call


def test_an_engine_error_means_not_ready(call: Call) -> None:
    """The engine may be busy, or still starting."""
    assert call(Service(EngineError("busy", status=500))) == "ready"
