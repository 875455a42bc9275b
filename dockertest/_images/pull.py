"""
The images of one engine: find, pull, build and remove them.

This module does not depend on containers.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from dockertest import _clock, _report
from dockertest._engine.client import EngineClient, is_read_timeout
from dockertest._engine.inspection import Image, parse_image
from dockertest._image_name import ImageName
from dockertest._images import build as _build
from dockertest._images import credentials as _credentials
from dockertest._images import progress as _progress
from dockertest._images.credentials import Credentials, Login
from dockertest._images.progress import OnProgress
from dockertest._images.single_flight import SingleFlight
from dockertest._options import AuthConfig, BuildOptions, PullPolicy
from dockertest._secret import SecretDict
from dockertest._timeline import Timeline
from dockertest.errors import DockertestError, DockerUnavailableError, EngineError, ImagePullError

log = logging.getLogger("dockertest")


class ImageStore:
    """
    The images of one engine, and how to get those that it lacks.

    Args:
        engine: The engine.
        credentials: The registry credentials for calls without `auth`.
        timeline: Where pulls are recorded.
        environ: The environment that programs for a build are started with.

    Attributes:
        own_names: The names that this store's pool has given to images, which need no prefix.
    """

    def __init__(
        self,
        engine: EngineClient,
        credentials: Credentials,
        timeline: Timeline,
        environ: Mapping[str, str],
    ) -> None:
        self.own_names: set[ImageName] = set()
        self._engine = engine
        self._credentials = credentials
        self._timeline = timeline
        self._environ = SecretDict(environ)
        self._pulls: SingleFlight[None] = SingleFlight()

    def obtain(
        self,
        name: ImageName,
        *,
        pull: PullPolicy = "missing",
        platform: str = "",
        auth: AuthConfig | None = None,
        on_progress: OnProgress | None = None,
    ) -> Image:
        """
        Return an image, pulled if *pull* requires it.

        Args:
            name: The image's name.
            pull: When to pull.
            platform: The platform, such as `"linux/arm64"`; any if empty. A local image of another one is pulled again.
            auth: Credentials for the image's registry.
            on_progress: Called with the progress of a pull; by default it is logged, and shown on a terminal.

        Raises:
            ImagePullError: The image is not available locally and cannot be pulled.
        """
        image = None if pull == "always" and not name.is_id else self._local(name, platform)
        if not image and pull == "never":
            image = self.inspect(name)
        if image:
            return image
        if pull == "never":
            raise ImagePullError(
                f"image {str(name)!r} is not available locally, and pull='never'",
                hint="pull or build it first, or use pull='missing'",
            )
        if name.is_id:
            raise ImagePullError(
                f"image {str(name)!r} is not available locally, and an id cannot be pulled",
                hint="use the name of the image",
            )

        def fetch() -> None:
            # Another thread may have pulled it since we looked.
            if pull == "always" or not self._local(name, platform):
                self._pull(name, platform, auth, on_progress)

        self._pulls.call((str(name), platform, auth), fetch)
        image = self._local(name, platform) or self.inspect(name)
        if not image:
            raise ImagePullError(
                f"image {str(name)!r} was pulled, but the engine does not have it",
                hint="if another process has just removed it, try again",
            )
        return image

    def inspect(self, name: ImageName) -> Image | None:
        """Return a local image, `None` if there is none of that name."""
        return self._inspect(str(name))

    def _local(self, name: ImageName, platform: str) -> Image | None:
        """
        Return the local image for a platform; `None` if there is none.

        An engine with the image store of containerd may have an image for several platforms. It describes the one of its host,
        unless it is asked for another, and nothing of an image that it has for other platforms only.
        """
        image = self.inspect(name)
        if not image or self._engine.is_podman or self._engine.api_version < _DESCRIBES_PLATFORMS:
            return image if image and _fits(image, platform) else None
        system, architecture, variant = (*_parts(platform), "", "", "")[:3]
        if not architecture:
            return image if any(image.platform) or image.attrs.get("Config") else None
        described = {"os": system or "linux", "architecture": architecture, "variant": variant}
        other = self._inspect(str(name), {"platform": json.dumps(described)})
        return replace(other, id=image.id) if other else None

    def find_by_id(self, name: ImageName) -> ImageName | None:
        """
        Return the id of a local image if *name* is the beginning of it.

        *name* may be the name or the id of an image. An image that is found by its id needs no pull.

        Returns:
            The whole id; `None` if no local image has it.
        """
        # Podman rejects a whole id without its algorithm.
        is_whole = len(name.repository) == 64
        image = self._inspect(f"sha256:{name.repository}" if is_whole else name.repository)
        # An image of that name takes precedence for the engine.
        is_id = image and image.id.removeprefix("sha256:").startswith(name.repository)
        return ImageName(image.id) if image and is_id else None

    def _inspect(self, name: str, params: Mapping[str, object] | None = None) -> Image | None:
        try:
            image: Image = self._engine.get_images(
                f"/images/{name}/json", what=f"inspect image {name!r}", params=params, parse=parse_image
            )
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return image

    def build(self, options: BuildOptions, name: ImageName, labels: Mapping[str, str]) -> str:
        """
        Build an image and return its id.

        The id is returned because the name may soon refer to another image.

        Args:
            labels: Our own labels, in addition to the user's.

        Raises:
            ImageBuildError: The build failed; the message ends with its last lines of output.
            InvalidOptionError: An option cannot work with this builder or this Dockerfile.
        """
        image = _build.build(self._engine, options, name, self._credentials, self._environ, labels)
        self.own_names.add(name)
        return image

    def remove(self, name: ImageName, image: str) -> None:
        """
        Remove a built image, and log a failure.

        It is removed by its name, because images that were built from the same cache share one id. If another build has taken
        the name, it is removed by its id, *image*.
        """
        try:
            named = self._inspect(str(name))
            is_named = named and named.id.removeprefix("sha256:") == image.removeprefix("sha256:")
            target = str(name) if is_named else image
            self._engine.send("delete", f"/images/{target}", what=f"remove image {str(name)!r}")
        except DockertestError as error:
            if getattr(error, "status", None) != 404:
                log.warning("%s", error)

    def _pull(
        self, name: ImageName, platform: str, auth: AuthConfig | None, on_progress: OnProgress | None
    ) -> None:
        login = self._login(name, auth)
        layers = _progress.Layers(str(name))
        log.info("pulling %s", name)
        began = _clock.monotonic()
        # The caller's callback is outside of everything that translates errors, and if it fails the engine stops pulling.
        with (
            self._timeline.step("pull", str(name)),
            closing(_events(self._engine, name, platform, login)) as events,
            nullcontext(on_progress) if on_progress else _progress.default_display(str(name)) as show,
        ):
            for event in events:
                if layers.update(event):
                    show(layers.progress())
            if layers.finish():
                show(layers.progress())
        log.info("pulled %s in %.1f s", name, _clock.monotonic() - began)

    def _login(self, name: ImageName, auth: AuthConfig | None) -> Login | None:
        """
        Return the credentials for a pull.

        Those of the call are used if they are for this registry, otherwise the configured ones.
        """
        registry = _credentials.hostname(name.registry)
        target = _credentials.hostname(auth.server_address or name.registry) if auth else registry
        if target != registry:
            log.warning("auth= is for %s and is not sent to %s, the registry of %s", target, registry, name)
        elif auth:
            return Login(_credentials.with_server(auth, registry), "auth=")
        return self._credentials.find(registry)


_DESCRIBES_PLATFORMS = (1, 49)  # the API version that can describe an image for a platform
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


def _fits(image: Image, platform: str) -> bool:
    """
    Return whether a local image has the requested platform, as far as known.

    A part that is unknown on either side matches. The requested platform may be an architecture alone.
    """
    return all(
        not actual or not part or actual.lower() == part
        for actual, part in zip(image.platform, _parts(platform), strict=False)
    )


def _parts(platform: str) -> list[str]:
    """
    Return system, architecture and variant of a platform, as far as it names them.

    The system may be empty.
    """
    parts = platform.lower().split("/")
    if len(parts) == 1 and parts[0] not in ("linux", "windows"):
        parts.insert(0, "")
    return [_ARCHITECTURES.get(part, part) for part in parts]


def _events(
    engine: EngineClient, name: ImageName, platform: str, login: Login | None
) -> Generator[dict[str, Any], None, None]:
    """
    Pull, and yield the engine's messages about it.

    The docker SDK's low-level `pull` has no timeout, and its high-level one discards the messages, errors included.
    """
    what = f"pull image {str(name)!r}"
    params = {"fromImage": name.repository, "tag": name.digest or name.tag}
    if platform:
        params["platform"] = platform
    failure, cause = None, None
    try:
        response = engine.send(
            "post",
            "/images/create",
            what=what,
            params=params,
            headers={"X-Registry-Auth": _credentials.pull_header(login.auth)} if login else {},
            stream=True,
            error=ImagePullError,
        )
        with response:
            for event in engine.messages(response, what):
                if not isinstance(event, dict):
                    continue
                if "errorDetail" in event or "error" in event:
                    detail = event.get("errorDetail")
                    words = detail.get("message") if isinstance(detail, dict) else None
                    raise ImagePullError(f"cannot {what}: {words or event.get('error') or detail}")
                yield event
    except DockertestError as error:
        failure = _explain(error, name, login)
        # With credentials, the transport's own error is left out: the variables of its frames contain the headers.
        cause = None if login else error.__cause__
    if failure:
        raise failure from cause


def _explain(error: DockertestError, name: ImageName, login: Login | None) -> DockertestError:
    """Return the error for a pull that failed, with a hint."""
    if isinstance(error, DockerUnavailableError):
        return copy.copy(error)
    stalled = isinstance(error, EngineError) and is_read_timeout(error)
    message = _report.clean(str(error.args[0]), newline=" ")
    hint = _hint(_STALLED if stalled else _remedy(message), name, login)
    return ImagePullError(message, hint=hint or error.hint, reason=error.reason)


_STALLED = "most likely it waits for the registry {where}; check that the engine can reach it, or set a longer timeout for the pool"
_UNREACHABLE = "the engine cannot reach the registry {where}: "

# A hint, and the words of engines and registries that it is for. All have a blank or a sign in them: single words are
# in the names of images, too.
_REMEDIES = {
    "{where} limits the number of pulls; log in, or name a mirror in image_prefix or DOCKERTEST_IMAGE_PREFIX": (
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
    "{where} speaks plain HTTP; add it to insecure-registries in the engine's configuration": (
        "http response to https client",
    ),
    "the engine does not trust {where}; copy its CA to /etc/docker/certs.d/{host}/ca.crt on the engine's host": (
        "x509: ",
        "failed to verify certificate",
    ),
    _UNREACHABLE + "no name server answers; check the name resolution of the engine's host{mirror}": (
        ": dial udp ",
        ": read udp ",
    ),
    _UNREACHABLE + "no answer; check the network and the proxy of the engine's host{mirror}": (
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
    _UNREACHABLE + "host not found; check the name{mirror}": (
        "no such host",
        "name resolution",
        "server misbehaving",
    ),
    _UNREACHABLE
    + "nothing listens at this address on the engine's host; start it, or correct the address{mirror}": (
        "connection refused",
    ),
    "the image does not exist for this platform; choose another one with platform=": (
        "no matching manifest",
        "no match for platform in manifest",
        "no image found in manifest list",
        "no image found in image index",
    ),
    "the registry {where} has no repository {path!r}, or the repository has no such {part}; check the name": (
        "manifest unknown",
        "name unknown",
        "name not known to registry",
        ": not found",
    ),
    "the disk of the engine's host is full; free some space there": ("no space left on device",),
}


def _remedy(message: str) -> str:
    """Return the template of the hint for a message, empty if it is unknown."""
    message = message.lower()
    return next(
        (remedy for remedy, phrases in _REMEDIES.items() if any(phrase in message for phrase in phrases)), ""
    )


def _hint(template: str, name: ImageName, login: Login | None) -> str:
    """Fill in the template of a hint."""
    host = _credentials.hostname(name.registry)
    where, command = (
        ("Docker Hub", "docker login") if host == _credentials.HUB else (host, f"docker login {host}")
    )
    credentials = f"set auth=AuthConfig(username, password), or log in with: {command}"
    if login:
        credentials = f"{where} rejected the credentials from {login.source}; correct them, or log in again with: {command}"
    return template.format(
        host=host,
        where=where,
        credentials=credentials,
        path=name.repository.removeprefix(f"{name.registry}/"),
        part="digest" if name.digest else "tag",
        mirror=""
        if name.registry
        else ", or name a registry that it can reach in image_prefix or DOCKERTEST_IMAGE_PREFIX",
    )
