"""
MinIO, which is compatible with Amazon S3, with its own client.

    python examples/run_minio.py
"""

import io

import urllib3
from minio import Minio

import dockertest


def main() -> None:
    """Store an object in a new server and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run(
            "minio/minio:RELEASE.2025-04-22T22-12-26Z",
            env={"MINIO_ROOT_USER": "admin", "MINIO_ROOT_PASSWORD": "long-secret"},
            cmd=["server", "/data"],
        )
        client = Minio(
            server.get_host_port(9000),
            access_key="admin",
            secret_key="long-secret",
            secure=False,
            # A single attempt per call, since `retry` repeats it.
            http_client=urllib3.PoolManager(timeout=urllib3.Timeout(5), retries=False),
        )
        # Listing the buckets succeeds only once the server has loaded its users and disks.
        server.retry(client.list_buckets)
        client.make_bucket("letters")
        client.put_object("letters", "greeting.txt", io.BytesIO(b"hello"), 5)
        with client.get_object("letters", "greeting.txt") as response:
            value = response.read()
        assert value == b"hello"
        print(f"minio/minio:RELEASE.2025-04-22T22-12-26Z gave back {value!r}")


if __name__ == "__main__":
    main()
