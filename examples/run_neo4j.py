"""
Neo4j with its driver.

    python examples/run_neo4j.py
"""

import neo4j

import dockertest


def main() -> None:
    """Store two nodes with a relationship and follow it."""
    with dockertest.Pool(max_wait=120) as pool:
        server = pool.run("neo4j:5.26", env={"NEO4J_AUTH": "neo4j/secret-password"}, wait_for="ready")
        to = server.connection()
        with neo4j.GraphDatabase.driver(f"bolt://{to.host}:{to.port}", auth=(to.user, to.password)) as driver:
            driver.execute_query("CREATE (:Item {name: 'tea'})-[:GOES_WITH]->(:Item {name: 'cake'})")
            records, _, _ = driver.execute_query(
                "MATCH (:Item {name: 'tea'})-->(other) RETURN other.name AS name"
            )
        name = records[0]["name"]
        assert name == "cake"
        print(f"neo4j:5.26 gave back {name!r}")


if __name__ == "__main__":
    main()
