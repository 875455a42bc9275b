"""How far a pull is: read from what the engine says, and told to the caller, the log or a terminal."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

log = logging.getLogger("dockertest")

SECONDS = 5.0  # between two lines


@dataclass(frozen=True, slots=True)
class PullProgress:
    """
    How far a pull is.

    Attributes:
        image: The image's name.
        layers_done: Layers that are complete.
        layers: Layers known so far.
        bytes_done: Bytes downloaded.
        bytes: Bytes to download, as far as the engine says; never less than `bytes_done`.
    """

    image: str
    layers_done: int
    layers: int
    bytes_done: int
    bytes: int

    def __str__(self) -> str:
        size = f"{self.bytes_done / 1e6:.1f}"
        if self.bytes > self.bytes_done:
            size += f" of {self.bytes / 1e6:.1f}"
        return f"{self.layers_done} of {self.layers} layers, {size} MB"


OnProgress = Callable[[PullProgress], object]


@dataclass
class _Layer:
    current: int = 0
    total: int = 0
    done: bool = False


class Layers:
    """What the engine has said so far of an image's layers."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, _Layer] = {}

    def follow(self, event: Mapping[str, Any]) -> bool:
        """Take note of one line of the engine's; say whether it was about a layer."""
        status, layer_id = event.get("status"), event.get("id")
        if status not in _STATUSES or not layer_id:
            return False
        layer = self._layers.setdefault(str(layer_id), _Layer())
        detail = event.get("progressDetail") or {}
        if status == "Downloading":
            layer.current = int(detail.get("current") or layer.current)
            layer.total = int(detail.get("total") or layer.total)  # newer engines may leave it out
        elif status in ("Download complete", "Pull complete", "Already exists"):
            layer.current = layer.total = max(layer.current, layer.total)
            layer.done = status != "Download complete"
        return True

    def finish(self) -> bool:
        """Take all layers for done, which not every engine says of each; say whether there are any."""
        for layer in self._layers.values():
            layer.current = layer.total = max(layer.current, layer.total)
            layer.done = True
        return bool(self._layers)

    def progress(self) -> PullProgress:
        """Give the sum of it."""
        layers = self._layers.values()
        return PullProgress(
            image=self._image,
            layers_done=sum(each.done for each in layers),
            layers=len(layers),
            bytes_done=sum(each.current for each in layers),
            bytes=sum(max(each.current, each.total) for each in layers),
        )


_STATUSES = (
    "Pulling fs layer",
    "Waiting",
    "Downloading",
    "Verifying Checksum",
    "Download complete",
    "Extracting",
    "Pull complete",
    "Already exists",
)


@contextmanager
def shown(image: str) -> Iterator[OnProgress]:
    """
    Give what shows the progress of a pull where the caller does not: a log line now and then, and on a terminal a bar,
    or lines where tqdm is not installed.
    """
    logged = _now_and_then(lambda progress: log.info("pulling %s: %s", image, progress))
    if not _is_terminal():
        yield logged
        return
    with _bar(image) as bar:

        def both(progress: PullProgress) -> None:
            logged(progress)
            bar(progress)

        yield both


def _now_and_then(tell: OnProgress) -> OnProgress:
    last = time.monotonic()

    def on_progress(progress: PullProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            tell(progress)

    return on_progress


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # none at all, as under pythonw, or a closed one
        return False


@contextmanager
def _bar(image: str) -> Iterator[OnProgress]:
    try:
        from tqdm import tqdm
    except ImportError:
        with _lines(image) as lines:
            yield lines
        return
    bar = _quiet(tqdm)(
        desc=f"pulling {image}", unit="B", unit_scale=True, leave=False, miniters=0, file=sys.stderr
    )

    def show(progress: PullProgress) -> None:
        bar.total, bar.n = progress.bytes or None, progress.bytes_done
        bar.set_postfix_str(f"{progress.layers_done}/{progress.layers} layers", refresh=False)
        with suppress(OSError):  # a terminal that has gone away stops no pull
            bar.update(0)

    try:
        yield show
    finally:
        with suppress(OSError):
            bar.close()


@cache
def _quiet(tqdm: type) -> Any:
    """Do without tqdm's own thread, which stays behind and makes every later fork warn, and its lock of processes."""
    return type("Bar", (tqdm,), {"monitor_interval": 0, "_lock": threading.RLock()})


@contextmanager
def _lines(image: str) -> Iterator[OnProgress]:
    _print(f"pulling {image}")
    yield _now_and_then(lambda progress: _print(f"pulling {image}: {progress}"))
    _print(f"pulled {image}")


def _print(line: str) -> None:
    with suppress(OSError):  # a terminal that has gone away stops no pull
        print(line, file=sys.stderr, flush=True)
