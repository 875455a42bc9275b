"""What a pool did and when, as data, as a table and as a picture. Knows nothing of the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape

_COLOURS = {
    "pull": "#8d99ae",
    "build": "#6d597a",
    "create": "#b5838d",
    "start": "#457b9d",
    "reuse": "#84a59d",
    "ready": "#e9c46a",
    "close": "#adb5bd",
}
KINDS = tuple(_COLOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    Something that a pool did.

    Attributes:
        kind: `"pull"`, `"build"`, `"create"`, `"start"`, `"reuse"` (one that ran already was taken), `"ready"` (the first
            successful wait for it, as by `Resource.retry`), `"close"`.
        image: The image's name.
        container: The container's full id; empty where there is none yet.
        name: The container's name, as it was known last.
        began: When it began, in seconds since 1970.
        seconds: How long it took.
        failed: Whether it ended in an error.
    """

    kind: str
    image: str
    container: str = ""
    name: str = ""
    began: float
    seconds: float
    failed: bool = False


class Timeline:
    """The steps of one pool, as they ended; written by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: list[Step] = []

    @contextmanager
    def step(self, kind: str, image: str) -> Iterator[dict[str, str]]:
        """Take note of what the body does; it fills in `container` and `name` once it knows them."""
        said: dict[str, str] = {}
        began, clock, failed = time.time(), time.monotonic(), True
        try:
            yield said
            failed = False
        finally:
            seconds = time.monotonic() - clock
            with self._lock:
                self._steps.append(
                    Step(kind=kind, image=image, began=began, seconds=seconds, failed=failed, **said)
                )

    def steps(self) -> list[Step]:
        """Give all steps by their beginning, each with the name that its container had last."""
        with self._lock:
            found = sorted(self._steps, key=lambda each: each.began)
        names = {each.container: each.name for each in found if each.name}
        return [replace(each, name=names.get(each.container, each.name)) for each in found]


def table(steps: Iterable[Step]) -> list[str]:
    """Give a table, a line for each container, the slowest first, in seconds."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for step in steps:
        row = rows.setdefault((step.image, step.name or step.container[:12]), dict.fromkeys(KINDS, 0.0))
        row[step.kind] += step.seconds
    if not rows:
        return []
    shown = [kind for kind in KINDS if any(row[kind] for row in rows.values())]
    width = max(len(f"{image} {name}") for image, name in rows)
    lines = [f"{'':{width}}" + "".join(f"{kind:>9}" for kind in shown) + f"{'all':>9}"]
    for (image, name), row in sorted(rows.items(), key=lambda each: -sum(each[1].values())):
        cells = "".join(f"{row[kind]:9.2f}" if row[kind] else f"{'':9}" for kind in shown)
        lines.append(f"{f'{image} {name}':{width}}{cells}{sum(row.values()):9.2f}")
    return lines


def picture(steps: Sequence[Step]) -> str:
    """Give a picture in SVG: a line for each container, time from left to right."""
    start = min((each.began for each in steps), default=0.0)
    end = max((each.began + each.seconds for each in steps), default=1.0)
    lines = list(dict.fromkeys((each.image, each.name or each.container[:12]) for each in steps))
    scale, left, height = 700 / max(end - start, 0.001), 260, 22
    shapes = [
        f'<text x="4" y="{index * height + 39}">{escape(f"{image} {name}"[:42])}</text>'
        for index, (image, name) in enumerate(lines)
    ]
    for each in steps:
        y = lines.index((each.image, each.name or each.container[:12])) * height + 26
        x, width = left + (each.began - start) * scale, max(each.seconds * scale, 1)
        told = f"{each.kind} {each.seconds:.2f} s{', failed' if each.failed else ''}"
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{_COLOURS[each.kind]}">'
            f"<title>{escape(told)}</title></rect>"
        )
    legend = "".join(
        f'<rect x="{left + index * 90}" y="6" width="10" height="10" fill="{colour}"/>'
        f'<text x="{left + 14 + index * 90}" y="15">{kind}</text>'
        for index, (kind, colour) in enumerate(_COLOURS.items())
    )
    total = len(lines) * height + 50
    axis = f'<text x="{left}" y="{total - 6}">0 s</text><text x="{left + 660}" y="{total - 6}">{end - start:.1f} s</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="980" height="{total}" font-family="sans-serif" '
        f'font-size="12">{legend}{"".join(shapes)}{axis}</svg>\n'
    )
