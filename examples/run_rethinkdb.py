"""
RethinkDB with its own driver.

    python examples/run_rethinkdb.py
"""

import socket
import struct

from rethinkdb import RethinkDB

import dockertest

MAGIC_NUMBER = struct.pack("<L", 0x34C2BDC3)  # version 1.0 of the protocol


def main() -> None:
    """Store a document in a new database and read it back."""
    r = RethinkDB()
    with dockertest.Pool() as pool:
        rethinkdb = pool.run("rethinkdb:2.4")

        address = rethinkdb.get_bound_ip(28015), rethinkdb.get_port(28015)

        def is_serving() -> bool:
            """Begin the handshake. The driver would log every failed attempt."""
            with socket.create_connection(address, timeout=5) as connection:
                connection.sendall(MAGIC_NUMBER)
                return b'"success":true' in connection.recv(1024)

        rethinkdb.retry(is_serving, on=OSError)
        with r.connect(*address, timeout=5) as connection:
            r.db("test").table_create("items", primary_key="name").run(connection)
            r.table("items").insert({"name": "tea", "price": 3}).run(connection)
            item = r.table("items").get("tea").run(connection)
        assert item == {"name": "tea", "price": 3}
        print(f"rethinkdb:2.4 gave back {item!r}")


if __name__ == "__main__":
    main()
