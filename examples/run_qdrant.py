"""
Qdrant over its HTTP interface, with the standard library.

    python examples/run_qdrant.py
"""

import json
import urllib.request
from typing import Any

import dockertest


def main() -> None:
    """Store vectors in a new collection and find the nearest one."""
    with dockertest.Pool() as pool:
        server = pool.run("qdrant/qdrant:v1.13.4", wait_for="ready")

        def call(method: str, path: str, body: object) -> Any:
            request = urllib.request.Request(
                server.url() + path,
                method=method,
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.load(reply)["result"]

        call("PUT", "/collections/items", {"vectors": {"size": 2, "distance": "Cosine"}})
        points = [{"id": 1, "vector": [1, 0]}, {"id": 2, "vector": [0, 1]}]
        call("PUT", "/collections/items/points?wait=true", {"points": points})
        found = call("POST", "/collections/items/points/query", {"query": [0.1, 0.9], "limit": 1})
        (nearest,) = found["points"]
        assert nearest["id"] == 2
        print(f"qdrant/qdrant:v1.13.4 gave back {nearest['id']!r}")


if __name__ == "__main__":
    main()
