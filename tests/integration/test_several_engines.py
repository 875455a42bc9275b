"""`DOCKERTEST_ENDPOINTS`: each process takes one of several engines. Proxies in front of the one engine stand for them."""

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import dockertest
from dockertest import _settings
from dockertest._cleanup.registry import registry
from tests.engines.fault_proxy import FaultProxy, freeze, refuse

from .conftest import Engine, Suite

TESTS = """
import dockertest, pytest

@pytest.fixture(scope="session")
def server(dockertest_pool):
    return dockertest_pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL, shared=True)

@pytest.mark.parametrize("number", range(24))
def test_one(server, dockertest_pool, number):
    assert server.exec(["echo", "up"]).stdout == "up\\n"
    with open("seen", "a") as file:
        file.write(f"{dockertest_pool.endpoint} {server.id}\\n")
"""
DISCONNECTED = "RemoteDisconnected: Remote end closed connection without response"


@pytest.fixture
def proxies(tmp_path: Path) -> Iterator["list[FaultProxy]"]:
    """Three engines."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultProxy(tmp_path / name).running()) for name in "abc"]


@pytest.fixture
def endpoints(proxies: "list[FaultProxy]", monkeypatch: pytest.MonkeyPatch) -> "list[str]":
    """The addresses of the three engines, in the environment of a process that has not chosen one yet."""
    listed = [proxy.endpoint for proxy in proxies]
    monkeypatch.setenv("DOCKERTEST_ENDPOINTS", " ".join(listed))
    monkeypatch.setattr(registry, "placed_at", "")
    monkeypatch.setattr(registry, "_messages", {})
    monkeypatch.delenv("DOCKERTEST_HOST_OVERRIDE", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return listed


class TestPlacement:
    """Which engine a process takes."""

    @pytest.mark.parametrize("number", [0, 1, 2, 3, 10])
    def test_the_number_of_the_worker(
        self, endpoints: "list[str]", monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """Workers of pytest-xdist are distributed evenly."""
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        with dockertest.Pool() as pool:
            assert pool.endpoint == endpoints[number % 3]

    def test_a_run_is_stable(self, endpoints: "list[str]", monkeypatch: pytest.MonkeyPatch) -> None:
        """A later run has another id by itself, and meets the containers that it reuses; ids by the user are distributed."""
        numbers = {
            _settings.placement({"DOCKERTEST_RUN_ID": made})
            for made in ("", f"pytest-{'0' * 32}", f"pytest-{'1' * 32}", f"random-{'0' * 32}", "process-1-2")
        }
        assert len(numbers) == 1
        chosen = Counter(_settings.placement({"DOCKERTEST_RUN_ID": f"job {job}"}) % 3 for job in range(300))
        assert min(chosen.values()) > 60
        with dockertest.Pool() as first, dockertest.Pool() as second:
            assert first.endpoint == second.endpoint == endpoints[numbers.pop() % 3]

    def test_an_argument_wins(self, endpoints: "list[str]", monkeypatch: pytest.MonkeyPatch) -> None:
        """And `DOCKER_HOST` loses."""
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
        for endpoint in endpoints:
            with dockertest.Pool(endpoint) as pool:
                assert pool.endpoint == endpoint
        with dockertest.Pool() as pool:
            assert pool.endpoint in endpoints

    @pytest.mark.usefixtures("endpoints")
    def test_an_override_of_the_host_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It would be the address of one engine."""
        monkeypatch.setenv("DOCKERTEST_HOST_OVERRIDE", "10.0.0.1")
        with pytest.raises(dockertest.InvalidOptionError, match="DOCKERTEST_ENDPOINTS cannot be combined"):
            dockertest.Pool()


class TestFailures:
    """An engine that does not answer."""

    def test_a_dead_one_is_skipped_with_one_warning(
        self,
        endpoints: "list[str]",
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
    ) -> None:
        """The process then stays with the one that has answered."""
        listed = [f"unix://{tmp_path}/dead", *endpoints[:2]]
        monkeypatch.setenv("DOCKERTEST_ENDPOINTS", " ".join(listed))
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
        with caplog.at_level(logging.WARNING), dockertest.Pool() as first, dockertest.Pool() as second:
            assert first.endpoint == second.endpoint == endpoints[0]
        (warning,) = caplog.records
        assert warning.getMessage().startswith(
            f"skipping the engine at {listed[0]} (DOCKERTEST_ENDPOINTS): no such"
        )

    def test_a_frozen_one_is_skipped(
        self, endpoints: "list[str]", proxies: "list[FaultProxy]", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It costs a few seconds once, and not for each pool."""
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
        for _ in range(5):
            proxies[1].next("_ping", freeze)
        with dockertest.Pool() as pool:
            assert pool.endpoint == endpoints[2]
        began = time.monotonic()
        with dockertest.Pool() as pool:
            assert pool.endpoint == endpoints[2]
        assert time.monotonic() - began < 2

    def test_one_dies_later(
        self,
        endpoints: "list[str]",
        proxies: "list[FaultProxy]",
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The error of the next call names it, and a new pool takes the next engine."""
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
        with dockertest.Pool() as pool:
            proxies[1].stop()
            with pytest.raises(dockertest.DockerUnavailableError) as caught:
                pool.inventory()
            assert f"{endpoints[1]} answered before" in caught.value.hint
            with dockertest.Pool() as following, dockertest.Pool() as last:
                assert following.endpoint == last.endpoint == endpoints[2]
        (warning,) = caplog.messages
        assert warning.startswith(f"skipping the engine at {endpoints[1]}")

    def test_none_answers(self, endpoints: "list[str]", monkeypatch: pytest.MonkeyPatch) -> None:
        """The error has the reason of each."""
        listed = [f"{endpoint}-dead" for endpoint in endpoints]
        monkeypatch.setenv("DOCKERTEST_ENDPOINTS", " ".join(listed))
        with pytest.raises(dockertest.DockerUnavailableError) as caught:
            dockertest.Pool()
        assert all(f"{endpoint} (DOCKERTEST_ENDPOINTS)" in str(caught.value) for endpoint in listed)
        assert "DOCKERTEST_ENDPOINTS" in caught.value.hint


class TestUse:
    """A suite that is spread over several engines, and the command line."""

    def test_one_server_per_engine(self, endpoints: "list[str]", engine: Engine, suite: Suite) -> None:
        """Twenty-four tests by four workers see one server on each engine, and leave none."""
        suite.write("test_it.py", TESTS)
        code, output = suite.run("pytest", "-n", "4", "test_it.py")
        assert code == 0, output
        seen = {tuple(line.split()) for line in (suite.folder / "seen").read_text().splitlines()}
        assert {endpoint for endpoint, _ in seen} == set(endpoints)
        assert len({server for _, server in seen}) == 3
        assert engine.labelled(suite.label) == []

    def test_commands_take_all(self, endpoints: "list[str]", name: str, tmp_path: Path) -> None:
        """`ps`, `prune` and `doctor` report an engine that does not answer, and use the others."""
        dead = f"unix://{tmp_path}/dead"
        listed = [endpoints[0], dead, endpoints[1]]
        with dockertest.Pool() as pool:
            made = pool.run("busybox:1.35", cmd=["sleep", "600"], labels={name: "1"})
            shown = command(listed, "ps", "--json")
            found = [item["endpoint"] for item in json.loads(shown.stdout) if item["id"] == made.id]
            assert found == endpoints[:2]
            assert dead in shown.stderr
            assert shown.returncode == 1
            assert endpoints[1] in command(listed, "ps").stdout
            pruned = command(listed, "prune", "--json")
            assert pruned.returncode == 1
            assert made.id not in json.loads(pruned.stdout)["removed"]
        findings = json.loads(command(listed, "doctor", "--json").stdout)["findings"]
        assert [
            (finding["endpoint"], finding["ok"]) for finding in findings if finding["what"] == "endpoint"
        ] == [(endpoints[0], True), (dead, False), (endpoints[1], True)]

    def test_commands_continue_after_a_failure(
        self, endpoints: "list[str]", proxies: "list[FaultProxy]", name: str
    ) -> None:
        """A frozen engine and one that is lost in the middle are named, and the last one is used."""
        lost, frozen, last = endpoints
        proxies[1].always = freeze
        with dockertest.Pool(last) as pool:
            made = pool.run("busybox:1.35", cmd=["sleep", "600"], labels={name: "1"})
            proxies[0].next("GET .*/containers/json", refuse)
            shown = command(endpoints, "ps", "--json")
            found = [item["endpoint"] for item in json.loads(shown.stdout) if item["id"] == made.id]
            assert found == [last]
            assert shown.returncode == 1
            assert f"{frozen} (endpoint=): the engine did not answer within 4 s" in shown.stderr
            assert (
                f"cannot list containers: the engine closed the connection: {DISCONNECTED}; {lost} answered"
                in shown.stderr
            )
            proxies[0].next("GET .*/containers/json", refuse)
            pruned = command(endpoints, "prune", "--json")
            assert pruned.returncode == 1
            assert json.loads(pruned.stdout)
            assert f"{lost} answered before" in pruned.stderr
        proxies[0].next("GET .*/info", refuse)
        checked = command(endpoints, "doctor", "--json")
        findings = [
            (finding["endpoint"], finding["what"], finding["ok"])
            for finding in json.loads(checked.stdout)["findings"]
        ]
        assert findings[:3] == [
            (lost, "endpoint", True),
            (lost, "engine", False),
            (frozen, "endpoint", False),
        ]
        assert (last, "endpoint", True) in findings
        assert (last, "engine", True) in findings
        assert checked.returncode == 1


def command(endpoints: "list[str]", *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with these engines."""
    return subprocess.run(
        [sys.executable, "-m", "dockertest", *arguments],
        env={**os.environ, "DOCKERTEST_ENDPOINTS": " ".join(endpoints)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
