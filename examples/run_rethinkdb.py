"""
RethinkDB with its own driver.

    python examples/run_rethinkdb.py
"""

from typing import Any

from rethinkdb import RethinkDB
from rethinkdb.errors import ReqlDriverError

import dockertest


def main() -> None:
    """Store a document in a database that was not there before, and read it back."""
    r = RethinkDB()
    with dockertest.Pool() as pool:
        rethinkdb = pool.run("rethinkdb:2.4")

        def connect() -> Any:
            return r.connect(host=rethinkdb.get_bound_ip(28015), port=rethinkdb.get_port(28015), timeout=5)

        with rethinkdb.retry(connect, on=ReqlDriverError) as connection:
            r.db("test").table_create("items", primary_key="name").run(connection)
            r.table("items").insert({"name": "tea", "price": 3}).run(connection)
            item = r.table("items").get("tea").run(connection)
        assert item == {"name": "tea", "price": 3}
        print(f"rethinkdb:2.4 gave back {item!r}")


if __name__ == "__main__":
    main()
