"""A container's log. One conversation with the engine each; keeps nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dockertest._engine import Engine
from dockertest.errors import DockertestError

TAIL = 20  # lines of evidence in an error


def read(
    engine: Engine,
    container: str,
    *,
    tty: bool,
    tail: int | None = None,
    since: float | None = None,
    stdout: bool = True,
    stderr: bool = True,
    within: float | None = None,
) -> str:
    """Give what the container has written so far, standard output and error in the order of the engine's."""
    params: dict[str, object] = {
        "stdout": int(stdout),
        "stderr": int(stderr),
        "tail": "all" if tail is None else tail,
    }
    if since is not None:
        params["since"] = f"{since:.9f}"
    what = f"read the log of container {container[:12]}"
    response = engine.send("get", f"/containers/{container}/logs", what=what, params=params, within=within)
    raw: bytes = response.content
    return (raw if tty else b"".join(_frames(raw))).decode("utf-8", "replace")


def last_lines(engine: Engine, container: str, *, tty: bool, within: float | None = None) -> str:
    """Give the last lines as evidence for an error; why there are none, where they cannot be read."""
    try:
        return read(engine, container, tty=tty, tail=TAIL, within=within).rstrip()
    except DockertestError as error:
        return f"({error})"


def _frames(raw: bytes) -> Iterator[bytes]:
    """Take the engine's frames apart: a header of 8 bytes, the last four the length, then that many bytes."""
    start = 0
    while start + 8 <= len(raw):
        (length,) = struct.unpack_from(">L", raw, start + 4)
        yield raw[start + 8 : start + 8 + length]
        start += 8 + length
