"""
Redis with redis-py.

    python examples/run_redis.py
"""

import redis

import dockertest


def main() -> None:
    """Store a value in a new server and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run("redis:7.0", cmd=["redis-server", "--requirepass", "secret"])
        url = f"redis://:secret@{server.get_host_port(6379)}/0"

        with redis.Redis.from_url(url, decode_responses=True, socket_timeout=5) as client:
            server.retry(client.ping, on=(redis.ConnectionError, redis.TimeoutError))
            client.set("greeting", "hello", ex=60)
            value = client.get("greeting")
        assert value == "hello"
        print(f"redis:7.0 gave back {value!r}")


if __name__ == "__main__":
    main()
