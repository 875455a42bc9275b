"""
Measure this library beside the docker SDK and testcontainers-python: `make bench`.

Prints text, and writes the same as JSON and as a picture beside this file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import dockertest

from . import picture
from .clients import versions
from .measures import ALL

HERE = Path(__file__).parent


def show(results: "dict[str, Any]") -> None:
    """Print the figures, a line each."""
    for title, rows in results.items():
        print(f"\n{title}")
        for name, figures in rows.items():
            if isinstance(figures, dict):
                told = "  ".join(f"{key} {value:,.1f}" for key, value in figures.items())
                print(f"  {name:34} {told}")
            else:
                print(
                    f"  {name:50} {figures:.3f}" if isinstance(figures, float) else f"  {name:34} {figures}"
                )


def main() -> None:
    """Run what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="make bench", description="times are in milliseconds")
    parser.add_argument("what", nargs="*", choices=[*ALL, []], help="by default all of it")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    with dockertest.Pool() as pool:
        results: dict[str, Any] = {"versions": versions(pool)}
    show(results)
    for name in given.what or ALL:
        found = ALL[name](given.rounds)
        show(found)
        ratios = {**results.get("ratios", {}), **found.pop("ratios", {})}
        results |= found | {"ratios": ratios}
    if not given.what:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        picture.draw(results, HERE / "results.svg")


if __name__ == "__main__":
    main()
