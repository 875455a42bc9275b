"""Calling something until it works: the same for functions and for coroutine functions."""

import asyncio
import contextlib
import gc
import itertools
import pickle
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import backoff
import pytest

from dockertest import (
    ContainerExitedError,
    EngineError,
    InvalidOptionError,
    NotInNetworkError,
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
    """Wait for *op* as a coroutine function, in an event loop of its own."""

    async def awaited() -> object:
        return op()

    return asyncio.run(retry_async(awaited, **options))


@pytest.fixture(params=[retry, in_a_loop], ids=["retry", "retry_async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Both ways to wait; without pauses, where a test does not give some or `wait=None` for the default."""

    def waited(op: Callable[[], object], **options: Any) -> object:
        return request.param(op, **{"wait": no_pause, "max_wait": 5, **options})

    return waited


class Service:
    """
    What is waited for: fails as often as it is told, then gives its answer.

    Attributes:
        failures: What goes wrong: an exception to raise, or a value to give; the last one for ever, if there is no answer.
        called: When it was called, by the monotonic clock.
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
        """The seconds between one call and the next."""
        return [after - before for before, after in itertools.pairwise(self.called)]


def down(failure: object = ConnectionRefusedError("refused")) -> Service:
    """Give a service that never works."""
    return Service(failure, heals=False)


def no_pause() -> "Iterator[float]":
    """Try again at once."""
    return itertools.repeat(0.0)


def test_what_is_returned_is_given_back(call: Call) -> None:
    """So that the connection which worked is the one in use."""
    answer = object()
    assert call(Service(answer=answer)) is answer


def test_it_goes_on_until_the_call_returns(call: Call) -> None:
    """An exception means not yet."""
    service = Service(ConnectionRefusedError("refused"), OSError("reset"), ValueError("half a handshake"))
    assert call(service, max_wait=10) == "ready"
    assert len(service.called) == 4


@pytest.mark.parametrize("answer", [None, 0, "", [], 0.0], ids=repr)
def test_only_false_itself_means_not_yet(call: Call, answer: object) -> None:
    """Zero, nothing and an empty answer are answers."""
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
    """Waiting does not mend the program."""

    def test_a_mistake_ends_the_wait_at_once(self, call: Call, mistake: Exception) -> None:
        """As itself, after the one call."""
        service = down(mistake)
        with pytest.raises(type(mistake)) as caught:
            call(service, max_wait=10)
        assert caught.value is mistake
        assert len(service.called) == 1

    def test_it_does_so_though_a_base_of_it_is_named(self, call: Call, mistake: Exception) -> None:
        """`on=ValueError` does not name `InvalidOptionError`."""
        service = down(mistake)
        with pytest.raises(type(mistake)):
            call(service, max_wait=10, on=(LookupError, OSError, ValueError, Exception))
        assert len(service.called) == 1

    def test_it_means_not_yet_when_it_is_named(self, call: Call, mistake: Exception) -> None:
        """Alone, or among others."""
        assert call(Service(mistake, mistake), on=type(mistake)) == "ready"
        assert call(Service(mistake, OSError()), on=(OSError, type(mistake))) == "ready"


def test_what_is_not_named_ends_the_wait(call: Call) -> None:
    """`on` says which exceptions mean not yet; any other comes out."""
    service = Service(ConnectionError("a"), KeyError("b"))
    with pytest.raises(KeyError, match="b"):
        call(service, on=ConnectionError)
    assert len(service.called) == 2


def test_several_may_be_named(call: Call) -> None:
    """As a tuple, as in an `except` clause; their subclasses count."""
    assert call(Service(ConnectionResetError(), KeyError("a")), on=(ConnectionError, KeyError)) == "ready"


def test_with_none_named_only_false_means_not_yet(call: Call) -> None:
    """An empty tuple names nothing."""
    assert call(Service(False), on=()) == "ready"
    with pytest.raises(OSError, match="down"):
        call(down(OSError("down")), on=())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure(failure: "type[BaseException]") -> None:
    """Ctrl-C ends the wait as what it is."""
    service = down(failure())
    with pytest.raises(failure):
        retry(service)
    assert len(service.called) == 1


def test_giving_up_raises_the_failure_itself(call: Call) -> None:
    """What was raised, not a time-out."""
    wrong = PermissionError("password authentication failed")
    service = Service(OSError("starting up"), wrong)
    with pytest.raises(PermissionError) as caught:
        call(service, giveup=lambda failure: isinstance(failure, PermissionError))
    assert caught.value is wrong
    assert len(service.called) == 2


def test_giving_up_is_asked_of_exceptions_alone(call: Call) -> None:
    """`False` is none; and in the caller's thread, in an event loop as well."""
    asked: list[object] = []
    first, second = OSError("a"), OSError("b")
    call(Service(first, False, second), giveup=lambda failure: asked.extend([failure, threading.get_ident()]))
    assert asked == [first, threading.get_ident(), second, threading.get_ident()]


def test_attempts_are_counted(call: Call) -> None:
    """After so many calls it is over, whatever time is left."""
    service = down()
    with pytest.raises(RetryTimeoutError, match="3 attempts") as caught:
        call(service, max_attempts=3, max_wait=60)
    assert len(service.called) == 3
    assert caught.value.attempts == 3
    assert caught.value.elapsed < 10


def test_one_attempt_is_one_call(call: Call) -> None:
    """And no pause after it."""
    with pytest.raises(
        RetryTimeoutError, match=r"gave up after \d\.\d s and 1 attempt: ConnectionRefusedError"
    ):
        call(down(), max_attempts=1, wait=lambda: itertools.repeat(60.0))


def test_no_time_is_one_attempt(call: Call) -> None:
    """`max_wait=0` asks once."""
    service = down()
    with pytest.raises(RetryTimeoutError) as caught:
        call(service, max_wait=0)
    assert len(service.called) == 1
    assert caught.value.attempts == 1
    assert call(Service(), max_wait=0) == "ready"


def test_a_time_out_tells_attempts_seconds_and_the_last_failure(call: Call) -> None:
    """In its text, in its attributes and as its cause."""
    last = ConnectionRefusedError("connection refused on 5432")
    service = Service(OSError("first"), last, heals=False)
    began = time.monotonic()
    with pytest.raises(RetryTimeoutError) as caught:
        call(service, max_wait=0.06, wait=None)
    assert caught.value.__cause__ is last
    assert caught.value.attempts == len(service.called)
    assert 0.06 <= caught.value.elapsed <= time.monotonic() - began
    assert str(caught.value) == (
        f"gave up after {caught.value.elapsed:.1f} s and {caught.value.attempts} attempts: "
        "ConnectionRefusedError: connection refused on 5432"
    )


def test_a_time_out_is_a_timeout_error(call: Call) -> None:
    """Who catches `TimeoutError` catches it, and it can be sent between processes."""
    with pytest.raises(TimeoutError) as caught:
        call(down(), max_attempts=1)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.attempts) == (str(caught.value), 1)


def test_a_time_out_after_false_has_no_cause(call: Call) -> None:
    """Not even the exception before it."""
    with pytest.raises(RetryTimeoutError, match="the call returned False") as caught:
        call(Service(OSError("before"), False, heals=False), max_attempts=2)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_exception_without_words_is_named(call: Call) -> None:
    """Its class says what there is to say."""
    with pytest.raises(RetryTimeoutError, match=r"1 attempt: TimeoutError:$"):
        call(down(TimeoutError()), max_attempts=1)


def test_the_last_pause_is_cut_to_the_deadline(call: Call) -> None:
    """One more call just before the time is up, and then the end."""
    service = down()
    began = time.monotonic()
    with pytest.raises(RetryTimeoutError):
        call(service, max_wait=0.04, wait=lambda: itertools.repeat(60.0))
    assert time.monotonic() - began < 2
    assert len(service.called) == 2
    assert service.called[1] - began >= 0.04


def test_time_spent_in_the_call_counts(call: Call) -> None:
    """A call that takes longer than there is time is the last."""

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
        (lambda: (each and each / 200 for each in backoff.fibo()), [0.005, 0.005, 0.01, 0.015]),
        (lambda: backoff.expo(factor=0.005), [0.005, 0.01, 0.02]),
        (lambda: backoff.expo(base=3, factor=0.005, max_value=0.01), [0.005, 0.01, 0.01]),
        (lambda: (0.01, 0, 0.005), [0.01, 0, 0.005]),
    ],
    ids=["iterator", "with-none", "constant", "fibo", "expo", "expo-capped", "tuple"],
)
def test_the_pauses_are_those_given(call: Call, wait: Any, pauses: "list[float]") -> None:
    """In seconds; what is `None` is skipped, such as the first value of `backoff`'s generators."""
    service = Service(*[False] * len(pauses))
    call(service, wait=wait, max_wait=60)
    assert len(service.pauses) == len(pauses)
    for waited, pause in zip(service.pauses, pauses, strict=True):
        assert waited >= pause - 0.002
        assert waited < pause + 1


def test_pauses_begin_anew_with_every_wait(call: Call) -> None:
    """`wait` is called for each."""
    for _ in range(2):
        service = Service(False)
        call(service, wait=lambda: iter([0.01]), max_wait=60)
        assert service.pauses[0] >= 0.008


def test_pauses_are_not_asked_for_where_none_is_made(call: Call) -> None:
    """The first call may be all there is."""
    assert call(Service(), wait=lambda: pytest.fail("no pause is needed")) == "ready"


def test_the_wait_ends_with_its_pauses(call: Call) -> None:
    """One call more than there are pauses; the last failure is the cause."""
    last = OSError("still down")
    service = down(last)
    with pytest.raises(RetryTimeoutError, match="3 attempts") as caught:
        call(service, wait=lambda: [None, 0, 0], max_wait=60)
    assert len(service.called) == 3
    assert caught.value.__cause__ is last


@pytest.mark.parametrize("pauses", [[], [None]])
def test_without_pauses_there_is_one_call(call: Call, pauses: "list[None]") -> None:
    """And its failure is told."""
    with pytest.raises(RetryTimeoutError, match="1 attempt: ConnectionRefusedError: refused"):
        call(down(), wait=lambda: pauses)


@pytest.mark.parametrize("op", [None, True, "postgresql://user:secret@host/db"])
def test_what_cannot_be_called_is_refused_at_once(op: Any) -> None:
    """As after `retry(connect())`, which else fails for a minute; its value may be a secret."""
    waits: list[Callable[[], object]] = [lambda: retry(op), lambda: asyncio.run(retry_async(op))]
    for wait in waits:
        with pytest.raises(InvalidOptionError, match=r"^op must be callable: .*retry\(connect\)") as caught:
            wait()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("pause", [-1, "0.1", float("nan"), float("inf"), True, 10**400])
def test_what_is_no_pause_is_refused(call: Call, pause: object) -> None:
    """It is a mistake in the program."""
    with pytest.raises(InvalidOptionError, match="wait: a pause must be a number of seconds"):
        call(down(), wait=lambda: [pause])


@pytest.mark.parametrize(
    "wait", [backoff.fibo(), iter([1.0]), [1.0], 0.5], ids=lambda wait: type(wait).__name__
)
def test_pauses_themselves_are_refused(call: Call, wait: object) -> None:
    """A generator would be used up by the first wait; the text says what to write."""
    with pytest.raises(InvalidOptionError, match=r"write wait=backoff\.fibo, not"):
        call(down(), wait=wait)


@pytest.mark.parametrize("pauses", [0.5, None, 10**5000], ids=["0.5", "None", "huge"])
def test_a_wait_that_gives_no_pauses_is_refused(call: Call, pauses: object) -> None:
    """A number is none."""
    with pytest.raises(InvalidOptionError, match="wait must give an iterator of seconds"):
        call(down(), wait=lambda: pauses)


@pytest.mark.parametrize("option", ["max_wait", "max_attempts", "on", "wait"])
@pytest.mark.parametrize(
    "value", ["1", -1, b"", object(), 10**5000], ids=["str", "-1", "bytes", "object", "huge"]
)
def test_bad_options_are_refused_before_the_first_call(call: Call, option: str, value: object) -> None:
    """By their name."""
    if option == "max_attempts" and value == 10**5000:
        return  # as good as for ever
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
def test_other_bad_options_are_refused(call: Call, option: str, value: object) -> None:
    """By their name."""
    with pytest.raises(InvalidOptionError, match=f"^{option} must be"):
        call(Service(), **{option: value})


def test_the_default_pauses_follow_the_time_waited() -> None:
    """10 ms at first, then 10 ms more than a twentieth of it at most, and never more than 0.5 s."""
    waited = 0.0
    pauses = [pause for pause in itertools.islice(default_wait(), 200) if pause is not None]
    assert pauses[0] == 0.01
    for pause in pauses:
        assert waited / 20 <= pause + 1e-9 or pause == 0.5
        assert pause <= min(0.5, 0.01 + waited / 20 + 1e-9)
        waited += pause
    assert pauses[-1] == 0.5


def test_a_ready_service_is_noticed_soon(call: Call) -> None:
    """By the clock: from one call to the next it is never much longer than a twentieth of the time waited."""
    ready_at = time.monotonic() + 0.15
    began = time.monotonic()
    called = []

    def is_ready() -> bool:
        called.append(time.monotonic())
        return time.monotonic() >= ready_at

    call(is_ready, max_wait=60, wait=None)
    late = [after - before - (0.01 + (before - began) / 20) for before, after in itertools.pairwise(called)]
    assert sorted(late)[len(late) // 2] < 0.02  # most of it is for a busy machine
    assert len(called) >= 5


def test_pauses_are_taken_from_the_failure_on() -> None:
    """What is asked about containers in between does not come on top."""

    class Slow:
        def _check_alive(self, within: float) -> None:
            time.sleep(0.03)

        def _reports(self) -> "tuple[Report, ...]":
            return ()

    service = Service(False, False)
    retry(service, wait=lambda: itertools.repeat(0.03), watch=[Slow()])
    assert min(service.pauses) < 0.055


class Dead:
    """Something watched that has ended, from a given question on."""

    def __init__(self, asked_before: int = 0, name: str = "pg") -> None:
        self.alive_for = asked_before
        self.report = Report(
            name=name, id="3f" * 32, image="postgres:15", status="exited", exit_code=3, logs="no space"
        )
        self.within: list[float] = []

    def _check_alive(self, within: float) -> None:
        self.within.append(within)
        if len(self.within) > self.alive_for:
            raise ContainerExitedError.of(self.report)

    def _reports(self) -> "tuple[Report, ...]":
        return (self.report,)


class TestWatching:
    """Something whose end ends the wait."""

    def test_an_end_ends_the_wait(self, call: Call) -> None:
        """With what there is to tell of it, and the last failure as context."""
        service = down()
        with pytest.raises(ContainerExitedError, match="exit code 3") as caught:
            call(service, watch=[Dead(asked_before=1)])
        assert (caught.value.exit_code, caught.value.logs) == (3, "no space")
        assert len(service.called) == 2

    def test_an_end_says_how_long_it_was_waited_for(self, call: Call) -> None:
        """In its text and in its report."""
        with pytest.raises(ContainerExitedError, match=r"\n  waited for: 3 attempts in 0\.\d s\n") as caught:
            call(down(), watch=[Dead(asked_before=2)])
        assert caught.value.report is not None
        assert caught.value.report.attempts == 3
        assert 0 < caught.value.report.elapsed < 5

    def test_an_end_without_a_report_is_told_as_it_is(self, call: Call) -> None:
        """What is watched may be somebody else's."""

        class Other(Dead):
            def _check_alive(self, within: float) -> None:
                raise ContainerExitedError("it is over")

        with pytest.raises(ContainerExitedError, match="it is over"):
            call(down(), watch=[Other()])

    def test_an_end_is_told_rather_than_the_time_out(self, call: Call) -> None:
        """Even if there was one attempt only: it is the reason."""
        with pytest.raises(ContainerExitedError):
            call(down(), watch=[Dead()], max_attempts=1, max_wait=0)

    def test_an_answer_counts_though_the_container_has_ended(self, call: Call) -> None:
        """Nobody asks then."""
        watched = Dead()
        assert call(Service(), watch=[watched]) == "ready"
        assert watched.within == []

    def test_a_mistake_and_giving_up_come_first(self, call: Call) -> None:
        """They say more about why it does not work."""
        with pytest.raises(NameError):
            call(down(NameError("psycpg")), watch=[Dead()])
        with pytest.raises(OSError, match="wrong password"):
            call(down(OSError("wrong password")), giveup=lambda _: True, watch=[Dead()])

    def test_the_engine_is_given_no_more_time_than_is_left(self, call: Call) -> None:
        """But half a second at least, so that it can answer at all."""
        watched = Dead(asked_before=10**6)
        with pytest.raises(RetryTimeoutError):
            call(down(), watch=[watched], max_wait=0.02, wait=None)
        assert set(watched.within) == {0.5}
        watched = Dead()
        with pytest.raises(ContainerExitedError):
            call(down(), watch=[watched], max_wait=40)
        assert 30 < watched.within[0] <= 40

    def test_each_is_asked_and_heard(self, call: Call) -> None:
        """The state and last log lines of all of them are in a time-out's text."""
        first, second = (Dead(asked_before=10, name=name) for name in "ab")
        with pytest.raises(RetryTimeoutError) as caught:
            call(down(), watch=[first, second], max_attempts=2)
        assert len(first.within) == len(second.within) == 2
        assert str(caught.value).splitlines()[1:] == [
            "  container 'a' (3f3f3f3f3f3f) of postgres:15 has ended with exit code 3",
            "  more: docker logs 3f3f3f3f3f3f; DOCKERTEST_KEEP=1 leaves it standing for a look",
            "    no space",
            "  container 'b' (3f3f3f3f3f3f) of postgres:15 has ended with exit code 3",
            "  more: docker logs 3f3f3f3f3f3f; DOCKERTEST_KEEP=1 leaves it standing for a look",
            "    no space",
        ]
        assert [each.name for each in caught.value.reports] == ["a", "b"]
        assert {each.attempts for each in caught.value.reports} == {2}
        assert caught.value.report == caught.value.reports[0]

    def test_the_end_of_one_ends_the_wait_whatever_is_named(self, call: Call) -> None:
        """`on` is about the call, not about what is watched."""
        with pytest.raises(ContainerExitedError):
            call(down(), on=(Exception, ContainerExitedError), watch=[Dead()])


class Held:
    """Something that an exception holds."""


def test_after_a_success_nothing_holds_the_last_failure(call: Call) -> None:
    """Else a connection that failed, or a caller's frame, would stay open with it until the garbage is collected."""
    held: list[weakref.ref[Held]] = []

    def fails_once() -> str:
        mine = Held()
        held.append(weakref.ref(mine))
        if len(held) == 1:
            raise OSError("down", mine)
        return "ready"

    with without_collection():
        call(fails_once)
        assert [each() for each in held] == [None, None]


def test_after_a_time_out_nothing_but_the_error_holds_the_last_failure() -> None:
    """It goes when the error goes."""

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
    """Let nothing go that only the collector of cycles would find."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_the_call_is_made_in_the_callers_thread(call: Call) -> None:
    """A connection may belong to the thread that opened it."""
    assert call(threading.get_ident, max_wait=0) == threading.get_ident()


class TestAsync:
    """What only a coroutine function has."""

    def test_other_tasks_go_on(self) -> None:
        """During a pause, and while the engine is asked."""

        class Slow:
            def _check_alive(self, within: float) -> None:
                assert went_on.wait(10)

            def _reports(self) -> "tuple[Report, ...]":
                return ()

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

    def test_an_attempt_that_takes_too_long_means_not_yet(self) -> None:
        """It is cancelled, and `TimeoutError` need not be named."""
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

    def test_the_last_overdue_attempt_is_the_cause(self) -> None:
        """In words that say how long it took."""

        async def hangs() -> None:
            await asyncio.Event().wait()

        with pytest.raises(RetryTimeoutError, match=r"the call took longer than 0\.01 s") as caught:
            asyncio.run(retry_async(hangs, attempt_timeout=0.01, max_attempts=2))
        assert isinstance(caught.value.__cause__, TimeoutError)

    def test_a_time_out_of_the_callers_own_is_told_apart(self) -> None:
        """`attempt_timeout` has nothing to do with what the call raises."""
        with pytest.raises(TimeoutError, match="mine") as caught:
            asyncio.run(retry_async(awaited(down(TimeoutError("mine"))), attempt_timeout=10, on=KeyError))
        assert not isinstance(caught.value, RetryTimeoutError)

    @pytest.mark.parametrize("value", [-1, "1", float("nan"), True, 10**400])
    def test_a_bad_attempt_timeout_is_refused(self, value: Any) -> None:
        """By its name."""
        with pytest.raises(InvalidOptionError, match=r"^attempt_timeout must be"):
            asyncio.run(retry_async(awaited(Service()), attempt_timeout=value))

    @pytest.mark.parametrize("options", [{}, {"attempt_timeout": 60}], ids=["plain", "with-attempt-timeout"])
    def test_what_is_no_coroutine_function_is_refused_at_once(self, options: Any) -> None:
        """A driver's plain function connects each time, and nobody would take the connection."""
        service: Any = Service()
        with pytest.raises(InvalidOptionError, match=r"^op must be a coroutine function: it gave a str"):
            asyncio.run(retry_async(service, **options))
        assert len(service.called) == 1

    def test_a_coroutine_function_is_refused_by_retry(self) -> None:
        """Nobody would await the first coroutine, and the wait be over before anything was asked."""
        with pytest.raises(InvalidOptionError, match=r"^op is a coroutine function; .* retry_async$"):
            retry(awaited(down()))

    @pytest.mark.parametrize("options", [{}, {"attempt_timeout": 60}], ids=["plain", "with-attempt-timeout"])
    def test_a_cancelled_wait_is_cancelled(self, options: Any) -> None:
        """And the call with it."""
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

    def test_what_goes_wrong_while_a_call_is_cancelled_is_nobodys_surprise(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A driver may fail to close its connection: the loop has nothing to complain about."""

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
    """Make a coroutine function of a function."""

    async def call() -> object:
        return op()

    return call


def test_an_error_of_ours_that_is_no_mistake_means_not_yet(call: Call) -> None:
    """An engine that is busy, or not there yet, may come back."""
    assert call(Service(EngineError("busy", status=500))) == "ready"
