"""An engine behind a real ssh server on loopback, reached by the system's own ssh."""

import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import docker
import pytest

import dockertest

from ..engines.sshd import Sshd, sshd_program  # noqa: TID252 - `tests` is on no path
from .conftest import Engine
from .test_reaper import gone

SLEEP = ("sleep", "600")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Sshd]":
    """An ssh server, and a home that knows it."""
    try:
        program = sshd_program()
    except FileNotFoundError as error:
        pytest.skip(f"machine: {error}")
    with Sshd(tmp_path_factory.mktemp("ssh"), program) as server:
        yield server


@pytest.fixture
def sshd(server: Sshd, local: str, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """The ssh server, for this process; behind it is the engine under test, as it is on this machine."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{local}")
    return server


def test_all_of_a_session_works_over_ssh(sshd: Sshd) -> None:
    """Started, talked to in both directions, listened to, given files, several at once, and gone."""
    with dockertest.Pool(sshd.url) as pool:
        resource = pool.run(
            "busybox:1.35",
            cmd=["sh", "-c", "echo up; exec httpd -f -p 80"],
            exposed_ports=[80],
            stop_timeout=0,
        )
        sent = os.urandom(300_000).hex()
        assert resource.exec(["cat"], stdin=sent, check=True).stdout == sent
        with resource.stream_logs() as lines:
            assert next(lines) == "up"
        resource.write_file("/tmp/file", b"content")
        assert resource.read_file("/tmp/file") == b"content"
        assert resource.get_host_port(80).startswith("127.0.0.1:")
        made = pool.run_all(
            [dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP, stop_timeout=0)] * 12
        )
        assert len({each.id for each in made}) == 12


def test_ssh_has_names_of_its_own(sshd: Sshd) -> None:
    """Ports are reached at the host that its configuration has for a name; capitals count there."""
    with dockertest.Pool("ssh://Engine.Example") as pool:
        assert pool.endpoint == "ssh://Engine.Example"
        assert pool._engine.endpoint.host == "127.0.0.1"


def test_a_path_is_the_engines_socket_over_there(sshd: Sshd, local: str) -> None:
    """Where it is not the usual one."""
    dockertest.Pool(f"{sshd.url}{local}").close()
    with pytest.raises(dockertest.DockerUnavailableError, match=r"no/such\.sock"):
        dockertest.Pool(f"{sshd.url}/no/such.sock")


def test_connections_end_with_their_pool(sshd: Sshd) -> None:
    """No ssh is left over, be it one that follows a log."""
    pool = dockertest.Pool(sshd.url)
    resource = pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0)
    assert children()
    lines = resource.stream_logs()
    thread = threading.Thread(target=lambda: list(lines))
    thread.start()
    lines.close()
    thread.join(10)
    assert not thread.is_alive()
    pool.close()
    dockertest.retry(lambda: not children(), max_wait=10)


def children() -> "list[str]":
    """Give the ids of the processes named ssh that this one has."""
    listed = subprocess.run(["pgrep", "-x", "-P", str(os.getpid()), "ssh"], capture_output=True, text=True)
    return listed.stdout.split()


PROGRAM = """
import dockertest, os, signal, sys
pool = dockertest.Pool(sys.argv[1])
pool.run("busybox:1.35", cmd=["sleep", "600"], stop_timeout=0)
pool.create_network()
print(pool._session_id, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "ctrl-c":
    os.killpg(0, signal.SIGINT)
"""


FORK = """
import dockertest, os, sys
pool = dockertest.Pool(sys.argv[1])
resource = pool.run("busybox:1.35", cmd=["sleep", "600"], stop_timeout=0)
child = os.fork()
if child == 0:
    os._exit(resource.exec(["sh", "-c", "exit 7"]).exit_code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert resource.status == "running"
resource.close()
"""


def test_a_forked_child_has_connections_of_its_own(sshd: Sshd) -> None:
    """And what it closes of its parent's does not end them."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, sshd.url], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("end", ["done", "ctrl-c", "killed"])
def test_what_was_made_over_ssh_is_gone_with_its_process(sshd: Sshd, engine: Engine, end: str) -> None:
    """By itself at the interpreter's end, at Ctrl-C, which ssh must not hear, and by the reaper after a kill."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, sshd.url, end],
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == {"done": 0, "ctrl-c": -signal.SIGINT, "killed": -signal.SIGKILL}[end]
    assert "remove" not in done.stderr
    gone(engine, done.stdout.strip())


def test_logging_in_may_take_a_while(sshd: Sshd) -> None:
    """As on a server that asks others who comes there, longer than an engine may take."""
    kept = sshd.authorized.read_text()
    sshd.authorized.write_text(f'command="sleep 4.5; exec $SSH_ORIGINAL_COMMAND" {kept}')
    try:
        dockertest.Pool(sshd.url).close()
    finally:
        sshd.authorized.write_text(kept)


def said(url: str) -> str:
    """Give what a pool that cannot be made says, in time and in one line."""
    began = time.monotonic()
    with pytest.raises(dockertest.DockerUnavailableError) as caught:
        dockertest.Pool(url)
    assert time.monotonic() - began < 5
    text = str(caught.value)
    assert text.endswith("@127.0.0.1 docker version")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "authorized",
            "ssh: root@127.0.0.1: Permission denied (publickey); it works as soon as this does: ssh -o",
        ),
        (
            "known",
            "ssh: Host key verification failed; it works as soon as this does: ssh -o BatchMode=yes ",
        ),
    ],
)
def test_what_ssh_says_is_told(sshd: Sshd, file: Literal["authorized", "known"], words: str) -> None:
    """A key that the server does not know, a server that the user does not know."""
    path = sshd.authorized if file == "authorized" else sshd.known
    kept = path.read_text()
    path.write_text("")
    try:
        assert words.replace("root@", f"{getpass.getuser()}@") in said(sshd.url)
    finally:
        path.write_text(kept)


def test_a_dead_ssh_server(sshd: Sshd, black_hole: str) -> None:
    """It is not waited for long."""
    text = said(f"ssh://me@127.0.0.1:{black_hole.rpartition(':')[2]}")
    assert "timed out; it works as soon as" in text


def test_nobody_listens_there(sshd: Sshd) -> None:
    """In ssh's own words."""
    assert "Connection refused; it works as soon as" in said(sshd.url.rpartition(":")[0] + ":1")


def test_without_the_program_there_is_no_ssh(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And that is told."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(dockertest.DockerUnavailableError, match="ssh:// needs the program ssh; install it"):
        dockertest.Pool(sshd.url)


def test_a_client_that_the_docker_sdk_connected_by_ssh_is_remote(sshd: Sshd) -> None:
    """It says where it is; what its own transport cannot do is told."""
    client = docker.DockerClient(base_url=sshd.url, version="auto")
    with dockertest.Pool(client=client) as pool:
        assert pool.endpoint == sshd.url
        resource = pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0)
        with pytest.raises(
            dockertest.EngineError, match="give the pool the endpoint ssh://… instead of a client"
        ):
            resource.exec(["true"])
    client.close()
