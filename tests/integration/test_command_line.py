"""The command `dockertest`, as people and scripts use it: in a terminal, in a pipe, and on a machine without an engine."""

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
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dockertest
from dockertest._cleanup import reaper_client as _lifeline
from dockertest._cli import doctor as _doctor
from dockertest._cli.terminal import Screen
from dockertest._engine import connect as _connect
from dockertest._engine.endpoint import Endpoint

from .conftest import Engine

COMMAND = [sys.executable, "-W", "error", "-m", "dockertest"]
SLEEP = ["busybox:1.35", "sleep", "600"]
POSTGRES = ["run", "postgres:15", "-e", "POSTGRES_PASSWORD=p@ss"]
# The same with an identity that no other session has, so that nobody else's things are touched, nor ours by others.
AS_ANOTHER = """
import sys
from dockertest._cleanup import reaper_client as _lifeline
_lifeline.identity = lambda: sys.argv[1]
from dockertest.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def call(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
        check=False,
    )


def redirected(how: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end as a shell does that was told to redirect its output."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {how}', "sh", *COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Terminal:
    """A command in a real terminal of its own, as somebody sees it who sits there."""

    # Make standard input the terminal of a new session, and become the command. (Python does not like to fork threads.)
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
        """Type."""
        os.write(self._screen, key)

    def unplug(self) -> None:
        """Take the terminal away, as a closed window or a lost connection does."""
        os.close(self._screen)

    def end(self, seconds: float = 60) -> int:
        """Read until the command has ended, and give its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        os.close(self._screen)
        return self.process.wait()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more after {self.shown!r}"
        with suppress(OSError):  # how Linux says that nobody writes there any more
            if chunk := os.read(self._screen, 65536):
                self.shown += chunk.decode()
                return True
        return False


@contextmanager
def piped(*words: str) -> "Iterator[subprocess.Popen[str]]":
    """Run the command with pipes, and end it at last."""
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class TestTerminal:
    """Somebody tries something with a server."""

    def test_ctrl_c_removes_it(self, name: str, engine: Engine) -> None:
        """Within two seconds; until then the line that it shows connects."""
        terminal = Terminal(*POSTGRES, "--name", name)
        terminal.wait_for("Ctrl-C removes it")
        url = re.findall(r"connect +\x1b\[1m(postgresql://\S+)\x1b\[0m", terminal.shown)[0]
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert f"container '{name}'" in terminal.shown
        terminal.press(b"\x03")
        began = time.monotonic()
        assert terminal.end() == 130
        assert time.monotonic() - began < 2
        assert not engine.has(name)
        assert "Traceback" not in terminal.shown

    def test_ctrl_c_while_it_starts(self, name: str, engine: Engine) -> None:
        """Nothing is left of a server that nobody waits for any more."""
        terminal = Terminal(*POSTGRES, "--name", name)
        terminal.wait_for("waiting until it answers")
        terminal.press(b"\x03")
        began = time.monotonic()
        assert terminal.end() == 130
        assert f"removed container '{name}'" in terminal.shown
        assert time.monotonic() - began < 2
        assert not engine.has(name)
        assert "Traceback" not in terminal.shown

    def test_its_time_is_up(self, name: str, engine: Engine) -> None:
        """Then it goes, and the command ends well; without colours where somebody wants none."""
        terminal = Terminal("run", *SLEEP[:1], "--name", name, "--for", "3s", *SLEEP[1:], NO_COLOR="1")
        terminal.wait_for("Ctrl-C removes it; else it is removed in 3 s")
        began = time.monotonic()
        assert terminal.end() == 0
        assert 2 < time.monotonic() - began < 8
        assert not engine.has(name)
        assert "\x1b" not in terminal.shown

    def test_a_lost_terminal(self, name: str, engine: Engine) -> None:
        """Its window is closed: the program is gone, and the reaper removes the container."""
        terminal = Terminal("run", *SLEEP[:1], "--name", name, "--for", "1h", *SLEEP[1:])
        terminal.wait_for("Ctrl-C removes it")
        terminal.unplug()
        assert terminal.process.wait(20) == -signal.SIGHUP
        dockertest.retry(lambda: not engine.has(name), max_wait=20)

    def test_the_log_is_shown_as_it_is(self, name: str, engine: Engine) -> None:
        """With its colours, until the container ends."""
        terminal = Terminal("run", "-f", "busybox:1.35", "--name", name, "printf", "\\033[31mred\\033[0m\\n")
        assert terminal.end() == 0
        assert "\x1b[31mred\x1b[0m" in terminal.shown
        assert not engine.has(name)


class TestPipe:
    """A script reads what it writes."""

    TALK = "while :; do printf '\\033[31mtick\\033[0m\\r\\n'; sleep 0.1; done"

    @pytest.mark.parametrize("follow", [True, False], ids=["talking", "silent"])
    def test_it_ends_with_its_reader(self, name: str, engine: Engine, follow: bool) -> None:
        """Quietly, and without a control character before; the container goes, too, even if it has nothing to say."""
        flags = ["--follow"] if follow else []
        with piped("run", *flags, "busybox:1.35", "--name", name, "sh", "-c", self.TALK) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = [process.stdout.readline() for _ in range(4 if follow else 1)]
            assert lines[0].startswith(f"container '{name}'")
            assert lines[1:] == ["tick\n"] * (len(lines) - 1)
            process.stdout.close()
            assert process.wait(20) == 141
            *_, last = process.stderr.read().splitlines()  # and no traceback
            assert last == f"removed {lines[0].partition(' of ')[0]}"
        assert not engine.has(name)

    def test_a_reader_that_does_not_read_holds_nothing_up(self, name: str, engine: Engine) -> None:
        """The pipe is full, and Ctrl-C removes the container all the same."""
        with piped("run", "-f", "busybox:1.35", "--name", name, "yes", "x" * 1000) as process:
            assert process.stdout is not None
            process.stdout.readline()
            reading, unread = process.stdout.fileno(), array("i", [0])

            def is_full() -> bool:
                """Whether what goes into a pipe is in it, so that who writes the log waits."""
                fcntl.ioctl(reading, termios.FIONREAD, unread)
                return unread[0] > 60_000

            dockertest.retry(is_full, max_wait=20)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert time.monotonic() - began < 10
        assert not engine.has(name)

    def test_a_program_gets_one_line_of_json(self, name: str, engine: Engine) -> None:
        """As soon as the server answers."""
        with piped(*POSTGRES, "--name", name, "--json", "--for", "10m", "-p", "9999") as process:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert engine.inspect(name)["Id"] == told["id"]
            assert (told["name"], told["ready"]) == (name, "answers")
            assert told["image"].endswith("postgres:15")
            assert set(told["ports"]) == {"5432/tcp", "9999/tcp"}
            assert told["url"] == f"postgresql://postgres:p%40ss@{told['ports']['5432/tcp']}/postgres"
            assert 500 < told["expires"] - time.time() <= 600
            process.terminate()
            assert process.stdout.read() == ""
        dockertest.retry(lambda: not engine.has(name), max_wait=20)

    def test_a_death_is_told_with_its_reason(self, name: str, engine: Engine) -> None:
        """A server that cannot start: its last words, and no more than that."""
        ended = call("run", "postgres:15", "--name", name)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert f"dockertest: container '{name}' (" in ended.stderr
        assert "has ended with exit code 1" in ended.stderr
        assert "POSTGRES_PASSWORD" in ended.stderr
        assert "; DOCKERTEST_KEEP=1 leaves it standing for a look\n" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not engine.has(name)

    def test_a_command_that_ends_ends_it(self, name: str, engine: Engine) -> None:
        """With its failure, or well."""
        ended = call("run", "-f", "busybox:1.35", "--name", name, "sh", "-c", "echo hello; exit 3")
        assert ended.returncode == 1
        assert ended.stdout.endswith("hello\n")
        assert f"container '{name}'" in ended.stderr
        assert "has ended with exit code 3" in ended.stderr
        assert not engine.has(name)

    def test_closed_standard_error_leaves_the_json_alone(self, name: str, pool: dockertest.Pool) -> None:
        """What is told besides goes nowhere, as with `2>&-` in a script, and not between the JSON."""
        words = ["run", "-d", "--json", "--name", name, "busybox:1.35", "sleep", "600"]
        ended = redirected("2>&-", *words)
        try:
            assert ended.returncode == 0, ended.stdout
            assert json.loads(ended.stdout)["name"] == name
        finally:
            pool.remove_container_by_name(name)

    def test_closed_standard_output_hides_the_log(self, name: str, engine: Engine) -> None:
        """That is no error, and the program goes on to the container's end."""
        ended = redirected(">&-", "run", "-f", "--name", name, "busybox:1.35", "echo", "hello")
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
        assert "has ended with exit code 0" in ended.stderr
        assert not engine.has(name)

    def test_one_that_is_not_ready_in_time(self, name: str, engine: Engine) -> None:
        """It is said what was waited for, and the container goes."""
        ended = call("run", "postgres:15", "--name", name, "--wait", "1s", "sleep", "600")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "dockertest: gave up after 1." in ended.stderr
        assert not engine.has(name)

    def test_one_that_answers_as_something_else(
        self, name: str, engine: Engine, pool: dockertest.Pool
    ) -> None:
        """It is said as what it should, and where."""
        image = f"{pool.image_prefix}{name}/redis"
        engine.client.images.get(f"{pool.image_prefix}busybox:1.35").tag(image, "1")
        try:
            server = ("httpd", "-f", "-p", "6379")
            ended = call("run", "--name", name, "-p", "6379", "--wait", "1s", f"{name}/redis:1", *server)
        finally:
            engine.client.images.remove(f"{image}:1")
        assert "ConnectionError: nothing answers as redis does at " in ended.stderr


class TestDetached:
    """It stays when the command ends."""

    def test_until_its_time_is_up(self, name: str, engine: Engine) -> None:
        """The reaper sees to it."""
        ended = call("run", "-d", "--for", "4s", "--name", name, *SLEEP)
        assert ended.returncode == 0, ended.stderr
        assert "it is removed in" in ended.stderr
        assert engine.inspect(name)["State"]["Running"]
        dockertest.retry(lambda: not engine.has(name), max_wait=20)

    def test_until_somebody_removes_it(self, name: str, engine: Engine, pool: dockertest.Pool) -> None:
        """Neither the next session nor `prune` does; `ps` has it, and what is told removes it."""
        ended = call("run", "-d", "--name", name, *SLEEP)
        assert ended.returncode == 0, ended.stderr
        found = pool.container_by_name(name)
        assert found is not None
        assert f"it stays until it is removed: docker rm -f -v {found.id[:12]}\n" in ended.stderr
        try:
            assert found.id not in json.loads(call("prune", "--json").stdout)["removed"]
            assert listed(name)["standing"] == "kept"
            assert engine.inspect(name)["State"]["Running"]
        finally:
            pool.purge(found)

    def test_not_without_a_reaper_to_end_it(self, name: str, engine: Engine) -> None:
        """A promise that nobody would keep is not made."""
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


@pytest.mark.parametrize("image", READY)
def test_a_known_service_is_waited_for(image: str, name: str, pool: dockertest.Pool) -> None:
    """Until it answers in its own protocol; how to connect is told."""
    prefix = "" if os.environ.get("DOCKERTEST_IMAGE_PREFIX") or "etcd" not in image else "quay.io/"
    settings = SETTINGS.get(image, "").split()
    ended = call("run", prefix + image, "-d", "--json", "--wait", "100s", "--name", name, *settings)
    try:
        assert ended.returncode == 0, ended.stderr
        told = json.loads(ended.stdout)
        assert told["ready"] == "answers"
        assert told["url"] == re.sub(r"{(.+)}", lambda port: told["ports"][port[1]], READY[image])
    finally:
        pool.remove_container_by_name(name)


def listed(name: str, *command: str) -> dict[str, Any]:
    """Give what `ps` says of a container or network."""
    ended = subprocess.run(
        [*(command or COMMAND), "ps", "--json"], capture_output=True, text=True, check=True
    )
    (found,) = [each for each in json.loads(ended.stdout) if each["name"] == name]
    return dict(found)


class TestWhatIsThere:
    """What was made, and what is left of it."""

    def test_ps_lists_what_a_living_session_made(self, name: str, pool: dockertest.Pool) -> None:
        """For a person and for a program; a network, too."""
        with (
            pool.create_network(name) as network,
            pool.run("busybox:1.35", name=f"{name}-c", cmd=["sleep", "600"], exposed_ports=["80"]) as made,
        ):
            found = listed(f"{name}-c")
            assert (found["id"], found["kind"], found["state"]) == (made.id, "container", "running")
            bound = made.container.attrs["NetworkSettings"]["Ports"]["80/tcp"]
            ports = [f"{each['HostIp']}:{each['HostPort']}->80/tcp" for each in bound]
            assert found["ports"] == ports
            assert (found["standing"], found["expires"]) == ("living", None)
            assert listed(name)["id"] == network.id
            ended = call("ps")
            head, *rows = ended.stdout.splitlines()
            assert head.split() == ["ID", "NAME", "IMAGE", "STATE", "PORTS", "SESSION", "LEFT"]
            (row,) = [each for each in rows if f" {name}-c " in each]
            assert row.split()[0] == made.id[:12]
            assert row.split()[3:] == ["running", *ports, "living"]
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ended.stdout)

    def test_prune_removes_what_the_dead_left(
        self, name: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And what is reused only if asked; a user of the test's own, whom nobody else can know to be dead."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        identity = f"{name}.{_lifeline.identity().split('.')[1]}.boot.1"
        another = [sys.executable, "-c", AS_ANOTHER, identity]
        code = """
import os, signal, sys
from dockertest._cleanup import reaper_client as _lifeline
_lifeline.identity = lambda: sys.argv[1]
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
            return ended.stdout.split()

        assert prune() == [dead[:12]]
        assert not engine.has(name)
        assert engine.has(f"{name}-reused")
        assert prune("--reused") == [reused[:12]]
        assert not engine.has(f"{name}-reused")
        assert prune("--reused") == []


class TestDoctor:
    """It says whether all is there, and what is not."""

    def test_all_is_well(self) -> None:
        """For a person; what is told has no control character in a pipe, and each thing is looked at once."""
        ended = call("doctor")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert re.findall(r"^(?:ok|note) +(\w+) ", ended.stdout, re.MULTILINE) == [
            "endpoint", "engine", "disk", "leftovers", "port", "reaper",
        ]  # fmt: skip
        assert "\x1b" not in ended.stdout

    def test_a_program_gets_one_line_of_json(self, pool: dockertest.Pool) -> None:
        """With the facts apart; the container that was started is gone."""
        ended = call("doctor", "--json")
        told = json.loads(ended.stdout)
        found = {each["what"]: each for each in told["findings"]}
        assert (ended.returncode, told["ok"]) == (0, True)
        assert found["endpoint"]["url"] == pool.endpoint
        assert found["engine"]["version"] == pool.client.version()["Version"]
        assert found["port"]["ok"]
        assert found["reaper"]["text"] == "it has removed that container"

    def test_what_was_tried_before_is_told(self) -> None:
        """An engine that answers, and before it one that does not: why the second was taken."""
        dead = Endpoint("unix:///nowhere/docker.sock", "the default socket")
        with dockertest.Pool() as pool:
            found = _connect.find([dead, pool._engine.endpoint], timeout=10)
            pool._engine, taken = found, pool._engine
            told = _doctor._endpoint(pool)
            pool._engine = taken
            found.close()
        first, second, *_ = told.text.splitlines()
        assert first == f"{pool.endpoint} ({found.endpoint.why})"
        assert second.startswith("not unix:///nowhere/docker.sock (the default socket): no such file")
        assert told.facts["passed_over"][0]["url"] == "unix:///nowhere/docker.sock"

    def test_no_engine_is_a_problem(self) -> None:
        """Its endpoint is named, and why it was chosen; the exit code says so."""
        ended = call("doctor", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
        (found,) = json.loads(ended.stdout)["findings"]
        assert (ended.returncode, found["what"], found["ok"]) == (1, "endpoint", False)
        assert "unix:///nowhere/docker.sock (DOCKER_HOST)" in found["text"]

    def test_without_an_image_less_is_known(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing is pulled; that the reaper starts is seen all the same."""
        monkeypatch.setattr(_doctor, "_at_hand", lambda _pool: None)
        assert _doctor.examine(Screen({}, as_json=True)) == 0
        found = {each["what"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
        assert found["port"]["ok"] is None
        assert "no image is at hand that starts by itself" in found["port"]["text"]
        assert (found["reaper"]["ok"], found["reaper"]["text"]) == (True, "it starts")

    def test_a_reaper_that_is_turned_off_is_noted(self) -> None:
        """It is no problem: somebody wanted it."""
        found = {
            each["what"]: each
            for each in json.loads(call("doctor", "--json", DOCKERTEST_REAPER="0").stdout)["findings"]
        }
        assert found["reaper"]["ok"] is None
        assert "DOCKERTEST_REAPER=0" in found["reaper"]["text"]


@pytest.mark.parametrize("command", ["ps", "prune", "run busybox"])
def test_no_engine_is_one_message(command: str) -> None:
    """On standard error, with the exit code of an error, and without a traceback."""
    ended = call(*command.split(), DOCKER_HOST="unix:///nowhere/docker.sock")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("dockertest: no container engine answers")
    assert "Traceback" not in ended.stderr


def test_a_secret_is_in_no_label(name: str, engine: Engine) -> None:
    """It is in the line to connect with, which somebody wants to paste, and in the container's environment."""
    ended = call(*POSTGRES, "-d", "--for", "1m", "--name", name)
    try:
        assert "p%40ss" in ended.stdout
        assert "p@ss" not in json.dumps(engine.inspect(name)["Config"]["Labels"])
        assert "p@ss" not in ended.stderr
    finally:
        engine.client.containers.get(name).remove(force=True, v=True)
