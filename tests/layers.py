"""
Draw the layers of pyproject.toml into CONTRIBUTING.md.

    python -m tests.layers
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


# The title of each layer, keyed by its first module.
TITLES = {
    "__main__": "for one audience each",
    "embedding": "for integrations",
    "_pool": "what users hold",
    "_resource": "what a pool hands out",
    "services": "known services",
    "_containers": "one container",
    "_runtime": "what a pool lends",
    "_images": "images",
    "_cleanup": "ownership and removal",
    "_engine": "the connection to the engine",
    "_options": "options and retries",
    "errors": "errors, values, tools",
}


def draw(pyproject: str) -> str:
    """Return a mermaid flowchart of the layers, the topmost first."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    present = [module_names(layer) for layer in layers]
    nodes = [
        f'    {number}["<b>{TITLES[names[0]]}</b><br/>{", ".join(names)}"]'
        for number, names in enumerate(present)
    ]
    arrow = "    " + " --> ".join(str(number) for number in range(len(present)))
    return "\n".join(["```mermaid", "flowchart TB", *nodes, arrow, "```"])


def module_names(layer: str) -> list[str]:
    """Return the modules of a layer, without the optional ones."""
    return [name.strip() for name in re.split("[|:]", layer) if "(" not in name]


def main() -> None:
    """Replace the diagram in CONTRIBUTING.md."""
    guide = ROOT / "CONTRIBUTING.md"
    picture = draw((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = re.sub(
        r"```mermaid\n.*?```", lambda _: picture, guide.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    guide.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
