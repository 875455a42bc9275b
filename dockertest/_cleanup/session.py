"""
What one pool has made in one process, and its removal.

Everything gets the session's labels. The session is begun, by a message to the reaper and by a lock file, before the first
thing is created, so that it is removed however the process ends. A forked child has a session of its own.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol, TypeVar

from dockertest import _clock
from dockertest._cleanup import inventory
from dockertest._cleanup.inventory import InventoryItem
from dockertest._cleanup.prepared import PreparedRecords
from dockertest._cleanup.reaper import EXPIRES, IDENTITY, MANAGED, SESSION, Hold, record_name, short
from dockertest._cleanup.reaper_client import ReaperClient
from dockertest._cleanup.registry import Closable, Reporting, registry
from dockertest._concurrency import run_in_parallel
from dockertest._engine.client import EngineClient
from dockertest._interruption import interrupts_package
from dockertest._settings import Defaults
from dockertest._timeline import Timeline
from dockertest.errors import (
    CleanupError,
    ContainerCreateError,
    DockertestError,
    EngineError,
    InvalidOptionError,
    ResourceClosedError,
)

log = logging.getLogger("dockertest")

T = TypeVar("T")

SWEEP_SECONDS = 5.0  # how long the engine may take to remove what it created without telling us
INTERRUPTION_SECONDS = 5.0  # how long a close in a signal handler waits for threads that create something


class Owned(Closable, Protocol):
    """A container or network, as far as its session is concerned."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


class OwnedVolume(Closable, Protocol):
    """A volume, as far as its session is concerned."""

    @property
    def name(self) -> str: ...


class OwnedContainer(Owned, Reporting, Protocol):
    """A container, as far as its session is concerned."""

    @property
    def is_spare(self) -> bool: ...


class Members:
    """
    What one process has made through one pool.

    Attributes:
        session: The random id in the labels of all of it.
        is_closed: Whether nothing more may be made.
        has_unconfirmed: Whether the engine may have made something whose answer was lost.
    """

    def __init__(self, *, is_closed: bool = False) -> None:
        self.session = new_session()
        self.is_closed = is_closed
        self.has_unconfirmed = False
        self.containers: list[OwnedContainer] = []  # A reused one may be in it twice.
        self.networks: list[Owned] = []
        self.volumes: list[OwnedVolume] = []
        self.closed_volumes: set[str] = set()  # the names of those that are gone
        self._changed = threading.Condition()
        self._creating: list[int] = []  # the threads that are creating something

    def __len__(self) -> int:
        return len(self.containers) + len(self.networks) + len(self.volumes)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Hold off `close` while something is created, so that nothing appears after it."""
        with self._changed:
            self.check_open()
            self._creating.append(threading.get_ident())
        try:
            yield
        except BaseException as error:
            is_refusal = isinstance(error, ContainerCreateError) or getattr(error, "status", None) is not None
            self.has_unconfirmed = self.has_unconfirmed or not is_refusal
            raise
        finally:
            with self._changed:
                self._creating.remove(threading.get_ident())
                self._changed.notify_all()

    def check_open(self) -> None:
        """
        Raise an error if nothing more may be made.

        Raises:
            ResourceClosedError: The pool is closed.
        """
        if self.is_closed:
            raise ResourceClosedError(
                "the pool is closed", hint="use it before its with block or fixture ends"
            )

    def untrack(self, owned: Owned, *, is_gone: bool) -> None:
        """Drop *owned*; if it is gone from the engine, drop other handles of it too."""

        def goes(other: Owned) -> bool:
            return other is owned or (is_gone and other.id == owned.id)

        _discard(self.containers, goes)
        _discard(self.networks, goes)

    def owns_network(self, network: str) -> bool:
        """Return whether a network, given by name or id, is among them."""
        return any(network in (one.id, one.name) for one in list(self.networks))

    def close(self, timeout: float) -> list[Exception]:
        """
        Close everything and return the failures.

        Args:
            timeout: Seconds to wait for other threads that are creating something.
        """
        is_interruption = interrupts_package()
        with self._changed:
            self.is_closed = True
            # This thread itself may be creating something when a signal handler calls this.
            own = {threading.get_ident()}
            limit = min(timeout, INTERRUPTION_SECONDS) if is_interruption else timeout
            self._changed.wait_for(lambda: own.issuperset(self._creating), timeout=limit)
            self.has_unconfirmed = self.has_unconfirmed or bool(self._creating)
        # Containers first: neither a network nor a volume can be removed while a container uses it.
        workers = 1 if is_interruption else 16
        return [
            *self._close_all(lambda: self.containers, workers),
            *self._close_all(lambda: self.networks, workers),
            *self._close_all(lambda: self.volumes, workers),
        ]

    def _close_all(self, listed: Callable[[], Sequence[Closable]], workers: int) -> list[Exception]:
        """
        Close everything, repeat that as long as it helps, and return the failures.

        An engine may refuse to remove something that another container still needs.
        """
        calls = [one.close for one in reversed(list(listed()))]
        failures = [result for result in run_in_parallel(calls, workers) if isinstance(result, Exception)]
        is_refused = any(getattr(failure, "status", None) is not None for failure in failures)
        return self._close_all(listed, workers) if is_refused and len(listed()) < len(calls) else failures


def _discard(items: list[T], goes: Callable[[T], bool]) -> bool:
    """
    Remove items from a list, and return whether there were any.

    Other threads, and a signal handler that interrupts this, may change the list at the same time.
    """
    found = [item for item in list(items) if goes(item)]
    for item in found:
        with suppress(ValueError):  # Another thread was faster.
            items.remove(item)
    return bool(found)


class Session:
    """
    The owner of everything that a pool makes in this process.

    A forked child that uses the same pool gets a session of its own, and leaves its parent's things alone.
    """

    def __init__(
        self,
        engine: EngineClient,
        reaper: ReaperClient,
        timeline: Timeline,
        defaults: Defaults,
        *,
        use_reaper: bool,
        ttl: float | None,
    ) -> None:
        """
        Make nothing and contact nothing yet.

        Args:
            use_reaper: Whether the reaper is to remove what a killed process leaves.
            ttl: Seconds after which any later session may remove the containers and networks; `None` for never.
        """
        self.ttl = ttl
        self.use_reaper = use_reaper
        self._engine = engine
        self._reaper = reaper
        self._timeline = timeline
        self._defaults = defaults
        self._prepared = PreparedRecords(reaper)
        self._members: dict[int, Members] = {}  # by process id
        if use_reaper:
            reaper.warn_of_obstacle()

    def __len__(self) -> int:
        return len(self.members)

    @property
    def members(self) -> Members:
        """What this process has made."""
        pid = os.getpid()
        if pid not in self._members:
            is_closed = any(members.is_closed for members in list(self._members.values()))
            self._members.setdefault(pid, Members(is_closed=is_closed))
        return self._members[pid]

    @property
    def id(self) -> str:
        """The random id of this process's session, in the labels of all that it makes."""
        return self.members.session

    @property
    def is_closed(self) -> bool:
        """Whether the pool is closed."""
        return self.members.is_closed

    def check_open(self) -> None:
        """
        Raise an error if the pool is closed.

        Raises:
            ResourceClosedError: It is.
        """
        self.members.check_open()

    def labels(self) -> dict[str, str]:
        """Return the labels for something that is created now."""
        # Only the sessions of this user see the record that these things are kept; others obey the label.
        return labels(self.id, self._reaper.identity, None if self._defaults.keep else self.ttl)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """Hold off `close` while the body creates something."""
        with self.members.creating():
            yield

    def begin(self) -> None:
        """Make sure, before the first create request, that the reaper knows this session."""
        registry.add(self, self._timeline)
        if self._defaults.keep:
            self._reaper.mark_kept(self.id)
        else:
            self._reaper.begin(self.id, reaper=self.use_reaper)

    def hold(self, hold: Hold, timeout: float) -> None:
        """
        Keep others from removing a container until this session is closed.

        Callers look for the container only after this returns.

        Args:
            timeout: Seconds that another process may take to remove it just now.

        Raises:
            BlockingIOError: It takes longer.
            OSError: Holds cannot be recorded.
        """
        if hold.idle is None:
            registry.add(self, self._timeline)
            self._reaper.begin(self.id, reaper=False)  # It would have nothing to do.
        else:
            self.begin()
            self._reaper.begin(self.id, reaper=self.use_reaper)
        self._reaper.hold(self.id, hold, timeout)

    def is_held(self, hold: Hold) -> bool:
        """Return whether another living session holds a container."""
        return self._reaper.is_held(hold, beside=self.id)

    def has_open(self, container: str) -> bool:
        """Return whether this session has a handle of a container that is not closed."""
        return any(one.id == container for one in self.containers())

    def replace(self, labels: Mapping[str, str], container: str) -> bool | None:
        """
        Remove a container that was started for reuse with other options.

        Returns:
            Whether it is gone; `None` if another living session holds it, and `False` if that cannot be known.

        Raises:
            EngineError: The engine refused.
        """
        return self._reaper.replace(self._engine, labels, container, beside=self.id)

    @property
    def engine_name(self) -> str:
        """The engine's address, as other processes of this host know it."""
        return self._reaper.engine_name

    @property
    def identity(self) -> str:
        """User, machine, boot and PID namespace."""
        return self._reaper.identity

    def add(self, container: OwnedContainer) -> None:
        """Close *container* with this session."""
        registry.add(self, self._timeline)
        self.members.containers.append(container)

    def add_network(self, network: Owned) -> None:
        """Close *network* with this session, after the containers."""
        self.members.networks.append(network)

    def add_volume(self, volume: OwnedVolume) -> None:
        """Close *volume* with this session, after the containers."""
        self.members.closed_volumes.discard(volume.name)
        self.members.volumes.append(volume)

    def untrack_volume(self, volume: OwnedVolume) -> None:
        """Drop a closed volume."""
        members = self.members
        if _discard(members.volumes, lambda one: one is volume):
            members.closed_volumes.add(volume.name)

    def owns_volume(self, name: str) -> bool:
        """Return whether a volume is removed with this session."""
        return any(name == one.name for one in list(self.members.volumes))

    def owned_volumes(self, names: Iterable[str]) -> list[str]:
        """
        Return those of the volumes that are removed with this session.

        Raises:
            ResourceClosedError: One of them was created by this session, and is closed. The engine would create another one
                of that name, which stays.
        """
        owned = []
        for name in names:
            if name in self.members.closed_volumes:
                raise ResourceClosedError(f"volume {name!r} is closed")
            if self.owns_volume(name):
                owned.append(name)
        return owned

    def untrack(self, owned: Owned, *, is_gone: bool) -> None:
        """
        Drop a closed container or network; if it is gone, drop its other handles too.

        It is gone if it no longer exists on the engine.
        """
        self.members.untrack(owned, is_gone=is_gone)

    def containers(self) -> list[OwnedContainer]:
        """Return the containers in use that are not closed, oldest first, without spares."""
        return [one for one in list(self.members.containers) if not one.is_spare]

    def owns_network(self, network: str) -> bool:
        """Return whether a network, given by name or id, is removed with this session."""
        return self.members.owns_network(network)

    def ends(self, process: int) -> AbstractContextManager[None]:
        """
        Let the reaper end a program if this process is killed within the body.

        The program leads a session of its own.
        """
        return self._reaper.ends(process)

    def ensure_reaper(self) -> bool:
        """Return whether the reaper responds; one that has ended is replaced first."""
        return self._reaper.ensure_listening()

    def check_reaper_start(self) -> None:
        """Log a warning if the reaper is known to have failed at its start."""
        self._reaper.check_start()

    def expire(self, container: str, seconds: float | None) -> None:
        """
        Schedule a container's removal by the reaper in *seconds*; `None` cancels it.

        Raises:
            InvalidOptionError: The reaper is turned off, or does not work.
        """
        is_set = self.use_reaper and self._reaper.expire(container, seconds)
        if is_set or seconds is None:
            return
        if not self.use_reaper:
            raise InvalidOptionError(
                "expire needs the reaper, which is turned off",
                hint="leave reaper=True, and DOCKERTEST_REAPER unset",
            )
        raise InvalidOptionError(
            f"expire needs the reaper, which does not work: {self._reaper.failure}",
            hint="dockertest doctor checks it",
        )

    def keep(self, container: str, networks: Iterable[str], volumes: Iterable[str]) -> None:
        """
        Protect a container from every removal by this library.

        The protection includes those of its *networks* and *volumes* that belong to this session.

        Args:
            container: The container's id.
            networks: The ids of all networks that it is connected to.
            volumes: The names of all volumes that it uses.
        """
        connected, mounted = set(networks), set(volumes)
        # Podman 4 reports the names in the place of the ids.
        all_networks, all_volumes = list(self.members.networks), list(self.members.volumes)
        kept = [network for network in all_networks if {network.id, network.name} & connected]
        kept_volumes = [volume for volume in all_volumes if volume.name in mounted]
        records = [volume_record(volume.name) for volume in kept_volumes]
        self._reaper.mark_kept(container, needed=[*(network.id for network in kept), *records])
        for network in kept:
            self.untrack(network, is_gone=False)
        _discard(self.members.volumes, lambda volume: volume in kept_volumes)

    def is_kept(self, record: str) -> bool:
        """
        Return whether a network or volume is kept with a container.

        *record* is the id of the network, or the `volume_record` of the volume.
        """
        return self._reaper.is_kept(record)

    def postpones(self, pool: Closable, failure: BaseException) -> bool:
        """
        Return whether to close *pool* later because a `with` body has failed.

        See `PoolRegistry.postpones`.
        """
        return self._defaults.keep_failed and registry.postpones(pool, failure, self.containers())

    def forget_deadline(self, container: str) -> None:
        """Cancel the deadline of a container that is gone."""
        self._reaper.forget_deadline(container)

    @property
    def prepared(self) -> PreparedRecords:
        """The records of the prepared images on this engine."""
        return self._prepared

    def is_dead_or_expired(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* have expired or their session has provably ended."""
        return self._reaper.is_dead_or_expired(labels)

    def inventory(self) -> list[InventoryItem]:
        """
        Return what any session has made on the engine.

        Raises:
            EngineError: The engine cannot be asked.
        """
        self.check_open()
        return inventory.list_items(
            self._engine, self._standing, self._reaper.records, self._prepared.owner()
        )

    def prune(self, *, reused: bool, prepared: bool, unused: float) -> list[str]:
        """
        Remove what dead sessions left on the engine, and return its ids.

        Raises:
            EngineError: The engine cannot be asked.
        """
        self.check_open()
        try:
            return self._reaper.prune(self._engine, reused=reused, prepared=prepared, unused=unused)
        except OSError as error:
            raise EngineError(f"cannot remove the leftovers of dead sessions: {error}") from error

    def close(self, *, keeps_shared: bool = False) -> None:
        """
        Remove everything, then close the engine's connections.

        Args:
            keeps_shared: Whether shared containers stay in use until the process ends.

        Raises:
            CleanupError: Something is left. Everything was tried; close again to try again.
        """
        members = self.members
        self._prepared.release_all()
        try:
            failures = members.close(self._engine.timeout)
        except KeyboardInterrupt:
            # The reaper removes the rest, so the process may end without the engine.
            if self._reaper.ensure_listening():
                registry.discard(self)
            raise
        if members.has_unconfirmed and not self._defaults.keep:
            failures += self._sweep()
        is_waiting = keeps_shared and self._reaper.shares(members.session)
        if not is_waiting:
            failures += self._reaper.let_go(self._engine, members.session, self._engine.timeout)
        if failures:
            raise self._cleanup_error(failures)
        if is_waiting:
            return
        # In a signal handler, what others were just removing is left to them, and to the reaper.
        is_doubtful = members.has_unconfirmed or self._reaper.holds(members.session)
        self._reaper.end(members.session, doubtful=is_doubtful)
        registry.discard(self)
        self._engine.close()

    def _standing(self, thing: str, labels: Mapping[str, str], is_created: bool) -> str:
        if self._reaper.is_kept(thing):
            return "kept"
        return self._reaper.standing(labels, is_created=is_created)

    def _cleanup_error(self, failures: list[Exception]) -> CleanupError:
        label, cli = f"label={SESSION}={self.id}", self._engine.endpoint.cli
        evidence = "".join(f"\n  {failure}" for failure in failures)
        return CleanupError(
            f"cannot remove {len(failures)} of the pool's containers, networks and volumes:{evidence}",
            failures=tuple(failures),
            hint=f"remove them with: {cli} rm -f -v $({cli} ps -aq --filter {label}); "
            f"{cli} network prune -f --filter {label}; {cli} volume rm $({cli} volume ls -q --filter {label})",
        )

    def _sweep(self) -> list[Exception]:
        """Remove, by label, what the engine made without its answer reaching us."""
        deadline = _clock.monotonic() + SWEEP_SECONDS
        try:
            # The engine may still list what it is removing, or be in the middle of creating it.
            while (left := self._reaper.sweep(self._engine, self.id)) and _clock.monotonic() < deadline:
                _clock.sleep(0.05)
        except (DockertestError, OSError) as error:
            return [error]
        return [EngineError(f"{short(thing)} still exists after its removal") for thing in left]


def volume_record(name: str) -> str:
    """Return the name under which it is noted that a volume is kept."""
    return record_name({"Id": name, "Mountpoint": ""})


def new_session() -> str:
    """Return a random id for a session."""
    return secrets.token_hex(16)


def labels(session: str, identity: str, ttl: float | None = None) -> dict[str, str]:
    """
    Return the labels for what a session makes.

    Only something with the first three is ours to remove.
    """
    owner = {MANAGED: "true", SESSION: session, IDENTITY: identity}
    return owner if ttl is None else {**owner, EXPIRES: str(math.ceil(_clock.time() + ttl))}
