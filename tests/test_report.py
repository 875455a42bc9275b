"""What became of a container, in words."""

import pickle
from typing import Any

import pytest

from dockertest import ContainerExitedError, Report
from dockertest._report import health, indented, label, report

ID = "3f2a9c1b71de" + "0" * 52


def inspection(**state: Any) -> "dict[str, Any]":
    """Give what an engine says of a container in this state."""
    return {
        "Id": ID,
        "Name": "/pg",
        "State": {"Status": "exited", "ExitCode": 0, "OOMKilled": False, "Error": "", **state},
        "NetworkSettings": {"Ports": {}},
    }


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
        ({"ExitCode": 137}, "has ended with exit code 137: killed by SIGKILL, not known to be for want of memory"),
        (
            {"ExitCode": 137, "OOMKilled": True},
            "has ended with exit code 137: out of memory, killed by the kernel; give it more, or make it need less",
        ),
        (
            {"ExitCode": 1, "OOMKilled": True},
            "has ended with exit code 1: out of memory, killed by the kernel; give it more, or make it need less",
        ),
        ({"Status": "running", "ExitCode": 0, "OOMKilled": True}, "is running"),
    ],
)  # fmt: skip
def test_the_state_has_words(state: "dict[str, Any]", verdict: str) -> None:
    """Exit codes that have a meaning say it; out of memory is said only if the engine says so."""
    found = report(inspection(**state), "postgres:15", "")
    assert found.verdict == verdict
    assert str(found).startswith(f"container 'pg' (3f2a9c1b71de) of postgres:15 {verdict}\n")


def test_what_runs_has_no_exit_code() -> None:
    """Engines say 0, which would look like success."""
    found = report(inspection(Status="running", ExitCode=0), "postgres:15", "")
    assert found.exit_code is None
    assert not found.oom_killed


def test_all_that_is_known_is_told_in_order() -> None:
    """The state first, then why, then what helps, then the log below it all."""
    attrs = inspection(
        ExitCode=1,
        Error="exec: no such file",
        Health={"Status": "unhealthy", "Log": [{"Output": "old"}, {"Output": "no response\n"}]},
    )
    attrs["NetworkSettings"]["Ports"] = {
        "5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}, {"HostIp": "::1", "HostPort": "49154"}],
        "80/tcp": None,
    }
    found = report(attrs, "postgres:15", "starting\n  FATAL: no space\n")
    assert str(found).splitlines() == [
        "container 'pg' (3f2a9c1b71de) of postgres:15 has ended with exit code 1",
        "  the engine says: exec: no such file",
        "  health check: no response",
        "  published: 5432/tcp -> 127.0.0.1:49153, 5432/tcp -> ::1:49154",
        "  more: docker logs 3f2a9c1b71de; DOCKERTEST_KEEP=1 leaves it standing for a look",
        "    starting",
        "      FATAL: no space",
    ]


def test_an_empty_log_is_told() -> None:
    """Else one would look for it."""
    assert str(report(inspection(), "postgres:15", "")).endswith("\n    (its log is empty)")


def test_of_what_is_gone_there_is_no_log_to_look_for() -> None:
    """Nor a command that would show it; whether it was empty is not known."""
    gone = Report(name="pg", id=ID, image="postgres:15", status="removed")
    assert str(gone) == (
        "container 'pg' (3f2a9c1b71de) of postgres:15 is gone: it was removed, or removed itself when it ended"
    )


@pytest.mark.parametrize(
    "attrs", [{}, {"State": None, "NetworkSettings": None}, {"State": {"Health": None}}], ids=str
)
def test_an_engine_may_say_little(attrs: "dict[str, Any]") -> None:
    """Then there is little to tell, and no error."""
    assert report(attrs, "postgres:15", "").verdict == "is unknown"
    assert health(attrs) == "none"


@pytest.mark.parametrize(
    ("check", "said"),
    [(None, "none"), ({}, "none"), ({"Status": ""}, "none"), ({"Status": "none"}, "none"), ({"Status": "healthy"}, "healthy")],
    ids=str,
)  # fmt: skip
def test_health_has_a_word(check: Any, said: str) -> None:
    """Some engines have an empty status where there is no health check."""
    assert health(inspection(Health=check)) == said


def test_a_health_check_that_never_ran_is_not_told() -> None:
    """Its log is empty, or missing."""
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
def test_log_lines_stand_indented_below(logs: str, below: str) -> None:
    """What they indent themselves is kept."""
    assert indented(logs) == below


def test_a_container_is_named_by_name_and_short_id() -> None:
    """As the docker command shows it."""
    assert label("pg", ID) == "container 'pg' (3f2a9c1b71de)"
    assert label("", ID) == "container 3f2a9c1b71de"


def test_the_error_for_an_end_has_it_all() -> None:
    """As attributes, and as text."""
    found = report(inspection(ExitCode=137, OOMKilled=True), "postgres:15", "one\ntwo")
    error = ContainerExitedError.of(found)
    assert type(error) is ContainerExitedError
    assert (error.exit_code, error.oom_killed, error.logs) == (137, True, "one\ntwo")
    assert str(error) == str(found)


def test_a_report_pickles() -> None:
    """It is a value like any other."""
    found = report(inspection(ExitCode=1), "postgres:15", "one")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(found, protocol)) == found


def test_what_an_exit_code_means_can_be_asked_for() -> None:
    """By itself, without the rest of the sentence."""
    assert report(inspection(ExitCode=143), "postgres:15", "").meaning == "ended by SIGTERM"
    assert report(inspection(ExitCode=3), "postgres:15", "").meaning == ""
    assert report(inspection(Status="running"), "postgres:15", "").meaning == ""
