"""
A real PostgreSQL with pytest and your own fixtures.

The plugin may be disabled.

    python -m pytest -p no:dockertest examples/with_pytest_alone.py
"""

from collections.abc import Iterator

import psycopg
import pytest

import dockertest


@pytest.fixture(scope="module")
def postgres() -> Iterator[dockertest.Resource]:
    """
    Start one server for this module.

    Without an engine the tests are skipped, but fail in CI.
    """
    dockertest.require_docker()
    with (
        dockertest.Pool(max_wait=30) as pool,
        pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"}) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def connection(postgres: dockertest.Resource) -> Iterator[psycopg.Connection]:
    """Open a connection as soon as the server accepts one."""
    url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
    with postgres.retry(lambda: psycopg.connect(url)) as connection:
        yield connection


def test_it_is_a_real_server(connection: psycopg.Connection) -> None:
    """The server reports its version."""
    row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    assert row[0].startswith("15")
