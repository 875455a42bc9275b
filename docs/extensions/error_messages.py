"""
The page with all error messages, generated from the source code.

The messages are those of the calls that create errors.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import dockertest
from dockertest import errors

PACKAGE = Path(dockertest.__file__).parent
MARKER = "<!-- messages -->"
_PLACEHOLDER = re.compile("\ue001(.*?)\ue002")
# Better words than the names of variables.
_WORDS = {
    **dict.fromkeys(("chain", "get", "lower", "strerror", "strip", "words"), "reason"),
    **dict.fromkeys(("evidence", "lines", "outputs"), "evidence"),
    **dict.fromkeys(("annotations", "config", "healthcheck_keys"), "names"),
    "file_limit": "limit",
    "find_config_file": "file",
    "hint": "depends on the reason",
    "inspection": "container",
    "label": "container",
    "self": "object",
    "socket_path_bytes": "number",
    "split": "name",
}


@dataclass(frozen=True, order=True)
class Message:
    """A message, its hint, and the class of the error."""

    error: str
    text: str
    hint: str


def messages() -> list[Message]:
    """Return all messages, in the order of the classes in the error module."""
    order = [name for name in vars(errors) if name.endswith("Error")]
    found = {message for path in PACKAGE.rglob("*.py") for message in _messages_of(path)}
    return sorted(found, key=lambda message: (order.index(message.error), message.text.lower(), message))


def markdown() -> str:
    """Return a section for each class, with a table of its messages."""
    by_error: dict[str, list[Message]] = defaultdict(list)
    for message in messages():
        by_error[message.error].append(message)
    sections = []
    for error, rows in by_error.items():
        table = "".join(f"| {_cell(row.text)} | {_cell(row.hint)} |\n" for row in rows)
        sections.append(f"## {error}\n\n| message | hint |\n| --- | --- |\n{table}")
    return "\n".join(sections)


def insert(page: str) -> str:
    """Return the text of a page with the tables in place of the marker."""
    return page.replace(MARKER, markdown()) if MARKER in page else page


def _cell(text: str) -> str:
    """
    Return the cell of a table in HTML, which Markdown accepts.

    Placeholders are emphasized.
    """
    text = escape(" ".join(text.replace(":\ue001", ": \ue001").split()), quote=False)
    text = re.sub(r"([|*_`\[\]\\~{}$])", lambda match: f"&#{ord(match[1])};", text)
    return _PLACEHOLDER.sub(r"<em>\1</em>", text)


def _messages_of(path: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        error = node.func.id if isinstance(node.func, ast.Name) else ""
        error = "EngineError" if error == "error" else error  # the class is a parameter, with this default
        if not error.endswith("Error") or error not in vars(errors):
            continue
        inside = [item for item in functions if item.lineno <= node.lineno <= (item.end_lineno or 0)]
        hints = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
        reader = _Reader(tree, inside[-1] if inside else None)
        text = reader.read(node.args[0])
        # A message that consists of a placeholder alone is made elsewhere, or by the engine.
        if _PLACEHOLDER.sub("", text).strip(" \n:"):
            yield Message(error, text, reader.read(hints[0]) if hints else "")


class _Reader:
    """Converts an expression into the text that it evaluates to, with placeholders."""

    def __init__(self, module: ast.Module, function: ast.AST | None) -> None:
        self._variables = _assignments(module.body) | (_assignments(ast.walk(function)) if function else {})
        self._open: set[str] = set()  # variables that are being read

    def read(self, node: ast.expr) -> str:
        """Return the text of an expression."""
        match node:
            case ast.Constant():
                return "" if node.value is None else str(node.value)
            case ast.JoinedStr():
                return "".join(map(self.read, node.values))
            case ast.FormattedValue():
                return self.read(node.value)
            case ast.BinOp(op=ast.Add()):
                return self.read(node.left) + self.read(node.right)
            case ast.BoolOp():
                return self.read(node.values[0])
            case ast.IfExp():
                return " / ".join(filter(None, (self.read(node.body), self.read(node.orelse))))
            case ast.Name(id="failed"):
                return f"cannot {_placeholder('what')}: "
            case ast.Name(id=name) if name not in self._open and _is_text(self._variables.get(name)):
                self._open.add(name)
                text = self.read(self._variables[name])
                self._open.remove(name)
                return text
        return _placeholder(_name(node))


def _is_text(node: ast.expr | None) -> bool:
    return isinstance(node, (ast.Constant, ast.JoinedStr, ast.IfExp))


def _placeholder(name: str) -> str:
    return f"\ue001{_WORDS.get(name, name).replace('_', ' ')}\ue002"


def _assignments(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Return the values of the names that are assigned once."""
    values: dict[str, list[ast.expr]] = defaultdict(list)
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id].append(node.value)
    return {name: found[0] for name, found in values.items() if len(found) == 1}


def _name(node: ast.expr) -> str:
    """Return a word for the value of an expression."""
    if isinstance(node, ast.Name):
        return node.id.strip("_").lower()
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, (ast.Subscript, ast.Await, ast.Starred)):
        return _name(node.value)
    if isinstance(node, ast.BinOp):
        return _name(node.left)
    if isinstance(node, ast.Call):
        named = [
            argument for argument in node.args if not isinstance(argument, (ast.Constant, ast.GeneratorExp))
        ]
        if named and not isinstance(named[0], ast.Lambda):
            return _name(named[0])
        return _name(node.func)
    return "…"
