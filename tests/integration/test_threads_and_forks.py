"""
Threads and forked children can share a pool.

They leave nothing behind and do not affect each other.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest

from .conftest import Engine, without_tls_warning

MANY = """
import gc, json, os, threading
from concurrent.futures import ThreadPoolExecutor
import dockertest

def open_things():
    gc.collect()
    files = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
    return [threading.active_count(), sorted(os.readlink(each).split(":")[0] for each in files if os.path.islink(each))]

def use(number):
    resource = pool.run("busybox:1.35", cmd=["sleep", "600"])
    assert resource.status == "running"
    if number % 2:
        resource.close()

with dockertest.Pool() as pool:
    use(1)
before = open_things()
with dockertest.Pool() as pool:
    session = pool._runtime.session.id
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(use, range(100)))
    standing = len(pool.client.api.containers(filters={"label": f"dockertest.session={session}"}))
print(json.dumps([session, standing, before, open_things()]))
"""

FORKS = """
import json, os, sys
import dockertest

pool = dockertest.Pool()
made = pool.run("busybox:1.35", cmd=["sleep", "600"])
network = pool.create_network()

def child():
    assert pool.client is not sdk
    assert pool.client.ping()
    assert pool.container_by_name(made.name).id == made.id
    assert made.exec(["echo", "hi"]).stdout == "hi\\n"
    own = pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network])
    assert pool.client.containers.get(own.id).labels["dockertest.session"] != session
    made.close()
    network.close()
    if sys.argv[1] == "close":
        pool.close()
        assert pool.client.ping()
    return own.id

sdk, session = pool.client, pool._runtime.session.id
reading, writing = os.pipe()
forked = os.fork()
if forked == 0:
    os.write(writing, child().encode())
    os._exit(0)
os.close(writing)
_, status = os.waitpid(forked, 0)
with os.fdopen(reading) as told:
    own = told.read()
print(json.dumps({"status": status, "child": own, "parent": made.id, "network": network.id}), flush=True)
sys.stdin.read()
assert made.status == "running"
assert pool.client is sdk
assert [each.id for each in pool.networks_by_name(network.name)] == [network.id]
"""


CLOSING = """
import os, signal, sys, threading, warnings
import dockertest
from pathlib import Path
from tests.engines.fault_proxy import FaultProxy, freeze

with FaultProxy(Path(sys.argv[1])).running() as proxy:
    with dockertest.Pool(proxy.endpoint, timeout=10) as pool:
        made = [pool.create_network(), pool.run("busybox:1.35", cmd=["sleep", "600"])]
        for each in made:
            proxy.next(f"DELETE .*{each.id}", freeze)
        threads = [threading.Thread(target=dockertest.retry, args=(each.close,)) for each in made]
        for thread in threads:
            thread.start()
        dockertest.retry(lambda: sum("DELETE" in each for each in proxy.requests) == 2)
        warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # by os.fork, from Python 3.12 on
        forked = os.fork()
        if forked == 0:
            signal.alarm(20)
            for each in made:
                each.close()
            os._exit(0)
        for thread in threads:
            thread.join()
        print(os.waitpid(forked, 0)[1])
"""


def run(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Run a program with every warning as an error."""
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hundred_containers_by_twenty_threads_leave_nothing(engine: Engine) -> None:
    """There is no warning, and no additional container, thread, socket or open file."""
    output, errors = run(MANY).communicate(timeout=300)
    assert without_tls_warning(errors) == ""
    session, standing, before, after = json.loads(output)
    assert standing == 50
    assert after == before
    assert engine.labelled(f"dockertest.session={session}") == []


@pytest.mark.parametrize("ending", ["close", "exit"])
def test_a_forked_child_has_its_own_session(engine: Engine, ending: str) -> None:
    """
    It uses its own connections, and its containers are removed with it.

    The containers of its parent stay.
    """
    with run(FORKS, ending) as parent:
        assert parent.stdin
        assert parent.stdout
        assert parent.stderr
        line = parent.stdout.readline()
        assert line, parent.stderr.read()
        result = json.loads(line)
        assert result["status"] == 0, parent.stderr.read()
        dockertest.retry(lambda: not engine.has(result["child"]), max_wait=15)
        assert engine.has(result["parent"])
        parent.stdin.close()
        assert parent.wait(30) == 0, parent.stderr.read()
        assert without_tls_warning(parent.stderr.read()) == ""
    assert not engine.has(result["parent"])
    assert engine.client.networks.list(ids=[result["network"]]) == []


def test_a_child_does_not_wait_for_its_parents_threads(tmp_path: Path) -> None:
    """
    The child can close a container that a thread of its parent was removing.

    The removal was in progress during the fork.
    """
    with run(CLOSING, str(tmp_path / "front.sock")) as parent:
        try:
            output, errors = parent.communicate(timeout=60)
        finally:
            parent.kill()
    assert output == "0\n", errors
