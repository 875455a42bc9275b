"""
A real PostgreSQL under pytest, with this package's plugin: installed with it, and used by naming `dockertest_pool`.

    python -m pytest examples/with_pytest.py

A test that fails shows the server's state and the last lines of its log. Without an engine the tests are skipped, and fail
in CI. With `-n 4` of pytest-xdist each worker has a server of its own.
"""

from collections.abc import Iterator

import psycopg
import pytest

import dockertest


@pytest.fixture(scope="session")
def url(dockertest_pool: dockertest.Pool) -> str:
    """Start one server for all tests; the plugin's pool removes it at the end."""
    postgres = dockertest_pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
    url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
    with postgres.retry(lambda: psycopg.connect(url)) as connection:
        connection.execute(
            "CREATE TABLE accounts (name text PRIMARY KEY, balance integer CHECK (balance >= 0))"
        )
    return url


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    """Give a connection for one test, and undo everything that the test did."""
    with psycopg.connect(url) as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_balance_is_kept(connection: psycopg.Connection, name: str) -> None:
    """What was stored is read back, and nothing of another test's."""
    connection.execute("INSERT INTO accounts VALUES (%s, 10)", [name])
    assert connection.execute("SELECT * FROM accounts").fetchall() == [(name, 10)]


def test_a_balance_is_never_negative(connection: psycopg.Connection) -> None:
    """The server's own check holds: a mock would not have told."""
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO accounts VALUES ('carol', -1)")
