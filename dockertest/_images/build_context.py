"""What is written down for a build: the images that a Dockerfile names, and what `.dockerignore` leaves out."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dockertest import _image_name as _reference
from dockertest.errors import ImageBuildError, InvalidOptionError

IGNORE = ".dockerignore"
# What of a Dockerfile names an image: an argument for one, a stage's base, or where something is copied from.
_IMAGES = re.compile(
    r"^[ \t]*(?:ARG[ \t]+(\w+)(?:=(\S*))?"
    r"|FROM[ \t]+(?:--\S+[ \t]+)*([^\s-]\S*)(?:[ \t]+AS[ \t]+(\S+))?"
    r"|(?:COPY|RUN)[ \t].*?\bfrom=([^\s,]+))",
    re.IGNORECASE | re.MULTILINE,
)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
_TOKEN = re.compile(
    r"(?P<all>\*\*/?)|(?P<some>\*)|(?P<one>\?)|\[(?P<none>\^?)(?P<set>(?:\\.|[^]\\])+)\]|\\(?P<plain>.)|(?P<other>[^[\\])",
    re.DOTALL,
)
_ENDING = re.compile(r"\*\*[^*?[\\/][^*?[\\]*")


def registries(dockerfile: str, arguments: Mapping[str, str]) -> set[str]:
    """Give the registries of the images that a Dockerfile names, `""` for Docker Hub; not those that cannot be known."""
    known: dict[str, str] = {}
    stages = {"scratch"}
    found = set()
    for argument, default, base, stage, copied in _IMAGES.findall(dockerfile):
        if argument:
            known.setdefault(argument, arguments.get(argument, default.strip("\"'")))
            continue
        image = _VARIABLE.sub(lambda part: known.get(part[1] or part[3]) or part[2] or "$", base or copied)
        if image.lower() not in stages and not (copied and image.isdigit()):
            with suppress(InvalidOptionError):
                found.add(_reference.reference("FROM", image).registry)
        stages.add(stage.lower())
    return found


@dataclass(frozen=True)
class Rule:
    """
    One line of `.dockerignore`.

    Attributes:
        path: The pattern in its shortest form, relative to the context.
        takes_back: Whether what matches is in the context after all.
        matches: Matches whole paths.
    """

    path: str
    takes_back: bool
    matches: re.Pattern[str]


def lines(context: Path) -> list[str]:
    """Give the lines of `.dockerignore`, none if there is no such file; bytes that are no text stand as in names of files."""
    file = context / IGNORE
    return os.fsdecode(file.read_bytes().removeprefix(b"\xef\xbb\xbf")).split("\n") if file.is_file() else []


def rules(written: list[str]) -> list[Rule]:
    """Read the lines; `ImageBuildError` where one cannot be read."""
    return [_rule(line.strip()) for line in written if line.strip() and not line.startswith("#")]


def included(context: Path, rules: list[Rule], always: set[str]) -> Iterator[str]:
    """Give the paths of the context's files and folders, relative to it, that are not left out; *always* never are."""
    wanted = [*always, *(rule.path for rule in rules if rule.takes_back)]

    def walk(folder: str, above: list[bool]) -> Iterator[str]:
        for name in sorted(each.name for each in (context / folder).iterdir()):
            path = posixpath.join(folder, name)
            # What matches a folder matches all that is in it.
            matched = [
                had or bool(rule.matches.fullmatch(path)) for had, rule in zip(above, rules, strict=True)
            ]
            last = next(
                (rule for rule, does in zip(reversed(rules), reversed(matched), strict=True) if does), None
            )
            left_out = last is not None and not last.takes_back and path not in always
            if not left_out:
                yield path
            local = context / path
            entered = not left_out or any(f"{each}/".startswith(f"{path}/") for each in wanted)
            if entered and local.is_dir() and not local.is_symlink():
                yield from walk(path, matched)

    return walk("", [False] * len(rules))


def _rule(line: str) -> Rule:
    takes_back = line.startswith("!")
    pattern = line[takes_back:].strip()
    path = posixpath.normpath(pattern)
    path = path.lstrip("/") or path
    expression = "".join(map(_expression, _TOKEN.finditer(path)))
    if _ENDING.fullmatch(path):  # a quirk of the docker command line: "**x" is whatever ends in "x"
        expression = f".*{re.escape(path[2:])}"
    try:
        if not pattern or "".join(found[0] for found in _TOKEN.finditer(path)) != path:
            raise ValueError
        return Rule(path, takes_back, re.compile(expression, re.DOTALL))
    except (ValueError, re.error):
        raise ImageBuildError(
            f"{IGNORE}: {line!r} is no pattern; see docs.docker.com about {IGNORE}"
        ) from None


def _expression(found: re.Match[str]) -> str:
    if found["all"]:
        return ".*" if found.end() == len(found.string) else "(?:.*/)?"
    if found["some"]:
        return "[^/]*"
    if found["one"]:
        return "[^/]"
    if found["set"]:
        characters = re.findall(r"\\.|.", found["set"], re.DOTALL)
        return (
            f"[{found['none']}{''.join(each if each == '-' else re.escape(each[-1]) for each in characters)}]"
        )
    return re.escape(found["plain"] or found["other"])
