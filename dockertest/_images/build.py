"""
Build an image from a Dockerfile.

Version 1 uses the engine's classic builder, version 2 uses BuildKit through `docker buildx`.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from dockertest import _report
from dockertest._cleanup.reaper import Records
from dockertest._engine import docker_cli
from dockertest._engine import sdk as _sdk
from dockertest._engine.client import EngineClient
from dockertest._engine.streams import EVIDENCE_LINES
from dockertest._image_name import ImageName
from dockertest._images import build_context as _build_context
from dockertest._images import credentials as _credentials
from dockertest._images.build_context import Dockerfile
from dockertest._images.cli_config import PROXY_VARIABLES
from dockertest._images.credentials import Credentials
from dockertest._images.process import run_program
from dockertest._options import AuthConfig, BuildOptions
from dockertest._secret import SecretDict, SecretStr
from dockertest._settings import state_folder
from dockertest._validation import Content
from dockertest.errors import DockertestError, DockerUnavailableError, ImageBuildError, InvalidOptionError

log = logging.getLogger("dockertest")

SILENCE_SECONDS = 1800.0  # that one step of a build may print nothing, on top of the engine's own timeout
_MAX_LINE = 1 << 16  # characters; the rest of a longer line counts as another line
_SHORTEST_SECRET = 4  # characters; a shorter value is part of too many words to be hidden, and no secret
_BUILDS = 10  # including the repeated ones
# When another client removes an image that the build has found in the cache: Podman 4, then Docker's classic builder.
_OTHER_REMOVED = re.compile(
    "layer not known|[0-9a-f]{64}: image not known"
    r"|failed to get digest sha256:\w+: .*no such file|unknown parent image ID sha256:"
    '|[Nn]o such image: sha256:|unable to find image "sha256:'
)
_GET_BUILDX = "install docker-buildx-plugin (Debian: docker-buildx), or use version='1'"
# Podman 4, without a reason, about a relative link that leads out of the build context.
_NO_REASON = "Internal Server Error"
_OUTER_LINKS = (
    "Podman 4 rejects links that lead out of the build context; leave these out with .dockerignore: "
)
_NEEDS_BUILDKIT = "the Dockerfile needs BuildKit; set version='2' in BuildOptions"
# The classic builder's words for what only BuildKit can do: flags, platforms of the build, here-documents.
_ONLY_BUILDKIT = re.compile(
    "requires BuildKit"
    r"|Unknown flag: (?:--)?(?:mount|network|security|link|chmod|parents|exclude|checksum|keep-git-dir|start-interval)\b"
    "|failed to parse platform : ",
    re.IGNORECASE,
)
_HERE_DOCUMENT = re.compile(rb"^[ \t]*(?:RUN|COPY|ADD)\b.*<<-?[\"']?\w", re.IGNORECASE | re.MULTILINE)
# The docker CLI itself obeys these variables, so that a build argument of such a name would affect more than the build.
_CLI_VARIABLES = re.compile(
    "DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS|TLS_VERIFY|API_VERSION|AUTH_CONFIG|CUSTOM_HEADERS|DEFAULT_PLATFORM)"
    "|BUILDX_.*|LD_.*|DYLD_.*|PATH|HOME"
)


def build(
    engine: EngineClient,
    options: BuildOptions,
    name: ImageName,
    credentials: Credentials,
    environ: Mapping[str, str],
    labels: Mapping[str, str],
) -> str:
    """
    Build an image, name it *name*, and return its id.

    The id is returned because the name may soon refer to another image.

    Args:
        engine: The engine that builds.
        options: What to build.
        name: The image's name.
        credentials: The registry credentials if *options* has none.
        environ: The environment that the docker CLI is started with, for version 2.
        labels: Our own labels, in addition to the user's. They are the image's last step, so that cached steps are used.

    Raises:
        ImageBuildError: The build failed; the message ends with its last lines of output.
        InvalidOptionError: An option cannot work with this builder or this Dockerfile.
    """
    log.info("building %s from %s", name, options.context_dir)
    one = _Build(engine, options, name, credentials, environ, labels)
    image = one.with_buildx() if options.version == "2" else one.classic()
    log.info("built %s: %s", name, image)
    return image


class _Output:
    """
    The output of a builder, without secrets.

    Each line is logged, and the last lines are kept as evidence for an error. The values of build arguments, proxies
    and build secrets are masked.
    """

    def __init__(self, name: ImageName, secrets: Sequence[str]) -> None:
        self._name = name
        # Builders print values line by line.
        parts = {part.strip() for value in secrets for part in (value, *value.splitlines())}
        parts = {part for part in parts if len(part) >= _SHORTEST_SECRET}
        self._secrets = [SecretStr(part) for part in sorted(parts, key=len, reverse=True)]
        self._lines: deque[str] = deque(maxlen=EVIDENCE_LINES)
        self._unfinished = ""

    def add(self, text: str) -> None:
        """
        Add output, which need not end with a whole line.

        A line is logged when it is complete, because secrets can only be recognized in a complete line. A line that is
        too long is logged in parts.
        """
        text = self._unfinished + text
        *lines, self._unfinished = text.replace("\r", "\n").split("\n")
        for line in lines:
            self._log(line)
        if len(self._unfinished) > _MAX_LINE:
            line = self.mask(self._unfinished)
            self._log(line[: -_MAX_LINE // 2])
            self._unfinished = line[-_MAX_LINE // 2 :]  # it may end with the beginning of a secret

    def mask(self, text: str) -> str:
        """Return the text without the values of build arguments."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def evidence(self) -> str:
        """Return the last lines, to follow the message of an error."""
        self.add("\n")
        return _report.indented("\n".join(self._lines))

    def _log(self, line: str) -> None:
        # Masked twice: a secret may contain escape sequences, and escape sequences may be inside of a secret.
        if line := self.mask(_report.clean(self.mask(line), newline=" ")).rstrip():
            self._lines.append(line)
            log.info("%s: %s", self._name, line)


class _Build:
    """One build; its methods are the two builders."""

    def __init__(
        self,
        engine: EngineClient,
        options: BuildOptions,
        name: ImageName,
        credentials: Credentials,
        environ: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._options = options
        self._name = name
        self._credentials = credentials
        self._environ = environ
        self._labels = {**options.labels, **labels}
        self._arguments = SecretDict[str](
            {argument.name: argument.value for argument in options.parsed.build_args}
        )
        self._configured_proxies = credentials.config.proxies(docker_cli.daemon_host(engine))
        self._dockerfile = Dockerfile.read(options)
        self._secrets = _read_secrets(options)
        contents = (content.decode("utf-8", "replace") for content in self._secrets.values())
        self._output = _Output(
            name, [*self._configured_proxies.values(), *self._arguments.values(), *contents]
        )

    def classic(self) -> str:
        """
        Build with the engine's classic builder, and return the image's id.

        A build that failed only because another client removed an image is repeated.
        """
        for _ in range(_BUILDS - 1):
            try:
                return self._classic_once()
            except ImageBuildError as error:
                reason, *_ = str(error).splitlines()  # The build's own output follows.
                if not _OTHER_REMOVED.search(reason):
                    raise
                log.info("building %s again: another image was removed during the build", self._name)
        return self._classic_once()

    def _classic_once(self) -> str:
        image = ""
        failure: DockertestError | None = None
        auths = self._auths()
        with _build_context.packed(self._dockerfile) as context:
            try:
                with _sdk.suppress_request_log(), closing(self._messages(context, auths)) as messages:
                    for message in messages:
                        self._output.add(_text(message))
                        image = str(_mapping(message.get("aux")).get("ID") or image)
                        if "error" in message:
                            words = str(_detail(message))
                            failure = self._failure(words, hint=self._hint(words))
                            break
            except DockerUnavailableError as error:
                failure = DockerUnavailableError(str(error.args[0]), hint=error.hint, reason=error.reason)
            except DockertestError as error:
                failure = self._failed(str(error.args[0]), error.hint or self._hint(str(error.args[0])))
        if failure:
            # Without the transport's own error, which contains the URL, and that the values of the build arguments.
            raise failure
        if not image:
            raise self._failure("the engine did not report the id of the image")
        return image

    def _messages(
        self, context: object, auths: Mapping[str, AuthConfig]
    ) -> Generator[Mapping[str, Any], None, None]:
        what = f"build image {str(self._name)!r}"
        response = self._engine.send(
            "post",
            "/build",
            what=what,
            params=self._parameters(),
            body=context,
            # With an empty header, Podman would not use the logins of `podman login`.
            headers={
                "Content-Type": "application/x-tar",
                **({"X-Registry-Config": _credentials.build_header(auths)} if auths else {}),
            },
            stream=True,
            extra_timeout=SILENCE_SECONDS,
            error=ImageBuildError,
        )
        with response:
            yield from map(_mapping, self._engine.messages(response, what, extra_timeout=SILENCE_SECONDS))

    def _parameters(self) -> dict[str, object]:
        options = self._options
        parameters: dict[str, object] = {
            "t": str(self._name),
            "dockerfile": self._dockerfile.name,
            "rm": 1,
            "forcerm": 1,
            "nocache": int(options.no_cache),
            "buildargs": SecretStr(json.dumps(self._proxy_arguments() | self._arguments)),
            "labels": json.dumps(self._labels),
            "target": options.target,
            "platform": options.platform,
        }
        return {key: value for key, value in parameters.items() if value}

    def _proxies(self) -> SecretDict[str]:
        """
        Return the proxies by their keys in the docker CLI's configuration.

        Build arguments take precedence.
        """
        proxies = SecretDict(self._configured_proxies)
        for key, name in PROXY_VARIABLES.items():
            for variant in (name, name.lower()):
                if variant in self._arguments:
                    proxies[key] = self._arguments[variant]
        return proxies

    def _proxy_arguments(self) -> dict[str, str]:
        """
        Return the build arguments for the configured proxies.

        Each name is set in upper case and in lower case, as by the docker CLI.
        """
        proxies = self._proxies()
        names = {key: PROXY_VARIABLES[key] for key in self._configured_proxies}
        return {variant: proxies[key] for key, name in names.items() for variant in (name, name.lower())}

    def _auths(self) -> dict[str, AuthConfig]:
        """Return the credentials for all images that the build needs, by server."""
        options = self._options
        more = set[str]()
        if options.version == "2":
            more = self._dockerfile.frontend_registry(self._arguments)
            more |= _build_context.cache_registries(options.parsed.cache_from)
        return self._credentials.for_build(
            self._dockerfile.registries(self._arguments), options.auth, more=more
        )

    def with_buildx(self) -> str:
        """Build with BuildKit through the docker CLI, and return the image's id."""
        docker = shutil.which("docker", path=self._environ.get("PATH"))
        if not docker:
            raise self._failure(
                "version='2' needs the docker CLI, which was not found on PATH", hint=_GET_BUILDX
            )
        with Records(state_folder(self._environ)).temporary_folder() as folder:
            id_file = folder / "iid"
            environ = self._cli_environ(folder)
            # The default builder is the engine's own; the user may have chosen another one for other work.
            command = [docker, "buildx", "build", "--builder", "default", "--load", "--progress", "plain"]
            command += ["--iidfile", str(id_file), "--tag", str(self._name)]
            command += [*self._cli_secrets(folder), *self._cli_arguments()]
            problem, exit_code = "", 0
            try:
                exit_code = self._run(command, environ)
                if not (exit_code == 0 and id_file.is_file()) and not _has_buildx(docker, environ):
                    raise self._failure("version='2' needs the docker CLI's plugin buildx", hint=_GET_BUILDX)
            except OSError as error:
                problem = f"{docker} cannot be started: {str(error.strerror).lower()}"
            if problem:  # raised here, without an error whose frames have the environment in their variables
                raise self._failure(problem)
            if exit_code:
                raise self._failure(
                    f"`docker buildx build` failed with exit code {exit_code}", hint=self._cli_hint()
                )
            if not id_file.is_file():  # where SIGCHLD is ignored, the exit code is lost
                raise self._failure("`docker buildx build` failed")
            return id_file.read_text(encoding="ascii").strip()

    def _run(self, command: list[str], environ: Mapping[str, str]) -> int:
        """Run the docker CLI, and return its exit code."""
        silence = SILENCE_SECONDS + self._engine.timeout
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def add(data: bytes) -> None:
            self._output.add(decoder.decode(data))

        try:
            return run_program(command, environ, add, merge_stderr=True, silence=silence)
        except subprocess.TimeoutExpired:
            raise self._failure(f"`docker buildx build` printed nothing for {silence:g} s") from None

    def _cli_arguments(self) -> list[str]:
        """
        Return the command's arguments, with only the names of build arguments.

        The values of build arguments are passed in the environment.
        """
        options = self._options
        # Absolute paths cannot be taken for anything else, such as a URL or standard input.
        context = options.parsed.context_dir
        arguments = ["--file", str(self._dockerfile.path_for_buildx)]
        for name in self._cli_arguments_by_name():
            arguments += ["--build-arg", name]
        for key, value in self._labels.items():
            arguments += ["--label", f"{key}={value}"]
        arguments += ["--target", options.target] if options.target else []
        arguments += ["--platform", options.platform] if options.platform else []
        arguments += ["--no-cache"] if options.no_cache else []
        for cache in options.parsed.cache_from:
            arguments += ["--cache-from", cache]
        return [*arguments, "--", str(context)]

    def _cli_secrets(self, folder: Path) -> list[str]:
        """
        Write the secrets to files, and return the arguments that name the files.

        The files are in *folder*, which only this user can read.
        """
        arguments = []
        for number, (name, content) in enumerate(self._secrets.items()):
            file = folder / f"secret-{number}"
            file.touch(mode=0o600)
            file.write_bytes(content)
            arguments += ["--secret", f"id={name},src={file}"]
        return arguments

    def _cli_environ(self, folder: Path) -> SecretDict[str]:
        """
        Return the environment of the docker CLI.

        It selects the pool's engine, contains the build arguments without proxies, and names a configuration that is
        written to *folder*.
        """
        for name in self._arguments:
            if _CLI_VARIABLES.fullmatch(name):
                raise InvalidOptionError(
                    f"invalid build_args: the docker CLI itself obeys the variable {name!r}",
                    hint="use version='1'",
                )
        environ = SecretDict(self._environ)
        for name in self._environ:
            if name.startswith(("DOCKER_", "BUILDX_")):
                del environ[name]
        environ |= docker_cli.endpoint_variables(self._engine, self._environ, folder)
        self._write_config(folder / "config.json")
        environ["DOCKER_CONFIG"] = str(folder)
        environ |= self._cli_arguments_by_name()
        return environ

    def _cli_arguments_by_name(self) -> dict[str, str]:
        """
        Return the build arguments without proxies.

        Proxies would affect the docker CLI's own connections.
        """
        names = PROXY_VARIABLES.values()
        return {name: value for name, value in self._arguments.items() if name.upper() not in names}

    def _cli_hint(self) -> str:
        """Return a hint if the docker CLI does not send requests as the client does."""
        problem = self._engine.address_obstacle()
        if headers := (self._engine.address() or {}).get("headers"):
            problem = f"it adds headers ({', '.join(headers)})"
        has_transport = self._engine.endpoint.url.startswith(("ssh:", "npipe:"))
        if not problem or has_transport:
            return ""
        return f"`docker buildx` does not send requests as the client does: {problem}; use version='1' if the engine needs that"

    def _write_config(self, file: Path) -> None:
        entries = {server: _credentials.config_entry(auth) for server, auth in self._auths().items()}
        proxies = {"default": self._proxies()}  # BuildKit does not distinguish upper from lower case
        config = SecretDict(self._credentials.config.for_buildx() | {"auths": entries, "proxies": proxies})
        file.touch(mode=0o600)
        file.write_text(json.dumps(config), encoding="utf-8")

    def _hint(self, words: str) -> str:
        """Return what to do about an error of the classic builder."""
        if self._engine.is_podman and words.endswith(_NO_REASON):
            links = _build_context.links_to_outside(self._dockerfile)
            return _OUTER_LINKS + ", ".join(links) if links else ""
        # Docker 20 takes the lines of the document for instructions; later ones overlook it.
        is_not_understood = re.search(
            "unknown instruction|no source files were specified", words, re.IGNORECASE
        )
        has_here_document = is_not_understood and _HERE_DOCUMENT.search(self._dockerfile.content)
        return _NEEDS_BUILDKIT if has_here_document or _ONLY_BUILDKIT.search(words) else ""

    def _failure(self, why: str, hint: str = "") -> ImageBuildError:
        """Return the error for a build that failed, from the reason."""
        return self._failed(f"cannot build image {str(self._name)!r}: {why}", hint)

    def _failed(self, message: str, hint: str = "") -> ImageBuildError:
        """Return the error for a build that failed, from the whole message."""
        evidence = self._output.evidence()
        message = self._output.mask(_report.clean(self._output.mask(message))).strip()
        return ImageBuildError(f"{message}{evidence}", hint=hint)


def _has_buildx(docker: str, environ: Mapping[str, str]) -> bool:
    output: list[bytes] = []
    exit_code = run_program([docker, "buildx", "version"], environ, output.append)
    return exit_code == 0 and bool(output)


def _read_secrets(options: BuildOptions) -> SecretDict[Content]:
    """Return the contents of the secrets by id."""
    contents: SecretDict[Content] = SecretDict()
    for name, secret in options.parsed.secrets.items():
        try:
            contents[name] = Content(secret.read_bytes()) if isinstance(secret, Path) else secret
        except OSError as error:
            raise InvalidOptionError(
                f"secrets[{name!r}]: cannot read the file: {str(error.strerror).lower()}"
            ) from None
    return contents


def _text(message: Mapping[str, Any]) -> str:
    """Return what a message of the classic builder prints."""
    status = message.get("status")  # of a base image that is pulled
    return str(message.get("stream") or "") or (f"{status}\n" if status else "")


def _detail(message: Mapping[str, Any]) -> object:
    """Return the engine's words for a failure."""
    return _mapping(message.get("errorDetail")).get("message") or message.get("error")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
