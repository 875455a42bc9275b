"""
A failed test shows only the user's code and the error.

`--full-trace` shows everything.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest
from dockertest._traceback import shortened
from tests.conftest import NO_UNUSED_PLUGINS

TESTS = """
import unittest
import dockertest
from dockertest import _validation

def connect():
    raise ConnectionError("down")

def check():
    answer = 3
    assert answer == 4

def test_retry():
    dockertest.retry(connect, max_attempts=2)

def test_callback():
    dockertest.retry(check, on=ConnectionError)

def test_unavailable():
    dockertest.Pool("tcp://127.0.0.1:1")

def test_option():
    dockertest.RunOptions(repository="x", pull="sometimes")

def test_driver():
    from dockertest.postgres import _Backend
    _Backend(by_files=False).connect("postgresql://user:secret@127.0.0.1:1/")

def test_bug(monkeypatch):
    monkeypatch.delattr(_validation, "parse_seconds")
    dockertest.retry(connect)

class TestCase(unittest.TestCase):
    def test_case(self):
        dockertest.retry(connect, max_attempts=2)
"""
FRAMES = ("dockertest/_", "urllib3/", "requests/", "contextlib.py")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a user's failing tests."""
    path = tmp_path / "test_fails.py"
    path.write_text(TESTS, encoding="utf-8")
    return path


def report(file: Path, test: str, *options: str) -> str:
    """Run one of the tests and return what pytest prints about its failure."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(file.parent)]
    done = subprocess.run(
        [*command, *options, str(file), "-k", test],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=file.parent,
        env={**os.environ, "PYTEST_ADDOPTS": NO_UNUSED_PLUGINS},
    )
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    return done.stdout.partition("= FAILURES =")[2].partition("short test summary")[0].replace("\\", "/")


@pytest.mark.parametrize(
    "test", ["test_retry", "test_callback", "test_unavailable", "test_option", "test_case"]
)
def test_a_failed_test_shows_only_its_own_code(file: Path, test: str) -> None:
    """
    The traceback used to have up to 700 lines.

    They were those of this package, requests and urllib3.
    """
    text = report(file, test)
    assert [frame for frame in FRAMES if frame in text] == []
    assert "> " in text
    assert len(text.splitlines()) < 35


def test_the_error_of_a_driver_is_not_a_bug(file: Path) -> None:
    """Its own frames are left out, since their variables contain the password."""
    text = report(file, "test_driver", "--showlocals")
    assert "password=secret" not in text
    assert [frame for frame in FRAMES if frame in text] == []
    assert "connection failed" in text


@pytest.mark.parametrize("test", ["test_retry", "test_case"])
def test_the_users_own_exception_is_shown(file: Path, test: str) -> None:
    """It is the cause of the timeout."""
    text = report(file, test)
    assert 'raise ConnectionError("down")' in text
    assert "RetryTimeoutError: gave up after" in text


def test_a_failed_assertion_in_a_callback_is_shown(file: Path) -> None:
    """The frames between the callback and the test are hidden."""
    assert "assert 3 == 4" in report(file, "test_callback")


@pytest.mark.parametrize("test", ["test_retry", "test_unavailable"])
def test_full_trace_shows_all_frames(file: Path, test: str) -> None:
    """This is the documented behaviour of pytest's option."""
    assert "dockertest/_" in report(file, test, "--full-trace")


def test_the_frames_of_a_bug_in_this_package_are_shown(file: Path) -> None:
    """They are needed to report an unexpected exception."""
    assert "dockertest/_retry.py" in report(file, "test_bug")


def test_the_exception_keeps_its_cause() -> None:
    """Only the report is shortened; other plugins and debuggers see the whole chain."""
    cause = OSError("refused")
    error = dockertest.EngineError("no answer")
    error.__cause__ = cause
    outer = ExceptionGroup("several", [error])
    with shortened(outer):
        assert error.__cause__ is None
    assert error.__cause__ is cause


def test_unittest_shows_a_failed_assertion_in_a_callback(tmp_path: Path) -> None:
    """A global `__unittest` in our modules would hide it."""
    (tmp_path / "case.py").write_text(
        TESTS + "    def test_callback(self):\n        dockertest.retry(check, on=ConnectionError)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "case.TestCase.test_callback"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert "assert answer == 4" in done.stderr


CASE = """
import unittest
import dockertest
from dockertest import _validation
from dockertest.testcase import DockerTestCase

def connect():
    raise ConnectionError("down")

def check():
    answer = 3
    assert answer == 4

class TestCase(DockerTestCase):
    @classmethod
    def setUpClass(cls):
        pass  # These tests need no engine.

    def test_retry(self):
        dockertest.retry(connect, max_attempts=2)

    def test_callback(self):
        dockertest.retry(check, on=ConnectionError)

    def test_unavailable(self):
        with self.subTest():
            dockertest.Pool("tcp://127.0.0.1:1")

    def test_bug(self):
        del _validation.parse_seconds
        dockertest.retry(connect)
"""


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("test_retry", "RetryTimeoutError: gave up after"),
        ("test_callback", "assert answer == 4"),
        ("test_unavailable", "DockerUnavailableError: cannot connect"),
        ("test_bug", "dockertest/_retry.py"),
    ],
)
def test_a_docker_test_case_shows_only_its_own_code(tmp_path: Path, test: str, message: str) -> None:
    """
    This includes unittest's own runner.

    The frames of a bug in this package are kept.
    """
    (tmp_path / "case.py").write_text(CASE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "unittest", f"case.TestCase.{test}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/no.sock"},
    )
    text = done.stderr.replace("\\", "/")
    assert message in text
    assert ", in test_" in text
    assert test == "test_bug" or [frame for frame in FRAMES if frame in text] == []
