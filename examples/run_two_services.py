"""
Two services on a separate network: nginx serves pages from memcached.

    python examples/run_two_services.py
"""

import urllib.request
from contextlib import closing

from pymemcache.client.base import Client

import dockertest

CONFIGURATION = """
server {
    listen 80;
    default_type text/plain;
    location / {
        set $memcached_key $uri;
        memcached_pass store:11211;
    }
}
"""


def main() -> None:
    """Store a page in memcached and request it from nginx."""
    with dockertest.Pool() as pool:
        network = pool.create_network()
        # memcached comes first, since nginx resolves the name `store` when it starts.
        memcached = pool.run("memcached:1.6", networks=[network], network_aliases=["store"])
        nginx = pool.run(
            "nginx:1.22", networks=[network], files={"/etc/nginx/conf.d/default.conf": CONFIGURATION}
        )

        address = (memcached.get_bound_ip(11211), memcached.get_port(11211))
        with closing(Client(address, connect_timeout=5, timeout=5)) as client:
            memcached.retry(client.version)
            client.set("/greeting", b"hello", noreply=False)

        def get() -> bytes:
            with urllib.request.urlopen(f"http://{nginx.get_host_port(80)}/greeting", timeout=5) as response:
                page: bytes = response.read()
                return page

        page = nginx.retry(get, on=OSError)
        assert page == b"hello"
        print(f"nginx:1.22 in front of memcached:1.6 gave back {page!r}")


if __name__ == "__main__":
    main()
