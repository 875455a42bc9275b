"""Containers under `unittest`: for a whole class, or for one test."""

from __future__ import annotations

import logging
import sys
import unittest
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from typing_extensions import Unpack, override

from dockertest import _requirement
from dockertest._cleanup import session as _session
from dockertest._images import process as _process
from dockertest._options import RunFields
from dockertest._pool import Pool
from dockertest._resource import Resource
from dockertest._values import EnvSpec

T = TypeVar("T")
log = logging.getLogger("dockertest")


# Gives each class a pool of its own, made when it is first asked for, so that nobody has to call `super()`.
# It costs a class a millisecond. With it, what could not be removed is told of the class that left it, and a class that
# runs in another process, as parallel runners have it, has nothing of anyone else's.
class _ClassPool:
    def __get__(self, _test: object, owner: type[DockerTestCase]) -> Pool:
        pool: Pool | None = owner.__dict__.get("_pool")
        if pool is None:
            pool = owner._pool = _requirement.required_pool()
            owner.addClassCleanup(owner._close_pool)
        return pool


class DockerTestCase(unittest.TestCase):
    """
    A test case with containers, which are gone after the test or the class that started them, whatever happens.

    Without an engine it is skipped, or fails in CI, as with `require_docker`. A failure shows the state and the last log
    lines of the class's containers.

    Attributes:
        pool: The class's connection to the engine, closed after its last test.
    """

    pool = _ClassPool()
    _pool: Pool | None = None
    _containers: tuple[Resource, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # No result of ours is told when it fails: `run`, which has one, is called for tests alone.
        if isinstance(cls.__dict__.get("setUpClass"), classmethod):
            set_up: Any = classmethod(_telling(cls.__dict__["setUpClass"].__func__))
            cls.setUpClass = set_up  # type: ignore[method-assign]

    @classmethod
    @override
    def setUpClass(cls) -> None:
        """Have the whole class skipped where there is no engine, instead of each of its tests."""
        super().setUpClass()
        _ = cls.pool

    @classmethod
    def run_class_container(
        cls, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container that lives until all tests of the class are over; called from `setUpClass`.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, where *repository* has none; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            DockertestError: As `Pool.run` raises it.
        """
        return cls.pool.run(repository, tag, env, **options)

    def run_container(
        self, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container that lives until this test is over, its `tearDown` and clean-ups included.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, where *repository* has none; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            DockertestError: As `Pool.run` raises it.
        """
        resource = self.pool.run(repository, tag, env, **options)
        self._containers += (resource,)
        return resource

    @override
    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, and remove its containers, whatever became of it."""
        # Not by `addCleanup`: that is not done after Ctrl-C, and before Python 3.11 done before failures are told.
        telling: Any = None if result is None else _Telling(result, type(self))
        try:
            return super().run(telling)
        finally:
            self._remove_containers()

    @override
    def debug(self) -> None:
        """Run the test without a result, as debuggers do, and remove its containers."""
        try:
            super().debug()
        finally:
            self._remove_containers()

    def _remove_containers(self) -> None:
        containers, self._containers = self._containers, ()
        for failure in _session.side_by_side([each.close for each in containers]):
            if isinstance(failure, Exception):
                log.error(
                    "%s", failure
                )  # the class's pool tries again, and fails the class if it cannot either

    @classmethod
    def _close_pool(cls) -> None:
        pool, cls._pool = cls._pool, None
        if pool is not None:
            pool.close()


class _Telling:
    """A test result that shows with each failure how the class's containers are."""

    def __init__(self, result: unittest.TestResult, owner: type[DockerTestCase]) -> None:
        self._result = result
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._result, name)  # not every runner's result has them all
        if name not in ("addError", "addFailure", "addSubTest"):
            return method

        def told(*arguments: Any) -> Any:
            if arguments[-1] is not None:  # as it is for a part of a test that went well
                _tell(arguments[-1][1], self._owner)
            return method(*arguments)

        return told


def _telling(set_up: Callable[[type[DockerTestCase]], T]) -> Callable[[type[DockerTestCase]], T]:
    @wraps(set_up)
    def telling(cls: type[DockerTestCase]) -> T:
        try:
            return set_up(cls)
        except Exception as failure:
            _tell(failure, cls)
            raise

    return telling


def _tell(failure: BaseException, owner: type[DockerTestCase]) -> None:
    """Add to a failure what became of the containers; where Python has no notes yet, print it."""
    pool = owner.__dict__.get("_pool")
    if pool is None or isinstance(failure, unittest.SkipTest):
        return
    told = "\n".join([str(failure), *getattr(failure, "__notes__", ())])
    for each in _process.reports(pool._owned.containers(), told):
        if sys.version_info >= (3, 11):
            failure.add_note(each)
        else:
            print(each, file=sys.stderr)
