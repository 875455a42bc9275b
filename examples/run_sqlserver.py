"""
Microsoft SQL Server with pymssql. Setting ACCEPT_EULA accepts the licence.

    python examples/run_sqlserver.py
"""

import pymssql

import dockertest


def main() -> None:
    """Store a row in a new table and read it back."""
    with dockertest.Pool(max_wait=180) as pool:
        server = pool.run(
            "mcr.microsoft.com/mssql/server:2022-latest",
            env={"ACCEPT_EULA": "Y", "MSSQL_SA_PASSWORD": "Secret-pass-1", "MSSQL_PID": "Developer"},
            wait_for="ready",
        )
        to = server.connection()
        with (
            pymssql.connect(
                server=to.host, port=str(to.port), user=to.user, password=to.password, database=to.database
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("CREATE TABLE items (name varchar(40) PRIMARY KEY, price integer)")
            cursor.execute("INSERT INTO items VALUES (%s, %d)", ("tea", 3))
            cursor.execute("SELECT name, price FROM items")
            row = cursor.fetchone()
        assert row == ("tea", 3)
        print(f"mcr.microsoft.com/mssql/server:2022-latest gave back {row!r}")


if __name__ == "__main__":
    main()
