"""Images: is it there, and if not, pull it. Knows nothing of containers."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dockertest._engine import Engine
from dockertest._options import AuthConfig, PullPolicy
from dockertest._specs import Reference
from dockertest.errors import EngineError, ImagePullError

log = logging.getLogger("dockertest")

Image = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PullProgress:
    """
    How far a pull is.

    Attributes:
        image: The image's name.
        layers_done: Layers that are complete.
        layers: Layers known so far.
        bytes_done: Bytes downloaded.
        bytes: Bytes to download, as far as the engine says.
    """

    image: str
    layers_done: int
    layers: int
    bytes_done: int
    bytes: int


OnProgress = Callable[[PullProgress], object]


def obtain(
    engine: Engine,
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
    found = None if pull == "always" and not name.is_id else inspect(engine, name)
    if found and (pull == "never" or _fits(found, platform)):
        return found
    if pull == "never":
        raise ImagePullError(
            f"image {str(name)!r} is not on the engine, and pull='never' forbids to fetch it"
        )
    if name.is_id:
        raise ImagePullError(f"image {str(name)!r} is not on the engine, and an id cannot be pulled")
    _pull(engine, name, platform, auth, on_progress or _log_progress())
    found = inspect(engine, name)
    if not found:
        raise ImagePullError(f"image {str(name)!r} was pulled, but the engine does not have it")
    return found


def inspect(engine: Engine, name: Reference) -> Image | None:
    """Give the engine's inspection of an image that it has, else `None`."""
    try:
        found: Image = engine.get(f"/images/{name}/json", what=f"inspect image {str(name)!r}")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return found


def _fits(image: Mapping[str, Any], platform: str) -> bool:
    """Whether an image at hand is of the platform asked for, as far as both say."""
    have = [image.get("Os"), image.get("Architecture"), image.get("Variant")]
    want = platform.lower().split("/") if platform else []
    return all(not h or not w or h.lower() == w for h, w in zip(have, want, strict=False))


def _pull(
    engine: Engine, name: Reference, platform: str, auth: AuthConfig | None, on_progress: OnProgress
) -> None:
    log.info("pulling %s", name)
    layers: dict[str, _Layer] = {}
    for event in _events(engine, name, platform, auth):
        if "errorDetail" in event or "error" in event:
            said = (event.get("errorDetail") or {}).get("message") or event.get("error")
            raise ImagePullError(f"cannot pull image {str(name)!r}: {said}")
        if _follow(layers, event):
            done = [each for each in layers.values() if each.done]
            on_progress(
                PullProgress(
                    image=str(name),
                    layers_done=len(done),
                    layers=len(layers),
                    bytes_done=sum(each.current for each in layers.values()),
                    bytes=sum(each.total for each in layers.values()),
                )
            )
    log.info("pulled %s", name)


@dataclass
class _Layer:
    current: int = 0
    total: int = 0
    done: bool = False


def _follow(layers: dict[str, _Layer], event: Mapping[str, Any]) -> bool:
    """Take note of one line of the engine's; say whether it was about a layer."""
    status, layer_id = str(event.get("status", "")), event.get("id")
    if status == "Pulling fs layer" and layer_id:
        layers.setdefault(layer_id, _Layer())
    layer = layers.get(layer_id or "")
    if layer is None:
        return False
    detail = event.get("progressDetail") or {}
    if status == "Downloading":
        layer.current = int(detail.get("current") or layer.current)
        layer.total = max(int(detail.get("total") or 0), layer.total, layer.current)
    elif status in ("Download complete", "Pull complete", "Already exists"):
        layer.current = layer.total
        layer.done = status != "Download complete"
    return True


def _events(
    engine: Engine, name: Reference, platform: str, auth: AuthConfig | None
) -> Iterator[dict[str, Any]]:
    """
    Give the lines of a pull as the engine tells them.

    The docker SDK's own `pull` has no limit of time, and its high-level one throws these lines away, errors and all.
    """
    what = f"pull image {str(name)!r}"
    params = {"fromImage": name.repository, "tag": name.digest or name.tag}
    if platform:
        params["platform"] = platform
    headers = {"X-Registry-Auth": _auth_header(auth)} if auth else {}
    try:
        response = engine.send(
            "post",
            "/images/create",
            what=what,
            params=params,
            headers=headers,
            stream=True,
            error=ImagePullError,
        )
        yield from engine.messages(response, what)
    except EngineError as error:
        raise ImagePullError(str(error)) from error


def _auth_header(auth: AuthConfig) -> str:
    said = {
        "username": auth.username,
        "password": auth.password,
        "serveraddress": auth.server_address,
        "identitytoken": auth.identity_token,
    }
    return base64.urlsafe_b64encode(json.dumps({k: v for k, v in said.items() if v}).encode()).decode()


def _log_progress() -> OnProgress:
    """Log how far a pull is, every few seconds."""
    told = time.monotonic()

    def on_progress(progress: PullProgress) -> None:
        nonlocal told
        if time.monotonic() - told >= 5:
            told = time.monotonic()
            log.info(
                "pulling %s: %d of %d layers, %.1f of %.1f MB",
                progress.image,
                progress.layers_done,
                progress.layers,
                progress.bytes_done / 1e6,
                progress.bytes / 1e6,
            )

    return on_progress
