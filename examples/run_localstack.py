"""
LocalStack, which simulates Amazon's services: its S3, with MinIO's client.

Images since March 2026 need an account; this one does not.

    python examples/run_localstack.py
"""

import io

import minio

import dockertest


def main() -> None:
    """Store an object in a new bucket and read it back."""
    with dockertest.Pool(max_wait=120) as pool:
        server = pool.run(
            "localstack/localstack:4.4.0",
            env={"SERVICES": "s3"},
            exposed_ports=["4566/tcp"],
            publish_all_ports=False,
            wait_for="ready",
        )
        client = minio.Minio(
            server.get_host_port(4566), access_key="test", secret_key="test", region="us-east-1", secure=False
        )
        client.make_bucket("orders")
        client.put_object("orders", "first", io.BytesIO(b"tea"), 3)
        reply = client.get_object("orders", "first")
        try:
            stored = reply.read()
        finally:
            reply.close()
            reply.release_conn()
        assert stored == b"tea"
        print(f"localstack/localstack:4.4.0 gave back {stored!r}")


if __name__ == "__main__":
    main()
