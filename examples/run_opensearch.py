"""
OpenSearch without its security plugin, with the standard library.

    python examples/run_opensearch.py
"""

import json
import urllib.request
from typing import Any

import dockertest


def main() -> None:
    """Index a document in a new server and read it back."""
    with dockertest.Pool(max_wait=120) as pool:
        server = pool.run(
            "opensearchproject/opensearch:2.19.1",
            env={
                "discovery.type": "single-node",
                "DISABLE_SECURITY_PLUGIN": "true",
                "OPENSEARCH_JAVA_OPTS": "-Xms512m -Xmx512m",
            },
            wait_for="ready",
        )

        def call(method: str, path: str, body: object = None) -> Any:
            request = urllib.request.Request(
                server.url() + path,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)

        call("PUT", "/items/_doc/tea?refresh=wait_for", {"price": 3})
        document = call("GET", "/items/_doc/tea")["_source"]
        assert document == {"price": 3}
        print(f"opensearchproject/opensearch:2.19.1 gave back {document!r}")


if __name__ == "__main__":
    main()
