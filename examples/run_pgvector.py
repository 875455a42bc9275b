"""
PostgreSQL with the extension pgvector, with psycopg.

    python examples/run_pgvector.py
"""

import psycopg

import dockertest


def main() -> None:
    """Store vectors in a new table and find the nearest one."""
    with dockertest.Pool() as pool:
        server = pool.run("pgvector/pgvector:pg17", env={"POSTGRES_PASSWORD": "secret"}, wait_for="ready")
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE items (name text, place vector(2))")
            connection.execute("INSERT INTO items VALUES ('tea', '[1, 0]'), ('cake', '[0, 1]')")
            query = "SELECT name FROM items ORDER BY place <-> '[0.1, 0.9]' LIMIT 1"
            row = connection.execute(query).fetchone()
        assert row == ("cake",)
        print(f"pgvector/pgvector:pg17 gave back {row!r}")


if __name__ == "__main__":
    main()
