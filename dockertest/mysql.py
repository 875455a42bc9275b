"""
A MySQL or MariaDB database for each test in milliseconds.

All tests share one server and one migration. Copies of the database are made in advance.

Needs PyMySQL: `pip install "dockertest-py[mysql]"`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import parse_qsl, unquote, urlsplit

from dockertest import _clock, _template
from dockertest._concurrency import start_thread
from dockertest._interruption import interrupts_package
from dockertest._options import RunOptions
from dockertest._pool import Pool
from dockertest._resource import Resource, close_after
from dockertest._secret import SecretStr
from dockertest._template import (
    CLONE_PREFIX,
    PROBES,
    SILENT_SECONDS,
    Clones,
    ContainerServer,
    RunningServer,
    ServerFields,
    session_of,
)
from dockertest._template import Database as Database
from dockertest.errors import InvalidOptionError

try:
    import pymysql
except ImportError as error:
    raise ImportError(
        'dockertest.mysql needs PyMySQL; install it with: pip install "dockertest-py[mysql]"'
    ) from error
from pymysql.constants import CLIENT

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

    _Connection = pymysql.Connection[Cursor]

_Row = tuple[Any, ...]
# No test needs its data after a crash of the machine. `loose` is for options that not every version has.
_FAST_SETTINGS = (
    "--innodb-doublewrite=0",
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-binlog=0",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--loose-innodb-log-file-size=32M",
    "--loose-innodb-redo-log-capacity=64M",
    "--loose-userstat=1",
)
_DATA_FOLDER = "/var/lib/mysql"
_CONNECT_SECONDS = 5
_STUCK_SECONDS = 10  # A client that is killed ends at once, unless it has much to roll back.
_SPARE_COPIES = 4  # Further copies that are not in use are dropped.
_STATEMENTS_PER_REQUEST = 200
# Where this module remembers finished templates and kept databases.
_STATE = "dockertest_state"
_WITHOUT_ROWS = frozenset({"MRG_MYISAM", "FEDERATED", "SPIDER"})  # engines whose rows are in other tables
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# What a URL may contain in addition.
_URL_OPTIONS = frozenset({"charset", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket"})
_SQL_MODE = "NO_AUTO_VALUE_ON_ZERO"
# So that the data is copied as it is: no value is changed, refused, or converted through a time zone with leaps.
_SESSION = (
    f"SET SESSION sql_mode = '{_SQL_MODE}', foreign_key_checks = 0, unique_checks = 0, "
    f"time_zone = '+00:00', wait_timeout = 31536000, lock_wait_timeout = {_STUCK_SECONDS}, sql_quote_show_create = 1"
)
# Settings that not every version has, or that need privileges.
_OPTIONAL = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_log_bin = 0",
    "SET SESSION sql_require_primary_key = 0",
    "SET SESSION innodb_strict_mode = 0",
    "SET SESSION max_statement_time = 0",  # MariaDB
    "SET SESSION max_execution_time = 0",  # MySQL
    "SET SESSION system_versioning_insert_history = 1",
    "SET GLOBAL userstat = 1",
)
_PAUSE_SECONDS = 0.002
_TLS_REQUIRED = 3159
_UNKNOWN_DATABASE, _NO_SUCH_TABLE, _NO_SUCH_THREAD, _LOCK_WAIT_TIMEOUT = 1049, 1146, 1094, 1205
# Only in the line with the options of the table.
_AUTO_INCREMENT = re.compile(r"^(\).* ENGINE=\w+) AUTO_INCREMENT=(\d+)", re.MULTILINE)


def connect(url: str, **options: Any) -> _Connection:
    """
    Return a connection of PyMySQL, which takes no URLs itself.

    A connection to this host does without TLS, unless the URL or *options* have settings for it, or the server requires
    it.

    Args:
        url: `mysql://user:password@host:3306/database`, as `Database.url` has it.
        options: Other arguments of `pymysql.connect`.

    Raises:
        pymysql.Error: The connection cannot be made.
    """
    arguments = {**_parse_url(url), **options}
    try:
        if urlsplit(url).hostname in _LOOPBACK and not any(name.startswith("ssl") for name in arguments):
            # For each connection with TLS, PyMySQL loads the certificates of all authorities, which takes 25 milliseconds.
            with _expecting(_TLS_REQUIRED):
                return pymysql.connect(**arguments, ssl_disabled=True)
        return pymysql.connect(**arguments)
    except pymysql.Error as error:
        # The variables of PyMySQL's frames may contain the password.
        raise error.with_traceback(None) from None


def _parse_url(url: str) -> dict[str, Any]:
    """Return the arguments of `pymysql.connect` that a URL stands for."""
    parts = urlsplit(url)
    user, password = _template.login(url)
    given = {name: value for name, value in parse_qsl(parts.query) if name in _URL_OPTIONS}
    return {
        "host": parts.hostname or "localhost",
        "port": parts.port or 3306,
        "user": user,
        "password": password,
        "database": unquote(parts.path[1:]) or None,
        **given,
    }


class TemplateDatabase:
    """
    A MySQL or MariaDB server with a migrated database and copies of it.

    `clone` returns a copy for each test. These servers have no command that copies a database. Copies are therefore made
    in advance, by a thread in the background, and used again. When a test closes its database, the tables that it has
    changed are given the template's content. A database whose definition was changed is dropped and made again.

    The server is started at once, from a prepared image if possible. It is removed by `close()`, at the end of a `with`,
    and with its pool. With `reuse` it stays, migrated, for the next run and for the other workers of a test runner. With
    `shared` all processes of one test run use it, and it is removed when the last of them ends.

    Args:
        pool: Where to start the server; `None` is allowed if a server runs already.
        migrate: Called with the URL of an empty database, to fill it; `connect` connects to it. With `reuse`, `shared` or
            `server`, it is called once for each *version*, however many threads, processes and runs there are.
        version: What the result of the migration depends on in addition to the code of *migrate*: a `str` that you
            change by hand, the `pathlib.Path` of a file or folder whose content counts, or several of both.
        server: The URL of a server that runs already, `mysql://user:password@host:3306/`, of a user with all privileges. By
            default the environment variable `DOCKERTEST_MYSQL_URL`. If there is one, no container is started, and the
            options of the container are ignored.
        repository: The image, of MySQL or of MariaDB; `"mysql"` by default.
        tag: Its tag; `"9.7"` by default.
        fast: Trade durability, which no test needs, for speed, and keep the data in memory unless something is mounted at
            or below `/var/lib/mysql`. Settings in the command of the server are kept. A server that is stopped and started
            again has then lost its data, and the next `clone` migrates it again. True by default.
        prepared: Whether to start the server from a prepared image, so that later runs wait for neither its setup nor the
            migration. By default the image contains the migration if *version* is not empty, since only then it is known
            what else the migration depends on; otherwise it contains a server that is set up. `True` stores the migration
            in any case, and `False` starts a new server. Not with `reuse`, `fast=False`, or writable mounts.
        options: The other fields of `RunOptions`. The password of `root`, who the URLs log in as, comes from
            `MYSQL_ROOT_PASSWORD` or `MARIADB_ROOT_PASSWORD` in `env`, or from a file that these names with `_FILE` name
            and `files` contains. By default it is one that only this user of the machine can read.

    Raises:
        InvalidOptionError: An option has an invalid value.
        RetryTimeoutError: The server does not answer within the pool's `max_wait`, or within ten seconds if it was not
            started by this object.
        ContainerExitedError: The server has exited.
    """

    def __init__(
        self,
        pool: Pool | None,
        migrate: Callable[[str], object],
        *,
        version: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "",
        server: str | None = None,
        repository: str = "mysql",
        tag: str | None = "9.7",
        fast: bool = True,
        prepared: bool | None = None,
        **options: Unpack[ServerFields],
    ) -> None:
        try:
            container = RunOptions(repository=repository, tag=tag, **options)
            server = SecretStr(server) if isinstance(server, str) else server
        finally:
            del options  # Tools that print the variables of a traceback must not show secrets.
        name = _template.template_name(migrate, version)
        self._backend = _Backend()
        found: ContainerServer | RunningServer | None = _template.find_server(
            pool, server, "DOCKERTEST_MYSQL_URL", ("mysql", "mariadb")
        )
        if not found:
            found = _template.start_server(
                pool,
                container,
                partial(_configure, fast=fast),
                self._backend,
                _template.Migration(name, migrate, version),
                prepared=prepared if fast else False,
            )
        self._clones: Clones[_Connection] = Clones(found, self._backend, name, migrate)
        self._copies: dict[int, _Copies] = {}  # by process: a forked child has its own
        try:
            self._clones.prepare()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return repr(self._clones)

    def __enter__(self) -> Self:
        self._clones.check_open()
        return self

    def __exit__(self, _type: object, failure: BaseException | None, _traceback: object) -> None:
        if not (failure and self._clones.server.postpones(self, failure)):
            close_after(self, failure)

    @property
    def resource(self) -> Resource:
        """
        The server's container.

        Raises:
            InvalidOptionError: There is none, since the server was not started by dockertest.
        """
        return self._clones.server.resource

    def clone(self) -> Database:
        """
        Return a database with the content of the migrated one.

        Nothing else uses it until it is closed. It is one of the copies that a background thread has made ready. Without
        one, the call waits for the thread or makes a copy itself. May be called from any thread.

        Raises:
            ResourceClosedError: This object is closed.
            ContainerExitedError: The server has exited.
        """
        copies = self._copies.setdefault(os.getpid(), _Copies(self._clones, self._backend))
        return self._clones.open(copies.take, copies.put_back)

    def close(self) -> None:
        """
        Drop the databases and remove the server.

        With `reuse`, `shared` or `server`, the server stays. Closing twice does nothing.

        Raises:
            EngineError: The engine did not remove the server; call again to try again.
        """
        if copies := self._copies.get(os.getpid()):
            copies.close()
        self._clones.close()


def _configure(
    pool: Pool, options: RunOptions, is_lasting: bool, fast: bool
) -> tuple[RunOptions, Callable[[Resource], str]]:
    """
    Return the server's options, and a function that returns its URL.

    The function takes the started server.
    """
    variable, password = _root_password(options, is_lasting=is_lasting)
    configured = replace(options, env=_template.set_variables(options, {variable: password}))
    if fast:
        configured = _made_fast(configured, _template.image_command(pool, options))
    return configured, lambda resource: _template.server_url(
        "mysql", "root", password, resource.get_host_port(3306)
    )


def _root_password(server: RunOptions, *, is_lasting: bool) -> tuple[str, str]:
    """Return the name of the variable for the password, and the password."""
    for variable in ("MARIADB_RANDOM_ROOT_PASSWORD", "MYSQL_RANDOM_ROOT_PASSWORD"):
        if any(assignment.name == variable and assignment.value for assignment in server.parsed.env):
            raise InvalidOptionError(
                f"env: {variable} makes the image choose a password that dockertest does not know",
                hint="leave it out, and dockertest sets a password",
            )
    for variable in ("MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"):
        if password := _template.read_setting(server, variable):
            return variable, password
    # MariaDB's image knows this name, too.
    return "MYSQL_ROOT_PASSWORD", _template.make_password(server, "mysql", is_lasting=is_lasting)


def _made_fast(server: RunOptions, image_command: Sequence[str]) -> RunOptions:
    """Return options for a fast server, which loses its data if the machine crashes."""
    command = server.cmd or (["mysqld"] if server.entrypoint else image_command)
    changes: dict[str, Any] = {"cmd": [*command, *_template.missing_settings(_FAST_SETTINGS, command)]}
    has_folder = any(word.startswith("--datadir") for word in command)
    if not has_folder and not _template.has_data_elsewhere(server, _DATA_FOLDER):
        changes["tmpfs"] = {**server.parsed.tmpfs, _DATA_FOLDER: ""}
    return replace(server, **changes)


# Copies


class _TemplateMissingError(Exception):
    """The server has no finished template, since a restart has emptied its memory."""


@dataclass
class _Program:
    """A view, trigger, routine or event, and the settings that it was made with."""

    kind: str
    name: str
    text: str
    sql_mode: str | None = None
    time_zone: str | None = None
    collation: str | None = None

    def statements(self) -> list[str]:
        """
        Return the statements that create the program.

        The session's own settings have to be set again afterwards.
        """
        settings = {
            # That of a view, which has none of its own, is the one in which its text was read.
            "sql_mode": _SQL_MODE if self.sql_mode is None else self.sql_mode,
            "time_zone": self.time_zone,
            "collation_connection": self.collation,
        }
        changes = [f"{name} = {_quoted(value)}" for name, value in settings.items() if value is not None]
        return [f"SET SESSION {', '.join(changes)}", self.text]


@dataclass
class _Schema:
    """
    The definition of a database.

    Attributes:
        text: What made the database itself.
        tables: The text that made each table, by name.
        programs: Views, triggers and routines, in an order in which they can be made.
        events: These change data by themselves, so a copy that is not in use has none.
    """

    text: str
    tables: dict[str, str] = field(default_factory=dict)
    programs: list[_Program] = field(default_factory=list)
    events: list[_Program] = field(default_factory=list)

    def definition(self) -> object:
        """Return what a test may not have changed if its database is used again."""
        tables = {name: _AUTO_INCREMENT.sub(r"\1", text) for name, text in self.tables.items()}
        # Of several statements in one request, MySQL stores some with the separator.
        programs = [(item.kind, item.name, item.text.rstrip("; \n"), item.sql_mode) for item in self.programs]
        return self.text, tables, sorted(programs, key=repr)


@dataclass
class _Template:
    """
    What copies are made of.

    Attributes:
        name: The database.
        schema: Its definition.
        columns: The columns to copy for each table that has rows of its own.
        cascades: The tables that the engine itself changes when a row of a table is changed or deleted.
        insert_triggers: The triggers that have to be out of the way when rows are put back, by table.
        kinds: The kind of each table, by name: `BASE TABLE`, `SEQUENCE` or `SYSTEM VERSIONED`.
        uncounted: The tables of engines that do not count every write.
    """

    name: str
    schema: _Schema
    columns: dict[str, str]
    cascades: dict[str, set[str]]
    insert_triggers: dict[str, list[_Program]]
    kinds: dict[str, str]
    uncounted: set[str]

    def copy_rows(self, table: str, database: str) -> str:
        """Return the statement that fills an empty table of a copy."""
        columns, source = self.columns[table], f"{_name(self.name)}.{_name(table)}"
        history = " FOR SYSTEM_TIME ALL" if self.kinds[table] == "SYSTEM VERSIONED" else ""
        return f"INSERT INTO {_name(database)}.{_name(table)} ({columns}) SELECT {columns} FROM {source}{history}"

    def affected(self, tables: set[str]) -> set[str]:
        """Return *tables* and those that a change to them may have changed."""
        found, queue = set(tables), list(tables)
        while queue:
            new = self.cascades.get(queue.pop(), set()) - found
            found |= new
            queue += new
        return found


@dataclass(frozen=True)
class _Marks:
    """
    What shows whether the tables of a database were written to.

    Attributes:
        writes: How often each table was written to.
        ids: The ids of the tables by the engine's names for them; TRUNCATE changes them, and is not counted.
        total: The writes to this module's own tables, which become fewer only if the server has forgotten its counts.
    """

    writes: Mapping[str, int]
    ids: Mapping[str, int]
    total: int


class _Backend:
    """How MySQL and MariaDB copy databases."""

    admin_database = ""
    missing: tuple[type[Exception], ...] = (_TemplateMissingError,)
    errors: tuple[type[Exception], ...] = (pymysql.Error,)

    def __init__(self) -> None:
        self._templates: dict[str, _Template] = {}  # by the random stamp of each
        self._marks: dict[str, _Marks] = {}  # by database
        self._new: set[str] = set()  # databases that nothing has used, although nothing would show it

    def connect(self, url: str) -> _Connection:
        """Connect for administration."""
        admin = connect(
            url, connect_timeout=_CONNECT_SECONDS, autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS
        )
        try:
            _watch(admin)
            _query(admin, _SESSION)
            for statement in _OPTIONAL:
                with suppress(pymysql.Error):
                    _query(admin, statement)
        except BaseException:
            admin.close()
            raise
        return admin

    def hold_session(self, admin: _Connection, session: str) -> bool:
        """Show that a session is alive; the lock belongs to one of its connections."""
        try:
            _query(admin, f"SELECT GET_LOCK({_quoted(_lock(session))}, 0)")
        except pymysql.Error:  # The server was restarted, for example.
            return False
        return True

    def drop_orphans(self, admin: _Connection) -> None:
        """Drop the clones of sessions that are over, whose locks are free."""
        kept = set()
        with _expecting(_UNKNOWN_DATABASE, _NO_SUCH_TABLE):
            kept = {name for (name,) in _query(admin, f"SELECT name FROM {_STATE}.kept")}
        names = [
            str(name) for (name,) in _query(admin, "SHOW DATABASES") if str(name).startswith(CLONE_PREFIX)
        ]
        for session in {session_of(name) for name in names}:
            with _lock_or_skip(admin, session) as is_over:
                for name in names:
                    # A process that the dead one has started may still use it.
                    is_used = not is_over or session_of(name) != session or _clients(admin, name)
                    if not is_used and name not in kept:
                        self.drop(admin, name)

    def ensure_template(self, admin: _Connection, name: str, migrate: Callable[[], object]) -> None:
        """
        Create and migrate the template unless it exists.

        The first process does so, and the others wait.
        """
        _run(
            admin,
            f"CREATE DATABASE IF NOT EXISTS {_STATE}",
            f"CREATE TABLE IF NOT EXISTS {_STATE}.kept (name varchar(64) PRIMARY KEY) ENGINE=InnoDB",
            f"CREATE TABLE IF NOT EXISTS {_STATE}.template (name varchar(64) PRIMARY KEY, stamp varchar(64), "
            "events longtext CHARACTER SET utf8mb4) ENGINE=InnoDB",
        )
        lock = _quoted(name)
        if _query(admin, f"SELECT GET_LOCK({lock}, 1000000)") != ((1,),):
            raise pymysql.OperationalError(
                _LOCK_WAIT_TIMEOUT, f"waiting for the migration of {name} was interrupted"
            )
        try:
            if not _query(admin, f"SELECT 1 FROM {_STATE}.template WHERE name = %s", name):
                # A process that was killed left it half-made.
                _run(admin, f"DROP DATABASE IF EXISTS {_name(name)}", f"CREATE DATABASE {_name(name)}")
                migrate()
                self._seal(admin, name)
        finally:
            with suppress(pymysql.Error):  # The connection is lost, and the lock with it.
                _query(admin, f"SELECT RELEASE_LOCK({lock})")

    def _seal(self, admin: _Connection, name: str) -> None:
        """Mark a template as finished; nothing changes it any more."""
        _disconnect(admin, name)
        events = _read_schema(admin, name).events
        _run(admin, *(f"DROP EVENT {_name(name)}.{_name(event.name)}" for event in events))
        stored = json.dumps([vars(event) for event in events])
        values = (name, secrets.token_hex(8), stored)
        _query(admin, f"INSERT INTO {_STATE}.template VALUES (%s, %s, %s)", *values)

    def copy(self, admin: _Connection, template: str, name: str) -> None:
        """Make a copy of the template; its events are made by `activate`."""
        source = self._find_template(admin, template)
        schema = source.schema
        self._marks.pop(name, None)
        _run(admin, schema.text.replace(source.name, name))
        with _using(admin, name):
            # The default of a column may be the next value of a sequence, which has the name of the database.
            _run(admin, *(text.replace(source.name, name) for text in schema.tables.values()))
            _run(admin, *(source.copy_rows(table, name) for table in source.columns))
            invalid = _create_programs(admin, schema.programs, source.name, name)
        if invalid:  # This is not a change by a test.
            schema.programs = [program for program in schema.programs if program not in invalid]
        if _read_schema(admin, name, source.name).tables == schema.tables:
            self._mark(admin, name)
        if not self.is_counted(name):
            self._new.add(name)

    def restore(self, admin: _Connection, template: str, name: str) -> None:
        """Reset a clone to the template's content."""
        self.renew(admin, template, name)
        self.activate(admin, template, name)

    def renew(self, admin: _Connection, template: str, name: str) -> None:
        """Reset a copy to the template's content, without its events."""
        source = self._find_template(admin, template)
        _disconnect(admin, name)
        with suppress(pymysql.Error):
            if self._put_back(admin, source, name):
                return
        self.drop(admin, name)
        self.copy(admin, template, name)
        self._new.discard(name)  # Clients may know its name.

    def activate(self, admin: _Connection, template: str, name: str) -> None:
        """Make the events of a copy, which is in use from now on."""
        source = self._find_template(admin, template)
        if source.schema.events:
            with _using(admin, name):
                _create_programs(admin, source.schema.events, source.name, name)

    def disconnect(self, admin: _Connection, name: str) -> None:
        """End the connections to a database, without waiting for their end."""
        for client in _clients(admin, name):
            _kill(admin, client)

    def is_counted(self, name: str) -> bool:
        """Return whether the server shows the changes in a copy."""
        return name in self._marks

    def is_untouched(self, admin: _Connection, name: str) -> bool:
        """Return whether nothing has used a copy since it was made or put back."""
        if name in self._new:
            return True
        before = self._marks.get(name)
        writes, total = _count_writes(admin, name)
        is_same = before and writes == before.writes and total >= before.total
        return bool(is_same) and not _clients(admin, name)

    def drop(self, admin: _Connection, name: str) -> None:
        """Drop a database, even if something is still connected to it."""
        _template.check_name(name)
        self._marks.pop(name, None)
        self._new.discard(name)
        with suppress(pymysql.Error):  # Then dropping it may fail.
            _disconnect(admin, name)
        _run(admin, f"DROP DATABASE IF EXISTS {_name(name)}")

    def mark_kept(self, admin: _Connection, name: str) -> None:
        """Keep a clone from being dropped when its session is over."""
        _query(admin, f"INSERT IGNORE INTO {_STATE}.kept VALUES (%s)", name)

    def _find_template(self, admin: _Connection, name: str) -> _Template:
        query = f"SELECT stamp, events FROM {_STATE}.template WHERE name = %s"
        rows: Sequence[_Row] = ()
        with _expecting(_UNKNOWN_DATABASE, _NO_SUCH_TABLE):
            rows = _query(admin, query, name)
        if not rows:
            raise _TemplateMissingError
        ((stamp, events),) = rows
        if stamp not in self._templates:
            self._templates[stamp] = _read_template(admin, name, json.loads(events))
        return self._templates[stamp]

    def _put_back(self, admin: _Connection, source: _Template, name: str) -> bool:
        """Put the changed tables back; return whether that is possible."""
        before = self._marks.pop(name, None)
        if before is None:
            return False
        events = (f"DROP EVENT IF EXISTS {_name(name)}.{_name(event.name)}" for event in source.schema.events)
        _run(admin, *events)
        schema = _read_schema(admin, name, source.name)
        now = _read_marks(admin, name)
        changed = _changed_tables(before, now, source)
        if schema.events or schema.definition() != source.schema.definition() or changed is None:
            return False
        changed |= {table for table, text in schema.tables.items() if text != source.schema.tables[table]}
        changed = (source.affected(changed) | source.uncounted) & set(source.columns)
        if any(source.kinds[table] == "SYSTEM VERSIONED" for table in changed):
            return False  # The server does not empty these.
        with _using(admin, name):
            _put_back_tables(admin, source, name, sorted(changed))
        self._mark(admin, name)
        return True

    def _mark(self, admin: _Connection, name: str) -> None:
        if marks := _read_marks(admin, name):
            self._marks[name] = marks


class _Copies:
    """
    The unused copies of one process, and those that a thread makes ready again.

    The thread runs while there is something to do.
    """

    def __init__(self, clones: Clones[_Connection], backend: _Backend) -> None:
        self._clones = clones
        self._backend = backend
        self._changed = threading.Condition()
        self._ready: list[str] = []
        self._todo: deque[str] = deque()  # to put back; an empty name stands for a new copy
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self._is_closed = False

    def take(self) -> str:
        """Return a copy that is ready, or one that is made now."""
        name = self._take_ready() or self._clones.copy()
        self._clones.with_template(lambda admin: self._backend.activate(admin, self._clones.template, name))
        return name

    def _take_ready(self) -> str:
        """Return a copy that is ready, or an empty name."""
        for _ in range(_SPARE_COPIES):
            name = self._pop()
            if not name:
                break
            with self._clones.admin() as admin:
                if self._backend.is_untouched(admin, name):
                    return name
            self._enqueue(name)  # A client of an earlier test has used it again.
        return ""

    def put_back(self, name: str) -> None:
        """Take a database back from a test."""
        with self._clones.admin() as admin:
            self._backend.disconnect(admin, name)
        with self._changed:
            is_wanted = not self._is_closed and len(self._ready) + len(self._todo) < _SPARE_COPIES
        if is_wanted:
            self._enqueue(name)
        else:
            self._clones.drop(name)

    def close(self) -> None:
        """Stop the thread, and drop all copies if the server stays."""
        with self._changed:
            self._is_closed = True
            thread = self._thread
            self._changed.notify_all()
        # The thread may need what the interrupted code holds, and a server that hangs does not answer it.
        if thread and not interrupts_package():
            thread.join(_STUCK_SECONDS)
        names = [name for name in (*self._ready, *self._todo) if name]
        self._ready.clear()
        self._todo.clear()
        if self._clones.server.outlives and not self._clones.server.is_removed:
            for name in names:
                with suppress(Exception):  # The next session drops what the server does not drop now.
                    self._clones.drop(name)

    def _pop(self) -> str:
        """Return a ready copy, or an empty name if waiting for one is not worthwhile."""
        with self._changed:
            self._waiting += 1
            try:
                while not self._ready and self._waiting <= self._pending():
                    self._changed.wait()
                name = self._ready.pop() if self._ready else ""
            finally:
                self._waiting -= 1
            if not self._ready and not self._pending():
                self._todo.append("")
                self._ensure_thread()
            return name

    def _pending(self) -> int:
        """Return how many copies the thread is about to make ready."""
        return len(self._todo) if self._thread else 0

    def _enqueue(self, name: str) -> None:
        with self._changed:
            self._todo.append(name)
            self._ensure_thread()

    def _ensure_thread(self) -> None:
        if not self._thread:
            self._thread = start_thread(self._work)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._todo or self._is_closed:
                    self._thread = None
                    self._changed.notify_all()
                    return
                name = self._todo[0]
            ready = ""
            # The test that needs the copy makes one itself, and gets the error.
            with suppress(Exception):
                ready = self._make_ready(name)
            with self._changed:
                if self._todo:  # else `close` did not wait, and the next session drops the copy
                    self._todo.popleft()
                if ready:
                    self._ready.append(ready)
                self._changed.notify_all()

    def _make_ready(self, name: str) -> str:
        if name and not self._backend.is_counted(name):
            self._clones.drop(name)
            name = ""
        if not name:
            return self._clones.copy()
        try:
            with self._clones.admin() as admin:
                self._backend.renew(admin, self._clones.template, name)
        except Exception:
            with suppress(Exception):
                self._clones.drop(name)
            raise
        return name


# Definitions


def _read_template(admin: _Connection, name: str, events: Sequence[Mapping[str, Any]]) -> _Template:
    schema = _read_schema(admin, name)
    schema.events = [_Program(**event) for event in events]
    described = _query(
        admin,
        "SELECT table_name, table_type, engine FROM information_schema.tables WHERE table_schema = %s",
        name,
    )
    kinds = {str(table): str(kind) for table, kind, _ in described}
    without_rows = {str(table) for table, _, engine in described if str(engine).upper() in _WITHOUT_ROWS}
    columns: dict[str, list[str]] = {table: [] for table in schema.tables}
    query = (
        "SELECT table_name, column_name, COALESCE(generation_expression, '') FROM information_schema.columns "
        "WHERE table_schema = %s ORDER BY table_name, ordinal_position"
    )
    period: dict[str, list[str]] = {}
    for table, column, expression in _query(admin, query, name):
        if expression in ("ROW START", "ROW END"):
            period.setdefault(table, []).append(column)
        elif not expression and table in columns:
            columns[table].append(column)
    for table in schema.tables:
        if kinds[table] == "SYSTEM VERSIONED":
            columns[table] += period.get(table) or ["row_start", "row_end"]
    return _Template(
        name=name,
        schema=schema,
        columns={
            table: ", ".join(map(_name, names))
            for table, names in columns.items()
            if table not in without_rows
        },
        cascades=_read_cascades(admin, name),
        insert_triggers=_read_insert_triggers(admin, name, schema),
        kinds=kinds,
        uncounted={str(table) for table, _, engine in described if table in columns and engine != "InnoDB"},
    )


def _read_cascades(admin: _Connection, name: str) -> dict[str, set[str]]:
    query = (
        "SELECT referenced_table_name, table_name FROM information_schema.referential_constraints "
        "WHERE constraint_schema = %s AND NOT (update_rule IN ('RESTRICT', 'NO ACTION') "
        "AND delete_rule IN ('RESTRICT', 'NO ACTION'))"
    )
    cascades: dict[str, set[str]] = {}
    for parent, child in _query(admin, query, name):
        cascades.setdefault(str(parent), set()).add(str(child))
    return cascades


def _read_insert_triggers(admin: _Connection, name: str, schema: _Schema) -> dict[str, list[_Program]]:
    query = (
        "SELECT trigger_name, event_object_table FROM information_schema.triggers "
        "WHERE trigger_schema = %s AND event_manipulation = 'INSERT'"
    )
    tables = {str(trigger): str(table) for trigger, table in _query(admin, query, name)}
    found: dict[str, list[_Program]] = {}
    for program in schema.programs:
        if program.kind == "TRIGGER" and program.name in tables:
            found.setdefault(tables[program.name], []).append(program)
    return found


def _read_schema(admin: _Connection, name: str, called: str = "") -> _Schema:
    """Return the definition of a database, in which its name is replaced by *called*."""
    schema = _quoted(name)
    with _using(admin, name):  # The server leaves the name of the current database out.
        text, tables, triggers, routines, events = _run(
            admin,
            f"SHOW CREATE DATABASE {_name(name)}",
            "SHOW FULL TABLES",
            f"SELECT 'TRIGGER', trigger_name FROM information_schema.triggers WHERE trigger_schema = {schema} "
            "ORDER BY event_object_table, action_timing, event_manipulation, action_order",
            f"SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = {schema} "
            "AND routine_type IN ('PROCEDURE', 'FUNCTION', 'PACKAGE', 'PACKAGE BODY') ORDER BY 1, 2",
            f"SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = {schema} ORDER BY 2",
        )
        # A table may need a sequence.
        names = [
            str(table)
            for kinds in (("SEQUENCE",), ("BASE TABLE", "SYSTEM VERSIONED"))
            for table, kind in tables
            if kind in kinds
        ]
        views = [("VIEW", table) for table, kind in tables if kind == "VIEW"]
        programs = [(str(kind), str(item)) for kind, item in (*routines, *views, *triggers, *events)]
        results = _describe(
            admin,
            *(f"SHOW CREATE TABLE {_name(table)}" for table in names),
            *(f"SHOW CREATE {kind} {_name(item)}" for kind, item in programs),
        )
    renamed = (lambda value: value.replace(name, called)) if called else str
    described = [
        _Program(
            kind,
            item,
            renamed(_text_of(row, kind)),
            row.get("sql_mode"),
            row.get("time_zone"),
            row.get("collation_connection"),
        )
        for (kind, item), row in zip(programs, results[len(names) :], strict=True)
    ]
    return _Schema(
        renamed(str(text[0][1])),
        {table: renamed(_text_of(row, "TABLE")) for table, row in zip(names, results, strict=False)},
        [program for program in described if program.kind != "EVENT"],
        [program for program in described if program.kind == "EVENT"],
    )


def _text_of(row: Mapping[str, Any], kind: str) -> str:
    for column in ("SQL Original Statement", f"Create {kind.title()}", f"Create {kind}"):
        if column in row:
            return str(row[column])
    raise KeyError(kind)


def _create_programs(
    admin: _Connection, programs: Sequence[_Program], source: str, name: str
) -> Sequence[_Program]:
    """
    Create views, triggers, routines or events.

    A view may need another one that comes later. Return the views that are invalid in the template, too, and that the
    server therefore does not create.
    """
    todo = list(programs)
    try:
        while todo:
            failed = []
            for program in todo:
                try:
                    _run(admin, *(text.replace(source, name) for text in program.statements()))
                except pymysql.Error as error:
                    if program.kind != "VIEW":
                        raise
                    failed.append((program, error))
            if len(failed) == len(todo):
                for program, failure in failed:
                    if _is_valid(admin, source, program.name):
                        raise failure
                return todo
            todo = [program for program, _ in failed]
    finally:
        if programs:
            _run(admin, "SET NAMES utf8mb4", _SESSION)
    return ()


def _is_valid(admin: _Connection, database: str, view: str) -> bool:
    """Return whether what a view refers to exists."""
    with suppress(pymysql.Error):
        _query(admin, f"SELECT 1 FROM {_name(database)}.{_name(view)} LIMIT 0")
        return True
    return False


# Changes


def _read_marks(admin: _Connection, name: str) -> _Marks | None:
    """
    Return the marks that show changes to a database.

    Return `None` if the server does not count all changes.
    """
    is_old = _is_mariadb(admin) or str(admin.get_server_info()).startswith("5.")
    view = "innodb_sys_tables" if is_old else "innodb_tables"
    pattern = name.replace("_", "\\_")
    ids = _query(admin, f"SELECT name, table_id FROM information_schema.{view} WHERE name LIKE '{pattern}/%'")
    writes, total = _count_writes(admin, name)
    if not total:  # The server was started again since this module has written something.
        _query(admin, f"REPLACE INTO {_STATE}.template VALUES ('', %s, '')", secrets.token_hex(8))
        writes, total = _count_writes(admin, name)
    return _Marks(writes, {str(table): int(number) for table, number in ids}, total) if total else None


def _count_writes(admin: _Connection, name: str) -> tuple[dict[str, int], int]:
    """
    Count the writes to each table of a database, and to this module's own tables.

    For this module's own tables, return the sum.
    """
    schemas = f"({_quoted(name)}, {_quoted(_STATE)})"
    if _is_mariadb(admin):
        counts = _query(
            admin,
            "SELECT table_schema, table_name, rows_changed FROM information_schema.table_statistics "
            f"WHERE table_schema IN {schemas}",
        )
    else:
        counts, ((lost,),) = _run(
            admin,
            "SELECT object_schema, object_name, count_write FROM performance_schema.table_io_waits_summary_by_table "
            f"WHERE object_type = 'TABLE' AND object_schema IN {schemas}",
            "SELECT SUM(variable_value) FROM performance_schema.global_status WHERE variable_name IN "
            "('Performance_schema_table_instances_lost', 'Performance_schema_table_handles_lost')",
        )
        if lost:  # Too many tables are open.
            return {}, 0
    writes = {str(table): int(count) for schema, table, count in counts if schema == name}
    return writes, sum(int(count) for schema, _, count in counts if schema == _STATE)


def _is_mariadb(admin: _Connection) -> bool:
    return "MariaDB" in str(admin.get_server_info())


def _changed_tables(before: _Marks, now: _Marks | None, source: _Template) -> set[str] | None:
    """Return the tables that were written to or emptied; `None` if that is not known."""
    if now is None or now.total < before.total:
        return None
    tables = set(source.schema.tables)
    changed = {table for table in tables if before.writes.get(table, 0) != now.writes.get(table, 0)}
    for name, _ in before.ids.items() ^ now.ids.items():
        # The engine writes special characters as their numbers, and adds the names of partitions.
        table = name.partition("/")[2].partition("#")[0]
        table = re.sub("@([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), table)
        if table not in tables:
            return None
        changed.add(table)
    return changed


def _put_back_tables(admin: _Connection, source: _Template, name: str, tables: Sequence[str]) -> None:
    """Fill the tables with the rows of the template."""
    statements = []
    triggers = [trigger for table in tables for trigger in source.insert_triggers.get(table, ())]
    statements += [f"DROP TRIGGER {_name(trigger.name)}" for trigger in triggers]
    for table in tables:
        if source.kinds[table] != "SEQUENCE":  # Its only row is overwritten.
            statements.append(f"TRUNCATE TABLE {_name(table)}")
        statements.append(source.copy_rows(table, name))
    _run(admin, *statements)
    _create_programs(admin, triggers, source.name, name)
    texts = _describe(admin, *(f"SHOW CREATE TABLE {_name(table)}" for table in tables))
    for table, row in zip(tables, texts, strict=True):
        wanted = source.schema.tables[table]
        next_number = _AUTO_INCREMENT.search(wanted)
        if next_number and row["Create Table"].replace(name, source.name) != wanted:
            _run(admin, f"ALTER TABLE {_name(table)} AUTO_INCREMENT = {next_number[2]}")


# SQL


def _watch(admin: _Connection) -> None:
    """Let the operating system end the connection if the server stops responding."""
    settings = {
        "TCP_KEEPIDLE": SILENT_SECONDS,
        "TCP_KEEPINTVL": SILENT_SECONDS,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": SILENT_SECONDS * (PROBES + 1) * 1000,  # milliseconds
    }
    # PyMySQL enables SO_KEEPALIVE, and has no settings for it.
    connection: Any = getattr(admin, "_sock", None)
    for name, value in settings.items():
        # The system may not have an option, or the server is on a unix socket.
        with suppress(AttributeError, OSError):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _lock(session: str) -> str:
    return f"dockertest_session_{session}"


def _name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _quoted(value: str) -> str:
    """Return a literal for a value of the server's own, which has no backslashes."""
    return "'" + value.replace("'", "''") + "'"


def _query(admin: _Connection, statement: str, *values: str) -> Sequence[_Row]:
    with admin.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall()


def _run(admin: _Connection, *statements: str) -> list[Sequence[_Row]]:
    """Run statements in as few requests as possible, and return their results."""
    return [rows for _, rows in _results(admin, statements)]


def _describe(admin: _Connection, *statements: str) -> list[dict[str, Any]]:
    """
    Run statements that return one row each, and return the rows as dicts.

    The keys are the names of the columns.
    """
    return [dict(zip(names, rows[0], strict=True)) for names, rows in _results(admin, statements)]


def _results(admin: _Connection, statements: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[_Row]]]:
    for first in range(0, len(statements), _STATEMENTS_PER_REQUEST):
        with admin.cursor() as cursor:
            # A statement may end with a comment.
            cursor.execute("\n;\n".join(statements[first : first + _STATEMENTS_PER_REQUEST]))
            more: bool | None = True
            while more:
                yield [column[0] for column in cursor.description or ()], cursor.fetchall()
                # Let a test continue, which otherwise waits five milliseconds each time (sys.getswitchinterval).
                _clock.sleep(0)
                more = cursor.nextset()


@contextmanager
def _using(admin: _Connection, name: str) -> Iterator[None]:
    """Make a database the current one."""
    _query(admin, f"USE {_name(name)}")
    try:
        yield
    finally:
        with suppress(pymysql.Error):  # The connection is lost.
            _query(admin, f"USE {_STATE}")


@contextmanager
def _expecting(*codes: int) -> Iterator[None]:
    """Suppress these errors of the server."""
    try:
        yield
    except pymysql.Error as error:
        if error.args[0] not in codes:
            raise


@contextmanager
def _lock_or_skip(admin: _Connection, session: str) -> Iterator[bool]:
    """
    Take the lock of a session, and yield whether that was possible.

    It is possible if the session is over.
    """
    lock = _quoted(_lock(session))
    ((is_free,),) = _query(admin, f"SELECT GET_LOCK({lock}, 0)")
    try:
        yield bool(is_free)
    finally:
        if is_free:
            _query(admin, f"SELECT RELEASE_LOCK({lock})")


def _clients(admin: _Connection, name: str) -> list[int]:
    """Return the ids of the other connections whose current database this is."""
    own = admin.thread_id()
    return [int(row[0]) for row in _query(admin, "SHOW PROCESSLIST") if row[3] == name and row[0] != own]


def _kill(admin: _Connection, client: int) -> None:
    with _expecting(_NO_SUCH_THREAD):
        _query(admin, f"KILL {client}")


def _disconnect(admin: _Connection, name: str) -> None:
    """
    End the connections to a database, and wait until they have ended.

    Their transactions are rolled back by then.
    """
    deadline = _clock.monotonic() + _STUCK_SECONDS
    while clients := _clients(admin, name):
        for client in clients:
            _kill(admin, client)
        if _clock.monotonic() > deadline:
            raise pymysql.OperationalError(_LOCK_WAIT_TIMEOUT, f"clients of {name} do not end")
        _clock.sleep(_PAUSE_SECONDS)
