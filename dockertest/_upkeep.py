"""Find, wait for and remove what runs on an engine, and make networks for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from typing_extensions import Unpack

from dockertest import _network, _retry
from dockertest import _validation as _specs
from dockertest._cleanup import session as _session
from dockertest._connection import Connection
from dockertest._engine import client as _engine
from dockertest._engine import reachability as _address
from dockertest._network import Network, NetworkFields
from dockertest._resource import Resource
from dockertest._timeline import Step
from dockertest.errors import (
    EngineError,
    InvalidOptionError,
    NotInContainerError,
)

T = TypeVar("T")
log = logging.getLogger("dockertest")


class Upkeep(Connection):
    """A connection by which things are found, waited for and removed."""

    def container_by_name(self, name: str) -> Resource | None:
        """
        Give the container of just that name, borrowed: closing it, or this pool, leaves it running.

        Args:
            name: The whole name; part of one finds nothing.

        Raises:
            InvalidOptionError: No container can have that name.
        """
        self._owned.check_open()
        wanted = _specs.container_name("name", _specs.text("name", name).removeprefix("/"))
        if not wanted:
            raise InvalidOptionError("name is empty; write a container's whole name")
        try:
            attrs = self._engine.inspect(_engine.quoted(wanted))
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        if str(attrs["Name"]).lstrip("/") != wanted:  # the engine takes the beginning of an id as well
            return None
        return self._handle(attrs, str(attrs["Config"]["Image"]), borrowed=True)

    def remove_container_by_name(self, name: str) -> bool:
        """
        Remove the container of just that name, and its anonymous volumes, whoever made it.

        Args:
            name: The whole name; part of one finds nothing.

        Returns:
            Whether there was one.
        """
        found = self.container_by_name(name)
        if found is None:
            return False
        self.purge(found)
        return True

    def current_container(self) -> Resource:
        """
        Give the container that this process runs in, borrowed.

        Raises:
            NotInContainerError: It runs in none that this engine knows.
        """
        self._owned.check_open()
        if attrs := _address.own_container(self._engine):
            return self._handle(attrs, str(attrs["Config"]["Image"]), borrowed=True)
        raise NotInContainerError(
            f"this process does not run in a container that the engine at {self.endpoint} knows"
        )

    def create_network(self, name: str | None = None, **options: Unpack[NetworkFields]) -> Network:
        """
        Create a network, removed when it or this pool is closed and when the interpreter ends.

        Args:
            name: Its name; a random one when `None`.
            options: `driver` (`"bridge"`), `driver_options`, `internal` (no way out), `labels`, and `subnet`, such as
                `"10.20.30.0/24"`; by default the engine chooses, and if it has no addresses left, this library.

        Raises:
            InvalidOptionError: An option has a value that cannot work.
            EngineError: The engine refused, because the name is taken, say.
        """
        called = _specs.container_name("name", name) or f"dockertest-{_session.new_session()[:12]}"
        body = _network.network_request(called, self._labels(), options)
        with self._owned.creating():
            self._begin()
            network_id = _network.create(self._engine, body)
            network = self._network_handle({"Id": network_id, "Name": called})
            self._owned.add_network(network)
        return network

    def networks_by_name(self, name: str) -> list[Network]:
        """
        Give the networks of just that name, borrowed: closing them, or this pool, leaves them alone.

        Args:
            name: The whole name; part of one finds nothing.
        """
        self._owned.check_open()
        return [self._network_handle(each, borrowed=True) for each in _network.list_named(self._engine, name)]

    def remove_network(self, network: Network) -> None:
        """
        Remove a network, whoever made it; what is still attached to it is disconnected first.

        Args:
            network: From `create_network` or `networks_by_name`.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        network._let_go(remove=True)

    def purge(self, resource: Resource) -> None:
        """
        Remove a container and its anonymous volumes, whoever made it; purging twice is no error.

        What this pool made stays if it is to `keep` it.

        Args:
            resource: From `run`, or, if somebody else made it, from `container_by_name`.

        Raises:
            EngineError: The engine did not remove it; call again to try again.
        """
        resource._let_go(remove=not resource._kept())

    def prune(self, *, reused: bool = False) -> list[str]:
        """
        Remove what dead sessions left on this engine, and give the ids of the containers and networks that were there.

        A session is one process that uses this library. It is dead when that is known to be gone, or its
        `DOCKERTEST_TTL` is over. What is not known to be dead is left alone: a living session's things, another host's
        or user's, and all that is not dockertest's.

        Args:
            reused: Remove also the containers that this user started on this host with `reuse`, even if they are in use.

        Raises:
            EngineError: The engine did not say what there is.
        """
        self._owned.check_open()
        try:
            return self._lifeline.prune(self._engine, reused=reused)
        except OSError as error:
            raise EngineError(f"cannot remove what dead sessions left: {error}") from error

    def timeline(self) -> list[Step]:
        """Give what this pool did and when: pulls, builds, creations, starts, how long each service took to be ready."""
        return self._timeline.steps()

    def retry(
        self,
        op: Callable[[], T],
        *,
        max_wait: float | None = None,
        wait: _retry.Wait | None = None,
        max_attempts: int | None = None,
        on: _retry.ExceptionTypes = Exception,
        giveup: Callable[[BaseException], bool] | None = None,
        watch: Sequence[Resource] | None = None,
    ) -> T:
        """
        Call *op* until it returns, and return what it returned: `conn = pool.retry(connect)`.

        A mistake in the program, such as a `NameError`, ends the wait at once; `dockertest.retry` says which.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default. At least one call is made.
            wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`, or
                `lambda: itertools.repeat(0.5)`; when they end, so does the wait. By default 10 ms at first, then about a
                twentieth of the time waited, at most 0.5 s.
            max_attempts: Calls of *op* after which to give up.
            on: The exceptions that mean not yet; so does the value `False` itself.
            giveup: Asked about each failure; a true answer raises it at once.
            watch: Containers whose end, however it came, ends the wait. By default all that this pool runs, and only
                an end with a failure, told once.

        Raises:
            RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
            ContainerExitedError: A watched container has ended.
        """
        with self._waited_for():
            return _retry.retry(
                op,
                max_wait=self.max_wait if max_wait is None else max_wait,
                wait=wait,
                max_attempts=max_attempts,
                on=on,
                giveup=giveup,
                watch=(self._watch,) if watch is None else tuple(watch),
            )

    async def retry_async(
        self,
        op: Callable[[], Awaitable[T]],
        *,
        max_wait: float | None = None,
        wait: _retry.Wait | None = None,
        max_attempts: int | None = None,
        on: _retry.ExceptionTypes = Exception,
        giveup: Callable[[BaseException], bool] | None = None,
        watch: Sequence[Resource] | None = None,
        attempt_timeout: float | None = None,
    ) -> T:
        """
        Do what `retry` does for a coroutine function; other tasks go on meanwhile.

        Args:
            max_wait: Seconds after which to give up, the pool's `max_wait` by default. At least one call is made.
            wait: Called for the pauses between two calls, in seconds, such as `backoff.fibo`.
            max_attempts: Calls of *op* after which to give up.
            on: The exceptions that mean not yet; so does the value `False` itself.
            giveup: Asked about each failure; a true answer raises it at once.
            watch: Containers whose end, however it came, ends the wait; by default as in `retry`.
            attempt_timeout: Seconds that one call may take; one that takes longer is cancelled, and means not yet.

        Raises:
            RetryTimeoutError: Still failing after *max_wait* or *max_attempts*; its cause is the last failure.
            ContainerExitedError: A watched container has ended.
        """
        with self._waited_for():
            return await _retry.retry_async(
                op,
                max_wait=self.max_wait if max_wait is None else max_wait,
                wait=wait,
                max_attempts=max_attempts,
                on=on,
                giveup=giveup,
                watch=(self._watch,) if watch is None else tuple(watch),
                attempt_timeout=attempt_timeout,
            )

    def _waited_for(self) -> AbstractContextManager[None]:
        """Take note of when a service was ready, if there is but one that can be meant."""
        meant = [each for each in self._owned.containers() if not each._was_ready]
        return meant[0]._waited_for() if len(meant) == 1 else nullcontext()
