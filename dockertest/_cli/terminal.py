"""Write results to standard output, and messages to standard error."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from dockertest._report import clean

_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


class Styled(NamedTuple):
    """Text in a style: `"bold"`, `"red"`, `"green"` or `"yellow"`."""

    text: str
    style: str


class Console:
    """
    A command's output, without control characters that it did not write itself.

    Attributes:
        as_json: Whether the result is written as JSON.
    """

    def __init__(self, environ: Mapping[str, str], *, as_json: bool = False) -> None:
        self.as_json = as_json
        is_allowed = environ.get("TERM") != "dumb" and not environ.get("NO_COLOR")
        self._has_colours = is_allowed and _is_terminal()
        # Characters that the terminal's encoding lacks must not end the program.
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="backslashreplace")

    def print(self, *parts: str | Styled) -> None:
        """
        Print one line of the result, and flush it.

        A program may be waiting for the line.
        """
        print("".join(map(self._render, parts)), flush=True)

    def print_json(self, value: object) -> None:
        """Print the result as one line of JSON, in ASCII."""
        self.print(json.dumps(value))

    def print_table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns."""
        lines = [[clean(cell, newline=" ") for cell in row] for row in (header, *rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            self.print("  ".join(cells).rstrip())

    def flush(self) -> None:
        """Write the rest of the buffer."""
        if sys.stdout:
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a message about progress or an error to standard error."""
        if (
            sys.stderr
        ):  # With the descriptor closed, as by 2>&-, it is None, and print would use standard output.
            with suppress(OSError):  # The reader is gone.
                print(clean(text), file=sys.stderr, flush=True)

    def log(self, line: str) -> None:
        """
        Print a line of a container's log; may be called from another thread.

        It bypasses Python's buffer: while a pipe is full, a writer would hold the buffer's lock, and the main thread could
        not end the program.
        """
        if not sys.stdout:
            return
        text = clean(line, newline=" ", colours=self._has_colours)
        reset = "\x1b[0m" if "\x1b" in text else ""
        left = f"{text}{reset}\n".encode(errors="backslashreplace")
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]

    def is_reader_gone(self) -> bool:
        """
        Return whether the other end of the output is closed.

        The result is `False` where the system cannot find out.
        """
        with suppress(AttributeError, OSError, ValueError):
            poll = select.poll()
            poll.register(sys.stdout.fileno(), 0)
            return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
        return False

    def _render(self, part: str | Styled) -> str:
        if isinstance(part, str):
            return clean(part, newline=" ")
        text = clean(part.text, newline=" ")
        return f"\x1b[{_STYLES[part.style]}m{text}\x1b[0m" if self._has_colours else text


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: `"1 h 59 min"`."""
    left = max(0, round(seconds))
    parts = [(left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count] or ["0 s"]
    return " ".join(shown[:2])


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # Standard output is missing or closed.
        return False
