"""
A connection to an engine through the system's own ssh, as the docker CLI makes it.

So the user's configuration counts: names, keys, agents, jump hosts. The docker SDK's own way, with paramiko, loses the
output of commands, and is dead before the interpreter's last clean-up.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any, cast
from urllib.parse import urlsplit

from dockertest.errors import DockerUnavailableError

# An ssh server refuses whom it does not know yet when there are too many of them, 10 by default, and says it so.
AT_ONCE = 5
CROWDED = "kex_exchange_identification"
PAUSES = (0.1, 0.2, 0.4, 0.8)  # seconds


class Dial:
    """
    Makes connections to an engine.

    Attributes:
        argv: The command whose standard input and output are one.
    """

    def __init__(self, url: str, patience: float) -> None:
        """
        Take the address, and contact nothing.

        Args:
            patience: Seconds in which the ssh server has to answer.

        Raises:
            DockerUnavailableError: There is no ssh here.
        """
        self._said = url, patience
        self.argv = _command(url, patience)
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def __call__(self, timeout: float | None) -> socket.socket:
        """
        Make a connection that has been seen to lead to an engine.

        Args:
            timeout: Seconds that ssh and the engine may be silent.

        Raises:
            DockerUnavailableError: It does not; the text has ssh's own words.
        """
        with self._turns:
            for pause in PAUSES:
                try:
                    return self._connected(timeout)
                except DockerUnavailableError as error:
                    if CROWDED not in str(error):
                        raise
                time.sleep(pause)
            return self._connected(timeout)

    def _connected(self, timeout: float | None) -> socket.socket:
        with tempfile.TemporaryFile() as errors:
            line = _Line(self.argv, errors.fileno())
            try:
                line.greet(timeout)
            except BaseException as failure:
                line.close()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                if said and isinstance(failure, OSError):
                    words = said[-1].strip().removeprefix("ssh: ").rstrip(".")
                    raise DockerUnavailableError(f"ssh: {words}") from failure
                raise
        return line

    def renewed(self) -> Dial:
        """Give one for a forked child, where nobody may be left to give turns back."""
        return Dial(*self._said)

    def hostname(self) -> str:
        """Give the name that ssh's configuration has for the host; empty if nobody knows."""
        asked = subprocess.run(  # noqa: S603 - ssh, as the user named it
            [self.argv[0], "-G", *self.argv[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        found = [line.split(" ", 1)[1] for line in asked.stdout.splitlines() if line.startswith("hostname ")]
        return found[0] if found else ""


def _host(url: str) -> str:
    """Give the host as it is written: in ssh's configuration capitals count."""
    found = re.fullmatch(r"\[(.*)\](?::\d*)?|(.*?)(?::\d*)?", urlsplit(url).netloc.rpartition("@")[2])
    return (found[1] or found[2]) if found else ""


def trial(url: str) -> str:
    """Give what a person types to see whether an engine is reached."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    port = f"-p {parts.port} " if parts.port else ""
    return f"ssh -o BatchMode=yes {port}{user}{_host(url)} docker version"


def _command(url: str, patience: float) -> list[str]:
    parts = urlsplit(url)
    program = shutil.which("ssh")
    if os.name == "nt":  # whose sockets are no files that a program could be given
        raise DockerUnavailableError(
            f"ssh:// is not to be had on Windows; forward a port: ssh -NL 2375:/var/run/docker.sock {_host(url)}, "
            "and use tcp://127.0.0.1:2375"
        )
    if program is None:
        raise DockerUnavailableError("ssh:// needs the program ssh; install it (Debian: openssh-client)")
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(patience))),
        "ControlMaster": "no",  # it would end with the connection that it came with; one that is there already is used
        "RemoteCommand": "none",
        "ClearAllForwardings": "yes",
    }
    options = ["-T", *(f"-o{key}={value}" for key, value in settings.items())]
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    socket_there = parts.path.rstrip("/")
    docker = f"docker --host {shlex.quote(f'unix://{socket_there}')}" if socket_there else "docker"
    return [program, *options, *user, *port, "--", _host(url), f"{docker} system dial-stdio"]


class _Line(socket.socket):
    """A socket whose other end is a command's standard input and output."""

    def __init__(self, argv: list[str], errors: int) -> None:
        near, far = socket.socketpair()
        with near, far:
            # In a session of its own: Ctrl-C is for us, and then there is still something to remove.
            self._process = subprocess.Popen(  # noqa: S603 - ssh, as the user named it
                argv, stdin=far.fileno(), stdout=far.fileno(), stderr=errors, start_new_session=True
            )
            super().__init__(fileno=near.detach())

    def greet(self, timeout: float | None) -> None:
        """See that an engine answers there, before a request gets lost that must not be sent twice."""
        self.settimeout(timeout)
        self.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.recv(4096)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "ssh ended without a word")
            answer += data

    def _real_close(self) -> None:
        """End the command with the last that has the socket open: a response may still be read when it is closed."""
        cast("Any", super())._real_close()
        self._process.terminate()
        self._process.wait()
