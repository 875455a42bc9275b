"""
Write the class `RunFields` in `dockertest/_options.py` from `RunOptions`.

Run it as `python -m tests.run_fields`. A type checker needs the keywords of `Pool.run` spelled out in a TypedDict, and
editors show a keyword's own docstring. A new option is therefore written once, as a field of `RunOptions` with an entry
in its docstring; this script adds it to `RunFields`.
"""

import ast
import inspect
import re
from pathlib import Path

from dockertest import _options

PATH = Path(inspect.getsourcefile(_options) or "")
OWN_ARGUMENTS = ("repository", "tag", "env")  # of Pool.run, which has a docstring for them

HEADER = '''\
class RunFields(TypedDict, total=False):
    """
    The keywords of `Pool.run`, each with the sentences that editors show.

    Written by `python -m tests.run_fields`.
    """
'''


def descriptions(docstring: str) -> dict[str, str]:
    """Return the description of each attribute in a class's docstring, on one line."""
    _, _, attributes = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    entries = re.split(r"^ {4}(\w+): ", attributes, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}


def class_node(source: str, name: str) -> ast.ClassDef:
    """Return the syntax tree of a class in a module."""
    (node,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
    )
    return node


def run_fields(source: str) -> str:
    """Return the source of `RunFields` for the `RunOptions` in a module's source."""
    options = class_node(source, "RunOptions")
    described = descriptions(ast.get_docstring(options) or "")
    lines = [
        f'\n    {field.target.id}: {ast.unparse(field.annotation)}\n    """{described[field.target.id]}"""\n'
        for field in options.body
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and field.target.id not in OWN_ARGUMENTS
    ]
    return HEADER + "".join(lines)


def updated(source: str) -> str:
    """Return a module's source with `RunFields` generated from its `RunOptions`."""
    node = class_node(source, "RunFields")
    lines = source.splitlines(keepends=True)
    return "".join([*lines[: node.lineno - 1], run_fields(source), *lines[node.end_lineno :]])


if __name__ == "__main__":
    text = PATH.read_text(encoding="utf-8")
    PATH.write_text(updated(text), encoding="utf-8")
