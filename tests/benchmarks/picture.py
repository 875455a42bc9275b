"""A chart of the results."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

mpl.rcParams["svg.fonttype"] = "none"  # text instead of outlines, which makes the file ten times smaller

COLOURS = {"docker SDK": "#9aa5b1", "testcontainers": "#e0a458", "dockertest": "#2a6f97"}


def bars(axes: Any, title: str, rows: "dict[str, float]", unit: str) -> None:
    """Draw one group of labelled bars."""
    names, values = list(rows), list(rows.values())
    colours = [COLOURS.get(name.rpartition(", ")[2], "#61a5c2") for name in names]
    drawn = axes.barh(names, values, color=colours)
    axes.bar_label(drawn, labels=[f" {value:,.0f} {unit}" for value in values], fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.25)
    tidy(axes)


def tidy(axes: Any) -> None:
    """Remove the spines that carry no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def lines(axes: Any, title: str, rows: "dict[str, dict[str, float]]") -> None:
    """Draw the cost as a function of the number of items."""
    counts = [int(count) for count in rows]
    for key in next(iter(rows.values())):
        axes.plot(counts, [row[key] for row in rows.values()], marker="o", label=key)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(fontsize=7, frameon=False)
    tidy(axes)


def draw(results: "dict[str, Any]", path: Path) -> None:
    """Draw the chart in docs/benchmarks.md."""
    figure, grid = plt.subplots(5, 2, figsize=(10, 14), layout="constrained")
    means = {name: row["mean"] for name, row in results["call to first connection, boot evened out"].items()}
    bars(grid[0][0], "PostgreSQL: call to first connection", means, "ms")
    suites = {name: row["whole suite"] / 1000 for name, row in results["suite of 100 tests"].items()}
    bars(grid[0][1], "100 tests, a migrated database each", suites, "s")
    clones = {name: row["median"] for name, row in results["a database of 100 tables"].items()}
    bars(grid[1][0], "a database of 100 tables, 20,000 rows", clones, "ms")
    side = results["20 containers started side by side"]
    bars(grid[1][1], "20 containers started side by side", {k: v["median"] for k, v in side.items()}, "ms")
    reports = {name: row["median"] for name, row in results["death to report"].items()}
    bars(grid[2][0], "death of a container to its report", reports, "ms")
    imports = {name: row["median"] for name, row in results["import, over bare Python"].items()}
    bars(grid[2][1], "import, over bare Python", imports, "ms")
    fresh = {name: row["median"] for name, row in results["fresh migrated server"].items()}
    bars(grid[3][0], "a fresh migrated server, 100 tables, to its first query", fresh, "ms")
    taken = {name: row["median"] for name, row in results["standby.take() to first query"].items()}
    bars(grid[3][1], "standby.take() to the first query", taken, "ms")
    lines(grid[4][0], "cost per container, of 1 to 100 (ms, KB)", results["growth: containers"])
    lines(grid[4][1], "cost per clone, of 1 to 1,000 (ms, KB)", results["growth: clones"])
    versions = results["versions"]
    figure.suptitle(
        f"{versions['engine']}, {versions['cores']} cores; docker SDK {versions['docker']}, "
        f"testcontainers {versions['testcontainers']} without its sidecar",
        fontsize=9,
    )
    figure.savefig(path)
