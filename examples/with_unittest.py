"""
A real PostgreSQL with `unittest`, with and without `DockerTestCase`.

    python -m unittest examples/with_unittest.py
"""

import unittest

import psycopg

import dockertest
from dockertest.testcase import DockerTestCase


class SharedServerTest(DockerTestCase):
    """
    One server for the whole class.

    This is cheaper if the tests do not interfere with each other.
    """

    connection: psycopg.Connection

    @classmethod
    def setUpClass(cls) -> None:
        """Start a server that is removed after the last test, or if a line here fails."""
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
        """A stored balance is read back."""
        self.connection.execute("INSERT INTO accounts VALUES ('alice', 10)")
        self.assertEqual(self.connection.execute("SELECT * FROM accounts").fetchall(), [("alice", 10)])

    def test_a_balance_is_never_negative(self) -> None:
        """The server enforces the check, which a mock would not."""
        with self.assertRaises(psycopg.errors.CheckViolation):
            self.connection.execute("INSERT INTO accounts VALUES ('bob', -1)")


class OwnServerTest(DockerTestCase):
    """One server for one test, which may stop it, break it or fill its disk."""

    def test_committed_rows_survive_a_restart(self) -> None:
        """A restarted server still has its rows."""
        postgres = self.run_container("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        with postgres.retry(lambda: connect(postgres)) as connection:
            connection.execute("CREATE TABLE accounts AS SELECT 'alice' AS name, 10 AS balance")
        postgres.restart()
        with postgres.retry(lambda: connect(postgres)) as connection:
            self.assertEqual(connection.execute("SELECT * FROM accounts").fetchall(), [("alice", 10)])


class StandardLibraryTest(unittest.TestCase):
    """
    The same with only the standard library's `TestCase` as the base class.

    Each cleanup is registered before the next line can fail.
    """

    connection: psycopg.Connection

    @classmethod
    def setUpClass(cls) -> None:
        """
        Start a server that `addClassCleanup` removes.

        `tearDownClass` is not called if this method fails.
        """
        dockertest.require_docker()
        pool = dockertest.Pool()
        cls.addClassCleanup(pool.close)
        postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        cls.connection = postgres.retry(lambda: connect(postgres))
        cls.addClassCleanup(cls.connection.close)

    def test_it_is_a_real_server(self) -> None:
        """The server reports its version."""
        row = self.connection.execute("SHOW server_version").fetchone()
        assert row is not None
        self.assertTrue(row[0].startswith("15"))


def connect(postgres: dockertest.Resource) -> psycopg.Connection:
    """Connect to the server; each statement is committed at once."""
    url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
    return psycopg.connect(url, autocommit=True)


if __name__ == "__main__":
    unittest.main()
