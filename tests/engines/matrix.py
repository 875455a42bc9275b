"""
Run the integration tests with each engine and print what came of it: `make test-engines`.

An engine passes only if every test that was collected passed there, or was skipped for a reason that lies on the engine
(`tests/integration/differences.py`) or the machine and says so: one that did not run, or skipped otherwise, fails. What pytest
says goes to files beside the engines.

    python -m tests.engines.matrix [ENGINE…] [-- ARGUMENTS FOR PYTEST]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import dockertest
from tests.engines import ensure, others
from tests.images import make

DEFAULT = "default"
LONGEST = 3600.0  # seconds that one engine may take
SKIPS = ("engine: ", "machine: ")  # how the reason of a skip begins that is known, and says on what it lies


@dataclass(kw_only=True)
class Row:
    """What came of one engine; the counts are of tests."""

    engine: str
    version: str = "did not answer"
    collected: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def executed(self) -> int:
        """How many tests did something."""
        return self.counts["passed"] + self.counts["failed"]

    @property
    def holds(self) -> bool:
        """Whether all that was collected passed, but for what has a named reason, which is the lesser part."""
        named = sum(count for reason, count in self.reasons.items() if reason.startswith(SKIPS))
        accounted = self.counts["passed"] + named == self.collected
        return accounted and self.executed > 0.9 * self.collected

    def __str__(self) -> str:
        counts = "".join(f"{self.counts[each]:>9}" for each in ("passed", "failed", "skipped"))
        verdict = "holds" if self.holds else f"FAILS: {self.executed} of {self.collected} tests ran"
        return f"{self.engine:<14}{self.version:<24}{counts}{self.seconds:>8.0f} s  {verdict}"


def main() -> int:
    """Run the tests, and print the table."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    names, arguments = sys.argv[1:end], sys.argv[end + 1 :]
    asked = names or [DEFAULT, *(each.name for each in others.OTHERS)]
    chosen = {each.name: each for each in others.choose([each for each in asked if each != DEFAULT])}
    others.STORE.mkdir(parents=True, exist_ok=True)
    with dockertest.Pool() as pool:
        prefix = make.provide(pool, make.NEEDED, os.environ.get("DOCKERTEST_IMAGE_PREFIX", ""))
    os.environ |= {"DOCKERTEST_IMAGE_PREFIX": prefix, "DOCKERTEST_REQUIRED": "1"}
    collected = collect(arguments)
    rows = []
    for name in asked:
        rows.append(test(name, chosen.get(name), collected, arguments))
        print(rows[-1], flush=True)
    print(f"\n{'engine':<14}{'version':<24}{'passed':>9}{'failed':>9}{'skipped':>9}{'time':>10}")
    for row in rows:
        print(row)
        for reason, count in sorted(row.reasons.items()):
            print(f"    {count} skipped: {reason}")
    return 0 if all(row.holds for row in rows) else 1


def pytest(*arguments: str) -> list[str]:
    """Give the command of the tests."""
    return [sys.executable, "-m", "pytest", "tests/integration", "-q", *arguments]


def collect(arguments: list[str]) -> int:
    """Count the tests that there are, without an engine."""
    done = subprocess.run(pytest("--collect-only", *arguments), capture_output=True, text=True, check=False)
    found = re.search(r"^(\d+)(?:/\d+)? tests? collected", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(f"no tests: {done.stdout}{done.stderr}")
    return int(found[1])


def test(name: str, other: others.Other | None, collected: int, arguments: list[str]) -> Row:
    """Run the tests with one engine."""
    row = Row(engine=name, collected=collected)
    environment = {**os.environ, **(other.environ if other else {})}
    before = other.prefix if other else []
    try:
        row.version = version(other)
    except dockertest.DockertestError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return row
    report, log = others.STORE / f"{name}.xml", others.STORE / f"{name}.txt"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("w") as file:
        try:
            subprocess.run(
                [*before, *pytest(f"--junit-xml={report}", *arguments)],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: not done within {LONGEST:g} s; {log}", file=sys.stderr)
    row.seconds = time.monotonic() - began
    if report.exists():
        count(row, report)
    for line in log.read_text().splitlines():
        if line.startswith(("FAILED", "ERROR")):
            print(f"  {line}", flush=True)
    return row


def version(other: others.Other | None) -> str:
    """Say which engine answers; `DockertestError` if none does."""
    with others.pool(other) if other else dockertest.Pool() as pool:
        return ensure.name_of(pool)


def count(row: Row, report: Path) -> None:
    """Read pytest's report; an error before or after a test is a failure, whatever the test itself did."""
    outcomes: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        key = (case.get("classname", ""), case.get("name", ""))
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcomes[key] = "failed"
        elif skipped is not None:
            outcomes[key] = "skipped"
            row.reasons[skipped.get("message", "")] += 1
        else:
            outcomes.setdefault(key, "passed")
    row.counts.update(outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
