"""The command line without an engine: what its arguments mean, what it writes, and what servers' first words say."""

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from dockertest import _probes
from dockertest import services as _services
from dockertest.__main__ import _parse, main
from dockertest._cli.run import Wish, span
from dockertest._cli.terminal import plain
from dockertest._probes import Probe
from dockertest._values import PortBinding


def wish(*words: str, **environ: str) -> Wish:
    """Read the arguments of `run`."""
    found: Wish = _parse(["run", *words], environ).wish
    return found


class TestRunArguments:
    """Options stand before and behind the image; the rest is the command's."""

    @pytest.mark.parametrize(
        "words",
        [
            "-e A=1 --for 2h --name pg postgres:15 postgres -c fsync=off",
            "postgres:15 -e A=1 --for 2h --name pg postgres -c fsync=off",
            "--name pg postgres:15 -e A=1 --for=2h -- postgres -c fsync=off",
        ],
    )
    def test_options_stand_on_either_side_of_the_image(self, words: str) -> None:
        """As people write them; a dash in the command is the command's own."""
        found = wish(*words.split())
        assert (found.options.repository, found.options.name) == ("postgres:15", "pg")
        assert (found.options.env, found.seconds) == (("A=1",), 7200)
        assert found.options.cmd == ("postgres", "-c", "fsync=off")

    def test_options_of_both_sides_add_up(self) -> None:
        """None is lost."""
        found = wish("-e", "A=1", "-f", "redis", "-e", "B=2", "-p", "80")
        assert (found.options.env, found.follow) == (("A=1", "B=2"), True)
        assert found.options.port_bindings == {"80/tcp": (PortBinding(),)}

    def test_what_begins_with_a_dash_stands_behind_two(self) -> None:
        """For images that take options as their command."""
        assert wish("nats", "--", "--jetstream", "-p", "1").options.cmd == ("--jetstream", "-p", "1")
        assert wish("git", "log", "--", "x").options.cmd == ("log", "--", "x")

    def test_a_name_alone_takes_the_environments_value(self) -> None:
        """So that a password need not stand on the command line."""
        assert wish("postgres", "-e", "SECRET", SECRET="a=b").options.env == ("SECRET=a=b",)

    @pytest.mark.parametrize(
        ("written", "port", "binding"),
        [
            ("5432", "5432/tcp", PortBinding()),
            ("15432:5432", "5432/tcp", PortBinding(host_port="15432")),
            ("127.0.0.2:15432:5432", "5432/tcp", PortBinding("127.0.0.2", "15432")),
            ("[::1]::53/udp", "53/udp", PortBinding("::1", "")),
        ],
    )
    def test_a_port_is_published(self, written: str, port: str, binding: PortBinding) -> None:
        """As docker's own command has it."""
        assert wish("-p", written, "x").options.port_bindings == {port: (binding,)}

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("", "the following arguments are required: IMAGE"),
            ("Upper:1", "'Upper:1' is no image name"),
            ("x --unknown", "unrecognized arguments: --unknown"),
            ("x --for 0", "argument --for: time: it must be more than zero"),
            ("x --for soon", "'soon' is no length of time; write seconds, or '90s'"),
            ("x -p http", "port: 'http' is no port"),
            ("x -p a:1", "host_port: 'a' is no port of the host"),
            ("x -e PASSWORD", "PASSWORD is not set in the environment; write PASSWORD=VALUE"),
            ("x -e =secret", "is no name of an environment variable"),
            ("x --name ?", "'?' is no name that engines accept"),
            ("x --pull sometimes", "invalid choice: 'sometimes'"),
            ("x -d -f", "argument -f/--follow: not allowed with -d/--detach"),
            ("x -f --json", "argument -f/--follow: not allowed with --json"),
        ],
    )
    def test_a_mistake_is_told(self, words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
        """With the usage, on standard error, and with exit code 2; no value of the environment is shown."""
        with pytest.raises(SystemExit) as ended:
            wish(*words.split())
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("usage: dockertest run [options] IMAGE [options] [COMMAND ...]\n")
        assert told in err
        assert "secret" not in err

    @pytest.mark.parametrize("words", [["run", "-h"], ["run", "x", "-h"], ["-h"], ["doctor", "--help"]])
    def test_help_is_help(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Wherever it is asked for."""
        with pytest.raises(SystemExit) as ended:
            _parse(words, {})
        assert (ended.value.code, capsys.readouterr().out[:17]) == (0, "usage: dockertest")


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_told(capsys: pytest.CaptureFixture[str], word: str) -> None:
    """For a person."""
    assert main([word]) == 0
    assert capsys.readouterr().out.startswith("dockertest 0.")


def test_it_is_a_command() -> None:
    """Of the installed package."""
    (script,) = entry_points(group="console_scripts", name="dockertest")
    assert script.load() is main


@pytest.mark.parametrize("word", ["version", "--help"])
def test_a_closed_reader_ends_it_quietly(word: str) -> None:
    """As `dockertest version | true` may: nothing on standard error, and the exit code that shells know."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "dockertest", word],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_output_that_cannot_be_written_is_an_error() -> None:
    """One message, and no traceback."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "dockertest", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "dockertest: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain\ttext é 漢", "plain\ttext é 漢"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        ("50%\r100%\x08\x00", "50%100%"),
        ("\x1b(B\x1bM\x9b1m", "1m"),
    ],
)
def test_control_characters_are_left_out(line: str, shown: str) -> None:
    """Nothing that a file or a program would have to take apart; text stays."""
    assert plain(line) == shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.7, "1 min"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h"), (-3, "0 s")],
)
def test_a_length_of_time_has_two_units(seconds: float, words: str) -> None:
    """More would say nothing more."""
    assert span(seconds) == words


AT = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("image", "said", "url"),
    [
        ("postgres:15", {}, f"postgresql://postgres@{AT}/postgres"),
        (
            "corp:5000/a/postgres",
            {"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p@/"},
            f"postgresql://u:p%40%2F@{AT}/u",
        ),
        (
            "mysql:8",
            {"MYSQL_ROOT_PASSWORD": "r", "MYSQL_USER": "u", "MYSQL_PASSWORD": "p", "MYSQL_DATABASE": "d"},
            f"mysql://u:p@{AT}/d",
        ),
        ("mariadb", {"MARIADB_ROOT_PASSWORD": "r"}, f"mysql://root:r@{AT}/"),
        ("redis", {"requirepass": "p"}, f"redis://:p@{AT}/0"),
        ("rabbitmq", {}, f"amqp://guest:guest@{AT}"),
        ("rabbitmq:3", {"RABBITMQ_DEFAULT_VHOST": "/x"}, f"amqp://guest:guest@{AT}/%2Fx"),
        ("nats", {"user": "u", "pass": "p"}, f"nats://u:p@{AT}"),
        (
            "mongo:7",
            {"MONGO_INITDB_ROOT_USERNAME": "u", "MONGO_INITDB_ROOT_PASSWORD": "p"},
            f"mongodb://u:p@{AT}/?authSource=admin",
        ),
        ("elasticsearch:8.0.0", {"xpack.security.enabled": "false"}, f"http://{AT}"),
        ("minio/minio", {}, f"http://minioadmin:minioadmin@{AT}"),
        ("eclipse-mosquitto:2", {}, f"mqtt://{AT}"),
        ("memcached", {}, AT),
    ],
)
def test_how_to_connect_is_known(image: str, said: dict[str, str], url: str) -> None:
    """From the settings that the official images have, quoted as URLs need it."""
    service = _services.find(image, said)
    assert service is not None
    assert service.url(said, AT) == url


@pytest.mark.parametrize("image", ["busybox", "postgres-exporter", "elasticsearch:8.0.0", "postgres/tools"])
def test_what_is_not_known_is_not_guessed(image: str) -> None:
    """A name that only begins like a known one is another; so is a service that is set up otherwise."""
    assert _services.find(image, {}) is None


def test_settings_are_read_from_environment_and_command() -> None:
    """The environment has the image's own in it."""
    config = {
        "Env": ["A=b=c", "odd"],
        "Entrypoint": ["start"],
        "Cmd": ["redis-server", "--requirepass", "x", "-d"],
    }
    assert _services.settings({"Config": config}) == {"A": "b=c", "requirepass": "x"}
    assert _services.settings({"Config": {"Env": None, "Cmd": None}}) == {}


@contextmanager
def server(answer: bytes) -> Iterator[tuple[str, int]]:
    """Answer one connection with what a real server was documented, or seen, to say, and hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(0.2)
                with suppress(TimeoutError):  # some servers speak first
                    connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()
        thread.join()


def document(ok: float) -> bytes:
    """Give MongoDB's answer to a command."""
    body = b"\x01ok\0" + struct.pack("<d", ok)
    message = struct.pack("<iiiI", 7, 1, 2013, 0) + b"\0" + struct.pack("<i", len(body) + 5) + body + b"\0"
    return struct.pack("<i", len(message) + 4) + message


STARTING = b"E\0\0\0\x50SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
NO_ROLE = b"E\0\0\0\x50SFATAL\0VFATAL\0C28000\0Mrole does not exist\0\0"
WORDS: list[tuple[Any, bytes, bool]] = [
    (_probes.postgres, b"R\0\0\0\x08\0\0\0\0", True),
    (_probes.postgres, STARTING, False),
    (_probes.postgres, NO_ROLE, True),
    (_probes.mysql, b"\x4a\0\0\0\x0a8.0.36\0", True),
    (_probes.mysql, b"\x17\0\0\0\xff\x10\x04Too many connections", False),
    (_probes.redis, b"+PONG\r\n", True),
    (_probes.redis, b"-NOAUTH Authentication required.\r\n", True),
    (_probes.redis, b"-LOADING Redis is loading the dataset in memory\r\n", False),
    (_probes.amqp, b"\x01\0\0\0\0\x01\xf4\0\x0a\0\x0a\0\x09", True),
    (_probes.amqp, b"AMQP\0\0\x09\x01....", False),
    (_probes.memcached, b"VERSION 1.6.18\r\n", True),
    (_probes.nats, b'INFO {"server_id":"x"} \r\n', True),
    (_probes.zookeeper, b"Zookeeper version: 3.8.0\nMode: standalone\n", True),
    (_probes.zookeeper, b"This ZooKeeper instance is not currently serving requests\n", False),
    (_probes.mqtt, b"\x20\x02\0\0", True),
    (_probes.mqtt, b"\x20\x02\0\x05", True),
    (_probes.mqtt, b"\x20\x02\0\x03", False),
    (_probes.mongo, document(1.0), True),
    (_probes.mongo, document(0.0), False),
    (_probes.cassandra, b"\x84\0\0\0\x06\0\0\0\0", True),
    (_probes.cassandra, b"\x84\0\0\0\0\0\0\0\0", False),
    (_probes.http_get(), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True),
    (_probes.http_get(), b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
    (_probes.http_get("/health", accepted=(200,)), b"HTTP/1.1 404 Not Found\r\n\r\n", False),
]


@pytest.mark.parametrize(("probe", "answer", "is_ready"), WORDS)
def test_a_servers_word_says_whether_it_is_ready(probe: Probe, answer: bytes, is_ready: bool) -> None:
    """While it starts, a server says that it is not; one that asks for a password is."""
    with server(answer) as address:
        assert probe(address, {}) is is_ready


@pytest.mark.parametrize("service", _services.SERVICES, ids=lambda service: str(service.images[0]))
def test_a_connection_that_is_hung_up_is_no_answer(service: _services.Service) -> None:
    """That is what the engine's proxy does as long as nobody listens in the container."""
    with server(b"") as address:
        try:
            is_ready = service.is_serving(address, {})
        except Exception:  # noqa: BLE001 - whatever it is, it means not yet
            is_ready = False
    assert not is_ready
