"""
A separate database for a test, as in Google's Exposure Notifications server.

The test suite of that server uses Go's Dockertest.

`new_test_database_with_config` would be a helper of the test suite. `main` uses it like a test: it stores and reads
exposure keys, and prints its progress. Run it with `make demo`, or directly with any engine:

    python examples/exposure_notifications.py
"""

import os
import secrets
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import backoff
import psycopg
from psycopg.conninfo import make_conninfo

import dockertest

MIGRATIONS = Path(__file__).with_name("migrations")


@dataclass(frozen=True)
class DatabaseConfig:
    """The connection settings of the database."""

    name: str
    user: str
    host: str
    port: int
    ssl_mode: str
    password: str = field(repr=False)

    def connection_url(self) -> str:
        """Return the settings as a connection string for libpq."""
        return make_conninfo(
            dbname=self.name,
            user=self.user,
            host=self.host,
            port=self.port,
            sslmode=self.ssl_mode,
            password=self.password,
            connect_timeout=5,
        )


@dataclass(frozen=True)
class Exposure:
    """A key that a phone has broadcast, with its attributes."""

    key: bytes
    transmission_risk: int
    interval_number: int
    interval_count: int
    region: str


class ExposureDatabase:
    """The exposure keys in the database."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    def insert(self, exposures: list[Exposure]) -> None:
        """Store exposures, all or none."""
        rows = [
            (e.key, e.transmission_risk, e.interval_number, e.interval_count, e.region) for e in exposures
        ]
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany("INSERT INTO exposures VALUES (%s, %s, %s, %s, %s)", rows)

    def by_region(self, region: str) -> list[Exposure]:
        """Return the exposures of a region, the oldest first."""
        rows = self.connection.execute(
            "SELECT exposure_key, transmission_risk, interval_number, interval_count, region"
            " FROM exposures WHERE region = %s ORDER BY interval_number",
            [region],
        )
        return [Exposure(*row) for row in rows]


def new_test_database_with_config(
    cleanup: ExitStack, log: Callable[[str], object] = lambda _line: None
) -> tuple[ExposureDatabase, DatabaseConfig]:
    """
    Start PostgreSQL, migrate it, and return the database and its settings.

    Everything is removed when *cleanup* is closed. A `unittest.TestCase` would use `self.addCleanup`, pytest a fixture.
    """
    if os.environ.get("SKIP_DATABASE_TESTS", "").lower() in ("1", "t", "true"):
        raise unittest.SkipTest("SKIP_DATABASE_TESTS is set")

    name, user, password = "en-server-test-db", "my-username", secrets.token_urlsafe()
    pool = cleanup.enter_context(dockertest.Pool())
    with step(log, "started"):
        container = pool.run_with_options(
            dockertest.RunOptions(
                repository="postgres",
                tag="15",
                env={"LANG": "C", "POSTGRES_DB": name, "POSTGRES_USER": user, "POSTGRES_PASSWORD": password},
            )
        )
        cleanup.callback(pool.purge, container)
    log(f"{container} listens on {container.get_host_port('5432/tcp')}")

    config = DatabaseConfig(
        name=name,
        user=user,
        host=container.get_bound_ip("5432/tcp"),
        port=container.get_port("5432/tcp"),
        ssl_mode="disable",
        password=password,
    )
    with step(log, "ready"):
        # Fibonacci pauses from 0.5 s to at most 10 s, and at most ten retries.
        connection = container.retry(
            lambda: psycopg.connect(config.connection_url(), autocommit=True),
            on=psycopg.OperationalError,
            wait=half_second_fibonacci,
            max_attempts=11,
            max_wait=120,
        )
        cleanup.callback(connection.close)
    check_database_is_ours(connection, container)
    with step(log, "migrated"):
        migrate(connection)
    return ExposureDatabase(connection), config


def half_second_fibonacci() -> Iterator[float]:
    """Yield pauses of 0.5, 0.5, 1, 1.5, 2.5, … seconds, at most 10."""
    for pause in backoff.fibo():
        if pause is not None:  # the first value of backoff's generators is None
            yield min(pause * 0.5, 10.0)


def check_database_is_ours(connection: psycopg.Connection, container: dockertest.Resource) -> None:
    """Fail if another server answers: our server's host name is the container's id."""
    row = connection.execute("SELECT trim(both from pg_read_file('/etc/hostname'), E' \\n')").fetchone()
    if row is None or not container.id.startswith(row[0]):
        raise RuntimeError(f"the database is not in {container}: its host name is {row}")


def migrate(connection: psycopg.Connection) -> None:
    """Apply the SQL files in the order of their names."""
    for file in sorted(MIGRATIONS.glob("*.sql")):
        connection.execute(file.read_bytes())


@contextmanager
def step(log: Callable[[str], object], done: str) -> Iterator[None]:
    """Log the duration of a step."""
    began = time.monotonic()
    yield
    log(f"{done} in {time.monotonic() - began:.2f} s")


def check_database_is_gone(config: DatabaseConfig) -> None:
    """Fail if the database still accepts connections."""
    try:
        psycopg.connect(config.connection_url()).close()
    except psycopg.OperationalError:
        return
    raise RuntimeError(f"{config} still answers")


def main() -> None:
    """Store and read exposure keys in a database that is removed at the end."""
    with ExitStack() as cleanup:  # also cleans up if a line below fails
        database, config = new_test_database_with_config(cleanup, print)
        row = database.connection.execute("SELECT version()").fetchone()
        print(f"{config.name!r} answers: {row[0] if row else None}")

        stored = [Exposure(secrets.token_bytes(16), 2, 2_650_000 + day * 144, 144, "US") for day in range(14)]
        database.insert([*stored, Exposure(secrets.token_bytes(16), 5, 2_650_000, 144, "CA")])
        assert database.by_region("US") == stored
        print(f"stored 15 exposure keys, read back the {len(stored)} of region US")
        with step(print, "gone"):
            cleanup.close()
    check_database_is_gone(config)


if __name__ == "__main__":
    main()
