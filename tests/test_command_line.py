"""The command line without an engine: arguments and output."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from dockertest import PortBinding
from dockertest._cli.main import _parse, main
from dockertest._cli.run import RunRequest
from dockertest._cli.terminal import Console, Styled, format_duration


def parse(*words: str, **environ: str) -> RunRequest:
    """Parse the arguments of `run`."""
    request: RunRequest = _parse(["run", *words], environ).request
    return request


class TestRunArguments:
    """Options come before or after the image; the rest belongs to the command."""

    @pytest.mark.parametrize(
        "words",
        [
            "-e A=1 --for 2h --name pg postgres:15 postgres -c fsync=off",
            "postgres:15 -e A=1 --for 2h --name pg postgres -c fsync=off",
            "--name pg postgres:15 -e A=1 --for=2h -- postgres -c fsync=off",
        ],
    )
    def test_options_may_come_before_or_after_the_image(self, words: str) -> None:
        """Options within the command belong to the command."""
        request = parse(*words.split())
        assert (request.options.repository, request.options.name) == ("postgres:15", "pg")
        assert (request.options.env, request.seconds) == (("A=1",), 7200)
        assert request.options.cmd == ("postgres", "-c", "fsync=off")

    def test_options_before_and_after_the_image_are_combined(self) -> None:
        """No option is lost."""
        request = parse("-e", "A=1", "-f", "redis", "-e", "B=2", "-p", "80")
        assert (request.options.env, request.follow) == (("A=1", "B=2"), True)
        assert request.options.port_bindings == {"80/tcp": (PortBinding(),)}

    def test_a_command_that_begins_with_a_dash_follows_two_dashes(self) -> None:
        """Some images take only options as their command."""
        assert parse("nats", "--", "--jetstream", "-p", "1").options.cmd == ("--jetstream", "-p", "1")
        assert parse("git", "log", "--", "x").options.cmd == ("log", "--", "x")

    def test_a_variable_without_a_value_is_copied_from_the_environment(self) -> None:
        """This keeps passwords off the command line."""
        assert parse("postgres", "-e", "SECRET", SECRET="a=b").options.env == ("SECRET=a=b",)

    @pytest.mark.parametrize(
        ("text", "port", "binding"),
        [
            ("5432", "5432/tcp", PortBinding()),
            ("15432:5432", "5432/tcp", PortBinding(host_port="15432")),
            ("127.0.0.2:15432:5432", "5432/tcp", PortBinding("127.0.0.2", "15432")),
            ("[::1]::53/udp", "53/udp", PortBinding("::1", "")),
        ],
    )
    def test_ports_have_the_syntax_of_docker_run(self, text: str, port: str, binding: PortBinding) -> None:
        """All forms of `docker run -p` are accepted."""
        assert parse("-p", text, "x").options.port_bindings == {port: (binding,)}

    def test_ranges_of_ports_have_the_syntax_of_docker_run(self) -> None:
        """As many ports of the host as of the container, or one of several."""
        options = parse("-p", "9000-9001:7000-7001", "-p", "9100-9200:80", "-p", "53-54/udp", "x").options
        assert options.port_bindings == {
            "7000/tcp": (PortBinding("", "9000"),),
            "7001/tcp": (PortBinding("", "9001"),),
            "80/tcp": (PortBinding("", "9100-9200"),),
            "53/udp": (PortBinding(),),
            "54/udp": (PortBinding(),),
        }

    def test_limits_and_mounts_have_the_syntax_of_docker_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative source is a folder, as there."""
        monkeypatch.chdir(tmp_path)
        words = "--memory 512m --cpus 1.5 --gpus all -v data:/data -v ./here:/here:ro x --volume /a:/a"
        options = parse(*words.split()).options
        assert (options.memory, options.cpus, options.gpus) == (512 << 20, 1.5, "all")
        assert options.mounts == ("data:/data", f"{tmp_path}/here:/here:ro", "/a:/a")

    def test_a_file_of_variables_is_read_as_by_docker_run(self, tmp_path: Path) -> None:
        """
        Quotation marks belong to the value.

        A name alone is copied if it is set, and -e takes precedence.
        """
        path = tmp_path / "env"
        path.write_text(
            "\ufeff# comment\n\nA=1\r\n  B= x y \nC='q'\nSECRET\nUNSET\nD=a=b\nE=\nG=\f\x85\u2028g\n",
            encoding="utf-8",
            newline="",
        )
        options = parse("-e", "A=2", "--env-file", str(path), "x", "-e", "F=3", SECRET="s").options
        assert options.env == ("A=2", "B= x y ", "C='q'", "SECRET=s", "D=a=b", "E=", "G=\f\x85\u2028g", "F=3")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"A=1\n=hunter2\n", "line 2 of "),
            (b"A=1\nexport B=hunter2\n", "contains whitespace; write NAME=value, without export"),
            (b"B = hunter2\n", "contains whitespace"),
            (b"B hunter2\n", "contains whitespace"),
            (b"A=hunter2\0\n", "the value of 'A' contains a NUL character"),
            (b"A=hunter2\xff\n", "it is not utf-8 text"),
            (None, "no such file or directory"),
        ],
    )
    def test_an_invalid_file_of_variables_is_reported(
        self, content: "bytes | None", message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The message has the file and the line, but no value."""
        path = tmp_path / "env"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SystemExit):
            parse("--env-file", str(path), "x")
        errors = capsys.readouterr().err
        assert message in errors
        assert str(path) in errors
        assert "hunter2" not in errors

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("x --memory much", "memory: invalid size 'much'"),
            ("x --cpus 0", "cpus: invalid number of processors '0'"),
            ("x --gpus no", "gpus: invalid number of GPUs 'no'"),
            ("x -v data", "volume: invalid mount 'data'"),
            ("x -p 5-4", "port: invalid range of ports '5-4'"),
            ("x -p 1-2:80-82", "3 container ports need a range of as many host ports"),
            ("", "the following arguments are required: IMAGE"),
            ("Upper:1", "invalid image name 'Upper:1'"),
            ("x --unknown", "unrecognized arguments: --unknown"),
            ("x --for 0", "argument --for: time must be more than 0 seconds: got 0"),
            ("x --for soon", "invalid duration 'soon': expected seconds, or '90s'"),
            ("x -p http", "port: invalid port 'http'"),
            ("x -p a:1", "host_port: invalid host port 'a'"),
            ("x -e PASSWORD", "PASSWORD is not set in the environment; write PASSWORD=VALUE"),
            ("x -e =secret", "invalid name of a variable"),
            ("x --name ?", "invalid name '?'"),
            ("x --pull sometimes", "invalid choice: 'sometimes'"),
            ("x -d -f", "argument -f/--follow: not allowed with -d/--detach"),
            ("x -f --json", "argument -f/--follow: not allowed with --json"),
        ],
    )
    def test_an_invalid_argument_is_reported(
        self, words: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """
        The usage and the reason are printed to standard error; the exit code is 2.

        Values of the environment are not printed.
        """
        with pytest.raises(SystemExit) as ended:
            parse(*words.split())
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("usage: dockertest run [options] IMAGE [options] [COMMAND ...]\n")
        assert message in err
        assert "secret" not in err

    @pytest.mark.parametrize("words", [["run", "-h"], ["run", "x", "-h"], ["-h"], ["doctor", "--help"]])
    def test_help_is_accepted_anywhere(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """It may come before or after a command, and after the image."""
        with pytest.raises(SystemExit) as ended:
            _parse(words, {})
        assert (ended.value.code, capsys.readouterr().out[:17]) == (0, "usage: dockertest")


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version_is_printed(capsys: pytest.CaptureFixture[str], word: str) -> None:
    """It is available as a command and as an option."""
    assert main([word]) == 0
    assert capsys.readouterr().out.startswith("dockertest 0.")


def test_the_package_installs_the_command() -> None:
    """The entry point is `main`."""
    (script,) = entry_points(group="console_scripts", name="dockertest")
    assert script.load() is main


@pytest.mark.parametrize("word", ["version", "--help"])
def test_a_closed_pipe_ends_the_program_quietly(word: str) -> None:
    """
    `dockertest version | true` prints nothing to standard error.

    Its exit code is that of SIGPIPE.
    """
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


def test_a_full_disk_is_one_message() -> None:
    """A failure to write the output is reported without a traceback."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "dockertest", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "dockertest: [Errno 28] No space left on device\n")


def test_the_console_removes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and messages from an engine cannot break out of their line or column."""
    console = Console({})
    console.print("a\x1b[2J\nb", Styled("\x1b]0;title\x07c", "bold"))
    console.print_table(["NAME", "ID"], [["x\r\ny\x1b[1A", "1"]])
    console.print_json({"name": "\x9b1mé"})
    console.note("two\x1b[2J\nlines")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["a bc", "NAME  ID", "x y   1", '{"name": "\\u009b1m\\u00e9"}']
    assert err == "two\nlines\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.7, "1 min"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h"), (-3, "0 s")],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    """It is rounded to seconds first."""
    assert format_duration(seconds) == text
