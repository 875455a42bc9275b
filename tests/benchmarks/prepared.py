"""
Compare prepared images and standby with the cold start of the docker SDK.

The servers start with their data.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import redis

import dockertest

from .clients import POSTGRES, PREFIX, DockerSdk

Results = dict[str, Any]
TABLES, ROWS = 100, 200  # per table
REDIS = f"{PREFIX}redis:7.0"


@dataclass(frozen=True)
class Server:
    """A kind of server, and how to fill and to query it."""

    image: str
    env: "dict[str, str]"
    port: int
    url: str
    migrate: "Callable[[str], object]"
    query: "Callable[[str], object]"

    @property
    def options(self) -> dockertest.RunOptions:
        """What to start."""
        return dockertest.RunOptions(repository=self.image, env=self.env)

    def url_at(self, address: str) -> str:
        """Return the URL of a server at an address."""
        return self.url.format(address)

    def url_of(self, resource: dockertest.Resource) -> str:
        """Return the URL of a container."""
        return self.url_at(resource.get_host_port(self.port))


def migrate_postgres(url: str) -> None:
    """Create 100 tables with 20,000 rows in total."""
    with psycopg.connect(url) as connection:
        for number in range(TABLES):
            connection.execute(f"CREATE TABLE t{number} (id serial PRIMARY KEY, name text NOT NULL)")
            connection.execute(
                f"INSERT INTO t{number} (name) SELECT 'name ' || g FROM generate_series(1, {ROWS}) g"
            )


def query_postgres(url: str) -> None:
    """Read one of the tables."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        assert connection.execute("SELECT count(*) FROM t7").fetchone() == (ROWS,)


def connect_mysql(url: str) -> "pymysql.Connection[Any]":
    """Connect to MySQL or MariaDB."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=str(parts.hostname), port=parts.port or 0, user="root", password="test", database="test"
    )


def migrate_mysql(url: str) -> None:
    """Create 100 tables with 20,000 rows in total."""
    rows = ",".join(f"('name {number}')" for number in range(ROWS))
    with closing(connect_mysql(url)) as connection, connection.cursor() as cursor:
        for number in range(TABLES):
            cursor.execute(f"CREATE TABLE t{number} (id int AUTO_INCREMENT PRIMARY KEY, name varchar(50))")
            cursor.execute(f"INSERT INTO t{number} (name) VALUES {rows}")
        connection.commit()


def query_mysql(url: str) -> None:
    """Read one of the tables."""
    with closing(connect_mysql(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t7")
        assert cursor.fetchone() == (ROWS,)


def query_redis(url: str) -> None:
    """Read a key."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        assert client.get("key") == b"value"


def fill_redis(url: str) -> None:
    """Write a key."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        client.set("key", "value")


SERVERS = {
    "PostgreSQL": Server(
        POSTGRES,
        {"POSTGRES_PASSWORD": "test"},
        5432,
        "postgresql://postgres:test@{}/postgres",
        migrate_postgres,
        query_postgres,
    ),
    "MariaDB": Server(
        f"{PREFIX}mariadb:10.11",
        {"MARIADB_ROOT_PASSWORD": "test", "MARIADB_DATABASE": "test"},
        3306,
        "mysql://{}",
        migrate_mysql,
        query_mysql,
    ),
    "MySQL": Server(
        f"{PREFIX}mysql:9.7",
        {"MYSQL_ROOT_PASSWORD": "test", "MYSQL_DATABASE": "test"},
        3306,
        "mysql://{}",
        migrate_mysql,
        query_mysql,
    ),
    "Redis": Server(REDIS, {}, 6379, "redis://{}", fill_redis, query_redis),
}


def prepared(rounds: int, count: int = 100) -> Results:
    """
    Measure fresh servers with data, prepared and cold.

    They are started one by one, taken from a standby, and used in a suite.
    """
    with own_state(), dockertest.Pool(max_wait=180) as pool:
        measured: Results = {"fresh migrated server": {}, "prepare, image there": {}, "ratios": {}}
        for name in ("PostgreSQL", "MariaDB", "MySQL"):
            compare(pool, name, rounds, measured)
        measured["standby.take() to first query"] = {
            f"{name}, {kind}": taken(pool, SERVERS[name], rounds, is_prepared=kind == "prepared")
            for name in ("PostgreSQL", "Redis")
            for kind in ("cold", "prepared")
        }
        suites = {kind: run_suite(kind, count) for kind in ("cold", "prepared", "standby")}
    measured[f"suite of {count} tests, a fresh migrated server each"] = suites
    for kind in ("prepared", "standby"):
        measured["ratios"][f"suite with a {kind} server a test, of a cold one"] = (
            suites[kind]["whole suite"] / suites["cold"]["whole suite"]
        )
    return measured


@contextmanager
def own_state() -> "Iterator[None]":
    """Use a state folder of our own, whose images are removed at the end."""
    before = os.environ.get("XDG_STATE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        try:
            yield
        finally:
            with dockertest.Pool() as pool:
                pool.prune(prepared=True)
            if before is None:
                del os.environ["XDG_STATE_HOME"]
            else:
                os.environ["XDG_STATE_HOME"] = before


def compare(pool: dockertest.Pool, name: str, rounds: int, measured: Results) -> None:
    """Measure a prepared server, and a cold one that is migrated, in turn."""
    server, sdk = SERVERS[name], DockerSdk()
    image = prepare(pool, server)
    cold, fresh, found = [], [], []
    for number in range(rounds + 1):
        calls = [partial(cold_start, sdk, server), partial(fresh_start, pool, server, image)]
        seconds = [0.0, 0.0]
        for turn in (0, 1) if number % 2 else (1, 0):
            seconds[turn] = calls[turn]()
        if number:  # the first round is a warm-up
            cold.append(seconds[0])
            fresh.append(seconds[1])
            began = time.perf_counter()
            assert prepare(pool, server) == image
            found.append(time.perf_counter() - began)
    measured["fresh migrated server"] |= {
        f"{name}, docker SDK": summary(cold),
        f"{name}, prepared": summary(fresh),
    }
    measured["prepare, image there"][name] = summary(found)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(fresh, cold, strict=True))
    measured["ratios"][f"prepared {name}, of a cold start with migration"] = ratio


def prepare(pool: dockertest.Pool, server: Server) -> dockertest.PreparedImage:
    """Prepare a migrated server."""
    return pool.prepare(server.options, lambda it: server.migrate(server.url_of(it)), version="1")


def cold_start(sdk: DockerSdk, server: Server) -> float:
    """
    Return the time that a server, its migration and a query take.

    The server is started with the docker SDK.
    """
    began = time.perf_counter()
    container = sdk.start(server.image, [], server.env, server.port)
    ports = sdk.api.inspect_container(container)["NetworkSettings"]["Ports"]
    url = server.url_at(f"127.0.0.1:{ports[f'{server.port}/tcp'][0]['HostPort']}")
    while True:
        try:
            server.migrate(url)
            break
        except (psycopg.OperationalError, pymysql.OperationalError):
            time.sleep(0.01)
    server.query(url)
    seconds = time.perf_counter() - began
    sdk.remove(container)
    return seconds


def fresh_start(pool: dockertest.Pool, server: Server, image: dockertest.PreparedImage) -> float:
    """Start a prepared server, make a query, and return the time that this took."""
    began = time.perf_counter()
    with pool.run_with_options(image) as resource:
        url = server.url_of(resource)
        resource.retry(lambda: server.query(url))
        return time.perf_counter() - began


def taken(pool: dockertest.Pool, server: Server, rounds: int, *, is_prepared: bool) -> "dict[str, float]":
    """Measure `take` until the first query, with pauses that are longer than a start."""

    def ready(resource: dockertest.Resource) -> None:
        if not is_prepared:
            server.migrate(server.url_of(resource))
        server.query(server.url_of(resource))

    seconds = []
    with pool.standby(prepare(pool, server) if is_prepared else server.options, ready=ready) as standby:
        began = time.perf_counter()
        standby.take().close()
        pause = 1.5 * (time.perf_counter() - began)
        for _ in range(rounds):
            time.sleep(pause)
            began = time.perf_counter()
            with standby.take() as resource:
                server.query(server.url_of(resource))
                seconds.append(time.perf_counter() - began)
    return summary(seconds)


SUITE = """
import dockertest, psycopg, pytest
from tests.benchmarks.prepared import SERVERS, prepare

server = SERVERS["PostgreSQL"]

@pytest.fixture(scope="session")
def pool():
    with dockertest.Pool() as pool:
        yield pool

@pytest.fixture
def cold(pool):
    with pool.run_with_options(server.options) as resource:
        url = server.url_of(resource)
        resource.retry(lambda: server.migrate(url))
        yield url

@pytest.fixture
def prepared(pool):
    with pool.run_with_options(prepare(pool, server)) as resource:
        url = server.url_of(resource)
        resource.retry(lambda: psycopg.connect(url)).close()
        yield url

@pytest.fixture(scope="session")
def servers(pool):
    ready = lambda it: psycopg.connect(server.url_of(it)).close()
    with pool.standby(prepare(pool, server), ready=ready, count=2) as standby:
        yield standby

@pytest.fixture
def standby(servers):
    with servers.take() as resource:
        yield server.url_of(resource)

@pytest.mark.parametrize("number", range({count}))
def test_one(number, {kind}):
    server.query({kind})
"""


def run_suite(kind: str, count: int) -> "dict[str, float]":
    """
    Run a suite with pytest, and return its duration in ms.

    Each test has a server of its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test_suite.py"
        test.write_text(SUITE.format(kind=kind, count=count))
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(test)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        return {"whole suite": (time.perf_counter() - began) * 1000}


def summary(values: "list[float]") -> "dict[str, float]":
    """Return median, mean and range in milliseconds."""
    return {
        "median": statistics.median(values) * 1000,
        "mean": statistics.fmean(values) * 1000,
        "min": min(values) * 1000,
        "max": max(values) * 1000,
    }
