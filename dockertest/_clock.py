"""
The real clocks, which a test that mocks time cannot change.

Tests freeze or move time with freezegun, pytest-freezer or time-machine, and replace `time.sleep` to save time. A wait
for a container lasts as long as it lasts, and an expiry time written on a container is read by other processes, so this
package never uses the functions of the `time` module directly.

freezegun and `monkeypatch` replace attributes of modules. The functions below belong to a second instance of the built-in
`time` module, which is in no module that they look at. time-machine replaces the C function behind `time.time`, which
both instances share; it leaves `time.monotonic` and the clocks other than `CLOCK_REALTIME` as they are.

libfaketime replaces functions of the C library, and with them all clocks. What it sets is in the environment:
python-libfaketime sets it for the duration of a test, and leaves the monotonic clock as it is; the command `faketime` sets
it for a whole program, and changes that clock too. The files of the kernel below `/proc` are then the only real clocks.

gevent replaces `time.sleep` so that other greenlets run meanwhile, and its function is used then.
"""

from __future__ import annotations

import os
import sys
import time as _public
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

# Linux keeps this second copy of the wall clock, up to 10 ms behind. Python has no name for it (linux/time.h).
_CLOCK_REALTIME_COARSE = 5
_COARSE_SECONDS = 0.1

_FAKETIME_VARIABLES = ("FAKETIME", "FAKETIME_TIMESTAMP_FILE")

# Between two looks at a process, as in `Popen.wait`.
_FIRST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.05

if TYPE_CHECKING:
    import time as _private
else:

    def _second_instance():
        """Return a second instance of `time`, or the first where there can be only one."""
        try:
            spec = _public.__spec__
            module = spec.loader.create_module(spec)
            spec.loader.exec_module(module)
        except (AttributeError, ImportError):
            return _public
        return module

    _private = _second_instance()


def sleep(seconds: float) -> None:
    """Pause this thread, or this greenlet if gevent has patched `time.sleep`."""
    if is_cooperative():
        sys.modules["gevent"].sleep(seconds)
    else:
        _private.sleep(seconds)


def is_cooperative() -> bool:
    """
    Return whether threads are greenlets of gevent.

    All of them wait while one of them waits in the kernel.
    """
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_object_patched("time", "sleep"))


def monotonic() -> float:
    """
    Return the time in seconds of a clock that cannot be set.

    The first call chooses the clock for this process.
    """
    chosen = _seconds_since_boot if _is_monotonic_faked() else _private.monotonic
    globals()["monotonic"] = chosen
    return chosen()


def time() -> float:
    """Return the wall clock's time in seconds since 1970."""
    if _is_faked():
        return _boot_time() + _seconds_since_boot()
    now = _private.time()
    real = _unmocked_time()
    # The unmocked time is coarse, so it is used only where the two disagree.
    return now if abs(now - real) < _COARSE_SECONDS else real


def is_mocked() -> bool:
    """Return whether others see a wall clock that is more than a second off."""
    return abs(_public.time() - time()) > 1.0


def _is_faked() -> bool:
    """Return whether libfaketime changes the wall clock."""
    return sys.platform == "linux" and not os.environ.keys().isdisjoint(_FAKETIME_VARIABLES)


def _is_monotonic_faked() -> bool:
    """
    Return whether libfaketime changes the monotonic clock.

    It does so from the start of a program or never.
    """
    return (
        _is_faked()
        and os.environ.get("DONT_FAKE_MONOTONIC") != "1"
        and "faketime" in os.environ.get("LD_PRELOAD", "")
    )


def _seconds_since_boot() -> float:
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])


def _boot_time() -> int:
    """Return when the kernel started, in seconds since 1970."""
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime "))


def _unmocked_time() -> float:
    """Return the time of a clock that time-machine leaves alone."""
    if sys.platform == "linux":
        try:
            return _private.clock_gettime(_CLOCK_REALTIME_COARSE)
        except OSError:  # a kernel or sandbox without this clock
            pass
    time_machine = sys.modules.get("time_machine")
    if time_machine and time_machine.escape_hatch.is_travelling():
        return float(time_machine.escape_hatch.time.time())
    return _private.time()


class Process(Protocol):
    """A process that can be asked whether it has ended, such as `subprocess.Popen`."""

    def poll(self) -> int | None:
        """Return the exit code, or `None` while the process is running."""


def wait_for_exit(process: Process, timeout: float) -> int | None:
    """
    Wait for a process to end, and return its exit code.

    The result is `None` if the process is still running after *timeout* seconds. `Popen.wait` measures its timeout with
    a clock that freezegun replaces, and would wait forever in frozen time.
    """
    deadline = monotonic() + timeout
    pause = _FIRST_PAUSE_SECONDS
    while (code := process.poll()) is None and (left := deadline - monotonic()) > 0:
        sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    return code
