"""The command line in a terminal, in a pipe, and on a machine without an engine."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dockertest
from dockertest._cleanup import reaper_client
from dockertest._cli import doctor
from dockertest._cli.terminal import Console
from dockertest._engine import connect
from dockertest._engine.endpoint import Endpoint

from .conftest import Engine

COMMAND = [sys.executable, "-W", "error", "-m", "dockertest"]
SLEEP = ["busybox:1.35", "sleep", "600"]
POSTGRES = ["run", "postgres:15", "-e", "POSTGRES_PASSWORD=p@ss"]
# The command with an identity that no other session has, so that sessions of other tests are not affected.
AS_ANOTHER = """
import sys
from dockertest._cleanup import reaper_client
reaper_client.identity = lambda _folder: sys.argv[1]
from dockertest._cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def call(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command, and wait for its exit."""
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
        check=False,
    )


def redirected(how: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell that redirects its output."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {how}', "sh", *COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Terminal:
    """A command in its own terminal."""

    # Makes standard input the terminal of a new session, and executes the command. A function that runs in the child would
    # require a fork, which Python warns about in a process with threads.
    TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"

    def __init__(self, *words: str, **environ: str) -> None:
        self.shown = ""
        self._screen, theirs = pty.openpty()
        inherited = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.TAKE, *COMMAND, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**inherited, "TERM": "xterm", **environ},
        )
        os.close(theirs)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until the screen shows *text*."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert self._read(deadline), f"no {text!r} in {self.shown!r}"

    def press(self, key: bytes) -> None:
        """Send a key."""
        os.write(self._screen, key)

    def unplug(self) -> None:
        """Close the terminal, as a closed window or a lost connection does."""
        os.close(self._screen)

    def end(self, seconds: float = 60) -> int:
        """Read until the command has exited, and return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        os.close(self._screen)
        return self.process.wait()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more after {self.shown!r}"
        with suppress(OSError):  # On Linux this means that no process writes to the terminal any more.
            if chunk := os.read(self._screen, 65536):
                self.shown += chunk.decode()
                return True
        return False


@contextmanager
def piped(*words: str) -> "Iterator[subprocess.Popen[str]]":
    """Run the command with pipes, and kill it at the end."""
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class TestTerminal:
    """A user tries out a server in a terminal."""

    def test_ctrl_c_removes_the_container(self, name: str, engine: Engine) -> None:
        """
        The printed URL works until Ctrl-C, which removes the container.

        The removal does not wait for the server to stop by itself.
        """
        terminal = Terminal(*POSTGRES, "--name", name)
        terminal.wait_for("press Ctrl-C to remove it")
        url = re.findall(r"connect +\x1b\[1m(postgresql://\S+)\x1b\[0m", terminal.shown)[0]
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert f"container '{name}'" in terminal.shown
        terminal.press(b"\x03")
        began = time.monotonic()
        try:
            exit_code = terminal.end(20)
        except AssertionError:
            # Python loses an interrupt within a finalizer, here one of its import system; so it is pressed again.
            assert "Exception ignored in" in terminal.shown
            terminal.press(b"\x03")
            began = time.monotonic()
            exit_code = terminal.end()
        assert exit_code == 130
        assert time.monotonic() - began < 40
        assert not engine.has(name)
        assert "Traceback" not in terminal.shown

    def test_ctrl_c_during_the_start_removes_the_container(self, name: str, engine: Engine) -> None:
        """The wait for the service can be interrupted."""
        terminal = Terminal(*POSTGRES, "--name", name)
        terminal.wait_for("waiting until it answers")
        terminal.press(b"\x03")
        began = time.monotonic()
        try:
            exit_code = terminal.end(20)
        except AssertionError:
            # Python loses an interrupt within a finalizer, here one of its import system; so it is pressed again.
            assert "Exception ignored in" in terminal.shown
            terminal.press(b"\x03")
            began = time.monotonic()
            exit_code = terminal.end()
        assert exit_code == 130
        assert f"removed container '{name}'" in terminal.shown
        assert time.monotonic() - began < 40
        assert not engine.has(name)
        assert "Traceback" not in terminal.shown

    def test_the_container_is_removed_when_its_time_expires(self, name: str, engine: Engine) -> None:
        """The command then exits with 0; with `NO_COLOR` it prints no escape sequences."""
        terminal = Terminal("run", *SLEEP[:1], "--name", name, "--for", "6s", *SLEEP[1:], NO_COLOR="1")
        terminal.wait_for("press Ctrl-C to remove it before its time is up, in ")
        assert terminal.end() == 0
        (seconds,) = re.findall(r"before its time is up, in (\d+) s", terminal.shown)
        assert 0 <= int(seconds) <= 6
        assert not engine.has(name)
        assert "\x1b" not in terminal.shown

    def test_a_closed_terminal_removes_the_container(self, name: str, engine: Engine) -> None:
        """The program is killed by SIGHUP, and the reaper removes the container."""
        terminal = Terminal("run", *SLEEP[:1], "--name", name, "--for", "1h", *SLEEP[1:])
        terminal.wait_for("press Ctrl-C to remove it")
        terminal.unplug()
        assert terminal.process.wait(20) == -signal.SIGHUP
        dockertest.retry(lambda: not engine.has(name), max_wait=20)

    def test_a_followed_log_keeps_its_colours(self, name: str, engine: Engine) -> None:
        """The log is printed until the container exits."""
        terminal = Terminal("run", "-f", "busybox:1.35", "--name", name, "printf", "\\033[31mred\\033[0m\\n")
        assert terminal.end() == 0
        assert "\x1b[31mred\x1b[0m" in terminal.shown
        assert not engine.has(name)


class TestPipe:
    """A script reads the output."""

    TALK = "while :; do printf '\\033[31mtick\\033[0m\\r\\n'; sleep 0.1; done"

    @pytest.mark.parametrize("follow", [True, False], ids=["talking", "silent"])
    def test_a_closed_pipe_removes_the_container(self, name: str, engine: Engine, follow: bool) -> None:
        """The command exits quietly, even if there is no log line to write."""
        flags = ["--follow"] if follow else []
        with piped("run", *flags, "busybox:1.35", "--name", name, "sh", "-c", self.TALK) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = [process.stdout.readline() for _ in range(4 if follow else 1)]
            assert lines[0].startswith(f"container '{name}'")
            assert lines[1:] == ["tick\n"] * (len(lines) - 1)
            process.stdout.close()
            assert process.wait(20) == 141
            *_, last = process.stderr.read().splitlines()  # There is no traceback after it.
            assert last == f"removed {lines[0].partition(' of ')[0]}"
        assert not engine.has(name)

    def test_a_full_pipe_does_not_block_ctrl_c(self, name: str, engine: Engine) -> None:
        """The container is removed although the reader of the log does not read."""
        with piped("run", "-f", "busybox:1.35", "--name", name, "yes", "x" * 1000) as process:
            assert process.stdout is not None
            process.stdout.readline()
            reading, unread = process.stdout.fileno(), array("i", [0])

            def is_full() -> bool:
                """Return whether the pipe is full, so that the log's writer is blocked."""
                fcntl.ioctl(reading, termios.FIONREAD, unread)
                return unread[0] > 60_000

            dockertest.retry(is_full, max_wait=20)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert not engine.has(name)

    def test_a_program_gets_one_line_of_json(self, name: str, engine: Engine) -> None:
        """It is printed as soon as the server answers."""
        with piped(*POSTGRES, "--name", name, "--json", "--for", "10m", "-p", "9999") as process:
            assert process.stdout is not None
            answer = json.loads(process.stdout.readline())
            assert engine.inspect(name)["Id"] == answer["id"]
            assert (answer["name"], answer["ready"]) == (name, "answers")
            assert answer["image"].endswith("postgres:15")
            assert set(answer["ports"]) == {"5432/tcp", "9999/tcp"}
            assert answer["url"] == f"postgresql://postgres:p%40ss@{answer['ports']['5432/tcp']}/postgres"
            assert 500 < answer["expires"] - time.time() <= 600
            process.terminate()
            assert process.stdout.read() == ""
        dockertest.retry(lambda: not engine.has(name), max_wait=20)

    def test_a_container_that_fails_is_reported(self, name: str, engine: Engine) -> None:
        """The message has the last log lines, and there is no traceback."""
        ended = call("run", "postgres:15", "--name", name)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert f"dockertest: container '{name}' (" in ended.stderr
        assert "has ended with exit code 1" in ended.stderr
        assert "POSTGRES_PASSWORD" in ended.stderr
        assert "; DOCKERTEST_KEEP=1 keeps the container\n" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not engine.has(name)

    def test_it_exits_with_the_container(self, name: str, engine: Engine) -> None:
        """A failure of the container is a failure of the command."""
        ended = call("run", "-f", "busybox:1.35", "--name", name, "sh", "-c", "echo hello; exit 3")
        assert ended.returncode == 1
        assert ended.stdout.endswith("hello\n")
        assert f"container '{name}'" in ended.stderr
        assert "has ended with exit code 3" in ended.stderr
        assert not engine.has(name)

    def test_messages_for_a_closed_standard_error_are_dropped(self, name: str, pool: dockertest.Pool) -> None:
        """With `2>&-` in a script, they must not end up in the JSON."""
        words = ["run", "-d", "--json", "--name", name, "busybox:1.35", "sleep", "600"]
        ended = redirected("2>&-", *words)
        try:
            assert ended.returncode == 0, ended.stdout
            assert json.loads(ended.stdout)["name"] == name
        finally:
            pool.remove_container_by_name(name)

    def test_a_log_for_a_closed_standard_output_is_dropped(self, name: str, engine: Engine) -> None:
        """The command still waits for the container's exit."""
        ended = redirected(">&-", "run", "-f", "--name", name, "busybox:1.35", "echo", "hello")
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
        assert "has ended with exit code 0" in ended.stderr
        assert not engine.has(name)

    def test_a_service_that_is_not_ready_in_time_is_removed(self, name: str, engine: Engine) -> None:
        """The timeout is reported."""
        ended = call("run", "postgres:15", "--name", name, "--wait", "1s", "sleep", "600")
        assert (ended.returncode, ended.stdout) == (1, "")
        (seconds,) = re.findall(r"dockertest: gave up after (\S+) s", ended.stderr)
        assert 1 <= float(seconds) < 40
        assert ended.stderr.endswith("if it only needs more time, set --wait\n")
        assert not engine.has(name)

    def test_a_service_with_an_unexpected_answer_is_reported(
        self, name: str, engine: Engine, pool: dockertest.Pool
    ) -> None:
        """The message has the address and the expected service."""
        image = f"{pool.image_prefix}{name}/redis"
        engine.client.images.get(f"{pool.image_prefix}busybox:1.35").tag(image, "1")
        try:
            server = ("httpd", "-f", "-p", "6379")
            ended = call("run", "--name", name, "-p", "6379", "--wait", "3s", f"{name}/redis:1", *server)
        finally:
            engine.client.images.remove(f"{image}:1")
        assert re.search(
            r"ConnectionError: \S+ \(container port 6379/tcp\) does not answer as redis does", ended.stderr
        )


class TestDetached:
    """The container keeps running when the command has exited."""

    def test_the_reaper_removes_it_when_its_time_expires(self, name: str, engine: Engine) -> None:
        """No process of the command is left by then."""
        ended = call("run", "-d", "--for", "10s", "--name", name, *SLEEP)
        assert ended.returncode == 0, ended.stderr
        assert "it will be removed in" in ended.stderr
        assert engine.inspect(name)["State"]["Running"]
        dockertest.retry(lambda: not engine.has(name), max_wait=60)

    def test_without_a_time_limit_it_stays(self, name: str, engine: Engine, pool: dockertest.Pool) -> None:
        """
        Neither `prune` nor the next session removes it, and `ps` lists it.

        The removal command is printed.
        """
        ended = call("run", "-d", "--name", name, *SLEEP)
        assert ended.returncode == 0, ended.stderr
        kept = pool.container_by_name(name)
        assert kept is not None
        assert f"; remove: docker rm -f -v {kept.id[:12]}\n" in ended.stderr
        try:
            assert kept.id not in json.loads(call("prune", "--json").stdout)["removed"]
            assert listed(name)["standing"] == "kept"
            assert engine.inspect(name)["State"]["Running"]
        finally:
            pool.purge(kept)

    def test_a_time_limit_needs_the_reaper(self, name: str, engine: Engine) -> None:
        """Without it nothing would remove the container."""
        ended = call("run", "-d", "--for", "1h", "--name", name, *SLEEP, DOCKERTEST_REAPER="0")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "expire needs the reaper" in ended.stderr
        assert not engine.has(name)


READY = {
    "redis:7.0": "redis://{6379/tcp}/0",
    "mariadb:10.11": "mysql://shop:secret@{3306/tcp}/orders",
    "rabbitmq:3.10": "amqp://guest:guest@{5672/tcp}",
    "memcached:1.6": "{11211/tcp}",
    "nats:2.9": "nats://{4222/tcp}",
    "coreos/etcd:v3.4.23": "http://{2379/tcp}",
    "zookeeper:3.8": "{2181/tcp}",
    "eclipse-mosquitto:2.0": "mqtt://{1883/tcp}",
    "influxdb:1.6": "http://{8086/tcp}",
    "nginx:1.22": "http://{80/tcp}",
}
SETTINGS = {
    "mariadb:10.11": "-e MARIADB_ROOT_PASSWORD=root -e MARIADB_USER=shop -e MARIADB_PASSWORD=secret "
    "-e MARIADB_DATABASE=orders",
    "coreos/etcd:v3.4.23": "-p 2379 -e ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379 "
    "-e ETCD_ADVERTISE_CLIENT_URLS=http://0.0.0.0:2379",
    "eclipse-mosquitto:2.0": "mosquitto -c /mosquitto-no-auth.conf",
}


# `test_services` tests the probes and URLs of all services.
QUICK = {"redis:7.0", "mariadb:10.11", "coreos/etcd:v3.4.23"}


@pytest.mark.parametrize(
    "image", [pytest.param(image, marks=() if image in QUICK else pytest.mark.soak) for image in READY]
)
def test_it_waits_for_a_known_service(image: str, name: str, pool: dockertest.Pool) -> None:
    """The service answers in its own protocol, and its URL is printed."""
    prefix = "" if os.environ.get("DOCKERTEST_IMAGE_PREFIX") or "etcd" not in image else "quay.io/"
    settings = SETTINGS.get(image, "").split()
    ended = call("run", prefix + image, "-d", "--json", "--wait", "100s", "--name", name, *settings)
    try:
        assert ended.returncode == 0, ended.stderr
        answer = json.loads(ended.stdout)
        assert answer["ready"] == "answers"
        assert answer["url"] == re.sub(r"{(.+)}", lambda port: answer["ports"][port[1]], READY[image])
    finally:
        pool.remove_container_by_name(name)


def test_an_unknown_url_is_explained(name: str, pool: dockertest.Pool) -> None:
    """It answers all the same."""
    ended = call(
        *("run", "mariadb:10.11", "-d", "--json", "--wait", "100s", "--name", name),
        *("-e", "MARIADB_RANDOM_ROOT_PASSWORD=1"),
    )
    try:
        assert ended.returncode == 0, ended.stderr
        answer = json.loads(ended.stdout)
        assert (answer["ready"], answer["url"]) == ("answers", None)
        assert (
            "no URL: env: the password is not known, because of MARIADB_RANDOM_ROOT_PASSWORD" in ended.stderr
        )
    finally:
        pool.remove_container_by_name(name)


def listed(name: str, *command: str) -> dict[str, Any]:
    """Return what `ps` prints about a container or network."""
    ended = subprocess.run(
        [*(command or COMMAND), "ps", "--json"], capture_output=True, text=True, check=True
    )
    (item,) = [item for item in json.loads(ended.stdout) if item["name"] == name]
    return dict(item)


class TestInventory:
    """`ps` and `prune`."""

    def test_ps_lists_containers_and_networks(self, name: str, pool: dockertest.Pool) -> None:
        """It prints a table for people and JSON for programs."""
        with (
            pool.create_network(name) as network,
            pool.run(
                "busybox:1.35", name=f"{name}-c", cmd=["sleep", "600"], exposed_ports=["80"]
            ) as resource,
        ):
            item = listed(f"{name}-c")
            assert (item["id"], item["kind"], item["state"]) == (resource.id, "container", "running")
            bound = resource.container.attrs["NetworkSettings"]["Ports"]["80/tcp"]
            ports = [f"{port['HostIp']}:{port['HostPort']}->80/tcp" for port in bound]
            assert item["ports"] == ports
            assert (item["standing"], item["expires"]) == ("living", None)
            assert listed(name)["id"] == network.id
            ended = call("ps")
            head, *rows = ended.stdout.splitlines()
            assert head.split() == ["ID", "NAME", "IMAGE", "STATE", "PORTS", "SESSION", "EXPIRES"]
            (row,) = [row for row in rows if f" {name}-c " in row]
            assert row.split()[0] == resource.id[:12]
            assert row.split()[3:] == ["running", *ports, "living"]
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ended.stdout)

    def test_prune_removes_leftovers_of_dead_sessions(
        self, name: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Reused containers are removed only on request.

        The test has its own identity to be isolated.
        """
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        identity = f"{name}.{reaper_client.identity(Path()).split('.')[1]}.boot.1"
        another = [sys.executable, "-c", AS_ANOTHER, identity]
        code = """
import os, signal, sys
from dockertest._cleanup import reaper_client
reaper_client.identity = lambda _folder: sys.argv[1]
import dockertest
pool = dockertest.Pool(reaper=False)
pool.run("busybox:1.35", name=sys.argv[2], cmd=["sleep", "600"])
pool.run("busybox:1.35", name=sys.argv[2] + "-reused", cmd=["sleep", "600"], reuse=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        subprocess.run([sys.executable, "-c", code, identity, name], check=False)
        dead, reused = engine.inspect(name)["Id"], engine.inspect(f"{name}-reused")["Id"]
        assert listed(name, *another)["standing"] == "dead"
        assert listed(f"{name}-reused", *another)["standing"] == "reused"
        assert listed(name)["standing"] == "elsewhere"

        def prune(*words: str) -> list[str]:
            ended = subprocess.run(
                [*another, "prune", *words], capture_output=True, text=True, check=True, timeout=60
            )
            # Expired containers of other tests are removed too.
            return [word for word in ended.stdout.split() if word in (dead[:12], reused[:12])]

        assert prune() == [dead[:12]]
        assert not engine.has(name)
        assert engine.has(f"{name}-reused")
        assert prune("--reused") == [reused[:12]]
        assert not engine.has(f"{name}-reused")
        assert prune("--reused") == []


class TestDoctor:
    """`doctor`."""

    def test_each_check_runs_once(self) -> None:
        """In a pipe, the output has no escape sequences."""
        ended = call("doctor")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert re.findall(r"^(?:ok|note) +(\w+) ", ended.stdout, re.MULTILINE) == [
            "endpoint", "engine", "disk", "leftovers", "port", "reaper",
        ]  # fmt: skip
        assert "\x1b" not in ended.stdout

    def test_a_program_gets_one_line_of_json(self, pool: dockertest.Pool) -> None:
        """It has the facts as separate fields."""
        ended = call("doctor", "--json")
        answer = json.loads(ended.stdout)
        checks = {check["what"]: check for check in answer["findings"]}
        assert (ended.returncode, answer["ok"]) == (0, True)
        assert checks["endpoint"]["url"] == pool.endpoint
        assert checks["engine"]["version"] == pool.client.version()["Version"]
        assert checks["port"]["ok"]
        assert checks["reaper"]["text"] == "it has removed the test container"

    def test_endpoints_that_do_not_answer_are_listed(self) -> None:
        """
        The first line has the reason for the choice of the engine.

        The others follow with their failures.
        """
        dead = Endpoint("unix:///nowhere/docker.sock", "default socket")
        with dockertest.Pool() as pool:
            engine = connect.find([dead, pool._runtime.engine.endpoint], timeout=10)
            pool._runtime, original = replace(pool._runtime, engine=engine), pool._runtime
            result = doctor.Examination(pool).endpoint()
            pool._runtime = original
            engine.close()
        first, second, *_ = result.text.splitlines()
        assert first == f"{pool.endpoint} ({engine.endpoint.why})"
        assert second.startswith("no engine at unix:///nowhere/docker.sock (default socket): no such file")
        assert result.facts["passed_over"][0]["url"] == "unix:///nowhere/docker.sock"

    def test_no_engine_is_a_problem(self) -> None:
        """The endpoint is named with the reason for its choice, and the exit code is 1."""
        ended = call("doctor", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
        (check,) = json.loads(ended.stdout)["findings"]
        assert (ended.returncode, check["what"], check["ok"]) == (1, "endpoint", False)
        assert "unix:///nowhere/docker.sock (DOCKER_HOST)" in check["text"]

    def test_without_an_image_fewer_checks_run(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing is pulled; whether the reaper starts is still checked."""
        monkeypatch.setattr(doctor.Examination, "find_harmless_image", lambda _: None)
        assert doctor.examine(Console({}, as_json=True)) == 0
        checks = {check["what"]: check for check in json.loads(capsys.readouterr().out)["findings"]}
        assert checks["port"]["ok"] is None
        assert "no image that runs without configuration is available locally" in checks["port"]["text"]
        assert (checks["reaper"]["ok"], checks["reaper"]["text"]) == (True, "starts")

    def test_a_disabled_reaper_is_not_a_problem(self) -> None:
        """It is only mentioned."""
        checks = {
            check["what"]: check
            for check in json.loads(call("doctor", "--json", DOCKERTEST_REAPER="0").stdout)["findings"]
        }
        assert checks["reaper"]["ok"] is None
        assert "DOCKERTEST_REAPER=0" in checks["reaper"]["text"]


@pytest.mark.parametrize("command", ["ps", "prune", "run busybox"])
def test_without_an_engine_there_is_one_message(command: str) -> None:
    """It goes to standard error without a traceback; the exit code is 1."""
    ended = call(*command.split(), DOCKER_HOST="unix:///nowhere/docker.sock")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("dockertest: cannot connect to a container engine")
    assert "Traceback" not in ended.stderr


def test_a_password_is_only_in_the_url(name: str, engine: Engine) -> None:
    """It is in no label and no message."""
    ended = call(*POSTGRES, "-d", "--for", "1m", "--name", name)
    try:
        assert "p%40ss" in ended.stdout
        assert "p@ss" not in json.dumps(engine.inspect(name)["Config"]["Labels"])
        assert "p@ss" not in ended.stderr
    finally:
        engine.remove(name)
