"""
ClickHouse over its HTTP interface, with the standard library.

    python examples/run_clickhouse.py
"""

import base64
import urllib.request

import dockertest


def main() -> None:
    """Store rows in a new table and add them up."""
    with dockertest.Pool() as pool:
        server = pool.run(
            "clickhouse:25.3",
            env={"CLICKHOUSE_USER": "shop", "CLICKHOUSE_PASSWORD": "secret", "CLICKHOUSE_DB": "orders"},
            wait_for="ready",
        )
        to = server.connection()
        login = base64.b64encode(f"{to.user}:{to.password}".encode()).decode()

        def query(text: str) -> str:
            request = urllib.request.Request(
                f"http://{to.host}:{to.port}/?database={to.database}",
                data=text.encode(),
                headers={"Authorization": f"Basic {login}"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                return str(reply.read().decode())

        query("CREATE TABLE items (name String, price UInt32) ENGINE = Memory")
        query("INSERT INTO items VALUES ('tea', 3), ('cake', 4)")
        total = query("SELECT sum(price) FROM items").strip()
        assert total == "7"
        print(f"clickhouse:25.3 gave back {total!r}")


if __name__ == "__main__":
    main()
