"""The figures as a picture."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

mpl.rcParams["svg.fonttype"] = "none"  # text as text: a tenth of the size

COLOURS = {"docker SDK": "#9aa5b1", "testcontainers": "#e0a458", "dockertest": "#2a6f97"}


def bars(axes: Any, title: str, rows: "dict[str, float]", unit: str) -> None:
    """Draw one group of bars, each with its figure."""
    names, values = list(rows), list(rows.values())
    colours = [COLOURS.get(name.rpartition(", ")[2], "#61a5c2") for name in names]
    drawn = axes.barh(names, values, color=colours)
    axes.bar_label(drawn, labels=[f" {value:,.0f} {unit}" for value in values], fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.25)
    tidy(axes)


def tidy(axes: Any) -> None:
    """Leave out what tells nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def lines(axes: Any, title: str, rows: "dict[str, dict[str, float]]") -> None:
    """Draw how cost grows with the number of items."""
    counts = [int(each) for each in rows]
    for key in next(iter(rows.values())):
        axes.plot(counts, [each[key] for each in rows.values()], marker="o", label=key)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{each:,}" for each in counts])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(fontsize=7, frameon=False)
    tidy(axes)


def draw(results: "dict[str, Any]", path: Path) -> None:
    """Draw all that the README shows."""
    figure, grid = plt.subplots(4, 2, figsize=(10, 11), layout="constrained")
    means = {
        name: each["mean"] for name, each in results["call to first connection, boot evened out"].items()
    }
    bars(grid[0][0], "PostgreSQL: call to first connection", means, "ms")
    suites = {name: each["whole suite"] / 1000 for name, each in results["suite of 100 tests"].items()}
    bars(grid[0][1], "100 tests, a migrated database each", suites, "s")
    clones = {name: each["median"] for name, each in results["a database of 100 tables"].items()}
    bars(grid[1][0], "a database of 100 tables, 20,000 rows", clones, "ms")
    side = results["20 containers started side by side"]
    bars(grid[1][1], "20 containers started side by side", {k: v["median"] for k, v in side.items()}, "ms")
    told = {name: each["median"] for name, each in results["death to report"].items()}
    bars(grid[2][0], "death of a container to its report", told, "ms")
    imports = {name: each["median"] for name, each in results["import, over bare Python"].items()}
    bars(grid[2][1], "import, over bare Python", imports, "ms")
    lines(grid[3][0], "cost per container, of 1 to 100 (ms, KB)", results["growth: containers"])
    lines(grid[3][1], "cost per clone, of 1 to 1,000 (ms, KB)", results["growth: clones"])
    told_of = results["versions"]
    figure.suptitle(
        f"{told_of['engine']}, {told_of['cores']} cores; docker SDK {told_of['docker']}, "
        f"testcontainers {told_of['testcontainers']} without its sidecar",
        fontsize=9,
    )
    figure.savefig(path)
