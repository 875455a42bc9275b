"""
Valkey with redis-py, which speaks the same protocol.

    python examples/run_valkey.py
"""

import redis

import dockertest


def main() -> None:
    """Store a value in a new server and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run("valkey/valkey:9.1", wait_for="ready")

        with redis.Redis.from_url(server.url(), decode_responses=True, socket_timeout=5) as client:
            client.set("greeting", "hello", ex=60)
            value = client.get("greeting")
        assert value == "hello"
        print(f"valkey/valkey:9.1 gave back {value!r}")


if __name__ == "__main__":
    main()
