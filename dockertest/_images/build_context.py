"""
The build context, and the archive that is sent to the engine.

The context contains the Dockerfile and the files that `.dockerignore` does not exclude.
"""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import IO

from dockertest import _image_name
from dockertest._options import BuildOptions
from dockertest.errors import ImageBuildError, InvalidOptionError

IGNORE_FILE = ".dockerignore"
_BLOCK = 1 << 18
# The instructions that can name an image, with their flags.
_INSTRUCTION = re.compile(
    r"^[ \t]*(ARG|FROM|COPY|RUN)[ \t]+((?:--\S+[ \t]+)*)(.*)", re.IGNORECASE | re.MULTILINE
)
_COMMENT = re.compile(r"^[ \t]*#.*\n?", re.MULTILINE)
_DIRECTIVE = r"\A(?:#.*\n)*?#[ \t]*{}[ \t]*=[ \t]*(\S+)"  # at the top of a Dockerfile
_ARGUMENT = re.compile(r"""(\w+)(?:=((?:"[^"]*"|'[^']*'|\S)*))?""")
_SOURCE = re.compile(r"\bfrom=([^\s,]+)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(:?[-+?]|)((?:[^{}]|\$\{[^{}]*\})*)\})")
_PATTERN_PART = re.compile(
    r"(?P<all>\*\*/?)|(?P<some>\*)|(?P<one>\?)|\[(?P<none>\^?)(?P<set>(?:\\.|[^]\\])+)\]|\\(?P<plain>.)|(?P<other>[^[\\])",
    re.DOTALL,
)
_FOLDERS, _ALL, _SOME, _ONE = "(?:.*/)?", ".*", "[^/]*", "[^/]"
_ENDING = re.compile(r"\*\*[^*?[\\/][^*?[\\]*")


@dataclass(frozen=True)
class Dockerfile:
    """
    The Dockerfile of a build.

    Attributes:
        context: The folder that the build sees.
        path: The Dockerfile, after links.
        link: The Dockerfile as the user named it.
        content: What is in it.
    """

    context: Path
    path: Path
    link: Path
    content: bytes

    @classmethod
    def read(cls, options: BuildOptions) -> Dockerfile:
        """
        Read the Dockerfile.

        A link is followed, as by the docker CLI. Its target may be outside of the context or ignored.

        Raises:
            ImageBuildError: A local file cannot be read.
        """
        context = Path(os.path.realpath(options.context_dir))
        link = options.parsed.dockerfile
        path = Path(os.path.realpath(link))
        try:
            return cls(context, path, link, path.read_bytes())
        except OSError as error:
            raise _unreadable(link, error) from error

    @property
    def is_inside(self) -> bool:
        """Whether the file is in the context."""
        return self.path.is_relative_to(self.context)

    @cached_property
    def name(self) -> str:
        """The file's name in the context; a new one if the file is outside of it."""
        if self.is_inside:
            return self.path.relative_to(self.context).as_posix()
        return f".dockerfile.{secrets.token_hex(20)}"

    @property
    def outer_link(self) -> str:
        """
        The name of the link, if it is in the context and leads out of it.

        Otherwise an empty string.
        """
        link = Path(os.path.realpath(self.link.parent)) / self.link.name
        if self.is_inside or not link.is_relative_to(self.context):
            return ""
        return link.relative_to(self.context).as_posix()

    @property
    def path_for_buildx(self) -> Path:
        """
        The path to pass to the docker CLI.

        A link that leads out of its own folder is replaced by its target, since the docker CLI does not follow such a
        link.
        """
        is_followed = self.path.is_relative_to(os.path.realpath(self.link.parent))
        return self.link if is_followed else self.path

    @property
    def ignore_file(self) -> Path:
        """
        The file with the patterns of ignored files.

        One beside the Dockerfile takes precedence over the one of the context, as for BuildKit.
        """
        own = Path(f"{self.path_for_buildx}{IGNORE_FILE}")
        return own if os.path.isfile(own) else self.context / IGNORE_FILE  # noqa: PTH113 - never raises

    def registries(self, arguments: Mapping[str, str]) -> set[str]:
        """
        Return the registries of the images that the Dockerfile names.

        Docker Hub is `""`. Images whose registries depend on more than *arguments*, the build arguments, are left out.
        """
        known: dict[str, str] = {}
        stages: set[str] = set()
        registries: set[str] = set()
        for instruction, flags, text in _INSTRUCTION.findall(self._joined_lines()):
            kind, words = instruction.upper(), text.split()
            if kind == "ARG" and not stages:  # later ones are not for names of images
                for name, default in (argument.groups() for argument in _ARGUMENT.finditer(text)):
                    if name in arguments:
                        known[name] = arguments[name]
                    elif default is not None:
                        known[name] = _expanded(default, known)
            elif kind == "FROM" and words:
                image = _expanded(words[0], known)
                registries |= _registry(image) if image.lower() not in stages else set()
                stages.add(words[2].lower() if len(words) > 2 else "")
            elif kind in ("COPY", "RUN"):
                for source in _SOURCE.findall(flags):
                    image = _expanded(source, known)
                    if image.lower() not in stages and not image.isdigit():
                        registries |= _registry(image)
        return registries

    def frontend_registry(self, arguments: Mapping[str, str]) -> set[str]:
        """
        Return the registry of the image that reads the Dockerfile for BuildKit.

        The result is empty if the Dockerfile names no such image.
        """
        directive = re.match(_DIRECTIVE.format("syntax"), self._text, re.IGNORECASE)
        image = arguments.get("BUILDKIT_SYNTAX") or (directive[1] if directive else "")
        return _registry(image.split()[0]) if image.strip() else set()

    @property
    def _text(self) -> str:
        return self.content.decode("utf-8-sig", "replace").replace("\r\n", "\n")

    def _joined_lines(self) -> str:
        """Return the text without comments, with each instruction in one line."""
        directive = re.match(_DIRECTIVE.format("escape"), self._text, re.IGNORECASE)
        escape = re.escape(directive[1] if directive else "\\")
        continuation = rf"(?<!{escape}){escape}[ \t]*\n(?:[ \t]*\n)*"
        return re.sub(continuation, "", _COMMENT.sub("", self._text))


def cache_registries(caches: Iterable[str]) -> set[str]:
    """Return the registries of the images in *caches*, the values of `--cache-from`."""
    registries: set[str] = set()
    for cache in caches:
        fields = dict(re.findall(r"(?:^|,)(\w+)=([^,]*)", cache))
        if fields.get("type", "registry") == "registry":
            registries |= _registry(fields.get("ref", "" if "type" in fields else cache))
    return registries


def _expanded(text: str, known: Mapping[str, str]) -> str:
    """
    Return a word of a Dockerfile with its variables replaced.

    An unknown variable is replaced by `$`.
    """

    def value(variable: re.Match[str]) -> str:
        name = variable[1] or variable[2]
        operator, word = variable[3] or "", variable[4] or ""
        is_set = name in known and bool(known[name] or not operator.startswith(":"))
        if operator.endswith("-") and not is_set:
            return _expanded(word, known)
        if operator.endswith("+"):
            return _expanded(word, known) if is_set else ""
        return known.get(name, "$") if operator or not word else "$"

    return _VARIABLE.sub(value, re.sub("[\"']", "", text))


def _registry(image: str) -> set[str]:
    """
    Return the registry in an image's name.

    The result is empty if the registry is unknown or the name invalid.
    """
    first, slash, _ = image.partition("/")
    known = f"{first}/image" if slash else re.split("[:@]", image)[0]
    if "$" in known or image.lower() == "scratch":
        return set()
    with suppress(InvalidOptionError):
        return {_image_name.parse_image_name("FROM", known).registry}
    return set()


@contextmanager
def packed(dockerfile: Dockerfile) -> Iterator[IO[bytes]]:
    """
    Provide the build context as a tar archive in a temporary file.

    The file exists until the end of the block.

    Raises:
        ImageBuildError: A local file cannot be read, or the archive cannot be written.
    """
    lines = read_ignore_file(dockerfile.ignore_file)
    always = {IGNORE_FILE, dockerfile.name}
    extra = {}
    left_out = {dockerfile.outer_link}  # Podman 4 rejects the archive if the link is relative.
    ignore_file = dockerfile.context / IGNORE_FILE
    if not dockerfile.is_inside or dockerfile.ignore_file != ignore_file:
        # The engine reads the Dockerfile from the context, and then removes from it what `.dockerignore` names.
        added = [] if ignore_file.is_file() else [IGNORE_FILE]
        if not dockerfile.is_inside:
            added.append(dockerfile.name)
            extra[dockerfile.name] = dockerfile.content
        extra[IGNORE_FILE] = os.fsencode("\n".join([*lines, *added]))
    paths = included(dockerfile.context, parse_rules(lines), always)
    with tempfile.TemporaryFile(prefix="dockertest-") as file:
        blocks = pack(
            dockerfile.context, (path for path in paths if path not in left_out | extra.keys()), extra
        )
        for block in blocks:
            try:
                file.write(block)
            except OSError as error:
                folder = tempfile.gettempdir()
                raise ImageBuildError(
                    f"cannot pack the build context {str(dockerfile.context)!r} in {folder}: {_strerror(error)}",
                    hint=f"free some space there, or leave files out with {IGNORE_FILE}",
                ) from error
        file.seek(0)
        yield file


def links_to_outside(dockerfile: Dockerfile) -> list[str]:
    """Return the relative links that lead out of the context, as `"link -> target"`."""
    links = []
    context, rules = dockerfile.context, parse_rules(read_ignore_file(dockerfile.ignore_file))
    for path in included(context, rules, {IGNORE_FILE}):
        if (context / path).is_symlink():
            target = os.fspath((context / path).readlink())
            if posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split("/")[0] == "..":
                links.append(f"{path} -> {target}")
    return links


def pack(context: Path, paths: Iterable[str], extra: Mapping[str, bytes]) -> Iterator[bytes]:
    """
    Yield a tar archive, block by block.

    Everything in it is owned by root, as in the docker CLI's archives.

    Args:
        context: The folder that contains the files.
        paths: The files and folders to pack, relative to *context*. Links are packed as links, sockets not at all.
        extra: More files, by their names.

    Raises:
        ImageBuildError: A file cannot be read.
    """
    for path in paths:
        try:
            yield from _pack_file(context / path, path)
        except OSError as error:
            raise _unreadable(context / path, error) from error
    for name, content in extra.items():
        yield _header(name, tarfile.REGTYPE, 0o644, size=len(content))
        yield content + _padding(len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _pack_file(path: Path, name: str) -> Iterator[bytes]:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode) if os.name != "nt" else 0o755  # Windows knows no executable bit
    if stat.S_ISREG(status.st_mode):
        # Neither a link nor a pipe that has taken the file's place since is followed or waited for.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(path, "rb", opener=lambda file, default: os.open(file, default | flags)) as file:
            size = os.fstat(file.fileno()).st_size
            yield _header(name, tarfile.REGTYPE, mode, size=size, mtime=status.st_mtime)
            yield from _content(file, size)
            yield _padding(size)
    elif stat.S_ISLNK(status.st_mode):
        yield _header(name, tarfile.SYMTYPE, 0o777, link=path.readlink().as_posix(), mtime=status.st_mtime)
    elif kind := _KINDS.get(stat.S_IFMT(status.st_mode)):
        yield _header(name, kind, mode, device=status.st_rdev, mtime=status.st_mtime)


_KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def _header(
    name: str, kind: bytes, mode: int, *, size: int = 0, link: str = "", device: int = 0, mtime: float = 0.0
) -> bytes:
    info = tarfile.TarInfo(_as_utf8(name))
    info.type, info.mode, info.size, info.mtime, info.linkname = kind, mode, size, int(mtime), _as_utf8(link)
    if device:
        info.devmajor, info.devminor = os.major(device), os.minor(device)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _as_utf8(name: str) -> str:
    """Return a name whose UTF-8 bytes are those on disk, in every locale."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _content(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the *size* bytes that the header announces, even if the file grows."""
    while size:
        block = file.read(min(size, _BLOCK))
        if not block:
            raise OSError(0, "the file became shorter while it was read")
        size -= len(block)
        yield block


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _unreadable(path: Path, error: OSError) -> ImageBuildError:
    return ImageBuildError(
        f"cannot read {os.fspath(path)!r} for the build: {_strerror(error)}",
        hint=f"correct its permissions, keep it unchanged during the build, or leave it out with {IGNORE_FILE}",
    )


def _strerror(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


@dataclass(frozen=True)
class Rule:
    """
    One line of `.dockerignore`.

    Attributes:
        path: The pattern in its shortest form, relative to the context.
        is_exception: Whether matching files are in the context after all.
        pattern: Matches whole paths.
    """

    path: str
    is_exception: bool
    pattern: re.Pattern[str]


def read_ignore_file(file: Path) -> list[str]:
    """
    Return the lines of a `.dockerignore`, which may be missing.

    Bytes that are not text are decoded like those in file names, so that both still match.

    Raises:
        ImageBuildError: The file cannot be read.
    """
    try:
        if not file.is_file():
            return []
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise _unreadable(file, error) from error
    return os.fsdecode(content).split("\n")


def parse_rules(lines: Iterable[str]) -> list[Rule]:
    """
    Return the rules in the lines of `.dockerignore`.

    Raises:
        ImageBuildError: A line is not a valid pattern.
    """
    return [_parse_rule(line.strip()) for line in lines if line.strip() and not line.startswith("#")]


def included(context: Path, rules: Sequence[Rule], always: set[str]) -> Iterator[str]:
    """
    Yield the paths of the included files and folders, relative to the context.

    Args:
        context: The folder to walk through.
        rules: The rules, of which the last that matches counts.
        always: Paths that no rule leaves out.

    Raises:
        ImageBuildError: A folder cannot be read.
    """
    # What is kept in a folder: a path, or the part of a pattern before its first wildcard.
    kept = [f"{path}/" for path in always]
    for rule in rules:
        if rule.is_exception:
            beginning = re.split(r"[*?[\\]", rule.path, maxsplit=1)[0]
            kept.append(beginning if beginning != rule.path else f"{rule.path}/")
    # A stack instead of recursion: folders may be nested deeper than Python's calls.
    stack = [(path, [False] * len(rules)) for path in _children(context, "")]
    while stack:
        path, parent_matches = stack.pop()
        # A rule that matches a folder matches everything in it.
        matches = [
            parent_match or bool(rule.pattern.fullmatch(path))
            for parent_match, rule in zip(parent_matches, rules, strict=True)
        ]
        deciding = next((rule for rule, match in zip(rules[::-1], matches[::-1], strict=True) if match), None)
        is_included = path in always or deciding is None or deciding.is_exception
        if is_included:
            yield path
        if is_included or any(name.startswith(f"{path}/") or f"{path}/".startswith(name) for name in kept):
            try:
                stack += [(child, matches) for child in _children(context, path)]
            except ImageBuildError as error:
                # What an exception could keep in a folder that is left out cannot be read either.
                if is_included or not isinstance(error.__cause__, PermissionError):
                    raise


def _children(context: Path, folder: str) -> list[str]:
    """Return the paths in a folder in reverse order, none if it is a file or a link."""
    path = context / folder
    try:
        if folder and not stat.S_ISDIR(path.lstat().st_mode):
            return []
        return sorted((posixpath.join(folder, name) for name in os.listdir(path)), reverse=True)  # noqa: PTH208
    except OSError as error:
        raise _unreadable(path, error) from error


def _parse_rule(line: str) -> Rule:
    is_exception = line.startswith("!")
    pattern = line[is_exception:].strip()
    path = posixpath.normpath(pattern)
    path = path.lstrip("/") or path
    expression = _join([_expression(part) for part in _PATTERN_PART.finditer(path)])
    if _ENDING.fullmatch(path):  # as in the docker CLI, "**x" matches every path that ends in "x"
        expression = f".*{re.escape(path[2:])}"
    try:
        if not pattern or "".join(part[0] for part in _PATTERN_PART.finditer(path)) != path:
            raise ValueError
        return Rule(path, is_exception, re.compile(expression, re.DOTALL))
    except (ValueError, re.error):
        raise ImageBuildError(
            f"invalid pattern {line!r} in {IGNORE_FILE}",
            hint=f"see the section on {IGNORE_FILE} at docs.docker.com",
        ) from None


def _join(parts: list[str]) -> str:
    """
    Join the parts into one regular expression that limits backtracking.

    Its running time does not grow exponentially with the number of stars. Between two stars, the first place where the
    text matches is as good as a later one, as the second star can match the difference. An atomic group prevents the
    expression from trying the later ones.
    """
    expression = ""
    while parts:
        part, *parts = parts
        text = list(takewhile(_is_one_character, parts))
        if part == _SOME and parts[len(text) : len(text) + 1] == [_SOME]:
            expression += f"(?>[^/]*?{''.join(text)})"
            parts = parts[len(text) :]
        elif part != _FOLDERS or not expression.endswith(_FOLDERS):
            expression += part
    return expression


def _is_one_character(part: str) -> bool:
    """Return whether a part matches one character that is not a slash."""
    return part == _ONE or (part[0] not in "[/" and part not in (_FOLDERS, _ALL))


def _expression(part: re.Match[str]) -> str:
    """Return the regular expression for a part of a pattern."""
    if part["all"]:
        return _ALL if part.end() == len(part.string) else _FOLDERS
    if part["some"]:
        return _SOME
    if part["one"]:
        return _ONE
    if part["set"]:
        characters = re.findall(r"\\.|.", part["set"], re.DOTALL)
        escaped = (character if character == "-" else re.escape(character[-1]) for character in characters)
        return f"[{part['none']}{''.join(escaped)}]"
    return re.escape(part["plain"] or part["other"])
