"""
Azurite, which stands in for Azure Storage, with Microsoft's client for blobs.

    python examples/run_azurite.py
"""

from azure.storage.blob import BlobServiceClient

import dockertest

# The account of every Azurite, as its documentation publishes it.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def main() -> None:
    """Store a blob in a new container and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run(
            "mcr.microsoft.com/azure-storage/azurite:3.35.0",
            # An older Azurite would refuse a client that speaks a newer version of the protocol.
            cmd=["azurite-blob", "--blobHost", "0.0.0.0", "--skipApiVersionCheck"],  # noqa: S104 - inside the container
            wait_for="ready",
        )
        login = {"account_name": ACCOUNT, "account_key": KEY}
        with BlobServiceClient(server.url(), credential=login) as client:
            container = client.create_container("orders")
            container.upload_blob("first", b"tea")
            stored = container.download_blob("first").readall()
        assert stored == b"tea"
        print(f"mcr.microsoft.com/azure-storage/azurite:3.35.0 gave back {stored!r}")


if __name__ == "__main__":
    main()
