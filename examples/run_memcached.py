"""
memcached with pymemcache.

    python examples/run_memcached.py
"""

from contextlib import closing

from pymemcache.client.base import Client

import dockertest


def main() -> None:
    """Store a value in a new server and read it back."""
    with dockertest.Pool() as pool:
        memcached = pool.run("memcached:1.6", cmd=["memcached", "-m", "16"])
        address = (memcached.get_bound_ip(11211), memcached.get_port(11211))

        with closing(Client(address, connect_timeout=5, timeout=5)) as client:
            memcached.retry(client.version)
            client.set("greeting", b"hello", expire=60, noreply=False)
            value = client.get("greeting")
        assert value == b"hello"
        print(f"memcached:1.6 gave back {value!r}")


if __name__ == "__main__":
    main()
