"""Let concurrent threads that need the same thing share one attempt to get it."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Flight(Generic[T]):
    future: Future[T] = field(default_factory=Future)
    thread: int = field(default_factory=threading.get_ident)


class SingleFlight(Generic[T]):
    """
    Calls in progress, by key.

    There is no lock that could be held while the process forks or a signal handler runs. A forked child does not wait
    for the threads of its parent, which it does not have, and a signal handler not for the code that it interrupts.
    """

    def __init__(self) -> None:
        self._flights: dict[tuple[int, Hashable], _Flight[T]] = {}

    def call(self, key: Hashable, function: Callable[[], T]) -> T:
        """
        Return the result of *function*, or of a call in progress for the same key.

        An exception is raised in all threads. But if the calling thread was interrupted, the others try again.
        """
        place = (os.getpid(), key)
        own: _Flight[T] = _Flight()
        while (flight := self._flights.setdefault(place, own)) is not own:
            if flight.thread == own.thread:  # a signal handler has interrupted the call
                return function()
            try:
                return flight.future.result()
            except CancelledError:
                continue
            except Exception as error:
                raise copy.copy(error) from error
        try:
            result = function()
            own.future.set_result(result)
        except Exception as error:
            own.future.set_exception(error)
            raise
        finally:
            del self._flights[place]
            own.future.cancel()  # has no effect once there is a result or an exception
        return result
