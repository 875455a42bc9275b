"""
Draw the diagrams of the documentation with the program dot of graphviz.

    python docs/diagrams/render.py

The SVG files are committed, so that GitHub shows them and `make docs` needs no graphviz. Colours are CSS variables, which
follow the theme of the page. A test compares the digest of each source with the one in its drawing.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULTS = [
    "-Gbgcolor=transparent", "-Gfontname=sans-serif", "-Gfontsize=12", "-Gpad=0.05",
    "-Gcolor=#333333", "-Gfontcolor=#222222", "-Gstyle=rounded",
    "-Nshape=box", "-Nstyle=rounded,filled", "-Nfontname=sans-serif", "-Nfontsize=13", "-Nheight=0.4",
    "-Ncolor=#333333", "-Nfillcolor=#eeeeee", "-Nfontcolor=#111111", "-Nmargin=0.15,0.08",
    "-Efontname=sans-serif", "-Efontsize=12", "-Ecolor=#333333", "-Efontcolor=#222222", "-Earrowsize=0.7",
]  # fmt: skip
COLOURS = {
    "#111111": "var(--diagram-text)",
    "#222222": "var(--diagram-label)",
    "#333333": "var(--diagram-line)",
    "#eeeeee": "var(--diagram-box)",
}
# The page may set its own colours; an image element has those of the reader's system.
STYLE = """<style>
svg { --diagram-text: #1f2328; --diagram-label: #4a5058; --diagram-line: #6e7781; --diagram-box: #eef2f6 }
@media (prefers-color-scheme: dark) {
svg { --diagram-text: #e6edf3; --diagram-label: #b6bec8; --diagram-line: #8b949e; --diagram-box: #21262d }
}
</style>"""


def digest(source: Path) -> str:
    """Return what identifies the content of a source."""
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def draw(source: Path) -> str:
    """Return the drawing of a source."""
    command = ["dot", "-Tsvg", *DEFAULTS, str(source)]
    svg = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - no user input
    title = svg.split("<title>")[1].split("</title>")[0]
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<title>.*?</title>\n|<!--.*?-->\n", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[^"]*"', "", svg)
    for colour, variable in COLOURS.items():
        svg = re.sub(rf'(fill|stroke)="{colour}"', rf'style="\1: {variable}"', svg)
    svg = re.sub(r'style="(fill: [^"]*)" style="(stroke: [^"]*)"', r'style="\1; \2"', svg)
    opening = f'<svg role="img" data-source="{digest(source)}"'
    return svg.replace("<svg", opening, 1).replace(">\n", f">\n<title>{title}</title>\n{STYLE}\n", 1)


def main() -> None:
    """Draw all."""
    for source in sorted(FOLDER.glob("*.dot")):
        source.with_suffix(".svg").write_text(draw(source), encoding="utf-8")


if __name__ == "__main__":
    main()
