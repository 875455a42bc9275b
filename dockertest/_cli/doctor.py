"""
`dockertest doctor`: check whether dockertest works here.

It starts at most one small container, and removes it again.
"""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from dockertest import (
    DockertestError,
    DockerUnavailableError,
    EngineError,
    InvalidOptionError,
    Pool,
    Resource,
    _clock,
    _image_name,
    retry,
    services,
)
from dockertest._cli.terminal import Console, Styled
from dockertest._probes import RESPONSE_SECONDS, Address
from dockertest.services import Service

MIN_FREE_BYTES = 10**9  # the image of a database alone takes half of it
MAX_WAIT_SECONDS = 15.0  # for the test container to answer, and again to be removed
SILENCE_SECONDS = 30.0  # that the engine may need for one answer
LOST = ("timeout", "disconnected")  # reasons of errors after which other requests are bound to fail, too
MARKS = {True: ("ok", "green"), False: ("problem", "red"), None: ("note", "yellow")}


def _is_greeted(address: Address, _settings: Mapping[str, str]) -> bool:
    with socket.create_connection(address, timeout=RESPONSE_SECONDS) as connection:
        return connection.recv(16).startswith(b"reached")


# Images that run without configuration. A shell is more harmless than a server, and a small image than a large one.
SHELL = Service(
    images=("busybox", "alpine"),
    port="8080/tcp",
    probe=_is_greeted,
    url=lambda _settings, address: address,
)
SHELL_SERVER = "while :; do echo reached | nc -l -p 8080; done"
SERVERS = ("nats", "memcached", "redis", "valkey", "nginx", "httpd", "caddy")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """
    The result of one check.

    Attributes:
        name: What was checked.
        ok: `False` for a problem, `None` if the check could not be made or has something to point out.
        text: The result for people.
        facts: The result for programs.
    """

    name: str
    ok: bool | None
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def examine(console: Console, endpoints: Sequence[str] = ()) -> int:
    """
    Make all checks, print their results, and return the exit code.

    The exit code is 1 if there is a problem, otherwise 0.

    Args:
        endpoints: The engines to check; the usual one if empty.
    """
    results = []
    for endpoint in (*endpoints,) or (None,):
        with closing(_checks(endpoint)) as checks:
            for checked in checks:
                facts = {**checked.facts, "endpoint": endpoint} if endpoint else checked.facts
                result = replace(checked, facts=facts)
                results.append(result)
                if not console.as_json:
                    _print(result, console)
    is_well = all(result.ok is not False for result in results)
    if console.as_json:
        findings = [
            {"what": result.name, "ok": result.ok, "text": result.text, **result.facts} for result in results
        ]
        console.print_json({"ok": is_well, "findings": findings})
    return 0 if is_well else 1


def _print(result: CheckResult, console: Console) -> None:
    mark, style = MARKS[result.ok]
    first, *more = result.text.splitlines()
    console.print(Styled(f"{mark:<7}", style), f"  {result.name:<10} {first}")
    for line in more:
        console.print(f"{'':<20}{line}")


def _checks(endpoint: str | None) -> Generator[CheckResult, None, None]:
    try:
        pool = Pool(endpoint, image_prefix="", max_wait=MAX_WAIT_SECONDS, timeout=SILENCE_SECONDS)
    except DockertestError as error:
        yield CheckResult(name="endpoint", ok=False, text=str(error))
        return
    try:
        with pool:
            pool.keep = False  # The test container is of no interest afterwards.
            yield from _checks_of_engine(pool)
    except _EngineLostError as error:
        yield error.result
    except DockertestError as error:
        yield CheckResult(name="removal", ok=False, text=str(error))


def _checks_of_engine(pool: Pool) -> Iterator[CheckResult]:
    examination = Examination(pool)
    yield examination.endpoint()
    yield _checked("engine", examination.engine)
    yield _checked("disk", examination.disk)
    yield _checked("leftovers", lambda: check_leftovers(pool))
    yield from _try_container(pool, examination)


class _EngineLostError(Exception):
    """The engine has stopped to answer, so that further checks would only take long."""

    def __init__(self, result: CheckResult) -> None:
        super().__init__(result.text)
        self.result = result


def _checked(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    try:
        return check()
    except DockertestError as error:
        return _failed(name, error)


def _failed(name: str, error: DockertestError) -> CheckResult:
    """
    Return the result of a check that has failed.

    Raises:
        _EngineLostError: The engine does not answer any more.
    """
    result = CheckResult(name=name, ok=False, text=str(error))
    if isinstance(error, DockerUnavailableError) or error.reason in LOST:
        raise _EngineLostError(result) from error
    return result


class Examination:
    """The checks that look below the public API, at the engine and the session."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        # The one access to private parts in the command line. Public methods for it would serve nothing else.
        runtime = pool._runtime  # noqa: SLF001 - see above
        self._engine = runtime.engine
        self._session = runtime.session

    def endpoint(self) -> CheckResult:
        """Return which endpoint was chosen, why, and which ones do not answer."""
        endpoint, passed_over = self._engine.endpoint, self._engine.passed_over
        lines = [f"{endpoint} ({endpoint.why})", *(f"no engine at {attempt}" for attempt in passed_over)]
        if endpoint.remark:
            lines.append(endpoint.remark)
        facts = {
            "url": str(endpoint),
            "why": endpoint.why,
            "local": endpoint.is_local,
            "passed_over": [
                {
                    "url": str(attempt.endpoint),
                    "why": attempt.endpoint.why,
                    "failure": attempt.failure,
                    "remedy": attempt.hint,
                }
                for attempt in passed_over
            ],
        }
        return CheckResult(
            name="endpoint", ok=None if endpoint.remark else True, text="\n".join(lines), facts=facts
        )

    def engine(self) -> CheckResult:
        """Return the engine's kind, version and configuration."""
        info = self._info()
        version = self._engine.get("/version", what="get the engine's version")
        components = [str(component.get("Name", "")) for component in version.get("Components") or ()]
        rootless = self._engine.is_rootless
        facts = {
            "name": "Podman" if any("Podman" in component for component in components) else "Docker",
            "version": version.get("Version", ""),
            "api": version.get("ApiVersion", ""),
            "spoken_api": str(self._pool.client.api.api_version),
            "platform": f"{version.get('Os', '')}/{version.get('Arch', '')}",
            "storage": info.get("Driver", ""),
            "rootless": rootless,
        }
        text = (
            f"{facts['name']} {facts['version']}, API {facts['api']} (dockertest uses {facts['spoken_api']}), "
            f"{facts['platform']}, storage driver {facts['storage']}, {'rootless' if rootless else 'not rootless'}"
        )
        return CheckResult(name="engine", ok=True, text=text, facts=facts)

    def disk(self) -> CheckResult:
        """
        Return how much space is left for images and containers.

        This is unknown unless the engine's data folder is accessible on this machine.
        """
        folder = str(self._info().get("DockerRootDir") or "")
        try:
            if not self._engine.endpoint.is_local or not folder:
                raise FileNotFoundError
            free = shutil.disk_usage(folder).free
        except OSError:
            return CheckResult(
                name="disk", ok=None, text="unknown: the engine's data folder is not accessible from here"
            )
        is_enough = free >= MIN_FREE_BYTES
        hint = "" if is_enough else "; free some: `docker system df` shows what uses it"
        text = f"{free / 1e9:.1f} GB free in {folder}{hint}"
        return CheckResult(name="disk", ok=is_enough, text=text, facts={"folder": folder, "free_bytes": free})

    def find_harmless_image(self) -> tuple[str, Service] | None:
        """
        Return the most harmless local image that runs without configuration.

        The second part of the result describes how the image answers. The result is `None` if no such image is
        available.
        """
        candidates = []
        for image in self._engine.get("/images/json", what="list images"):
            for tag in image.get("RepoTags") or ():
                if service := _harmless_service(tag):
                    candidates.append((service is not SHELL, image["Size"], tag, service))
        if not candidates:
            return None
        _, _, tag, service = min(candidates, key=lambda candidate: candidate[:3])
        return tag, service

    def reaper_start(self) -> CheckResult:
        """Check that the reaper starts, without a container that it could remove."""
        if not self._pool.reaper:
            return _reaper_disabled()
        self._session.begin()
        if not self._session.ensure_reaper():
            raise EngineError(
                "the reaper does not start; containers may be left behind if a process is killed",
                hint="DOCKERTEST_REAPER_LOG=/path writes its log to that file",
            )
        return CheckResult(name="reaper", ok=True, text="starts")

    def _info(self) -> dict[str, Any]:
        return dict(self._engine.get("/info", what="get the engine's configuration"))


def check_leftovers(pool: Pool) -> CheckResult:
    """
    Return how many objects dockertest has made, by the state of their sessions.

    The objects are containers, networks, volumes and prepared images.
    """
    counts = Counter(item.standing for item in pool.inventory())
    text = ", ".join(f"{count} {standing}" for standing, count in sorted(counts.items())) or "none"
    if counts["dead"]:
        text += "; `dockertest prune` removes those of dead sessions, and so does the next session"
    return CheckResult(
        name="leftovers", ok=None if counts["dead"] else True, text=text, facts={"counts": counts}
    )


def _try_container(pool: Pool, examination: Examination) -> Iterator[CheckResult]:
    """Start a small container, connect to its port, and let the reaper remove it."""
    try:
        image = examination.find_harmless_image()
    except DockertestError as error:
        yield _failed("port", error)
        return
    if image is None:
        names = ", ".join((*SHELL.images, *SERVERS))
        text = f"not checked, because no image that runs without configuration is available locally: {names}"
        yield CheckResult(name="port", ok=None, text=text)
        yield _checked("reaper", examination.reaper_start)
        return
    tag, service = image
    is_shell = service is SHELL
    try:
        resource = pool.run(
            tag,
            entrypoint=["sh", "-c"] if is_shell else [],
            cmd=[SHELL_SERVER] if is_shell else [],
            exposed_ports=[service.port],
            pull="never",
        )
    except DockertestError as error:
        yield _failed("container", error)
        return
    with resource:
        yield _checked("port", lambda: _check_port(resource, service))
        yield _checked("reaper", lambda: _check_reaper(pool, resource))


def _harmless_service(tag: str) -> Service | None:
    """Return how an image answers, if it runs without configuration."""
    try:
        name = _image_name.parse_image_name("image", tag).repository.rpartition("/")[2]
    except InvalidOptionError:  # An image without a name is listed as "<none>:<none>".
        return None
    if name in SHELL.images:
        return SHELL
    return services.find(tag, {}) if name in SERVERS else None


def _check_port(resource: Resource, service: Service) -> CheckResult:
    began = _clock.monotonic()
    address = resource.get_address(service.port)
    resource.retry(lambda: service.probe(address, {}))
    elapsed = _clock.monotonic() - began
    shown = resource.get_host_port(service.port)
    text = f"a published port is reachable at {shown} (after {elapsed:.1f} s, {resource.image})"
    return CheckResult(name="port", ok=True, text=text, facts={"address": shown, "image": resource.image})


def _check_reaper(pool: Pool, resource: Resource) -> CheckResult:
    if not pool.reaper:
        return _reaper_disabled()
    resource.expire(0)
    retry(lambda: resource.status == "removed", max_wait=MAX_WAIT_SECONDS)
    return CheckResult(name="reaper", ok=True, text="it has removed the test container")


def _reaper_disabled() -> CheckResult:
    text = "disabled by DOCKERTEST_REAPER=0; the next session removes what a killed process leaves behind"
    return CheckResult(name="reaper", ok=None, text=text)
