"""
Kafka with kafka-python.

A broker advertises its address to clients, but the published port is known only after the container has started. The
command of the container therefore waits for a file with the address.

    python examples/run_kafka.py
"""

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

import dockertest

WAIT_AND_RUN = (
    "until [ -s /tmp/advertised ]; do sleep 0.1; done; . /tmp/advertised; exec /etc/kafka/docker/run"
)
# If any of these is set, the image ignores its default configuration, so all settings are needed.
ENV = {
    "KAFKA_NODE_ID": 1,
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "HOST://:9092,BROKER://:19092,CONTROLLER://:29093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "BROKER",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:29093",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": 1,
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": 1,
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": 0,
    "KAFKA_HEAP_OPTS": "-Xmx512m",
}


def main() -> None:
    """Send a message through a new broker."""
    with dockertest.Pool() as pool:
        kafka = pool.run(
            "apache/kafka:3.9.0", env=ENV, cmd=["sh", "-c", WAIT_AND_RUN], exposed_ports=["9092"]
        )
        server = kafka.get_host_port(9092)
        listeners = f"HOST://{server},BROKER://localhost:19092"
        kafka.write_file("/tmp/advertised", f"export KAFKA_ADVERTISED_LISTENERS={listeners}\n")

        def connect() -> KafkaProducer:
            return KafkaProducer(
                bootstrap_servers=server,
                acks="all",
                bootstrap_timeout_ms=5000,  # pyright: ignore[reportCallIssue] - its types are of version 2
            )

        producer = kafka.retry(connect, on=KafkaError)
        producer.send("orders", b"tea").get(timeout=30)
        producer.close()
        consumer = KafkaConsumer(
            "orders", bootstrap_servers=server, auto_offset_reset="earliest", consumer_timeout_ms=30_000
        )
        value = next(consumer).value
        consumer.close()
        assert value == b"tea"
        print(f"apache/kafka:3.9.0 gave back {value!r}")


if __name__ == "__main__":
    main()
