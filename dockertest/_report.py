"""Say what became of a container, the same everywhere: in a time-out, after a death, for a failed start. Pure, and the ground floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENDED = ("exited", "dead", "removing")  # the engine's words for a container that runs no more
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    The state of a container when something went wrong; as text, what an error shows of it.

    Attributes:
        name: Its name.
        id: Its full id.
        image: The image's name.
        status: The engine's word for its state: `"running"`, `"exited"`, …; `"removed"` if it is gone, `"unknown"` if
            the engine does not tell.
        exit_code: The exit code of its first process once it has ended.
        oom_killed: Whether the engine says that it was killed for want of memory.
        error: What the engine says went wrong at its start, or why it does not tell the state.
        health: The last output of its health check.
        ports: What is published where, such as `"5432/tcp -> 127.0.0.1:49153"`.
        logs: The last 20 lines of its log.
        attempts: How often what was waited for had been tried; 0 if nothing was waited for.
        elapsed: Seconds waited until then.
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

    def __str__(self) -> str:
        lines = [f"{label(self.name, self.id)} of {self.image} {self.verdict}"]
        if self.error:
            lines.append(f"the engine says: {self.error}")
        if self.health:
            lines.append(f"health check: {self.health}")
        if self.ports:
            lines.append(f"published: {', '.join(self.ports)}")
        if self.attempts:
            lines.append(f"waited for: {tries(self.attempts)} in {self.elapsed:.1f} s")
        if not self.more:
            return "\n  ".join(lines) + indented(self.logs)
        # By default it is gone when somebody reads this.
        lines.append(f"more: {self.more}; DOCKERTEST_KEEP=1 leaves it standing for a look")
        return "\n  ".join(lines) + (indented(self.logs) or "\n    (its log is empty)")

    @property
    def more(self) -> str:
        """The command that shows the whole log; empty where there is none any more."""
        return "" if self.status == "removed" else f"docker logs {self.id[:12]}"

    @property
    def meaning(self) -> str:
        """What its exit code means, where that is known: "killed by SIGKILL, …"; else empty."""
        return "" if self.exit_code is None else _meaning(self.exit_code, self.oom_killed).removeprefix(": ")

    @property
    def verdict(self) -> str:
        """What became of it, as the end of a sentence: "has ended with exit code 1"."""
        if self.status == "removed":
            return "is gone: it was removed, or removed itself when it ended"
        if self.exit_code is None:
            return f"is {self.status}"
        return f"has ended with exit code {self.exit_code}{_meaning(self.exit_code, self.oom_killed)}"


def label(name: str, container: str) -> str:
    """Name a container in an error."""
    return f"container {name!r} ({container[:12]})" if name else f"container {container[:12]}"


def report(attrs: Mapping[str, Any], image: str, logs: str) -> Report:
    """Make a report of what the engine's inspection says."""
    state = attrs.get("State") or {}
    status = state.get("Status") or "unknown"
    ended = status in ENDED
    checks = (state.get("Health") or {}).get("Log") or []
    return Report(
        name=str(attrs.get("Name", "")).lstrip("/"),
        id=str(attrs.get("Id", "")),
        image=image,
        status=status,
        exit_code=state.get("ExitCode") if ended else None,
        oom_killed=ended and bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        health=str(checks[-1].get("Output", "")).strip() if checks else "",
        ports=ports(attrs),
        logs=logs,
    )


def ports(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is published where."""
    bound = (attrs.get("NetworkSettings") or {}).get("Ports") or {}
    return tuple(
        f"{port} -> {each['HostIp']}:{each['HostPort']}" for port in bound for each in bound[port] or ()
    )


def health(attrs: Mapping[str, Any]) -> str:
    """Give what the health check says; `"none"` without one, where some engines have an empty status."""
    return str(((attrs.get("State") or {}).get("Health") or {}).get("Status") or "none")


def tries(count: int) -> str:
    """Count attempts in words."""
    return "1 attempt" if count == 1 else f"{count} attempts"


def _meaning(code: int, oom_killed: bool) -> str:
    if oom_killed:
        return ": out of memory, killed by the kernel; give it more, or make it need less"
    if code == 137:
        return ": killed by SIGKILL, not known to be for want of memory"
    if code in _SIGNALS:
        return f": ended by {_SIGNALS[code]}"
    return {0: ": success", 126: ": its command cannot be executed", 127: ": its command was not found"}.get(
        code, ""
    )


def indented(logs: str) -> str:
    """Put log lines below an error's sentence, indented; nothing where there are none."""
    return "".join(f"\n    {line}" for line in logs.splitlines())
