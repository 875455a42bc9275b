"""Ask the docker CLI's credential helpers: programs that keep the passwords of registries. Knows no registry itself."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

log = logging.getLogger("dockertest")

HELPER_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)  # what stands behind `docker-credential-`
_FRESH = 10.0  # seconds that an answer serves other pulls too: those that start at about the same time
_LONGEST = 1 << 20  # bytes of an answer; the tokens of cloud services take a few thousand

Found = tuple[str, str, str]
"""User, password and identity token."""


class UnusableError(Exception):
    """What a helper does cannot be used; the text says why, and has nothing of what it printed."""


class Helpers:
    """
    The helpers on the PATH.

    Args:
        environ: The environment to start them with.
        patience: Seconds that one may take. One that takes longer is not asked again.
    """

    def __init__(self, environ: Mapping[str, str], patience: float) -> None:
        self._environ = environ
        self._patience = patience
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], tuple[float, Found]] = {}
        self._given_up: set[str] = set()

    def ask(self, name: str, server: str) -> Found | None:
        """
        Give what the helper called *name* has for a server, `None` if it has nothing.

        Raises `UnusableError` for whatever goes wrong.
        """
        with self._lock:  # one at a time: a dozen pulls that start together ask once
            asked, found = self._answers.get((name, server), (0.0, None))
            if found and time.monotonic() - asked < _FRESH:
                return found
            found = None if name in self._given_up else self._ask(name, server)
            if found:
                self._answers[name, server] = time.monotonic(), found
            return found

    def _ask(self, name: str, server: str) -> Found | None:
        program = shutil.which(name, path=self._environ.get("PATH", ""))
        if not program:
            raise UnusableError("it is not on the PATH")
        try:
            exit_code, answer = _run(program, server, self._environ, self._patience)
        except subprocess.TimeoutExpired:
            self._given_up.add(name)
            raise UnusableError(
                f"it did not answer within {self._patience:g} s, and is not asked again"
            ) from None
        except OSError as error:
            raise UnusableError(f"it cannot be started: {str(error.strerror).lower()}") from None
        if exit_code:
            if b"credentials not found" not in answer.lower():
                raise UnusableError(f"asked for {server} it failed with exit code {exit_code}")
            log.debug("%s has no credentials for %s", name, server)
            return None
        found = _read(answer)
        if not found:
            raise UnusableError(f"what it answered for {server} are no credentials")
        return found


def _read(answer: bytes) -> Found | None:
    """Read what a helper printed; `None` if it is something else."""
    try:
        said = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    user, secret = (said.get("Username"), said.get("Secret")) if isinstance(said, dict) else (None, None)
    if not isinstance(user, str) or not isinstance(secret, str):
        return None
    return ("", "", secret) if user == "<token>" else (user, secret, "")


def _run(program: str, asked: str, environ: Mapping[str, str], patience: float) -> tuple[int, bytes]:
    """
    Ask a helper for the credentials of a server; give its exit code and what it printed.

    Raises `subprocess.TimeoutExpired`, and `OSError` where it cannot be started. What it says on stderr goes nowhere:
    there may be secrets in it.
    """
    process = subprocess.Popen(  # noqa: S603 - the user's own configuration names it, by a checked name; no shell
        [program, "get"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=environ,
        start_new_session=True,  # so that what it starts itself can be ended with it
    )
    answer = bytearray()
    talk = threading.Thread(
        target=_talk, args=(process.stdin, process.stdout, asked, answer), daemon=True, name="dockertest"
    )
    try:
        talk.start()
        process.wait(patience)
    finally:
        if process.poll() is None:
            _kill(process)
        talk.join(0.2)  # not for ever: a daemon that it left behind may hold its output open
    return process.returncode, bytes(answer)


def _talk(stdin: IO[bytes], stdout: IO[bytes], asked: str, answer: bytearray) -> None:
    """Tell a program what is asked and read its output; one that never stops printing loses its reader."""
    with stdout:
        with suppress(BrokenPipeError), stdin:
            stdin.write(asked.encode())
        while len(answer) <= _LONGEST and (data := stdout.read(65536)):
            answer += data


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
