"""
InfluxDB 1 with the client for that version.

    python examples/run_influxdb.py
"""

import requests
from influxdb import InfluxDBClient
from influxdb.resultset import ResultSet

import dockertest


def main() -> None:
    """Store a measurement in a new database and read it back."""
    with dockertest.Pool() as pool:
        influxdb = pool.run(
            "influxdb:1.6",
            env={
                "INFLUXDB_DB": "weather",
                "INFLUXDB_HTTP_AUTH_ENABLED": "true",
                "INFLUXDB_ADMIN_USER": "admin",
                "INFLUXDB_ADMIN_PASSWORD": "secret",
            },
        )
        with InfluxDBClient(
            host=influxdb.get_bound_ip(8086),
            port=influxdb.get_port(8086),
            username="admin",
            password="secret",
            database="weather",
            timeout=20,
            retries=1,
        ) as client:
            influxdb.retry(client.ping, on=requests.RequestException)
            client.write_points(
                [{"measurement": "air", "tags": {"city": "Bern"}, "fields": {"celsius": 21.5}}]
            )
            result = client.query("SELECT celsius FROM air WHERE city = 'Bern'")
            assert isinstance(result, ResultSet)  # several queries would return a list
            (point,) = result.get_points()
        assert point["celsius"] == 21.5
        print(f"influxdb:1.6 gave back {point['celsius']!r}")


if __name__ == "__main__":
    main()
