"""
CockroachDB, which speaks the PostgreSQL protocol, with psycopg.

    python examples/run_cockroachdb.py
"""

import psycopg

import dockertest


def main() -> None:
    """Store a row in a new database and read it back."""
    with dockertest.Pool() as pool:
        cockroach = pool.run("cockroachdb/cockroach:v24.3.1", cmd=["start-single-node", "--insecure"])
        address = cockroach.get_host_port(26257)
        url = f"postgresql://root@{address}/defaultdb?sslmode=disable&connect_timeout=5"

        def connect() -> psycopg.Connection:
            return psycopg.connect(url, autocommit=True)

        with cockroach.retry(connect, on=psycopg.OperationalError) as connection:
            connection.execute("CREATE TABLE items (name text PRIMARY KEY, price integer)")
            connection.execute("INSERT INTO items VALUES (%s, %s)", ["tea", 3])
            row = connection.execute("SELECT * FROM items").fetchone()
        assert row == ("tea", 3)
        print(f"cockroachdb/cockroach:v24.3.1 gave back {row!r}")


if __name__ == "__main__":
    main()
