"""The package's clock measures real time while a test mocks time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from freezegun import freeze_time
from time_machine import travel

from dockertest import _clock

LONG_AGO = datetime(2001, 9, 9, tzinfo=UTC)
Mock = Callable[[], AbstractContextManager[object]]


def frozen() -> AbstractContextManager[object]:
    """Stop the clocks with freezegun, as pytest-freezer does."""
    return freeze_time(LONG_AGO)


def travelling() -> AbstractContextManager[object]:
    """Move the clocks with time-machine, and stop them."""
    return travel(LONG_AGO, tick=False)


mocks = pytest.mark.parametrize("mock", [frozen, travelling])


@mocks
def test_time_is_real(mock: Mock) -> None:
    """The wall clock is not affected by a mock."""
    before = time.time()
    with mock():
        assert time.time() == LONG_AGO.timestamp()
        assert before - 0.1 <= _clock.time() < before + 60


@mocks
def test_monotonic_is_real(mock: Mock) -> None:
    """A duration that is measured in mocked time is the real one."""
    with mock():
        began = _clock.monotonic()
        _clock.sleep(0.02)
        assert 0.02 <= _clock.monotonic() - began < 60


@mocks
def test_mocked_time_is_detected(mock: Mock) -> None:
    """Other libraries use the mocked clock."""
    assert not _clock.is_mocked()
    with mock():
        assert _clock.is_mocked()
    assert not _clock.is_mocked()


def test_a_mocked_sleep_still_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests often replace `time.sleep` to run faster."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    began = _clock.monotonic()
    _clock.sleep(0.02)
    assert _clock.monotonic() - began >= 0.02


def test_other_greenlets_run_while_retry_pauses() -> None:
    """One of them may be the server that a test waits for."""
    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import dockertest, gevent\n"
        "ready = []\n"
        "gevent.spawn_later(0.1, ready.append, 1)\n"
        "dockertest.retry(lambda: ready, max_wait=20)\n"
        "with gevent.Timeout(0.1, False):\n"
        "    dockertest.retry(lambda: False, max_wait=20)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("on_start", ["None", "print"])
def test_a_program_runs_beside_greenlets(on_start: str) -> None:
    """They also read its output, and let it begin."""
    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import os\n"
        "from dockertest._images.process import run_program\n"
        "output = []\n"
        "command = ['head', '-c', '300000', '/dev/zero']\n"
        f"code = run_program(command, os.environ, output.append, on_start={on_start}, timeout=30)\n"
        "assert (code, len(b''.join(output))) == (0, 300000)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_time_is_exact_unless_it_is_mocked() -> None:
    """The coarse clock is used only if time is mocked."""
    before = time.time()
    assert before <= _clock.time() <= time.time()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
@mocks
def test_time_is_real_without_the_coarse_clock(
    mock: Mock, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems other than Linux have no such clock."""
    before = time.time()
    with mock():
        monkeypatch.setattr(sys, "platform", platform)
        now = _clock.time()
        monkeypatch.undo()
    assert before <= now < before + 60


@pytest.mark.parametrize("mock", ["freezegun.freeze_time", "time_machine.travel"])
def test_the_clock_can_be_imported_while_time_is_mocked(mock: str) -> None:
    """The first import of the package may be in such a test."""
    code = (
        "import datetime, importlib, time\n"
        "before, began = time.time(), time.monotonic()\n"
        f"import {mock.split('.')[0]}\n"
        f"with {mock}(datetime.datetime(2001, 9, 9, tzinfo=datetime.timezone.utc)):\n"
        "    from dockertest import _clock\n"
        "    now, later = _clock.time(), _clock.monotonic()\n"
        "assert before - 0.1 <= now < before + 60, now\n"
        "assert began < later < began + 60, later\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@mocks
def test_waiting_for_a_process_times_out(mock: Mock) -> None:
    """`Popen.wait` with a timeout never returns while time is frozen."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with mock():
            began = _clock.monotonic()
            assert _clock.wait_for_exit(process, 0.1) is None
            assert 0.1 <= _clock.monotonic() - began < 60
        process.kill()
        assert _clock.wait_for_exit(process, 60) == process.returncode != 0


linux = pytest.mark.skipif(sys.platform != "linux", reason="system: only Linux has these files")


class Faked:
    """The functions of the C library as libfaketime replaces them."""

    @staticmethod
    def time() -> float:
        """Return a time long ago."""
        return LONG_AGO.timestamp()

    @staticmethod
    def clock_gettime(_: int) -> float:
        """Return a time long ago, from all of its clocks."""
        return LONG_AGO.timestamp()

    @staticmethod
    def monotonic() -> float:
        """Return another time than the kernel's."""
        return -1.0


@linux
def test_time_is_the_kernels_under_libfaketime(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Under libfaketime, this clock is read from files.

    libfaketime changes every clock of the C library. `/proc/stat` has whole seconds.
    """
    monkeypatch.setattr(_clock, "_private", Faked)
    assert _clock.time() == LONG_AGO.timestamp()
    monkeypatch.setenv("FAKETIME", "2001-09-09 00:00:00")
    assert abs(_clock.time() - time.time()) < 2


@linux
@pytest.mark.parametrize("is_left_alone", [False, True])
def test_monotonic_is_the_kernels_under_libfaketime(*, is_left_alone: bool) -> None:
    """
    The command `faketime` changes it for a whole program.

    python-libfaketime leaves it alone.
    """
    program = (
        "from dockertest import _clock; from tests.test_clock import Faked; _clock._private = Faked\n"
        "print(_clock.monotonic(), open('/proc/uptime').read())"
    )
    faked = {"FAKETIME": "+30d", "LD_PRELOAD": "libfaketime.so.1", "DONT_FAKE_MONOTONIC": "01"[is_left_alone]}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | faked,
        cwd=Path(__file__).parent.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    ours, kernel, _ = done.stdout.split()
    assert float(ours) == -1 if is_left_alone else 0 <= float(kernel) - float(ours) < 5
