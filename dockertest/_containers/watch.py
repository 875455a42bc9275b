"""Look after what a session runs while somebody waits. Asks the engine; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dockertest._cleanup.session import REUSE, SESSION, Belongings, Container, side_by_side
from dockertest._engine.client import Engine
from dockertest._report import Report
from dockertest.errors import ContainerExitedError, DockertestError


class Watch:
    """Look after all containers of a session at once, for an end with a failure; tell each death once."""

    def __init__(self, engine: Engine, belongings: Belongings) -> None:
        self._engine = engine
        self._label = f"{SESSION}={belongings.session}"
        self._belongings = belongings

    def _check_alive(self, within: float) -> None:
        """One list takes the engine 2 to 3 ms, for however many containers; only what is dead is asked about."""
        watched = [each for each in self._belongings.containers() if not each._end_known]
        try:
            listed = self._list(watched, within)
        except DockertestError:
            return  # the engine's trouble says nothing about the containers
        states = {each["Id"]: each.get("State") for each in listed}
        for container in watched:
            state = states.get(container.id, "removed")
            if state not in ("exited", "dead", "removed"):
                continue
            try:
                container._check_alive(within)
            except ContainerExitedError as error:
                was_known = container._end_known
                for each in watched:  # of one that is reused there may be two handles
                    each._end_known = each._end_known or each.id == container.id
                was_wanted = state == "removed" and container._expires  # its time was up
                if not was_known and not was_wanted and error.exit_code != 0:
                    raise

    def _list(self, watched: Sequence[Container], within: float) -> list[dict[str, Any]]:
        """Ask for what may be watched: what is reused may have been made by another session."""
        labels = [self._label] if not all(each._reused for each in watched) else []
        labels += [REUSE] if any(each._reused for each in watched) else []
        return [each for label in labels for each in self._engine.containers([label], within=within)]

    def _reports(self) -> tuple[Report, ...]:
        """Ask for all of them at once: an engine that is frozen is waited for by each of them."""
        found = side_by_side([each._reports for each in self._belongings.containers()])
        return tuple(report for each in found if not isinstance(each, Exception) for report in each)
