"""
Records and locks of prepared images, which all processes of one user share.

They show which processes use and make which images.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from dockertest import _clock
from dockertest._cleanup.reaper_client import ReaperClient
from dockertest.errors import PrepareError

POLL_SECONDS = 0.02


class PreparedRecords:
    """
    The prepared images of one engine that this user on this machine knows of.

    See `reaper.Records`.
    """

    def __init__(self, client: ReaperClient) -> None:
        self._records = client.records
        self._client = client
        self._held: dict[str, int | None] = {}  # descriptors by key
        self._users: Counter[str] = Counter()  # calls of `use` by key
        self._locks: dict[int, threading.RLock] = {}  # by process id
        self._preparing = threading.Lock()  # for systems without locks of files

    @property
    def engine(self) -> str:
        """The address of the engine in the records."""
        return self._client.engine_url

    @property
    def _changing(self) -> threading.RLock:
        """The lock of this process; the thread that holds it does not survive a fork."""
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def owner(self) -> str:
        """Return the owner in these images' labels; empty until their secret exists."""
        return self._records.owner()

    def use(self, key: str) -> None:
        """Record that a prepared image is used now; prevent its removal until `release`."""
        with self._changing:
            if key not in self._held:
                self._held[key] = self._lock(f"{key}.in-use", shared=True)
            self._users[key] += 1
        self._records.touch_prepared(key)

    def release(self, key: str) -> None:
        """
        Undo one call of `use`; after the last one, the image can be removed.

        Without an image, its locks are removed too.
        """
        with self._changing:
            self._users[key] -= 1
            if self._users[key] > 0:
                return
            del self._users[key]
            descriptor = self._held.pop(key, None)
            if descriptor is not None:
                os.close(descriptor)
        if not self._records.prepared(key):
            with self._records.removing_prepared(key) as is_free:
                if is_free:
                    self._records.forget_prepared(key)

    def release_all(self) -> None:
        """Let all prepared images be removed that this pool has used."""
        with self._changing:
            self._users.clear()
            while self._held:
                _, descriptor = self._held.popitem()
                if descriptor is not None:
                    os.close(descriptor)

    @contextmanager
    def preparing(self, key: str) -> Iterator[None]:
        """Let one process and thread at a time make an image; the others wait."""
        with self._preparing if os.name == "nt" else nullcontext():
            descriptor, process = self._lock(f"{key}.preparing", shared=False), os.getpid()
            try:
                yield
            finally:
                if descriptor is not None:
                    # Processes that *fill* has started must not keep it, and a child must not open its parent's.
                    if os.getpid() == process:
                        self._records.unlock(descriptor)
                    else:
                        os.close(descriptor)

    def find(self, key: str) -> dict[str, Any]:
        """Return the record of a prepared image; empty if there is none."""
        return self._records.prepared(key)

    def store(self, key: str, record: Mapping[str, Any]) -> None:
        """
        Write down a prepared image.

        Raises:
            PrepareError: That is not possible.
        """
        if not self._records.set_prepared(key, {**record, "engine": self.engine, "superseded": False}):
            raise _not_writable(self._records.folder)

    def supersede(self, series: str, key: str) -> None:
        """Mark the unused images of a series as replaced, except the one with *key*."""
        for other in self._records.prepared_keys(self.engine):
            if other != key and self._records.prepared(other).get("series") == series:
                with self._records.removing_prepared(other) as is_free:
                    if is_free:
                        self._records.supersede(other)

    def _lock(self, name: str, *, shared: bool) -> int | None:
        """Wait for a file's lock and return its descriptor; `None` if not supported."""
        try:
            while (descriptor := self._records.lock(name, shared=shared)) is None:
                _clock.sleep(POLL_SECONDS)
        except ImportError:
            return None
        except OSError as error:
            raise _not_writable(self._records.folder) from error
        return descriptor


def _not_writable(folder: object) -> PrepareError:
    return PrepareError(
        f"cannot write down in {str(folder)!r} which images are prepared",
        hint="set XDG_STATE_HOME to a folder that you can write to",
    )
