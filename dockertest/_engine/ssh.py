"""
Connections to an engine through the system's ssh, as in the docker CLI.

So the user's configuration applies: host names, keys, agents, jump hosts. The docker SDK's own transport, based on
paramiko, loses output of commands, and no longer works during the interpreter's last cleanup.
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
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from dockertest import _clock
from dockertest.errors import DockerUnavailableError

# A server rejects connections while too many others are logging in, 10 by default (MaxStartups in sshd_config(5)).
MAX_LOGINS = 5
REJECTED_LOGIN = "kex_exchange_identification"  # OpenSSH's own word for that
RETRY_PAUSES = (0.1, 0.2, 0.4, 0.8)  # seconds


class SSHConnector:
    """
    Opens connections to one engine.

    Attributes:
        argv: The command whose standard input and output are a connection.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """
        Parse the address; contact nothing.

        Args:
            url: The endpoint, such as `"ssh://user@host"`.
            timeout: Seconds within which the ssh server has to answer.

        Raises:
            DockerUnavailableError: There is no ssh on this machine.
        """
        self._url, self._timeout = url, timeout
        self.argv = _command(url, timeout)
        self._logins = threading.BoundedSemaphore(MAX_LOGINS)

    def __call__(self, timeout: float | None) -> socket.socket:
        """
        Return a connection that is known to lead to an engine.

        Args:
            timeout: Seconds that ssh and the engine may be silent.

        Raises:
            DockerUnavailableError: ssh failed; the message has its own words.
        """
        with self._logins:
            for pause in RETRY_PAUSES:
                try:
                    return self._connect(timeout)
                except DockerUnavailableError as error:
                    if error.reason != "busy":
                        raise
                _clock.sleep(pause)
            return self._connect(timeout)

    def _connect(self, timeout: float | None) -> socket.socket:
        with tempfile.TemporaryFile() as errors:
            connection = SubprocessSocket(self.argv, errors.fileno())
            try:
                connection.ping(timeout)
            except BaseException as failure:
                connection.close()
                errors.seek(0)
                output = errors.read().decode(errors="replace").strip().splitlines()
                if output and isinstance(failure, OSError):
                    raise _ssh_error(output) from failure
                raise
        return connection

    def renewed(self) -> SSHConnector:
        """
        Return a new connector for a forked child.

        The child may have no thread left to release the semaphore.
        """
        return SSHConnector(self._url, self._timeout)

    def hostname(self) -> str:
        """Return the host's name in ssh's configuration; empty if it is unknown."""
        result = subprocess.run(  # noqa: S603 - ssh, with the host that the user named
            [self.argv[0], "-G", *self.argv[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        names = [line.split(" ", 1)[1] for line in result.stdout.splitlines() if line.startswith("hostname ")]
        return names[0] if names else ""


def _ssh_error(lines: list[str]) -> DockerUnavailableError:
    """Return the error for the lines that ssh has written."""
    words = lines[-1].strip().removeprefix("ssh: ").rstrip(".")
    is_busy = any(REJECTED_LOGIN in line for line in lines)
    return DockerUnavailableError(f"ssh: {words}", reason="busy" if is_busy else "ssh")


def _host(url: str) -> str:
    """Return the host as written, since ssh's configuration is case-sensitive."""
    match = re.fullmatch(r"\[(.*)\](?::\d*)?|(.*?)(?::\d*)?", urlsplit(url).netloc.rpartition("@")[2])
    return (match[1] or match[2]) if match else ""


def test_command(url: str) -> str:
    """Return a shell command with which a user checks that an engine is reachable."""
    remote = shlex.join([*_remote_docker(url), "version"])
    return shlex.join(["ssh", "-o", "BatchMode=yes", *_login(url), "--", _host(url), remote])


def _login(url: str) -> list[str]:
    parts = urlsplit(url)
    user = ["-l", unquote(parts.username)] if parts.username else []
    return [*user, *(["-p", str(parts.port)] if parts.port else [])]


def _remote_docker(url: str) -> list[str]:
    """
    Return the docker CLI's name and options on the engine's host.

    A path in *url* is that of the engine's socket.
    """
    path = urlsplit(url).path.rstrip("/")
    return ["docker", "--host", f"unix://{path}"] if path else ["docker"]


def _command(url: str, timeout: float) -> list[str]:
    program = shutil.which("ssh")
    if os.name == "nt":  # where a socket cannot be passed to a program as a file
        forward = shlex.join(["ssh", "-N", "-L", "2375:/var/run/docker.sock", *_login(url), "--", _host(url)])
        raise DockerUnavailableError(
            "ssh:// endpoints are not supported on Windows",
            hint=f"forward a port with {forward}, and use tcp://127.0.0.1:2375",
            reason="ssh",
        )
    if program is None:
        raise DockerUnavailableError(
            "ssh:// endpoints need the program ssh, which was not found on PATH",
            hint="install it (Debian: openssh-client)",
            reason="ssh",
        )
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(timeout))),
        "ControlMaster": "no",  # a master would end with its own connection; an existing one is still used
        "RemoteCommand": "none",
        "ClearAllForwardings": "yes",
    }
    options = ["-T", *(f"-o{key}={value}" for key, value in settings.items())]
    remote = shlex.join([*_remote_docker(url), "system", "dial-stdio"])
    return [program, *options, *_login(url), "--", _host(url), remote]


class SubprocessSocket(socket.socket):
    """A socket whose other end is a command's standard input and output."""

    def __init__(self, argv: list[str], errors: int) -> None:
        near, far = socket.socketpair()
        with near, far:
            # In a session of its own, since Ctrl-C is meant for this process, which then still has to clean up.
            self._process = subprocess.Popen(  # noqa: S603 - ssh, with the host that the user named
                argv, stdin=far.fileno(), stdout=far.fileno(), stderr=errors, start_new_session=True
            )
            super().__init__(fileno=near.detach())

    def ping(self, timeout: float | None) -> None:
        """
        Check that an engine answers.

        Without this check, a request that must not be sent twice could be lost.
        """
        self.settimeout(timeout)
        self.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.recv(4096)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "ssh ended without an error message")
            answer += data

    def _real_close(self) -> None:
        """
        End the command with the last user of the socket.

        It must not end earlier because a response is still read after the socket is closed.

        `socket.socket` calls this when the last file that was made from it is closed, too:
        https://github.com/python/cpython/blob/3.11/Lib/socket.py#L493
        """
        cast("Any", super())._real_close()
        self._process.terminate()
        self._process.wait()
