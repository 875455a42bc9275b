"""Compare one server for all pytest-xdist workers with a server for each worker."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from .clients import DockerSdk
from .measures import INSTALLED, Results

SUITE = """
import psycopg, pytest, dockertest
from dockertest.postgres import TemplateDatabase
from tests.benchmarks.clients import POSTGRES
from tests.benchmarks.measures import migrate

@pytest.fixture(scope="session")
def template():
    with dockertest.Pool() as pool, TemplateDatabase(
        pool, migrate, repository=POSTGRES, tag=None, shared={shared}, labels={{"dockertest-bench": {label!r}}}
    ) as template:
        yield template

@pytest.mark.parametrize("number", range({count}))
def test_one(number, template):
    with template.clone() as database, psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT count(*) FROM t7").fetchone() == (200,)
        connection.execute("INSERT INTO t7 (name) VALUES ('mine')")
"""


def shared_server(rounds: int, count: int = 100, workers: int = 4) -> Results:
    """
    Measure a suite by several workers in which each test has a database.

    The results are its duration and the memory of its servers.
    """
    measured: dict[str, dict[str, float]] = {}
    for number in range(min(rounds, 3)):
        for shared in (True, False) if number % 2 else (False, True):
            name = "one server for all workers" if shared else "one server for each worker"
            figures = _run(shared=shared, count=count, workers=workers)
            kept = measured.setdefault(name, figures)
            # The least disturbed round; the number of servers is always the same.
            measured[name] = figures if figures["whole suite"] < kept["whole suite"] else kept
    shared_figures, own = measured["one server for all workers"], measured["one server for each worker"]
    return {
        f"suite of {count} tests by {workers} workers": measured,
        "ratios": {
            "shared server, of one for each worker: time": shared_figures["whole suite"] / own["whole suite"],
            "shared server, of one for each worker: memory": shared_figures["MB"] / own["MB"],
        },
    }


def _run(*, shared: bool, count: int, workers: int) -> dict[str, float]:
    """
    Run the suite, and return its duration in ms and its use of memory.

    The latter is the most memory that its containers had at a time.
    """
    label = f"{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test_suite.py"
        test.write_text(SUITE.format(shared=shared, label=label, count=count))
        done = threading.Event()
        most: list[tuple[float, int]] = [(0.0, 0)]
        watcher = threading.Thread(target=_watch, args=(label, done, most))
        watcher.start()
        began = time.time()
        try:
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    f"-n{workers}",
                    "-p",
                    "no:cacheprovider",
                    "-c",
                    os.devnull,
                    test,
                ],
                check=True,
                stdout=subprocess.DEVNULL,
                env={**INSTALLED, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            ended = time.time()
        finally:
            done.set()
            watcher.join()
    return {
        "whole suite": (ended - began) * 1000,
        "MB": max(megabytes for megabytes, _ in most),
        "servers": max(servers for _, servers in most),
    }


def _watch(label: str, done: threading.Event, most: list[tuple[float, int]]) -> None:
    """Add up the memory of the containers with a label, until it is enough."""
    api: Any = DockerSdk().api
    while not done.wait(0.3):
        used = []
        for container in api.containers(filters={"label": f"dockertest-bench={label}"}):
            try:
                stats = api.stats(container["Id"], stream=False, one_shot=True)
            except Exception:  # noqa: BLE001 - the container is gone, or has not begun
                continue
            used.append(stats["memory_stats"].get("usage", 0) / 1e6)
        most.append((sum(used), len(used)))
