"""The command's arguments, and its exit code."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dockertest import (
    DockertestError,
    InvalidOptionError,
    PortBinding,
    RunOptions,
    __version__,
    _settings,
    _validation,
)
from dockertest._cli import doctor, inventory
from dockertest._cli import run as run_command
from dockertest._cli.run import RunRequest
from dockertest._cli.terminal import Console

T = TypeVar("T")

# The exit codes that a shell reports for a program ended by SIGINT or SIGPIPE.
INTERRUPTED, READER_GONE = 130, 141

RUN_USAGE = "%(prog)s [options] IMAGE [options] [COMMAND ...]"
RUN_HELP = """\
start a container, wait until its service answers, print where it listens, and remove it on Ctrl-C

Options may come before or after IMAGE. Everything from the first word of COMMAND on belongs to the command. If that word
begins with a dash, separate it with two dashes: dockertest run nats:2.9 -- --jetstream"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: The arguments; those of this process by default.

    Returns:
        The exit code: 0; 1 for an error; 2 for an invalid argument; 130 after Ctrl-C; 141 if the reader of the output is
        gone.
    """
    environ = os.environ
    console = Console(environ)
    try:
        try:
            args = _parse(sys.argv[1:] if argv is None else list(argv), environ)
        finally:
            console.flush()  # The help, whose reader may be gone.
        console.as_json = args.json
        return int(args.act(args, console))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except (DockertestError, OSError) as error:
        console.note(f"dockertest: {error}")
        return 1


def _discard_output() -> None:
    """
    Discard the rest of Python's output buffer.

    Otherwise the interpreter reports an error when it ends.
    """
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(argv: list[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Parse the arguments; an invalid one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="dockertest", description="Servers in containers, ready to use.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")

    def command(name: str, act: Callable[[argparse.Namespace, Console], int], description: str) -> Any:
        subparser = commands.add_parser(name, help=description, description=description, allow_abbrev=False)
        subparser.add_argument("--json", action="store_true", help="print one line of JSON, for programs")
        subparser.set_defaults(act=act)
        return subparser

    run = commands.add_parser(
        "run",
        usage=RUN_USAGE,
        help=RUN_HELP.partition("\n")[0],
        description=RUN_HELP,
        parents=[_run_options(environ)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("image", metavar="IMAGE", help="for example postgres:15")
    words = run.add_argument(
        "words", metavar="COMMAND", nargs=argparse.REMAINDER, help="replaces the command of the image"
    )
    words.required = False  # Otherwise COMMAND is listed as missing along with IMAGE.
    run.set_defaults(act=_run)
    command(
        "ps",
        _ps,
        "list the containers, networks, volumes and prepared images that dockertest has made on this engine",
    )
    prune = command("prune", _prune, "remove what dead sessions have left on this engine")
    prune.add_argument(
        "--reused", action="store_true", help="also remove the containers that this user keeps for reuse"
    )
    prune.add_argument(
        "--prepared",
        action="store_true",
        help="also remove the prepared images of this user that are not in use",
    )
    command("doctor", _doctor, "check whether dockertest works here, and report problems")
    command("version", _version, "print the version")
    argv = ["version"] if argv == ["--version"] else argv
    # Versions of argparse differ in how they treat "--", so it never sees one.
    end = [*argv, "--"].index("--") if argv[:1] == ["run"] else len(argv)
    args = parser.parse_args(argv[:end])
    if args.command == "run":
        _finish_run(run, args, environ, argv[end:])
    return args


def _run_options(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """
    Return a parser of the options of `run`.

    The options may come before or after the image.
    """
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = options.add_argument
    add("-e", "--env", metavar="K=V", action="append", default=[], type=_argument(_assignment(environ)),
        help="set a variable in the container; K alone copies it from the environment")  # fmt: skip
    add("--env-file", metavar="FILE", action="extend", default=[], type=_argument(_env_file(environ)),
        help="set the variables in a file of K=V lines; -e takes precedence")  # fmt: skip
    add("-p", "--publish", metavar="[[IP:]PORT:]PORT", action="append", default=[], type=_argument(_binding),
        help="publish a port that the image does not expose, or use a fixed port of the host; also ranges")  # fmt: skip
    add("-v", "--volume", metavar="SOURCE:TARGET[:ro]", action="append", default=[], type=_argument(_mount),
        help="mount a folder of the engine's host, or a volume by its name")  # fmt: skip
    add("--memory", metavar="SIZE", type=_argument(lambda size: _validation.parse_size("memory", size)),
        help="the most memory that the container may use, such as 512m")  # fmt: skip
    add("--cpus", metavar="NUMBER", type=_argument(lambda number: _validation.parse_cpus("cpus", number)),
        help="how many processors the container may use, such as 1.5")  # fmt: skip
    add("--gpus", metavar="NUMBER", type=_argument(lambda number: _validation.parse_gpus("gpus", number)),
        help="how many GPUs the container can use, or all")  # fmt: skip
    add("--name", default="", type=_argument(lambda name: _validation.parse_name("name", name)),
        help="the name of the container")  # fmt: skip
    add("--for", metavar="TIME", dest="seconds", type=_argument(_duration),
        help="remove the container after this time, such as 90s, 30m, 2h or 1d, even if this program is killed")  # fmt: skip
    add("--wait", metavar="TIME", default=60.0, type=_argument(_duration),
        help="give up if the service is not ready by then (default: 60s)")  # fmt: skip
    add("--pull", choices=("missing", "always", "never"), default="missing", help="when to pull the image")
    add("-d", "--detach", action="store_true",
        help="leave the container running, and exit as soon as it is ready")  # fmt: skip
    add("-f", "--follow", action="store_true", help="print the log of the container")
    add("--json", action="store_true", help="print one line of JSON, for programs")
    return options


def _finish_run(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    environ: Mapping[str, str],
    rest: Sequence[str],
) -> None:
    """Parse the options after the image, and store all arguments as a `RunRequest`."""
    after_image = argparse.ArgumentParser(
        prog=parser.prog,
        usage=parser.usage,
        parents=[_run_options(environ)],
        add_help=False,
        allow_abbrev=False,
    )
    after_image.add_argument("-h", "--help", action="store_true")
    after_image.add_argument("cmd", nargs=argparse.REMAINDER)
    after_image.parse_args(args.words, args)
    if args.help:
        parser.print_help()
        parser.exit()
    if args.follow and (args.detach or args.json):
        parser.error(f"argument -f/--follow: not allowed with {'-d/--detach' if args.detach else '--json'}")
    cmd = [*args.cmd, *(rest if args.cmd else rest[1:])]
    bindings: dict[str, list[PortBinding]] = {}
    for port, binding in args.publish:
        bindings.setdefault(port, []).append(binding)
    try:
        options = RunOptions(
            repository=args.image, env=_merged(args.env_file, args.env), cmd=cmd, name=args.name, port_bindings=bindings,
            pull=args.pull, mounts=args.volume, memory=args.memory, cpus=args.cpus, gpus=args.gpus,
        )  # fmt: skip
    except InvalidOptionError as error:
        parser.error(str(error))
    args.request = RunRequest(
        options=options,
        max_wait=args.wait,
        seconds=args.seconds,
        detach=args.detach,
        follow=args.follow,
    )


def _argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """
    Wrap *parse* so that argparse prints the error instead of the value.

    The value may be a secret.
    """

    def parse_argument(value: str) -> T:
        try:
            return parse(value)
        except InvalidOptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _assignment(environ: Mapping[str, str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        name, equals, _ = value.partition("=")
        if name and not equals:
            if name not in environ:
                raise InvalidOptionError(f"{name} is not set in the environment", hint=f"write {name}=VALUE")
            value = f"{name}={environ[name]}"
        return _validation.parse_environment("env", [value])[0]

    return parse


def _env_file(environ: Mapping[str, str]) -> Callable[[str], list[str]]:
    def parse(path: str) -> list[str]:
        """
        Return the variables in a file, which is read as by docker run.

        Quotation marks are part of a value, and the file may have lines of comments.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidOptionError(f"cannot read {path!r}: {str(reason).lower()}") from None
        assignments: list[str] = []
        for number, line in enumerate(lines, 1):
            stripped = line.removesuffix("\r").lstrip()
            name, equals, _ = stripped.partition("=")
            if not stripped or stripped.startswith("#"):
                continue
            if any(map(str.isspace, name)):
                raise InvalidOptionError(
                    f"line {number} of {path!r}: the name of a variable contains whitespace",
                    hint="write NAME=value, without export and without spaces around the equals sign",
                )
            if not equals and name not in environ:
                continue  # docker run ignores a variable that is not set, too
            value = stripped if equals else f"{name}={environ[name]}"
            try:
                assignments += _validation.parse_environment("env", [value])
            except InvalidOptionError as error:
                raise InvalidOptionError(f"line {number} of {path!r}: {error}") from None
        return assignments

    return parse


def _merged(*environments: Sequence[str]) -> list[str]:
    """Return the last value of each variable."""
    return list({one.partition("=")[0]: one for environment in environments for one in environment}.values())


def _binding(value: str) -> tuple[str, PortBinding]:
    before, _, port = value.rpartition(":")
    ip, _, host_port = before.rpartition(":")
    ports = _validation.parse_port_range("port", port)
    return port if len(ports) != 1 else ports[0], PortBinding(host_ip=ip.strip("[]"), host_port=host_port)


def _mount(value: str) -> str:
    source, colon, rest = value.partition(":")
    if source.startswith("."):  # as with docker run
        source = os.path.abspath(source)  # noqa: PTH100 - without following links
    return str(_validation.parse_mount("volume", source + colon + rest))


def _duration(value: str) -> float:
    seconds = _validation.parse_duration("time", value)
    if not seconds:
        raise InvalidOptionError("time must be more than 0 seconds: got 0")
    return seconds


def _run(args: argparse.Namespace, console: Console) -> int:
    return run_command.run(args.request, console, _settings.parse_endpoints(os.environ))


def _ps(_args: argparse.Namespace, console: Console) -> int:
    endpoints = _settings.parse_endpoints(os.environ)
    with inventory.open_pools(endpoints, console) as pools:
        code = inventory.list_items(pools, console, several=bool(endpoints))
        return code if len(pools) >= len(endpoints) else 1


def _prune(args: argparse.Namespace, console: Console) -> int:
    endpoints = _settings.parse_endpoints(os.environ)
    with inventory.open_pools(endpoints, console) as pools:
        code = inventory.prune(pools, console, reused=args.reused, prepared=args.prepared)
        return code if len(pools) >= len(endpoints) else 1


def _doctor(_args: argparse.Namespace, console: Console) -> int:
    return doctor.examine(console, _settings.parse_endpoints(os.environ))


def _version(_args: argparse.Namespace, console: Console) -> int:
    from importlib.metadata import version

    versions = {
        "dockertest": __version__,
        "python": platform.python_version(),
        "docker SDK": version("docker"),
    }
    if console.as_json:
        console.print_json(versions)
    else:
        console.print(", ".join(f"{name} {number}" for name, number in versions.items()))
    return 0
