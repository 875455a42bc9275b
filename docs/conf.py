"""
Configuration of Sphinx, which `make docs` runs.

It builds the site without network.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import metadata  # noqa: TID253 - this is not part of the package
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.builders.text import TextBuilder
from sphinx.domains.python import PyObject
from sphinx.writers.text import TextTranslator

import dockertest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

import error_messages  # noqa: E402 - from the folder above

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REPOSITORY = "https://github.com/dockertest-py/dockertest-py/blob/main"
SUMMARY = metadata("dockertest-py")["Summary"]
COLON = "\ue000"  # a private code point that stands for a colon

project = "dockertest"
version = release = dockertest.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_attr_annotations = False  # the signature has the types
napoleon_use_ivar = True  # fields are listed in the docstring of their class, not as members
add_module_names = False
python_maximum_signature_line_length = 88
html_theme = "furo"
html_title = f"dockertest {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False


def restore_modules() -> None:
    """
    Set the module of each public class to the one that defines it.

    With it, autodoc finds the source and keeps the order of the members. Tracebacks show `dockertest.Pool` instead,
    because `__module__` is changed when the class is created.
    """
    for home, names in dockertest._HOMES.items():  # noqa: SLF001 - the only list of them
        module = import_module(f"dockertest.{home}")
        for name in names:
            defined = getattr(module, name)
            if isinstance(defined, type):
                defined.__module__ = module.__name__


def convert_markup(
    _app: object, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """
    Convert code spans in docstrings from Markdown to reStructuredText.

    Names become links.
    """

    def convert(match: re.Match[str]) -> str:
        code, following = match["code"], match["following"]
        is_name = re.fullmatch(r"[A-Za-z_][\w.]*(\(\))?", code)
        markup = f":py:obj:`{code}`" if is_name else f"``{code}``"
        return markup + ("\\ " + following if following else "")

    text = re.sub(r"(?<!`)`(?P<code>[^`]+)`(?!`)(?P<following>\w?)", convert, "\n".join(lines))
    lines[:] = text.split("\n")
    # napoleon would take the text before a colon in the first line for the type of an attribute.
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(":", COLON)


def restore_colons(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Undo what `convert_markup` hides from napoleon."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def show_defaults(
    _app: object,
    _what: str,
    _name: str,
    _obj: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """
    Replace defaults that are not valid Python.

    Sphinx cannot parse a signature that contains them.
    """
    if signature:
        signature = re.sub(r"<class '(\w+)'>", r"\1", signature).replace("<factory>", "{}")
    return signature, returns


def link_to_repository(_app: object, name: str, source: list[str]) -> None:
    """
    Convert links to files outside of this folder to links to the repository.

    The sources have relative links, for GitHub.
    """
    folder = (HERE / name).parent

    def convert(match: re.Match[str]) -> str:
        path = (folder / match["path"]).resolve()
        if path.is_relative_to(HERE):
            return match[0]
        return f"{match['text']}({REPOSITORY}/{path.relative_to(HERE.parent)}{match['anchor'] or ''})"

    link = r"(?<!!)(?P<text>\[[^\]]*\])\((?P<path>\.\./[^)#]*)(?P<anchor>#[^)]*)?\)"
    source[0] = re.sub(link, convert, source[0])


def insert_tables(_app: object, _name: str, source: list[str]) -> None:
    """
    Insert the generated table of messages.

    The tables of services and engines are in their files.
    """
    source[0] = error_messages.insert(source[0])


def link_to_pages(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """
    Convert the README's links to pages into links within the site.

    They are absolute for the package index.
    """
    for link in doctree.findall(nodes.reference):
        path, _, anchor = link.get("refuri", "").partition("#")
        page = path.removeprefix(f"{REPOSITORY}/docs/").removesuffix(".md")
        if page in app.env.titles:
            link["refuri"] = app.builder.get_relative_uri(name, page) + (f"#{anchor}" if anchor else "")
            link["internal"] = True


def inline_diagrams(app: Sphinx, doctree: nodes.document, _name: str) -> None:
    """
    Insert the diagrams into the pages as SVG elements.

    The colours of an image element cannot follow the theme.
    """
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        file = HERE / image["uri"]
        if file.parent == HERE / "diagrams":
            svg = file.read_text(encoding="utf-8")
            image.replace_self(nodes.raw("", f'<span class="diagram">{svg}</span>', format="html"))


def write_llms_txt(app: Sphinx, failure: Exception | None) -> None:
    """
    Write llms.txt and llms-full.txt for assistants.

    llms.txt is the list of all pages, and llms-full.txt is their text.
    """
    if failure or app.builder.format != "html":
        return
    names = [name for name in app.env.toctree_includes["index"] if name in app.env.titles]
    pages = "".join(f"- [{app.env.titles[name].astext()}]({name}.html)\n" for name in names)
    index = (
        f"# {project} {release}\n\n> {SUMMARY}\n\n## Pages\n\n{pages}- [All pages as text](llms-full.txt)\n"
    )
    text = "\n".join(page_text(app, name) for name in ["index", *names])
    out = Path(app.outdir)
    (out / "llms.txt").write_text(index, encoding="utf-8")
    (out / "llms-full.txt").write_text(text, encoding="utf-8")


def page_text(app: Sphinx, name: str) -> str:
    """
    Return the text of a page.

    This is its source, or the rendered result if the source has directives of the reference.
    """
    source = Path(app.env.doc2path(name)).read_text(encoding="utf-8")
    source = error_messages.insert(source)
    readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
    start = readme.partition("# dockertest\n")[2].partition("## Documentation")[0]
    source = re.sub(r"^```{include}.*?^```\n", lambda _: start, source, flags=re.MULTILINE | re.DOTALL)
    if "{eval-rst}" not in source:
        return re.sub(r"^```{toctree}.*?^```\n", "", source, flags=re.MULTILINE | re.DOTALL)
    builder = TextBuilder(app, app.env)
    builder.init()
    doctree = app.env.get_and_resolve_doctree(name, builder)
    for table in doctree.findall(nodes.tgroup):  # a cell is not broken into lines
        rows = [row.children for row in table.findall(nodes.row)]
        for column, cells in zip(table.findall(nodes.colspec), zip(*rows, strict=True), strict=True):
            column["colwidth"] = max(len(cell.astext()) for cell in cells) + 4
    translator = TextTranslator(doctree, builder)
    translator.document.walkabout(translator)
    return translator.body


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the functions above, and call fields what the docstrings call them."""
    restore_modules()
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", convert_markup, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", restore_colons, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", show_defaults)
    app.connect("source-read", link_to_repository)
    app.connect("source-read", insert_tables)
    app.connect("doctree-resolved", link_to_pages)
    app.connect("doctree-resolved", inline_diagrams)
    app.connect("build-finished", write_llms_txt)
    return {"parallel_read_safe": True}
