"""
ZooKeeper with kazoo.

    python examples/run_zookeeper.py
"""

import socket
from typing import Any

from kazoo.client import KazooClient

import dockertest


def main() -> None:
    """Store a value in a new server and read it back."""
    with dockertest.Pool() as pool:
        zookeeper = pool.run("zookeeper:3.8", env={"ZK_SERVER_HEAP": "128"})

        def is_serving() -> bool:
            """Send the command `srvr`. kazoo would retry by itself and log every failure."""
            address = (zookeeper.get_bound_ip(2181), zookeeper.get_port(2181))
            with socket.create_connection(address, timeout=5) as connection:
                connection.sendall(b"srvr")
                return b"Mode: standalone" in connection.makefile("rb").read()

        zookeeper.retry(is_serving, on=OSError)
        client: Any = KazooClient(hosts=zookeeper.get_host_port(2181), timeout=30)
        client.start(timeout=10)
        client.create("/shop/greeting", b"hello", makepath=True)
        value, stat = client.get("/shop/greeting")
        client.stop()
        client.close()
        assert (value, stat.version) == (b"hello", 0)
        print(f"zookeeper:3.8 gave back {value!r}")


if __name__ == "__main__":
    main()
