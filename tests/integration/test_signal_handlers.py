"""
A signal handler may close the pool at any moment.

This does not hang, leaves nothing behind and does not affect other sessions.
"""

import random
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import dockertest

from .conftest import Engine

# A thread sends the signal at a random moment, and the operation is repeated until then.
PROGRAM = """
import os, signal, sys, threading, traceback
import dockertest

operation, name, delay, context = sys.argv[1:]
pool = dockertest.Pool()
print(pool._runtime.session.id, flush=True)

def close(*_):
    pool.close()
    sys.exit(3)

def busy(**more):
    return dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sleep", "600"], **more)

def build(number):
    options = dockertest.BuildOptions(context, no_cache=True, remove_image=True)
    run = dockertest.RunOptions(name=f"{name}-{number}", cmd=["sleep", "600"])
    pool.build_and_run_with_build_options(options, run).close()

def template(number):
    from dockertest.postgres import TemplateDatabase
    with TemplateDatabase(pool, lambda url: None) as database:
        database.clone().close()

def copy_in(number):
    with open(f"{context}/{name}", "wb") as file:
        file.truncate(1 << 30)
    pool.run_with_options(busy()).copy_in(file.name, "/big")

def copy_out(number):
    resource = pool.run_with_options(busy())
    resource.exec(["truncate", "-s", "1G", "/big"])
    resource.copy_out("/big", f"{context}/{name}")

def close_network(number):
    network = pool.create_network()
    resource = pool.run_with_options(busy(networks=[network]))
    network.close()
    resource.close()

OPERATIONS = {
    "run": lambda number: pool.run_with_options(busy()),
    "run_all": lambda number: [one.close() for one in pool.run_all([busy()] * 4)],
    "close": lambda number: pool.run_with_options(busy()).close(),
    "network": close_network,
    "build": build,
    "template": template,
    "reuse": lambda number: pool.run_with_options(busy(name=name, reuse=True)),
    "copy_in": copy_in,
    "copy_out": copy_out,
}
signal.signal(signal.SIGTERM, close)
timer = threading.Timer(float(delay), os.kill, (os.getpid(), signal.SIGTERM))
timer.daemon = True
timer.start()
try:
    for number in range(10_000):
        OPERATIONS[operation](number)
except dockertest.DockertestError:
    traceback.print_exc()  # The error of the handler itself, or one that took the place of its SystemExit.
sys.exit(4)
"""
# The maximum delay of the signal in seconds, which is at least the duration of the operation.
MOMENTS = {
    "run": 1.0,
    "run_all": 2.0,
    "close": 1.5,
    "network": 2.0,
    "build": 3.0,
    "template": 5.0,
    "reuse": 1.0,
    "copy_in": 2.0,
    "copy_out": 2.0,
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build context."""
    folder = tmp_path_factory.mktemp("context")
    image = dockertest.Pool().image_prefix or ""
    (folder / "Dockerfile").write_text(f"FROM {image}busybox:1.35\nRUN echo 1 > /one\nRUN echo 2 > /two\n")
    return folder


def interrupt(engine: Engine, operation: str, seed: int, context: Path) -> None:
    """
    Close the pool in a signal handler at a random moment.

    Check that nothing is left.
    """
    delay = random.Random(seed).uniform(0.05, MOMENTS[operation])
    name = f"handler-{uuid.uuid4().hex[:12]}"
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, operation, name, str(delay), str(context)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(6)  # SIGABRT makes faulthandler print the tracebacks
            pytest.fail(f"{operation} hung after a signal at {delay:.3f} s:\n{process.communicate()[1]}")
    where = f"{operation}, signal after {delay:.3f} s"
    assert process.returncode == 3, f"{where}: exit code {process.returncode}\n{errors}"
    label = f"dockertest.session={output.split()[0]}"
    with dockertest.Pool() as pool:
        if operation == "reuse" and (reused := pool.container_by_name(name)):
            pool.purge(reused)
    dockertest.retry(
        lambda: not engine.labelled(label) and not engine.client.networks.list(filters={"label": label}),
        max_wait=30,
    )


@pytest.mark.parametrize("operation", MOMENTS)
def test_a_handler_may_close_the_pool_at_any_moment(engine: Engine, context: Path, operation: str) -> None:
    """Two random moments of each operation; `make soak` tries many more."""
    with dockertest.Pool() as pool, pool.run("busybox:1.35", cmd=["sleep", "600"]) as bystander:
        for seed in range(2):
            interrupt(engine, operation, seed, context)
        assert bystander.status == "running"


OTHER_POOL = """
import os, signal, sys, threading, time
import dockertest

was_copying = is_copying = False

def close(*_):
    global was_copying
    was_copying = is_copying
    other.close()

with dockertest.Pool() as pool, dockertest.Pool() as other:
    kept = pool.run("busybox:1.35", cmd=["sleep", "600"])
    other.run("busybox:1.35", cmd=["sleep", "600"])
    kept.exec(["truncate", "-s", "512M", "/big"])
    with open(sys.argv[1], "wb") as file:
        file.truncate(512 << 20)
    signal.signal(signal.SIGTERM, close)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    is_copying = True
    if sys.argv[2] == "in":
        kept.copy_in(file.name, "/copy")
    else:
        kept.copy_out("/big", sys.argv[1])
    is_copying = False
    size = kept.exec(["stat", "-c", "%s", "/copy"]).stdout if sys.argv[2] == "in" else os.path.getsize(file.name)
    print(was_copying, int(size))
"""


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_handler_that_closes_another_pool_does_not_end_a_copy(tmp_path: Path, direction: str) -> None:
    """Only copies of containers that it removes are ended."""
    program = [sys.executable, "-c", OTHER_POOL, str(tmp_path / "big"), direction]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ended.stdout == f"True {512 << 20}\n", ended.stderr


@pytest.mark.soak
@pytest.mark.parametrize("operation", MOMENTS)
def test_many_moments(engine: Engine, context: Path, operation: str) -> None:
    """Thirty random moments of each operation."""
    with dockertest.Pool() as pool, pool.run("busybox:1.35", cmd=["sleep", "600"]) as bystander:
        for seed in range(100, 130):
            interrupt(engine, operation, seed, context)
        assert bystander.status == "running"
