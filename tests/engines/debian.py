"""
Install Debian packages: as root on Debian and what descends from it, nowhere else. Knows the standard library alone.

    python3 tests/engines/debian.py PACKAGE…

The exit code is 3 where it is not for us to install anything, so that the caller can tell the person what to do.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NOT_FOR_US = 3
# A root that came by `su` without `-` lacks the folders that dpkg itself needs.
PATH = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"]))
NOT_IN_BOOKWORM = ("docker-buildx",)  # the next release's is one program, and runs here too
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QUIET = ["-qq", "-y", "-o=Dpkg::Use-Pty=0", "-o=DPkg::Lock::Timeout=300"]


def release() -> dict[str, str]:
    """Give what the system says of itself."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def is_debian_as_root() -> bool:
    """Whether packages may be installed here."""
    family = [release().get("ID", ""), *release().get("ID_LIKE", "").split()]
    return "debian" in family and os.geteuid() == 0


def install(packages: list[str], apart: Sequence[str] = ()) -> int:
    """Install *packages*, quietly unless it fails; give the exit code."""
    for step in (["update"], ["install", "--no-install-recommends", "--no-remove", *packages]):
        command = ["apt-get", *QUIET, *apart, *step]
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            print(f"{' '.join(command)} failed:\n{done.stdout}", file=sys.stderr)
            return 1
    return 0


def install_from(newer: str, packages: list[str]) -> int:
    """Install packages of a newer release, and leave apt's own lists as they are; give the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "sources.list")
        sources.write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {newer} main\n")
        for each in ("lists/partial", "cache/archives/partial"):
            Path(folder, each).mkdir(parents=True)
        apart = [f"-o=Dir::Etc::SourceList={sources}", "-o=Dir::Etc::SourceParts=/dev/null"]
        apart += [f"-o=Dir::State::Lists={folder}/lists", f"-o=Dir::Cache={folder}/cache"]
        return install(packages, [*apart, "-o=APT::Sandbox::User=root"])


def main() -> int:
    """Install what the arguments name."""
    if not is_debian_as_root():
        return NOT_FOR_US
    print(f"installing Debian's {', '.join(sys.argv[1:])} with apt-get", file=sys.stderr, flush=True)
    is_old = release().get("VERSION_CODENAME") == "bookworm"
    newer = [each for each in sys.argv[1:] if is_old and each in NOT_IN_BOOKWORM]
    own = [each for each in sys.argv[1:] if each not in newer]
    return (install(own) if own else 0) or (install_from("trixie", newer) if newer else 0)


if __name__ == "__main__":
    sys.exit(main())
