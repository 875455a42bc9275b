"""
Limit pytest's report of a failed test to the user's own lines and the error.

A failed `retry` passes through a dozen frames of this package, and an engine that cannot be reached through hundreds of
lines of requests and urllib3. `pytest --full-trace` shows them all.

unittest has no means for this. Its `__unittest` hides only the last frames of an `AssertionError`, and with them the
failed assertion in a function that a user has passed to `retry`. `DockerTestCase` therefore hands over tracebacks
without these frames.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from dockertest.errors import DockertestError, RetryTimeoutError

_PACKAGE = __name__.partition(".")[0]


class Caught(Protocol):
    """What pytest passes to `__tracebackhide__`: an `ExceptionInfo`."""

    @property
    def value(self) -> BaseException:
        """The exception."""
        ...


@contextmanager
def shortened(error: BaseException) -> Iterator[None]:
    """
    Hide frames of this package from a report that is made in the block.

    The report is that of *error*. Causes inside the package are hidden too.
    """
    for name, module in list(sys.modules.items()):
        if _is_ours(name):
            vars(module).setdefault("__tracebackhide__", _is_hidden)
    hidden = [
        (raised, raised.__cause__)
        for raised in _chain(error)
        # The cause of a timeout is the user's own exception. Other causes come from the libraries below this package, and
        # the message contains their text.
        if isinstance(raised, DockertestError)
        and not isinstance(raised, RetryTimeoutError)
        and raised.__cause__
    ]
    try:
        for raised, _ in hidden:
            raised.__cause__ = None
        yield
    finally:
        for raised, cause in hidden:
            raised.__cause__ = cause


@contextmanager
def trimmed(error: BaseException) -> Iterator[None]:
    """
    Leave frames of this package out of the tracebacks of *error* in the block.

    This includes the errors that led to *error*.
    """
    with shortened(error):
        tracebacks = [(raised, raised.__traceback__) for raised in _chain(error)]
        try:
            for raised, traceback in tracebacks:
                if not _is_bug(raised):
                    raised.__traceback__ = _without_our_frames(traceback) or traceback
            yield
        finally:
            for raised, traceback in tracebacks:
                raised.__traceback__ = traceback


def _without_our_frames(traceback: TracebackType | None) -> TracebackType | None:
    """
    Return a copy of a traceback without the frames of this package.

    The frames of the context managers between them are left out too.
    """
    kept = []
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if not _is_ours(module) and module != "contextlib":
            kept.append(traceback)
        traceback = traceback.tb_next
    copy = None
    for frame in reversed(kept):
        copy = TracebackType(copy, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return copy


def _is_hidden(caught: Caught) -> bool:
    """Return whether to hide a frame of this package."""
    return not _is_bug(caught.value)


def _is_bug(error: BaseException) -> bool:
    """
    Return whether this package itself has failed.

    Its frames then belong in the bug report. The error of a driver is not a bug, even if its own frames were removed.
    """
    package = type(error).__module__.partition(".")[0]
    is_of_driver = package != _PACKAGE and package not in sys.stdlib_module_names
    return not (isinstance(error, DockertestError) or is_of_driver) and _is_ours(_innermost_module(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an exception, those in its group, and those that led to it."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        raised = pending.pop()
        if raised is None or id(raised) in seen:
            continue
        seen.add(id(raised))
        yield raised
        pending += [raised.__cause__, raised.__context__]
        if isinstance(raised, BaseExceptionGroup):
            pending += raised.exceptions


def _innermost_module(error: BaseException) -> str:
    """Return the name of the module in which an exception was raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__", ""))


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE
