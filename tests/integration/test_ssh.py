"""The system's ssh connects to an engine behind a real ssh server on loopback."""

import getpass
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import docker
import pytest

import dockertest
from dockertest._engine import ssh

from ..engines.fault_proxy import engine_socket  # noqa: TID252 - `tests` is on no path
from ..engines.sshd import Sshd, sshd_program  # noqa: TID252
from .conftest import Engine
from .test_reaper import wait_until_removed

SLEEP = ("sleep", "600")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Sshd]":
    """An ssh server, and a home folder with its host key."""
    try:
        program = sshd_program()
    except FileNotFoundError as error:
        pytest.skip(f"machine: {error}")
    with Sshd(tmp_path_factory.mktemp("ssh"), program, engine_socket()) as server:
        yield server


@pytest.fixture
def sshd(server: Sshd, local: str, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """The same server for this process, with the engine under test behind it."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{local}")
    return server


def test_a_whole_session_works_over_ssh(sshd: Sshd, engine: Engine) -> None:
    """Containers, commands, logs, files and concurrent requests."""
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
        resources = pool.run_all(
            [dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP, stop_timeout=0)] * 12
        )
        assert len({resource.id for resource in resources}) == 12
        assert engine.has(resource.id), "it is the engine under test"


def test_host_names_of_the_ssh_configuration_are_resolved(sshd: Sshd) -> None:
    """
    Ports are reached at the configured host.

    Names in the configuration are case-sensitive.
    """
    with dockertest.Pool("ssh://Engine.Example") as pool:
        assert pool.endpoint == "ssh://Engine.Example"
        assert pool._runtime.engine.endpoint.host == "127.0.0.1"


def test_a_path_names_the_socket_on_the_remote_host(sshd: Sshd, local: str) -> None:
    """The path is needed if the socket is not the default one."""
    dockertest.Pool(f"{sshd.url}{local}").close()
    with pytest.raises(dockertest.DockerUnavailableError, match=r"no/such\.sock"):
        dockertest.Pool(f"{sshd.url}/no/such.sock")


def test_connections_are_closed_with_their_pool(sshd: Sshd) -> None:
    """This includes a connection that follows a log."""
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
    """Return the ids of this process's children named ssh."""
    listed = subprocess.run(["pgrep", "-x", "-P", str(os.getpid()), "ssh"], capture_output=True, text=True)
    return listed.stdout.split()


PROGRAM = """
import dockertest, os, signal, sys
pool = dockertest.Pool(sys.argv[1])
pool.run("busybox:1.35", cmd=["sleep", "600"], stop_timeout=0)
pool.create_network()
print(pool._runtime.session.id, flush=True)
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


def test_a_forked_child_has_its_own_connections(sshd: Sshd) -> None:
    """It does not close those of its parent."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, sshd.url], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("end", ["done", "ctrl-c", "killed"])
def test_everything_is_removed_when_the_process_ends(sshd: Sshd, engine: Engine, end: str) -> None:
    """
    The process does that at exit and after Ctrl-C, which ssh must not receive.

    After a kill, the reaper does.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, sshd.url, end],
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == {"done": 0, "ctrl-c": -signal.SIGINT, "killed": -signal.SIGKILL}[end]
    assert "remove" not in done.stderr
    wait_until_removed(engine, done.stdout.strip())


def test_the_reapers_ssh_has_the_users_environment(
    sshd: Sshd, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's configuration of ssh may refer to any variable."""
    config = Path(sshd.environ["HOME"], ".ssh", "config")
    kept = config.read_text() if config.exists() else None
    config.write_text((kept or "") + "\nHost *\n  ControlMaster no\n  ControlPath ${OF_A_TEST}/x\n")
    monkeypatch.setenv("OF_A_TEST", str(tmp_path))
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, sshd.url, "killed"], capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        wait_until_removed(engine, done.stdout.strip())
    finally:
        config.unlink()
        if kept is not None:
            config.write_text(kept)


def test_logging_in_may_take_a_while(sshd: Sshd) -> None:
    """
    A login may take longer than an engine is allowed to.

    For example, the server may look up its users in a directory.
    """
    kept = sshd.authorized.read_text()
    sshd.authorized.write_text(f'command="sleep 4.5; exec $SSH_ORIGINAL_COMMAND" {kept}')
    try:
        dockertest.Pool(sshd.url).close()
    finally:
        sshd.authorized.write_text(kept)


def failure(url: str) -> dockertest.DockerUnavailableError:
    """Return the one-line error of a connection that fails early."""
    start = time.monotonic()
    with pytest.raises(dockertest.DockerUnavailableError) as raised:
        dockertest.Pool(url)
    assert time.monotonic() - start < 20
    error = raised.value
    assert "\n" not in str(error)
    assert error.reason == "ssh"
    assert error.hint.startswith("this command has to work first: ssh -o BatchMode=yes ")
    assert error.hint.endswith(" -- 127.0.0.1 'docker version'")
    return error


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("authorized", f"ssh: {getpass.getuser()}@127.0.0.1: Permission denied (publickey)"),
        ("known", "ssh: Host key verification failed"),
    ],
)
def test_the_message_of_ssh_is_shown(sshd: Sshd, file: Literal["authorized", "known"], words: str) -> None:
    """The server rejects the key, or the user does not know the server."""
    path = sshd.authorized if file == "authorized" else sshd.known
    kept = path.read_text()
    path.write_text("")
    try:
        assert words in str(failure(sshd.url))
    finally:
        path.write_text(kept)


def test_a_dead_ssh_server(sshd: Sshd, black_hole: str) -> None:
    """The connection times out."""
    assert "timed out; " in str(failure(f"ssh://me@127.0.0.1:{black_hole.rpartition(':')[2]}"))


def test_a_busy_ssh_server_is_asked_again() -> None:
    """It closes connections while too many others are logging in."""
    count = 0

    def reject() -> None:
        nonlocal count
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                count += 1
                client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=reject, daemon=True).start()
        with pytest.raises(dockertest.DockerUnavailableError, match="ssh: ") as caught:
            ssh.SSHConnector(f"ssh://127.0.0.1:{listener.getsockname()[1]}", 5)(5)
        listener.shutdown(socket.SHUT_RDWR)
    assert caught.value.reason == "busy"
    assert count == len(ssh.RETRY_PAUSES) + 1


def test_the_user_of_an_address_is_decoded() -> None:
    """A name with an `@` can only be written with `%40`."""
    assert "me@corp" in ssh.SSHConnector("ssh://me%40corp@host", 5).argv


def test_no_ssh_server_listens(sshd: Sshd) -> None:
    """The connection is refused."""
    assert "Connection refused; " in str(failure(sshd.url.rpartition(":")[0] + ":1"))


def test_ssh_may_be_missing(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hint names the package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        dockertest.DockerUnavailableError, match="ssh:// endpoints need the program ssh"
    ) as error:
        dockertest.Pool(sshd.url)
    assert error.value.hint == "install it (Debian: openssh-client)"


@pytest.mark.parametrize(
    "url",
    [
        "ssh://host;touch${IFS}pwned",
        "ssh://$(touch${IFS}pwned)",
        "ssh://`touch${IFS}pwned`@host",
        "ssh://-oProxyCommand=touch${IFS}pwned",
        "ssh://-oProxyCommand=touch${IFS}pwned@host",
        "ssh://host/x;touch${IFS}pwned",
        "ssh://host/$(touch${IFS}pwned)",
        "ssh://host/'$(touch${IFS}pwned)'",
    ],
)
def test_the_command_in_the_hint_is_harmless(tmp_path: Path, url: str) -> None:
    """
    A hostile endpoint executes nothing when the hint is pasted into a shell.

    Such an endpoint may come from a `.env` file.
    """
    # A stand-in for ssh, which passes its last arguments to a shell on the other host, as ssh does.
    remote = 'while [ "$1" != -- ]; do shift; done; shift 2; PATH=/bin:/usr/bin exec sh -c "$*"'
    for name, script in (("ssh", remote), ("docker", "exit 0")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    subprocess.run(["sh", "-c", ssh.test_command(url)], cwd=tmp_path, env=environ, capture_output=True)
    assert not (tmp_path / "pwned").exists()


def test_a_custom_client_may_use_the_ssh_transport_of_the_docker_sdk(sshd: Sshd) -> None:
    """Its endpoint is known, and features that the transport lacks raise an error."""
    client = docker.DockerClient(base_url=sshd.url, version="auto")
    with dockertest.Pool(client=client) as pool:
        assert pool.endpoint == sshd.url
        resource = pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0)
        with pytest.raises(
            dockertest.EngineError, match="the docker SDK's own ssh connections lose output; use Pool"
        ):
            resource.exec(["true"])
    client.close()
