"""
Ctrl-C ends the process promptly at any time, and leaves nothing behind.

The process ends with KeyboardInterrupt.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import Fault, FaultProxy, delay, freeze, swallow

from .conftest import Engine

PROGRAM = """
import sys, dockertest
endpoint, code = sys.argv[1:]
with dockertest.Pool(endpoint) as pool:
    print(pool._runtime.session.id, flush=True)
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["sleep", "600"])
    exec(code)
"""

# The code, the request during which it is interrupted, and a fault that delays the response to that request.
RUN = "resource = pool.run_with_options(options)\n"
POINTS: "dict[str, tuple[str, str, Fault | None]]" = {
    "network": ("pool.create_network()", "POST .*/networks/create", swallow),
    "volume": ("pool.create_volume()", "POST .*/volumes/create", swallow),
    "create": (RUN, "POST .*/containers/create", swallow),
    "start": (RUN, "POST .*/start", swallow),
    "ports": (RUN, "GET .*/containers/[0-9a-f]{64}/json", freeze),
    "run_all": ("pool.run_all([options] * 8)", "POST .*/start", None),
    "retry": (RUN + "resource.retry(lambda: False)", "GET .*/containers/[0-9a-f]{64}/json", None),
    "wait": (RUN + "resource.wait()", "POST .*/wait", None),
    "exec": (RUN + "resource.exec(['sleep', '600'])", "POST .*/exec/.*/start", None),
    "stdin": (
        RUN + "resource.exec(['cat'], stdin=sys.stdin.buffer)",
        "POST .*/exec/.*/start",
        None,
    ),
    "logs": (RUN + "resource.wait_for_log('never')", "GET .*/logs", None),
    "stop": (RUN + "resource.stop(timeout=60)", "POST .*/stop", None),
    "close one": (RUN + "resource.close()", "DELETE .*/containers/", freeze),
    "close": (RUN, "DELETE .*/containers/", freeze),
    "close all": ("pool.run_all([options] * 3)", "DELETE .*/containers/", freeze),
}

# -X dev warns about sockets that were created or connecting when Ctrl-C arrived, before they could be closed.
HALF_MADE = re.compile(r"^\S+ ResourceWarning: unclosed <socket\.socket (?!.*raddr=).*>\n", re.MULTILINE)


def interrupted(proxy: FaultProxy, code: str, request: str) -> tuple[str, float]:
    """
    Run a program, and send SIGINT during a request.

    Return the session and the seconds from SIGINT to the exit.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROGRAM, proxy.endpoint, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout
            session = process.stdout.readline().strip()
            pattern = re.compile(request)
            dockertest.retry(lambda: any(map(pattern.search, list(proxy.requests))), max_wait=30)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert HALF_MADE.sub("", errors).rstrip().endswith("KeyboardInterrupt"), errors
    assert process.returncode == -signal.SIGINT
    return session, time.monotonic() - began


def check_end(engine: Engine, session: str, seconds: float) -> None:
    """Check that the process ended promptly, and that nothing is left."""
    label = f"dockertest.session={session}"
    dockertest.retry(
        lambda: (
            not engine.labelled(label)
            and not engine.client.networks.list(filters={"label": label})
            and not engine.client.volumes.list(filters={"label": label})
        ),
        max_wait=15,
    )
    assert seconds < 15, "a container is removed in less than a second, and the rest is for a busy machine"


@pytest.mark.parametrize("point", POINTS)
def test_ctrl_c_interrupts_every_operation(engine: Engine, tmp_path: Path, point: str) -> None:
    """The process ends promptly, even while the engine does not respond."""
    code, request, fault = POINTS[point]
    with FaultProxy(tmp_path / "front.sock").running() as proxy:
        if fault:
            proxy.next(request, fault)
        session, seconds = interrupted(proxy, code, request)
        print(f"{point}: {seconds:.2f} s")
        check_end(engine, session, seconds)  # the reaper also connects through the proxy


CLOSING = """
import os, signal, sys, time, dockertest
pool = dockertest.Pool(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: pool.close())
print(pool._runtime.session.id, flush=True)
try:
    pool.run("busybox:1.35", cmd=["sleep", "600"])
except dockertest.ResourceClosedError as error:
    print(error)
"""


def test_a_signal_handler_closes_the_pool_while_a_container_is_created(
    engine: Engine, tmp_path: Path
) -> None:
    """
    It does not wait for the thread that it interrupts.

    The container is removed.
    """
    with FaultProxy(tmp_path / "front.sock").running() as proxy:
        proxy.next("POST .*/containers/create", delay)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", CLOSING, proxy.endpoint], stdout=subprocess.PIPE, text=True
        )
        with process:
            dockertest.retry(lambda: "/containers/create" in "".join(proxy.requests), max_wait=30)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=90)
        session, message = output.splitlines()
        assert message.startswith("the pool was closed while it started a container")
        check_end(engine, session, time.monotonic() - began)


@pytest.mark.parametrize(
    "version",
    [
        pytest.param("1", marks=pytest.mark.differs("an abandoned build")),
        pytest.param("2", marks=pytest.mark.differs("BuildKit")),
    ],
)
def test_ctrl_c_ends_a_build(
    pool: dockertest.Pool, engine: Engine, tmp_path: Path, name: str, version: str
) -> None:
    """The engine stops the current step, and no program of the build is left."""
    if version == "2" and subprocess.run(["docker", "buildx", "version"], check=False).returncode:
        pytest.skip("machine: the docker CLI has no buildx, and `make engine` could not install it")
    context = tmp_path / name
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\nRUN sleep 600; echo {name}\n")
    code = f"""
options = dockertest.RunOptions(name={name!r})
pool.build_and_run_with_build_options(dockertest.BuildOptions({str(context)!r}, version={version!r}), options)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, pool.endpoint or "", code], stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            dockertest.retry(lambda: is_running(f"sleep 600; echo {name}"), max_wait=30)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    dockertest.retry(lambda: not is_running(name), max_wait=15)
    dockertest.retry(lambda: name not in json.dumps(engine.client.api.containers(all=True)), max_wait=15)
    assert not engine.has_image(name)


def is_running(words: str) -> bool:
    """
    Return whether a process has these words in its arguments.

    Processes of this machine count, whether they are in a container or not.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if (
            words in arguments
            and int(entry.name) != os.getpid()
            and "dockertest.BuildOptions" not in arguments
        ):
            return True
    return False


@contextmanager
def ended_by_a_handler(kind: type[Exception], seconds: float) -> Iterator[None]:
    """Expect that the body ends with what a signal handler raises after *seconds*."""

    def handler(*_: object) -> None:
        raise kind("the test takes too long")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(kind, match=r"^the test takes too long$") as failure:
            yield
        assert type(failure.value) is kind
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", [RuntimeError, TimeoutError, ConnectionError, ValueError])
def test_what_a_signal_handler_raises_is_not_an_error_of_the_engine(
    local: str, tmp_path: Path, kind: type[Exception]
) -> None:
    """
    The error of a signal handler is raised unchanged.

    A handler of SIGALRM limits the time of a test. urllib3 would turn some of its errors into errors of its
    own.
    """
    with FaultProxy(tmp_path / "x", local).running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        box = pool.run("busybox:1.35", cmd=["sleep", "600"])
        for call in (lambda: box.exec(["sleep", "600"]), lambda: box.status, box.logs, box.wait):
            proxy.next("GET .*/(json|logs)", freeze)
            with ended_by_a_handler(kind, 0.5):
                call()


@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")  # half made, as above
@pytest.mark.parametrize("kind", [RuntimeError, TimeoutError])
def test_what_a_signal_handler_raises_ends_a_wait(pool: dockertest.Pool, kind: type[Exception]) -> None:
    """
    The error of a signal handler does not mean "not ready yet".

    Each server accepts connections but never answers, so that the signal interrupts a probe.
    """
    serve = "while :; do nc -l -p {} -e sleep 600; done"
    options = dockertest.RunOptions(
        repository="busybox",
        tag="1.35",
        cmd=["sh", "-c", f"{serve.format(6379)} & {serve.format(8080)}"],
        exposed_ports=[9, 6379, 8080],
        service="redis",
        healthcheck={"test": "exit 1", "interval": 600},
    )
    with pool.run_with_options(options) as box:
        waits: list[Callable[[], object]] = [
            lambda: box.wait_ready(max_wait=5),
            lambda: box.wait_for_http(8080, max_wait=5),
            lambda: box.wait_for_port(9, max_wait=5),
            lambda: box.wait_healthy(max_wait=5),
        ]
        for wait in waits:
            with ended_by_a_handler(kind, 1):
                wait()
