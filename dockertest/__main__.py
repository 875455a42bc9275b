"""The command `dockertest`, also `python -m dockertest`: reads its arguments, and hands them on."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from dockertest import _validation as _specs
from dockertest._cleanup import inventory as _inventory
from dockertest._cli import doctor as _doctor
from dockertest._cli import run as _sandbox
from dockertest._cli.run import Wish
from dockertest._cli.terminal import Screen
from dockertest._options import RunOptions
from dockertest._pool import Pool
from dockertest._values import PortBinding
from dockertest.errors import DockertestError, InvalidOptionError

T = TypeVar("T")

# What a shell says of a program that was ended by SIGINT, or by SIGPIPE.
INTERRUPTED, READER_GONE = 130, 141

RUN_USAGE = "%(prog)s [options] IMAGE [options] [COMMAND ...]"
RUN_HELP = """\
start a container, wait until its service answers, say where it listens, and remove it on Ctrl-C

Options may stand before and behind IMAGE; all from the first word of COMMAND on is the command's. One that begins with
a dash stands behind two: dockertest run nats:2.9 -- --jetstream"""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say, and give the exit code: 0, 1 for an error, 2 for a wrong argument, 130 after Ctrl-C."""
    environ = os.environ
    screen = Screen(environ)
    try:
        try:
            args = _parse(sys.argv[1:] if argv is None else list(argv), environ)
        finally:
            screen.flush()  # the help, which may have no reader
        screen.as_json = args.json
        return int(args.act(args, screen))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return READER_GONE
    except (DockertestError, OSError) as error:
        screen.note(f"dockertest: {error}")
        return 1


def _forget_output() -> None:
    """Have what is still in Python's buffer go nowhere: else it would complain at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(argv: list[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Read the arguments; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="dockertest", description="Servers in containers, ready when they answer.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")

    def command(name: str, act: Callable[[argparse.Namespace, Screen], int], told: str) -> Any:
        made = commands.add_parser(name, help=told, description=told, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="write one line of JSON, for programs")
        made.set_defaults(act=act)
        return made

    run = commands.add_parser(
        "run",
        usage=RUN_USAGE,
        help=RUN_HELP.partition("\n")[0],
        description=RUN_HELP,
        parents=[_run_options(environ)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("image", metavar="IMAGE", help="such as postgres:15")
    words = run.add_argument(
        "words", metavar="COMMAND", nargs=argparse.REMAINDER, help="replaces the image's own"
    )
    words.required = False  # which is only for what is said when the image is missing
    run.set_defaults(act=_run)
    command("ps", _ps, "list the containers and networks that dockertest made on this engine")
    prune = command("prune", _prune, "remove what dead sessions left on this engine")
    prune.add_argument(
        "--reused", action="store_true", help="also the containers that this user keeps for reuse"
    )
    command("doctor", _examine, "see whether all that dockertest needs is there, and say what is not")
    command("version", _version, "tell the version")
    argv = ["version"] if argv == ["--version"] else argv  # as many programs have it
    # What stands behind two dashes is none of argparse's business: its versions differ in what they make of them.
    end = [*argv, "--"].index("--") if argv[:1] == ["run"] else len(argv)
    args = parser.parse_args(argv[:end])
    if args.command == "run":
        _finish_run(run, args, environ, argv[end:])
    return args


def _run_options(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Give the options of `run`, which stand before or behind the image."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = options.add_argument
    add("-e", "--env", metavar="K=V", action="append", default=[], type=_checked(_assignment(environ)),
        help="set a variable in the container; K alone takes it from the environment")  # fmt: skip
    add("-p", "--publish", metavar="[[IP:]PORT:]PORT", action="append", default=[], type=_checked(_binding),
        help="publish a port besides those that the image exposes, or one on a fixed port")  # fmt: skip
    add("--name", default="", type=_checked(lambda name: _specs.container_name("name", name)),
        help="the container's name")  # fmt: skip
    add("--for", metavar="TIME", dest="seconds", type=_checked(_time),
        help="remove it after 90s, 30m, 2h or 1d, even if this program is gone")  # fmt: skip
    add("--wait", metavar="TIME", default=60.0, type=_checked(_time),
        help="give up if it is not ready by then (60s)")  # fmt: skip
    add("--pull", choices=("missing", "always", "never"), default="missing", help="when to pull the image")
    add("-d", "--detach", action="store_true", help="leave it running, and end as soon as it is ready")
    add("-f", "--follow", action="store_true", help="show its log")
    add("--json", action="store_true", help="write one line of JSON, for programs")
    return options


def _finish_run(
    parser: argparse.ArgumentParser, args: argparse.Namespace, environ: Mapping[str, str], rest: Sequence[str]
) -> None:
    """Read the options behind the image, and make one value of it all."""
    behind = argparse.ArgumentParser(
        prog=parser.prog,
        usage=parser.usage,
        parents=[_run_options(environ)],
        add_help=False,
        allow_abbrev=False,
    )
    behind.add_argument("-h", "--help", action="store_true")
    behind.add_argument("cmd", nargs=argparse.REMAINDER)
    behind.parse_args(args.words, args)
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
            repository=args.image, env=args.env, cmd=cmd, name=args.name, port_bindings=bindings, pull=args.pull
        )  # fmt: skip
    except InvalidOptionError as error:
        parser.error(str(error))
    args.wish = Wish(
        options=options,
        max_wait=args.wait,
        seconds=args.seconds,
        detach=args.detach,
        follow=args.follow,
    )


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """Have argparse tell what our own checks say; it would else show the value, which may be a secret."""

    def checked(written: str) -> T:
        try:
            return read(written)
        except InvalidOptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _assignment(environ: Mapping[str, str]) -> Callable[[str], str]:
    def read(written: str) -> str:
        name, equals, _ = written.partition("=")
        if name and not equals and name not in environ:
            raise InvalidOptionError(f"{name} is not set in the environment; write {name}=VALUE")
        return _specs.environment("env", [written if equals or not name else f"{name}={environ[name]}"])[0]

    return read


def _binding(written: str) -> tuple[str, PortBinding]:
    before, _, port = written.rpartition(":")
    ip, _, host_port = before.rpartition(":")
    return _specs.container_port("port", port), PortBinding(host_ip=ip.strip("[]"), host_port=host_port)


def _time(written: str) -> float:
    found = _specs.duration("time", written)
    if not found:
        raise InvalidOptionError("time: it must be more than zero")
    return found


def _run(args: argparse.Namespace, screen: Screen) -> int:
    return _sandbox.run(args.wish, screen)


def _ps(_args: argparse.Namespace, screen: Screen) -> int:
    with Pool() as pool:
        return _inventory.ps(pool, screen)


def _prune(args: argparse.Namespace, screen: Screen) -> int:
    with Pool() as pool:
        return _inventory.prune(pool, screen, reused=args.reused)


def _examine(_args: argparse.Namespace, screen: Screen) -> int:
    return _doctor.examine(screen)


def _version(_args: argparse.Namespace, screen: Screen) -> int:
    from importlib.metadata import version

    versions = {
        "dockertest": version("dockertest-py"),
        "python": platform.python_version(),
        "docker SDK": version("docker"),
    }
    if screen.as_json:
        screen.data(versions)
    else:
        screen.say(", ".join(f"{name} {each}" for name, each in versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
