"""What a pool did and when, as data, as a table and as a drawing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape

from dockertest import _clock
from dockertest._public import public
from dockertest._report import clean

_COLOURS = {
    "pull": "#8d99ae",
    "build": "#6d597a",
    "create": "#b5838d",
    "start": "#457b9d",
    "reuse": "#84a59d",
    "prepare": "#2a9d8f",
    "compose": "#bc6c25",
    "ready": "#e9c46a",
    "close": "#adb5bd",
}
KINDS = tuple(_COLOURS)


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    Something that a pool did.

    Attributes:
        kind: `"pull"`, `"build"`, `"create"`, `"start"`, `"reuse"` (a running container was taken), `"prepare"` (a
            prepared image was made), `"compose"` (a project was started), `"ready"` (the first successful wait, as by
            `Resource.retry`) or `"close"`.
        image: The image's name.
        container: The container's full id; empty if there is none yet.
        name: The container's last known name.
        began: When it began, in seconds since 1970.
        seconds: How long it took.
        failed: Whether it raised an error.
    """

    kind: str
    image: str
    container: str = ""
    name: str = ""
    began: float
    seconds: float
    failed: bool = False


class Timeline:
    """
    The steps of one pool, in the order in which they ended.

    Any thread may add a step, and so may a signal handler.
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []
        # A wall clock that is set in between must not change the order of the steps.
        self._epoch = _clock.time() - _clock.monotonic()

    @contextmanager
    def step(self, kind: str, image: str) -> Iterator[dict[str, str]]:
        """
        Record what the body does.

        The body sets `container` and `name` in the dict once it knows them.
        """
        known: dict[str, str] = {}
        began, failed = _clock.monotonic(), True
        try:
            yield known
            failed = False
        finally:
            seconds, at = _clock.monotonic() - began, self._epoch + began
            self._steps.append(
                Step(kind=kind, image=image, began=at, seconds=seconds, failed=failed, **known)
            )

    def steps(self) -> list[Step]:
        """
        Return all steps in the order in which they began.

        Each has the last known name of its container.
        """
        steps = sorted(self._steps, key=lambda step: step.began)
        names = {step.container: step.name for step in steps if step.name}
        return [replace(step, name=names.get(step.container, step.name)) for step in steps]


def table(steps: Iterable[Step]) -> list[str]:
    """Return a table in seconds with a row for each container, the slowest first."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for step in steps:
        row = rows.setdefault(_row_of(step), dict.fromkeys(KINDS, 0.0))
        row[step.kind] += step.seconds
    if not rows:
        return []
    shown = [kind for kind in KINDS if any(row[kind] for row in rows.values())]
    width = max(len(f"{image} {name}") for image, name in rows)
    lines = [f"{'':{width}}" + "".join(f"{kind:>9}" for kind in shown) + f"{'all':>9}"]
    for (image, name), row in sorted(rows.items(), key=lambda entry: -sum(entry[1].values())):
        cells = "".join(f"{row[kind]:9.2f}" if row[kind] else f"{'':9}" for kind in shown)
        lines.append(f"{f'{image} {name}':{width}}{cells}{sum(row.values()):9.2f}")
    return lines


def picture(steps: Sequence[Step]) -> str:
    """Return an SVG drawing with a row for each container, time from left to right."""
    start = min((step.began for step in steps), default=0.0)
    end = max((step.began + step.seconds for step in steps), default=1.0)
    rows = list(dict.fromkeys(_row_of(step) for step in steps))
    scale, left, height = 700 / max(end - start, 0.001), 260, 22
    shapes = [
        f'<text x="4" y="{index * height + 39}">{escape(f"{image} {name}"[:42])}</text>'
        for index, (image, name) in enumerate(rows)
    ]
    for step in steps:
        y = rows.index(_row_of(step)) * height + 26
        x, width = left + (step.began - start) * scale, max(step.seconds * scale, 1)
        title = f"{step.kind} {step.seconds:.2f} s{', failed' if step.failed else ''}"
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{_COLOURS[step.kind]}">'
            f"<title>{escape(title)}</title></rect>"
        )
    legend = "".join(
        f'<rect x="{left + index * 80}" y="6" width="10" height="10" fill="{colour}"/>'
        f'<text x="{left + 14 + index * 80}" y="15">{kind}</text>'
        for index, (kind, colour) in enumerate(_COLOURS.items())
    )
    total = len(rows) * height + 50
    axis = f'<text x="{left}" y="{total - 6}">0 s</text><text x="{left + 660}" y="{total - 6}">{end - start:.1f} s</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="980" height="{total}" font-family="sans-serif" '
        f'font-size="12">{legend}{"".join(shapes)}{axis}</svg>\n'
    )


def _row_of(step: Step) -> tuple[str, str]:
    """Return the image and the container that a step belongs to, as they are shown."""
    return clean(step.image, newline=" "), clean(step.name or step.container[:12], newline=" ")
