"""
The tables of tested engines, generated from the results of test runs.

`make test-engines` writes the results and then runs this program, which updates the tables.

    python docs/extensions/engine_tables.py

writes them into their page, where they are also read without a build of the site.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent.parent / "reference"
RESULTS, PAGE = REFERENCE / "engines.json", REFERENCE / "engines.md"
_TABLES = re.compile(r"(?<=<!-- engines -->\n).*?(?=<!-- end -->)", re.DOTALL)


def insert(page: str) -> str:
    """Return the text of the page with the current tables between its markers."""
    return _TABLES.sub(lambda _: f"\n{markdown()}\n\n", page)


def markdown() -> str:
    """Return a table of the engines, and one of the reasons for skipped tests."""
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


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
