"""
Test the built wheel without the sources next to it.

`make test-wheel` and `make test-pythons` run it.

    python -m tests.wheel [--all] dist/….whl

The tests that need no engine, and some of those that need one, run on the oldest and the newest CPython of this machine,
from version 3.11 on. The oldest uses the oldest supported versions of the dependencies.

With `--all`, every version in the classifiers of pyproject.toml is tested with and without an engine, with the newest
dependencies. Versions that this machine lacks are taken from Debian unstable, as root on Debian.
"""

import argparse
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
# Tests of behaviour that may depend on the versions of the dependencies: requests, streams, archives.
# `make test` runs the rest.
OF_DEPENDENCIES = ("-n2", *(f"tests/integration/test_{name}.py" for name in ("conformance", "exec", "files")))
# And on the version of Python: threads, event loops.
OF_PYTHON = (
    "-n2",
    *(f"tests/integration/test_{name}.py" for name in ("conformance", "retry_async", "threads_and_forks")),
)
OLDEST = (3, 11)
# Distributions still ship these versions of requests, which come with urllib3 1. The docker SDK supports them.
OLD_REQUESTS = "requests<2.29"
# requests before 2.29 ignores the answer of an engine that rejects an upload before its end.
UNFIT_FOR_OLD_REQUESTS = [
    f"--deselect=tests/integration/test_files.py::test_{name}"
    for name in ("no_connection_is_left_open", "a_read_only_container_reports_the_error_of_the_engine")
]

# In Debian's files, for the versions that this machine lacks. The tests also need the docker CLI.
DEBIAN = ("ca-certificates", "docker-cli", "procps")

# Some dependencies of the tests have no wheels for free-threaded builds and pre-releases.
PROBE = """
import sys, sysconfig
fit = sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final"
if fit and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    import ensurepip, venv
    print(*sys.version_info[:2])
"""
LOCATIONS = (
    "import dockertest, sysconfig; print(dockertest.__file__, sysconfig.get_path('purelib'), sep='\\n')"
)


class FailedError(Exception):
    """A step failed; the message contains its output."""


@dataclass(frozen=True)
class Python:
    """
    One of the interpreters to test with.

    Attributes:
        minor: Its version, `(3, 12)`.
        base: The interpreter as installed on the machine.
        prefix: The beginning of every command, for an interpreter in another root filesystem.
    """

    minor: tuple[int, int]
    base: Path
    prefix: tuple[str | Path, ...] = ()

    @property
    def name(self) -> str:
        """Its display name."""
        return f"Python {self.minor[0]}.{self.minor[1]}"

    @property
    def executable(self) -> Path:
        """The interpreter of its virtual environment, in which the wheel is installed."""
        return VENVS / f"{self.minor[0]}.{self.minor[1]}" / "bin" / "python"


def main() -> int:
    """Test the wheel with all Pythons and report those that failed."""
    parser = argparse.ArgumentParser(description="Test the built wheel.")
    parser.add_argument("--all", action="store_true", help="test all supported versions of Python")
    parser.add_argument("wheel", type=Path)
    arguments = parser.parse_args()
    wheel, is_all = arguments.wheel, arguments.all
    pythons = find_pythons()
    pythons = add_missing(pythons) if is_all else list(dict.fromkeys([*pythons[:1], *pythons[-1:]]))
    print(f"testing {wheel.name} with {', '.join(python.name for python in pythons)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dockertest wheel ") as folder:
        copies = Path(folder)
        failed = run_in_parallel(
            pythons, partial(install_and_test, wheel.resolve(), copies, has_old=not is_all)
        )
        failed += run_in_parallel(
            [python for python in pythons if python not in failed],
            partial(run_tests_with_engine, copies, has_old=not is_all),
        )
    if failed:
        print(f"FAILED with {', '.join(python.name for python in failed)}", file=sys.stderr)
    return 1 if failed or not pythons else 0


def find_pythons() -> list[Python]:
    """
    Return one CPython of each supported minor version on this machine.

    The oldest comes first.
    """
    on_path = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 30)]
    candidates = [
        Path(sys.executable).resolve(),
        *(Path(path) for path in on_path if path),
        *sorted(Path.home().glob(".pyenv/versions/*/bin/python3")),
    ]
    pythons: dict[tuple[int, int], Python] = {}
    for candidate in candidates:
        minor = probe(candidate)
        if minor and minor >= OLDEST:
            pythons.setdefault(minor, Python(minor, candidate))
    return [pythons[minor] for minor in sorted(pythons)]


def add_missing(pythons: list[Python]) -> list[Python]:
    """
    Return a Python of each supported version.

    Versions that this machine lacks come from Debian unstable.
    """
    from tests.engines import others, start

    supported = re.findall(r"Python :: 3\.(\d+)", (ROOT / "pyproject.toml").read_text())
    found = {python.minor: python for python in pythons}
    missing = [(3, int(minor)) for minor in supported if (3, int(minor)) not in found]
    if missing:
        names = [f"python{major}.{minor}" for major, minor in missing]
        packages = (*DEBIAN, *(f"{name}-venv" for name in names))
        files = others.Other(name="pythons", number=0, suite="unstable", packages=packages, scheme="unix")
        start.require_tools()
        start.make_tree(files)
        prefix = ("unshare", "--mount", ROOT / "tests/in_tree.sh", files.tree)
        for minor, name in zip(missing, names, strict=True):
            found[minor] = Python(minor, Path("/usr/bin") / name, prefix)
    return [found[minor] for minor in sorted(found)]


def probe(executable: Path) -> tuple[int, int] | None:
    """
    Return an interpreter's version, or `None` if it cannot be tested with.

    A shim without a target is an example.
    """
    done = subprocess.run([executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def run_in_parallel(pythons: Sequence[Python], step: Callable[[Python], str]) -> list[Python]:
    """
    Run a step with every Python in parallel, and return those that failed.

    As many run at a time as there are cores.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        succeeded = list(threads.map(lambda python: succeeds(python, step), pythons))
    return [python for python, success in zip(pythons, succeeded, strict=True) if not success]


def succeeds(python: Python, step: Callable[[Python], str]) -> bool:
    """Run a step, report its result, and return whether it succeeded."""
    began = time.monotonic()
    try:
        result = step(python)
    except FailedError as error:
        print(f"{python.name}: FAILED\n{error}", flush=True)
        return False
    print(f"{python.name}: {result} ({time.monotonic() - began:.0f} s in all)", flush=True)
    return True


def install_and_test(wheel: Path, copies: Path, python: Python, *, has_old: bool) -> str:
    """Install the wheel into a new environment and run the tests that need no engine."""
    environment = python.executable.parent.parent
    call([*python.prefix, python.base, "-m", "venv", "--clear", environment], ROOT)
    pins = oldest_dependencies() if has_old and python.minor == OLDEST else []
    install = ("-m", "pip", "install", "--quiet", f"{wheel}[test]", *pins)
    call([*python.prefix, python.executable, *install], ROOT)
    return run_tests(copies, PURE, python, has_old=has_old)


def oldest_dependencies() -> list[str]:
    """Return requirements for the oldest versions that the package allows."""
    (dependencies,) = re.findall(
        r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    return [*re.findall(r'"(.+)"', dependencies.replace(">=", "==")), OLD_REQUESTS]


def run_tests(copies: Path, arguments: Sequence[str], python: Python, *, has_old: bool) -> str:
    """
    Run pytest in a copy, and return its last line.

    The copy does not contain the sources of the package.
    """
    kind = "pure" if arguments is PURE else "engine"
    copy = copies / f"{python.name} {kind}"
    for name in COPIED:
        copy_to(ROOT / name, copy / name)
    check_is_installed(python, copy)
    is_old = has_old and python.minor == OLDEST
    deselected = UNFIT_FOR_OLD_REQUESTS if is_old else []
    strict = () if is_old else ("-X", "dev", "-W", "error")
    pytest = (python.executable, *strict, "-m", "pytest", "-p", "no:cacheprovider", "-q")
    output = call([*python.prefix, *pytest, *deselected, *arguments], copy)
    return f"{kind} tests: {output.splitlines()[-1].strip('= ')}"


def run_tests_with_engine(copies: Path, python: Python, *, has_old: bool) -> str:
    """Run the tests that need an engine."""
    arguments = OF_DEPENDENCIES if has_old and python.minor == OLDEST else OF_PYTHON
    return run_tests(copies, arguments, python, has_old=has_old)


def copy_to(source: Path, target: Path) -> None:
    """Copy a file or a folder, except for caches and hidden files in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    else:
        shutil.copy2(source, target)


def check_is_installed(python: Python, folder: Path) -> None:
    """Fail if the tests would import another `dockertest` than the installed one."""
    command = [*python.prefix, python.executable, "-c", LOCATIONS]
    imported, site_packages = call(command, folder).splitlines()
    if not Path(imported).is_relative_to(site_packages):
        raise FailedError(f"dockertest is imported from {imported}, not from {site_packages}")


def call(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command and return its output, which is part of the error if it fails."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    # Some tests leave containers behind on purpose. With separate state folders, the runs do not recover each other's
    # sessions.
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
        raise FailedError(f"{shown} failed with exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
