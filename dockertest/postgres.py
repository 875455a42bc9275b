"""
A PostgreSQL database for each test in tens of milliseconds.

All tests share one server and one migration, and each test uses its own copy.

Needs psycopg: `pip install "dockertest-py[postgres]"`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Self, Unpack

from dockertest import _clock, _template
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

try:
    import psycopg
except ImportError as error:
    raise ImportError(
        'dockertest.postgres needs psycopg; install it with: pip install "dockertest-py[postgres]"'
    ) from error
from psycopg import sql

_Connection = psycopg.Connection[tuple[Any, ...]]
# No test needs its data after a crash of the machine. The default for the log, one gigabyte, is too much for memory.
_FAST_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=128MB")
_INITDB_ARGS = "POSTGRES_INITDB_ARGS"
# How PostgreSQL reports that it was built without copy_file_range(2), that the system lacks it, or that it is forbidden.
_CANNOT_SHARE_BLOCKS = (
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.InternalError_,
    psycopg.errors.InsufficientPrivilege,
)
# Others wait for the migration, and sessions last, as long as a test run does. Not every version has all of these settings.
_WITHOUT_LIMITS = (
    "SELECT set_config(name, value, false) FROM (VALUES ('statement_timeout', '0'), ('lock_timeout', '0'), "
    "('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('default_transaction_read_only', 'off')) "
    "AS wanted (name, value) WHERE current_setting(name, true) IS NOT NULL"
)
_MEMORY_FOLDER, _DEFAULT_FOLDER = "/dockertest", "/var/lib/postgresql"
_CONNECT_SECONDS = 5
_STUCK_SECONDS = 10  # A client that is ended is gone at once.
_PAUSE_SECONDS = 0.01


class TemplateDatabase:
    """
    A PostgreSQL server with a migrated database that `clone` copies for each test.

    The server is started at once, from a prepared image if possible. It is removed by `close()`, at the end of a `with`,
    and with its pool. With `reuse` it stays, migrated, for the next run and for the other workers of a test runner. With
    `shared` all processes of one test run use it, and it is removed when the last of them ends.

    Args:
        pool: Where to start the server; `None` is allowed if a server runs already.
        migrate: Called with the URL of an empty database, to fill it. With `reuse`, `shared` or `server`, it is called once
            for each *version*, however many threads, processes and runs there are.
        version: What the result of the migration depends on in addition to the code of *migrate*: a `str` that you
            change by hand, the `pathlib.Path` of a file or folder whose content counts, or several of both.
        server: The URL of a server that runs already, `postgresql://user:password@host:5432/`, of a user who may create
            databases. By default the environment variable `DOCKERTEST_POSTGRES_URL`. If there is one, no container is
            started, and the options of the container are ignored.
        repository: The image; `"postgres"` by default.
        tag: Its tag; `"15"` by default.
        fast: Trade durability, which no test needs, for speed, and keep the data in memory unless `PGDATA` or a mount
            below `/var/lib/postgresql` sets another place. Settings in the command of the server are kept. A server that is
            stopped and started again has then lost its data, and the next `clone` migrates it again. True by default.
        prepared: Whether to start the server from a prepared image, so that later runs wait for neither its setup nor the
            migration. By default the image contains the migration if *version* is not empty, since only then it is known
            what else the migration depends on; otherwise it contains a server that is set up. `True` stores the migration
            in any case, and `False` starts a new server. Not with `reuse`, `fast=False`, or writable mounts.
        options: The other fields of `RunOptions`. User and password come from `POSTGRES_USER` and `POSTGRES_PASSWORD` in
            `env`, or from files that `POSTGRES_USER_FILE` and `POSTGRES_PASSWORD_FILE` name and `files` contains. By
            default the user is `postgres`, and the password is one that only this user of the machine can read.

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
        repository: str = "postgres",
        tag: str | None = "15",
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
        found: ContainerServer | RunningServer | None = _template.find_server(
            pool, server, "DOCKERTEST_POSTGRES_URL", ("postgresql", "postgres")
        )
        backend = _Backend(by_files=fast and not found)
        if not found:
            found = _template.start_server(
                pool,
                container,
                partial(_configure, fast=fast),
                backend,
                _template.Migration(name, migrate, version),
                prepared=prepared if fast else False,
            )
        self._clones: Clones[_Connection] = Clones(found, backend, name, migrate)
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
        Return a new database, which is a copy of the migrated one.

        It is dropped when it or this object is closed. May be called from any thread.

        Raises:
            ResourceClosedError: This object is closed.
            ContainerExitedError: The server has exited.
        """
        return self._clones.open(self._clones.copy, self._clones.drop)

    def close(self) -> None:
        """
        Drop the remaining clones and remove the server.

        With `reuse`, `shared` or `server`, the server stays. Closing twice does nothing.

        Raises:
            EngineError: The engine did not remove the server; call again to try again.
        """
        self._clones.close()


def _configure(
    pool: Pool, options: RunOptions, is_lasting: bool, fast: bool
) -> tuple[RunOptions, Callable[[Resource], str]]:
    """
    Return the server's options, and a function that returns its URL.

    The function takes the started server.
    """
    user, password = _credentials(options, is_lasting=is_lasting)
    values = {"POSTGRES_USER": user, "POSTGRES_PASSWORD": password}
    configured = replace(options, env=_template.set_variables(options, values))
    if fast:
        configured = _made_fast(configured, _template.image_command(pool, options))
    return configured, lambda resource: _template.server_url(
        "postgresql", user, password, resource.get_host_port(5432)
    )


# Options of the server


def _credentials(server: RunOptions, *, is_lasting: bool) -> tuple[str, str]:
    """Return the server's user and password."""
    password = _template.read_setting(server, "POSTGRES_PASSWORD") or _template.make_password(
        server, "postgres", is_lasting=is_lasting
    )
    return _template.read_setting(server, "POSTGRES_USER") or "postgres", password


def _made_fast(server: RunOptions, image_command: Sequence[str]) -> RunOptions:
    """Return options for a fast server, which loses its data if the machine crashes."""
    # The image's own command may load what its extensions need; an entrypoint of the user's replaces it.
    command = server.cmd or (["postgres"] if server.entrypoint else image_command)
    given = _template.read_setting(server, _INITDB_ARGS)
    settings = _template.missing_settings(_FAST_SETTINGS, command)
    if "--wal-segsize" in given:  # The log must be able to have two segments.
        settings = [setting for setting in settings if not setting.startswith("max_wal_size")]
    changes: dict[str, Any] = {
        "cmd": [*command, *(word for setting in settings for word in ("-c", setting))],
        # PostgreSQL 9.6 and 10 have different long names for it.
        "env": _template.set_variables(server, {_INITDB_ARGS: f"{given} -N".strip()}),
    }
    if not _has_own_data_directory(server):
        changes["tmpfs"] = {**server.parsed.tmpfs, _MEMORY_FOLDER: ""}
        changes["env"] = [*changes["env"], f"PGDATA={_MEMORY_FOLDER}/data"]
    return replace(server, **changes)


def _has_own_data_directory(server: RunOptions) -> bool:
    """Return whether the user has chosen where the data is stored."""
    is_set = any(setting.name == "PGDATA" for setting in server.parsed.env)
    return is_set or _template.has_data_elsewhere(server, _DEFAULT_FOLDER)


class _Backend:
    """How PostgreSQL copies databases."""

    admin_database = "postgres"  # Locks belong to a database, so that all sessions have to use the same one.
    missing: tuple[type[Exception], ...] = (psycopg.errors.InvalidCatalogName,)
    errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, *, by_files: bool) -> None:
        self._by_files = by_files

    def connect(self, url: str) -> _Connection:
        """Connect for administration."""
        try:
            admin = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                keepalives_idle=SILENT_SECONDS,
                keepalives_interval=SILENT_SECONDS,
                keepalives_count=PROBES,
                tcp_user_timeout=SILENT_SECONDS * (PROBES + 1) * 1000,  # milliseconds
            )
        except psycopg.Error as error:
            # The variables of psycopg's frames contain the password.
            raise error.with_traceback(None) from None
        with suppress(psycopg.Error):  # A server with another implementation may refuse this.
            admin.execute(_WITHOUT_LIMITS)
        return admin

    def hold_session(self, admin: _Connection, session: str) -> bool:
        """Show that a session is alive; its connections share the lock."""
        try:
            admin.execute("SELECT pg_advisory_lock_shared(%s)", [_lock_key(session)])
        except psycopg.OperationalError:  # The server was restarted, for example.
            return False
        return True

    def drop_orphans(self, admin: _Connection) -> None:
        """Drop the clones of sessions that are over, whose locks are free."""
        query = "SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') IS NULL"
        names = [str(name) for (name,) in admin.execute(query) if str(name).startswith(CLONE_PREFIX)]
        for session in {session_of(name) for name in names}:
            row = admin.execute("SELECT pg_try_advisory_lock(%s)", [_lock_key(session)]).fetchone()
            if row == (True,):
                for name in names:
                    if session_of(name) == session:
                        # A process that the dead one has started may still use it, or it belongs to another user.
                        with suppress(psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
                            _drop_database(admin, name, force=False)
                _release_lock(admin, session)

    def ensure_template(self, admin: _Connection, name: str, migrate: Callable[[], object]) -> None:
        """
        Create and migrate the template unless it exists.

        The first process does so, and the others wait.
        """
        with _advisory_lock(admin, name):
            if not _is_template(admin, name):
                _drop_database(admin, name)  # A process that was killed left it half-made.
                _create_database(admin, name)
                migrate()
                _seal_template(admin, name)

    def copy(self, admin: _Connection, template: str, name: str) -> None:
        """Make a copy of the template."""
        _copy_database(admin, template, name, by_files=self._by_files)

    def restore(self, admin: _Connection, template: str, name: str) -> None:
        """Reset a clone to the template's content."""
        _drop_database(admin, name)
        _copy_database(admin, template, name, by_files=self._by_files)

    def drop(self, admin: _Connection, name: str) -> None:
        """Drop a database, even if something is still connected to it."""
        _drop_database(admin, name)

    def mark_kept(self, admin: _Connection, name: str) -> None:
        """Keep a clone from being dropped when its session is over."""
        admin.execute(sql.SQL("COMMENT ON DATABASE {} IS 'kept'").format(sql.Identifier(name)))


# SQL


def _create_database(admin: _Connection, name: str) -> None:
    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _copy_database(admin: _Connection, template: str, name: str, *, by_files: bool) -> None:
    """Copy a database; *by_files* is faster if nothing has to reach a disk."""
    strategy = " STRATEGY FILE_COPY" if by_files and admin.info.server_version >= 150000 else ""
    names = sql.Identifier(name), sql.Identifier(template)
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}" + strategy).format(*names)
    may_share_blocks = by_files and admin.info.server_version >= 180000
    if not (may_share_blocks and _execute_sharing_blocks(admin, statement)):
        admin.execute(statement)
    # The server copies neither owner, privileges and connection limit nor the settings made with ALTER DATABASE … SET.
    query = (
        "SELECT setrole, pg_get_userbyid(nullif(setrole, 0)), setconfig, "
        "pg_get_userbyid(nullif(source.datdba, copy.datdba)), nullif(source.datconnlimit, -1), source.datacl IS NOT NULL "
        "FROM pg_database source JOIN pg_database copy ON copy.datname = %s "
        "LEFT JOIN pg_db_role_setting ON setdatabase = source.oid WHERE source.datname = %s"
    )
    try:
        rows = admin.execute(query, [name, template]).fetchall()
        for role, role_name, settings, *_ in rows:
            if settings:
                _copy_settings(admin, name, role, role_name, settings)
        for *_, owner, limit, has_privileges in rows[:1]:
            if limit is not None:
                limited = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
                admin.execute(limited.format(sql.Identifier(name), sql.Literal(limit)))
            if owner:
                # Users who may not assign this owner own their copies.
                with suppress(psycopg.errors.InsufficientPrivilege):
                    changed = sql.SQL("ALTER DATABASE {} OWNER TO {}")
                    admin.execute(changed.format(sql.Identifier(name), sql.Identifier(owner)))
            if has_privileges:
                _copy_privileges(admin, template, name)
    except BaseException:
        with suppress(psycopg.Error):
            _drop_database(admin, name)
        raise


def _copy_privileges(admin: _Connection, template: str, name: str) -> None:
    """Replace the default privileges of a database by those of the template."""
    query = (
        "SELECT pg_get_userbyid(datdba), pg_get_userbyid(nullif(grantee, 0)), privilege_type, is_grantable "
        "FROM pg_database LEFT JOIN aclexplode(datacl) ON true WHERE datname = %s"
    )
    rows = admin.execute(query, [template]).fetchall()
    database = sql.Identifier(name)
    revoke = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC, {}")
    statements = [revoke.format(database, sql.Identifier(owner)) for owner, *_ in rows[:1]]
    for _, grantee, privilege, is_grantable in rows:
        if privilege:  # else all have been revoked
            role = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
            option = sql.SQL(" WITH GRANT OPTION" if is_grantable else "")
            grant = sql.SQL("GRANT {} ON DATABASE {} TO {}{}")
            statements.append(grant.format(sql.SQL(privilege), database, role, option))
    admin.execute(sql.SQL("; ").join(statements))


def _copy_settings(
    admin: _Connection, database: str, role: int, role_name: str | None, settings: Sequence[str]
) -> None:
    """Set the settings of a database, or of a role in it."""
    try:
        # Inserted as they are stored, lists need no quotes.
        admin.execute(
            "INSERT INTO pg_db_role_setting SELECT oid, %s, %s FROM pg_database WHERE datname = %s",
            [role, settings, database],
        )
    except psycopg.errors.InsufficientPrivilege:  # only superusers may change the catalogue
        _alter_settings(admin, database, role_name, settings)


def _alter_settings(admin: _Connection, database: str, role: str | None, settings: Sequence[str]) -> None:
    """Set the settings of a database, or of a role in it, as its owner may."""
    target = sql.SQL("DATABASE {}").format(sql.Identifier(database))
    if role:
        target = sql.SQL("ROLE {} IN {}").format(sql.Identifier(role), target)
    with admin.transaction():
        for setting in settings:
            key, _, value = setting.partition("=")
            name = sql.SQL(".").join(map(sql.Identifier, key.split(".")))
            admin.execute("SELECT set_config(%s, %s, true)", [key, value])
            admin.execute(sql.SQL("ALTER {} SET {} FROM CURRENT").format(target, name))


def _execute_sharing_blocks(admin: _Connection, statement: sql.Composed) -> bool:
    """
    Copy files in the kernel, and return whether this is possible.

    On XFS and Btrfs, the copies share the blocks of the files. See
    https://www.postgresql.org/docs/18/runtime-config-resource.html#GUC-FILE-COPY-METHOD
    """
    try:
        admin.execute("SET file_copy_method = clone")
        admin.execute(statement)
    except _CANNOT_SHARE_BLOCKS:
        admin.execute("RESET file_copy_method")
        return False
    return True


def _drop_database(admin: _Connection, name: str, *, force: bool = True) -> None:
    """
    Drop a database that this module has created.

    With *force*, drop it even if something is still connected to it.
    """
    _template.check_name(name)
    deadline = _clock.monotonic() + _STUCK_SECONDS
    has_slots = False
    while True:
        try:
            _execute_drop(admin, name, force=force)
            return
        except psycopg.errors.ObjectInUse:
            # The server itself drops the slots, but only if nothing streams from them.
            has_slots = (force and _end_streams(admin, name)) or has_slots
            if not has_slots or _clock.monotonic() > deadline:
                raise
            _clock.sleep(_PAUSE_SECONDS)


def _end_streams(admin: _Connection, name: str) -> bool:
    """End the streams of changes of a database, and return whether it has slots."""
    query = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s"
    return bool(admin.execute(query, [name]).fetchall())


def _execute_drop(admin: _Connection, name: str, *, force: bool) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))
    if force and admin.info.server_version >= 130000:
        # Users who may not end a worker of autovacuum may not use FORCE either, while there is one.
        with suppress(psycopg.errors.InsufficientPrivilege):
            admin.execute(statement + sql.SQL(" WITH (FORCE)"))
            return
    if force:
        _disconnect_clients(admin, name)
    admin.execute(statement)


def _seal_template(admin: _Connection, name: str) -> None:
    """
    Mark a database as finished, and refuse connections to it.

    PostgreSQL copies a database only if nothing is connected to it.
    """
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
    _disconnect_clients(admin, name)
    admin.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE true").format(sql.Identifier(name)))


def _disconnect_clients(admin: _Connection, name: str) -> None:
    # Workers of autovacuum, which have no user, end by themselves. Only superusers may end them.
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usesysid IS NOT NULL"
    )
    admin.execute(query, [name])


def _is_template(admin: _Connection, name: str) -> bool:
    """Return whether a database exists and is finished."""
    row = admin.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", [name]).fetchone()
    return bool(row and row[0])


@contextmanager
def _advisory_lock(admin: _Connection, name: str) -> Iterator[None]:
    admin.execute("SELECT pg_advisory_lock(%s)", [_lock_key(name)])
    try:
        yield
    finally:
        _release_lock(admin, name)


def _release_lock(admin: _Connection, name: str) -> None:
    with suppress(psycopg.OperationalError):  # The connection is lost, and the lock with it.
        admin.execute("SELECT pg_advisory_unlock(%s)", [_lock_key(name)])


def _lock_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
