"""Processes that are ended at random moments leave nothing: a tenth of the rounds in CI, all of them by `make soak`."""

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

# Prints its session as soon as there is one, then starts three servers and a network and waits until they answer.
PROGRAM = """
import sys, time
import dockertest, psycopg
pool = dockertest.Pool()
print(pool._session_id, flush=True)
network = pool.create_network()
options = dockertest.RunOptions(
    repository="postgres", tag="15", env={"POSTGRES_PASSWORD": "secret"}, networks=[network]
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
    """How one process was ended, and what came of it."""

    moment: float
    session: str = ""
    ready: bool = False
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)


def end_one(engine: Engine, how: "signal.Signals | None", moment: float) -> Round:
    """Start a process, end it *moment* seconds later, and wait until nothing is left of it."""
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
        time.sleep(moment)  # the moment is what is tested
        started.send_signal(how)
    said, _ = started.communicate(timeout=60)
    died = time.monotonic()
    result.session, _, rest = said.partition("\n")
    result.ready = "ready" in rest
    if result.session:
        label = f"dockertest.session={result.session}"

        def gone() -> bool:
            networks = engine.client.api.networks(filters={"label": [label]})
            result.left = engine.labelled(label) + [each["Id"] for each in networks]
            return not result.left

        # Gone is gone only when the engine had the time to finish what it was asked for.
        try:
            dockertest.retry(gone, max_wait=20)
            result.seconds = time.monotonic() - died
            dockertest.retry(lambda: gone() and time.monotonic() - died > 2, max_wait=20)
        except dockertest.RetryTimeoutError:
            result.seconds = time.monotonic() - died
    return result


def volumes(engine: Engine) -> set[str]:
    """Give the anonymous volumes that no container uses: what somebody else is just using is not ours."""
    unused = engine.client.api.volumes(filters={"dangling": True})["Volumes"] or []
    return {each["Name"] for each in unused if re.fullmatch("[0-9a-f]{64}", each["Name"])}


def rounds(engine: Engine, how: "signal.Signals | None", count: int) -> list[Round]:
    """Do so many rounds beside a living session, which keeps everything; the seed is printed."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    with dockertest.Pool() as bystander:
        kept = bystander.run("busybox:1.35", cmd=["sleep", "3600"])
        before = volumes(engine)
        done = [end_one(engine, how, chance.uniform(0.05, 5)) for _ in range(count)]
        assert engine.has(kept.id), "a living session lost its container"
        dockertest.retry(lambda: not volumes(engine) - before, max_wait=10)
    times = sorted(each.seconds for each in done)
    print(
        json.dumps(
            {
                "rounds": count,
                "ready": sum(each.ready for each in done),
                "seconds": [round(t, 2) for t in times],
            }
        )
    )
    return done


def hold(done: list[Round]) -> None:
    """Nothing left; within 5 s of the death in 95 of 100, within 15 s always."""
    assert [each for each in done if each.left] == []
    assert max(each.seconds for each in done) < 15
    assert sum(each.seconds < 5 for each in done) >= 0.95 * len(done) - 1


WAYS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None]


@pytest.mark.parametrize("how", WAYS, ids=["SIGKILL", "SIGTERM", "SIGINT", "os._exit"])
def test_a_few_random_ends_leave_nothing(engine: Engine, how: "signal.Signals | None") -> None:
    """A tenth of what `make soak` does."""
    hold(rounds(engine, how, 20 if how is signal.SIGKILL else 5))


@pytest.mark.soak
@pytest.mark.parametrize("how", WAYS, ids=["SIGKILL", "SIGTERM", "SIGINT", "os._exit"])
def test_many_random_ends_leave_nothing(engine: Engine, how: "signal.Signals | None") -> None:
    """Two hundred kills, fifty of each other kind."""
    hold(rounds(engine, how, 200 if how is signal.SIGKILL else 50))


@pytest.mark.soak
def test_the_conformance_tests_pass_twenty_times() -> None:
    """What holds once, holds again."""
    for index in range(20):
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/integration/test_conformance.py"],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ended.returncode == 0, f"run {index + 1}: {ended.stdout}"
