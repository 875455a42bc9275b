"""
PostgreSQL with psycopg.

    python examples/run_postgres.py
"""

import psycopg

import dockertest


def main() -> None:
    """Store a row in a new database and read it back."""
    with dockertest.Pool() as pool:
        postgres = pool.run(
            "postgres:15",
            env={"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": "secret", "POSTGRES_DB": "orders"},
        )
        url = f"postgresql://shop:secret@{postgres.get_host_port(5432)}/orders?connect_timeout=5"

        def connect() -> psycopg.Connection:
            return psycopg.connect(url)

        with postgres.retry(connect, on=psycopg.OperationalError) as connection:
            connection.execute("CREATE TABLE items (name text PRIMARY KEY, price integer)")
            connection.execute("INSERT INTO items VALUES (%s, %s)", ["tea", 3])
            row = connection.execute("SELECT * FROM items").fetchone()
        assert row == ("tea", 3)
        print(f"postgres:15 gave back {row!r}")


if __name__ == "__main__":
    main()
