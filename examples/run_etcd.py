"""
etcd with etcd3gw, which uses the JSON gateway of the server.

    python examples/run_etcd.py
"""

import os

import etcd3gw
from etcd3gw.exceptions import Etcd3Exception

import dockertest

# The official images are on quay.io. A mirror in DOCKERTEST_IMAGE_PREFIX has them without the name of that registry.
PREFIX = os.environ.get("DOCKERTEST_IMAGE_PREFIX") or "quay.io/"


def main() -> None:
    """Store a value in a new server and read it back."""
    with dockertest.Pool(image_prefix=PREFIX) as pool:
        etcd = pool.run(
            "coreos/etcd:v3.4.23",
            env={
                "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
                "ETCD_ADVERTISE_CLIENT_URLS": "http://0.0.0.0:2379",
            },
            exposed_ports=["2379"],
        )
        client = etcd3gw.client(
            host=etcd.get_bound_ip(2379), port=etcd.get_port(2379), timeout=5, api_path="/v3/"
        )
        # A node answers with an error until a leader is elected.
        etcd.retry(client.status, on=Etcd3Exception)
        client.put("greeting", "hello")
        (value,) = client.get("greeting")
        client.session.close()
        assert value == b"hello"
        print(f"coreos/etcd:v3.4.23 gave back {value!r}")


if __name__ == "__main__":
    main()
