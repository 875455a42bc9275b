"""
Simulate how long a test run takes on several engines.

The result is compared with the best that any placement could reach.

    python -m tests.benchmarks.makespan

64 workers take 2,000 tests from one queue, as with `pytest -n 64 --dist worksteal`. Each test starts a container on the
engine of its worker, which `DOCKERTEST_ENDPOINTS` determines. A test needs processor time there, shared with the others
that run on it, and some time in which it only waits. The rows differ in how the workers find their engines:

- workers: pytest-xdist numbers them, as in one run.
- jobs: each is a CI job with an id of its own, so that a hash decides.
- slow: as workers, and one engine has half of the speed.
"""

import heapq
import random
from collections.abc import Sequence
from statistics import median

from dockertest._settings import placement

CONTAINERS, WORKERS, CORES = 2000, 64, 4
ENGINES = (1, 2, 4, 8, 16, 32)
# A PostgreSQL container with its test: about a second of processor time, and as long again in waits.
PROCESSOR_SECONDS, WAIT_SECONDS, SIGMA = 1.0, 1.0, 0.7
ROUNDS = 5

Job = tuple[float, float]  # seconds of waiting, seconds of processor time


class Engine:
    """A machine whose jobs share its cores equally."""

    def __init__(self, speed: float) -> None:
        """Begin without any work."""
        self._speed, self._time, self._served = speed, 0.0, 0.0
        self._running: list[
            tuple[float, int]
        ] = []  # what each one will have been served at its end, and its worker

    def _rate(self) -> float:
        return self._speed * min(1.0, CORES / len(self._running)) if self._running else 0.0

    def advance(self, now: float) -> None:
        """Serve all that runs until *now*."""
        self._served += (now - self._time) * self._rate()
        self._time = now

    def add(self, worker: int, seconds: float) -> None:
        """Begin to serve a worker's job."""
        heapq.heappush(self._running, (self._served + seconds, worker))

    def next_end(self) -> float:
        """Return when the next job ends if no other begins before."""
        if not self._running:
            return float("inf")
        return self._time + max(0.0, self._running[0][0] - self._served) / self._rate()

    def finish(self) -> int:
        """Remove the job that ends now, and return its worker."""
        return heapq.heappop(self._running)[1]


def makespan(jobs: Sequence[Job], engine_of: Sequence[int], speeds: Sequence[float]) -> float:
    """Return when the last of the jobs ends, if each worker uses one engine."""
    engines = [Engine(speed) for speed in speeds]
    left = list(reversed(jobs))
    waiting: list[tuple[float, int, float]] = []  # when a worker's wait ends, and the processor time after it
    now = 0.0

    def take(worker: int) -> None:
        if left:
            wait, processor = left.pop()
            heapq.heappush(waiting, (now + wait, worker, processor))

    for worker in range(len(engine_of)):
        take(worker)
    while True:
        ends = [engine.next_end() for engine in engines]
        next_end, next_start = min(ends), waiting[0][0] if waiting else float("inf")
        if min(next_end, next_start) == float("inf"):
            return now
        now = min(next_end, next_start)
        for engine in engines:
            engine.advance(now)
        if next_start <= next_end:
            _, worker, processor = heapq.heappop(waiting)
            engines[engine_of[worker]].add(worker, processor)
        else:
            take(engines[ends.index(next_end)].finish())


def ideal(jobs: Sequence[Job], speeds: Sequence[float]) -> float:
    """Return a time that no placement can beat."""
    processor = sum(job[1] for job in jobs) / (CORES * sum(speeds))
    workers = sum(sum(job) for job in jobs) / WORKERS
    return max(processor, workers, *map(sum, jobs))


def engines_of(names: Sequence[dict[str, str]], count: int) -> list[int]:
    """Return the engine of each process as the package chooses it."""
    return [placement(environ) % count for environ in names]


def main() -> None:
    """Print a table in Markdown."""
    workers = [{"PYTEST_XDIST_WORKER": f"gw{number}"} for number in range(WORKERS)]
    print("| engines | ideal | workers | jobs | slow |\n| --- | --- | --- | --- | --- |")
    for count in ENGINES:
        even, slow = [1.0] * count, [0.5] + [1.0] * (count - 1)
        times: dict[str, list[float]] = {"ideal": [], "workers": [], "jobs": [], "slow": []}
        for seed in range(ROUNDS):
            source = random.Random(seed)
            jobs = [
                (
                    WAIT_SECONDS * source.lognormvariate(0, SIGMA),
                    PROCESSOR_SECONDS * source.lognormvariate(0, SIGMA),
                )
                for _ in range(CONTAINERS)
            ]
            ids = [{"DOCKERTEST_RUN_ID": f"job-{source.randrange(10**6)}"} for _ in range(WORKERS)]
            best = ideal(jobs, even)
            times["ideal"].append(best)
            times["workers"].append(makespan(jobs, engines_of(workers, count), even) / best)
            times["jobs"].append(makespan(jobs, engines_of(ids, count), even) / best)
            times["slow"].append(makespan(jobs, engines_of(workers, count), slow) / ideal(jobs, slow))
        ratios = " | ".join(f"{median(times[name]):.2f}" for name in ("workers", "jobs", "slow"))
        print(f"| {count} | {median(times['ideal']):.0f} s | {ratios} |")


if __name__ == "__main__":
    main()
