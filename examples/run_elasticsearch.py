"""
Elasticsearch with its own client.

    python examples/run_elasticsearch.py
"""

from elasticsearch import ApiError, Elasticsearch, TransportError

import dockertest


def main() -> None:
    """Index a document in a new server and find it."""
    with dockertest.Pool(max_wait=120) as pool:
        server = pool.run(
            "elasticsearch:8.17.0",
            env={
                "discovery.type": "single-node",
                "xpack.security.enabled": "false",
                "ES_JAVA_OPTS": "-Xms512m -Xmx512m",
            },
        )
        with Elasticsearch(
            f"http://{server.get_host_port(9200)}", request_timeout=10, max_retries=0
        ) as client:
            # The server answers before it can store documents; the status yellow means that it can.
            server.retry(
                lambda: client.cluster.health(wait_for_status="yellow", timeout="5s"),
                on=(ApiError, TransportError),
            )
            client.index(index="items", id="tea", document={"price": 3}, refresh="wait_for")
            result = client.search(index="items", query={"range": {"price": {"lt": 5}}})
            (hit,) = result["hits"]["hits"]
        assert (hit["_id"], hit["_source"]) == ("tea", {"price": 3})
        print(f"elasticsearch:8.17.0 gave back {hit['_source']!r}")


if __name__ == "__main__":
    main()
