"""
Make sure that a container engine is running: `make engine`.

An engine that answers is used as it is, and one that the user selected is never replaced. If there is none, root starts
Docker, and on Debian and Ubuntu installs it first.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dockertest
from dockertest._engine.endpoint import candidates

LOG = Path("/var/log/dockertest-dockerd.log")
SOCKET = Path("/var/run/docker.sock")
SECONDS = 60.0
NOT_INSTALLED = """\
No container engine is installed. This command installs one only as root on Debian or Ubuntu.
Install and start Docker Desktop, Docker (Debian, Ubuntu: sudo apt-get install docker.io) or Podman.
If an engine listens elsewhere, select it: export DOCKER_HOST=unix:///path/to/its.sock"""
NOT_ALLOWED = f"""\
An engine listens on {SOCKET}, but this user has no permission to use it.
Join its group (sudo usermod -aG docker "$USER", then log in again), or run this as root."""
NOT_STARTED = """\
Docker is installed but does not answer. This command starts it only as root and without systemd.
Start it (sudo systemctl start docker), or set DOCKER_HOST to an engine that listens elsewhere."""


class DockerdEndedError(Exception):
    """The dockerd that this command started has exited."""


def main() -> int:
    """
    Start an engine if none answers, and print which engine is used.

    Missing plugins of the CLI are installed.
    """
    try:
        print(describe())
    except dockertest.DockerUnavailableError as error:
        if is_named_by_user():
            return fail(str(error))
        if provide(error):
            return 1
    except dockertest.DockertestError as error:  # such as an invalid DOCKER_HOST
        return fail(str(error))
    provide_plugin("buildx")
    provide_plugin("compose")
    return 0


def describe() -> str:
    """
    Return a line about the engine that answers, or raise an error.

    The error is `DockerUnavailableError` if no engine answers.
    """
    with dockertest.Pool() as pool:
        return f"engine: {name_of(pool)} at {pool.endpoint}"


def name_of(pool: dockertest.Pool) -> str:
    """Return product and version of the engine that a pool is connected to."""
    version = pool.client.version()
    name = (version.get("Components") or [{"Name": "Engine"}])[0]["Name"].replace("Podman Engine", "Podman")
    return f"{name.replace('Engine', 'Docker')} {version['Version']}"


def is_named_by_user() -> bool:
    """Return whether the user selected an engine with a variable or docker context."""
    home = str(Path("~").expanduser())
    return len(candidates(None, None, os.environ, home=home, platform=sys.platform)) == 1


def provide(unavailable: dockertest.DockerUnavailableError) -> int:
    """Install and start Docker if this user and system allow it, or print what to do."""
    with exclusive():
        if SOCKET.exists() and not os.access(SOCKET, os.W_OK):
            return fail(f"{unavailable}\n{NOT_ALLOWED}")
        if find_dockerd() is None and not install():
            return fail(f"{unavailable}\n{NOT_INSTALLED}")
        try:
            print(describe())  # the package or another run of this command may have started it by now
        except dockertest.DockerUnavailableError:
            if os.geteuid() != 0 or Path("/run/systemd/system").is_dir():
                return fail(f"{unavailable}\n{NOT_STARTED}")
            return start()
    return 0


def find_dockerd() -> str | None:
    """
    Return the path of dockerd, or `None` if it is not installed.

    It may be in a folder that only root has on its PATH.
    """
    return shutil.which(
        "dockerd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    )


def install() -> bool:
    """Install Docker, and return `False` if this user or system does not allow it."""
    if os.geteuid() == 0:
        print("no container engine is installed; installing and starting Docker", flush=True)
    # dockerd needs iptables for its networks, but the package merely recommends it.
    installed = run_debian("docker.io", "iptables")
    if installed not in (0, 3):
        raise SystemExit(1)  # the output of apt-get has been printed
    return installed == 0


def run_debian(*packages: str) -> int:
    """
    Install Debian packages, and return the exit code.

    The exit code is 3 if this user or system does not allow it.
    """
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("debian.py"), *packages], check=False
    ).returncode


def provide_plugin(name: str) -> None:
    """
    Install a plugin of the docker CLI if this user and system allow it.

    Only the plugin's own tests need it.
    """
    if os.geteuid() != 0 or shutil.which("docker") is None or has_plugin(name):
        return
    with exclusive():
        if not has_plugin(name) and run_debian(f"docker-{name}") == 1:
            print(f"continuing without docker {name}, which cannot be installed", flush=True)


def has_plugin(name: str) -> bool:
    """Return whether the docker CLI has a plugin."""
    return subprocess.run(["docker", name, "version"], capture_output=True, check=False).returncode == 0


def start() -> int:
    """
    Start dockerd in its own session, and wait until it answers.

    In its own session, dockerd outlives the terminal.
    """
    print(f"starting dockerd, which keeps running; its log is {LOG}", flush=True)
    with LOG.open("ab") as log:
        began = log.tell()
        dockerd = subprocess.Popen(
            [find_dockerd() or "dockerd"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        on = dockertest.DockerUnavailableError
        print(dockertest.retry(lambda: describe_started(dockerd), on=on, max_wait=SECONDS))
    except (dockertest.RetryTimeoutError, DockerdEndedError) as error:
        lines = LOG.read_bytes()[began:].decode(errors="replace").splitlines()
        return fail("\n".join([str(error), f"the end of {LOG}:", *lines[-15:]]))
    return 0


def describe_started(dockerd: "subprocess.Popen[bytes]") -> str:
    """Call `describe`, but raise `DockerdEndedError` if dockerd has exited."""
    try:
        return describe()
    except dockertest.DockerUnavailableError:
        if dockerd.poll() is not None:
            raise DockerdEndedError(f"dockerd exited with code {dockerd.returncode}") from None
        raise


@contextmanager
def exclusive(name: str = "engine") -> Iterator[None]:
    """Run a block of this name in one process of this user at a time."""
    with Path(tempfile.gettempdir(), f"dockertest-{name}-{os.geteuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fail(message: str) -> int:
    """Print why this command fails, and return its exit code."""
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
