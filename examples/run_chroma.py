"""
Chroma over its HTTP interface, with the standard library.

    python examples/run_chroma.py
"""

import json
import urllib.request
from typing import Any

import dockertest


def main() -> None:
    """Store vectors in a new collection and find the nearest one."""
    with dockertest.Pool() as pool:
        server = pool.run("chromadb/chroma:1.0.12", wait_for="ready")
        collections = server.url() + "/api/v2/tenants/default_tenant/databases/default_database/collections"

        def call(url: str, body: object) -> Any:
            request = urllib.request.Request(
                url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.load(reply)

        items = f"{collections}/{call(collections, {'name': 'items'})['id']}"
        call(f"{items}/add", {"ids": ["tea", "cake"], "embeddings": [[1, 0], [0, 1]]})
        found = call(f"{items}/query", {"query_embeddings": [[0.1, 0.9]], "n_results": 1})
        ((nearest,),) = found["ids"]
        assert nearest == "cake"
        print(f"chromadb/chroma:1.0.12 gave back {nearest!r}")


if __name__ == "__main__":
    main()
