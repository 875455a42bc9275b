"""Images: is it there, and if not, pull it. Knows nothing of containers."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import closing, nullcontext
from typing import Any

from dockertest._engine.client import Engine
from dockertest._image_name import Reference
from dockertest._images import credentials as _credentials
from dockertest._images import progress as _progress
from dockertest._images.credentials import Credentials, Login
from dockertest._images.progress import OnProgress
from dockertest._timeline import Timeline
from dockertest._values import AuthConfig, PullPolicy
from dockertest.errors import EngineError, ImagePullError

log = logging.getLogger("dockertest")

Image = dict[str, Any]


class Images:
    """
    The images of one engine, and how it comes by those that it lacks.

    Args:
        engine: The engine.
        credentials: What is known of registries besides what a call says.
        timeline: Where each pull is noted.
    """

    def __init__(self, engine: Engine, credentials: Credentials, timeline: Timeline) -> None:
        self._engine = engine
        self._timeline = timeline
        self._credentials = credentials
        self._lock = threading.Lock()
        self._pulls: dict[object, Future[None]] = {}

    def obtain(
        self,
        name: Reference,
        *,
        pull: PullPolicy = "missing",
        platform: str = "",
        auth: AuthConfig | None = None,
        on_progress: OnProgress | None = None,
    ) -> Image:
        """
        Give the engine's inspection of the image, pulled if *pull* says so.

        Raises:
            ImagePullError: It is not there and cannot be pulled.
        """
        found = None if pull == "always" and not name.is_id else inspect(self._engine, name)
        if found and (pull == "never" or _fits(found, platform)):
            return found
        if pull == "never":
            raise ImagePullError(
                f"image {str(name)!r} is not on the engine, and pull='never' forbids to fetch it"
            )
        if name.is_id:
            raise ImagePullError(f"image {str(name)!r} is not on the engine, and an id cannot be pulled")

        def fetch() -> None:
            # Another thread may have pulled it since we looked.
            there = None if pull == "always" else inspect(self._engine, name)
            if not there or not _fits(there, platform):
                self._pull(name, platform, auth, on_progress)

        self._once((str(name), platform, auth), fetch)
        found = inspect(self._engine, name)
        if not found:
            raise ImagePullError(f"image {str(name)!r} was pulled, but the engine does not have it")
        return found

    def _once(self, what: object, pull: Callable[[], None]) -> None:
        """Pull, unless another thread is at it: then wait, and share how it ends."""
        key = (os.getpid(), what)  # a forked child has its parent's list, but not its threads
        with self._lock:
            is_mine = key not in self._pulls
            future = self._pulls.setdefault(key, Future())
        if not is_mine:
            try:
                return future.result()
            except ImagePullError as error:
                raise ImagePullError(str(error)) from error
            except CancelledError:  # by Ctrl-C, or by a failure of that thread's own callback
                return self._once(what, pull)
        try:
            pull()
            future.set_result(None)
        except ImagePullError as error:
            future.set_exception(error)
            raise
        finally:
            del self._pulls[key]
            future.cancel()  # does nothing if it has ended
        return None

    def _pull(
        self, name: Reference, platform: str, auth: AuthConfig | None, on_progress: OnProgress | None
    ) -> None:
        login = self._login(name, auth)
        layers = _progress.Layers(str(name))
        log.info("pulling %s", name)
        began = time.monotonic()
        # The caller's callback stands outside of all that translates errors, and the engine is told to stop if it fails.
        with (
            self._timeline.step("pull", str(name)),
            closing(_events(self._engine, name, platform, login)) as events,
            nullcontext(on_progress) if on_progress else _progress.shown(str(name)) as show,
        ):
            for event in events:
                if layers.follow(event):
                    show(layers.progress())
            if layers.finish():
                show(layers.progress())
        log.info("pulled %s in %.1f s", name, time.monotonic() - began)

    def _login(self, name: Reference, auth: AuthConfig | None) -> Login | None:
        """Give the credentials to pull with: those of the call, if they are for this registry, else what is configured."""
        registry = _credentials.hostname(name.registry)
        meant = _credentials.hostname(auth.server_address or name.registry) if auth else registry
        if meant != registry:
            log.warning("auth= is for %s and is not sent to %s, where %s comes from", meant, registry, name)
        elif auth:
            return Login(auth, "auth=")
        return self._credentials.find(registry)


def inspect(engine: Engine, name: Reference) -> Image | None:
    """Give the engine's inspection of an image that it has, else `None`."""
    try:
        found: Image = engine.get(f"/images/{name}/json", what=f"inspect image {str(name)!r}")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return found


_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


def _fits(image: Mapping[str, Any], platform: str) -> bool:
    """Whether an image at hand is of the platform asked for, as far as both say; an architecture alone is enough."""
    have = [image.get("Os"), image.get("Architecture"), image.get("Variant")]
    want = platform.lower().split("/")
    if len(want) == 1 and want[0] not in ("linux", "windows"):
        want.insert(0, "")
    want = [_ARCHITECTURES.get(each, each) for each in want]
    return all(not h or not w or h.lower() == w for h, w in zip(have, want, strict=False))


def _events(
    engine: Engine, name: Reference, platform: str, login: Login | None
) -> Generator[dict[str, Any], None, None]:
    """
    Give the lines of a pull as the engine tells them.

    The docker SDK's own `pull` has no limit of time, and its high-level one throws these lines away, errors and all.
    """
    what = f"pull image {str(name)!r}"
    params = {"fromImage": name.repository, "tag": name.digest or name.tag}
    if platform:
        params["platform"] = platform
    try:
        response = engine.send(
            "post",
            "/images/create",
            what=what,
            params=params,
            headers={"X-Registry-Auth": _credentials.header(login.auth)} if login else {},
            stream=True,
            error=ImagePullError,
        )
        with response:
            for event in engine.messages(response, what):
                if "errorDetail" in event or "error" in event:
                    said = (event.get("errorDetail") or {}).get("message") or event.get("error")
                    raise ImagePullError(f"cannot {what}: {said}")
                yield event
    except (EngineError, ImagePullError) as error:
        raise ImagePullError(f"{error}{_remedy(str(error), name, login)}") from error.__cause__


_UNREACHED = "the engine does not reach the registry {where}: "

# What then helps, and what engines say. Phrases with a blank or sign in them: single words are in images' names, too.
_REMEDIES = {
    "most likely it waits for the registry {where}; see that the engine reaches it, or give the pool a longer timeout": (
        "the engine did not answer within",
    ),
    "{where} allows only so many pulls; log in, or name a mirror in image_prefix": (
        "toomanyrequests: ",
        "too many requests",
        "rate limit",
    ),
    "check the name, or if the repository is private, {credentials}": (
        "pull access denied",
        "repository does not exist or may require",
    ),
    "{credentials}": (
        "no basic auth credentials",
        "unauthorized: ",
        "401 unauthorized",
        "authentication required",
        "authorization failed",
        "denied: ",
        "403 forbidden",
        "invalid username/password",
        "incorrect username or password",
    ),
    "{where} speaks plain HTTP; mark it as insecure in the engine's configuration": (
        "http response to https client",
    ),
    "the engine does not trust {where}; put its CA into /etc/docker/certs.d/{host}/ca.crt on the engine's host": (
        "x509: ",
        "failed to verify certificate",
    ),
    _UNREACHED + "it gets no answer; check network and proxy of the engine's host{mirror}": (
        "proxyconnect ",
        "i/o timeout",
        "client.timeout exceeded",
        "deadline exceeded",
        "handshake timeout",
        "network is unreachable",
        "no route to host",
        "connection reset by peer",
        '": eof',
    ),
    _UNREACHED + "it finds no such host; check the name{mirror}": (
        "no such host",
        "name resolution",
        "server misbehaving",
    ),
    _UNREACHED
    + "nothing listens there, as the engine's host sees it; start it, or correct its address{mirror}": (
        "connection refused",
    ),
    "the image is not there for this platform; choose another with platform=": (
        "no matching manifest",
        "no image found in manifest list",
    ),
    "the registry {where} has no repository {path!r}, or no such {part} in it; check the name": (
        "manifest unknown",
        "name unknown",
        "name not known to registry",
        ": not found",
    ),
    "the disk of the engine's host is full; make room there": ("no space left on device",),
}


def _remedy(said: str, name: Reference, login: Login | None) -> str:
    """Give what helps against the failure of a pull, to stand behind the engine's own words."""
    said = said.lower()
    found = next((remedy for remedy, phrases in _REMEDIES.items() if any(p in said for p in phrases)), "")
    host = _credentials.hostname(name.registry)
    where, command = (
        ("Docker Hub", "docker login") if host == _credentials.HUB else (host, f"docker login {host}")
    )
    credentials = f"give auth=AuthConfig(username, password), or log in with: {command}"
    if login:
        credentials = f"{where} refused the credentials from {login.source}; correct them, or log in again with: {command}"
    found = found.format(
        host=host,
        where=where,
        credentials=credentials,
        path=name.repository.removeprefix(f"{name.registry}/"),
        part="digest" if name.digest else "tag",
        mirror="" if name.registry else ", or name a registry that it reaches in image_prefix",
    )
    return f"; {found}" if found else ""
