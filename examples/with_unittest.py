"""
A real PostgreSQL under `unittest`: by `DockerTestCase`, and with nothing but the standard library's own ways.

    python -m unittest examples/with_unittest.py
"""

import unittest

import psycopg

import dockertest
from dockertest.testcase import DockerTestCase


class SharedServerTest(DockerTestCase):
    """One server for the whole class: cheaper, where tests do not get into each other's way."""

    connection: psycopg.Connection

    @classmethod
    def setUpClass(cls) -> None:
        """Start a server, gone after the last test even if a line here fails; then no test runs."""
        super().setUpClass()
        postgres = cls.run_class_container("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        cls.connection = postgres.retry(lambda: connect(postgres))
        cls.addClassCleanup(cls.connection.close)
        cls.connection.execute(
            "CREATE TABLE accounts (name text PRIMARY KEY, balance integer CHECK (balance >= 0))"
        )

    def setUp(self) -> None:
        """Begin with an empty table."""
        self.connection.execute("TRUNCATE accounts")

    def test_a_balance_is_kept(self) -> None:
        """What was stored is read back."""
        self.connection.execute("INSERT INTO accounts VALUES ('alice', 10)")
        self.assertEqual(self.connection.execute("SELECT * FROM accounts").fetchall(), [("alice", 10)])

    def test_a_balance_is_never_negative(self) -> None:
        """The server's own check holds: a mock would not have told."""
        with self.assertRaises(psycopg.errors.CheckViolation):
            self.connection.execute("INSERT INTO accounts VALUES ('bob', -1)")


class OwnServerTest(DockerTestCase):
    """One server for one test, where it is to be stopped, broken or filled to the brim."""

    def test_a_server_that_is_started_again_has_its_rows(self) -> None:
        """What was committed is there after a stop."""
        postgres = self.run_container("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        with postgres.retry(lambda: connect(postgres)) as connection:
            connection.execute("CREATE TABLE accounts AS SELECT 'alice' AS name, 10 AS balance")
        postgres.restart()
        with postgres.retry(lambda: connect(postgres)) as connection:
            self.assertEqual(connection.execute("SELECT * FROM accounts").fetchall(), [("alice", 10)])


class StandardLibraryTest(unittest.TestCase):
    """The same without a base class: each clean-up is registered before anything after it can fail."""

    connection: psycopg.Connection

    @classmethod
    def setUpClass(cls) -> None:
        """Start a server that `addClassCleanup` removes; `tearDownClass` is not called when this fails."""
        dockertest.require_docker()
        pool = dockertest.Pool()
        cls.addClassCleanup(pool.close)
        postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        cls.connection = postgres.retry(lambda: connect(postgres))
        cls.addClassCleanup(cls.connection.close)

    def test_it_is_a_real_server(self) -> None:
        """The server tells its version."""
        row = self.connection.execute("SHOW server_version").fetchone()
        assert row is not None
        self.assertTrue(row[0].startswith("15"))


def connect(postgres: dockertest.Resource) -> psycopg.Connection:
    """Connect to the server; each statement is committed at once."""
    url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
    return psycopg.connect(url, autocommit=True)


if __name__ == "__main__":
    unittest.main()
