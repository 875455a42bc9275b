"""Volumes of containers."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NoReturn, Self

from dockertest import _resource
from dockertest._cleanup.registry import registry
from dockertest._cleanup.session import volume_record
from dockertest._containers.container import State
from dockertest._engine import volumes
from dockertest._interruption import interrupts_package
from dockertest._public import public
from dockertest._runtime import Runtime
from dockertest.errors import ResourceClosedError


@public
@dataclass(eq=False, repr=False)
class Volume:
    """
    One volume.

    A volume is storage that several containers can share, or that outlives a container. It is removed, with all that is
    in it, by `close()`, at the end of a `with`, when its pool is closed, and when the interpreter ends.

    Attributes:
        name: The volume's name.
    """

    name: str
    _runtime: Runtime = field(init=False)
    _state: State = field(init=False, default=State.OPEN)
    _pid: int = field(init=False, default_factory=os.getpid)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __repr__(self) -> str:
        return f"<Volume {self.name!r}{'' if self._state is State.OPEN else ' (closed)'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Volume cannot be pickled, since it is tied to this process; pass its name instead")

    def __enter__(self) -> Self:
        if self._state is not State.OPEN:
            raise ResourceClosedError(
                f"volume {self.name!r} is closed", hint="use it before its pool or with block ends"
            )
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and self._runtime.session.postpones(self, failure)):
            _resource.close_after(self, failure)

    def close(self) -> None:
        """
        Remove the volume; close the containers that use it before.

        It stays if a kept container needs it. Closing twice does nothing. In a forked child, the parent's volume is left alone.

        Raises:
            EngineError: The engine did not remove it, for example because a container uses it; call again to try again.
        """
        if self._pid != os.getpid():  # The thread that held the lock at the fork may not exist here.
            self._state = State.CLOSED
            return
        is_kept = self._runtime.defaults.keep or self._runtime.session.is_kept(volume_record(self.name))
        if is_kept and self._state is State.OPEN:
            cli = self._runtime.engine.endpoint.cli
            registry.keep(f"kept volume {self.name!r}; remove: {cli} volume rm {self.name}")
        # Two removals do no harm, so a signal handler does not wait for one that it has interrupted.
        with nullcontext() if interrupts_package() else self._lock:
            if is_kept:
                self._state = State.CLOSED
            elif self._state is State.OPEN:
                volumes.remove(self._runtime.engine, self.name)
                self._state = State.REMOVED
        self._runtime.session.untrack_volume(self)


def volume_of(runtime: Runtime, name: str) -> Volume:
    """Return the handle of a volume that was just created."""
    volume = Volume(name)
    volume._runtime = runtime
    return volume
