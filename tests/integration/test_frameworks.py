"""The worked examples for test frameworks run, as each says in its first lines, and leave nothing behind."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Engine

EXAMPLES = Path(__file__).parents[2] / "examples"
TOLD = {
    "python examples/with_script.py": r"^\[\('alice', 10\)\]$",
    "python -m unittest examples/with_unittest.py": r"^Ran 4 tests in .*\n\nOK$",
    "python -m pytest examples/with_pytest.py": r"= 3 passed in ",
    "python -m pytest -n 2 examples/with_pytest.py": r"started 2 of .*postgres:15 in (.*\n)+=+ 3 passed in ",
    "python -m pytest -p no:dockertest examples/with_pytest_alone.py": r"= 1 passed in ",
    "python examples/with_sqlalchemy.py": r"^carol is refused\nalice bob$",
    "python examples/with_asyncio.py": r"^\(5,\)$",
    "python examples/with_django/manage.py test accounts": r"^Ran 3 tests in .*\n\nOK$",
    "python examples/with_django/manage.py test accounts --parallel 2": r"^Ran 3 tests in .*\n\nOK$",
    "python -m behave examples/with_behave": r"^2 scenarios passed, 0 failed, 0 skipped$",
}
MORE = {
    "python -m pytest -n 2 examples/with_pytest.py",
    "python examples/with_django/manage.py test accounts --parallel 2",
}


@pytest.fixture
def prefix(engine: Engine, name: str) -> Iterator[str]:
    """A prefix by which nobody else calls the image of PostgreSQL, so that what is made of it is known."""
    image = engine.client.images.get(f"{os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}postgres:15")
    image.tag(f"{name}/postgres", "15")
    yield f"{name}/"
    engine.client.images.remove(f"{name}/postgres:15")


@pytest.mark.parametrize("command", TOLD)
def test_an_example_runs(engine: Engine, prefix: str, command: str) -> None:
    """With warnings as errors; it says what it found, and its containers are gone."""
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
    assert re.search(TOLD[command], ended.stdout, re.MULTILINE), ended.stdout
    assert "Exception ignored" not in ended.stdout
    images = [each["Image"] for each in engine.client.api.containers(all=True)]
    assert [each for each in images if each.startswith(prefix)] == []


def test_every_example_is_run_as_it_says_itself() -> None:
    """A new one has to be in the list above, with the command that stands in it."""
    files = [*EXAMPLES.glob("with_*/*.py"), *EXAMPLES.glob("with_*.py")]
    said = re.findall(
        r"^    (python .*examples/with_.*)$", "\n".join(path.read_text() for path in files), re.MULTILINE
    )
    assert set(said) == set(TOLD) - MORE
    assert {path.name for path in EXAMPLES.glob("with_*")} == {
        part.split("/")[1] for command in said for part in command.split() if part.startswith("examples/")
    }
