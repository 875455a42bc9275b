"""What is measured, each in alternating rounds of the ways that are compared."""

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
from pathlib import Path
from typing import Any

import psycopg
import requests

import dockertest
from dockertest.postgres import TemplateDatabase

from .clients import BUSYBOX, POSTGRES, SLEEP, Client, Floor, Ours, Testcontainers
from .reaper import reaper

Results = dict[str, Any]
THREADS = 16
# As when installed by pip, which compiles everything; this library is imported from its source here.
INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def stamp(text: str) -> float:
    """Read the engine's clock: `2026-11-23T12:00:00.123456789Z`."""
    seconds, fraction = re.fullmatch(r"(.+?)(\.\d+)?Z", text).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(fraction or 0)


def summary(values: "list[float]", unit: float = 1000) -> "dict[str, float]":
    """Give median, mean and range, in milliseconds."""
    return {
        "median": statistics.median(values) * unit,
        "mean": statistics.fmean(values) * unit,
        "min": min(values) * unit,
        "max": max(values) * unit,
    }


def first_connection(rounds: int) -> Results:
    """
    From the call to the first connection.

    The server's own boot scatters by a fifth, so it is taken out by the engine's clock (the container's start and the
    server's word that it is ready) and one common median boot is put in its place. Each round holds the server back by
    a little more, up to the second that the slowest of them pauses, so that nobody's pauses fit by luck; that is no part of
    the boot.
    """
    clients: list[Client] = [Floor(), Testcontainers(), Ours()]
    floor = clients[0]
    assert isinstance(floor, Floor)
    totals: dict[str, list[float]] = {each.name: [] for each in clients}
    boots: dict[str, list[float]] = {each.name: [] for each in clients}
    for number in range(rounds + 1):
        held = number / max(rounds, 1)
        command = ["sh", "-c", f"sleep {held:.3f}; exec docker-entrypoint.sh postgres"]
        turn = number % len(clients)
        for client in clients[turn:] + clients[:turn]:
            started = client.postgres(command)
            began = stamp(floor.api.inspect_container(started.container)["State"]["StartedAt"])
            log = floor.api.logs(started.container, timestamps=True).decode().splitlines()
            ready = [line for line in log if "ready to accept connections" in line][-1]
            if number:  # the first one warms up what is loaded late
                totals[client.name].append(started.seconds - held)
                boots[client.name].append(stamp(ready.split()[0]) - began - held)
            started.remove()
    common = statistics.median([boot for each in boots.values() for boot in each])
    shares = {
        name: [total - boot + common for total, boot in zip(totals[name], boots[name], strict=True)]
        for name in totals
    }
    ours, other, raw = shares["dockertest"], shares["testcontainers"], shares["docker SDK"]
    return {
        "call to first connection, boot evened out": {name: summary(each) for name, each in shares.items()},
        "call to first connection, as it was": {name: summary(each) for name, each in totals.items()},
        "ratios": {
            "of the floor (median of pairs)": statistics.median(
                a / b for a, b in zip(ours, raw, strict=True)
            ),
            "of the floor (means)": statistics.fmean(ours) / statistics.fmean(raw),
            "of testcontainers (means)": statistics.fmean(ours) / statistics.fmean(other),
            "of testcontainers (means, as it was)": statistics.fmean(totals["dockertest"])
            / statistics.fmean(totals["testcontainers"]),
        },
        "boot": summary([boot for each in boots.values() for boot in each]),
    }


def reuse_hit(rounds: int) -> Results:
    """Taking a container that runs already."""
    name = f"dockertest-bench-{os.getpid()}"
    with dockertest.Pool() as pool:
        kept = pool.run(BUSYBOX, name=name, cmd=SLEEP, reuse=True)
        values = [timed(lambda: pool.run(BUSYBOX, name=name, cmd=SLEEP, reuse=True)) for _ in range(rounds)]
        pool.purge(kept)
    return {"reuse hit": {"dockertest": summary(values)}}


def timed(call: Callable[[], object]) -> float:
    """Give the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def migrate(url: str) -> None:
    """Make a hundred tables with 20,000 rows in all."""
    with psycopg.connect(url) as connection:
        for number in range(100):
            connection.execute(
                f"CREATE TABLE t{number} (id serial PRIMARY KEY, name text NOT NULL, made timestamptz DEFAULT now())"
            )
            connection.execute(
                f"INSERT INTO t{number} (name) SELECT 'name ' || g FROM generate_series(1, 200) g"
            )


def clones(rounds: int) -> Results:
    """A database of its own, from one migrated template."""
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
        with psycopg.connect(template._url("postgres"), autocommit=True) as connection:
            for number in range(3):
                connection.execute(f"CREATE DATABASE plain{number}")
                by_migrating.append(timed(lambda name=f"plain{number}": migrate(template._url(name))))  # type: ignore[misc]
    return {
        "a database of 100 tables": {
            "clone": summary(made),
            "drop": summary(dropped),
            "migrated anew": summary(by_migrating),
        }
    }


def death(rounds: int) -> Results:
    """From a container's death to the report of it, by the engine's clock."""
    floor, pool = Floor(), Ours().pool
    dying = ["sh", "-c", "sleep 0.3; echo no space; exit 3"]
    ours, raw = [], []
    for _ in range(rounds):
        with pool.run(BUSYBOX, cmd=dying) as container:
            try:
                container.retry(lambda: False)
            except dockertest.ContainerExitedError:
                told = time.time()
            ours.append(told - stamp(container.container.attrs["State"]["FinishedAt"]))
        plain = floor.start(BUSYBOX, dying)
        while not (state := floor.api.inspect_container(plain)["State"])["FinishedAt"].startswith("2"):
            time.sleep(0.01)
        raw.append(time.time() - stamp(state["FinishedAt"]))
        floor.remove(plain)
    pool.close()
    return {"death to report": {"dockertest": summary(ours), "docker SDK": summary(raw)}}


class Laps:
    """A stop watch: the seconds since it was asked last."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        """Give them, and begin anew."""
        before, self.last = self.last, time.perf_counter()
        return self.last - before


ALONE = ("started one by one", "closed one by one")
TOGETHER = ("started side by side", "closed side by side")


def many_raw(floor: Floor, threads: ThreadPoolExecutor, count: int, *, alone: bool) -> "dict[str, float]":
    """Start and remove them with the docker SDK."""
    times: dict[str, float] = {}
    watch = Laps()
    if alone:
        ids = [start_raw(floor) for _ in range(count)]
        times[ALONE[0]] = watch.lap()
        for each in ids:
            floor.remove(each)
        times[ALONE[1]] = watch.lap()
    ids = list(threads.map(lambda _: start_raw(floor), range(count)))
    times[TOGETHER[0]] = watch.lap()
    list(threads.map(floor.remove, ids))
    times[TOGETHER[1]] = watch.lap()
    return times


def many_ours(count: int, *, alone: bool) -> "dict[str, float]":
    """Start and close them with this library."""
    options = dockertest.RunOptions(repository=BUSYBOX, cmd=SLEEP)
    times: dict[str, float] = {}
    with dockertest.Pool() as pool:
        watch = Laps()
        if alone:
            started = [pool.run_with_options(options) for _ in range(count)]
            times[ALONE[0]] = watch.lap()
            for each in started:
                each.close()
            times[ALONE[1]] = watch.lap()
        pool.run_all([options] * count)
        times[TOGETHER[0]] = watch.lap()
        pool.close()
        times[TOGETHER[1]] = watch.lap()
    return times


def many(rounds: int, count: int = 20) -> Results:
    """Containers started and closed: by as many threads as ours uses, and in the first rounds one by one as well."""
    floor = Floor()
    pairs: dict[str, list[tuple[float, float]]] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        for number in range(rounds):
            alone = number < 5
            if number % 2:
                raw = many_raw(floor, threads, count, alone=alone)
                ours = many_ours(count, alone=alone)
            else:
                ours = many_ours(count, alone=alone)
                raw = many_raw(floor, threads, count, alone=alone)
            for key, seconds in ours.items():
                pairs.setdefault(key, []).append((seconds, raw[key]))
    found: Results = {"ratios": {}}
    for key, both in pairs.items():
        ours_all, raw_all = [a for a, _ in both], [b for _, b in both]
        found[f"{count} containers {key}"] = {"docker SDK": summary(raw_all), "dockertest": summary(ours_all)}
        found["ratios"][f"{count} containers {key}"] = statistics.median(a / b for a, b in both)
    return found


def start_raw(floor: Floor) -> str:
    """Start a container and ask what has become of it, as one needs to for its ports."""
    container = floor.start(BUSYBOX, SLEEP)
    floor.api.inspect_container(container)
    return container


@contextmanager
def counted() -> "Iterator[list[str]]":
    """Count the requests of this process, whoever makes them."""
    asked: list[str] = []
    plain = requests.Session.send

    def send(self: requests.Session, request: requests.PreparedRequest, **given: Any) -> requests.Response:
        asked.append(f"{request.method} {request.path_url}")
        return plain(self, request, **given)

    requests.Session.send = send  # type: ignore[method-assign]
    try:
        yield asked
    finally:
        requests.Session.send = plain  # type: ignore[method-assign]


def requests_of_a_run(_rounds: int) -> Results:
    """Requests for one server, from its start to its first connection."""
    found = {}
    clients: list[Client] = [Floor(), Testcontainers(), Ours()]
    for client in clients:
        client.postgres(["postgres"]).remove()
        with counted() as asked:
            started = client.postgres(["postgres"])
        started.remove()
        looks = sum(bool(re.match(r"GET \S+/containers/\w+/json", each)) for each in asked)
        found[client.name] = {
            "to start": float(len(asked) - max(looks - 1, 0)),
            "to watch": float(max(looks - 1, 0)),
        }
    return {"requests": found}


def imports(rounds: int) -> Results:
    """What an import costs over bare Python."""
    programs = {
        "bare": "pass",
        "docker SDK": "import docker",
        "testcontainers": "from testcontainers.core.container import DockerContainer",
        "dockertest": "import dockertest",
        "dockertest with Pool": "from dockertest import Pool",
    }
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            found[name].append(
                timed(
                    lambda p=program: subprocess.run(  # type: ignore[misc]
                        [sys.executable, "-W", "ignore", "-c", p], check=True, env=INSTALLED
                    )
                )
            )
    bare = statistics.median(found.pop("bare"))
    return {
        "import, over bare Python": {
            k: summary([max(v - bare, 0) for v in each]) for k, each in found.items()
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
    """A suite of tests, each with a migrated database of its own: a container each, or a clone each."""
    name = f"dockertest-bench-suite-{os.getpid()}"
    found: dict[str, dict[str, float]] = {}
    try:
        found["a clone a test, first run"] = run_suite("cloned", count, name)
        found["a clone a test, server reused"] = run_suite("cloned", count, name)
        found["a container a test"] = run_suite("started", count, name)
        found["a container a test, testcontainers"] = run_suite("other", count, name)
    finally:
        with dockertest.Pool() as pool:
            pool.remove_container_by_name(name)
    ratio = found["a clone a test, first run"]["whole suite"] / found["a container a test"]["whole suite"]
    return {
        f"suite of {count} tests": found,
        "ratios": {"suite with clones, of one with containers": ratio},
    }


def run_suite(fixture: str, count: int, name: str) -> "dict[str, float]":
    """Run the suite by pytest; give when its first test began and what its last one and all of it took, in milliseconds."""
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
        tests = [float(each) for each in log.read_text().split()]
        return {
            "first test after": (tests[0] - began) * 1000,
            "last test": (tests[-1] - tests[-2]) * 1000,
            "whole suite": (ended - began) * 1000,
        }


def memory() -> float:
    """Give the memory of this process, in KB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e3


def growth(_rounds: int) -> Results:
    """Time and memory per item, as there are more of them."""
    containers, databases = {}, {}
    options = dockertest.RunOptions(repository=BUSYBOX, cmd=SLEEP)
    with dockertest.Pool() as pool:
        pool.run_all([options] * THREADS)  # what is loaded late, and a connection for each thread
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
    "reuse": reuse_hit,
    "clones": clones,
    "death": death,
    "many": many,
    "requests": requests_of_a_run,
    "imports": imports,
    "suite": suite,
    "growth": growth,
    "reaper": reaper,
}
