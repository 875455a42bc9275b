"""
A real PostgreSQL under `unittest`, with nothing but the standard library's own ways to set up and tear down.

    python -m unittest examples/test_with_unittest.py
"""

import unittest

import psycopg

import dockertest


class AccountsTest(unittest.TestCase):
    """One server for each test: `setUp` starts it, `tearDown` removes it."""

    def setUp(self) -> None:
        """Start a server and wait until it answers."""
        self.pool = dockertest.Pool()
        # Registered before anything else can fail: `tearDown` is not called when `setUp` raises.
        self.addCleanup(self.pool.close)
        self.postgres = self.pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        url = f"postgresql://postgres:secret@{self.postgres.get_host_port(5432)}/postgres?connect_timeout=5"
        self.connection = self.postgres.retry(lambda: psycopg.connect(url, autocommit=True))
        self.connection.execute(
            "CREATE TABLE accounts (name text PRIMARY KEY, balance integer CHECK (balance >= 0))"
        )

    def tearDown(self) -> None:
        """Let go of the connection and the server; what was registered for clean-up comes after."""
        self.connection.close()
        self.postgres.close()

    def test_a_balance_is_kept(self) -> None:
        """What was stored is read back."""
        self.connection.execute("INSERT INTO accounts VALUES ('alice', 10)")
        self.assertEqual(self.connection.execute("SELECT * FROM accounts").fetchall(), [("alice", 10)])

    def test_a_balance_is_never_negative(self) -> None:
        """The server's own check holds: a mock would not have told."""
        with self.assertRaises(psycopg.errors.CheckViolation):
            self.connection.execute("INSERT INTO accounts VALUES ('bob', -1)")


class SharedServerTest(unittest.TestCase):
    """One server for the whole class: cheaper, where tests do not get into each other's way."""

    connection: psycopg.Connection

    @classmethod
    def setUpClass(cls) -> None:
        """Start a server that `addClassCleanup` removes after the last test."""
        pool = dockertest.Pool()
        cls.addClassCleanup(pool.close)
        postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
        cls.connection = postgres.retry(lambda: psycopg.connect(url, autocommit=True))
        cls.addClassCleanup(cls.connection.close)

    def test_it_is_a_real_server(self) -> None:
        """The server tells its version."""
        row = self.connection.execute("SHOW server_version").fetchone()
        assert row is not None
        self.assertTrue(row[0].startswith("15"))


if __name__ == "__main__":
    unittest.main()
