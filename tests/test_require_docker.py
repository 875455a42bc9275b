"""
Without an engine, tests are skipped locally and fail in CI.

These tests need no engine.
"""

import unittest
from pathlib import Path

import pytest

import dockertest


@pytest.fixture
def missing_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An endpoint without an engine, set in an otherwise clean environment."""
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
def test_the_test_is_skipped(
    missing_engine: str, monkeypatch: pytest.MonkeyPatch, environment: "dict[str, str]"
) -> None:
    """
    The reason contains the endpoint and the failure.

    It also explains how to make this a failure instead.
    """
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(unittest.SkipTest) as caught:
        dockertest.require_docker()
    assert str(caught.value).startswith(
        "needs a container engine (DOCKERTEST_REQUIRED=1 makes this a failure): cannot connect to a container engine at "
        f"{missing_engine} (DOCKER_HOST): no such file or directory; "
    )


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CI": "true"}, "CI is set"),
        ({"CI": "woodpecker"}, "CI is set"),
        ({"CI": "1", "DOCKERTEST_REQUIRED": ""}, "CI is set"),
        ({"DOCKERTEST_REQUIRED": "1"}, "DOCKERTEST_REQUIRED is 1"),
        ({"CI": "false", "DOCKERTEST_REQUIRED": "1"}, "DOCKERTEST_REQUIRED is 1"),
    ],
)
def test_the_test_fails(
    missing_engine: str, monkeypatch: pytest.MonkeyPatch, environment: "dict[str, str]", reason: str
) -> None:
    """
    The error contains the endpoint and why an engine is required.

    It also explains how to skip instead.
    """
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(dockertest.DockerUnavailableError) as caught:
        dockertest.require_docker()
    assert str(caught.value).startswith(f"a container engine is required because {reason}: cannot connect")
    assert missing_engine in str(caught.value)
    assert str(caught.value).endswith("DOCKERTEST_REQUIRED=0 skips the tests instead")


@pytest.mark.parametrize("name", ["DOCKERTEST_REQUIRED", "DOCKERTEST_KEEP", "DOCKERTEST_REAPER"])
@pytest.mark.parametrize("value", ["yes", "true", "false", "off", "2", " 1"])
def test_an_invalid_value_of_a_switch_is_an_error(
    missing_engine: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A typo must not make CI skip its tests, and `off` must not keep all containers."""
    monkeypatch.setenv(name, value)
    with pytest.raises(
        dockertest.InvalidOptionError, match=rf"^{name}: invalid value {value!r}: expected 1 or 0$"
    ):
        dockertest.require_docker()


def test_an_invalid_endpoint_does_not_skip(missing_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a typo in the configuration would always skip the tests."""
    monkeypatch.setenv("DOCKER_HOST", "localhost:2375")
    with pytest.raises(dockertest.InvalidOptionError, match="DOCKER_HOST"):
        dockertest.require_docker()
