"""A connection to one engine: how it is made, what it owns, how it ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar, cast

from typing_extensions import Self

from dockertest import _image_name as _reference
from dockertest import _validation as _specs
from dockertest._cleanup import reaper_client as _lifeline
from dockertest._cleanup import session as _session
from dockertest._containers import watch as _watch
from dockertest._engine import connect as _connect
from dockertest._engine import endpoint as _endpoint
from dockertest._engine import sdk as _sdk
from dockertest._engine.client import Engine
from dockertest._engine.reachability import Standpoint
from dockertest._handle import Handle
from dockertest._images import process as _process
from dockertest._images import pull as _image
from dockertest._images.credentials import Credentials
from dockertest._images.progress import OnProgress
from dockertest._network import Network
from dockertest._resource import Resource
from dockertest._timeline import Timeline
from dockertest.errors import (
    CleanupError,
    DockertestError,
    EngineError,
    InvalidOptionError,
)

T = TypeVar("T")
log = logging.getLogger("dockertest")


# The field that is the docker SDK's client: the user's own, else the engine's, a new one in a forked child.
class _Client:
    def __get__(self, pool: Connection | None, _type: object = None) -> _sdk.DockerClient | None:
        return None if pool is None else pool._engine.client

    def __set__(self, pool: Connection, given: _sdk.DockerClient | None) -> None:
        pool._given = given


@dataclass(eq=False, repr=False)
class Connection:
    """What a `Pool` is made of; its fields are explained there."""

    endpoint: str | None = None
    _: KW_ONLY
    cert_path: str | os.PathLike[str] | None = None
    client: _sdk.DockerClient = cast("_sdk.DockerClient", _Client())  # noqa: RUF009 - is the same for all
    max_wait: float = 60.0
    timeout: float = 60.0
    image_prefix: str | None = None
    publish_ip: str | None = None
    pull_progress: OnProgress | None = None
    reaper: bool = True
    keep: bool = False
    _timeline: Timeline = field(default_factory=Timeline, init=False)
    _given: _sdk.DockerClient | None = field(init=False)
    _engine: Engine = field(init=False)
    _standpoint: Standpoint = field(init=False)
    _environ: dict[str, str] = field(init=False)
    _credentials: Credentials = field(init=False)
    _images: _image.Images = field(init=False)
    _built: set[_reference.Reference] = field(init=False, default_factory=set)
    _made: dict[int, _session.Belongings] = field(init=False, default_factory=dict)  # by process
    _lifeline: _lifeline.Lifeline = field(init=False)
    _ttl: float | None = field(init=False)
    _warn_of: str = field(init=False, default="")

    def __post_init__(self) -> None:
        _specs.seconds("max_wait", self.max_wait)
        if not _specs.seconds("timeout", self.timeout):
            raise InvalidOptionError("timeout must be more than zero")
        environ = os.environ  # read here and nowhere else
        self.image_prefix = (
            environ.get("DOCKERTEST_IMAGE_PREFIX", "") if self.image_prefix is None else self.image_prefix
        )
        self.publish_ip = _specs.address("publish_ip", self.publish_ip) or _specs.address(
            "DOCKERTEST_PUBLISH_IP", environ.get("DOCKERTEST_PUBLISH_IP")
        )
        if _specs.text("image_prefix", self.image_prefix):
            _reference.reference("image_prefix", f"{self.image_prefix.rstrip('/')}/name")
        ttl = environ.get("DOCKERTEST_TTL")
        self._ttl = _specs.duration("DOCKERTEST_TTL", ttl) if ttl else None
        self.keep = self.keep or bool(_specs.switch("DOCKERTEST_KEEP", environ.get("DOCKERTEST_KEEP")))
        reaper = _specs.switch("DOCKERTEST_REAPER", environ.get("DOCKERTEST_REAPER"))
        self.reaper = self.reaper and reaper is not False
        self._engine = self._connect(environ)
        self._environ = dict(environ)
        self._credentials = Credentials(environ)
        self._images = _image.Images(self._engine, self._credentials, self._timeline)
        override = _specs.host("DOCKERTEST_HOST_OVERRIDE", environ.get("DOCKERTEST_HOST_OVERRIDE"))
        self._standpoint = Standpoint(self._engine, override)
        self._lifeline = _lifeline.lifeline(self._engine, environ)
        self.endpoint = str(self._engine.endpoint)
        self._warn_of = "" if self.publish_ip or self._engine.endpoint.is_local else self.endpoint
        # A remote engine's loopback is reached by nobody, and its IPv4 ports not at an IPv6 address.
        everywhere, here = "::" if ":" in self._engine.endpoint.host else "0.0.0.0", "127.0.0.1"  # noqa: S104
        self.publish_ip = self.publish_ip or (everywhere if self._warn_of else here)

    def __repr__(self) -> str:
        return f"<Pool {self.endpoint}, {len(self._owned)} made{' (closed)' if self._owned.closed else ''}>"

    def __enter__(self) -> Self:
        self._owned.check_open()
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        try:
            self.close()
        except CleanupError as error:
            if failure is None:
                raise
            log.error("%s", error)  # and let the failure of the body go on: it is what the user has to see

    def close(self) -> None:
        """
        Remove everything that the pool made. Everything is tried; closing twice is nothing. In a forked child, what
        its parent made is left alone.

        Raises:
            CleanupError: Something is left; the text says what, and how to remove it. Close again to try again.
        """
        try:
            failures = self._owned.close(self.timeout)
        except KeyboardInterrupt:
            if self._lifeline.has_reaper:  # it removes the rest, and the process may end without the engine
                _process.registry.discard(self)
            raise
        if self._owned.doubtful and not self.keep:
            failures += self._sweep()
        if failures:
            left = "".join(f"\n  {error}" for error in failures)
            label = f"label={_session.SESSION}={self._session_id}"
            raise CleanupError(
                f"{len(failures)} of what the pool made could not be removed; remove it with: "
                f"docker rm -f -v $(docker ps -aq --filter {label}); docker network prune -f --filter {label}{left}",
                failures=tuple(failures),
            )
        self._lifeline.end(self._session_id, doubtful=self._owned.doubtful)
        _process.registry.discard(self)
        self._engine.close()

    @property
    def _owned(self) -> _session.Belongings:
        """What this process made; a forked child begins anew, with a session of its own."""
        if os.getpid() not in self._made:
            closed = any(each.closed for each in self._made.values())
            self._made.setdefault(os.getpid(), _session.Belongings(closed=closed))
        return self._made[os.getpid()]

    @property
    def _session_id(self) -> str:
        return self._owned.session

    @property
    def _watch(self) -> _watch.Watch:
        return _watch.Watch(self._engine, self._owned)

    def _forget(self, handle: Handle | Network) -> None:
        """Stop caring for something that is gone; called by its handle."""
        self._owned.forget(handle)

    def _expire(self, container: str, seconds: float | None) -> None:
        """Have a container removed when its time is up; called by its handle."""
        there = self.reaper and self._lifeline.expire(container, seconds)
        if not there and seconds is not None:
            raise InvalidOptionError(
                "expire needs the reaper; leave reaper=True, and DOCKERTEST_REAPER unset"
            )

    def _expired(self, container: str) -> None:
        """Forget the time of a container that is gone; called by its handle."""
        self._lifeline.expired(container)

    def _sweep(self) -> list[Exception]:
        """Remove what the engine made without our having been told, as when its answer was lost."""
        try:
            left = _lifeline.sweep(self._engine, self._session_id)
            left = left and _lifeline.sweep(
                self._engine, self._session_id
            )  # what was removed is not there again
        except (DockertestError, OSError) as error:
            return [error]
        return [EngineError(f"{thing[:12]} is still there") for thing in left]

    def _begin(self) -> None:
        """Before the first thing is made: have it removed when this process ends, however it ends."""
        _process.registry.add(self)
        if not self.keep:
            self._lifeline.begin(self._session_id, reaper=self.reaper)

    def _labels(self) -> dict[str, str]:
        return _session.labels(self._session_id, _lifeline.identity(), self._ttl)

    def _connect(self, environ: Mapping[str, str]) -> Engine:
        if self._given is not None:
            if self.endpoint or self.cert_path:
                raise InvalidOptionError(
                    "client: an endpoint or cert_path beside it would say the same again; give one"
                )
            return _connect.adopt(self._given, self.timeout)
        if not isinstance(self.cert_path, (str, os.PathLike, type(None))):
            raise InvalidOptionError(f"cert_path: {self.cert_path!r} is no path of a folder")
        folder = None if self.cert_path is None else os.fspath(self.cert_path)
        home = os.path.expanduser("~")  # noqa: PTH111 - never raises
        candidates = _endpoint.candidates(self.endpoint, folder, environ, home=home, platform=sys.platform)
        engine = _connect.find(candidates, self.timeout)
        if engine.endpoint.remark and _process.registry.is_news(engine.endpoint.remark):
            log.warning("%s", engine.endpoint.remark)
        return engine

    def _handle(self, attrs: Mapping[str, Any], image: str, *, borrowed: bool = False) -> Resource:
        return Resource(
            id=str(attrs["Id"]),
            name=str(attrs["Name"]).lstrip("/"),
            container=self._engine.container(attrs),
            _engine=self._engine,
            _owner=self,
            _image=image,
            _borrowed=borrowed,
        )

    def _network_handle(self, attrs: Mapping[str, Any], *, borrowed: bool = False) -> Network:
        return Network(
            id=str(attrs["Id"]),
            name=str(attrs["Name"]),
            network=self._engine.network(attrs),
            _engine=self._engine,
            _owner=self,
            _borrowed=borrowed,
        )
