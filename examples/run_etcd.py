"""
etcd by the JSON that it speaks beside gRPC, with the standard library alone: no client of Python's is kept up to date.

    python examples/run_etcd.py
"""

import base64
import json
import os
import urllib.request
from typing import Any

import dockertest

# etcd's own images are on quay.io; a mirror that DOCKERTEST_IMAGE_PREFIX names has them without the registry's name.
PREFIX = os.environ.get("DOCKERTEST_IMAGE_PREFIX") or "quay.io/"


def main() -> None:
    """Store a value in a server that was not there before, and read it back."""
    with dockertest.Pool(image_prefix=PREFIX) as pool:
        etcd = pool.run(
            "coreos/etcd:v3.4.23",
            env={
                "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
                "ETCD_ADVERTISE_CLIENT_URLS": "http://0.0.0.0:2379",
            },
            exposed_ports=["2379"],
        )
        url = f"http://{etcd.get_host_port(2379)}"

        def call(path: str, **body: str) -> Any:
            data = json.dumps(body).encode() if body else None
            with urllib.request.urlopen(f"{url}{path}", data, timeout=5) as response:
                return json.load(response)

        etcd.retry(lambda: call("/health")["health"] == "true", on=OSError)
        key, value = (base64.b64encode(each).decode() for each in (b"greeting", b"hello"))
        call("/v3/kv/put", key=key, value=value)
        (found,) = call("/v3/kv/range", key=key)["kvs"]
        assert found["value"] == value
        print(f"coreos/etcd:v3.4.23 gave back {base64.b64decode(found['value'])!r}")


if __name__ == "__main__":
    main()
