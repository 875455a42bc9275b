"""
The examples for test frameworks run, and leave nothing behind.

The commands are those in their docstrings.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Engine

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = {
    "python examples/with_script.py": r"^\[\('alice', 10\)\]$",
    "python -m unittest examples/with_unittest.py": r"^Ran 4 tests in .*\n\nOK$",
    "python -m pytest examples/with_pytest.py": r"= 3 passed in ",
    "python -m pytest -n 2 examples/with_pytest.py": r"started 2 of .*postgres:15 in (.*\n)+=+ 3 passed in ",
    "python -m pytest -p no:dockertest examples/with_pytest_alone.py": r"= 1 passed in ",
    "python examples/with_sqlalchemy.py": r"^carol is refused\nalice bob$",
    "python examples/with_asyncio.py": r"^\(5,\)$",
    "python examples/with_django/manage.py test accounts": r"^Ran 4 tests in .*\n\nOK$",
    "python examples/with_django/manage.py test accounts --parallel 2": r"^Ran 4 tests in .*\n\nOK$",
    "python -m pytest -n 2 examples/with_django": r"started 1 of .*postgres:15 in (.*\n)+=+ 4 passed in ",
    "python -m behave examples/with_behave": r"^2 scenarios passed, 0 failed, 0 skipped$",
}
VARIANTS = {
    "python -m pytest -n 2 examples/with_pytest.py",
    "python examples/with_django/manage.py test accounts --parallel 2",
}
# `python -m pytest -n 2 examples/with_django` uses the same features.
SOAK = {"python -m pytest -n 2 examples/with_pytest.py"}


@pytest.fixture
def prefix(engine: Engine, name: str) -> Iterator[str]:
    """
    An image prefix that only this test uses for the images of its servers.

    It makes it possible to find their containers.
    """
    for image in ("postgres:15", "redis:7.0"):
        original = engine.client.images.get(f"{os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}{image}")
        repository, tag = image.split(":")
        original.tag(f"{name}/{repository}", tag)  # Podman rejects both in one.
    yield f"{name}/"
    for image in ("postgres:15", "redis:7.0"):
        engine.client.images.remove(f"{name}/{image}")


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, marks=pytest.mark.soak if command in SOAK else ()) for command in COMMANDS],
)
def test_an_example_runs(engine: Engine, prefix: str, command: str) -> None:
    """
    It prints the expected output, and its containers are removed.

    Warnings are errors.
    """
    python, *arguments = command.split()
    assert python == "python"
    ended = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=EXAMPLES.parent,
        env={**os.environ, "DOCKERTEST_IMAGE_PREFIX": prefix, "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert re.search(COMMANDS[command], ended.stdout, re.MULTILINE), ended.stdout
    assert "Exception ignored" not in ended.stdout
    images = [container["Image"] for container in engine.client.api.containers(all=True)]
    assert [image for image in images if image.startswith(prefix)] == []


def test_every_example_is_run() -> None:
    """A new example has to be added to the list above."""
    files = [*EXAMPLES.glob("with_*/*.py"), *EXAMPLES.glob("with_*.py")]
    documented = re.findall(
        r"^    (python .*examples/with_.*)$", "\n".join(path.read_text() for path in files), re.MULTILINE
    )
    assert set(documented) == set(COMMANDS) - VARIANTS
    assert {path.name for path in EXAMPLES.glob("with_*")} == {
        part.split("/")[1]
        for command in documented
        for part in command.split()
        if part.startswith("examples/")
    }
