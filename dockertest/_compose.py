"""Compose projects, started by `docker compose` and removed by this library."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

from dockertest import _clock, _validation
from dockertest._cleanup.reaper import SESSION, Records
from dockertest._concurrency import run_in_parallel
from dockertest._containers.container import Container
from dockertest._engine import docker_cli, networks
from dockertest._engine.client import quote_path
from dockertest._engine.inspection import Inspection
from dockertest._image_name import parse_image_name
from dockertest._images.process import run_program
from dockertest._network import Network, network_of
from dockertest._options import EnvSpec
from dockertest._public import public
from dockertest._report import Report, clean, indented
from dockertest._resource import Resource, close_after, postpones, resource_of
from dockertest._runtime import Runtime
from dockertest._secret import SecretDict
from dockertest._settings import state_folder
from dockertest._volume import Volume, volume_of
from dockertest.errors import (
    ComposeError,
    DockertestError,
    EngineError,
    InvalidOptionError,
    ResourceClosedError,
)

log = logging.getLogger("dockertest")

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
# Docker Compose itself adds the first of them that exists, if the file is not named.
OVERRIDES = tuple(
    f"{name}.override.{kind}" for name in ("compose", "docker-compose") for kind in ("yml", "yaml")
)

SILENCE_SECONDS = 1800.0  # A pull may print nothing for a long time.
SETTLE_SECONDS = 0.5  # A service without a health check has to run for this long.
POLL_SECONDS = 0.05
SHOWN_LINES = 20

# Printed once all images exist, while containers are started one after the other.
_STARTING = re.compile(r"\bContainer \S+ +(?:Starting|Started|Waiting)\b")
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_HINT = "install docker-compose-plugin (Debian: docker-compose), version 2 or newer"
# Variables that the docker CLI and Docker Compose obey themselves, so that they would affect more than the file.
_CLI_VARIABLES = re.compile(
    "DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS|TLS_VERIFY|API_VERSION)"
    "|COMPOSE_(FILE|PROJECT_NAME|PROFILES|PATH_SEPARATOR|ENV_FILES|DISABLE_ENV_FILE)|LD_.*|DYLD_.*|PATH|HOME"
)


@public
@dataclass(eq=False, repr=False)
class Compose:
    """
    A running Compose project.

    Its containers, networks and volumes are removed by `close()`, at the end of a `with`, when the pool is closed, when
    the interpreter ends, and by the reaper if this process is killed. `compose["db"]` is the container of a service, as
    a `Resource`.

    Attributes:
        project: The project's name.
    """

    project: str
    _services: dict[str, list[Resource]]
    _rest: tuple[Network | Volume, ...]
    _is_closed: bool = False

    def __repr__(self) -> str:
        services = ", ".join(self._services)
        return f"<Compose {self.project!r}: {services}{' (closed)' if self._is_closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Compose cannot be pickled, since it is tied to this process; pass names and addresses"
        )

    def __enter__(self) -> Self:
        if self._is_closed:
            raise ResourceClosedError(
                f"the Compose project {self.project!r} is closed",
                hint="use it before its pool or with block ends",
            )
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and postpones(self, failure, self._resources())):
            close_after(self, failure)

    def __getitem__(self, service: str) -> Resource:
        """
        Return the container of a service; the first one if it has several.

        Raises:
            KeyError: The project has no such service, or its profile is not active.
        """
        return self.containers(service)[0]

    def __contains__(self, service: object) -> bool:
        return service in self._services

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services that were started."""
        return tuple(self._services)

    def containers(self, service: str) -> list[Resource]:
        """
        Return all containers of a service, in the order of their numbers.

        Args:
            service: The service's name in the Compose file.

        Raises:
            KeyError: The project has no such service, or its profile is not active.
        """
        if service not in self._services:
            raise KeyError(f"no service {service!r} was started; services: {', '.join(self._services)}")
        return list(self._services[service])

    def close(self) -> None:
        """
        Remove the containers, networks and volumes of the project.

        Closing twice does nothing. Containers are killed rather than stopped. In a forked child, the parent's project
        is left alone.

        Raises:
            EngineError: The engine did not remove something; call again to try again.
        """
        closed = run_in_parallel([one.close for one in self._resources()])
        failures = [one for one in closed if isinstance(one, Exception)]
        for one in self._rest:
            try:
                one.close()
            except DockertestError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self._is_closed = True

    def _resources(self) -> list[Resource]:
        return [one for replicas in self._services.values() for one in replicas]


def start(
    runtime: Runtime,
    path: object,
    *,
    project: str | None,
    profiles: Sequence[str],
    env: EnvSpec,
    image_prefix: str,
) -> Compose:
    """
    Start a Compose project, and wait until its services run and are healthy.

    Raises:
        InvalidOptionError: An argument is invalid, or the engine is Podman.
        ComposeError: The project exists, or could not be started.
    """
    try:
        assignments = _validation.parse_environment("env", env)
    finally:
        del env
    runtime.session.check_open()
    if runtime.engine.is_podman:
        raise InvalidOptionError(
            "compose needs Docker: Podman's own Compose does not support all that this library needs",
            hint="start the services with run_all, or use a Docker engine",
        )
    starting = _Start(
        runtime,
        _compose_files(path),
        _project_name(project),
        _validation.parse_strings("profiles", profiles),
        SecretDict({one.name: str(one.value) for one in assignments}),
        image_prefix,
    )
    with starting.claimed() if project else contextlib.nullcontext():
        return starting.run()


class _Start:
    """The start of one project."""

    def __init__(
        self,
        runtime: Runtime,
        files: Sequence[Path],
        project: str,
        profiles: Sequence[str],
        env: SecretDict[str],
        image_prefix: str,
    ) -> None:
        for name in env:
            if _CLI_VARIABLES.fullmatch(name):
                raise InvalidOptionError(
                    f"invalid env: the docker CLI itself obeys the variable {name!r}",
                    hint="use another name in the Compose file",
                )
        self._runtime = runtime
        self._engine = runtime.engine
        self._file, *self._overrides = files
        self._project = project
        self._profiles = profiles
        self._env = env
        self._image_prefix = image_prefix
        self._labels = runtime.session.labels()
        self._output = ""

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """
        Lock the project's name against the other processes of this user.

        Another process cannot start a project of the same name during the block.
        """
        with ExitStack() as stack:
            name = hashlib.sha256(f"{self._engine.endpoint} {self._project}".encode()).hexdigest()[:32]
            path = state_folder(self._runtime.settings.environ) / f"{name}.compose"
            try:
                import fcntl

                file = stack.enter_context(path.open("ab"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._exists("it is being started by another process or thread") from None
            except (ImportError, OSError) as error:
                log.debug("cannot lock %s: %s", path, error)
            else:
                # A child that another thread forks has a copy of the descriptor, and would keep the lock.
                stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
            yield

    def run(self) -> Compose:
        """Start the project, or leave nothing of it."""
        session = self._runtime.session
        docker = shutil.which("docker", path=self._runtime.settings.environ.get("PATH"))
        if not docker:
            raise ComposeError(
                "compose needs the docker CLI, which was not found on PATH", hint=_HINT, reason="missing"
            )
        with Records(state_folder(self._runtime.settings.environ)).temporary_folder() as folder:
            environ = self._environ(folder)
            model = self._model(docker, environ)
            self._check_is_new(model)
            override = folder / "dockertest-override.json"
            override.write_text(json.dumps(self._override(model)), encoding="utf-8")
            with session.creating(), self._runtime.timeline.step("compose", self._file.name):
                session.begin()
                try:
                    self._up(docker, environ, override)
                    return self._settled()
                except BaseException:
                    self._remove_all()
                    raise

    # The docker CLI

    def _environ(self, folder: Path) -> SecretDict[str]:
        environ = SecretDict(
            {
                name: value
                for name, value in self._runtime.settings.environ.items()
                if not _CLI_VARIABLES.fullmatch(name)
                or name in ("DOCKER_CONFIG", "PATH", "HOME")
                or name.startswith(("LD_", "DYLD_"))
            }
        )
        environ |= docker_cli.endpoint_variables(self._engine, environ, folder)
        return SecretDict(environ | self._env)

    def _command(self, docker: str, *files: Path) -> list[str]:
        command = [docker, "compose", "--ansi", "never", "--project-name", self._project]
        command += ["--project-directory", str(self._file.parent)]
        for file in (self._file, *self._overrides, *files):
            command += ["--file", str(file)]
        for profile in self._profiles:
            command += ["--profile", profile]
        return command

    def _model(self, docker: str, environ: Mapping[str, str]) -> dict[str, Any]:
        """Return the project as Docker Compose understands the file. It contains secrets."""
        command = [*self._command(docker), "config", "--format", "json"]
        pieces: list[bytes] = []
        code = self._run(command, environ, pieces.append, merge_stderr=False)
        with suppress(ValueError):
            if code == 0 and isinstance(model := json.loads(b"".join(pieces)), dict):
                return SecretDict(model)
        pieces = []
        version = [docker, "compose", "version", "--short"]
        if self._run(version, environ, pieces.append, merge_stderr=False) or not pieces:
            raise ComposeError("compose needs the docker CLI's plugin compose", hint=_HINT, reason="missing")
        code = self._run(command, environ, self._add_output, merge_stderr=True)
        raise self._failed(f"`docker compose config` failed with exit code {code}", reason="config")

    def _up(self, docker: str, environ: Mapping[str, str], override: Path) -> None:
        command = [*self._command(docker, override), "up", "--detach"]
        with ExitStack() as stack:

            def register(process: int) -> None:
                stack.enter_context(self._runtime.session.ends(process))

            code = self._run(
                command,
                environ,
                self._add_output,
                merge_stderr=True,
                silence=self._silence,
                on_start=register,
            )
        if code:
            raise self._failed(
                f"`docker compose up` failed with exit code {code}",
                reports=self._unfinished("failed"),
                reason="up",
            )

    def _run(
        self,
        command: list[str],
        environ: Mapping[str, str],
        on_output: Callable[[bytes], object],
        *,
        merge_stderr: bool,
        silence: Callable[[], float] = lambda: SILENCE_SECONDS,
        on_start: Callable[[int], object] | None = None,
    ) -> int:
        reason = "up"
        reports: tuple[Report, ...] = ()
        try:
            return run_program(
                command,
                environ,
                on_output,
                merge_stderr=merge_stderr,
                silence=silence,
                on_start=on_start,
            )
        except subprocess.TimeoutExpired as error:
            problem = f"`docker compose` printed nothing for {error.timeout:g} s"
            if self._is_starting():
                problem = f"services that others depend on are not ready after {error.timeout:g} s"
                reason, reports = "timeout", self._unfinished("pending", "failed")
        except OSError as error:
            problem = f"{command[0]} cannot be started: {str(error.strerror).lower()}"
        # Raised here, without an error whose frames have the environment in their variables.
        raise self._failed(problem, reports=reports, reason=reason)

    def _silence(self) -> float:
        """Return how many seconds `docker compose up` may print nothing."""
        return self._runtime.defaults.max_wait if self._is_starting() else SILENCE_SECONDS

    def _is_starting(self) -> bool:
        return bool(_STARTING.search(self._output))

    def _add_output(self, data: bytes) -> None:
        self._output = f"{self._output}{data.decode(errors='replace')}"[-(1 << 20) :]

    # The content of the project

    def _check_is_new(self, model: Mapping[str, Any]) -> None:
        """
        Check that nothing of the project exists yet.

        All of the project is removed in the end, so nothing may be taken over.

        Raises:
            ComposeError: Something exists.
        """
        if self._engine.containers([f"{PROJECT}={self._project}"]):
            raise self._exists("it has containers")
        for network in _own(model, "networks").values():
            if networks.list_named(self._engine, network["name"]):
                raise self._exists(
                    f"there is a network {network['name']!r}", "declare the network as external"
                )
        for volume in _own(model, "volumes").values():
            with _ignored_missing():
                path, what = f"/volumes/{quote_path(volume['name'])}", "look for a volume"
                self._engine.get(path, what=what)
                raise self._exists(f"there is a volume {volume['name']!r}", "declare the volume as external")

    def _override(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return a Compose file that adds our labels, and the prefix to image names.

        Everything that the project makes gets the labels.
        """
        services: dict[str, Any] = {}
        for name, service in (model.get("services") or {}).items():
            services[name] = {"labels": self._labels}
            if service.get("build"):
                # Else each project, having a name of its own, would leave an image of its own.
                key = hashlib.sha256(str(self._file).encode()).hexdigest()[:12]
                own = f"dockertest-compose-{key}-{name.lower()}"
                services[name]["image"] = service.get("image") or own
                if not service.get("image"):  # Else the image of an earlier run would be used as it is.
                    services[name]["pull_policy"] = "build"
            elif self._image_prefix and service.get("image"):
                image = parse_image_name("image", service["image"]).prefixed(self._image_prefix)
                services[name]["image"] = str(image)
        labelled = {
            kind: {key: {"labels": self._labels} for key in _own(model, kind)}
            for kind in ("networks", "volumes")
        }
        return {"services": services, **{kind: entries for kind, entries in labelled.items() if entries}}

    # What was created

    def _listed(self) -> list[dict[str, Any]]:
        return self._engine.containers([f"{SESSION}={self._labels[SESSION]}", f"{PROJECT}={self._project}"])

    def _settled(self) -> Compose:
        """
        Return the project once its services are running.

        A service with a health check must also be healthy.
        """
        runtime = self._runtime
        services: dict[str, list[Resource]] = {}
        found: list[Container] = []
        for listed in sorted(self._listed(), key=_place):
            inspection = self._engine.inspect(listed["Id"])
            container = Container(runtime, inspection, image=inspection.image)
            found.append(container)
            runtime.session.add(container)
            services.setdefault(str(listed["Labels"][SERVICE]), []).append(resource_of(runtime, container))
        project_networks, volumes = self._networks(), self._volumes()
        for network in project_networks:
            runtime.session.add_network(network)
        for volume in volumes:
            runtime.session.add_volume(volume)
        compose = Compose(self._project, services, (*project_networks, *volumes))
        self._await(found)
        for container in found:
            container.await_ports()
        return compose

    def _await(self, found: list[Container]) -> None:
        max_wait = self._runtime.defaults.max_wait
        began = _clock.monotonic()
        since: dict[tuple[str, float], float] = {}
        pending = found
        while pending:
            elapsed = _clock.monotonic() - began
            states = [(container, _state_since(container, since)) for container in pending]
            failed = [container for container, state in states if state == "failed"]
            pending = [container for container, state in states if state == "pending"]
            if failed:
                reports = tuple(container.report() for container in failed)
                raise self._failed(_count(len(failed)), reports=reports, reason="service")
            if pending and elapsed > max_wait:
                reports = tuple(container.report() for container in pending)
                raise self._failed(f"not healthy after {max_wait:g} s", reports=reports, reason="timeout")
            if pending:
                _clock.sleep(POLL_SECONDS)

    def _networks(self) -> list[Network]:
        listed = self._engine.list_networks(label=f"{PROJECT}={self._project}")
        return [network_of(self._runtime, one) for one in listed if self._is_ours(one)]

    def _volumes(self) -> list[Volume]:
        filters = json.dumps({"label": [f"{SESSION}={self._labels[SESSION]}"]})
        answer = self._engine.get("/volumes", what="list volumes", params={"filters": filters})
        return [
            volume_of(self._runtime, str(one["Name"]))
            for one in answer.get("Volumes") or ()
            if (one.get("Labels") or {}).get(PROJECT) == self._project
        ]

    def _is_ours(self, listed: Mapping[str, Any]) -> bool:
        return bool((listed.get("Labels") or {}).get(SESSION) == self._labels[SESSION])

    def _unfinished(self, *states: str) -> tuple[Report, ...]:
        """
        Return the reports of the services in one of these *states*.

        An engine error is ignored here, since there is another error to raise.
        """
        reports = []
        with suppress(DockertestError):
            for listed in sorted(self._listed(), key=_place):
                inspection = self._engine.inspect(listed["Id"])
                if _state(inspection, SETTLE_SECONDS) in states or inspection.error:
                    container = Container(self._runtime, inspection, image=inspection.image)
                    reports.append(container.describe(inspection))
        return tuple(reports)

    def _remove_all(self) -> None:
        """
        Remove the parts of the project that exist.

        If a removal fails, the pool's `close` tries it again.
        """
        session = self._runtime.session
        ours = {one["Id"] for one in self._try(self._listed) or ()}
        for container in session.containers():
            if container.id in ours:
                ours.discard(container.id)
                self._try(container.close)
        for leftover in ours:
            self._try(partial(self._engine.remove, leftover))
        for one in (*(self._try(self._networks) or ()), *(self._try(self._volumes) or ())):
            self._try(one.close)

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except DockertestError as error:
            log.warning("the Compose project %r is not removed completely yet: %s", self._project, error)
            return None

    # Errors

    def _exists(self, why: str, hint: str = "choose another name, or none for a random one") -> ComposeError:
        return ComposeError(
            f"the Compose project {self._project!r} exists already: {why}", hint=hint, reason="exists"
        )

    def _failed(self, why: str, *, reports: tuple[Report, ...] = (), reason: str) -> ComposeError:
        output = clean(self._output).strip()
        shown = "\n".join(output.splitlines()[-SHOWN_LINES:]) if reason in ("up", "config") else ""
        evidence = "".join(f"\n{report}" for report in reports)
        return ComposeError(
            f"cannot start the Compose project {self._project!r} of {self._file}: {why}{indented(shown)}{evidence}",
            output=output,
            reports=reports,
            reason=reason,
        )


def _compose_files(path: object) -> list[Path]:
    """Return the file, or those that Docker Compose uses in a folder."""
    file = _validation.parse_local_path("path", path)
    if file.is_dir():
        found = [file / name for name in DEFAULT_FILES if (file / name).is_file()]
        if not found:
            raise InvalidOptionError(f"path: {str(file)!r} contains none of {', '.join(DEFAULT_FILES)}")
        return [found[0], *[file / name for name in OVERRIDES if (file / name).is_file()][:1]]
    if not file.is_file():
        raise InvalidOptionError(f"path: there is no file {str(file)!r}")
    return [file]


def _project_name(project: object) -> str:
    if project is None or project == "":
        return f"dockertest-{secrets.token_hex(6)}"
    if isinstance(project, str) and _PROJECT_NAME.fullmatch(project):
        return project
    raise InvalidOptionError(
        f"project: invalid name {_validation.format_value(project)}: expected a-z 0-9 _ -, beginning with a letter or a digit"
    )


def _own(model: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the networks or volumes that the project makes itself."""
    return {
        key: value or {}
        for key, value in (model.get(kind) or {}).items()
        if not (value or {}).get("external")
    }


def _place(listed: Mapping[str, Any]) -> tuple[str, int]:
    labels = listed["Labels"]
    return str(labels.get(SERVICE, "")), int(labels.get(NUMBER) or 0)


def _state_since(container: Container, since: dict[tuple[str, float], float]) -> str:
    """
    Return the state of a service.

    Args:
        container: The service's container.
        since: When each of its runs was seen first; a restart begins another one.
    """
    asked = _clock.monotonic()
    inspection = container.inspect()
    first = since.setdefault((container.id, inspection.started_at), _clock.monotonic())
    return _state(inspection, asked - first)


def _state(inspection: Inspection, elapsed: float) -> str:
    """Return whether a service is `"ready"`, `"pending"` or has `"failed"`."""
    if inspection.has_ended:
        return "failed" if inspection.exit_code else "ready"
    if inspection.health == "unhealthy":
        return "failed"
    if inspection.status == "created":  # Compose has not started it, because of a service that has failed.
        return "pending"
    if inspection.health == "starting" or inspection.status == "restarting":
        return "pending"
    return "ready" if inspection.health == "healthy" or elapsed >= SETTLE_SECONDS else "pending"


def _count(failed: int) -> str:
    return "a service failed" if failed == 1 else f"{failed} services failed"


@contextmanager
def _ignored_missing() -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        if error.status != 404:
            raise
