"""
Install Debian packages: as root on Debian and what descends from it, nowhere else. Knows the standard library alone.

    python3 tests/engines/debian.py PACKAGE…

The exit code is 3 where it is not for us to install anything, so that the caller can tell the person what to do.
"""

import os
import platform
import subprocess
import sys

NOT_FOR_US = 3
# A root that came by `su` without `-` lacks the folders that dpkg itself needs.
PATH = os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"]))
QUIET = ["-qq", "-y", "-o=Dpkg::Use-Pty=0", "-o=DPkg::Lock::Timeout=300"]


def is_debian_as_root() -> bool:
    """Whether packages may be installed here."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    family = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return "debian" in family and os.geteuid() == 0


def install(packages: list[str]) -> int:
    """Install *packages*, quietly unless it fails; give the exit code."""
    steps = [
        ["apt-get", "update", *QUIET],
        ["apt-get", "install", "--no-install-recommends", *QUIET, *packages],
    ]
    environment = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    for step in steps:
        done = subprocess.run(
            step,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            print(f"{' '.join(step)} failed:\n{done.stdout}", file=sys.stderr)
            return 1
    return 0


def main() -> int:
    """Install what the arguments name."""
    packages = sys.argv[1:]
    if not is_debian_as_root():
        return NOT_FOR_US
    print(f"installing Debian's {', '.join(packages)} with apt-get", file=sys.stderr, flush=True)
    return install(packages)


if __name__ == "__main__":
    sys.exit(main())
