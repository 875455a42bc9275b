"""
The pytest plugin: a pool for the whole run, and what became of the containers where a test fails.

Loaded by its entry point with every run of pytest, so it costs nothing before it is used: the package's face alone is
imported, and a run that starts no container shows nothing of it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import pytest

import dockertest


class Account(TypedDict):
    """What one process did in the run; plain values, since workers of pytest-xdist send theirs."""

    steps: list[dict[str, Any]]
    kept: list[str]


_ACCOUNTS = pytest.StashKey[list[Account]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("dockertest")
    group.addoption(
        "--dockertest-keep",
        action="store_true",
        help="leave all containers and networks standing, and say at the end how to reach and remove them",
    )
    group.addoption(
        "--dockertest-timeline",
        action="store_true",
        help="show at the end how long each container took to be pulled, created, started, ready and removed",
    )
    group.addoption(
        "--dockertest-picture",
        metavar="FILE",
        help="draw the same into an SVG file, a line for each container and time from left to right",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have every pool of the run keep what it makes, where that is asked for: the tests' own pools, too."""
    config.stash[_ACCOUNTS] = []
    if config.getoption("dockertest_keep"):
        patch = pytest.MonkeyPatch()
        patch.setenv("DOCKERTEST_KEEP", "1")
        config.add_cleanup(patch.undo)


@pytest.fixture(scope="session")
def dockertest_pool() -> Iterator[dockertest.Pool]:
    """Give a connection to the container engine; what is started through it is removed at the end of the run."""
    from dockertest import _requirement

    with _requirement.required_pool() as pool:
        yield pool


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure how all containers are that this process has running, and the last lines of their logs."""
    report = yield
    if report.failed and (process := _process()):
        for told in process.reports(process.registry.containers(), report.longreprtext):
            title, _, rest = told.partition("\n")
            report.sections.append((title, rest))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give the account of this process: to the run's own end, or from a worker to whoever sent it."""
    if process := _process():
        steps = [asdict(step) for timeline in process.registry.timelines for step in timeline.steps()]
        account = Account(steps=steps, kept=process.registry.kept)
        sent: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if sent is None:
            session.config.stash[_ACCOUNTS].append(account)
        else:
            sent["dockertest"] = account


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the account of a worker of pytest-xdist; one that crashed gives none."""
    if account := getattr(node, "workeroutput", {}).get("dockertest"):
        node.config.stash[_ACCOUNTS].append(account)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was started and how long it took, and what is left standing."""
    accounts = config.stash[_ACCOUNTS]
    steps = [dockertest.Step(**step) for account in accounts for step in account["steps"]]
    kept = [told for account in accounts for told in account["kept"]]
    lines = [f"dockertest: {told}" for told in kept]
    if (started := _started(steps)) and terminalreporter.verbosity >= 0:
        failed = terminalreporter.stats.get("failed") or terminalreporter.stats.get("error")
        hint = "; --dockertest-keep leaves them standing for a look" if failed and not kept else ""
        lines.insert(0, f"dockertest: started {started}{hint}")
    if config.getoption("dockertest_timeline"):
        from dockertest import _timeline

        lines += _timeline.table(steps)
    if file := config.getoption("dockertest_picture"):
        from dockertest import _timeline

        try:
            Path(file).write_text(_timeline.picture(steps), encoding="utf-8")
        except OSError as error:
            lines.append(f"dockertest: the timeline was not drawn: {error}")
        else:
            lines.append(f"dockertest: the timeline is drawn in {file}")
    for line in lines:
        terminalreporter.write_line(line)


def _started(steps: list[dockertest.Step]) -> str:
    """Say how many containers of each image were started, and how long it took until they were ready."""
    counts = Counter(step.image for step in steps if step.kind == "start" and not step.failed)
    return ", ".join(
        f"{count} of {image} in {sum(each.seconds for each in steps if each.image == image and each.kind != 'close'):.2f} s"
        for image, count in counts.items()
    )


def _process() -> Any:
    """Give the module that knows what this process has running, if anything here has used it."""
    return sys.modules.get("dockertest._images.process")
