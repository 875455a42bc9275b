"""
Common parts of all template databases: servers, sessions and clones.

A session is one `TemplateDatabase` in one process. It shows that it is alive by a lock on the server, which distinguishes its
clones from those of a process that was killed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import queue
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit

from dockertest import _resource, _retry, _settings
from dockertest._fingerprint import describe_origin, fingerprint
from dockertest._options import EnvSpec, File, RunFields, RunOptions
from dockertest._pool import Pool
from dockertest._resource import Resource
from dockertest._secret import Assignment, SecretStr
from dockertest._validation import check_callable, check_has_run, is_below
from dockertest.errors import (
    ContainerExitedError,
    DockertestError,
    InvalidOptionError,
    PrepareError,
    ResourceClosedError,
    RetryTimeoutError,
)

log = logging.getLogger("dockertest")

# Databases with these prefixes are ours to drop.
TEMPLATE_PREFIX, CLONE_PREFIX = "dockertest_template_", "dockertest_clone_"
# A host that stops answering does not end its connections. Statements have no time limit, so the operating system probes the host.
SILENT_SECONDS, PROBES = 5, 3
_IDLE_CONNECTIONS = 4  # Further ones are closed.
_SERVER_WAIT_SECONDS = 10.0  # A server that runs already answers at once, or the URL is wrong.
_BAD_ESCAPE = re.compile("%(?!(?!00)[0-9A-Fa-f]{2})")  # in a user, password or host
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:@/\[\]]*)(?::\d{1,5})?")

# PostgreSQL and MySQL accept several spellings of a setting.
_FLAG_PREFIX = re.compile("^(?:--|-c)?(?:(?:loose|skip|disable|enable)-)*")
_SAME_SETTINGS = {"innodb-redo-log-capacity": "innodb-log-file-size"}  # the former overrides the latter

T = TypeVar("T")


class ServerFields(RunFields, total=False):
    """The fields of `RunOptions` that a server may be started with."""

    env: EnvSpec


class Connection(Protocol):
    """A connection to a server."""

    def close(self) -> object:
        """End it."""


C = TypeVar("C", bound=Connection)


class Backend(Protocol[C]):
    """
    What one kind of server does.

    Attributes:
        admin_database: The database to connect to for administration.
        missing: What `copy` and `restore` raise if the template does not exist.
        errors: What the driver raises.
    """

    admin_database: str
    missing: tuple[type[Exception], ...]
    errors: tuple[type[Exception], ...]

    def connect(self, url: str) -> C:
        """Connect for administration."""
        ...

    def hold_session(self, admin: C, session: str) -> bool:
        """
        Show that a session is alive, and return whether the connection works.

        The session counts as alive for as long as the connection lasts.
        """
        ...

    def drop_orphans(self, admin: C) -> None:
        """Drop the clones of sessions that are over."""

    def ensure_template(self, admin: C, name: str, migrate: Callable[[], object]) -> None:
        """
        Create and migrate the template unless it exists.

        The first process does so, and the others wait.
        """

    def copy(self, admin: C, template: str, name: str) -> None:
        """Make a copy of the template."""

    def restore(self, admin: C, template: str, name: str) -> None:
        """Reset a clone to the template's content."""

    def drop(self, admin: C, name: str) -> None:
        """Drop a database of this package, even if something is still connected to it."""

    def mark_kept(self, admin: C, name: str) -> None:
        """Keep a clone from being dropped when its session is over."""


class Database:
    """
    A database that `TemplateDatabase.clone` returns.

    It is dropped by `close()`, at the end of a `with`, and with its `TemplateDatabase`.

    Attributes:
        name: Its name.
        url: The URL to connect to it, password included.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        drop: Callable[[], object],
        keep: Callable[[], object],
        restore: Callable[[], object],
        is_kept: Callable[[], bool],
        postpones: Callable[[Any, BaseException], bool],
    ) -> None:
        self.name = name
        self.url = url
        self._drop = drop
        self._keep = keep
        self._restore = restore
        self._is_kept = is_kept
        self._postpones = postpones
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Database {self.name!r}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and self._postpones(self, failure)):
            _resource.close_after(self, failure)

    def restore(self) -> None:
        """
        Reset the database to the content that it had when it was cloned.

        Its name and URL stay the same. All connections to it are closed by the server.

        Raises:
            ResourceClosedError: The database was closed or kept.
            ContainerExitedError: The server has exited.
        """
        if self._closed:
            raise ResourceClosedError(
                f"{self!r} cannot be restored: it was closed or kept",
                hint="call clone() for another database",
            )
        self._restore()

    def keep(self) -> None:
        """Leave the database and its server running for inspection, and print its URL."""
        if not self._closed:
            self._keep()
            self._closed = True
            if sys.stderr:
                print(f"kept database {self.url}", file=sys.stderr)

    def close(self) -> None:
        """
        Drop the database, even if something is still connected to it.

        Closing twice does nothing. If the pool's `keep` is set, the database is kept instead, and its URL printed. A
        forked child leaves the databases of its parent alone.
        """
        if self._pid != os.getpid():
            self._closed = True
        elif self._is_kept():
            self.keep()
        elif not self._closed:
            self._drop()
            self._closed = True


@contextmanager
def _hint_at_timeout(hint: str) -> Iterator[None]:
    """Replace the hint at `max_wait`, which is not an option of `TemplateDatabase`."""
    try:
        yield
    except RetryTimeoutError as error:
        error.hint = hint
        raise


class ContainerServer:
    """
    A server in a container.

    Args:
        resource: The container.
        outlives: Whether it may stay when its `TemplateDatabase` is closed.
        address: Returns the URL of the server, password included; the port changes with a restart.
    """

    def __init__(self, pool: Pool, resource: Resource, address: Callable[[], str], *, outlives: bool) -> None:
        self._pool = pool
        self._resource = resource
        self._address = address
        self._outlives = outlives

    def __repr__(self) -> str:
        return repr(self._resource)

    @property
    def resource(self) -> Resource:
        """The container."""
        return self._resource

    @property
    def is_kept(self) -> bool:
        """Whether everything is kept for inspection."""
        return self._pool.keep

    @property
    def is_removed(self) -> bool:
        """Whether there is nothing left to drop."""
        return self._resource.status == "removed"

    @property
    def outlives(self) -> bool:
        """Whether databases have to be dropped one by one, since the server stays."""
        return self._outlives or self._pool.keep

    def url(self, database: str) -> SecretStr:
        """Return the URL of a database, password included."""
        return with_database(self._address(), database)

    def retry(self, op: Callable[[], T]) -> T:
        """Call *op* until it returns."""
        with _hint_at_timeout("if it only needs more time, set max_wait= of the pool"):
            return self._resource.retry(op)

    def on_failure(self, callback: Callable[[], object]) -> None:
        """Call *callback* when the server is kept because a test has failed."""
        _resource.on_failure(self._resource, callback)

    def postpones(self, owner: Any, failure: BaseException) -> bool:
        """Return whether to close *owner* later because the body of its `with` failed."""
        return _resource.postpones(owner, failure, [self._resource])

    def keep(self) -> None:
        """Leave the server running."""
        self._resource.keep()

    def close(self) -> None:
        """Remove the server, unless others use it too."""
        self._resource.close()


class RunningServer:
    """A server that was started by others, and stays."""

    is_removed = False
    outlives = True

    def __init__(self, pool: Pool | None, url: str) -> None:
        self._pool = pool
        self._url = SecretStr(url)

    def __repr__(self) -> str:
        return f"<server at {urlsplit(self._url).netloc.rpartition('@')[2]}>"

    @property
    def resource(self) -> Resource:
        """There is none."""
        raise InvalidOptionError(
            "resource: the server was not started by dockertest, so there is no container",
            hint="leave server= out and unset the environment variable to start one",
        )

    @property
    def is_kept(self) -> bool:
        """Whether everything is kept for inspection."""
        return bool(self._pool and self._pool.keep)

    def url(self, database: str) -> SecretStr:
        """Return the URL of a database, password included."""
        return with_database(self._url, database)

    def retry(self, op: Callable[[], T]) -> T:
        """Call *op* until it returns."""
        with _hint_at_timeout("check that the server runs, and that its URL is right"):
            return _retry.retry(op, max_wait=_SERVER_WAIT_SECONDS)

    def on_failure(self, callback: Callable[[], object]) -> None:
        """Do nothing: no container is kept."""

    def postpones(self, owner: Any, failure: BaseException) -> bool:  # noqa: ARG002 - as of `ContainerServer`
        """Return `False`: no container is kept."""
        return False

    def keep(self) -> None:
        """Do nothing: the server stays."""

    def close(self) -> None:
        """Do nothing: the server stays."""


Server = ContainerServer | RunningServer


@dataclass
class _Session(Generic[C]):
    """The connections of one process, which share a lock on the server."""

    id: str = field(default_factory=lambda: secrets.token_hex(6))
    first: C | None = None
    idle: queue.LifoQueue[C] = field(default_factory=queue.LifoQueue)


class Clones(Generic[C]):
    """The databases of one `TemplateDatabase`, and its connections to the server."""

    def __init__(
        self, server: Server, backend: Backend[C], template: str, migrate: Callable[[str], object]
    ) -> None:
        self.server = server
        self.template = template
        self.is_closed = False
        self._backend = backend
        self._migrate = migrate
        self._sessions: dict[int, _Session[C]] = {}  # by process: a forked child has its own
        self._open: dict[str, Database] = {}
        server.on_failure(self._keep_all)

    def prepare(self) -> None:
        """Drop what dead sessions have left, and make the template."""
        with self.admin() as admin:
            self._backend.drop_orphans(admin)
            self.ensure_template(admin)

    def ensure_template(self, admin: C) -> None:
        """Create and migrate the template unless it exists."""
        self._backend.ensure_template(
            admin,
            self.template,
            lambda: check_has_run("migrate", self._migrate(self.server.url(self.template))),
        )

    def open(self, make: Callable[[], str], drop: Callable[[str], object]) -> Database:
        """Return the database whose name *make* returns, and which *drop* drops."""
        self.check_open()
        name = make()
        self._open[name] = database = Database(
            name,
            self.server.url(name),
            drop=partial(self._drop, name, drop),
            keep=partial(self._keep, name),
            restore=partial(self.restore, name),
            is_kept=lambda: self.server.is_kept,
            postpones=self.server.postpones,
        )
        return database

    def copy(self) -> str:
        """Make a copy of the template, and return its name."""
        name = f"{CLONE_PREFIX}{self._session().id}_{secrets.token_hex(4)}"
        self.with_template(partial(self._backend.copy, template=self.template, name=name))
        return name

    def restore(self, name: str) -> None:
        """Reset a clone to the template's content."""
        self.with_template(partial(self._backend.restore, template=self.template, name=name))

    def drop(self, name: str) -> None:
        """Drop a clone."""
        with self.admin() as admin:
            self._backend.drop(admin, name)

    def close(self) -> None:
        """
        Drop the remaining clones if the server stays, and close everything.

        The connections are closed first, then the server.
        """
        errors: tuple[type[Exception], ...] = (DockertestError, *self._backend.errors)
        if not self.is_closed and self.server.outlives:
            for database in list(self._open.values()):
                try:
                    database.close()
                except ContainerExitedError:
                    pass
                except errors as error:
                    # What follows has to be closed nevertheless. The next session drops the database.
                    log.warning("cannot drop %s yet: %s", database.name, error)
        self.is_closed = True
        self.disconnect()
        self.server.close()

    def disconnect(self) -> None:
        """Close the connections to the server, and thereby end the session."""
        session = self._sessions.pop(os.getpid(), None)
        while session and not session.idle.empty():
            session.idle.get_nowait().close()

    def check_open(self) -> None:
        """
        Check that `close` was not called.

        Raises:
            ResourceClosedError: It was.
        """
        if self.is_closed:
            raise ResourceClosedError(f"{self!r} is closed", hint="use it before its pool or with block ends")

    def __repr__(self) -> str:
        return f"<TemplateDatabase on {self.server!r}{' (closed)' if self.is_closed else ''}>"

    @contextmanager
    def admin(self) -> Iterator[C]:
        """Lend a connection for administration; threads do not share one."""
        session = self._session()
        # While the server accepts no more connections, another thread may return one.
        connection = self._idle(session) or self.server.retry(
            lambda: self._idle(session) or self._connect(session)
        )
        try:
            yield connection
        finally:
            # Others need the connections of the server, too. On MySQL, the first one has the lock of the session.
            if connection is session.first or session.idle.qsize() < _IDLE_CONNECTIONS:
                session.idle.put(connection)
            else:
                connection.close()

    def _idle(self, session: _Session[C]) -> C | None:
        """Return a connection that is not in use, `None` if there is none."""
        try:
            connection = session.idle.get_nowait()
        except queue.Empty:
            return None
        if self._backend.hold_session(connection, session.id):
            return connection
        connection.close()
        if connection is session.first:
            session.first = None
        return None

    def _connect(self, session: _Session[C]) -> C:
        connection = self._backend.connect(self.server.url(self._backend.admin_database))
        self._backend.hold_session(connection, session.id)
        session.first = session.first or connection
        return connection

    def _session(self) -> _Session[C]:
        return self._sessions.setdefault(os.getpid(), _Session())

    def with_template(self, work: Callable[[C], object]) -> None:
        """Do what needs the template."""
        with self.admin() as admin:
            try:
                work(admin)
            except self._backend.missing:  # A restart has emptied the server's memory.
                self.ensure_template(admin)
                work(admin)

    def _drop(self, name: str, drop: Callable[[str], object]) -> None:
        if not self.server.is_removed:
            drop(name)
        self._open.pop(name, None)

    def _keep_all(self) -> None:
        """Keep the databases of a test that has failed."""
        for database in list(self._open.values()):
            # The server may be the reason of the failure.
            with suppress(DockertestError, *self._backend.errors):
                database.keep()

    def _keep(self, name: str) -> None:
        """Let a clone and its server outlive this object."""
        with self.admin() as admin:
            self._backend.mark_kept(admin, name)
        self._open.pop(name, None)
        self.server.keep()


@dataclass(frozen=True)
class Migration:
    """
    What fills a template.

    Attributes:
        name: The template, whose name depends on everything that the migration depends on.
        migrate: The user's function.
        version: What it depends on in addition to its code.
    """

    name: str
    migrate: Callable[[str], object]
    version: object


Configure = Callable[[Pool, RunOptions, bool], tuple[RunOptions, Callable[[Resource], str]]]


def start_server(
    pool: Pool | None,
    options: RunOptions,
    configure: Configure,
    backend: Backend[C],
    migration: Migration,
    *,
    prepared: bool | None,
) -> ContainerServer:
    """
    Start a server in a container, from a prepared image if wanted and possible.

    Args:
        options: Those of the user.
        configure: Returns the options to start the server with, and what returns the URL of the started one. Its last argument
            is whether other processes may use the server, and have to find its password.
        prepared: Whether the image contains the migration, too; `None` if that depends on its version, `False` for no image.
    """
    if pool is None:
        raise AssertionError("find_server has checked this")
    is_lasting = bool(options.parsed.reuse) or options.shared

    def server(resource: Resource, url: Callable[[Resource], str]) -> ContainerServer:
        return ContainerServer(pool, resource, partial(url, resource), outlives=is_lasting)

    if prepared is not False and not options.parsed.reuse:
        # Without a version it is not known what else the migration depends on.
        has_migration = bool(migration.version) if prepared is None else prepared
        # Two migrations may use one shared server if it has a name.
        included = migration if has_migration and not (options.shared and options.name) else None
        try:
            started, url = configure(pool, options, True)
            resource = _start_prepared(pool, started, lambda one: server(one, url), backend, included)
            return server(resource, url)
        except InvalidOptionError as error:  # A writable mount, for example; or an option is invalid anyway.
            log.debug("the server is not prepared: %s", error)
        except PrepareError as error:
            log.warning("%s; prepared=False avoids this", error)
    started, url = configure(pool, options, is_lasting)
    return server(pool.run_with_options(started), url)


@dataclass(frozen=True, repr=False)
class _Fill:
    """
    What fills the server of a prepared image.

    Its `repr` identifies it, so a later version of the migration replaces the image.
    """

    origin: str
    run: Callable[[Resource], object]

    def __repr__(self) -> str:
        return self.origin

    def __call__(self, resource: Resource) -> None:
        self.run(resource)


def _start_prepared(
    pool: Pool,
    options: RunOptions,
    server: Callable[[Resource], ContainerServer],
    backend: Backend[C],
    migration: Migration | None,
) -> Resource:
    def ready(resource: Resource) -> None:
        backend.connect(server(resource).url(backend.admin_database)).close()

    def fill(migration: Migration, resource: Resource) -> None:
        clones = Clones(server(resource), backend, migration.name, migration.migrate)
        try:
            clones.prepare()
        finally:
            clones.disconnect()

    prepared = pool.prepare(
        options,
        _Fill(describe_origin(migration.migrate, migration.version), partial(fill, migration))
        if migration
        else None,
        ready=ready,
        version=migration.name if migration else "",
    )
    return pool.run_with_options(prepared)


# Names and URLs


def template_name(migrate: object, version: object) -> str:
    """
    Return the name of the database that *migrate* fills.

    Raises:
        InvalidOptionError: *migrate* cannot be called, or *version* is invalid.
    """
    check_callable("migrate", migrate, "a URL")
    return TEMPLATE_PREFIX + fingerprint(migrate, version)[:24]


def check_name(name: str) -> None:
    """Check before a database is dropped that this package has created it."""
    if not name.startswith((TEMPLATE_PREFIX, CLONE_PREFIX)):
        raise ValueError(f"{name!r} was not created by dockertest")


def session_of(name: str) -> str:
    """Return the session that a clone belongs to."""
    return name.removeprefix(CLONE_PREFIX).split("_")[0]


def server_url(scheme: str, user: str, password: str, address: str) -> SecretStr:
    """Return the URL of a server."""
    return SecretStr(f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{address}/")


def with_database(url: str, database: str) -> SecretStr:
    """Return the URL of a database of a server."""
    parts = urlsplit(url)
    # libpq prefers a database in the query to that of the path.
    options = "&".join(
        option for option in parts.query.split("&") if unquote(option.partition("=")[0]) != "dbname"
    )
    query = f"?{options}" if options else ""
    # `urlunsplit` would omit the slashes before an empty host, which the drivers need.
    return SecretStr(f"{parts.scheme}://{parts.netloc}/{quote(database, safe='')}{query}")


def find_server(
    pool: Pool | None, server: str | None, variable: str, schemes: Sequence[str]
) -> RunningServer | None:
    """
    Return the server that *server* or the environment names.

    Return `None` if one has to be started.

    Args:
        variable: The environment variable.
        schemes: Those that the URL may have.

    Raises:
        InvalidOptionError: The URL is invalid, or there is neither a server nor a pool.
    """
    name, url = ("server", server) if server is not None else (variable, os.environ.get(variable, ""))
    if not url:
        if pool is None or server is not None:
            raise InvalidOptionError(
                f"{name}: expected the URL of a server",
                hint=f"pass a pool to start a server, or a URL as server= or in {variable}",
            )
        return None
    if not _is_server_url(url, schemes):
        # The value contains a password, so no part of it is shown.
        raise InvalidOptionError(
            f"invalid {name}: expected {schemes[0]}://user:password@host:port/",
            hint="quote special characters in user and password, '@' as '%40' for example",
        )
    return RunningServer(pool, url)


def _is_server_url(url: object, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        return False
    if not parts or _BAD_ESCAPE.search(parts.netloc):
        return False  # A driver would quote the value in its error, password included.
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return parts.scheme in schemes and all(map(_HOST.fullmatch, hosts)) and not parts.fragment


def login(url: str) -> tuple[str, str]:
    """Return the user and the password in a URL."""
    parts = urlsplit(url)
    return unquote(parts.username or ""), SecretStr(unquote(parts.password or ""))


# Options of a server in a container


def read_setting(server: RunOptions, name: str) -> str:
    """
    Return the value of a variable as the image sees it.

    The value comes from *name*, or from the file that *name*`_FILE` names.
    """
    env = {assignment.name: assignment.value for assignment in server.parsed.env}
    path = str(env.get(f"{name}_FILE", ""))  # It is not a secret.
    if not path:
        return env.get(name, "")
    if env.get(name):
        raise InvalidOptionError(f"env: {name} and {name}_FILE are exclusive", hint="set one of them")
    # The image's shell strips line ends at the end of the file.
    return SecretStr(_read_file(server, name, path).rstrip("\n"))


def _read_file(server: RunOptions, name: str, path: str) -> str:
    """Return the content of a file that `files` puts into the container."""
    target = posixpath.normpath(path)
    for placed, content in server.parsed.files.items():
        if not is_below(target, placed):
            continue
        try:
            if isinstance(content, Path):
                return (content / posixpath.relpath(target, placed)).resolve().read_text(encoding="utf-8")
            data = content.data if isinstance(content, File) else content
            return data if isinstance(data, str) else data.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidOptionError(
                f"env: cannot read {name}_FILE from files[{placed!r}]: {error}"
            ) from error
    raise InvalidOptionError(
        f"env: {name}_FILE is {path!r}, which is not in files",
        hint=f"put the file there with files={{{path!r}: …}}, or set {name} instead",
    )


def set_variables(server: RunOptions, values: dict[str, str]) -> list[str]:
    """
    Return the server's environment with these variables.

    A variable is left out if its `_FILE` variant is set, since images refuse to have both.
    """
    given = {assignment.name for assignment in server.parsed.env if assignment.value}
    ours = {name: value for name, value in values.items() if f"{name}_FILE" not in given}
    rest = (assignment for assignment in server.parsed.env if assignment.name not in ours)
    return [*rest, *(Assignment(f"{name}={value}") for name, value in ours.items())]


def make_password(server: RunOptions, kind: str, *, is_lasting: bool) -> str:
    """
    Return a password, which is random unless other processes may use the server.

    In that case all of them can derive it. The password of this user's servers is in a file that only this user can
    read. That of a group follows from its name: everyone who knows the name belongs to the group.

    Args:
        server: The options.
        kind: The kind of server.
        is_lasting: Whether other processes may use the server.
    """
    reuse = server.parsed.reuse
    if reuse and reuse.group is not None:
        return SecretStr(hashlib.sha256(f"dockertest {reuse.group}".encode()).hexdigest()[:32])
    if not is_lasting:
        return SecretStr(secrets.token_hex(16))
    return SecretStr(_settings.private_text(os.environ, f"{kind}-password"))


def image_command(pool: Pool, server: RunOptions) -> Sequence[str]:
    """Return the command of the server's image, which is pulled if necessary."""
    return pool.pull(
        server.repository, server.tag, platform=server.platform, auth=server.auth, policy=server.pull
    ).command


def missing_settings(settings: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return the *settings*, `name=value` or flags, that *command* does not have."""
    given = set(map(_setting_name, command))
    return [setting for setting in settings if _setting_name(setting) not in given]


def _setting_name(word: str) -> str:
    name = _FLAG_PREFIX.sub("", word.partition("=")[0].replace("_", "-").lower())
    return _SAME_SETTINGS.get(name, name)


def has_data_elsewhere(server: RunOptions, folder: str) -> bool:
    """Return whether the user has mounted something at or below the data folder."""
    mounted = (mount.target for mount in server.parsed.mounts)
    return any(is_below(path, folder) for path in (*mounted, *server.parsed.tmpfs))
