"""
A fake Google Cloud Storage with Google's own client.

    python examples/run_fake_gcs.py
"""

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

import dockertest


def main() -> None:
    """Store an object in a new server and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run(
            "fsouza/fake-gcs-server:1.52.2",
            cmd=["-scheme", "http", "-backend", "memory"],
            exposed_ports=["4443"],
        )
        client = storage.Client(
            project="example",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": f"http://{server.get_host_port(4443)}"},
        )
        # The client would retry by itself for two minutes, but only our `retry` notices that the server has exited.
        once = DEFAULT_RETRY.with_timeout(0.1)
        server.retry(lambda: list(client.list_buckets(timeout=5, retry=once)))
        bucket = client.create_bucket("letters")
        bucket.blob("greeting.txt").upload_from_string("hello")
        value = bucket.blob("greeting.txt").download_as_bytes()
        client.close()
        assert value == b"hello"
        print(f"fsouza/fake-gcs-server:1.52.2 gave back {value!r}")


if __name__ == "__main__":
    main()
