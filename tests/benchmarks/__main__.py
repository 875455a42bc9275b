"""
Compare this library with the docker SDK and testcontainers-python.

`make bench` runs it. It prints the results, and writes them to this folder as JSON and as a chart.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import dockertest

from . import picture
from .clients import versions
from .measures import ALL as MEASURES
from .workers import shared_server

ALL = {**MEASURES, "workers": shared_server}

HERE = Path(__file__).parent


def show(results: "dict[str, Any]") -> None:
    """Print one line per result."""
    for title, rows in results.items():
        print(f"\n{title}")
        for name, figures in rows.items():
            if isinstance(figures, dict):
                columns = "  ".join(f"{key} {value:,.1f}" for key, value in figures.items())
                print(f"  {name:34} {columns}")
            else:
                print(
                    f"  {name:50} {figures:.3f}" if isinstance(figures, float) else f"  {name:34} {figures}"
                )


def main() -> None:
    """Run the selected benchmarks, by default all."""
    parser = argparse.ArgumentParser(prog="make bench", description="times are in milliseconds")
    parser.add_argument("what", nargs="*", choices=[*ALL, []], help="benchmarks to run, by default all")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with dockertest.Pool() as pool:
        results: dict[str, Any] = {"versions": versions(pool)}
    show(results)
    for name in arguments.what or ALL:
        measured = ALL[name](arguments.rounds)
        show(measured)
        ratios = {**results.get("ratios", {}), **measured.pop("ratios", {})}
        results |= measured | {"ratios": ratios}
    if not arguments.what:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        picture.draw(results, HERE / "results.svg")


if __name__ == "__main__":
    main()
