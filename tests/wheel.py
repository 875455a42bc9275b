"""
Test the built wheel where there is no source beside it: `make test-wheel`.

    python tests/wheel.py dist/….whl

The pure tests run on every CPython from 3.10 on that this machine has, those with an engine on the oldest and the newest.
The oldest has the oldest of what the package needs, too.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
VENVS = ROOT / "build" / "wheel-venvs"
COPIED = (".ci", "tests", "examples", "README.md", "CHANGELOG.md", "pyproject.toml")
PURE = ("tests", "--ignore=tests/integration")
# What may differ from one Python to the next: threads, processes, archives, certificates, frameworks. The rest of what
# talks to an engine talks to it in the same way with each, and is done by `make test`.
WITH_ENGINE = tuple(
    f"tests/integration/test_{each}.py"
    for each in (
        "conformance", "endpoints", "exec", "files", "retry_async", "reaper", "threads_and_forks", "reuse", "postgres",
        "frameworks", "pytest_plugin", "testcase",
    )
)  # fmt: skip
OLDEST = (3, 10)
BELOW = "requests<2.29"  # and with it urllib3 1: the docker SDK takes them, and distributions have them
# requests before 2.29 does not read the answer of an engine that refuses an upload in the midst of it.
UNFIT = "--deselect=tests/integration/test_files.py::test_where_all_is_read_only_the_engine_says_so"

# Free-threaded builds and early releases lack the wheels of what the tests need.
PROBE = """
import sys, sysconfig
fit = sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final"
if fit and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    import ensurepip, venv
    print(*sys.version_info[:2])
"""
WHERE = "import dockertest, sysconfig; print(dockertest.__file__, sysconfig.get_path('purelib'), sep='\\n')"


class FailedError(Exception):
    """A step failed; the text has its output."""


@dataclass(frozen=True)
class Python:
    """
    One of the interpreters to test with.

    Attributes:
        minor: Its version, `(3, 12)`.
        base: The interpreter as installed on the machine.
    """

    minor: tuple[int, int]
    base: Path

    @property
    def name(self) -> str:
        """Its version in words."""
        return f"Python {self.minor[0]}.{self.minor[1]}"

    @property
    def executable(self) -> Path:
        """Give the interpreter of its own environment, in which the wheel is installed."""
        return VENVS / f"{self.minor[0]}.{self.minor[1]}" / "bin" / "python"


def main() -> int:
    """Run all tests that the wheel has to pass; say which Python failed."""
    (wheel,) = sys.argv[1:]
    pythons = find_pythons()
    print(f"testing {Path(wheel).name} with {', '.join(each.name for each in pythons)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dockertest wheel ") as folder:
        copy = Path(folder)
        failed = side_by_side(pythons, partial(install_and_test, Path(wheel).resolve(), copy))
        ends = [each for each in dict.fromkeys([*pythons[:1], *pythons[-1:]]) if each not in failed]
        failed += side_by_side(ends, partial(run_tests, copy, WITH_ENGINE))
    if failed:
        print(f"FAILED with {', '.join(each.name for each in failed)}", file=sys.stderr)
    return 1 if failed or not pythons else 0


def find_pythons() -> list[Python]:
    """Give the machine's CPythons from the oldest supported on, one of each minor version, the oldest first."""
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 30)]
    candidates = [
        Path(sys.executable).resolve(),
        *(Path(each) for each in named if each),
        *sorted(Path.home().glob(".pyenv/versions/*/bin/python3")),
    ]
    found: dict[tuple[int, int], Python] = {}
    for candidate in candidates:
        minor = probe(candidate)
        if minor and minor >= OLDEST:
            found.setdefault(minor, Python(minor, candidate))
    return [found[minor] for minor in sorted(found)]


def probe(executable: Path) -> tuple[int, int] | None:
    """Ask an interpreter for its version; `None` if it is none to test with, such as a shim that leads nowhere."""
    done = subprocess.run([executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def side_by_side(pythons: Sequence[Python], step: Callable[[Python], str]) -> list[Python]:
    """Take a step with every Python, a few at a time; give those that failed."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(lambda python: attempt(python, step), pythons)
        return [each for failed in results for each in failed]


def attempt(python: Python, step: Callable[[Python], str]) -> list[Python]:
    """Take a step and tell how it went; give the Python again if it failed."""
    began = time.monotonic()
    try:
        told = step(python)
    except FailedError as error:
        print(f"{python.name}: FAILED\n{error}", flush=True)
        return [python]
    print(f"{python.name}: {told} ({time.monotonic() - began:.0f} s in all)", flush=True)
    return []


def install_and_test(wheel: Path, copies: Path, python: Python) -> str:
    """Install the wheel into a new environment and run the pure tests."""
    environment = python.executable.parent.parent
    call([python.base, "-m", "venv", "--clear", environment], ROOT)
    pins = oldest_dependencies() if python.minor == OLDEST else []
    call([python.executable, "-m", "pip", "install", "--quiet", f"{wheel}[test]", *pins], ROOT)
    return run_tests(copies, PURE, python)


def oldest_dependencies() -> list[str]:
    """Give what pip is to install for the oldest versions that the package allows."""
    (listed,) = re.findall(
        r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    return [*re.findall(r'"(.+)"', listed.replace(">=", "==")), BELOW]


def run_tests(copies: Path, tests: Sequence[str], python: Python) -> str:
    """Run tests in a copy without the package's source; give pytest's last line."""
    copy = copies / f"{python.name} {tests[-1].strip('-').replace('/', ' ')}"
    for name in COPIED:
        copy_to(ROOT / name, copy / name)
    check_is_installed(python, copy)
    unfit = [UNFIT] if python.minor == OLDEST else []
    output = call([python.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *unfit, *tests], copy)
    return (
        f"{next(each for each in tests if not each.startswith('--'))}: {output.splitlines()[-1].strip('= ')}"
    )


def copy_to(source: Path, target: Path) -> None:
    """Copy a file or a folder, without what interpreters left in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    else:
        shutil.copy2(source, target)


def check_is_installed(python: Python, folder: Path) -> None:
    """Fail if another `dockertest` than the installed one would be tested."""
    imported, site_packages = call([python.executable, "-c", WHERE], folder).splitlines()
    if not Path(imported).is_relative_to(site_packages):
        raise FailedError(f"dockertest comes from {imported}, not from {site_packages}")


def call(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command and give its output, which is in the error if it fails."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    # One Python's tests must not recover what the other's left dead on purpose: to each, the other's sessions are unknown.
    environment["XDG_STATE_HOME"] = str(folder / "state")
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(map(str, command))
        raise FailedError(f"{shown} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
