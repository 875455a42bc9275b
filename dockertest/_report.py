"""
The state of a container as text, and the cleaning of text that others wrote.

The state is described in the same way in all errors. All functions are pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from dockertest._public import public

# Escape sequences: those that set colours and the like, other control sequences (ECMA-48), strings such as a window's
# title, which end within the line, and shorter sequences.
_COLOUR = r"\x1b\[[0-9;:]*m"
_ESCAPE_SEQUENCE = re.compile(
    rf"(?P<colour>{_COLOUR})|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[^\x1b\n]?"
)
# All that prints nothing but moves the cursor, or reorders the text after it, except tabs and line ends.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_SIGNALS = {
    129: "SIGHUP",
    130: "SIGINT",
    131: "SIGQUIT",
    132: "SIGILL",
    134: "SIGABRT",
    135: "SIGBUS",
    136: "SIGFPE",
}
_SIGNALS |= {137: "SIGKILL", 139: "SIGSEGV", 141: "SIGPIPE", 143: "SIGTERM"}


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    The state of a container when something went wrong.

    Errors show it as text, with `str(report)`.

    Attributes:
        name: Its name.
        id: Its full id.
        image: The image's name.
        status: The engine's word for its state: `"running"`, `"exited"`, …; `"removed"` if it is gone, `"expired"` if
            the reaper removed it because the time set with `expire` was up, `"unknown"` if the engine does not answer.
        exit_code: The exit code of its first process once it has ended.
        oom_killed: Whether the engine reported an out-of-memory kill.
        error: Why the engine could not start it, or why its state could not be read.
        health: The last output of its health check.
        ports: What is published where, such as `"5432/tcp -> 127.0.0.1:49153"`.
        logs: The last 20 lines of its log.
        attempts: Number of attempts of the wait that reported it; 0 without a wait.
        elapsed: Seconds that the wait had lasted.
        cli: How a shell command for its engine begins: `"docker"`, or for example `"docker -H tcp://build:2375"`.
    """

    name: str
    id: str
    image: str
    status: str
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    health: str = ""
    ports: tuple[str, ...] = ()
    logs: str = ""
    attempts: int = 0
    elapsed: float = 0.0
    cli: str = "docker"

    def __setstate__(self, state: Sequence[object]) -> None:
        """Restore a pickle, also one of an earlier version, which has no `cli`."""
        for field, value in zip(fields(self), [*state, "docker"], strict=False):
            object.__setattr__(self, field.name, value)

    def __str__(self) -> str:
        lines = [f"{label(self.name, self.id)} of {_clean_line(self.image)} {self.verdict}"]
        if self.error:
            lines.append(f"engine error: {_clean_line(self.error)}")
        if self.health:
            lines.append(f"health check: {_clean_line(self.health)}")
        if self.ports:
            lines.append(f"published: {_clean_line(', '.join(self.ports))}")
        if self.attempts:
            lines.append(f"waited for: {tries(self.attempts)} in {self.elapsed:.1f} s")
        if not self.more:
            return "\n  ".join(lines) + indented(self.logs)
        # By default the container is gone when a person reads this.
        lines.append(f"more: {self.more}; DOCKERTEST_KEEP=1 keeps the container")
        return "\n  ".join(lines) + (indented(self.logs) or "\n    (its log is empty)")

    @property
    def more(self) -> str:
        """The command that shows the whole log; empty if the container is gone."""
        return "" if self.status in ("removed", "expired") else f"{self.cli} logs {self.id[:12]}"

    @property
    def meaning(self) -> str:
        """The meaning of its exit code, such as "ended by SIGTERM"; empty if it has none."""
        return "" if self.exit_code is None else _meaning(self.exit_code, self.oom_killed).removeprefix(": ")

    @property
    def verdict(self) -> str:
        """Its state as the end of a sentence: "has ended with exit code 1"."""
        if self.status == "expired":
            return "has expired: the time set with expire() was up, and the reaper removed it"
        if self.status == "removed":
            return "is gone: it was removed, or it removed itself when it ended"
        if self.exit_code is None:
            return f"is {_clean_line(self.status)}"
        return f"has ended with exit code {self.exit_code}{_meaning(self.exit_code, self.oom_killed)}"


def clean(text: str, *, newline: str = "\n", colours: bool = False) -> str:
    """
    Return text of a container, an engine or a registry so that it is safe to show.

    Terminals obey escape sequences, and a carriage return hides the beginning of its line.

    Args:
        newline: What stands for a line end. A space keeps names and other words from starting a new line.
        colours: Whether sequences that only set colours are kept.
    """

    def keep_colour(match: re.Match[str]) -> str:
        return match[0] if colours and match["colour"] else ""

    text = _CONTROL.sub("", _ESCAPE_SEQUENCE.sub(keep_colour, text))
    return newline.join(line.rstrip("\r").replace("\r", " ") for line in text.split("\n"))


def label(name: str, container: str) -> str:
    """Return the name of a container for an error."""
    return f"container {name!r} ({container[:12]})" if name else f"container {container[:12]}"


def tries(count: int) -> str:
    """Return a number of attempts in words."""
    return "1 attempt" if count == 1 else f"{count} attempts"


def _meaning(code: int, oom_killed: bool) -> str:
    if oom_killed:
        return ": killed by the kernel because it was out of memory; raise its limit, or reduce what it needs"
    if code == 137:
        return ": killed by SIGKILL (the engine did not report an out-of-memory kill)"
    if code in _SIGNALS:
        return f": ended by {_SIGNALS[code]}"
    return {0: ": success", 126: ": its command cannot be executed", 127: ": its command was not found"}.get(
        code, ""
    )


def indented(logs: str) -> str:
    """
    Return log lines, cleaned and indented, to put below a sentence.

    The result is empty if there are none.
    """
    return "".join(f"\n    {line}" for line in clean(logs).splitlines())


def _clean_line(text: str) -> str:
    return clean(text, newline=" ")
