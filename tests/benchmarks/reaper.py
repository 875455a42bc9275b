"""What the reaper adds to the first `run` of a process and to later ones, in pairs of processes with and without it."""

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


def times(way: str) -> "list[float]":
    """Run a process that starts four containers in turn; give the milliseconds that each took."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, way], stdout=subprocess.PIPE, text=True, check=True
    )
    found: list[float] = json.loads(ended.stdout)
    return found


def reaper(rounds: int) -> "dict[str, Any]":
    """Measure pairs, each in turn beginning with the one and the other; of the differences the median counts."""
    first: list[dict[str, float]] = []
    later: list[dict[str, float]] = []
    for number in range(rounds):
        ways = ("with", "without") if number % 2 else ("without", "with")
        pair = {way: times(way) for way in ways}
        first.append({way: found[0] for way, found in pair.items()})
        later.append({way: statistics.median(found[1:]) for way, found in pair.items()})
    return {"reaper": {"first run of a process": compared(first), "later ones": compared(later)}}


def compared(pairs: "list[dict[str, float]]") -> "dict[str, float]":
    """Give the medians, and that of the differences within a pair."""
    return {
        "with": statistics.median(each["with"] for each in pairs),
        "without": statistics.median(each["without"] for each in pairs),
        "difference": statistics.median(each["with"] - each["without"] for each in pairs),
    }
