"""
A real PostgreSQL under pytest, with fixtures of one's own alone; the plugin may be turned off.

    python -m pytest -p no:dockertest examples/with_pytest_alone.py
"""

from collections.abc import Iterator

import psycopg
import pytest

import dockertest


@pytest.fixture(scope="module")
def postgres() -> Iterator[dockertest.Resource]:
    """Start one server for this module; without an engine its tests are skipped, and fail in CI."""
    dockertest.require_docker()
    with (
        dockertest.Pool(max_wait=30) as pool,
        pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"}) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def connection(postgres: dockertest.Resource) -> Iterator[psycopg.Connection]:
    """Give a connection as soon as the server answers."""
    url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
    with postgres.retry(lambda: psycopg.connect(url)) as connection:
        yield connection


def test_it_is_a_real_server(connection: psycopg.Connection) -> None:
    """The server tells its version."""
    row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    assert row[0].startswith("15")
