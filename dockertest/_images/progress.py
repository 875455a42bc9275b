"""
The progress of a pull, read from the engine's messages.

It is passed to the caller, the log or a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from dockertest import _clock
from dockertest._public import public

log = logging.getLogger("dockertest")

INTERVAL_SECONDS = 5.0  # between two lines


@public
@dataclass(frozen=True, slots=True)
class PullProgress:
    """
    The progress of a pull.

    Attributes:
        image: The image's name.
        layers_done: The number of complete layers.
        layers: The number of layers known so far.
        bytes_done: Bytes downloaded so far.
        bytes: Bytes to download, as far as the engine reports them; never less than `bytes_done`.
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
    """The layers of an image, as the engine has reported them so far."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, _Layer] = {}

    def update(self, event: Mapping[str, Any]) -> bool:
        """Add a message of the engine, and return whether it was about a layer."""
        status, layer_id = event.get("status"), event.get("id")
        if status not in _STATUSES or not layer_id:
            return False
        layer = self._layers.setdefault(str(layer_id), _Layer())
        detail = event.get("progressDetail")
        if status == "Downloading" and isinstance(detail, dict):
            layer.current = _bytes(detail.get("current")) or layer.current
            layer.total = _bytes(detail.get("total")) or layer.total  # newer engines may leave it out
        elif status in ("Download complete", "Pull complete", "Already exists"):
            layer.current = layer.total = max(layer.current, layer.total)
            layer.done = status != "Download complete"
        return True

    def finish(self) -> bool:
        """
        Mark all layers as done, and return whether there are any.

        Not every engine reports that each layer is done.
        """
        for layer in self._layers.values():
            layer.current = layer.total = max(layer.current, layer.total)
            layer.done = True
        return bool(self._layers)

    def progress(self) -> PullProgress:
        """Return the sums over all layers."""
        layers = self._layers.values()
        return PullProgress(
            image=self._image,
            layers_done=sum(layer.done for layer in layers),
            layers=len(layers),
            bytes_done=sum(layer.current for layer in layers),
            bytes=sum(max(layer.current, layer.total) for layer in layers),
        )


def _bytes(value: object) -> int:
    """
    Return a number of bytes, 0 if it is missing or invalid.

    An invalid number must not stop a pull.
    """
    return value if isinstance(value, int) and value > 0 else 0


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
def default_display(image: str) -> Iterator[OnProgress]:
    """
    Provide the default callback, which shows the progress of a pull.

    It logs a line every few seconds. On a terminal it also draws a bar, or prints lines if tqdm is not installed.
    """
    log_line = _throttle(lambda progress: log.info("pulling %s: %s", image, progress))
    if not _is_terminal():
        yield log_line
        return
    with _bar(image) as draw:

        def log_and_draw(progress: PullProgress) -> None:
            log_line(progress)
            draw(progress)

        yield log_and_draw


def _throttle(show: OnProgress) -> OnProgress:
    """Return a callback that calls *show* every few seconds, but not at once."""
    last = _clock.monotonic()

    def on_progress(progress: PullProgress) -> None:
        nonlocal last
        if _clock.monotonic() - last >= INTERVAL_SECONDS:
            last = _clock.monotonic()
            show(progress)

    return on_progress


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, as under pythonw, or it is closed
        return False


@contextmanager
def _bar(image: str) -> Iterator[OnProgress]:
    try:
        from tqdm import tqdm
    except ImportError:
        with _lines(image) as show:
            yield show
        return
    bar = _without_thread(tqdm, os.getpid())(
        desc=f"pulling {image}", unit="B", unit_scale=True, leave=False, miniters=0, file=sys.stderr
    )

    def draw(progress: PullProgress) -> None:
        bar.total, bar.n = progress.bytes or None, progress.bytes_done
        bar.set_postfix_str(f"{progress.layers_done}/{progress.layers} layers", refresh=False)
        with suppress(OSError):  # a closed terminal does not stop the pull
            bar.update(0)

    try:
        yield draw
    finally:
        with suppress(OSError):
            bar.close()


@cache
def _without_thread(tqdm: type, _process: int) -> Any:
    """
    Return tqdm without its thread and without its lock for processes.

    The thread would keep running, and each later fork would cause a warning. A forked child has a lock of its own: a
    thread of its parent may hold the other.
    """
    return type("Bar", (tqdm,), {"monitor_interval": 0, "_lock": threading.RLock()})


@contextmanager
def _lines(image: str) -> Iterator[OnProgress]:
    _print(f"pulling {image}")
    yield _throttle(lambda progress: _print(f"pulling {image}: {progress}"))
    _print(f"pulled {image}")


def _print(line: str) -> None:
    with suppress(OSError):  # a closed terminal does not stop the pull
        print(line, file=sys.stderr, flush=True)
