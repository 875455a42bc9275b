"""The benchmarks. The compared clients alternate in each round."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests

import dockertest
from dockertest.postgres import TemplateDatabase

from .clients import BUSYBOX, ENV, POSTGRES, SLEEP, Client, DockerSdk, Ours, Testcontainers
from .prepared import prepared, summary
from .reaper import reaper

Results = dict[str, Any]
THREADS = 16
# Write bytecode, as pip does for installed packages: this library is imported from its sources.
INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def stamp(text: str) -> float:
    """Parse a timestamp of the engine, such as `2026-11-23T12:00:00.123456789Z`."""
    seconds, fraction = re.fullmatch(r"(.+?)(\.\d+)?Z", text).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(fraction or 0)


def first_connection(rounds: int) -> Results:
    """
    Measure the time from the call to the first connection.

    The boot time of the server varies by 20 %. It is measured by the engine's clock, from the start of the container to the
    server's log line, and replaced by the median of all boot times. In each round the server is delayed a little longer, up
    to the longest pause of any client (1 s), so that no client benefits from the phase of its pauses. The delay is not part
    of the boot time.
    """
    clients: list[Client] = [DockerSdk(), Testcontainers(), Ours()]
    sdk = clients[0]
    assert isinstance(sdk, DockerSdk)
    totals: dict[str, list[float]] = {client.name: [] for client in clients}
    boots: dict[str, list[float]] = {client.name: [] for client in clients}
    for number in range(rounds + 1):
        held = number / max(rounds, 1)
        command = ["sh", "-c", f"sleep {held:.3f}; exec docker-entrypoint.sh postgres"]
        turn = number % len(clients)
        for client in clients[turn:] + clients[:turn]:
            started = client.postgres(command)
            began = stamp(sdk.api.inspect_container(started.container)["State"]["StartedAt"])
            log = sdk.api.logs(started.container, timestamps=True).decode().splitlines()
            ready = [line for line in log if "ready to accept connections" in line][-1]
            if number:  # the first round is a warm-up
                totals[client.name].append(started.seconds - held)
                boots[client.name].append(stamp(ready.split()[0]) - began - held)
            started.remove()
    common = statistics.median([boot for values in boots.values() for boot in values])
    shares = {
        name: [total - boot + common for total, boot in zip(totals[name], boots[name], strict=True)]
        for name in totals
    }
    ours, other, raw = shares["dockertest"], shares["testcontainers"], shares["docker SDK"]
    return {
        "call to first connection, boot evened out": {
            name: summary(values) for name, values in shares.items()
        },
        "call to first connection, as it was": {name: summary(values) for name, values in totals.items()},
        "ratios": {
            "of the floor (median of pairs)": statistics.median(
                a / b for a, b in zip(ours, raw, strict=True)
            ),
            "of the floor (means)": statistics.fmean(ours) / statistics.fmean(raw),
            "of testcontainers (means)": statistics.fmean(ours) / statistics.fmean(other),
            "of testcontainers (means, as it was)": statistics.fmean(totals["dockertest"])
            / statistics.fmean(totals["testcontainers"]),
        },
        "boot": summary([boot for values in boots.values() for boot in values]),
    }


def readiness(rounds: int) -> Results:
    """
    Compare when `wait_ready` and a driver notice that a server is ready.

    The driver is the service's own, and is called every 10 ms. Both wait for the same container, so that the time that
    the server takes does not matter. The driver's thread runs beside the wait from the moment in which the container
    has started.
    """
    measured: Results = {"ratios": {}}
    services: dict[str, tuple[dict[str, Any], Callable[[str], object]]] = {
        "postgres:15": ({"env": ENV}, ping_postgres),
        "redis:7.0": ({}, ping_redis),
    }
    with dockertest.Pool() as pool, ThreadPoolExecutor(1) as thread:
        for image, (options, ping) in services.items():
            ready, pinged = [], []
            for _ in range(rounds):
                began = time.perf_counter()
                with pool.run(image, **options) as resource:
                    driver = thread.submit(first_success, ping, resource.url())
                    resource.wait_ready()
                    ready.append(time.perf_counter() - began)
                    pinged.append(driver.result() - began)
            measured[f"ready: {image}"] = {"wait_ready": summary(ready), "driver": summary(pinged)}
            ratio = statistics.median(a / b for a, b in zip(ready, pinged, strict=True))
            measured["ratios"][f"{image} wait_ready, of a ping every 10 ms"] = ratio
    return measured


def first_success(ping: "Callable[[str], object]", url: str) -> float:
    """Call the driver every 10 ms, and return when it has succeeded."""
    while True:
        try:
            ping(url)
        except Exception:  # noqa: BLE001 - the server is not ready yet
            time.sleep(0.01)
        else:
            return time.perf_counter()


def ping_postgres(url: str) -> None:
    """Connect to PostgreSQL."""
    psycopg.connect(url, connect_timeout=5).close()


def ping_redis(url: str) -> None:
    """Call Redis."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        client.ping()


def reuse_hit(rounds: int) -> Results:
    """Measure the reuse of a running container."""
    name = f"dockertest-bench-{os.getpid()}"
    with dockertest.Pool() as pool:
        kept = pool.run(BUSYBOX, name=name, cmd=SLEEP, reuse=True)
        values = [timed(lambda: pool.run(BUSYBOX, name=name, cmd=SLEEP, reuse=True)) for _ in range(rounds)]
        pool.purge(kept)
    return {"reuse hit": {"dockertest": summary(values)}}


def timed(call: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def migrate(url: str) -> None:
    """Create 100 tables with 20,000 rows in total."""
    with psycopg.connect(url) as connection:
        for number in range(100):
            connection.execute(
                f"CREATE TABLE t{number} (id serial PRIMARY KEY, name text NOT NULL, made timestamptz DEFAULT now())"
            )
            connection.execute(
                f"INSERT INTO t{number} (name) SELECT 'name ' || g FROM generate_series(1, 200) g"
            )


def clones(rounds: int) -> Results:
    """Measure creating and dropping a database cloned from a migrated template."""
    with (
        dockertest.Pool() as pool,
        TemplateDatabase(pool, migrate, repository=POSTGRES, tag=None) as template,
    ):
        made, dropped = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            database = template.clone()
            made.append(time.perf_counter() - began)
            psycopg.connect(database.url).close()
            dropped.append(timed(database.close))
        by_migrating = []
        with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as connection:
            for number in range(3):
                connection.execute(f"CREATE DATABASE plain{number}")
                url = template._clones.server.url(f"plain{number}")
                by_migrating.append(timed(partial(migrate, url)))
    return {
        "a database of 100 tables": {
            "clone": summary(made),
            "drop": summary(dropped),
            "migrated anew": summary(by_migrating),
        }
    }


def death(rounds: int) -> Results:
    """
    Measure the time from the exit of a container to the report.

    The time of the exit is that of the engine's clock.
    """
    sdk, pool = DockerSdk(), Ours().pool
    dying = ["sh", "-c", "sleep 0.3; echo no space; exit 3"]
    ours, raw = [], []
    for _ in range(rounds):
        with pool.run(BUSYBOX, cmd=dying) as container:
            try:
                container.retry(lambda: False)
            except dockertest.ContainerExitedError:
                reported = time.time()
            ours.append(reported - stamp(container.container.attrs["State"]["FinishedAt"]))
        plain = sdk.start(BUSYBOX, dying)
        while not (state := sdk.api.inspect_container(plain)["State"])["FinishedAt"].startswith("2"):
            time.sleep(0.01)
        raw.append(time.time() - stamp(state["FinishedAt"]))
        sdk.remove(plain)
    pool.close()
    return {"death to report": {"dockertest": summary(ours), "docker SDK": summary(raw)}}


class Laps:
    """A stopwatch with lap times."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call, or since the start."""
        before, self.last = self.last, time.perf_counter()
        return self.last - before


ALONE = ("started one by one", "closed one by one")
TOGETHER = ("started side by side", "closed side by side")


def many_raw(sdk: DockerSdk, threads: ThreadPoolExecutor, count: int, *, alone: bool) -> "dict[str, float]":
    """Start and remove containers with the docker SDK."""
    times: dict[str, float] = {}
    watch = Laps()
    if alone:
        ids = [start_raw(sdk) for _ in range(count)]
        times[ALONE[0]] = watch.lap()
        for container in ids:
            sdk.remove(container)
        times[ALONE[1]] = watch.lap()
    ids = list(threads.map(lambda _: start_raw(sdk), range(count)))
    times[TOGETHER[0]] = watch.lap()
    list(threads.map(sdk.remove, ids))
    times[TOGETHER[1]] = watch.lap()
    return times


def many_ours(count: int, *, alone: bool) -> "dict[str, float]":
    """Start and close containers with this library."""
    options = dockertest.RunOptions(repository=BUSYBOX, cmd=SLEEP)
    times: dict[str, float] = {}
    with dockertest.Pool() as pool:
        watch = Laps()
        if alone:
            started = [pool.run_with_options(options) for _ in range(count)]
            times[ALONE[0]] = watch.lap()
            for resource in started:
                resource.close()
            times[ALONE[1]] = watch.lap()
        pool.run_all([options] * count)
        times[TOGETHER[0]] = watch.lap()
        pool.close()
        times[TOGETHER[1]] = watch.lap()
    return times


def many(rounds: int, count: int = 20) -> Results:
    """
    Measure starting and closing many containers in threads.

    The first rounds also do this one by one.
    """
    sdk = DockerSdk()
    pairs: dict[str, list[tuple[float, float]]] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        for number in range(rounds):
            alone = number < 5
            if number % 2:
                raw = many_raw(sdk, threads, count, alone=alone)
                ours = many_ours(count, alone=alone)
            else:
                ours = many_ours(count, alone=alone)
                raw = many_raw(sdk, threads, count, alone=alone)
            for key, seconds in ours.items():
                pairs.setdefault(key, []).append((seconds, raw[key]))
    measured: Results = {"ratios": {}}
    for key, both in pairs.items():
        ours_all, raw_all = [a for a, _ in both], [b for _, b in both]
        measured[f"{count} containers {key}"] = {
            "docker SDK": summary(raw_all),
            "dockertest": summary(ours_all),
        }
        measured["ratios"][f"{count} containers {key}"] = statistics.median(a / b for a, b in both)
    return measured


def start_raw(sdk: DockerSdk) -> str:
    """Start a container and inspect it, which is required to get its ports."""
    container = sdk.start(BUSYBOX, SLEEP)
    sdk.api.inspect_container(container)
    return container


@contextmanager
def counted() -> "Iterator[list[str]]":
    """Record all HTTP requests of this process."""
    recorded: list[str] = []
    plain = requests.Session.send

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        recorded.append(f"{request.method} {request.path_url}")
        return plain(self, request, **options)

    requests.Session.send = send  # type: ignore[method-assign]
    try:
        yield recorded
    finally:
        requests.Session.send = plain  # type: ignore[method-assign]


def requests_of_a_run(_rounds: int) -> Results:
    """Count the requests for one server, from its start to its first connection."""
    measured = {}
    clients: list[Client] = [DockerSdk(), Testcontainers(), Ours()]
    for client in clients:
        client.postgres(["postgres"]).remove()
        with counted() as recorded:
            started = client.postgres(["postgres"])
        started.remove()
        inspections = sum(bool(re.match(r"GET \S+/containers/\w+/json", line)) for line in recorded)
        measured[client.name] = {
            "to start": float(len(recorded) - max(inspections - 1, 0)),
            "to watch": float(max(inspections - 1, 0)),
        }
    return {"requests": measured}


def imports(rounds: int) -> Results:
    """Measure the time of imports in addition to the start of Python."""
    programs = {
        "bare": "pass",
        "docker SDK": "import docker",
        "testcontainers": "from testcontainers.core.container import DockerContainer",
        "dockertest": "import dockertest",
        "dockertest with Pool": "from dockertest import Pool",
    }
    measured: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            measured[name].append(
                timed(
                    lambda p=program: subprocess.run(  # type: ignore[misc]
                        [sys.executable, "-W", "ignore", "-c", p], check=True, env=INSTALLED
                    )
                )
            )
    bare = statistics.median(measured.pop("bare"))
    return {
        "import, over bare Python": {
            k: summary([max(v - bare, 0) for v in values]) for k, values in measured.items()
        }
    }


SUITE = """
import time
from pathlib import Path
import psycopg, pytest, dockertest
from dockertest.postgres import TemplateDatabase
from tests.benchmarks.clients import FAST, MEMORY, PGDATA, POSTGRES, Testcontainers
from tests.benchmarks.measures import migrate

LOG = Path({log!r})

@pytest.fixture(scope="session")
def pool():
    with dockertest.Pool() as pool:
        yield pool

@pytest.fixture(scope="session")
def template(pool):
    with TemplateDatabase(pool, migrate, repository=POSTGRES, tag=None, reuse={reuse}, name={name!r}) as template:
        yield template

@pytest.fixture
def cloned(template):
    with template.clone() as database:
        yield database.url

@pytest.fixture
def started(pool):
    env = {{"POSTGRES_PASSWORD": "x", **PGDATA}}
    with pool.run(POSTGRES, env=env, cmd=FAST, tmpfs=MEMORY) as server:
        url = f"postgresql://postgres:x@{{server.get_host_port(5432)}}/postgres"
        server.retry(lambda: psycopg.connect(url)).close()
        migrate(url)
        yield url

@pytest.fixture
def other():
    server = Testcontainers().postgres(FAST, in_memory=True)
    migrate(server.url)
    yield server.url
    server.remove()

@pytest.mark.parametrize("number", range({count}))
def test_one(number, {fixture}):
    with LOG.open("a") as log:
        print(time.time(), file=log)
    with psycopg.connect({fixture}) as connection:
        assert connection.execute("SELECT count(*) FROM t7").fetchone() == (200,)
        connection.execute("INSERT INTO t7 (name) VALUES ('mine')")
"""


def suite(_rounds: int, count: int = 100) -> Results:
    """
    Measure a suite in which each test has its own migrated database.

    The database is in a new container, or it is a clone.
    """
    name = f"dockertest-bench-suite-{os.getpid()}"
    measured: dict[str, dict[str, float]] = {}
    try:
        measured["a clone a test, first run"] = run_suite("cloned", count, name)
        measured["a clone a test, server reused"] = run_suite("cloned", count, name)
        measured["a container a test"] = run_suite("started", count, name)
        measured["a container a test, testcontainers"] = run_suite("other", count, name)
    finally:
        with dockertest.Pool() as pool:
            pool.remove_container_by_name(name)
    ratio = (
        measured["a clone a test, first run"]["whole suite"] / measured["a container a test"]["whole suite"]
    )
    return {
        f"suite of {count} tests": measured,
        "ratios": {"suite with clones, of one with containers": ratio},
    }


def run_suite(fixture: str, count: int, name: str) -> "dict[str, float]":
    """
    Run the suite with pytest, and return its times in ms.

    These are the start of the first test and the durations of the last test and of the suite.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "first"
        test = Path(folder) / "test_suite.py"
        test.write_text(SUITE.format(log=str(log), reuse=True, name=name, count=count, fixture=fixture))
        began = time.time()
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(test)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**INSTALLED, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        ended = time.time()
        tests = [float(line) for line in log.read_text().split()]
        return {
            "first test after": (tests[0] - began) * 1000,
            "last test": (tests[-1] - tests[-2]) * 1000,
            "whole suite": (ended - began) * 1000,
        }


def memory() -> float:
    """Return the resident memory of this process in KB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e3


def growth(_rounds: int) -> Results:
    """Measure time and memory per item for growing numbers of items."""
    containers, databases = {}, {}
    options = dockertest.RunOptions(repository=BUSYBOX, cmd=SLEEP)
    with dockertest.Pool() as pool:
        pool.run_all([options] * THREADS)  # loads lazy imports and opens a connection per thread
    for count in (1, 10, 50, 100):
        with dockertest.Pool() as pool:
            before = memory()
            started = timed(lambda p=pool, n=count: p.run_all([options] * n))  # type: ignore[misc]
            grown = memory() - before
            closed = timed(pool.close)
            containers[str(count)] = {
                "start, each": started / count * 1000,
                "close, each": closed / count * 1000,
                "KB, each": grown / count,
            }
    with (
        dockertest.Pool() as pool,
        TemplateDatabase(pool, migrate, repository=POSTGRES, tag=None) as template,
    ):
        template.clone().close()
        for count in (1, 100, 1000):
            before = memory()
            times = []
            for _ in range(count):
                began = time.perf_counter()
                with template.clone():
                    pass
                times.append(time.perf_counter() - began)
            databases[str(count)] = {
                "clone and drop, each": statistics.median(times) * 1000,
                "of the last tenth": statistics.median(times[-max(1, count // 10) :]) * 1000,
                "KB, each": (memory() - before) / count,
            }
    return {"growth: containers": containers, "growth: clones": databases}


ALL: "dict[str, Callable[[int], Results]]" = {
    "connection": first_connection,
    "readiness": readiness,
    "reuse": reuse_hit,
    "clones": clones,
    "death": death,
    "many": many,
    "requests": requests_of_a_run,
    "imports": imports,
    "suite": suite,
    "prepared": prepared,
    "growth": growth,
    "reaper": reaper,
}
