"""
Make sure that a container engine answers: `make engine`.

One that answers is used as it is, and one that the user named is never replaced by another. Only where there is none,
as root, is Docker started, and on Debian and Ubuntu installed before.
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
No container engine is installed, and only as root on Debian or Ubuntu does this command install one.
Install and start Docker Desktop, Docker (Debian, Ubuntu: sudo apt-get install docker.io) or Podman.
If an engine listens elsewhere, name it: export DOCKER_HOST=unix:///path/to/its.sock"""
NOT_ALLOWED = f"""\
An engine listens on {SOCKET}, but this user may not talk to it.
Join its group (sudo usermod -aG docker "$USER", then log in again), or run this as root."""
NOT_STARTED = """\
Docker is installed but does not answer, and this command starts it only as root where no systemd runs.
Start it (sudo systemctl start docker), or name an engine that listens elsewhere in DOCKER_HOST."""


class DockerdEndedError(Exception):
    """The dockerd that we started has ended."""


def main() -> int:
    """Print which engine answers; see to it that one does, and that images can be built with BuildKit."""
    try:
        print(describe())
    except dockertest.DockerUnavailableError as error:
        if is_named_by_user():
            return stop(str(error))
        if provide(error):
            return 1
    except dockertest.DockertestError as error:  # such as a DOCKER_HOST that is no endpoint
        return stop(str(error))
    provide_buildx()
    return 0


def describe() -> str:
    """Say in a line which engine answers; `DockerUnavailableError` if none does."""
    with dockertest.Pool() as pool:
        return f"engine: {name_of(pool)} at {pool.endpoint}"


def name_of(pool: dockertest.Pool) -> str:
    """Say which engine a pool is connected to."""
    version = pool.client.version()
    name = (version.get("Components") or [{"Name": "Engine"}])[0]["Name"].replace("Podman Engine", "Podman")
    return f"{name.replace('Engine', 'Docker')} {version['Version']}"


def is_named_by_user() -> bool:
    """Whether the user said which engine to use, in a variable or as the current docker context."""
    home = str(Path("~").expanduser())
    return len(candidates(None, None, os.environ, home=home, platform=sys.platform)) == 1


def provide(unavailable: dockertest.DockerUnavailableError) -> int:
    """Install and start Docker where that is for us to do, else tell the person what to do."""
    with alone():
        if SOCKET.exists() and not os.access(SOCKET, os.W_OK):
            return stop(f"{unavailable}\n{NOT_ALLOWED}")
        if find_dockerd() is None and not install():
            return stop(f"{unavailable}\n{NOT_INSTALLED}")
        try:
            print(describe())  # by now the package, or another run of this command, may have started it
        except dockertest.DockerUnavailableError:
            if os.geteuid() != 0 or Path("/run/systemd/system").is_dir():
                return stop(f"{unavailable}\n{NOT_STARTED}")
            return start()
    return 0


def find_dockerd() -> str | None:
    """Give the path of dockerd, looked for where root's programs are, too."""
    return shutil.which(
        "dockerd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    )


def install() -> bool:
    """Install Docker; `False` where that is not for us to do."""
    if os.geteuid() == 0:
        print("no container engine is installed here: Docker will be, and then be started", flush=True)
    # iptables, since dockerd needs it for its networks and the package merely recommends it.
    installed = run_debian("docker.io", "iptables")
    if installed not in (0, 3):
        raise SystemExit(1)  # what apt-get said has been printed
    return installed == 0


def run_debian(*packages: str) -> int:
    """Install packages of Debian; the exit code is 3 where that is not for us to do."""
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("debian.py"), *packages], check=False
    ).returncode


def provide_buildx() -> None:
    """Have images built with BuildKit, where that is for us to do; without it, its tests alone are skipped."""
    if os.geteuid() != 0 or shutil.which("docker") is None or has_buildx():
        return
    with alone():
        if not has_buildx() and run_debian("docker-buildx") == 1:
            print("go on without docker buildx: it cannot be had here", flush=True)


def has_buildx() -> bool:
    """Whether the docker command line has it."""
    return subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0


def start() -> int:
    """Start dockerd so that it outlives this command and its terminal, and wait until it answers."""
    print(f"starting dockerd; it goes on running, and its log is {LOG}", flush=True)
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
        return stop("\n".join([str(error), f"the end of {LOG}:", *lines[-15:]]))
    return 0


def describe_started(dockerd: "subprocess.Popen[bytes]") -> str:
    """Do as `describe`, but give up on a dockerd that has ended."""
    try:
        return describe()
    except dockertest.DockerUnavailableError:
        if dockerd.poll() is not None:
            raise DockerdEndedError(f"dockerd ended with exit code {dockerd.returncode}") from None
        raise


@contextmanager
def alone() -> Iterator[None]:
    """Let one process of this user at a time do what is within."""
    with Path(tempfile.gettempdir(), f"dockertest-engine-{os.geteuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stop(text: str) -> int:
    """Tell the person why this is the end."""
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
