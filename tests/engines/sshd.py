"""
An ssh server on loopback with its own keys, to test ssh:// endpoints.

It also has a home directory to connect from.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import dockertest

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
UsePAM no
SetEnv DOCKER_HOST=unix://{engine}
"""
CLIENT = """\
Host Engine.Example
  HostName 127.0.0.1
  Port {port}
  User {user}
"""
# ssh ignores HOME and takes the user's home directory from the system, so all paths are passed as options.
PROGRAM = """\
#!/bin/sh
exec {ssh} -F {folder}/home/.ssh/config -i {folder}/home/.ssh/id_ed25519 -o UserKnownHostsFile={folder}/home/.ssh/known_hosts "$@"
"""


class Sshd:
    """
    A context manager that runs the server in front of an engine.

    Attributes:
        url: The endpoint for a pool.
        environ: The variables that make it reachable: a home with key, known hosts and the name `Engine.Example`, and
            a PATH with an `ssh` that uses them.
        authorized: The file with the keys that the server accepts.
        known: The file with the known hosts.
    """

    def __init__(self, folder: Path, program: str, engine: str) -> None:
        self._folder = folder
        self._program = program
        self._engine = engine
        self._open = ExitStack()

    def __enter__(self) -> Self:
        user, folder, home = getpass.getuser(), self._folder, self._folder / "home" / ".ssh"
        home.mkdir(parents=True, mode=0o700)
        for key in (folder / "host_key", home / "id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.authorized, self.known = folder / "authorized_keys", home / "known_hosts"
        self.authorized.write_text((home / "id_ed25519.pub").read_text())
        (folder / "config").write_text(SERVER.format(port=port, folder=folder, engine=self._engine))
        (home / "config").write_text(CLIENT.format(port=port, user=user))
        public = (folder / "host_key.pub").read_text()
        self.known.write_text(f"[127.0.0.1]:{port} {public}")
        wrapper = folder / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(PROGRAM.format(ssh=shutil.which("ssh"), folder=folder))
        wrapper.chmod(0o755)
        self.url = f"ssh://{user}@127.0.0.1:{port}"
        self.environ = {"HOME": str(folder / "home"), "PATH": f"{wrapper.parent}:{os.environ['PATH']}"}
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = self._open.enter_context((folder / "log").open("wb"))
        self._process = subprocess.Popen(
            [self._program, "-D", "-e", "-f", folder / "config"], stderr=log, stdin=subprocess.DEVNULL
        )
        dockertest.retry(
            lambda: socket.create_connection(("127.0.0.1", port), 1).close(), on=OSError, max_wait=10
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._open.close()


def sshd_program() -> str:
    """Return the path of sshd; as root on Debian, install it if it is missing."""
    if not shutil.which("sshd", path=PATH):
        script = Path(__file__).with_name("debian.py")
        subprocess.run([sys.executable, script, "openssh-server"], check=False)
    if program := shutil.which("sshd", path=PATH):
        return program
    raise FileNotFoundError("sshd was not found; install openssh-server")
