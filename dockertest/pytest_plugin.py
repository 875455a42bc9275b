"""
The pytest plugin: a pool for the run, and container reports with failures.

pytest loads it in every run, so it must cost nothing until it is used: at first it imports `dockertest` alone, and a run
that starts no container shows nothing of it.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict
from unittest import SkipTest

import pytest

import dockertest


class ProcessSummary(TypedDict):
    """
    The summary of one process at the end of the run.

    It consists of plain values, because workers of pytest-xdist send theirs.
    """

    steps: list[dict[str, Any]]
    kept: list[str]


_RUN_ID = "DOCKERTEST_RUN_ID"
_OWN_RUN_ID = re.compile(r"pytest-[0-9a-f]{32}")
_SUMMARIES = pytest.StashKey[list[ProcessSummary]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line options."""
    group = parser.getgroup("dockertest")
    group.addoption(
        "--dockertest-keep",
        action="store_true",
        help="keep all containers, networks and volumes, and print at the end how to reach and remove them",
    )
    group.addoption(
        "--dockertest-keep-failed",
        action="store_true",
        help="keep what a failed test had running, and print at the end how to reach and remove it",
    )
    group.addoption(
        "--dockertest-timeline",
        action="store_true",
        help="print at the end how long each container took to pull, create, start, become ready and remove",
    )
    group.addoption(
        "--dockertest-picture",
        metavar="FILE",
        help="draw the timeline into an SVG file, with one row for each container and time from left to right",
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Set the environment variables for every pool of the run.

    This includes the pools that tests make themselves.
    """
    config.stash[_SUMMARIES] = []
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setenv(_RUN_ID, _run_id(config))
    if config.getoption("dockertest_keep"):
        patch.setenv("DOCKERTEST_KEEP", "1")
    elif config.getoption("dockertest_keep_failed"):
        patch.setenv("DOCKERTEST_KEEP", "failed")


def _run_id(config: pytest.Config) -> str:
    """
    Return the id of the run that this process belongs to.

    A worker of pytest-xdist has the id of its controller. Any other process has the id that the user has set, or a new
    one. pytest that is started by a test of pytest inherits the variable, but is a run of its own.
    """
    worker_input: dict[str, Any] = getattr(config, "workerinput", {})
    given = worker_input.get("dockertest_run_id") or os.environ.get(_RUN_ID, "")
    if given and (worker_input or not _OWN_RUN_ID.fullmatch(given)):
        return str(given)
    return f"pytest-{os.urandom(16).hex()}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send the run to a worker of pytest-xdist, which may be on another host."""
    node.workerinput["dockertest_run_id"] = os.environ[_RUN_ID]


@pytest.fixture(scope="session")
def dockertest_pool() -> Iterator[dockertest.Pool]:
    """
    Return a connection to the container engine.

    Everything that it starts is removed at the end of the run.
    """
    from dockertest import embedding

    with ExitStack() as stack:
        try:
            pool = stack.enter_context(embedding.pool_or_skip())
        except SkipTest as reason:  # which only pytest's plugin for unittest understands
            pytest.skip(str(reason))
        yield pool


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    Add the reports of all containers to a failure, and shorten its traceback.

    The report has the user's own lines, the error, and the state and last log lines of all containers of this process.
    `--full-trace` adds the frames of this package and of what it is built on.
    """
    # pytest keeps failures of unittest's tests here until its own hook is called, which comes after this:
    # https://github.com/pytest-dev/pytest/blob/main/src/_pytest/unittest.py
    of_unittest: list[pytest.ExceptionInfo[BaseException]] = getattr(item, "_excinfo", None) or []
    with _shortened(item.config, call.excinfo or next(iter(of_unittest), None)):
        report = yield
    if not _is_used():
        return report
    from dockertest import _pool, embedding

    if report.failed:
        for container in embedding.reports(report.longreprtext):
            title, _, details = str(container).partition("\n")
            report.sections.append((title, details))
    _pool.finish_test(failed=report.failed and not _will_run_again(item))
    return report


def _will_run_again(item: pytest.Item) -> bool:
    """Return whether pytest-rerunfailures runs a failed test again."""
    plugin = sys.modules.get("pytest_rerunfailures")
    attempt: int | None = getattr(item, "execution_count", None)
    if plugin is None or attempt is None or any(getattr(item, "_terminal_errors", {}).values()):
        return False
    return attempt <= (plugin.get_reruns_count(item) or 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store this process's summary, or send it to the controller of pytest-xdist."""
    if not _is_used():
        return
    from dockertest import embedding

    summary = ProcessSummary(steps=[asdict(step) for step in embedding.timeline()], kept=embedding.kept())
    worker_output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if worker_output is None:
        session.config.stash[_SUMMARIES].append(summary)
    else:
        worker_output["dockertest"] = summary


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """
    Store the summary of a worker of pytest-xdist.

    A worker that crashed has not sent a summary.
    """
    if summary := getattr(node, "workeroutput", {}).get("dockertest"):
        node.config.stash[_SUMMARIES].append(summary)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the started containers, their times, and how to reach the kept ones."""
    summaries = config.stash[_SUMMARIES]
    steps = [dockertest.Step(**step) for summary in summaries for step in summary["steps"]]
    kept = [message for summary in summaries for message in summary["kept"]]
    lines = [f"dockertest: {message}" for message in kept]
    if (started := _describe_started(steps)) and terminalreporter.verbosity >= 0:
        has_failed = terminalreporter.stats.get("failed") or terminalreporter.stats.get("error")
        hint = "; --dockertest-keep keeps them for inspection" if has_failed and not kept else ""
        lines.insert(0, f"dockertest: started {started}{hint}")
    lines += _timeline_lines(config, steps)
    for line in lines:
        terminalreporter.write_line(line)


def _timeline_lines(config: pytest.Config, steps: list[dockertest.Step]) -> list[str]:
    file = config.getoption("dockertest_picture")
    if not file and not config.getoption("dockertest_timeline"):
        return []
    from dockertest import embedding

    lines = embedding.timeline_table(steps) if config.getoption("dockertest_timeline") else []
    if file:
        try:
            Path(file).write_text(embedding.timeline_svg(steps), encoding="utf-8")
        except OSError as error:
            lines.append(f"dockertest: cannot draw the timeline: {error}")
        else:
            lines.append(f"dockertest: the timeline is in {file}")
    return lines


def _describe_started(steps: list[dockertest.Step]) -> str:
    """
    Return the number of containers of each image, and their start-up time.

    The time is the sum of the seconds until they were ready, including pulls.
    """
    counts = Counter(step.image for step in steps if step.kind == "start" and not step.failed)
    seconds = {
        image: sum(step.seconds for step in steps if step.image == image and step.kind != "close")
        for image in counts
    }
    return ", ".join(f"{count} of {image} in {seconds[image]:.2f} s" for image, count in counts.items())


def _is_used() -> bool:
    """
    Return whether this process can have started containers.

    The module of `Pool` is imported on its first use.
    """
    return "dockertest._pool" in sys.modules


def _shortened(
    config: pytest.Config, caught: pytest.ExceptionInfo[BaseException] | None
) -> AbstractContextManager[None]:
    """
    Shorten a report that is made in the block.

    A report that does not concern this package is not changed.
    """
    # pytest without its terminal plugin does not have the option.
    is_full = config.getoption("fulltrace", default=False)
    if caught is None or is_full or "dockertest.errors" not in sys.modules:
        return nullcontext()
    from dockertest import _traceback

    return _traceback.shortened(caught.value)
