"""
Functions for integrations with test frameworks.

They skip tests without an engine, show the containers with a failure, and summarize a run. The pytest plugin and
`DockerTestCase` are built on these functions. They cover all pools of this process.

    from dockertest import embedding

    def after_failed_test(failure: str) -> None:
        for report in embedding.reports(failure):
            print(report)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from unittest import SkipTest

from dockertest import _timeline
from dockertest._cleanup.registry import registry
from dockertest._concurrency import run_in_parallel
from dockertest._pool import Pool
from dockertest._report import Report
from dockertest._settings import required_reason
from dockertest._timeline import Step
from dockertest.errors import DockerUnavailableError


def pool_or_skip() -> Pool:
    """
    Return a new pool; without an engine, skip the running test, or fail it in CI.

    The test fails if the variable `CI` is set. `DOCKERTEST_REQUIRED=1` makes it fail and `DOCKERTEST_REQUIRED=0` makes it
    skip anywhere. To skip is to raise `unittest.SkipTest`, which pytest, Django and others also understand.

    Raises:
        DockerUnavailableError: No engine answers, and one is required.
        InvalidOptionError: An environment variable has an invalid value.
    """
    reason = required_reason(os.environ)
    try:
        return Pool()
    except DockerUnavailableError as error:
        if reason:
            raise DockerUnavailableError(
                f"a container engine is required because {reason}: {error}",
                hint="DOCKERTEST_REQUIRED=0 skips the tests instead",
                reason=error.reason,
            ) from error
        raise SkipTest(
            f"needs a container engine (DOCKERTEST_REQUIRED=1 makes this a failure): {error}"
        ) from error


def reports(shown: str = "") -> list[Report]:
    """
    Return the state and last log lines of this process's containers.

    These are all containers that this process has started and not closed. The call takes at most ten seconds even if
    the engine hangs.

    Args:
        shown: What is shown to the user anyway, such as the text of a failure. Containers whose log command is in it are
            left out.
    """
    missing = {
        container.id: container
        for container in registry.containers()
        if f" logs {container.id[:12]}" not in shown
    }
    results = run_in_parallel([container.report for container in missing.values()])
    return [report for report in results if isinstance(report, Report)]


def timeline() -> list[Step]:
    """Return the steps of all pools of this process, including closed pools."""
    return [step for recorded in registry.timelines for step in recorded.steps()]


def kept() -> list[str]:
    """
    Return one line for each object that was left running on purpose.

    Each line contains the command that removes the object. The line of a container also contains its ports and the
    command that shows its log.
    """
    return list(registry.kept)


def timeline_table(steps: Sequence[Step]) -> list[str]:
    """
    Return the lines of a table with the seconds that each container took.

    The slowest container comes first.

    Args:
        steps: From `timeline` or `Pool.timeline`; also those of several processes.
    """
    return _timeline.table(steps)


def timeline_svg(steps: Sequence[Step]) -> str:
    """
    Return an SVG drawing with one row for each container.

    Time runs from left to right.

    Args:
        steps: From `timeline` or `Pool.timeline`; also those of several processes.
    """
    return _timeline.picture(steps)
