"""
Measure the cost of the reaper for the first and for later calls of `run`.

Pairs of processes run with and without it.
"""

import json
import statistics
import subprocess
import sys
from typing import Any

PROGRAM = """
import json, sys, time
import dockertest

times = []
with dockertest.Pool(reaper=sys.argv[1] == "with") as pool:
    pool.client.ping()
    for _ in range(4):
        began = time.perf_counter()
        resource = pool.run("busybox:1.35", cmd=["sleep", "600"])
        times.append((time.perf_counter() - began) * 1000)
        resource.close()
print(json.dumps(times))
"""


def times(mode: str) -> "list[float]":
    """
    Run a process that starts four containers, and return the durations in ms.

    The containers are started one after another.
    """
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], stdout=subprocess.PIPE, text=True, check=True
    )
    measured: list[float] = json.loads(ended.stdout)
    return measured


def reaper(rounds: int) -> "dict[str, Any]":
    """Measure pairs in alternating order, and return the median of their differences."""
    first: list[dict[str, float]] = []
    later: list[dict[str, float]] = []
    for number in range(rounds):
        modes = ("with", "without") if number % 2 else ("without", "with")
        pair = {mode: times(mode) for mode in modes}
        first.append({mode: measured[0] for mode, measured in pair.items()})
        later.append({mode: statistics.median(measured[1:]) for mode, measured in pair.items()})
    return {"reaper": {"first run of a process": compared(first), "later ones": compared(later)}}


def compared(pairs: "list[dict[str, float]]") -> "dict[str, float]":
    """Return the medians of both modes and of the differences within a pair."""
    return {
        "with": statistics.median(pair["with"] for pair in pairs),
        "without": statistics.median(pair["without"] for pair in pairs),
        "difference": statistics.median(pair["with"] - pair["without"] for pair in pairs),
    }
