"""
NATS with nats-py, which uses asyncio, and `retry_async`.

    python examples/run_nats.py
"""

import asyncio

import nats

import dockertest


async def main() -> None:
    """Send a message through a new server, and store a value in a JetStream bucket."""
    with dockertest.Pool() as pool:
        server = pool.run("nats:2.9", cmd=["--jetstream"])

        async def is_serving() -> bool:
            """Wait for the server's first message. The client would log every failed attempt."""
            reader, writer = await asyncio.open_connection(server.get_bound_ip(4222), server.get_port(4222))
            try:
                return (await reader.readline()).startswith(b"INFO ")
            finally:
                writer.close()

        await pool.retry_async(is_serving, on=OSError, attempt_timeout=5, watch=[server])
        client = await nats.connect(f"nats://{server.get_host_port(4222)}")
        subscription = await client.subscribe("greetings")
        await client.publish("greetings", b"hello")
        message = await subscription.next_msg(timeout=5)
        assert message.data == b"hello"

        bucket = await client.jetstream().create_key_value(bucket="prices")
        await bucket.put("tea", b"3")
        price = (await bucket.get("tea")).value
        assert price == b"3"
        await client.close()
        print(f"nats:2.9 gave back {message.data!r} and {price!r}")


if __name__ == "__main__":
    asyncio.run(main())
