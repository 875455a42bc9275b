"""Run another program, with limits, and end everything that it started."""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, cast

from dockertest import _clock

_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 1.0  # for the rest of the output, when a daemon that the program left behind holds it open


def run_program(
    command: Sequence[str],
    environ: Mapping[str, str],
    on_output: Callable[[bytes], object],
    *,
    stdin: bytes = b"",
    merge_stderr: bool = False,
    timeout: float = math.inf,
    silence: float | Callable[[], float] = math.inf,
    on_start: Callable[[int], object] | None = None,
) -> int:
    """
    Run a program in its own session, then end its whole process group.

    The process group is ended when this function returns or raises. A program that cannot be started is an `OSError`,
    one that takes too long a `subprocess.TimeoutExpired`.

    Args:
        command: The program, by its path, and its arguments.
        environ: The program's environment.
        on_output: Called in this thread with each piece of output. An exception from it ends the program.
        stdin: The program's standard input.
        merge_stderr: Treat standard error as output; otherwise it is discarded.
        timeout: Seconds that the program may run.
        silence: Seconds that it may print nothing; or a function that returns them, called again after each output.
        on_start: Called with the id of the process, which is that of its group and session too. Except on Windows, the
            program begins only when this has returned, and does not begin at all if this process is killed before.

    Returns:
        The exit code, or minus the number of the signal that killed the program. It is also 0 if the system has
        discarded the exit code, as it does where SIGCHLD is ignored: look at the output as well.
    """
    gate = os.pipe() if on_start and os.name != "nt" else None
    process = _start(command, environ, stdin, merge_stderr, gate)
    events: queue.SimpleQueue[bytes | None] = (
        queue.SimpleQueue()
    )  # output; `None` once the program has exited
    reader = threading.Thread(target=_read, args=(process, events), daemon=True, name="dockertest")
    watcher = threading.Thread(target=_await_exit, args=(process, events), daemon=True, name="dockertest")
    deadline, limit = _clock.monotonic() + timeout, timeout
    try:
        reader.start()
        watcher.start()
        if on_start:
            on_start(process.pid)
        if gate:
            os.write(gate[1], b"\n")
        while True:
            limit = silence() if callable(silence) else silence
            if (data := _next(events, min(limit, deadline - _clock.monotonic()))) is None:
                break
            on_output(data)
    except queue.Empty:
        raise subprocess.TimeoutExpired(command, min(limit, timeout)) from None
    finally:
        if gate:
            os.close(gate[1])
        _end_group(process)
        _join(reader, process)
    while not events.empty():
        if data := events.get():
            on_output(data)
    return process.returncode


def _start(
    command: Sequence[str],
    environ: Mapping[str, str],
    stdin: bytes,
    merge_stderr: bool,
    gate: tuple[int, int] | None,
) -> subprocess.Popen[bytes]:
    if gate:  # The shell waits for a line, and ends without the program if there is none.
        command = ["/bin/sh", "-c", 'read -r _ < "/dev/fd/$0" && exec "$@"', str(gate[0]), *command]
    try:
        return _spawn(command, environ, stdin, merge_stderr, gate)
    except BaseException:
        if gate:
            os.close(gate[1])
        raise
    finally:
        if gate:
            os.close(gate[0])


def _spawn(
    command: Sequence[str],
    environ: Mapping[str, str],
    stdin: bytes,
    merge_stderr: bool,
    gate: tuple[int, int] | None,
) -> subprocess.Popen[bytes]:
    # A file instead of a pipe: writing to it never blocks, and a program that does not read it causes no SIGPIPE.
    with tempfile.TemporaryFile(prefix="dockertest-") as file:
        file.write(stdin)
        file.seek(0)
        return subprocess.Popen(  # noqa: S603 - no shell, and the callers look the program up
            command,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.DEVNULL,
            bufsize=0,
            env=environ,
            pass_fds=gate[:1] if gate else (),
            start_new_session=True,  # so that the program and what it starts can be ended together
        )


def _next(events: queue.SimpleQueue[bytes | None], seconds: float) -> bytes | None:
    return events.get(timeout=max(seconds, 0.0) if math.isfinite(seconds) else None)


def _read(process: subprocess.Popen[bytes], events: queue.SimpleQueue[bytes | None]) -> None:
    with cast("IO[bytes]", process.stdout) as stdout:
        while data := stdout.read(1 << 16):
            events.put(data)


def _await_exit(process: subprocess.Popen[bytes], events: queue.SimpleQueue[bytes | None]) -> None:
    """
    Report the exit of the process, without reaping it where possible.

    The id of a process that is not reaped stays reserved until its group has been killed.
    """
    with suppress(ChildProcessError):  # where SIGCHLD is ignored, the system has reaped it
        if hasattr(os, "waitid"):
            # gevent does not patch this call, which would block all greenlets.
            pause = os.WNOHANG if _clock.is_cooperative() else 0
            while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | pause):
                _clock.sleep(_POLL_SECONDS)
        else:
            process.wait()
    events.put(None)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: not permitted to kill a zombie
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    _clock.wait_for_exit(process, _DRAIN_SECONDS)  # a program that runs as another user cannot be killed


def _join(reader: threading.Thread, process: subprocess.Popen[bytes]) -> None:
    try:
        reader.join(_DRAIN_SECONDS)
    except RuntimeError:  # it was not started, because the system had no thread left
        cast("IO[bytes]", process.stdout).close()
