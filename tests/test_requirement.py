"""Without an engine a test is skipped on a laptop and fails in CI; here no engine is ever met."""

import unittest
from pathlib import Path

import pytest

import dockertest


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An endpoint at which nothing listens, named by the environment, which says nothing else."""
    for name in ("CI", "DOCKERTEST_REQUIRED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    return f"unix://{tmp_path}/nowhere.sock"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"CI": ""},
        {"CI": "false"},
        {"CI": "0"},
        {"DOCKERTEST_REQUIRED": "0"},
        {"CI": "true", "DOCKERTEST_REQUIRED": "0"},
        {"DOCKERTEST_REQUIRED": ""},
    ],
)
def test_it_skips(nowhere: str, monkeypatch: pytest.MonkeyPatch, environment: "dict[str, str]") -> None:
    """The text says what is missing, what was tried, and how to have a failure instead."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(unittest.SkipTest) as caught:
        dockertest.require_docker()
    assert str(caught.value).startswith(
        "needs a container engine (DOCKERTEST_REQUIRED=1 makes this a failure): no container engine answers at "
        f"{nowhere} (DOCKER_HOST): no such file or directory; "
    )


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"CI": "true"}, "CI is set"),
        ({"CI": "woodpecker"}, "CI is set"),
        ({"CI": "1", "DOCKERTEST_REQUIRED": ""}, "CI is set"),
        ({"DOCKERTEST_REQUIRED": "1"}, "DOCKERTEST_REQUIRED is 1"),
        ({"CI": "false", "DOCKERTEST_REQUIRED": "1"}, "DOCKERTEST_REQUIRED is 1"),
    ],
)
def test_it_fails(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, environment: "dict[str, str]", why: str
) -> None:
    """The text says what was tried, why that is a failure here, and how to have it skipped."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(dockertest.DockerUnavailableError) as caught:
        dockertest.require_docker()
    assert nowhere in str(caught.value)
    assert str(caught.value).endswith(f"required, since {why}; DOCKERTEST_REQUIRED=0 skips instead")


@pytest.mark.parametrize("name", ["DOCKERTEST_REQUIRED", "DOCKERTEST_KEEP", "DOCKERTEST_REAPER"])
@pytest.mark.parametrize("value", ["yes", "true", "false", "off", "2", " 1"])
def test_a_word_that_it_does_not_know_is_an_error(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A typing error must not have CI skip what it has to run; `off` must neither keep everything nor start a reaper."""
    monkeypatch.setenv(name, value)
    with pytest.raises(dockertest.InvalidOptionError) as caught:
        dockertest.require_docker()
    assert str(caught.value) == f"{name}: {value!r} is neither 1 nor 0"


def test_an_endpoint_that_is_none_is_a_mistake_and_no_reason_to_skip(
    nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be skipped for ever otherwise, on the machine where it was meant to run."""
    monkeypatch.setenv("DOCKER_HOST", "localhost:2375")
    with pytest.raises(dockertest.InvalidOptionError, match="DOCKER_HOST"):
        dockertest.require_docker()
