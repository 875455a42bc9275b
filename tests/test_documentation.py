"""
Rules about the README and the pages in docs.

They concern links, length, and the completeness of the reference.
"""

import hashlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from dockertest import errors

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/dockertest-py/dockertest-py/blob/main/"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs is not next to these tests")


@pytest.mark.parametrize("name", ["known_services", "engine_tables"])
def test_generated_tables_are_current(name: str) -> None:
    """
    Pages are also read where the site is not built.

    `python docs/extensions/NAME.py` writes the tables.
    """
    module = runpy.run_path(str(DOCS / "extensions" / f"{name}.py"))
    page = module["PAGE"].read_text(encoding="utf-8")
    assert module["insert"](page) == page
    assert module["markdown"]() in page


def pages() -> list[Path]:
    """Return the README and all pages."""
    return [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub derives them."""
    text = prose(page)
    if page == DOCS / "index.md":  # includes most of it
        text += prose(ROOT / "README.md")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the target and the anchor of each link to a file of the repository."""
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if page.name == "README.md" and link.startswith(REPOSITORY):
            path, _, anchor = link.removeprefix(REPOSITORY).partition("#")
            yield ROOT / path, anchor
        elif not link.startswith(("http://", "https://", "mailto:")):
            path, _, anchor = link.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path) -> None:
    """Links to files and headings of this repository are not broken."""
    broken = [
        f"{path.relative_to(ROOT)}#{anchor}"
        for path, anchor in links(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]
    assert broken == []


def test_the_links_of_the_readme_are_absolute() -> None:
    """The package index shows the README, too."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((?!https://|#)([^)]+)\)", text) == []


def test_the_readme_links_to_every_page() -> None:
    """Each page except the generated reference can be found from the README."""
    linked = {path for path, _ in links(ROOT / "README.md")}
    expected = {page for page in pages()[1:] if page.parent.name != "reference" and page.name != "index.md"}
    assert sorted(expected - linked) == []


def test_excerpts_are_parts_of_the_examples() -> None:
    """
    A block marked `py` is in a file that the tests run.

    `python` marks blocks that are run on their own.
    """
    examples = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("examples/**/*.py"))]
    blocks = [
        block
        for page in pages()
        for block in re.findall(
            r"^```py\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
    ]
    assert blocks
    assert [block for block in blocks if not any(block in example for example in examples)] == []


def test_the_readme_is_short() -> None:
    """Details belong on the pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1300
    assert len(text.splitlines()) <= 150


def test_the_reference_lists_every_error() -> None:
    """Each error of the package has a row in the table, and there are no other rows."""
    text = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    defined = {name for name in vars(errors) if name.endswith("Error")} - {"DockertestError"}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == defined


def test_every_diagram_is_drawn_from_its_current_source() -> None:
    """Run `python docs/diagrams/render.py` after changing a source."""
    sources = sorted((DOCS / "diagrams").glob("*.dot"))
    assert [path.with_suffix(".svg") for path in sources] == sorted((DOCS / "diagrams").glob("*.svg"))
    for source in sources:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        assert f'data-source="{digest}"' in source.with_suffix(".svg").read_text(encoding="utf-8")


def test_the_reference_lists_every_option_of_the_command_line() -> None:
    """The page has the options that the program defines, and no others."""
    program = (Path(dockertest.__file__).parent / "_cli" / "main.py").read_text(encoding="utf-8")
    defined = set(re.findall(r'"(--[a-z]+)"', program)) - {"--help", "--version"}
    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`[^`]*?(--[a-z]+)[^`]*`", page)) - {"--jetstream"} == defined
