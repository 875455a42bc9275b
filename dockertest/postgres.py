"""
A PostgreSQL database of its own for every test, in tens of milliseconds: one server, one migration, many clones.

Needs psycopg: `pip install "dockertest-py[postgres]"`.
"""

from __future__ import annotations

import hashlib
import os
import queue
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from urllib.parse import quote

from typing_extensions import Self, Unpack

from dockertest import _template as _clones
from dockertest import _validation as _specs
from dockertest import _values
from dockertest._cleanup import session as _session
from dockertest._options import RunFields, RunOptions
from dockertest._pool import Pool
from dockertest._resource import Resource
from dockertest._template import Connection, MissingError
from dockertest._values import EnvSpec
from dockertest.errors import ContainerExitedError, InvalidOptionError, ResourceClosedError

# No test needs what is on the disk after a crash of the machine, or a disk at all. A log of a gigabyte, which is the
# default, is too much for memory.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_wal_size=128MB")
_MEMORY, _USUAL = "/dockertest", "/var/lib/postgresql"


class ServerFields(RunFields, total=False):
    """The fields of `RunOptions` that a server may be started with."""

    env: EnvSpec


class TemplateDatabase:
    """
    One PostgreSQL server with one migrated database, which `clone` copies for every test.

    The server is started at once and removed by `close()`, at the end of a `with`, and with its pool; with `reuse` it
    stays, migrated, for the next run and for the other workers of a test runner.

    Args:
        pool: Where to start the server.
        migrate: Called with the URL of an empty database, to fill it. Once per *version*, however many threads,
            processes and, with `reuse`, runs there are.
        version: What the migration's result depends on: a `str`, a word of your own and never a path, or the
            `pathlib.Path` of a file or folder, whose content counts, or several of both. The code of *migrate* itself
            counts in any case; what it calls does not.
        repository: The image.
        tag: Its tag.
        fast: Trade safety against a crash of the machine, which no test needs, for speed, and keep the data in memory,
            unless `PGDATA` or something mounted below `/var/lib/postgresql` says where. A server that is stopped and
            started again has lost them, and is migrated anew by the next clone.
        options: The other fields of `RunOptions`.

    Attributes:
        resource: The server's container.

    Raises:
        InvalidOptionError: An option has a value that cannot work.
        RetryTimeoutError: The server does not answer within the pool's `max_wait`.
        ContainerExitedError: The server has ended.
    """

    resource: Resource

    def __init__(
        self,
        pool: Pool,
        migrate: Callable[[str], object],
        *,
        version: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "",
        repository: str = "postgres",
        tag: str | None = "15",
        fast: bool = True,
        **options: Unpack[ServerFields],
    ) -> None:
        self._pool = pool
        self._migrate = migrate
        self._fast = fast
        self._session = secrets.token_hex(6)
        self._idle: dict[int, queue.LifoQueue[Connection]] = {}  # by process: a forked child has its own
        self._clones: dict[str, Database] = {}
        self._closed = False
        self._template = _clones.template_name(migrate, version)
        self._user, self._password, options["env"] = _credentials(pool, options)
        if fast:
            _keep_in_memory(options)
        server = RunOptions(repository=repository, tag=tag, **options)
        image, about = pool._obtain(server)
        if fast:
            # The image's own command may load what its extensions need; an entrypoint of one's own replaces it.
            of_image = ["postgres"] if server.entrypoint else (about.get("Config") or {}).get("Cmd") or []
            settings = [word for each in _FAST for word in ("-c", each)]
            server = replace(server, cmd=[*(server.cmd or of_image), *settings])
        self.resource = pool._run(server, about, image, image, ())
        try:
            with self._admin() as admin:
                _clones.drop_what_the_dead_left(admin)
                self._fill(admin)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<TemplateDatabase on {self.resource!r}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clone(self) -> Database:
        """
        Make a database of its own: a copy of the migrated one, dropped when it or this is closed.

        May be called from any thread.

        Raises:
            ResourceClosedError: This is closed.
            ContainerExitedError: The server has ended.
        """
        self._check_open()
        name = f"{_clones.CLONE}{self._session}_{secrets.token_hex(4)}"
        with self._admin() as admin:
            try:
                _clones.copy(admin, self._template, name, by_files=self._fast)
            except MissingError:  # the server was stopped, and had its data in memory
                self._fill(admin)
                _clones.copy(admin, self._template, name, by_files=self._fast)
        self._clones[name] = database = Database(name, self._url(name), self)
        return database

    def close(self) -> None:
        """
        Drop the clones that are left, and remove the server; with `reuse`, it stays. Closing twice is nothing.

        Raises:
            EngineError: The engine did not remove the server; call again to try again.
        """
        if not self._closed and (self.resource._reused or self._pool.keep):  # else they go with the server
            for each in list(self._clones.values()):
                with suppress(ContainerExitedError):  # an end of the server is no failure to close this
                    each.close()
        self._closed = True
        idle = self._idle.pop(os.getpid(), None)
        while idle and not idle.empty():
            idle.get_nowait().close()
        self.resource.close()

    def _fill(self, admin: Connection) -> None:
        """Have the template there: made by whoever comes first, while the others wait."""
        with _clones.locked(admin, self._template):
            if not _clones.is_template(admin, self._template):
                _clones.drop(admin, self._template)  # half-made, by one that was killed
                _clones.create(admin, self._template)
                self._migrate(self._url(self._template))
                _clones.seal(admin, self._template)

    def _drop(self, database: Database) -> None:
        if not self.resource._removed:
            with self._admin() as admin:
                _clones.drop(admin, database.name)
        self._clones.pop(database.name, None)

    def _keep(self, database: Database) -> None:
        """Have a clone outlive this, and its server as well."""
        with self._admin() as admin:
            _clones.mark_kept(admin, database.name)
        self._clones.pop(database.name, None)
        self.resource._keep = True

    @contextmanager
    def _admin(self) -> Iterator[Connection]:
        """Lend a connection for what no database can do to itself; threads do not share one."""
        idle = self._idle.setdefault(os.getpid(), queue.LifoQueue())
        connection = None
        with suppress(queue.Empty):
            connection = idle.get_nowait()
        if connection is None or _clones.is_broken(connection):
            connection = self.resource.retry(lambda: _clones.connect(self._url("postgres")))
            _clones.is_in_use(connection, self._session)
        try:
            yield connection
        finally:
            idle.put(connection)

    def _url(self, database: str) -> str:
        who = f"{quote(self._user, safe='')}:{quote(self._password, safe='')}"
        return f"postgresql://{who}@{self.resource.get_host_port(5432)}/{database}"

    def _check_open(self) -> None:
        if self._closed:
            raise ResourceClosedError(f"{self!r} is closed")


class Database:
    """
    One database, dropped by `close()`, at the end of a `with`, and with its `TemplateDatabase`.

    Attributes:
        name: Its name.
        url: The URL to connect to it, password included.
    """

    def __init__(self, name: str, url: str, owner: TemplateDatabase) -> None:
        self.name = name
        self.url = url
        self._owner = owner
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Database {self.name!r}{' (closed)' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep(self) -> None:
        """Leave the database and its server standing for a look afterwards, and print its URL."""
        if not self._closed:
            self._owner._keep(self)
            self._closed = True
            # Asked for, by somebody who looks at the screen.
            print(f"kept database {self.url}", file=sys.stderr)

    def close(self) -> None:
        """
        Drop the database, whoever is still connected to it. Closing twice is nothing.

        Where the pool is to `keep` what it made, the database is kept, and its URL printed. A forked child leaves its
        parent's alone.
        """
        if self._pid != os.getpid():
            self._closed = True
        elif self._owner._pool.keep:
            self.keep()
        elif not self._closed:
            self._owner._drop(self)
            self._closed = True


def _credentials(pool: Pool, options: ServerFields) -> tuple[str, str, list[str]]:
    """Give user, password and the server's environment with them in it."""
    given = _specs.environment("env", options.get("env", ()))
    known = dict(each.split("=", 1) for each in given if "=" in each)
    user = known.get("POSTGRES_USER") or "postgres"
    password = known.get("POSTGRES_PASSWORD") or _password(pool, options.get("reuse", False))
    ours = {"POSTGRES_USER": user, "POSTGRES_PASSWORD": password}
    rest = [each for each in given if each.split("=", 1)[0] not in ours]
    return user, password, rest + [f"{key}={value}" for key, value in ours.items()]


def _keep_in_memory(options: ServerFields) -> None:
    """Put the data into memory, unless the user has a place for them."""
    mounted = [each.split(":")[1] for each in options.get("mounts") or () if ":" in each]
    tmpfs = _values.tmpfs(options.get("tmpfs") or ())
    env = _specs.environment("env", options.get("env", ()))
    chosen = any(f"{each}/".startswith(f"{_USUAL}/") for each in (*mounted, *tmpfs))
    if not chosen and not any(each.startswith("PGDATA=") for each in env):
        options["tmpfs"] = {**tmpfs, _MEMORY: ""}
        options["env"] = [*env, f"PGDATA={_MEMORY}/data"]


def _password(pool: Pool, reuse: bool | str) -> str:
    """
    Give a password: for one server a random one, for a reused server one that whoever may take it knows as well.

    A user's is in a file that nobody else may read. A group's follows from its name: who knows that, is in it.
    """
    if isinstance(reuse, str):
        return hashlib.sha256(f"dockertest {reuse}".encode()).hexdigest()[:32]
    if not reuse:
        return secrets.token_hex(16)
    path = _session.state_folder(pool._environ) / "postgres-password"
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.exists():
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
            with suppress(FileExistsError):
                os.link(fresh, path)  # whole or not at all, and the first one wins
            fresh.unlink()
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InvalidOptionError(
            f"reuse: the server's password cannot be kept in {str(path)!r}: {error.strerror}; "
            "set XDG_STATE_HOME to a folder of your own, or give POSTGRES_PASSWORD in env"
        ) from error
