"""Build an image from a Dockerfile: with the engine's classic builder, or with BuildKit through `docker buildx`."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dockertest import _credentials, _report, _sdk, _specs
from dockertest._credentials import Credentials
from dockertest._engine import Engine
from dockertest._options import BuildOptions
from dockertest._reference import Reference
from dockertest._values import AuthConfig
from dockertest.errors import DockertestError, EngineError, ImageBuildError

log = logging.getLogger("dockertest")

TAIL = 20  # lines of output as evidence in an error
SILENCE = 1800.0  # seconds that one step of a build may say nothing, on top of the engine's own limit
_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)", re.IGNORECASE | re.MULTILINE)


def build(
    engine: Engine,
    options: BuildOptions,
    name: Reference,
    credentials: Credentials,
    environ: Mapping[str, str],
) -> str:
    """
    Build an image, call it *name*, and give its id: a name may be somebody else's a moment later.

    Raises:
        ImageBuildError: It could not be built; the last lines of output are in the text.
    """
    log.info("building %s from %s", name, options.context_dir)
    output = _Output(name, options)
    if options.version == "2":
        image = _with_buildx(engine, options, name, output, environ)
    else:
        image = _classic(engine, options, name, output, credentials)
    if not image:
        raise output.error("the builder did not say what it built")
    log.info("built %s: %s", name, image)
    return image


def remove(engine: Engine, name: str) -> None:
    """Remove an image by its name: images built from the same cache share one id. A failure is logged."""
    try:
        engine.send("delete", f"/images/{name}", what=f"remove image {name!r}")
    except DockertestError as error:
        log.warning("%s", error)


class _Output:
    """What a builder says: logged, and its last lines kept for an error; the values of build arguments in neither."""

    def __init__(self, name: Reference, options: BuildOptions) -> None:
        self._name = name
        pairs = _specs.environment("build_args", options.build_args)
        # A short value is part of too many words, and no secret.
        values = [pair.split("=", 1)[1] for pair in pairs]
        self._secrets = sorted((value for value in values if len(value) > 3), key=len, reverse=True)
        self._lines: deque[str] = deque(maxlen=TAIL)

    def add(self, text: str) -> None:
        """Take what the builder said."""
        for line in self._masked(text).splitlines():
            if line.strip():
                self._lines.append(line.rstrip())
                log.info("%s: %s", self._name, line.rstrip())

    def error(self, why: str) -> ImageBuildError:
        """Make the error for a build that failed."""
        evidence = _report.indented("\n".join(self._lines))
        return ImageBuildError(
            f"cannot build image {str(self._name)!r}: {self._masked(why).strip()}{evidence}"
        )

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _classic(
    engine: Engine, options: BuildOptions, name: Reference, output: _Output, credentials: Credentials
) -> str:
    what = f"build image {str(name)!r}"
    image = ""
    try:
        with _sdk.build_context(options.context_dir, options.dockerfile) as (context, dockerfile):
            response = engine.send(
                "post",
                "/build",
                what=what,
                params=_parameters(options, name, dockerfile),
                body=context,
                headers={
                    "Content-Type": "application/x-tar",
                    "X-Registry-Config": _registry_config(options, credentials),
                },
                stream=True,
                patience=SILENCE,
                error=ImageBuildError,
            )
            for message in engine.messages(response, what):
                output.add(message.get("stream") or message.get("status") or "")
                image = (message.get("aux") or {}).get("ID") or image
                if "error" in message:
                    raise output.error((message.get("errorDetail") or {}).get("message") or message["error"])
    except EngineError as error:
        raise output.error(str(error)) from error
    return image


def _parameters(options: BuildOptions, name: Reference, dockerfile: str) -> dict[str, object]:
    pairs = (pair.split("=", 1) for pair in _specs.environment("build_args", options.build_args))
    parameters: dict[str, object] = {
        "t": str(name),
        "dockerfile": dockerfile,
        "rm": 1,
        "forcerm": 1,
        "nocache": int(options.no_cache),
        "buildargs": json.dumps(dict(pairs)),
        "labels": json.dumps(dict(options.labels)),
        "target": options.target,
        "platform": options.platform,
    }
    return {key: value for key, value in parameters.items() if value}


def _registry_config(options: BuildOptions, credentials: Credentials) -> str:
    """Give the credentials for the registries of the base images."""
    dockerfile = (Path(options.context_dir) / options.dockerfile).read_text(
        encoding="utf-8", errors="replace"
    )
    registries = {found.partition("/")[0] for found in _FROM.findall(dockerfile)}
    registries = {each if "." in each or ":" in each or each == "localhost" else "" for each in registries}
    if isinstance(options.auth, AuthConfig) or options.auth is None:
        return _credentials.build_header(credentials.for_build(registries, options.auth))
    auths = credentials.for_build(registries)
    for registry, auth in options.auth.items():
        auths[_credentials.server(_credentials.hostname(registry))] = auth
    return _credentials.build_header(auths)


def _with_buildx(
    engine: Engine, options: BuildOptions, name: Reference, output: _Output, environ: Mapping[str, str]
) -> str:
    docker = shutil.which("docker", path=environ.get("PATH"))
    if not docker or _says(docker, environ) != 0:
        missing = "`docker buildx` is not there" if docker else "the docker command line is not there"
        raise output.error(
            f"version 2 is built by it, and {missing}; install docker-buildx-plugin, or use version='1'"
        )
    with tempfile.TemporaryDirectory(prefix="dockertest-") as private:
        iidfile = Path(private) / "iid"
        command = [
            docker,
            "buildx",
            "build",
            "--load",
            "--progress",
            "plain",
            "--iidfile",
            str(iidfile),
            "--tag",
            str(name),
        ]
        with _running(
            [*command, *_arguments(options)], _surroundings(engine, options, environ, private)
        ) as process:
            for line in process.stdout or ():
                output.add(line)
        if process.returncode:
            raise output.error(f"`docker buildx build` ended with exit code {process.returncode}")
        return iidfile.read_text(encoding="ascii").strip()


def _says(docker: str, environ: Mapping[str, str]) -> int:
    """Ask whether buildx is there."""
    asked = [docker, "buildx", "version"]
    return subprocess.run(asked, capture_output=True, env=dict(environ), timeout=30, check=False).returncode  # noqa: S603


def _arguments(options: BuildOptions) -> list[str]:
    """Give the command's arguments; of build arguments the names alone, their values go by the environment."""
    arguments = ["--file", str(Path(options.context_dir) / options.dockerfile)]
    for pair in _specs.environment("build_args", options.build_args):
        arguments += ["--build-arg", pair.split("=", 1)[0]]
    for key, value in options.labels.items():
        arguments += ["--label", f"{key}={value}"]
    arguments += ["--target", options.target] if options.target else []
    arguments += ["--platform", options.platform] if options.platform else []
    arguments += ["--no-cache"] if options.no_cache else []
    return [*arguments, "--", str(options.context_dir)]


def _surroundings(
    engine: Engine, options: BuildOptions, environ: Mapping[str, str], private: str
) -> dict[str, str]:
    """Give the command's environment: the pool's engine, the build arguments, and credentials in a folder of its own."""
    said = {**environ, "DOCKER_HOST": engine.endpoint.url}
    for each in ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        said.pop(each, None)
    if engine.endpoint.cert_path:
        tls = "DOCKER_TLS_VERIFY" if engine.endpoint.verify else "DOCKER_TLS"
        said |= {"DOCKER_CERT_PATH": engine.endpoint.cert_path, tls: "1"}
    if options.auth:
        auths = (
            {options.auth.server_address or "": options.auth}
            if isinstance(options.auth, AuthConfig)
            else options.auth
        )
        hosts = {_credentials.server(_credentials.hostname(host)): auth for host, auth in auths.items()}
        config = {"auths": {host: _credentials.entry(auth) for host, auth in hosts.items()}}
        file = Path(private) / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config), encoding="utf-8")
        plugins = Path(environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser()) / "cli-plugins"
        if plugins.is_dir():
            (Path(private) / "cli-plugins").symlink_to(plugins)
        said["DOCKER_CONFIG"] = private
    return said | dict(pair.split("=", 1) for pair in _specs.environment("build_args", options.build_args))


@contextmanager
def _running(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command, and end it with the block, however that ends."""
    process = subprocess.Popen(  # noqa: S603 - no shell, and a program that was looked up
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
