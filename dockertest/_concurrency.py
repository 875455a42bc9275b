"""Run calls in threads: several at the same time, or one beside an event loop."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def start_thread(work: Callable[[], object], name: str = "dockertest") -> threading.Thread | None:
    """
    Run *work* in a thread of its own; return `None` if no thread can be started.

    Python starts no more threads while the interpreter shuts down, and the system when there are too many. The thread
    is a daemon: after Ctrl-C the process must not wait for the engine.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def run_in_parallel(calls: Sequence[Callable[[], T]], workers: int = 16) -> list[T | Exception]:
    """
    Make *calls* in parallel, and return their results or exceptions in order.

    Where no thread can be started, the calls are made one after another.

    Other exceptions than `Exception`, such as that of `pytest.fail`, are raised: at once those of the caller's thread, such
    as that of Ctrl-C, and the first one of other threads after all calls.
    """
    results: list[Any] = [RuntimeError("was not called")] * len(calls)
    todo = deque(range(len(calls)))

    def work(caught: type[BaseException]) -> None:
        with suppress(IndexError):
            while True:
                call(todo.popleft(), caught)

    def call(index: int, caught: type[BaseException]) -> None:
        try:
            results[index] = calls[index]()
        except caught as error:
            results[index] = error

    threads = []
    try:
        for _ in range(min(workers, len(calls)) - 1):
            if thread := start_thread(partial(work, BaseException)):
                threads.append(thread)
        work(Exception)
        for thread in threads:
            thread.join()
    finally:
        todo.clear()  # After Ctrl-C no further call begins.
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
    return results


async def call_in_thread(call: Callable[[], T]) -> T:
    """
    Run *call* in a thread while the event loop continues, and return its result.

    `asyncio.to_thread` shares its threads with the user's program, which may keep all of them busy. If the awaiting
    task is cancelled, *call* continues and its result is dropped.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            settle = partial(outcome.set_result, context.run(call))
        except BaseException as error:  # noqa: BLE001 - raised by the awaiting task
            settle = partial(outcome.set_exception, error)
        with suppress(RuntimeError):  # The loop has been closed.
            loop.call_soon_threadsafe(deliver, settle)

    def deliver(settle: Callable[[], None]) -> None:
        if not outcome.done():
            settle()

    if start_thread(work) is None:
        return call()
    return await outcome


async def sleep_async(seconds: float) -> None:
    """
    Pause the current task.

    `asyncio.sleep` goes by the loop's clock, which freezegun stops and which test loops move; a thread goes by the real
    one.
    """
    import asyncio

    if seconds <= 0:
        await asyncio.sleep(0)
        return
    stop = threading.Event()
    try:
        await call_in_thread(lambda: stop.wait(seconds))
    finally:
        stop.set()
