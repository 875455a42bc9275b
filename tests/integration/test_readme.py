"""What the README says is run, as it is printed."""

import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TOLD = [line for block in COMMANDS for line in block.splitlines()]


@pytest.mark.parametrize(
    "block", PYTHON_BLOCKS, ids=lambda block: block.strip().splitlines()[-1].strip()[:40]
)
def test_a_block_runs_as_printed(pool: dockertest.Pool, block: str, tmp_path: Path) -> None:
    """In a process and a folder of its own, with warnings as errors, and it leaves nothing behind; tests by their runner."""
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
    assert runner == "test_block" or re.search(r"Ran 1 test|1 passed", ended.stdout + ended.stderr)
    names = set(re.findall(r'name="([^"]+)"', block))
    assert not any(pool.container_by_name(name) for name in names)


@pytest.mark.parametrize("line", [line for line in TOLD if line.startswith("dockertest ")])
def test_a_command_of_ours_does_what_it_says(line: str) -> None:
    """One that stays until Ctrl-C gets it when it has said how to connect."""
    words = [sys.executable, "-m", *line.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stays = words[3] == "run"
        for shown in process.stdout:
            if stays and shown.startswith("  connect "):
                process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if stays else 0), out + err


def test_every_command_is_run_by_ci_or_is_the_install() -> None:
    """What a reader is told to type is what CI types; the installation is tested with the built wheel."""
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    told = [line for line in TOLD if not line.startswith("dockertest ")]
    assert "make demo" in told
    assert [line for line in told if line not in ci and line != 'python -m pip install ".[postgres]"'] == []


def test_what_a_go_user_is_told_to_write_exists() -> None:
    """The middle column of both tables, which have all methods of Go's pool."""
    tables = README[README.index("## Coming from Go") : README.index("## Coming from testcontainers")]
    go, ours = zip(*re.findall(r"^\| (.*?) \| (.*?) \|", tables, re.MULTILINE), strict=True)
    told = "\n".join(ours)
    kinds = {"pool": dockertest.Pool, "r": dockertest.Resource, "network": dockertest.Network}
    for owner, name in re.findall(r"\b(pool|r|network)\.(\w+)", told):
        assert hasattr(kinds[owner], name) or name in inspect.signature(kinds[owner]).parameters, name
    for name in re.findall(r"`(?:dockertest\.)?([A-Z]\w+|retry)", told):
        assert name in dockertest.__all__ or name == "DockerTestCase", name
    methods = set(re.findall(r"pool\.([A-Z]\w+)\(", "\n".join(go)))
    assert len(methods) == 13 + 3  # those of version 3, and what version 4 has besides


def test_the_blocks_are_there() -> None:
    """A changed fence would silently leave nothing to run."""
    assert len(PYTHON_BLOCKS) == README.count("```python") == 6
