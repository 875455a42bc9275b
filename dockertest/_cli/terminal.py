"""Where a command writes: what it was asked for to standard output, what it has to say besides to standard error."""

from __future__ import annotations

import json
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

# Sequences that move a terminal's cursor, set colours or titles, and all other characters that print nothing but a tab.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*.?|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


class Screen:
    """
    A command's output.

    Attributes:
        as_json: Whether it is for a program to read.
    """

    def __init__(self, environ: Mapping[str, str], *, as_json: bool = False) -> None:
        self.as_json = as_json
        wanted = environ.get("TERM") != "dumb" and not environ.get("NO_COLOR")
        self._has_colours = wanted and _is_terminal()
        # A character that the terminal does not know is no reason to fail.
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="backslashreplace")

    def say(self, text: str = "") -> None:
        """Write what was asked for, at once: a program may be waiting for it."""
        print(text, flush=True)

    def flush(self) -> None:
        """Write what is still held back."""
        if sys.stdout:
            sys.stdout.flush()

    def data(self, value: object) -> None:
        """Write what was asked for, as one line of JSON."""
        self.say(json.dumps(value, ensure_ascii=False))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows in columns, below their names."""
        shown = [head, *rows]
        widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
        for row in shown:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.say("  ".join(cells).rstrip())

    def note(self, text: str) -> None:
        """Tell what happens, beside what was asked for."""
        if sys.stderr:  # closed, as by 2>&-, it is none, and print would take standard output
            with suppress(OSError):  # nobody is left to read it
                print(text, file=sys.stderr, flush=True)

    def log(self, line: str) -> None:
        """
        Write a line of a container's log; it may be called from another thread.

        It goes past Python's own buffer: a reader that does not read would hold its lock, and with it this program's end.
        """
        if not sys.stdout:
            return
        shown = line if self._has_colours else plain(line)
        left = f"{shown}\n".encode(errors="backslashreplace")
        while left:
            left = left[os.write(sys.stdout.fileno(), left) :]

    def styled(self, text: str, style: str) -> str:
        """Give *text* in a style, on a terminal that has colours."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._has_colours else text

    def reader_is_gone(self) -> bool:
        """Whether what is written is read by nobody any more, where the system can tell."""
        with suppress(AttributeError, OSError, ValueError):
            asked = select.poll()
            asked.register(sys.stdout.fileno(), 0)
            return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))
        return False


def plain(line: str) -> str:
    """Give a line without control characters."""
    return _CONTROL.sub("", line)


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # none at all, or a closed one
        return False
