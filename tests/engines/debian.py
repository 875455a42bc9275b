"""
Install Debian packages, only as root on Debian and its derivatives.

This requires only the standard library.

    python3 tests/engines/debian.py PACKAGE…

The exit code is 3 on other systems and for other users, so that the caller can explain what to install.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NOT_FOR_US = 3
# After `su` without `-` the PATH of root lacks the folders that dpkg needs.
PATH = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"]))
NOT_IN_BOOKWORM = (
    "docker-buildx",
    "docker-compose",
)  # those of the next release are single programs and also run here
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
QUIET = ["-qq", "-y", "-o=Dpkg::Use-Pty=0", "-o=DPkg::Lock::Timeout=300"]


def release() -> dict[str, str]:
    """Return the description of the operating system."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def is_debian_as_root() -> bool:
    """Return whether packages can be installed."""
    family = [release().get("ID", ""), *release().get("ID_LIKE", "").split()]
    return "debian" in family and os.geteuid() == 0


def install(packages: list[str], options: Sequence[str] = ()) -> int:
    """Install *packages*, print output only on failure, and return the exit code."""
    for step in (["update"], ["install", "--no-install-recommends", "--no-remove", *packages]):
        command = ["apt-get", *QUIET, *options, *step]
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
    """
    Install packages of a newer release, and return the exit code.

    The lists of apt are not changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "sources.list")
        sources.write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {newer} main\n")
        for name in ("lists/partial", "cache/archives/partial"):
            Path(folder, name).mkdir(parents=True)
        options = [f"-o=Dir::Etc::SourceList={sources}", "-o=Dir::Etc::SourceParts=/dev/null"]
        options += [f"-o=Dir::State::Lists={folder}/lists", f"-o=Dir::Cache={folder}/cache"]
        return install(packages, [*options, "-o=APT::Sandbox::User=root"])


def main() -> int:
    """Install the packages that the arguments name."""
    if not is_debian_as_root():
        return NOT_FOR_US
    print(f"installing Debian's {', '.join(sys.argv[1:])} with apt-get", file=sys.stderr, flush=True)
    is_old = release().get("VERSION_CODENAME") == "bookworm"
    newer = [package for package in sys.argv[1:] if is_old and package in NOT_IN_BOOKWORM]
    own = [package for package in sys.argv[1:] if package not in newer]
    return (install(own) if own else 0) or (install_from("trixie", newer) if newer else 0)


if __name__ == "__main__":
    sys.exit(main())
