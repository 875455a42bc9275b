"""What it takes in SQL to have one database copied many times. Knows nothing of containers."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType

from dockertest import _validation as _specs
from dockertest._containers import files as _files
from dockertest.errors import InvalidOptionError

try:
    import psycopg
except ImportError as error:
    raise ImportError(
        'dockertest.postgres needs psycopg; install it with: pip install "dockertest-py[postgres]"'
    ) from error
from psycopg import sql

Connection = psycopg.Connection[tuple[object, ...]]
MissingError = psycopg.errors.InvalidCatalogName
TEMPLATE, CLONE = "dockertest_template_", "dockertest_clone_"  # so begins what is ours to drop


def template_name(migrate: object, version: object) -> str:
    """Give the name of a template: a hash of all that makes one another."""
    if not callable(migrate):
        raise InvalidOptionError(f"migrate must be a callable that takes a URL: got {_specs.shown(migrate)}")
    parts = [version] if isinstance(version, (str, os.PathLike)) else version
    if not isinstance(parts, Sequence) or not all(isinstance(each, (str, os.PathLike)) for each in parts):
        raise InvalidOptionError(
            f"version must be text, a path, or a sequence of them: got {_specs.shown(version)}"
        )
    said = [_identity(migrate)]
    for each in parts:
        if isinstance(each, str):
            said.append(f"word {each}")
        elif Path(each).exists():
            said.append(f"files {_files.digest({'/version': Path(each)})}")
        else:
            raise InvalidOptionError(f"version: there is no {str(each)!r}")
    return TEMPLATE + hashlib.sha256("\0".join(said).encode()).hexdigest()[:24]


def _identity(migrate: object) -> str:
    """Give what a callable does, without where it stands: by its name, its code and what was bound to it."""
    if isinstance(migrate, functools.partial):
        return f"{_identity(migrate.func)} {_bound(migrate.args)} {_bound(migrate.keywords)}"
    function = migrate if hasattr(migrate, "__code__") else vars(type(migrate)).get("__call__")
    name = (
        f"{getattr(migrate, '__module__', '')} {getattr(migrate, '__qualname__', type(migrate).__qualname__)}"
    )
    defaults = _bound([getattr(function, each, None) for each in ("__defaults__", "__kwdefaults__")])
    # A function that a decorator wraps; other values around it may be what it counts its calls with.
    around = []
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # empty yet
            around += [_bound(cell.cell_contents)] * hasattr(cell.cell_contents, "__code__")
    return f"{name} {_code(getattr(function, '__code__', None))} {defaults} {around}"


def _bound(value: object) -> str:
    """Give a value by what it says of itself, the same in every process: its address does not count."""
    if code := getattr(value, "__code__", None):
        return _code(code)
    return re.sub(" at 0x[0-9A-Fa-f]+", "", repr(value))


def _code(const: object) -> str:
    """Give a constant of a function's code, the code itself to begin with, the same in every process."""
    if isinstance(const, CodeType):
        return f"{const.co_code.hex()} {const.co_names} {[_code(each) for each in const.co_consts]}"
    return f"{sorted(map(repr, const))}" if isinstance(const, frozenset) else repr(const)


def connect(url: str) -> Connection:
    """Connect for what no database can do to itself."""
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def is_broken(admin: Connection) -> bool:
    """Whether a connection is of no use any more, as after a restart of the server."""
    try:
        admin.execute("SELECT 1")
    except psycopg.OperationalError:
        admin.close()
        return True
    return False


def create(admin: Connection, name: str) -> None:
    """Create an empty database."""
    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def copy(admin: Connection, template: str, name: str, *, by_files: bool) -> None:
    """Copy a database: file by file, which is the faster way where nothing has to reach the disk."""
    how = " STRATEGY FILE_COPY" if by_files and admin.info.server_version >= 150000 else ""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}" + how)
    admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    # What ALTER DATABASE has SET the server does not copy. Written as it is kept: lists in it need no quotes then.
    kept = "SELECT setrole, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
    for role, settings in admin.execute(f"{kept} WHERE datname = %s", [template]).fetchall():
        admin.execute(
            "INSERT INTO pg_db_role_setting SELECT oid, %s, %s FROM pg_database WHERE datname = %s",
            [role, settings, name],
        )


def drop(admin: Connection, name: str) -> None:
    """Drop a database, whoever is still connected to it."""
    if not name.startswith((TEMPLATE, CLONE)):
        raise ValueError(f"{name!r} is not of our making")
    force = " WITH (FORCE)" if admin.info.server_version >= 130000 else ""
    if not force:
        _disconnect(admin, name)
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}" + force).format(sql.Identifier(name)))


def seal(admin: Connection, name: str) -> None:
    """Mark a database as finished: nobody may connect to it any more, since only then can it be copied."""
    admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
    _disconnect(admin, name)
    admin.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE true").format(sql.Identifier(name)))


def _disconnect(admin: Connection, name: str) -> None:
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])


def is_template(admin: Connection, name: str) -> bool:
    """Whether a database is there, and finished."""
    found = admin.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", [name]).fetchone()
    return bool(found and found[0])


def mark_kept(admin: Connection, name: str) -> None:
    """Have a clone outlive its session."""
    admin.execute(sql.SQL("COMMENT ON DATABASE {} IS 'kept'").format(sql.Identifier(name)))


def drop_what_the_dead_left(admin: Connection) -> None:
    """Drop the clones of sessions that are over: the lock of a living one nobody else can take."""
    asked = "SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') IS NULL"
    names = [str(name) for (name,) in admin.execute(asked) if str(name).startswith(CLONE)]
    for session in {name.removeprefix(CLONE).split("_")[0] for name in names}:
        taken = admin.execute("SELECT pg_try_advisory_lock(%s)", [_number(session)]).fetchone()
        if taken == (True,):
            for name in names:
                if name.startswith(f"{CLONE}{session}_"):
                    drop(admin, name)
            release_lock(admin, session)


def is_in_use(admin: Connection, session: str) -> None:
    """Say, as long as the connection lasts, that a session is living: all its connections share that lock."""
    admin.execute("SELECT pg_advisory_lock_shared(%s)", [_number(session)])


def release_lock(admin: Connection, name: str) -> None:
    """Let a lock go; a connection that is lost has none any more."""
    with suppress(psycopg.OperationalError):
        admin.execute("SELECT pg_advisory_unlock(%s)", [_number(name)])


@contextmanager
def locked(admin: Connection, name: str) -> Iterator[None]:
    """Hold a lock during the body."""
    admin.execute("SELECT pg_advisory_lock(%s)", [_number(name)])
    try:
        yield
    finally:
        release_lock(admin, name)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
