"""
Run the integration tests with each engine, and print a table of results.

`make test-engines` runs it. An engine passes only if every collected test passed or was skipped for a documented
reason: a difference of the engine (`tests/integration/differences.py`) or a limit of the machine. A test that did not
run, or was skipped for another reason, counts as a failure. The output of pytest goes to files next to the engines, and
the results of complete runs to `docs/reference/engines.json` and `engines.md`.

    python -m tests.engines.matrix [ENGINE…] [-- ARGUMENTS FOR PYTEST]
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
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

RESULTS = Path(__file__).parents[2] / "docs/reference/engines.json"
LONGEST = 3600.0  # seconds for all tests with one engine
SKIPS = ("engine: ", "machine: ")  # documented reasons for a skip begin with one of these


@dataclass(kw_only=True)
class Row:
    """The results of one engine, as numbers of tests."""

    engine: str
    version: str = "did not answer"
    collected: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def executed(self) -> int:
        """The number of tests that ran."""
        return self.counts["passed"] + self.counts["failed"]

    @property
    def holds(self) -> bool:
        """Whether all tests passed, except for a small part with a documented reason."""
        named = sum(count for reason, count in self.reasons.items() if reason.startswith(SKIPS))
        accounted = self.counts["passed"] + named == self.collected
        return accounted and self.executed > 0.85 * self.collected

    def __str__(self) -> str:
        counts = "".join(f"{self.counts[outcome]:>9}" for outcome in ("passed", "failed", "skipped"))
        verdict = "holds" if self.holds else f"FAILS: {self.executed} of {self.collected} tests ran"
        return f"{self.engine:<14}{self.version:<24}{counts}{self.seconds:>8.0f} s  {verdict}"


def main() -> int:
    """Run the tests, and print the table."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    names, arguments = sys.argv[1:end], sys.argv[end + 1 :]
    requested = names or [others.DEFAULT, *(other.name for other in others.OTHERS)]
    chosen = {other.name: other for other in others.choose(requested)}
    others.STORE.mkdir(parents=True, exist_ok=True)
    with dockertest.Pool() as pool:
        prefix = make.provide(pool, make.NEEDED, os.environ.get("DOCKERTEST_IMAGE_PREFIX", ""))
    os.environ |= {"DOCKERTEST_IMAGE_PREFIX": prefix, "DOCKERTEST_REQUIRED": "1"}
    collected, tested = collect(arguments), commit()
    rows = []
    for name in requested:
        rows.append(test(name, chosen.get(name), collected, arguments))
        print(rows[-1], flush=True)
        if not arguments and rows[-1].executed:
            store(entry(rows[-1], chosen.get(name), tested))
    print(f"\n{'engine':<14}{'version':<24}{'passed':>9}{'failed':>9}{'skipped':>9}{'time':>10}")
    for row in rows:
        print(row)
        for reason, count in sorted(row.reasons.items()):
            print(f"    {count} skipped: {reason}")
    return 0 if all(row.holds for row in rows) else 1


def commit() -> str:
    """
    Return the commit, marked as dirty if files have been changed since.

    Changes of the results themselves do not count.
    """
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", ".", f":(exclude){RESULTS.parent}/engines.*"], check=False
    )
    return head.stdout.strip() + ("-dirty" if changed.returncode else "")


def entry(row: Row, other: others.Other | None, tested: str) -> dict[str, object]:
    """Return a row as it is stored for the documentation."""
    return {
        "engine": row.engine,
        "version": row.version,
        "reached": {"tls": "remote, TLS", "tcp": "remote, TCP"}[other.scheme]
        if other and other.scheme != "unix"
        else "unix socket",
        "passed": row.counts["passed"],
        "failed": row.counts["failed"] + row.collected - row.counts.total(),
        "skipped": dict(sorted(row.reasons.items())),
        "commit": tested,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def store(entry: dict[str, object], results: Path = RESULTS) -> None:
    """Put the results in the place of earlier ones of the same engine."""
    known = json.loads(results.read_text()) if results.exists() else []
    rows = {row["engine"]: row for row in [*known, entry]}
    order = [others.DEFAULT, *(other.name for other in others.OTHERS)]
    sorted_rows = sorted(rows.values(), key=lambda row: order.index(row["engine"]))
    results.write_text(json.dumps(sorted_rows, indent=2) + "\n")
    subprocess.run([sys.executable, RESULTS.parents[1] / "extensions/engine_tables.py"], check=True)


def pytest(*arguments: str) -> list[str]:
    """Return the command that runs the tests."""
    return [sys.executable, "-m", "pytest", "tests/integration", "-q", *arguments]


def parallel() -> list[str]:
    """
    Return the arguments of pytest-xdist from the environment.

    The Makefile passes them.
    """
    return shlex.split(os.environ.get("PARALLEL", ""))


def collect(arguments: list[str]) -> int:
    """Return the number of tests, which needs no engine."""
    done = subprocess.run(pytest("--collect-only", *arguments), capture_output=True, text=True, check=False)
    summary = re.search(r"^(\d+)(?:/\d+)? tests? collected", done.stdout, re.MULTILINE)
    if not summary:
        raise SystemExit(f"no tests: {done.stdout}{done.stderr}")
    return int(summary[1])


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
                [*before, *pytest(f"--junit-xml={report}", *parallel(), *arguments)],
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
    """Return which engine answers, or raise `DockertestError`."""
    with others.pool(other) if other else dockertest.Pool() as pool:
        return ensure.name_of(pool)


def count(row: Row, report: Path) -> None:
    """
    Count the results in pytest's report.

    An error in set-up or teardown is a failure.
    """
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
