"""Threads that need the same image share one attempt to obtain it; no engine."""

import threading

import pytest

from dockertest._images.single_flight import SingleFlight
from dockertest.errors import ImagePullError


class Calls:
    """A function for several threads, which blocks until an event is set."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.flight: SingleFlight[str] = SingleFlight()
        self.count = 0
        self.error = error
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.results: list[object] = []

    def function(self) -> str:
        self.count += 1
        self.started.set()
        assert self.go_on.wait(10)
        if self.error and self.count == 1:
            raise self.error
        return "result"

    def call(self) -> None:
        try:
            self.results.append(self.flight.call("key", self.function))
        except BaseException as error:  # noqa: BLE001 - the test inspects it
            self.results.append(error)

    def run(self) -> None:
        """
        Call the function in four threads.

        The others start after the first has entered it.
        """
        threads = [threading.Thread(target=self.call) for _ in range(4)]
        threads[0].start()
        assert self.started.wait(10)
        for thread in threads[1:]:
            thread.start()
        self.go_on.set()
        for thread in threads:
            thread.join()


def test_threads_share_a_result() -> None:
    """Threads that arrive during the first call do not make another."""
    calls = Calls()
    calls.run()
    assert calls.results == ["result"] * 4
    assert calls.count <= 4


def test_threads_share_an_error_with_its_attributes() -> None:
    """
    Each raises a separate exception object.

    A traceback belongs to one thread.
    """
    calls = Calls(ImagePullError("no", hint="try"))
    threads = [threading.Thread(target=calls.call) for _ in range(4)]
    threads[0].start()
    assert calls.started.wait(10)
    waiting = calls.flight._flights
    (flight,) = waiting.values()
    for thread in threads[1:]:
        thread.start()
    while len(flight.future._condition._waiters) < 3:  # type: ignore[attr-defined]
        pass
    calls.go_on.set()
    for thread in threads:
        thread.join()
    assert [str(error) for error in calls.results] == ["no; try"] * 4
    assert len({id(error) for error in calls.results}) == 4


def test_after_an_interruption_another_thread_calls() -> None:
    """Ctrl-C in one thread does not fail the others."""
    calls = Calls(KeyboardInterrupt())
    calls.run()
    assert calls.results.count("result") == 3


def test_a_nested_call_does_not_wait_for_the_outer_one() -> None:
    """A signal handler may need the image that the interrupted code is obtaining."""
    flight: SingleFlight[str] = SingleFlight()
    assert flight.call("key", lambda: flight.call("key", lambda: "inner") + " outer") == "inner outer"


def test_results_are_not_cached() -> None:
    """Nothing is stored after the call."""
    flight: SingleFlight[int] = SingleFlight()
    with pytest.raises(ZeroDivisionError):
        flight.call("key", lambda: 1 // 0)
    assert flight.call("key", lambda: 2) == 2
    assert not flight._flights
