"""
A real PostgreSQL with pytest and this package's plugin.

The plugin provides the fixture `dockertest_pool`.

    python -m pytest examples/with_pytest.py

The report of a failed test contains the server's state and its last log lines. Without an engine the tests are skipped,
but fail in CI. With `-n 4` of pytest-xdist, each worker has its own server.
"""

from collections.abc import Iterator

import psycopg
import pytest

import dockertest


@pytest.fixture(scope="session")
def url(dockertest_pool: dockertest.Pool) -> str:
    """Start one server for all tests, which the plugin's pool removes at the end."""
    postgres = dockertest_pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
    url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
    with postgres.retry(lambda: psycopg.connect(url)) as connection:
        connection.execute(
            "CREATE TABLE accounts (name text PRIMARY KEY, balance integer CHECK (balance >= 0))"
        )
    return url


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    """Open a connection for one test, and roll back its changes afterwards."""
    with psycopg.connect(url) as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_balance_is_kept(connection: psycopg.Connection, name: str) -> None:
    """Only the row of this test is read back."""
    connection.execute("INSERT INTO accounts VALUES (%s, 10)", [name])
    assert connection.execute("SELECT * FROM accounts").fetchall() == [(name, 10)]


def test_a_balance_is_never_negative(connection: psycopg.Connection) -> None:
    """The server enforces the check, which a mock would not."""
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO accounts VALUES ('carol', -1)")
