"""
Cassandra with its own driver.

Its first start takes half a minute, and it accepts no connections until then.

    python examples/run_cassandra.py
"""

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.policies import RoundRobinPolicy

import dockertest


def main() -> None:
    """Store a row in a new database and read it back."""
    with dockertest.Pool(max_wait=180) as pool:
        cassandra = pool.run("cassandra:4.1", env={"MAX_HEAP_SIZE": "512M", "HEAP_NEWSIZE": "128M"})

        def connect() -> tuple[Cluster, Session]:
            cluster = Cluster(
                [cassandra.get_bound_ip(9042)],
                port=cassandra.get_port(9042),
                connect_timeout=10,
                protocol_version=5,
                execution_profiles={
                    EXEC_PROFILE_DEFAULT: ExecutionProfile(load_balancing_policy=RoundRobinPolicy())
                },
            )
            try:
                return cluster, cluster.connect()
            except BaseException:
                cluster.shutdown()  # stops the threads of the driver
                raise

        cluster, session = cassandra.retry(connect, on=NoHostAvailable)
        session.execute(
            "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
        session.execute("CREATE TABLE shop.items (name text PRIMARY KEY, price int)")
        session.execute("INSERT INTO shop.items (name, price) VALUES (%s, %s)", ("tea", 3))
        row = tuple(session.execute("SELECT name, price FROM shop.items").one())
        cluster.shutdown()
        assert row == ("tea", 3)
        print(f"cassandra:4.1 gave back {row!r}")


if __name__ == "__main__":
    main()
