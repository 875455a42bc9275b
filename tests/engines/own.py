"""
A Docker engine for one test.

The test may kill it, start it again, and cut its network. It runs in namespaces of its own for network, mounts and
process ids, which end with the test. The engine at the default socket cannot see it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dockertest

from .ensure import exclusive

TOOLS = ("dockerd", "docker-init", "unshare", "nsenter", "ip", "iptables")
ADDRESS = "10.77.200.2"


def missing() -> str:
    """Return why this machine cannot run one; empty if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "only root can create namespaces"
    return "".join(f"{tool} is not installed" for tool in TOOLS if not shutil.which(tool))


class OwnEngine:
    """
    An engine with a unix socket and a TCP port.

    Attributes:
        endpoint: Its socket.
        tcp_endpoint: Its port, at an address that only this machine reaches.
    """

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"unix://{folder}/engine.sock"
        self.tcp_endpoint = f"tcp://{ADDRESS}:2375"
        self._folder = folder
        self._group = f"dockertest-own-{os.getpid()}"
        self._init = 0
        self._daemon: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self, *options: str) -> Iterator[OwnEngine]:
        """
        Run it with these options of dockerd until the end of the block.

        All have the same address, so it waits for another one to end.
        """
        with exclusive("own"), self._running(*options):
            yield self

    @contextmanager
    def _running(self, *options: str) -> Iterator[None]:
        command = "unshare --net --mount --pid --mount-proc --fork --kill-child docker-init -- sleep infinity".split()
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        near = f"dtown{os.getpid() % 100_000}"
        try:
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
            self._init = dockertest.retry(lambda: int(children.read_text()), max_wait=10, on=ValueError)
            self._execute(
                "ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", f"{self._init}"
            )
            self._execute("ip", "address", "add", "10.77.200.1/24", "dev", near)
            self._execute("ip", "link", "set", near, "up")
            self.enter("ip", "link", "set", "lo", "up")
            self.enter("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0")
            self.enter("ip", "link", "set", "eth0", "up")
            self.start(*options)
            yield
        finally:
            with suppress(subprocess.CalledProcessError):  # it was not made
                self._execute("ip", "link", "delete", near)
            holder.kill()
            holder.wait()
            dockertest.retry(lambda: not Path(f"/proc/{self._init}/ns/net").exists(), max_wait=15)
            if self._daemon:
                self._daemon.wait()
            self._remove_groups()

    def start(self, *options: str) -> None:
        """Start the daemon, and wait until it answers."""
        command = [
            *("dockerd", f"--host={self.endpoint}", f"--host={self.tcp_endpoint}", "--tls=false"),
            *(f"--data-root={self._folder}/data", f"--exec-root={self._folder}/run"),
            *(f"--pidfile={self._folder}/pid", f"--cgroup-parent=/{self._group}", *options),
        ]
        (self._folder / "pid").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self._enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            dockertest.Pool(self.endpoint, reaper=False).close()
            return True

        dockertest.retry(answers, max_wait=30)

    def kill(self) -> None:
        """Kill the daemon with SIGKILL; the processes of its containers live on."""
        within = int((self._folder / "pid").read_text())  # in its own namespace
        self.enter("kill", "-9", str(within))
        assert self._daemon is not None
        self._daemon.wait()

    @contextmanager
    def suspended(self, seconds: float) -> Iterator[None]:
        """
        Stop the daemon's process for some time.

        Its sockets accept connections meanwhile.
        """
        within = (self._folder / "pid").read_text()
        self.enter("kill", "-STOP", within)
        assert self._daemon is not None
        # nsenter stops itself with its child, and continues it with itself.
        timer = threading.Timer(seconds, self._daemon.send_signal, (signal.SIGCONT,))
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def load(self, image: str) -> None:
        """Copy an image from the default engine."""
        saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
        with dockertest.Pool(self.endpoint, reaper=False) as pool:
            pool.client.images.load(saved)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Drop all packets to and from its port."""
        rules = [["INPUT", "-i", "eth0", "-j", "DROP"], ["OUTPUT", "-o", "eth0", "-j", "DROP"]]
        for rule in rules:
            self.enter("iptables", "-w", "-I", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self.enter("iptables", "-w", "-D", *rule)

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._init}", "--net", "--mount", "--pid"]

    def enter(self, *command: str) -> str:
        """Run a command in the namespaces of the engine, and return its output."""
        return self._execute(*self._enter, *command)

    @staticmethod
    def _execute(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def _remove_groups(self) -> None:
        for top in [
            *Path("/sys/fs/cgroup").glob(self._group),
            *Path("/sys/fs/cgroup").glob(f"*/{self._group}"),
        ]:
            for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                with suppress(OSError):
                    group.rmdir()
            with suppress(OSError):
                top.rmdir()
