"""
Detect code that has interrupted this package, such as a signal handler.

The most important case is a handler that closes a pool. Python runs a signal handler between two instructions of the
main thread, and a finalizer between two of any thread. The interrupted code may hold a lock that is not reentrant, such
as the one of a connection pool in urllib3, and cannot release it before the handler returns. So the functions that a
handler may call must not wait for it: they use a connection of their own, start no thread that could need the lock, and
take no lock that another thread may hold while it waits.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from types import CodeType, FrameType

# Whose locks may be held. A user's callback is called by other modules, such as `_retry`, which hold none.
_LOCKING = (
    "dockertest._cleanup",
    "dockertest._containers",
    "dockertest._engine",
    "dockertest._images",
    "docker.",
    "requests.",
    "urllib3.",
    "logging",
)
_PACKAGE = ("dockertest", "docker.", "requests.", "urllib3.")


def interrupts_package() -> bool:
    """
    Return whether this call comes from code that has interrupted this package.

    An interrupted library below the package counts too.
    """
    return any(module.startswith(_LOCKING) for module, _ in interrupted_frames())


def interrupted_frames() -> Iterator[tuple[str, FrameType]]:
    """
    Yield the modules and frames outside of this call into the package.

    These may have been interrupted. The innermost one comes first.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.currentframe() imports slow modules
    was_outside = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if was_outside:
            yield module, frame
        # The standard library stands between parts of the package too, for instance contextlib.
        elif not module.startswith(_PACKAGE) and module.partition(".")[0] not in sys.stdlib_module_names:
            was_outside = True
        frame = frame.f_back


def is_of_handler(error: BaseException) -> bool:
    """
    Return whether a signal handler raised *error*.

    A handler of SIGALRM does so, for example, to limit the time of a test.
    """
    handlers = _handlers()
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def _handlers() -> set[CodeType]:
    """Return the code of the signal handlers of this process."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    functions = [
        getattr(handler, "func", handler) for handler in handlers if callable(handler)
    ]  # of a partial
    functions = [
        function if hasattr(function, "__code__") else getattr(function, "__call__", None)  # noqa: B004 - its code
        for function in functions
    ]
    codes = {getattr(getattr(function, "__func__", function), "__code__", None) for function in functions}
    return {code for code in codes if code is not None}
