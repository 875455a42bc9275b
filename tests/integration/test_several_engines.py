"""
With `DOCKERTEST_ENDPOINTS`, each process takes one of several engines.

Proxies stand for the engines and forward to one or three real engines.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import docker
import pytest

import dockertest
from dockertest import _settings
from dockertest._cleanup.registry import registry
from tests.engines.fault_proxy import ENGINE_SOCKET, FaultProxy, delay, engine_socket, freeze, refuse, relay
from tests.engines.others import OTHERS, answers

from .conftest import Engine, Suite

TESTS = """
import dockertest, glob, os, pytest

@pytest.fixture(scope="session")
def server(dockertest_pool):
    # Otherwise a worker that starts late might find that the others have ended, and start another server.
    try:
        server = dockertest_pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL, shared=True)
    finally:
        open("uses-" + os.environ["PYTEST_XDIST_WORKER"], "w").close()
    dockertest.retry(lambda: len(glob.glob("uses-*")) >= 4, max_wait=60)
    return server

@pytest.mark.parametrize("number", range(24))
def test_one(server, dockertest_pool, number):
    assert server.exec(["echo", "up"]).stdout == "up\\n"
    with open("seen", "a") as file:
        file.write(f"{dockertest_pool.endpoint} {server.id}\\n")
"""

# The same, with a pool that soon gives up on an engine, and a record of what happened to each test and in each process.
SHORT_TIMEOUT = """
import dockertest, json, logging, os, pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
logging.basicConfig(filename=f"log-{WORKER}", format="%(message)s")

@pytest.fixture(scope="session")
def dockertest_pool():
    with dockertest.Pool(timeout=TIMEOUT) as pool, dockertest.Pool() as other:
        assert other.endpoint == pool.endpoint
        yield pool

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    error = call.excinfo.value if call.excinfo else None
    with open("reports", "a") as file:
        kinds = [base.__name__ for base in type(error).__mro__]
        record = (WORKER, report.nodeid, report.when, report.outcome, kinds, str(error), call.duration)
        file.write(json.dumps(record) + "\\n")
    return report
"""
DISCONNECTED = "RemoteDisconnected: Remote end closed connection without response"
SILENCE = 10  # seconds that an engine may be silent


@pytest.fixture
def proxies(tmp_path: Path) -> Iterator["list[FaultProxy]"]:
    """Three engines."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultProxy(tmp_path / name).running()) for name in "abc"]


@pytest.fixture
def endpoints(proxies: "list[FaultProxy]", monkeypatch: pytest.MonkeyPatch) -> "list[str]":
    """
    Set `DOCKERTEST_ENDPOINTS` to the three engines, and return their addresses.

    The process has not chosen an engine yet.
    """
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
        """
        Generated run ids select one engine, and ids set by the user are distributed.

        A later run has another generated id and still finds the containers that it reuses.
        """
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
        requests = list(proxies[1].requests)
        assert requests
        with dockertest.Pool() as pool:
            assert pool.endpoint == endpoints[2]
        assert proxies[1].requests == requests

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


class Stage(NamedTuple):
    """What happened to one stage of a test: its set-up, its call or its cleanup."""

    worker: str
    test: str
    when: str
    outcome: str
    kinds: "list[str]"
    error: str
    seconds: float


class Fleet:
    """Three engines behind proxies, and a suite that is spread over them."""

    def __init__(self, proxies: "list[FaultProxy]", engines: "list[Engine]", suite: Suite) -> None:
        self.proxies = proxies
        self.engines = engines
        self.suite = suite
        suite.seconds = 300
        suite.write("conftest.py", SHORT_TIMEOUT.replace("TIMEOUT", str(SILENCE)))
        suite.write("test_it.py", TESTS)

    def run(self) -> "tuple[int, str]":
        """
        Run twenty-four tests with four workers.

        The first and the last worker take the first engine.
        """
        endpoints = " ".join(proxy.endpoint for proxy in self.proxies)
        return self.suite.run("pytest", "-n", "4", "test_it.py", DOCKERTEST_ENDPOINTS=endpoints)

    def servers(self) -> "dict[str, set[str]]":
        """Return the servers that the tests have used, by endpoint."""
        found: dict[str, set[str]] = {}
        for line in (self.suite.folder / "seen").read_text().splitlines():
            endpoint, server = line.split()
            found.setdefault(endpoint, set()).add(server)
        return found

    def stages(self) -> "list[Stage]":
        """Return what happened to each stage of each test."""
        return [Stage(*json.loads(line)) for line in (self.suite.folder / "reports").read_text().splitlines()]

    def log(self, worker: str) -> "list[str]":
        """Return the warnings of a process."""
        return (self.suite.folder / f"log-{worker}").read_text().splitlines()

    def left(self) -> "list[str]":
        """Return the containers that exist on any of the engines."""
        return [container for engine in self.engines for container in engine.labelled(self.suite.label)]


@pytest.fixture(params=["one engine", pytest.param("three engines", marks=pytest.mark.soak)])
def fleet(
    request: pytest.FixtureRequest, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[Fleet]":
    """Three engines, or three proxies in front of the one."""
    monkeypatch.delenv("DOCKERTEST_HOST_OVERRIDE", raising=False)
    sockets = [engine_socket()]
    if request.param == "three engines":
        others = [other for other in OTHERS if answers(other)]
        if len(others) < 2:
            pytest.skip('machine: two more engines are needed: make engines ENGINES="docker-26 podman-4"')
        for other in (others[0], others[-1]):  # another Docker, and Podman if it was started
            socket_or_host = other.environ.get(ENGINE_SOCKET, other.environ["DOCKER_HOST"])
            sockets.append(socket_or_host.removeprefix("unix://"))
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(docker.DockerClient(f"unix://{path}", version="auto")))
            for path in sockets
        ]
        proxies = [
            stack.enter_context(FaultProxy(tmp_path / f"{number}", engine=path).running())
            for number, path in enumerate(sockets * (3 // len(sockets)))
        ]
        yield Fleet(proxies, [Engine(client) for client in clients], suite)


class TestOutages:
    """Four workers run 24 tests on three engines, one of which may have a problem."""

    @pytest.mark.parametrize("is_slow", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_all_answer(self, fleet: Fleet, is_slow: bool) -> None:
        """Each engine has one server, even if one answers late, and no server is left."""
        fleet.proxies[0].always = delay if is_slow else None
        code, output = fleet.run()
        assert code == 0, output
        assert "24 passed" in output
        found = fleet.servers()
        assert set(found) == {proxy.endpoint for proxy in fleet.proxies}
        assert [len(servers) for servers in found.values()] == [1, 1, 1]
        assert [fleet.log(f"gw{number}") for number in range(4)] == [[]] * 4
        assert fleet.left() == []

    @pytest.mark.soak
    @pytest.mark.parametrize("is_frozen", [False, True])
    def test_one_does_not_answer(self, fleet: Fleet, is_frozen: bool) -> None:
        """Its workers skip it with one warning each and run their tests on the next one."""
        absent = fleet.proxies[0]
        if is_frozen:
            absent.always = freeze
        else:
            absent.stop()
        code, output = fleet.run()
        assert code == 0, output
        assert "24 passed" in output
        found = fleet.servers()
        taken, other = (proxy.endpoint for proxy in fleet.proxies[1:])
        assert set(found) == {taken, other}
        assert len(found[taken]) == len(found[other]) == 1
        for number in (0, 3):
            (warning,) = fleet.log(f"gw{number}")
            assert warning.startswith(f"skipping the engine at {absent.endpoint} (DOCKERTEST_ENDPOINTS): ")
        assert fleet.log("gw1") == fleet.log("gw2") == []
        assert fleet.left() == []

    @pytest.mark.parametrize("freezes", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_one_stops_answering(self, fleet: Fleet, freezes: bool) -> None:
        """
        Its tests fail in time with an error that names it, and all others pass.

        Nothing is left once it is back.
        """
        failing, is_back = fleet.proxies[0], threading.Event()

        def hang(client: "socket.socket", forward: "Callable[[], socket.socket]") -> None:
            failing.always = hang
            is_back.wait()
            relay(client, forward())

        def die(_client: "socket.socket", _forward: "Callable[[], socket.socket]") -> None:
            failing.stop()

        failing.next("POST .*/exec/", lambda client, forward: relay(client, forward()))
        failing.next("POST .*/exec/", hang if freezes else die)
        code, output = fleet.run()
        assert code == 1, output
        stages = fleet.stages()
        assert len({stage.test for stage in stages}) == 24
        failed = [stage for stage in stages if stage.outcome != "passed"]
        assert [stage for stage in failed if stage.worker not in ("gw0", "gw3")] == []
        assert any(stage.when == "call" for stage in failed)
        for stage in failed:
            assert failing.endpoint in stage.error
            assert {"EngineError", "DockerUnavailableError", "CleanupError"} & {*stage.kinds}
            limit = 4 * SILENCE if stage.when == "teardown" else 2 * SILENCE
            assert stage.seconds < (limit if freezes else SILENCE)
        if freezes:
            failing.always = None
            is_back.set()
        else:
            failing.start()
        dockertest.retry(lambda: not fleet.left(), max_wait=90)


class TestCommands:
    """The command line."""

    def test_commands_take_all(self, endpoints: "list[str]", name: str, tmp_path: Path) -> None:
        """`ps`, `prune` and `doctor` report an unreachable engine and use the others."""
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
        """
        A frozen engine and one that is lost during a command are reported.

        The last engine is used.
        """
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
