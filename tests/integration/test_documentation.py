"""
The Python blocks and commands of the documentation run as printed.

The README is included.
"""

import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest

from .conftest import skip_if_unsupported

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
}
PYTHON_BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, page in PAGES.items()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL), 1)
]
COMMANDS = [
    line
    for page in PAGES.values()
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# `make test-wheel` and the dependencies of the tests cover these.
INSTALLATIONS = {'python -m pip install ".[postgres]"', "python -m pip install pytest redis"}


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_a_block_runs_as_printed(
    request: pytest.FixtureRequest, pool: dockertest.Pool, block: str, tmp_path: Path
) -> None:
    """
    Each block succeeds with warnings as errors, and leaves nothing behind.

    It runs in its own process and folder.
    """
    if "host_access_ports" in block:
        request.getfixturevalue("local")  # Containers of a remote engine cannot reach this host.
    if "memory=" in block:
        skip_if_unsupported("limits of memory", request.getfixturevalue("engine"))
    if "ulimits=" in block:
        skip_if_unsupported("limits of processes", request.getfixturevalue("engine"))
    if "pool.compose" in block:
        skip_if_unsupported("Compose projects", request.getfixturevalue("engine"))
    (tmp_path / "test_block.py").write_text(block, encoding="utf-8")
    runner = "unittest" if "TestCase" in block else "pytest" if "pytest" in block else "test_block"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", runner],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=dict(os.environ),
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert runner == "test_block" or re.search(
        r"Ran [1-9]\d* test|[1-9]\d* passed", ended.stdout + ended.stderr
    )
    names = set(re.findall(r'\bname="([^"]+)"', block))
    assert not any(pool.container_by_name(name) for name in names)


@pytest.mark.parametrize("line", sorted({line for line in COMMANDS if line.startswith("dockertest ")}))
def test_a_dockertest_command_runs_as_printed(line: str) -> None:
    """
    Each command of the package succeeds.

    A command that runs until Ctrl-C is interrupted once it has printed the URL.
    """
    words = [sys.executable, "-m", *line.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stays = words[3] == "run"
        for shown in process.stdout:
            if stays and shown.startswith("  connect "):
                process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if stays else 0), out + err


def test_every_other_command_is_run_by_ci_or_is_an_installation() -> None:
    """CI runs the commands that readers are asked to type."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    others = [line for line in COMMANDS if not line.startswith("dockertest ")]
    assert "make demo" in others
    assert [line for line in others if line not in ci and line not in INSTALLATIONS] == []


def test_the_names_in_the_go_migration_exist() -> None:
    """
    The Python names of both tables exist, and all methods of Go's pool are listed.

    The names are in the middle column, and the methods of Go's pool in the first.
    """
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", PAGES["docs/migration/go.md"], re.MULTILINE)
    go, python = ("\n".join(column) for column in zip(*rows, strict=True))
    kinds = {"pool": dockertest.Pool, "r": dockertest.Resource, "network": dockertest.Network}
    for owner, name in re.findall(r"\b(pool|r|network)\.(\w+)", python):
        assert hasattr(kinds[owner], name) or name in inspect.signature(kinds[owner]).parameters, name
    for name in re.findall(r"`(?:dockertest\.)?([A-Z]\w+|retry)", python):
        assert name in dockertest.__all__ or name == "DockerTestCase", name
    methods = set(re.findall(r"pool\.([A-Z]\w+)\(", go))
    assert len(methods) == 13 + 3  # the methods of version 3, and those that version 4 adds


def test_no_python_block_is_overlooked() -> None:
    """The pattern finds every block, also if the style of fences changes."""
    assert len(PYTHON_BLOCKS) == sum(page.count("```python") for page in PAGES.values()) >= 15
