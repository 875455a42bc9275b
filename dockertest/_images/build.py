"""Build an image from a Dockerfile: with the engine's classic builder, or with BuildKit through `docker buildx`."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from dockertest import _report
from dockertest import _validation as _specs
from dockertest._engine import sdk as _sdk
from dockertest._engine.client import Engine
from dockertest._image_name import Reference
from dockertest._images import build_context as _dockerfile
from dockertest._images import credentials as _credentials
from dockertest._images.credentials import Credentials
from dockertest._options import BuildOptions
from dockertest._values import AuthConfig
from dockertest.errors import (
    DockertestError,
    DockerUnavailableError,
    EngineError,
    ImageBuildError,
    InvalidOptionError,
)

log = logging.getLogger("dockertest")

TAIL = 20  # lines of output as evidence in an error
SILENCE = 1800.0  # seconds that one step of a build may say nothing, on top of the engine's own limit
_GET_IT = "install docker-buildx-plugin (Debian: docker-buildx), or use version='1'"
# What the docker command line obeys: a build argument of such a name would reach more than the build.
_STEERS = re.compile(
    "DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS|TLS_VERIFY|API_VERSION|AUTH_CONFIG|CUSTOM_HEADERS|DEFAULT_PLATFORM)"
    "|BUILDX_.*|LD_.*|DYLD_.*|PATH|HOME"
)


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
        image = _with_buildx(engine, options, name, output, credentials, environ)
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
        # The builder tells line by line.
        parts = {value.strip() for text in values for value in (text, *text.splitlines())}
        self._secrets = sorted((part for part in parts if len(part) > 3), key=len, reverse=True)
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
    failure: DockertestError | None = None
    try:
        with _sdk.unlogged(), _sdk.build_context(options.context_dir, options.dockerfile) as (context, file):
            response = engine.send(
                "post",
                "/build",
                what=what,
                params=_parameters(options, name, file),
                body=context,
                headers={
                    "Content-Type": "application/x-tar",
                    "X-Registry-Config": _credentials.build_header(_auths(options, credentials)),
                },
                stream=True,
                patience=SILENCE,
                error=ImageBuildError,
            )
            for message in engine.messages(response, what):
                output.add(message.get("stream") or message.get("status") or "")
                image = (message.get("aux") or {}).get("ID") or image
                if "error" in message:
                    said = (message.get("errorDetail") or {}).get("message") or message["error"]
                    failure = output.error(said)
                    break
    except DockerUnavailableError as error:
        failure = DockerUnavailableError(str(error))
    except (EngineError, ImageBuildError) as error:
        failure = output.error(str(error).removeprefix(f"cannot {what}: "))
    if failure:
        raise failure  # without what the transport raised: that has the URL, and it the values of the build arguments
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


def _auths(options: BuildOptions, credentials: Credentials) -> dict[str, AuthConfig]:
    """Give the credentials for the registries of the base images, by their server."""
    file = Path(options.context_dir) / options.dockerfile
    arguments = dict(pair.split("=", 1) for pair in _specs.environment("build_args", options.build_args))
    registries = _dockerfile.registries(file.read_text(encoding="utf-8", errors="replace"), arguments)
    return credentials.for_build(registries, options.auth)


def _with_buildx(
    engine: Engine,
    options: BuildOptions,
    name: Reference,
    output: _Output,
    credentials: Credentials,
    environ: Mapping[str, str],
) -> str:
    docker = shutil.which("docker", path=environ.get("PATH"))
    if not docker:
        raise output.error(f"version 2 is built by the docker command line, which is not there; {_GET_IT}")
    with tempfile.TemporaryDirectory(prefix="dockertest-") as private:
        iidfile = Path(private) / "iid"
        surroundings = _surroundings(engine, options, credentials, environ, Path(private))
        # The default builder is the engine's own, whichever the user has chosen for other work.
        command = [docker, "buildx", "build", "--builder", "default", "--load", "--progress", "plain"]
        command += ["--iidfile", str(iidfile), "--tag", str(name), *_arguments(options)]
        try:
            exit_code = _run(command, surroundings, output, SILENCE + engine.timeout)
            if exit_code and not _has_buildx(docker, surroundings):
                raise output.error(f"version 2 is built by `docker buildx`, which is not there; {_GET_IT}")
        except OSError as error:
            raise output.error(f"{docker} cannot be started: {str(error.strerror).lower()}") from error
        if exit_code:
            raise output.error(f"`docker buildx build` ended with exit code {exit_code}")
        return iidfile.read_text(encoding="ascii").strip()


def _has_buildx(docker: str, environ: Mapping[str, str]) -> bool:
    asked = [docker, "buildx", "version"]
    return not subprocess.run(asked, capture_output=True, env=environ, check=False).returncode  # noqa: S603


def _arguments(options: BuildOptions) -> list[str]:
    """Give the command's arguments; of build arguments the names alone, their values go by the environment."""
    # Absolute, since there is nothing else that they could be taken for: a URL, standard input.
    context = Path(options.context_dir).absolute()
    arguments = ["--file", str(context / options.dockerfile)]
    for pair in _specs.environment("build_args", options.build_args):
        arguments += ["--build-arg", pair.split("=", 1)[0]]
    for key, value in options.labels.items():
        arguments += ["--label", f"{key}={value}"]
    arguments += ["--target", options.target] if options.target else []
    arguments += ["--platform", options.platform] if options.platform else []
    arguments += ["--no-cache"] if options.no_cache else []
    return [*arguments, "--", str(context)]


def _surroundings(
    engine: Engine,
    options: BuildOptions,
    credentials: Credentials,
    environ: Mapping[str, str],
    private: Path,
) -> dict[str, str]:
    """Give the command's environment: the pool's engine, the build arguments, and a configuration in a folder of its own."""
    arguments = dict(pair.split("=", 1) for pair in _specs.environment("build_args", options.build_args))
    for name in arguments:
        if _STEERS.fullmatch(name):
            raise InvalidOptionError(
                f"build_args: {name!r} would steer the docker command line itself; use version='1'"
            )
    said = {key: value for key, value in environ.items() if not key.startswith(("DOCKER_", "BUILDX_"))}
    address = engine.address() or {"url": engine.endpoint.url}
    said["DOCKER_HOST"] = re.sub("^https?:", "tcp:", address["url"])
    if address["url"].startswith("https:"):
        tls = "DOCKER_TLS_VERIFY" if engine.endpoint.verify else "DOCKER_TLS"
        said |= {"DOCKER_CERT_PATH": str(private), tls: "1"}
        for part in {"ca", "cert", "key"} & set(address):
            shutil.copy(address[part], private / f"{part}.pem")
    auths = _auths(options, credentials)
    config = credentials.settings() | {
        "auths": {server: _credentials.entry(auth) for server, auth in auths.items()}
    }
    file = private / "config.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(config), encoding="utf-8")
    said["DOCKER_CONFIG"] = str(private)
    if host := urlsplit(said["DOCKER_HOST"]).hostname:  # to the engine goes no proxy of the environment
        exempt = environ.get("NO_PROXY") or environ.get("no_proxy")
        said["NO_PROXY"] = said["no_proxy"] = f"{exempt},{host}" if exempt else host
    return said | arguments


def _run(command: list[str], environ: Mapping[str, str], output: _Output, silence: float) -> int:
    """Run a command and take what it says; give its exit code. However this ends, it and what it started have ended."""
    process = subprocess.Popen(  # noqa: S603 - no shell, and a program that was looked up
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # buildx is a program that the docker command line starts: they end together
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True, name="dockertest")
    with process:
        try:
            reader.start()
            while line := lines.get(timeout=silence):
                output.add(line)
            return process.wait()
        except queue.Empty:
            raise output.error(f"`docker buildx build` said nothing for {silence:g} s") from None
        finally:
            _end(process)
            reader.join()


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
