"""
Weaviate over its HTTP interface, with the standard library.

    python examples/run_weaviate.py
"""

import json
import urllib.request
from typing import Any

import dockertest


def main() -> None:
    """Store objects with vectors and find the nearest one."""
    with dockertest.Pool(max_wait=120) as pool:
        server = pool.run("semitechnologies/weaviate:1.30.0", exposed_ports=[8080], wait_for="ready")

        def call(path: str, body: object) -> Any:
            request = urllib.request.Request(
                server.url() + path,
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.load(reply)

        call("/v1/schema", {"class": "Item", "vectorizer": "none"})
        call("/v1/objects", {"class": "Item", "properties": {"name": "tea"}, "vector": [1, 0]})
        call("/v1/objects", {"class": "Item", "properties": {"name": "cake"}, "vector": [0, 1]})
        query = "{ Get { Item(nearVector: {vector: [0.1, 0.9]}, limit: 1) { name } } }"
        (nearest,) = call("/v1/graphql", {"query": query})["data"]["Get"]["Item"]
        assert nearest["name"] == "cake"
        print(f"semitechnologies/weaviate:1.30.0 gave back {nearest['name']!r}")


if __name__ == "__main__":
    main()
