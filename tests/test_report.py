"""Reports: a container's state, ports and last log lines as text."""

import pickle
import time
from typing import Any

import pytest

from dockertest import ContainerExitedError, EngineError, Report
from dockertest._containers.container import published
from dockertest._engine.inspection import Inspection
from dockertest._report import clean, indented, label

ID = "3f2a9c1b71de" + "0" * 52


def inspection(**state: Any) -> "dict[str, Any]":
    """Return the engine's description of a container in this state."""
    return {
        "Id": ID,
        "Name": "/pg",
        "State": {"Status": "exited", "ExitCode": 0, "OOMKilled": False, "Error": "", **state},
        "NetworkSettings": {"Ports": {}},
    }


def report(attrs: "dict[str, Any]", image: str, logs: str) -> Report:
    """Return the report of a container from the engine's description of it."""
    parsed = Inspection.parse(attrs)
    return Report(
        name=parsed.name,
        id=parsed.id,
        image=image,
        status=parsed.status,
        exit_code=parsed.exit_code,
        oom_killed=parsed.oom_killed,
        error=parsed.error,
        health=parsed.health_output,
        ports=published(parsed),
        logs=logs,
    )


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ({"Status": "running"}, "is running"),
        ({"Status": "paused"}, "is paused"),
        ({"Status": "created"}, "is created"),
        ({"Status": ""}, "is unknown"),
        ({"ExitCode": 0}, "has ended with exit code 0: success"),
        ({"ExitCode": 1}, "has ended with exit code 1"),
        ({"ExitCode": 3}, "has ended with exit code 3"),
        ({"Status": "dead", "ExitCode": 3}, "has ended with exit code 3"),
        ({"ExitCode": 126}, "has ended with exit code 126: its command cannot be executed"),
        ({"ExitCode": 127}, "has ended with exit code 127: its command was not found"),
        ({"ExitCode": 130}, "has ended with exit code 130: ended by SIGINT"),
        ({"ExitCode": 139}, "has ended with exit code 139: ended by SIGSEGV"),
        ({"ExitCode": 143}, "has ended with exit code 143: ended by SIGTERM"),
        ({"ExitCode": 137}, "has ended with exit code 137: killed by SIGKILL (the engine did not report an out-of-memory kill)"),
        (
            {"ExitCode": 137, "OOMKilled": True},
            "has ended with exit code 137: killed by the kernel because it was out of memory; raise its limit, or reduce what it needs",
        ),
        (
            {"ExitCode": 1, "OOMKilled": True},
            "has ended with exit code 1: killed by the kernel because it was out of memory; raise its limit, or reduce what it needs",
        ),
        ({"Status": "running", "ExitCode": 0, "OOMKilled": True}, "is running"),
    ],
)  # fmt: skip
def test_the_verdict_describes_the_state(state: "dict[str, Any]", verdict: str) -> None:
    """
    Known exit codes are explained.

    Running out of memory is mentioned only if the engine reports it.
    """
    actual = report(inspection(**state), "postgres:15", "")
    assert actual.verdict == verdict
    assert str(actual).startswith(f"container 'pg' (3f2a9c1b71de) of postgres:15 {verdict}\n")


def test_a_running_container_has_no_exit_code() -> None:
    """Engines report 0, which would look like success."""
    actual = report(inspection(Status="running", ExitCode=0), "postgres:15", "")
    assert actual.exit_code is None
    assert not actual.oom_killed


def test_the_report_has_a_fixed_order() -> None:
    """It begins with the state, followed by the causes, the hints and the log."""
    attrs = inspection(
        ExitCode=1,
        Error="exec: no such file",
        Health={"Status": "unhealthy", "Log": [{"Output": "old"}, {"Output": "no response\n"}]},
    )
    attrs["NetworkSettings"]["Ports"] = {
        "5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}, {"HostIp": "::1", "HostPort": "49154"}],
        "80/tcp": None,
    }
    actual = report(attrs, "postgres:15", "starting\n  FATAL: no space\n")
    assert str(actual).splitlines() == [
        "container 'pg' (3f2a9c1b71de) of postgres:15 has ended with exit code 1",
        "  engine error: exec: no such file",
        "  health check: no response",
        "  published: 5432/tcp -> 127.0.0.1:49153, 5432/tcp -> [::1]:49154",
        "  more: docker logs 3f2a9c1b71de; DOCKERTEST_KEEP=1 keeps the container",
        "    starting",
        "      FATAL: no space",
    ]


def test_an_empty_log_is_mentioned() -> None:
    """Otherwise the log would seem to be missing."""
    assert str(report(inspection(), "postgres:15", "")).endswith("\n    (its log is empty)")


def test_the_report_of_a_removed_container_has_no_log() -> None:
    """It suggests no command that shows the log, and does not call the log empty."""
    gone = Report(name="pg", id=ID, image="postgres:15", status="removed")
    assert str(gone) == (
        "container 'pg' (3f2a9c1b71de) of postgres:15 is gone: it was removed, or it removed itself when it ended"
    )


@pytest.mark.parametrize(
    "attrs", [{}, {"State": None, "NetworkSettings": None}, {"State": {"Health": None}}], ids=str
)
def test_missing_fields_are_accepted(attrs: "dict[str, Any]") -> None:
    """The state is unknown then, which is not an error."""
    assert report(attrs, "postgres:15", "").verdict == "is unknown"
    assert Inspection.parse(attrs).health == "none"


@pytest.mark.parametrize(
    ("check", "expected"),
    [(None, "none"), ({}, "none"), ({"Status": ""}, "none"), ({"Status": "none"}, "none"), ({"Status": "healthy"}, "healthy")],
    ids=str,
)  # fmt: skip
def test_the_health_status_is_parsed(check: Any, expected: str) -> None:
    """Some engines report an empty status for a container without a health check."""
    assert Inspection.parse(inspection(Health=check)).health == expected


def test_a_health_check_that_never_ran_is_not_mentioned() -> None:
    """Its log is empty or missing."""
    for check in (
        {"Status": "starting", "Log": []},
        {"Status": "starting", "Log": None},
        {"Status": "starting"},
    ):
        assert report(inspection(Health=check), "postgres:15", "").health == ""


@pytest.mark.parametrize(
    ("logs", "below"),
    [
        ("", ""),
        ("one", "\n    one"),
        ("one\ntwo\n", "\n    one\n    two"),
        ("one\r\n\r\n  two", "\n    one\n    \n      two"),
    ],
)
def test_log_lines_are_indented(logs: str, below: str) -> None:
    """Their own indentation is preserved."""
    assert indented(logs) == below


def test_a_label_has_the_name_and_the_short_id() -> None:
    """The id has twelve digits, as in the output of the docker CLI."""
    assert label("pg", ID) == "container 'pg' (3f2a9c1b71de)"
    assert label("", ID) == "container 3f2a9c1b71de"


def test_the_error_for_an_exited_container_has_the_report() -> None:
    """The report is both in its attributes and in its message."""
    actual = report(inspection(ExitCode=137, OOMKilled=True), "postgres:15", "one\ntwo")
    error = ContainerExitedError.of(actual)
    assert type(error) is ContainerExitedError
    assert (error.exit_code, error.oom_killed, error.logs) == (137, True, "one\ntwo")
    assert str(error) == str(actual)


def test_a_report_can_be_pickled() -> None:
    """Reports can be sent between processes."""
    actual = report(inspection(ExitCode=1), "postgres:15", "one")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(actual, protocol)) == actual


def test_the_meaning_of_an_exit_code() -> None:
    """It is available without the rest of the sentence."""
    assert report(inspection(ExitCode=143), "postgres:15", "").meaning == "ended by SIGTERM"
    assert report(inspection(ExitCode=3), "postgres:15", "").meaning == ""
    assert report(inspection(Status="running"), "postgres:15", "").meaning == ""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain\ttext é 漢", "plain\ttext é 漢"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        ("\x1b]0;unfinished\nnext", "0;unfinished\nnext"),
        ("50%\r100%\x08\x00", "50% 100%"),
        ("one\r\ntwo\r", "one\ntwo"),
        ("\x1b(B\x1bM\x9b1m", "1m"),
        ("a\u2028b\u202ec\u2066d", "abcd"),
        ("\x1b", ""),
    ],
)
def test_untrusted_text_is_cleaned(text: str, cleaned: str) -> None:
    """Escape sequences and control characters are removed; tabs and line ends stay."""
    assert clean(text) == cleaned
    assert clean(text, newline=" ") == cleaned.replace("\n", " ")


def test_colours_can_be_kept() -> None:
    """Only sequences that set colours or styles are kept."""
    assert clean("\x1b[1;31mred\x1b[0m\x1b[2J", colours=True) == "\x1b[1;31mred\x1b[0m"


@pytest.mark.parametrize("part", ["\x1b]", "\x1b[", "\x1b[0", "\r", "\x1b]" + "a" * 999, "\x1b[" + " " * 999])
def test_hostile_text_is_cleaned_in_linear_time(part: str) -> None:
    """A megabyte of any text takes well below a second."""
    began = time.monotonic()
    clean(part * (2**20 // len(part)))
    assert time.monotonic() - began < 20


def test_reports_and_errors_are_cleaned() -> None:
    """An engine's answer can neither control a terminal nor forge a line."""
    hostile = "x\x1b[2J\r\ny"
    actual = Report(
        name=hostile,
        id=ID,
        image=hostile,
        status=hostile,
        error=hostile,
        health=hostile,
        ports=(hostile,),
        logs=hostile,
    )
    lines = [
        r"container 'x\x1b[2J\r\ny' (3f2a9c1b71de) of x y is x y",
        "  engine error: x y",
        "  health check: x y",
        "  published: x y",
        "  more: docker logs 3f2a9c1b71de; DOCKERTEST_KEEP=1 keeps the container",
        "    x",
        "    y",
    ]
    assert str(actual).split("\n") == lines
    assert str(ContainerExitedError.of(actual)).split("\n") == lines
    assert str(EngineError(f"cannot start: {hostile}")) == "cannot start: x\ny"
