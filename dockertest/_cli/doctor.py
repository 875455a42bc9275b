"""`dockertest doctor`: is all there that is needed? Asks, starts at most one small container, and removes it again."""

from __future__ import annotations

import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from dockertest import _image_name as _reference
from dockertest import _retry
from dockertest import services as _services
from dockertest._cleanup import inventory as _inventory
from dockertest._cli.terminal import Screen
from dockertest._pool import Pool
from dockertest._probes import PATIENCE, Address
from dockertest._resource import Resource
from dockertest.errors import DockertestError, EngineError, InvalidOptionError
from dockertest.services import Service

SMALLEST_DISK = 10**9  # bytes: a database's image alone takes half of it
MAX_WAIT = 15.0  # seconds for the small server to be reached, and again to be removed


def _greets(address: Address, _settings: Mapping[str, str]) -> bool:
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        return connection.recv(16).startswith(b"reached")


# What can be started without a setting. A shell is better than a server, and a small image better than a large one.
SHELLS = Service(
    images=("busybox", "alpine"), port="8080/tcp", is_serving=_greets, url=lambda _said, at: at
)  # fmt: skip
GREET = "while :; do echo reached | nc -l -p 8080; done"
SERVERS = ("nats", "memcached", "redis", "valkey", "nginx", "httpd", "caddy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One thing that was looked at.

    Attributes:
        what: The thing.
        ok: `False` for a problem, `None` where nothing can be said.
        text: What was found, for a person.
        facts: The same for a program.
    """

    what: str
    ok: bool | None
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def examine(screen: Screen) -> int:
    """Tell what there is and what is missing; the exit code is 1 for a problem."""
    found = []
    with closing(_findings()) as findings:
        for each in findings:
            found.append(each)
            if not screen.as_json:
                _show(each, screen)
    is_well = all(each.ok is not False for each in found)
    if screen.as_json:
        told = [{"what": each.what, "ok": each.ok, "text": each.text, **each.facts} for each in found]
        screen.data({"ok": is_well, "findings": told})
    return 0 if is_well else 1


def _show(finding: Finding, screen: Screen) -> None:
    mark, style = {True: ("ok", "green"), False: ("problem", "red"), None: ("note", "yellow")}[finding.ok]
    first, *more = finding.text.splitlines()
    screen.say(f"{screen.styled(f'{mark:<7}', style)}  {finding.what:<10} {first}")
    for line in more:
        screen.say(f"{'':<20}{line}")


def _findings() -> Generator[Finding, None, None]:
    try:
        pool = Pool(image_prefix="", max_wait=MAX_WAIT)
    except DockertestError as error:
        yield Finding(what="endpoint", ok=False, text=str(error))
        return
    with pool:
        pool.keep = False  # of what is started here nothing is worth a look afterwards
        yield _endpoint(pool)
        yield _checked("engine", lambda: _engine(pool))
        yield _checked("disk", lambda: _disk(pool))
        yield _checked("leftovers", lambda: _leftovers(pool))
        yield from _trial(pool)


def _checked(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except DockertestError as error:
        return Finding(what=what, ok=False, text=str(error))


def _endpoint(pool: Pool) -> Finding:
    """Say which endpoint was chosen, why, and what was tried before."""
    endpoint, passed_over = pool._engine.endpoint, pool._engine.passed_over
    lines = [f"{endpoint} ({endpoint.why})", *(f"not {each}" for each in passed_over)]
    tried = [
        {"url": str(each.endpoint), "why": each.endpoint.why, "failure": each.failure, "remedy": each.remedy}
        for each in passed_over
    ]
    facts = {"url": str(endpoint), "why": endpoint.why, "local": endpoint.is_local, "passed_over": tried}
    if endpoint.remark:
        lines.append(endpoint.remark)
    return Finding(what="endpoint", ok=None if endpoint.remark else True, text="\n".join(lines), facts=facts)


def _info(pool: Pool) -> dict[str, Any]:
    return dict(pool._engine.get("/info", what="ask for the engine's state"))


def _engine(pool: Pool) -> Finding:
    """Say what the engine is."""
    info = _info(pool)
    version = pool._engine.get("/version", what="ask for the engine's version")
    components = [str(each.get("Name", "")) for each in version.get("Components") or ()]
    rootless = any("rootless" in each for each in info.get("SecurityOptions") or ())
    facts = {
        "name": "Podman" if any("Podman" in each for each in components) else "Docker",
        "version": version.get("Version", ""),
        "api": version.get("ApiVersion", ""),
        "spoken_api": str(pool.client.api.api_version),
        "platform": f"{version.get('Os', '')}/{version.get('Arch', '')}",
        "storage": info.get("Driver", ""),
        "rootless": rootless,
    }
    text = (
        f"{facts['name']} {facts['version']}, API {facts['api']} (spoken here: {facts['spoken_api']}), "
        f"{facts['platform']}, storage {facts['storage']}, {'rootless' if rootless else 'not rootless'}"
    )
    return Finding(what="engine", ok=True, text=text, facts=facts)


def _disk(pool: Pool) -> Finding:
    """Say how much room is left where the engine keeps its data, if that is a folder of this machine."""
    root = str(_info(pool).get("DockerRootDir") or "")
    try:
        if not pool._engine.endpoint.is_local or not root:
            raise FileNotFoundError
        free = shutil.disk_usage(root).free
    except OSError:
        return Finding(what="disk", ok=None, text="the engine's data are not to be seen from here")
    text = f"{free / 1e9:.1f} GB free in {root}"
    is_enough = free >= SMALLEST_DISK
    if not is_enough:
        text += "; make room: docker system df says what takes it"
    return Finding(what="disk", ok=is_enough, text=text, facts={"folder": root, "free_bytes": free})


def _leftovers(pool: Pool) -> Finding:
    """Count what there is, by whether its session lives."""
    counts = Counter(each["standing"] for each in _inventory.inventory(pool))
    text = ", ".join(f"{count} {standing}" for standing, count in sorted(counts.items())) or "nothing"
    text = f"containers and networks of dockertest's by their session: {text}"
    if counts["dead"]:
        text += "; the dead are removed by dockertest prune, and by the next session that starts something"
    return Finding(what="leftovers", ok=None if counts["dead"] else True, text=text, facts={"counts": counts})


def _trial(pool: Pool) -> Iterator[Finding]:
    """Start something small, see whether it is reached from here, and have the reaper remove it."""
    found = _at_hand(pool)
    if found is None:
        names = ", ".join((*SHELLS.images, *SERVERS))
        yield Finding(
            what="port",
            ok=None,
            text=f"not tried, since no image is at hand that starts by itself: one of {names}",
        )
        yield _checked("reaper", lambda: _reaper_starts(pool))
        return
    image, service = found
    is_shell = service is SHELLS
    try:
        resource = pool.run(
            image,
            entrypoint=["sh", "-c"] if is_shell else [],
            cmd=[GREET] if is_shell else [],
            exposed_ports=[service.port],
            pull="never",
        )
    except DockertestError as error:
        yield Finding(what="container", ok=False, text=str(error))
        return
    with resource:
        yield _checked("port", lambda: _reached(resource, service))
        yield _checked("reaper", lambda: _reaped(pool, resource))


def _at_hand(pool: Pool) -> tuple[str, Service] | None:
    """Give the most harmless of the images that are there, and how it is known to answer."""
    found = []
    for each in pool._engine.get("/images/json", what="list images"):
        for tag in each.get("RepoTags") or ():
            if service := _harmless(tag):
                found.append((service is not SHELLS, each["Size"], tag, service))
    return min(found, key=lambda each: each[:3])[2:] if found else None


def _harmless(tag: str) -> Service | None:
    """Give how an image is known to answer, if it can be started without a setting."""
    try:
        last = _reference.reference("image", tag).repository.rpartition("/")[2]
    except InvalidOptionError:  # an image without a name is listed with one that is none
        return None
    if last in SHELLS.images:
        return SHELLS
    return _services.find(tag, {}) if last in SERVERS else None


def _reached(resource: Resource, service: Service) -> Finding:
    began = time.monotonic()
    at = resource.get_bound_ip(service.port), resource.get_port(service.port)
    resource.retry(lambda: service.is_serving(at, {}))
    elapsed = time.monotonic() - began
    where = resource.get_host_port(service.port)
    text = f"published now, and reached from here at {where} after {elapsed:.1f} s ({resource._image})"
    return Finding(what="port", ok=True, text=text, facts={"address": where, "image": resource._image})


def _reaped(pool: Pool, resource: Resource) -> Finding:
    if not pool.reaper:
        return _turned_off()
    resource.expire(0)
    _retry.retry(lambda: resource.status == "removed", max_wait=MAX_WAIT)
    return Finding(what="reaper", ok=True, text="it has removed that container")


def _reaper_starts(pool: Pool) -> Finding:
    if not pool.reaper:
        return _turned_off()
    pool._begin()
    if not pool._lifeline.has_reaper:
        raise EngineError("the reaper does not start; what a killed process leaves has to be removed by hand")
    return Finding(what="reaper", ok=True, text="it starts")


def _turned_off() -> Finding:
    text = "turned off by DOCKERTEST_REAPER=0; what a killed process leaves is removed by the next session"
    return Finding(what="reaper", ok=None, text=text)
