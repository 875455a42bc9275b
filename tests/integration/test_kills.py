"""
Processes that end at random moments leave nothing behind.

CI runs a few of the rounds of `make soak`.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

import dockertest

from .conftest import Engine

# Prints its session immediately, then starts three servers and a network, and waits until the servers respond.
PROGRAM = """
import sys, time
import dockertest, psycopg
pool = dockertest.Pool()
print(pool._runtime.session.id, flush=True)
network = pool.create_network()
volume = pool.create_volume()
options = dockertest.RunOptions(
    repository="postgres", tag="15", env={"POSTGRES_PASSWORD": "secret"}, networks=[network],
    mounts=[(volume, "/shared")]
)
for server in pool.run_all([options] * 3):
    url = f"postgresql://postgres:secret@{server.get_host_port(5432)}/postgres?connect_timeout=5"
    server.retry(lambda: psycopg.connect(url)).close()
print("ready", flush=True)
time.sleep(600)
"""
ENDING = "import threading, os; threading.Timer(float(sys.argv[1]), os._exit, [3]).start()\n"


@dataclass
class Round:
    """The moment when a process was ended, and the result."""

    moment: float
    session: str = ""
    ready: bool = False
    seconds: float = 0.0
    leftovers: list[str] = field(default_factory=list)


def run_round(engine: Engine, how: "signal.Signals | None", moment: float) -> Round:
    """Start a process, end it *moment* seconds later, and wait for the cleanup."""
    result = Round(moment)
    code = PROGRAM if how else "import sys\n" + ENDING + PROGRAM
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(moment)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    if how:
        time.sleep(moment)  # The moment is the subject of the test.
        started.send_signal(how)
    output, _ = started.communicate(timeout=60)
    died = time.monotonic()
    result.session, _, rest = output.partition("\n")
    result.ready = "ready" in rest
    if result.session:
        label = f"dockertest.session={result.session}"

        def is_removed() -> bool:
            networks = engine.client.api.networks(filters={"label": [label]})
            shared = engine.client.api.volumes(filters={"label": [label]})["Volumes"] or []
            result.leftovers = engine.labelled(label) + [network["Id"] for network in networks]
            result.leftovers += [volume["Name"] for volume in shared]
            return not result.leftovers

        # Check again two seconds later, since the engine may still complete earlier requests.
        try:
            dockertest.retry(is_removed, max_wait=60)
            result.seconds = time.monotonic() - died
            dockertest.retry(lambda: is_removed() and time.monotonic() - died > 2, max_wait=60)
        except dockertest.RetryTimeoutError:
            result.seconds = time.monotonic() - died
    return result


def volumes(engine: Engine) -> set[str]:
    """
    Return the anonymous volumes that no container uses.

    Other users may own the used ones.
    """
    unused = engine.client.api.volumes(filters={"dangling": True})["Volumes"] or []
    return {volume["Name"] for volume in unused if re.fullmatch("[0-9a-f]{64}", volume["Name"])}


def run_rounds(engine: Engine, how: "signal.Signals | None", count: int) -> list[Round]:
    """
    Run *count* rounds while another session stays alive.

    Check that the other session keeps its containers, and print the seed.
    """
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    with dockertest.Pool() as bystander:
        kept = bystander.run("busybox:1.35", cmd=["sleep", "3600"])
        before = volumes(engine)
        done = [run_round(engine, how, chance.uniform(0.05, 5)) for _ in range(count)]
        assert engine.has(kept.id), "a living session lost its container"
        # Each of them has to disappear, but not all at the same time: other tests have volumes, too.
        left = volumes(engine) - before
        dockertest.retry(lambda: not left & volumes(engine), max_wait=60)
    times = sorted(result.seconds for result in done)
    print(
        json.dumps(
            {
                "rounds": count,
                "ready": sum(result.ready for result in done),
                "seconds": [round(t, 2) for t in times],
            }
        )
    )
    return done


def check_results(results: list[Round]) -> None:
    """Check that everything is removed within a minute, even on a busy machine."""
    assert [result for result in results if result.leftovers] == []
    assert max(result.seconds for result in results) < 60


def check_seconds(results: list[Round]) -> None:
    """
    Check that everything is removed within 15 s of the end.

    At most 5 % of the rounds plus one may take 5 s or longer.
    """
    assert max(result.seconds for result in results) < 15
    assert sum(result.seconds < 5 for result in results) >= 0.95 * len(results) - 1


WAYS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None]


@pytest.mark.parametrize("how", WAYS, ids=["SIGKILL", "SIGTERM", "SIGINT", "os._exit"])
def test_some_random_ends_leave_nothing_behind(engine: Engine, how: "signal.Signals | None") -> None:
    """A few of the rounds of `make soak`."""
    check_results(run_rounds(engine, how, 6 if how is signal.SIGKILL else 2))


@pytest.mark.soak
@pytest.mark.parametrize("how", WAYS, ids=["SIGKILL", "SIGTERM", "SIGINT", "os._exit"])
def test_many_random_ends_leave_nothing_behind(engine: Engine, how: "signal.Signals | None") -> None:
    """Two hundred kills, and fifty of each other kind."""
    results = run_rounds(engine, how, 200 if how is signal.SIGKILL else 50)
    check_results(results)
    check_seconds(results)


@pytest.mark.soak
def test_the_conformance_tests_pass_twenty_times() -> None:
    """They pass each time."""
    for index in range(20):
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/integration/test_conformance.py"],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ended.returncode == 0, f"run {index + 1}: {ended.stdout}"
