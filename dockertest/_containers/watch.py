"""Notice containers of a session that end while someone waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dockertest._cleanup.reaper import REUSE, SESSION, SHARED
from dockertest._cleanup.session import Session
from dockertest._concurrency import run_in_parallel
from dockertest._containers.container import Container, Ownership
from dockertest._engine.client import EngineClient
from dockertest._engine.inspection import ENDED_STATUSES
from dockertest._report import Report
from dockertest.errors import ContainerExitedError, DockertestError


class LivenessMonitor:
    """Watches all containers of a session, and reports each failing exit once."""

    def __init__(self, engine: EngineClient, session: Session) -> None:
        self._engine = engine
        self._session = session

    def check(self, timeout: float) -> None:
        """
        Raise an error if a container has ended with a failure.

        Errors of the engine are ignored. One list takes the engine 2 to 3 ms for any number of containers. Only those that
        have ended or are gone are inspected.

        Args:
            timeout: Seconds that each request may take.

        Raises:
            ContainerExitedError: A container has ended with a non-zero exit code, and that was not asked for, reported
                before or due to `expire`.
        """
        watched = [one for one in self._containers() if not one.exit_acknowledged]
        try:
            listed = self._list(watched, timeout)
        except DockertestError:
            return
        states = {one["Id"]: one.get("State") for one in listed}
        for container in watched:
            state = states.get(container.id, "removed")
            if state not in (*ENDED_STATUSES, "removed"):
                continue
            try:
                container.check_alive(timeout)
            except ContainerExitedError as error:
                was_acknowledged = (
                    container.exit_acknowledged
                )  # another thread may have called `stop` meanwhile
                for other in watched:  # A reused container may have two handles.
                    if other.id == container.id:
                        other.acknowledge_exit()
                is_expiry = state == "removed" and container.has_deadline
                if not was_acknowledged and not is_expiry and error.exit_code != 0:
                    raise

    def reports(self) -> tuple[Report, ...]:
        """
        Return the reports of all containers.

        All are asked at once, since each waits for a frozen engine.
        """
        results = run_in_parallel([one.report for one in self._containers()])
        return tuple(report for report in results if not isinstance(report, Exception))

    def _containers(self) -> list[Container]:
        return [one for one in self._session.containers() if isinstance(one, Container)]

    def _list(self, watched: Sequence[Container], timeout: float) -> list[dict[str, Any]]:
        """
        List the containers that may be watched.

        A reused or shared container may have been created by another session.
        """
        labels = []
        ownerships = {one.ownership for one in watched}
        if ownerships - {Ownership.REUSED, Ownership.SHARED}:
            labels.append(f"{SESSION}={self._session.id}")
        if Ownership.REUSED in ownerships:
            labels.append(REUSE)
        if Ownership.SHARED in ownerships:
            labels.append(SHARED)
        return [one for label in labels for one in self._engine.containers([label], timeout=timeout)]


def waited_for(containers: Iterable[object]) -> Container | None:
    """
    Return the one container that has not been ready yet.

    Return `None` if there are several or none.
    """
    pending = [one for one in containers if isinstance(one, Container) and not one.was_ready]
    return pending[0] if len(pending) == 1 else None
