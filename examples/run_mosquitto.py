"""
Mosquitto, an MQTT broker, with paho-mqtt.

Its configuration is copied into the container before it starts.

    python examples/run_mosquitto.py
"""

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

import dockertest


def main() -> None:
    """Send a message through a new broker."""
    with dockertest.Pool() as pool:
        mosquitto = pool.run(
            "eclipse-mosquitto:2.0",
            # By default it listens only on the container's loopback interface.
            files={"/mosquitto/config/mosquitto.conf": "listener 1883\nallow_anonymous true\n"},
        )

        def connect() -> Client:
            client = Client(CallbackAPIVersion.VERSION2)
            client.connect(mosquitto.get_bound_ip(1883), mosquitto.get_port(1883))
            for _ in range(10):  # until the broker has answered
                client.loop(timeout=0.5)
                if client.is_connected():
                    return client
            raise ConnectionError("no answer")

        received: list[bytes | bytearray] = []

        def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
            received.append(message.payload)

        client = mosquitto.retry(connect, on=OSError)
        client.on_message = on_message
        client.subscribe("greetings")
        client.publish("greetings", b"hello", retain=True)
        for _ in range(10):
            if not received:
                client.loop(timeout=0.5)
        client.disconnect()
        assert received == [b"hello"]
        print(f"eclipse-mosquitto:2.0 gave back {received[0]!r}")


if __name__ == "__main__":
    main()
