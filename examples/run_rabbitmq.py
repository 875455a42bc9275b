"""
RabbitMQ with pika.

    python examples/run_rabbitmq.py
"""

import pika
import pika.exceptions

import dockertest


def main() -> None:
    """Send a message through a new broker."""
    with dockertest.Pool() as pool:
        rabbitmq = pool.run(
            "rabbitmq:3.10",
            env={"RABBITMQ_DEFAULT_USER": "shop", "RABBITMQ_DEFAULT_PASS": "secret"},
        )
        parameters = pika.ConnectionParameters(
            host=rabbitmq.get_bound_ip(5672),
            port=rabbitmq.get_port(5672),
            credentials=pika.PlainCredentials("shop", "secret"),
            socket_timeout=5,
            stack_timeout=10,
        )

        def connect() -> pika.BlockingConnection:
            return pika.BlockingConnection(parameters)

        with rabbitmq.retry(connect, on=pika.exceptions.AMQPConnectionError) as connection:
            channel = connection.channel()
            channel.queue_declare("orders", exclusive=True)
            channel.basic_publish(exchange="", routing_key="orders", body=b"tea")
            # Unlike `basic_get`, `consume` waits for a message that is still on its way.
            _, _, body = next(channel.consume("orders", auto_ack=True, inactivity_timeout=10))
            channel.cancel()
        assert body == b"tea"
        print(f"rabbitmq:3.10 gave back {body!r}")


if __name__ == "__main__":
    main()
