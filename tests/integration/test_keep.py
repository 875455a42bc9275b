"""Kept containers stay until the user removes them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import dockertest

from .conftest import Engine, Suite

SLEEP = ["sleep", "600"]


@pytest.fixture
def kept(engine: Engine) -> Iterator["list[str]"]:
    """The containers that a test keeps, which are removed afterwards."""
    ids: list[str] = []
    yield ids
    for container in ids:
        engine.remove(container)


def test_a_kept_container_outlives_its_pool(
    engine: Engine, kept: "list[str]", capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Only the pool's other containers are removed.

    The commands to reach and remove the kept one are printed.
    """
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=["8080"])
        other = pool.run("busybox:1.35", cmd=SLEEP)
        address = resource.get_host_port(8080)
        resource.keep()
        kept.append(resource.id)
        assert resource.get_host_port(8080) == address  # It can still be used.
        resource.close()
        resource.close()
    assert engine.inspect(resource.id)["State"]["Running"]
    assert not engine.has(other.id)
    printed = capsys.readouterr().err
    assert address in printed
    assert f"docker rm -f -v {resource.id[:12]}" in printed


@pytest.mark.skipif(not shutil.which("docker"), reason="machine: the docker CLI is not installed")
def test_the_printed_commands_reach_the_engine(
    engine: Engine,
    pool: dockertest.Pool,
    kept: "list[str]",
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if the docker CLI would not find the engine by itself."""
    certificates = os.environ.get("DOCKER_CERT_PATH")
    with dockertest.Pool(pool.endpoint, cert_path=certificates) as own:
        resource = own.run("busybox:1.35", cmd=["sh", "-c", "echo hello; sleep 600"])
        kept.append(resource.id)
        resource.wait_for_log("hello")
        resource.keep()
    look, remove = re.findall(r"; (?:look|remove): (.*?)(?=;|\n)", capsys.readouterr().err)
    for name in [name for name in os.environ if name.startswith("DOCKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert subprocess.run(look, shell=True, capture_output=True, text=True, check=True).stdout == "hello\n"
    subprocess.run(remove, shell=True, capture_output=True, check=True)
    assert not engine.has(resource.id)


def test_a_deadline_does_not_remove_a_kept_container(engine: Engine, kept: "list[str]") -> None:
    """The reaper drops the deadline that `expire` has set."""
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        kept.append(resource.id)
        resource.expire(8)
        resource.keep()
        assert pool.run("busybox:1.35", cmd=["sleep", "9"]).wait() == 0
    assert engine.inspect(resource.id)["State"]["Running"]


def test_a_deadline_does_not_remove_a_container_of_a_pool_that_keeps(
    engine: Engine, kept: "list[str]"
) -> None:
    """
    Tests from Go set one for each container.

    They do so also while someone wants to inspect the containers.
    """
    with dockertest.Pool() as other:
        with dockertest.Pool(keep=True) as pool:
            resource = pool.run("busybox:1.35", cmd=SLEEP)
            kept.append(resource.id)
            resource.expire(1)
        assert other.run("busybox:1.35", cmd=["sleep", "4"]).wait() == 0
        assert engine.inspect(resource.id)["State"]["Running"]


def test_a_session_of_this_user_does_not_remove_a_kept_container(kept: "list[str]") -> None:
    """Its expiry time cannot be taken back, and sessions of other users obey it."""
    with dockertest.Pool() as other, dockertest.Pool(ttl=8) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        kept.append(resource.id)
        resource.keep()
        assert other.run("busybox:1.35", cmd=["sleep", "9"]).wait() == 0
        assert resource.id not in other.prune()


def test_a_kept_container_keeps_its_networks(engine: Engine, kept: "list[str]") -> None:
    """Without them, it would have no aliases and other containers could not reach it."""
    with dockertest.Pool() as pool:
        network, other = pool.create_network(), pool.create_network()
        resource = pool.run("busybox:1.35", cmd=SLEEP, networks=[network])
        resource.keep()
        kept.append(resource.id)
    try:
        assert list(engine.inspect(resource.id)["NetworkSettings"]["Networks"]) == [network.name]
        assert engine.client.networks.list(ids=[other.id]) == []
    finally:
        engine.client.networks.get(network.id).disconnect(resource.id, force=True)
        engine.client.networks.get(network.id).remove()


PROGRAM = """
import dockertest, json, os, signal
pool = dockertest.Pool()
kept, other = (pool.run("busybox:1.35", cmd=["sleep", "600"]) for _ in range(2))
kept.keep()
print(json.dumps([kept.id, other.id]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_does_not_remove_a_kept_container(engine: Engine, kept: "list[str]") -> None:
    """The reaper removes the rest of the session."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    container, other = json.loads(ended.stdout)
    kept.append(container)
    dockertest.retry(lambda: not engine.has(other), max_wait=20)
    assert engine.inspect(container)["State"]["Running"]
    with dockertest.Pool() as pool:
        assert container not in pool.prune()
    assert engine.inspect(container)["State"]["Running"]


FAILING = """
import dockertest, pytest, unittest
from dockertest.testcase import DockerTestCase

SLEEP = ["sleep", "600"]

@pytest.fixture(scope="module")
def server(dockertest_pool):
    with dockertest_pool.run("busybox:1.35", cmd=SLEEP, labels=LABEL) as server:
        yield server

def test_passes(dockertest_pool):
    with dockertest_pool.run("busybox:1.35", cmd=SLEEP, labels=LABEL):
        pass
    with pytest.raises(ZeroDivisionError), dockertest.Pool() as pool, pool.run("busybox:1.35", cmd=SLEEP, labels=LABEL):
        1 / 0

def test_fails(dockertest_pool, server):
    with dockertest_pool.run("busybox:1.35", cmd=SLEEP, labels=LABEL, name="NAME-1"):
        assert False

class TestCase(DockerTestCase):
    def test_passes(self):
        self.run_container("busybox:1.35", cmd=SLEEP, labels=LABEL)

    def test_fails(self):
        self.run_container("busybox:1.35", cmd=SLEEP, labels=LABEL, name="NAME-2")
        self.fail()
"""


@pytest.mark.parametrize(
    "arguments",
    [("pytest", "--dockertest-keep-failed", "test_it.py"), ("unittest", "test_it")],
    ids=["pytest", "unittest"],
)
def test_only_failed_tests_keep(
    suite: Suite, engine: Engine, kept: "list[str]", arguments: "tuple[str, ...]"
) -> None:
    """
    Containers that were running in a failed test are kept, of any scope.

    A failure that a test expects does not count.
    """
    suite.write("test_it.py", FAILING.replace("NAME", suite.label))
    environment = {} if "pytest" in arguments else {"DOCKERTEST_KEEP": "failed"}
    code, output = suite.run(*arguments, **environment)
    assert code == 1, output
    kept += engine.labelled(suite.label)
    names = {engine.inspect(container)["Name"].lstrip("/") for container in kept}
    if "pytest" in arguments:
        assert "2 failed, 2 passed" in output
        assert len(names) == 3, output
        assert names > {f"{suite.label}-1", f"{suite.label}-2"}
    else:
        assert names == {f"{suite.label}-2"}, output
    assert f"remove: docker rm -f -v {kept[0][:12]}" in output


def test_only_the_last_of_several_attempts_counts(suite: Suite, engine: Engine, kept: "list[str]") -> None:
    """If pytest-rerunfailures runs a test again, nothing is kept."""
    suite.write(
        "test_it.py",
        """
        import pytest

        attempts = []

        @pytest.fixture(scope="module")
        def server(dockertest_pool):
            with dockertest_pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL) as server:
                yield server

        def test_flaky(dockertest_pool, server):
            attempts.append(1)
            with dockertest_pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL):
                assert len(attempts) == 2

        def test_other_error():
            raise OSError
        """,
    )
    arguments = [
        "pytest",
        "--dockertest-keep-failed",
        "--reruns",
        "1",
        "--only-rerun",
        "AssertionError",
        "test_it.py",
    ]
    code, output = suite.run(*arguments, "-k", "flaky", PYTEST_ADDOPTS="")
    kept += engine.labelled(suite.label)
    assert (code, kept) == (0, []), output
    code, output = suite.run(*arguments, PYTEST_ADDOPTS="")
    kept += engine.labelled(suite.label)
    assert (code, len(kept)) == (1, 1), output  # The module's server was running when the other test failed.


def test_a_network_and_a_volume_stay_with_their_kept_container(
    pool: dockertest.Pool, engine: Engine, kept: "list[str]"
) -> None:
    """Also if their own handles are closed; closing them again removes nothing."""
    with dockertest.Pool() as own, own.create_network() as network, own.create_volume() as volume:
        resource = own.run("busybox:1.35", cmd=SLEEP, networks=[network], mounts=[(volume, "/data")])
        kept.append(resource.id)
        resource.keep()
    volume.close()
    try:
        found = pool.container_by_name(engine.inspect(resource.id)["Name"])
        assert found
        assert found.get_ip_in_network(network.name)
        assert engine.client.volumes.get(volume.name)
    finally:
        engine.remove(kept.pop())
        engine.client.networks.get(network.id).remove()
        engine.client.volumes.get(volume.name).remove()


def run_keeping_failed(code: str) -> "subprocess.CompletedProcess[str]":
    """Run a program with `DOCKERTEST_KEEP=failed`."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DOCKERTEST_KEEP": "failed"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_body_that_failed_keeps_its_network(engine: Engine, kept: "list[str]", name: str) -> None:
    """Its block ends before that of the pool."""
    code = f"""
import dockertest
with dockertest.Pool() as pool, pool.create_network({name!r}) as network:
    pool.run("busybox:1.35", cmd=["sleep", "600"], labels={{{name!r}: "1"}}, networks=[network])
    1 / 0
"""
    run_keeping_failed(code)
    kept += engine.labelled(name)
    (container,) = kept
    try:
        assert name in engine.inspect(container)["NetworkSettings"]["Networks"]
    finally:
        engine.remove(kept.pop())
        engine.client.networks.get(name).remove()


def test_a_body_that_failed_keeps_its_database(
    pool: dockertest.Pool, engine: Engine, kept: "list[str]", name: str
) -> None:
    """Also if only the block of the database or of the template has failed."""
    code = f"""
import dockertest
from dockertest.postgres import TemplateDatabase
pool = dockertest.Pool()
with TemplateDatabase(pool, print, labels={{{name!r}: "1"}}) as template, template.clone() as database:
    name = database.name
    try:
        with template.clone() as other:
            other_name = other.name
            1 / 0
    finally:
        print("names", name, other_name)
"""
    ended = run_keeping_failed(code)
    kept += engine.labelled(name)
    (container,) = kept
    query = ["psql", "-U", "postgres", "-At", "-c", "SELECT datname FROM pg_database"]
    # The SDK's own exec returned no output once on Podman 4.
    server = pool.container_by_name(engine.inspect(container)["Name"])
    assert server
    listed = server.exec(query, check=True)
    *_, first, second = ended.stdout.split()
    assert {first, second} <= set(listed.stdout.split()), ended.stderr
    assert ended.stderr.count("kept database postgresql://") == 2


@pytest.mark.parametrize(("failure", "count"), [("1 / 0", 1), ("raise unittest.SkipTest", 0), ("pass", 0)])
def test_only_a_body_that_failed_keeps(
    engine: Engine, kept: "list[str]", name: str, failure: str, count: int
) -> None:
    """Outside of pytest, the end of the `with` block decides."""
    code = f"""
import dockertest, unittest
with dockertest.Pool() as pool:
    with pool.run("busybox:1.35", cmd=["sleep", "600"], labels={{{name!r}: "1"}}):
        {failure}
"""
    run_keeping_failed(code)
    kept += engine.labelled(name)
    assert len(kept) == count
