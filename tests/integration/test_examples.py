"""The examples run, as a user would run them, and leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with warnings as errors, and give what it said."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def test_exposure_notifications(pool: dockertest.Pool) -> None:
    """It tells what it started, where, how long it took, what the server answered, and that it is gone."""
    ended = run(str(EXAMPLES / "exposure_notifications.py"))
    assert ended.returncode == 0, ended.stderr
    for told in (
        "started in",
        "listens on 127.0.0.1:",
        "ready in",
        "answers: PostgreSQL 15",
        "read back",
        "gone in",
    ):
        assert told in ended.stdout


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
def test_exposure_notifications_is_skipped_when_told_to(value: str) -> None:
    """As in Go, a variable turns the tests with a database off."""
    ended = run(str(EXAMPLES / "exposure_notifications.py"), SKIP_DATABASE_TESTS=value)
    assert "SKIP_DATABASE_TESTS is set" in ended.stderr
    assert "started" not in ended.stdout
