"""
MariaDB with PyMySQL.

    python examples/run_mariadb.py
"""

import pymysql

import dockertest


def main() -> None:
    """Store a row in a new database and read it back."""
    with dockertest.Pool() as pool:
        mariadb = pool.run(
            "mariadb:10.11",
            env={
                "MARIADB_ROOT_PASSWORD": "secret",
                "MARIADB_DATABASE": "orders",
                "MARIADB_USER": "shop",
                "MARIADB_PASSWORD": "also-secret",
            },
        )

        def connect() -> pymysql.Connection:
            return pymysql.connect(
                host=mariadb.get_bound_ip(3306),
                port=mariadb.get_port(3306),
                user="shop",
                password="also-secret",
                database="orders",
                connect_timeout=5,
                read_timeout=30,
            )

        with mariadb.retry(connect, on=pymysql.OperationalError) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE items (name varchar(40) PRIMARY KEY, price integer)")
            cursor.execute("INSERT INTO items VALUES (%s, %s)", ["tea", 3])
            cursor.execute("SELECT * FROM items")
            row = cursor.fetchone()
        assert row == ("tea", 3)
        print(f"mariadb:10.11 gave back {row!r}")


if __name__ == "__main__":
    main()
