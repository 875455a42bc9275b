"""
Oracle Database Free with python-oracledb, which needs no Oracle client.

    python examples/run_oracle.py
"""

import oracledb

import dockertest


def main() -> None:
    """Store a row in a new table of an application user and read it back."""
    with dockertest.Pool(max_wait=300) as pool:
        server = pool.run(
            "gvenzl/oracle-free:23-slim-faststart",
            env={"ORACLE_PASSWORD": "secret", "APP_USER": "shop", "APP_USER_PASSWORD": "also-secret"},
            shm_size="1g",
            exposed_ports=[1521],
            wait_for="ready",
        )
        to = server.connection()
        with (
            oracledb.connect(
                user=to.user, password=to.password, host=to.host, port=to.port, service_name="FREEPDB1"
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("CREATE TABLE items (name varchar2(40) PRIMARY KEY, price number)")
            cursor.execute("INSERT INTO items VALUES (:1, :2)", ["tea", 3])
            cursor.execute("SELECT name, price FROM items")
            row = cursor.fetchone()
        assert row == ("tea", 3)
        print(f"gvenzl/oracle-free:23-slim-faststart gave back {row!r}")


if __name__ == "__main__":
    main()
