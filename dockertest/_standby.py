"""
Containers that are started ahead of need.

A test that wants a fresh container does not wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn, Self

from dockertest import _clock, _resource, _validation
from dockertest._concurrency import run_in_parallel, start_thread
from dockertest._interruption import interrupts_package
from dockertest._options import RunOptions, WaitCondition
from dockertest._prepared import PreparedImage
from dockertest._public import public
from dockertest._resource import Resource
from dockertest._runtime import Runtime
from dockertest.errors import (
    DockertestError,
    InvalidOptionError,
    ResourceClosedError,
    RetryTimeoutError,
)

# What was taken has the processors to itself for this long: a start beside it doubles the time of a first query.
QUIET_SECONDS = 0.05
CLOSE_SECONDS = 10.0  # how long `close` waits for containers that are being started


class _Stock:
    """
    The spares that one process has.

    Attributes:
        changed: Guards all others; notified when one of them changes. A signal handler may enter it again.
        ready: The spares that can be taken, oldest first.
        booting: Those that are started, but not ready yet.
        starting: The number of threads that have neither a ready spare nor a failure yet.
        waiting: The number of calls of `take` in progress.
        failures: What starts have raised that no call of `take` has raised yet.
        idle_at: When the spares are removed, on the monotonic clock.
        threads: One for each spare.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.ready: list[Resource] = []
        self.booting: list[Resource] = []
        self.starting = 0
        self.waiting = 0
        self.failures: list[BaseException] = []
        self.idle_at = 0.0
        self.threads: list[threading.Thread] = []

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Count the body as a call that waits for a spare."""
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self.waiting -= 1
                self.changed.notify_all()


@public
@dataclass(eq=False, repr=False)
class Standby:
    """
    Fresh containers from `Pool.standby` that are ready before they are needed.

    All of them are started with the same options. Spares are removed by `close()`, at the end of a `with`, when the
    pool is closed, and when the process ends, even by SIGKILL. Until a spare is taken, `Pool.retry` does not watch it,
    reports of failed tests leave it out, and `keep` does not apply to it.

    One thread of this process serves each spare. A forked child has spares of its own, from its first `take` on.

    Attributes:
        image: The name of the image.
    """

    image: str
    _runtime: Runtime
    _start: Callable[[], Resource]
    _condition: WaitCondition
    _count: int
    _max_idle: float
    _stocks: dict[int, _Stock] = field(init=False, default_factory=dict)  # by process id
    _is_closed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if not isinstance(self._count, int) or isinstance(self._count, bool) or self._count < 1:
            raise InvalidOptionError(
                f"count must be a whole number from 1: got {_validation.format_value(self._count)}"
            )
        self._max_idle = _validation.parse_seconds("max_idle", self._max_idle)
        stock = self._stock()
        stock.idle_at = _clock.monotonic() + self._max_idle
        self._refill(stock)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._stock().ready)} ready"
        return f"<Standby {self.image} ({state})>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Standby cannot be pickled, since it is tied to this process; make one in each")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        _resource.close_after(self, failure)

    def take(self, *, max_wait: float | None = None) -> Resource:
        """
        Return a fresh container that is ready, and start the next in the background.

        From then on it is a container like those of `Pool.run`: it is removed when it or the pool is closed.

        Args:
            max_wait: Seconds to wait if none is ready; the pool's `max_wait` by default.

        Raises:
            ResourceClosedError: This standby, or its pool, is closed.
            RetryTimeoutError: No container is ready in time.
            ContainerExitedError: The container has ended while it was spare, or before it was ready.
            DockertestError: A container could not be started in the background. Each failure is raised once; the next call
                starts another container.
        """
        default = self._runtime.defaults.max_wait
        limit = default if max_wait is None else _validation.parse_seconds("max_wait", max_wait)
        deadline = _clock.monotonic() + limit
        self._check_open()
        stock = self._stock()
        with stock.waited_for():
            stock.idle_at = _clock.monotonic() + self._max_idle
            if not stock.failures:
                self._refill(stock)
            spare = self._claim(stock, deadline)
        if spare is None:
            raise self._timeout(stock, limit)
        try:
            _resource.hand_out(spare)
        except BaseException:
            _close_quietly(spare)
            raise
        self._refill(stock, QUIET_SECONDS)
        return spare

    def close(self) -> None:
        """
        Remove the containers that were not taken; closing twice does nothing.

        In a forked child, the parent's spares are left alone.

        Raises:
            EngineError: The engine did not remove one of them; the pool tries again when it is closed.
        """
        self._is_closed = True
        stock = self._stock()
        with stock.changed:
            unused = [*stock.ready, *stock.booting]
            stock.ready.clear()
            stock.changed.notify_all()
        is_interruption = interrupts_package()
        results = run_in_parallel([spare.close for spare in unused], 1 if is_interruption else 16)
        if not is_interruption:  # What is being started removes itself.
            deadline = _clock.monotonic() + CLOSE_SECONDS
            for thread in stock.threads:
                if thread is not threading.current_thread():
                    thread.join(max(0.0, deadline - _clock.monotonic()))
        for error in results:
            if isinstance(error, Exception):
                raise error

    def _stock(self) -> _Stock:
        """Return the spares of this process."""
        return self._stocks.setdefault(os.getpid(), _Stock())

    def _check_open(self) -> None:
        self._runtime.session.check_open()
        if self._is_closed:
            raise ResourceClosedError(
                f"the standby of {self.image} is closed", hint="take containers before its with block ends"
            )

    def _refill(self, stock: _Stock, pause: float = 0.0) -> None:
        """
        Start the containers that are missing.

        Args:
            pause: Seconds to wait first, unless someone waits for a container.
        """
        with stock.changed:
            # Everything that a pool with `keep` starts is kept if the process is killed, so it starts no spares.
            ahead = 0 if self._runtime.defaults.keep else self._count
            missing = max(ahead, stock.waiting) - len(stock.ready) - stock.starting
            missing = 0 if self._is_closed else max(0, missing)
            stock.starting += missing
        for _ in range(missing):
            thread = start_thread(partial(self._keep_spare, stock, pause), "dockertest-standby")
            if thread:
                stock.threads = [*(one for one in stock.threads if one.is_alive()), thread]
            else:
                self._boot(stock)

    def _claim(self, stock: _Stock, deadline: float) -> Resource | None:
        """Wait for a spare and take it from the stock, or return `None` on a timeout."""
        with stock.changed:
            while not stock.failures and not stock.ready:
                self._check_open()
                left = deadline - _clock.monotonic()
                if left <= 0:
                    return None
                stock.changed.wait(left)
            self._check_open()
            if not stock.failures:
                return stock.ready.pop(0)
            failure = stock.failures.pop(0)
            if stock.waiting == 1:  # Nobody else waits for the other containers that have failed.
                stock.failures.clear()
            raise failure

    def _timeout(self, stock: _Stock, limit: float) -> RetryTimeoutError:
        results = run_in_parallel([spare.report for spare in stock.booting])
        reports = tuple(report for report in results if not isinstance(report, Exception))
        evidence = "".join(f"\n  {report}" for report in reports)
        return RetryTimeoutError(
            f"no container of {self.image} was ready within {limit:g} s{evidence}",
            elapsed=limit,
            reports=reports,
            hint="allow more time with max_wait=, or take containers less often than they start",
        )

    # In a thread

    def _keep_spare(self, stock: _Stock, pause: float) -> None:
        """Start a container after a pause, and remove it if it is not taken for too long."""
        begins_at = _clock.monotonic() + pause
        with stock.changed:
            while not (stock.waiting or self._is_closed) and (left := begins_at - _clock.monotonic()) > 0:
                stock.changed.wait(left)
        spare = self._boot(stock)
        if spare is None:
            return
        with stock.changed:
            while spare in stock.ready and (
                (left := stock.idle_at - _clock.monotonic()) > 0 or stock.waiting
            ):
                stock.changed.wait(left if left > 0 else None)
            is_unused = spare in stock.ready
            if is_unused:  # No call can take it any more.
                stock.ready.remove(spare)
        if is_unused:
            _close_quietly(spare)

    def _boot(self, stock: _Stock) -> Resource | None:
        """
        Start a container, wait until it is ready, and add it to the stock.

        If that fails, add the failure instead, and return `None`.
        """
        spare: Resource | None = None
        failure: BaseException | None = None
        try:
            spare = self._start()
            _resource.on_close(spare, partial(self._drop, stock, spare))
            with stock.changed:
                stock.booting.append(spare)
                self._check_open()
            _resource.wait_as_asked(spare, self._condition)
        except BaseException as error:  # noqa: BLE001 - raised by `take`
            failure = error
        is_failure = failure is not None or self._is_closed
        if is_failure and spare:
            _close_quietly(spare)
        with stock.changed:
            stock.starting -= 1
            if spare in stock.booting:
                stock.booting.remove(spare)
            if failure and not self._is_closed:
                stock.failures.append(failure)
            elif spare and not is_failure:
                stock.ready.append(spare)
            stock.changed.notify_all()
        return None if is_failure else spare

    @staticmethod
    def _drop(stock: _Stock, spare: Resource) -> None:
        """Forget a spare that is closed, as by its pool."""
        with stock.changed:
            stock.ready = [other for other in stock.ready if other is not spare]
            stock.changed.notify_all()


def parse_options(
    options: RunOptions | PreparedImage,
) -> tuple[RunOptions | PreparedImage, WaitCondition | None]:
    """
    Return the options without `wait_for`, and the condition of `wait_for`.

    Containers with these options do not conflict with each other.

    Raises:
        InvalidOptionError: Two containers could not run at the same time, or would not be fresh.
    """
    if not isinstance(options, (RunOptions, PreparedImage)):
        raise InvalidOptionError(f"invalid options {options!r}: expected RunOptions or a PreparedImage")
    plain = options if isinstance(options, RunOptions) else options.options
    first = next(iter(plain.parsed.networks), "")
    bindings = [binding for bound in plain.parsed.port_bindings.values() for binding in bound]
    refused = {
        "name": plain.name,
        "network_aliases": plain.network_aliases,
        "shared": plain.shared,
        "reuse": plain.parsed.reuse,
        "networks": first == "host" or first.startswith("container:"),
        "port_bindings": any(binding.host_port and "-" not in str(binding.host_port) for binding in bindings),
    }
    for name, is_set in refused.items():
        if is_set:
            raise InvalidOptionError(
                f"{name} cannot be combined with standby: several containers run at the same time, each for one taker",
                hint=f"leave {name} out"
                + ("; the engine chooses free host ports" if name == "port_bindings" else ""),
            )
    without_wait = replace(plain, wait_for=None)
    if isinstance(options, PreparedImage):
        return replace(options, options=without_wait), plain.wait_for
    return without_wait, plain.wait_for


def _close_quietly(spare: Resource) -> None:
    with suppress(DockertestError):  # The pool tries again when it is closed.
        spare.close()
