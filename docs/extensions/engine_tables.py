"""The tables of tested engines, generated from the results of `make test-engines`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "reference" / "engines.json"
MARKER = "<!-- engines -->"


def insert(page: str) -> str:
    """Return the text of a page with the tables in place of the marker."""
    return page.replace(MARKER, markdown()) if MARKER in page else page


def markdown() -> str:
    """Return a table of the engines, and one of the reasons for which tests were skipped."""
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    if not rows:
        return "There are no results of this version yet."
    lines = [
        "| engine | how it is reached | passed | failed | skipped | commit | date |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (row["version"], row["reached"], row["passed"], row["failed"], sum(row["skipped"].values()))
        lines.append(f"| {' | '.join(map(str, cells))} | `{row['commit']}` | {row['date']} |")
    names = [f"{row['version']}, {row['reached']}" for row in rows]
    lines += ["", f"| why tests were skipped | {' | '.join(names)} |", f"| --- |{' --- |' * len(rows)}"]
    for reason in sorted({reason for row in rows for reason in row["skipped"]}):
        counts = [str(row["skipped"].get(reason, "")) for row in rows]
        lines.append(f"| {reason} | {' | '.join(counts)} |")
    return "\n".join(lines)
