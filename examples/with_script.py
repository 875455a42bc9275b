"""
A real PostgreSQL in a plain script, without a framework.

    python examples/with_script.py
"""

import psycopg

import dockertest


def main() -> None:
    """
    Start a server, wait until it is ready, and store and read a row.

    Leaving the `with` block removes the server.
    """
    with dockertest.Pool() as pool:
        postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres?connect_timeout=5"
        with postgres.retry(lambda: psycopg.connect(url)) as connection:
            connection.execute("CREATE TABLE accounts (name text PRIMARY KEY, balance integer)")
            connection.execute("INSERT INTO accounts VALUES ('alice', 10)")
            print(connection.execute("SELECT name, balance FROM accounts").fetchall())


if __name__ == "__main__":
    main()
