"""
Milvus over its HTTP interface, with the standard library.

It usually needs etcd and MinIO. These settings keep both in the container.

    python examples/run_milvus.py
"""

import json
import urllib.request
from typing import Any

import dockertest

ETCD = """\
listen-client-urls: http://0.0.0.0:2379
advertise-client-urls: http://0.0.0.0:2379
"""


def main() -> None:
    """Store vectors in a new collection and find the nearest one."""
    with dockertest.Pool(max_wait=180) as pool:
        server = pool.run(
            "milvusdb/milvus:v2.5.10",
            cmd=["milvus", "run", "standalone"],
            env={
                "ETCD_USE_EMBED": "true",
                "ETCD_DATA_DIR": "/var/lib/milvus/etcd",
                "ETCD_CONFIG_PATH": "/milvus/configs/embedEtcd.yaml",
                "COMMON_STORAGETYPE": "local",
            },
            files={"/milvus/configs/embedEtcd.yaml": ETCD},
            security_opt=["seccomp=unconfined"],
            exposed_ports=[9091, 19530],  # the image declares none
        )
        server.wait_for_http(9091, "/healthz")
        server.wait_ready()

        def call(path: str, **body: object) -> Any:
            request = urllib.request.Request(
                f"{server.url()}/v2/vectordb/{path}",
                data=json.dumps({"collectionName": "items", **body}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as reply:
                answer = json.load(reply)
            assert answer["code"] == 0, answer
            return answer["data"]

        call("collections/create", dimension=2, consistencyLevel="Strong")
        call("entities/insert", data=[{"id": 1, "vector": [1, 0]}, {"id": 2, "vector": [0, 1]}])
        (nearest,) = call("entities/search", data=[[0.1, 0.9]], annsField="vector", limit=1)
        assert nearest["id"] == 2
        print(f"milvusdb/milvus:v2.5.10 gave back {nearest['id']!r}")


if __name__ == "__main__":
    main()
