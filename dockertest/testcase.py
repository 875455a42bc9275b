"""Containers in `unittest`: for a whole class or for one test."""

from __future__ import annotations

import logging
import unittest
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, Unpack

from typing_extensions import override

from dockertest import _concurrency, _pool, _traceback, embedding
from dockertest._options import EnvSpec, RunFields, RunOptions
from dockertest._pool import Pool
from dockertest._resource import Resource

T = TypeVar("T")
log = logging.getLogger("dockertest")


def require_docker() -> None:
    """
    Skip the test, class or module without a container engine, or fail in CI.

    This function does nothing if an engine answers. Without one, it fails if the variable `CI` is set.
    `DOCKERTEST_REQUIRED=1` makes it fail and `DOCKERTEST_REQUIRED=0` makes it skip anywhere. To skip is to raise
    `unittest.SkipTest`, which pytest also understands.

    Raises:
        DockerUnavailableError: No engine answers, and one is required.
        InvalidOptionError: An environment variable has an invalid value.
    """
    embedding.pool_or_skip().close()


class _ClassPool:
    """
    The pool of a test class, made when it is first used.

    Thus a test class does not have to call `super().setUpClass()`. Each class has its own pool, so that a container that
    could not be removed fails the class that started it, and classes can run in different processes.
    """

    def __init__(self) -> None:
        self._pools: dict[type[DockerTestCase], Pool] = {}

    def __get__(self, _test: object, owner: type[DockerTestCase]) -> Pool:
        pool = self._pools.get(owner)
        if pool is None:
            pool = self._pools[owner] = embedding.pool_or_skip()
            owner.addClassCleanup(self._close, owner)
        return pool

    def _close(self, owner: type[DockerTestCase]) -> None:
        if pool := self._pools.pop(owner, None):
            _pool.close_for_class(pool)


class DockerTestCase(unittest.TestCase):
    """
    A test case whose containers are removed after the test or the class.

    A container is removed after the test or class that started it, even if that fails.

    Without an engine it is skipped, or fails in CI, as with `require_docker`. A failure shows the state and the last log
    lines of the containers that are running.

    Attributes:
        pool: The class's connection to the engine, closed after its last test.
    """

    pool = _ClassPool()
    _containers: tuple[Resource, ...] = ()
    _postponed: tuple[Resource, ...] = ()  # of a class: those of the test before, whose `tearDown` came late

    @override
    def __dir__(self) -> list[str]:
        # pytest reads each of these of the class while it collects tests, and reading `pool` connects to the engine.
        return [name for name in super().__dir__() if name != "pool"]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # unittest calls `setUpClass` without `run`, where the reports are added to the failures of tests.
        if isinstance(cls.__dict__.get("setUpClass"), classmethod):
            set_up: Any = classmethod(_with_reports(cls.__dict__["setUpClass"].__func__))
            cls.setUpClass = set_up  # type: ignore[method-assign]

    @classmethod
    @override
    def setUpClass(cls) -> None:
        """Skip the whole class without an engine, instead of each of its tests."""
        _ = cls.pool  # first: Django's does not undo itself if the rest of the set-up fails or skips
        super().setUpClass()

    @classmethod
    def run_class_container(
        cls, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container that runs until all tests of the class have finished.

        Call this method in `setUpClass`.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, unless *repository* has one; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            DockertestError: As `Pool.run` raises it.
        """
        try:
            made = RunOptions(repository=repository, tag=tag, env=env, **options)
        finally:
            del env, options  # Tools that print the variables of a traceback must not show secrets.
        return cls.pool.run_with_options(made)

    def run_container(
        self, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container that runs until this test has finished.

        The container is still running in the test's `tearDown` and cleanups.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, unless *repository* has one; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            DockertestError: As `Pool.run` raises it.
        """
        try:
            made = RunOptions(repository=repository, tag=tag, env=env, **options)
        finally:
            del env, options  # Tools that print the variables of a traceback must not show secrets.
        resource = self.pool.run_with_options(made)
        self._containers += (resource,)
        return resource

    @override
    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, and remove its containers even if it fails."""
        # Not with `addCleanup`: after Ctrl-C, cleanups do not run.
        reporting: Any = None if result is None else _ReportingResult(result)
        self._postpone(())
        try:
            return super().run(reporting)
        finally:
            # `pytest --pdb` replaces `tearDown`, and calls that of the class after its prompt.
            if "tearDown" in vars(self):
                self._postpone(self._containers)
            else:
                self._remove_containers()

    @override
    def debug(self) -> None:
        """Run the test without a result, as debuggers do, and remove its containers."""
        try:
            super().debug()
        finally:
            self._remove_containers()

    @classmethod
    def _postpone(cls, containers: tuple[Resource, ...]) -> None:
        """Leave containers to the next test, and remove those left before."""
        former, cls._postponed = cls._postponed, containers
        _remove(former)

    def _remove_containers(self) -> None:
        containers, self._containers = self._containers, ()
        _remove(containers)


def _remove(containers: Sequence[Resource]) -> None:
    for failure in _concurrency.run_in_parallel([container.close for container in containers]):
        if isinstance(failure, Exception):
            # The pool tries again when it is closed. If that fails too, so does the class.
            log.error("%s", failure)


class _ReportingResult:
    """
    A proxy of a test result that adds container reports to each failure.

    The reports are those of the running containers. The frames of this package are hidden.
    """

    def __init__(self, result: unittest.TestResult) -> None:
        self._result = result

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._result, name)  # Not every runner's result has all methods.
        if name not in ("addError", "addFailure", "addSubTest"):
            return method

        def add_with_reports(*arguments: Any) -> Any:
            *others, exc_info = arguments
            if exc_info is None:  # A subtest that passed has no failure.
                return method(*arguments)
            kind, failure, _ = exc_info
            _add_reports(failure)
            if not isinstance(
                self._result, unittest.TestResult
            ):  # That of pytest, whose plugin does the rest.
                return method(*arguments)
            with _traceback.trimmed(failure):
                return method(*others, (kind, failure, failure.__traceback__))

        return add_with_reports


def _with_reports(set_up: Callable[[type[DockerTestCase]], T]) -> Callable[[type[DockerTestCase]], T]:
    """Return *set_up* with the reports of running containers added to its failure."""

    @wraps(set_up)
    def set_up_with_reports(cls: type[DockerTestCase]) -> T:
        try:
            return set_up(cls)
        except Exception as failure:
            _add_reports(failure)
            raise

    return set_up_with_reports


def _add_reports(failure: BaseException) -> None:
    """Add the reports of running containers to a failure, as notes."""
    if isinstance(failure, unittest.SkipTest):
        return
    shown = "\n".join([str(failure), *getattr(failure, "__notes__", ())])
    for report in embedding.reports(shown):
        failure.add_note(str(report))
    _pool.finish_test(failed=True)
