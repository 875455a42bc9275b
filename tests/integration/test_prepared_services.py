"""
Each container of a prepared image of a real server has the data.

No container sees what another one writes.
"""

import asyncio
import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nats
import pika
import psycopg
import pymysql
import pytest
import redis

import dockertest
from dockertest import Resource, RunOptions
from dockertest._images import commit


def request(resource: Resource, port: int, path: str, body: bytes | None = None) -> bytes:
    """Send an HTTP request, and return the answer."""
    with urllib.request.urlopen(f"http://{resource.get_host_port(port)}{path}", body, timeout=20) as answer:
        content: bytes = answer.read()
        return content


def write_postgres(resource: Resource, value: str) -> None:
    """Insert a row."""
    with psycopg.connect(resource.url()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS seen (value text)")
        connection.execute("INSERT INTO seen VALUES (%s)", [value])


def read_postgres(resource: Resource) -> list[str]:
    """Return the rows."""
    with psycopg.connect(resource.url()) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM seen")]


def mysql(resource: Resource) -> "pymysql.cursors.Cursor":
    """Connect to MySQL or MariaDB."""
    to = resource.connection()
    return pymysql.connect(
        host=to.host, port=to.port, user=to.user, password=to.password, database=to.database, autocommit=True
    ).cursor()


def write_mysql(resource: Resource, value: str) -> None:
    """Insert a row."""
    with mysql(resource) as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS seen (value text)")
        cursor.execute("INSERT INTO seen VALUES (%s)", [value])
        cursor.connection.close()


def read_mysql(resource: Resource) -> list[str]:
    """Return the rows."""
    with mysql(resource) as cursor:
        cursor.execute("SELECT value FROM seen")
        values = [row[0] for row in cursor.fetchall()]
        cursor.connection.close()
        return values


def write_redis(resource: Resource, value: str) -> None:
    """Append to a list."""
    with redis.Redis.from_url(resource.url()) as client:
        client.rpush("seen", value)


def read_redis(resource: Resource) -> list[str]:
    """Return the list."""
    with redis.Redis.from_url(resource.url(), decode_responses=True) as client:
        values: list[str] = client.lrange("seen", 0, -1)
        return values


def write_rabbitmq(resource: Resource, value: str) -> None:
    """Send a persistent message."""
    with pika.BlockingConnection(pika.URLParameters(resource.url())) as connection:
        channel = connection.channel()
        channel.queue_declare("seen", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "seen", value.encode(), pika.BasicProperties(delivery_mode=2))


def read_rabbitmq(resource: Resource) -> list[str]:
    """Return the messages, and leave them in the queue."""
    messages = []
    with pika.BlockingConnection(pika.URLParameters(resource.url())) as connection:
        channel = connection.channel()
        for _ in range(channel.queue_declare("seen", passive=True).method.message_count):
            messages.append(channel.basic_get("seen")[2].decode())  # without an acknowledgement
    return messages


def etcd(resource: Resource, call: str, **body: str) -> "dict[str, list[dict[str, str]]]":
    """Call etcd, whose keys and values are in base64."""
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in body.items()}
    answer: dict[str, list[dict[str, str]]] = json.loads(
        request(resource, 2379, f"/v3/kv/{call}", json.dumps(encoded).encode())
    )
    return answer


def write_etcd(resource: Resource, value: str) -> None:
    """Set a key."""
    etcd(resource, "put", key=value, value=value)


def read_etcd(resource: Resource) -> list[str]:
    """Return all values."""
    pairs = etcd(resource, "range", key="a", range_end="z").get("kvs", [])
    return [base64.b64decode(pair["value"]).decode() for pair in pairs]


def write_influxdb(resource: Resource, value: str) -> None:
    """Write a point."""
    request(resource, 8086, "/write?db=seen", f'seen value="{value}"'.encode())


def read_influxdb(resource: Resource) -> list[str]:
    """Return the values of all points."""
    answer = request(resource, 8086, f"/query?db=seen&q={quote('SELECT value FROM seen')}")
    series = json.loads(answer)["results"][0]["series"]
    return [value for _, value in series[0]["values"]]


def write_nats(resource: Resource, value: str) -> None:
    """Append to a stream."""

    async def publish() -> None:
        client = await nats.connect(resource.url())
        jetstream = client.jetstream()
        await jetstream.add_stream(name="seen", subjects=["seen"])
        await jetstream.publish("seen", value.encode())
        await client.close()

    asyncio.run(publish())


def read_nats(resource: Resource) -> list[str]:
    """Return the messages of the stream."""

    async def fetch() -> list[str]:
        client = await nats.connect(resource.url())
        jetstream = client.jetstream()
        count = (await jetstream.stream_info("seen")).state.messages
        messages = [await jetstream.get_msg("seen", seq=number + 1) for number in range(count)]
        await client.close()
        return [(message.data or b"").decode() for message in messages]

    return asyncio.run(fetch())


@dataclass(frozen=True)
class Server:
    """A kind of server that stores data."""

    options: RunOptions
    write: Callable[[Resource, str], None]
    read: Callable[[Resource], list[str]]


SERVERS = {
    "redis": Server(RunOptions(repository="redis:7.0"), write_redis, read_redis),
    "nats": Server(
        RunOptions(repository="nats:2.9", cmd=["--jetstream", "--store_dir", "/data"]), write_nats, read_nats
    ),
    "etcd": Server(
        RunOptions(
            repository="coreos/etcd:v3.4.23",
            env={
                "ETCD_LISTEN_CLIENT_URLS": "http://0.0.0.0:2379",
                "ETCD_ADVERTISE_CLIENT_URLS": "http://0.0.0.0:2379",
            },
            exposed_ports=["2379"],
        ),
        write_etcd,
        read_etcd,
    ),
    "influxdb": Server(
        RunOptions(repository="influxdb:1.6", env={"INFLUXDB_DB": "seen"}), write_influxdb, read_influxdb
    ),
    "rabbitmq": Server(
        RunOptions(
            repository="rabbitmq:3.10",
            env={"RABBITMQ_DEFAULT_USER": "shop", "RABBITMQ_DEFAULT_PASS": "secret"},
        ),
        write_rabbitmq,
        read_rabbitmq,
    ),
    "postgres": Server(
        RunOptions(repository="postgres:15", env={"POSTGRES_PASSWORD": "secret"}),
        write_postgres,
        read_postgres,
    ),
    "postgres 18": Server(
        RunOptions(repository="postgres:18", env={"POSTGRES_PASSWORD": "secret"}),
        write_postgres,
        read_postgres,
    ),
    "mariadb": Server(
        RunOptions(
            repository="mariadb:10.11",
            env={"MARIADB_ROOT_PASSWORD": "secret", "MARIADB_DATABASE": "shop"},
        ),
        write_mysql,
        read_mysql,
    ),
    "mysql": Server(
        RunOptions(repository="mysql:9.7", env={"MYSQL_ROOT_PASSWORD": "secret", "MYSQL_DATABASE": "shop"}),
        write_mysql,
        read_mysql,
    ),
}
QUICK = ("redis", "nats")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dockertest.Pool]:
    """A pool with a state folder of its own, whose images are removed after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with dockertest.Pool() as pool:
        yield pool
    with dockertest.Pool() as pool:
        pool.prune(prepared=True)


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(server, id=name, marks=() if name in QUICK else pytest.mark.soak)
        for name, server in SERVERS.items()
    ],
)
def test_each_container_has_data_of_its_own(own: dockertest.Pool, server: Server) -> None:
    """Also after a container was stopped and started, and with changes on both sides."""
    prepared = own.prepare(server.options, lambda resource: server.write(resource, "prepared"))
    first, second = own.run_all([prepared, prepared])
    for resource, value in ((first, "first"), (second, "second")):
        resource.wait_ready()
        assert resource.retry(lambda it=resource: server.read(it)) == ["prepared"]  # type: ignore[misc]
        server.write(resource, value)
    if server.read is read_mysql and commit.can_describe(own._runtime.engine):
        assert first.container.attrs["Mounts"] == []  # Nothing has to be copied at each start.
    first.restart()
    first.wait_ready()
    assert sorted(first.retry(lambda: server.read(first))) == ["first", "prepared"]
    assert sorted(server.read(second)) == ["prepared", "second"]
    third = own.run_with_options(prepared)
    third.wait_ready()
    assert third.retry(lambda: server.read(third)) == ["prepared"]


@pytest.mark.soak
@pytest.mark.parametrize("name", ["mariadb", "mysql"])
def test_tables_in_layers_can_be_changed(own: dockertest.Pool, name: str) -> None:
    """
    Tables can be renamed, copied, moved and dropped.

    Their database can be dropped, too. The server recovers from a crash.
    """

    def fill(resource: Resource) -> None:
        with mysql(resource) as cursor:
            for table in "abcdef":
                cursor.execute(f"CREATE TABLE {table} (id int AUTO_INCREMENT PRIMARY KEY, value text)")
                cursor.execute(f"INSERT INTO {table} (value) VALUES ('prepared')")
            cursor.connection.close()

    server = own.run_with_options(own.prepare(SERVERS[name].options, fill))
    server.wait_ready()
    with mysql(server) as cursor:
        for statement in (
            "RENAME TABLE a TO renamed",
            "TRUNCATE b",
            "ALTER TABLE c ADD more int, ALGORITHM=COPY",
            "CREATE DATABASE other",
            "RENAME TABLE d TO other.d",
            "DROP TABLE e",
            "CREATE TABLE e (id int)",
            "INSERT INTO f (value) VALUES ('new')",
        ):
            cursor.execute(statement)
        server.kill()
    server.start()
    server.wait_ready()
    with mysql(server) as cursor:
        cursor.execute("CHECK TABLE renamed, b, c, other.d, e, f EXTENDED")
        assert {row[-1] for row in cursor.fetchall()} == {"OK"}
        counts: list[tuple[int]] = []
        for table in ("renamed", "b", "c", "other.d", "e", "f"):
            cursor.execute(f"SELECT count(*) FROM {table}")
            counts += cursor.fetchall()
        assert [count for (count,) in counts] == [1, 0, 1, 1, 0, 2]
        for statement in ("DROP DATABASE shop", "CREATE DATABASE shop", "CREATE TABLE shop.f (id int)"):
            cursor.execute(statement)
        cursor.connection.close()
    server.restart()
    server.wait_ready()
    with mysql(server) as cursor:
        cursor.execute("SHOW TABLES")
        assert cursor.fetchall() == (("f",),)
        cursor.connection.close()
