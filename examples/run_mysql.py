"""
MySQL with PyMySQL.

The image's setup server accepts no network connections, so the first connection is to the real one.

    python examples/run_mysql.py
"""

import pymysql

import dockertest


def main() -> None:
    """Store a row in a new database and read it back."""
    with dockertest.Pool() as pool:
        mysql = pool.run(
            "mysql:9.7",
            env={
                "MYSQL_ROOT_PASSWORD": "secret",
                "MYSQL_DATABASE": "orders",
                "MYSQL_USER": "shop",
                "MYSQL_PASSWORD": "also-secret",
            },
        )

        def connect() -> pymysql.Connection:
            return pymysql.connect(
                host=mysql.get_bound_ip(3306),
                port=mysql.get_port(3306),
                user="shop",
                password="also-secret",
                database="orders",
                connect_timeout=5,
                read_timeout=30,
            )

        with mysql.retry(connect, on=pymysql.OperationalError) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE items (name varchar(40) PRIMARY KEY, price integer)")
            cursor.execute("INSERT INTO items VALUES (%s, %s)", ["tea", 3])
            cursor.execute("SELECT * FROM items")
            row = cursor.fetchone()
        assert row == ("tea", 3)
        print(f"mysql:9.7 gave back {row!r}")


if __name__ == "__main__":
    main()
