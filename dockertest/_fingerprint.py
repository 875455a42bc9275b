"""
Identify the function that fills a database, so that its result can be reused.

A stored result stands for another run of the same function. A fingerprint is the same in every process and on every run
as long as the function's code, the values that are bound to it and the files that it depends on are the same. Nothing
is executed.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from types import CodeType, MethodType

from dockertest import _validation
from dockertest._containers import archive
from dockertest.errors import InvalidOptionError


def fingerprint(function: object, version: object) -> str:
    """
    Return a hash of everything that requires a new result.

    Args:
        function: What produces the result.
        version: A `str` counts as it is; a path, by the content of the file or folder; or several of both.

    Raises:
        InvalidOptionError: *version* is something else, or a path does not exist.
    """
    parts = [_describe_callable(function, []), *map(_describe_version, _version_parts(version))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def describe_origin(function: object, version: object) -> str:
    """
    Describe where a function and its files are, without their content.

    Results with the same origin are versions of each other; those of two folders, or of one function with two sets of
    arguments, are not. A path in the closure of a function does not make a difference, since it may be a temporary one: only
    the result for the last one stays.
    """
    arguments: list[object] = []
    while isinstance(function, functools.partial):
        arguments.append((function.args, function.keywords))
        function = function.func
    arguments += _owners(function)
    arguments += [(name, value) for name, value in _constants(function) if not isinstance(value, PurePath)]
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    paths = [os.fspath(part) for part in _version_parts(version) if not isinstance(part, str)]
    return repr(
        (
            getattr(function, "__module__", ""),
            name,
            getattr(code, "co_filename", ""),
            _describe_value(arguments, []),
            paths,
        )
    )


def _version_parts(version: object) -> Sequence[str | os.PathLike[str]]:
    parts = [version] if isinstance(version, (str, os.PathLike)) else version
    if not isinstance(parts, Sequence) or not all(isinstance(part, (str, os.PathLike)) for part in parts):
        raise InvalidOptionError(
            f"invalid version {_validation.format_value(version)}: expected a string, a path, or a sequence of them"
        )
    return parts


def _describe_version(part: str | os.PathLike[str]) -> str:
    if isinstance(part, str):
        return f"word {part}"
    if not Path(part).exists():
        raise InvalidOptionError(
            f"version: {os.fspath(part)!r} does not exist", hint="pass text that is not a path as a str"
        )
    return f"files {_digest(Path(part))}"


def _digest(source: Path) -> str:
    """
    Return a hash of the names and contents of files.

    Compiled Python files are not part of it, since Python writes them by itself when it imports migrations.
    """
    checksum = hashlib.sha256()
    for name, path in archive.tree(source.resolve(), ""):
        if "__pycache__" in name.split("/") or (name and path.suffix in (".pyc", ".pyo")):
            continue
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        checksum.update(os.fsencode(f"{len(name)} {name} {len(content)} ") + content)
    return checksum.hexdigest()


def _describe_callable(function: object, seen: list[object]) -> str:
    """
    Describe a callable by its name, its code and the values bound to it.

    Its source file is not part of the description. `_describe_value` describes *seen*.
    """
    if isinstance(function, functools.partial):
        bound = _describe_value((function.args, function.keywords), seen)
        return f"{_describe_callable(function.func, seen)} {bound}"
    code_owner = _code_owner(function)
    qualified_name = getattr(function, "__qualname__", type(function).__qualname__)
    defaults = [getattr(code_owner, name, None) for name in ("__defaults__", "__kwdefaults__")]
    wrapped = [value for _, value in _closure(code_owner) if _is_function(value)]
    if code_owner is function:
        seen.append(function)
    return (
        f"{getattr(function, '__module__', '')} {qualified_name} {_describe_code(getattr(code_owner, '__code__', None))} "
        f"{_describe_value([defaults, _owners(function), _constants(function), wrapped], seen)}"
    )


def _code_owner(function: object) -> object:
    """Return the function or method that a call of *function* runs."""
    if hasattr(function, "__code__"):
        return function
    return type(function).__call__ if callable(function) else None


def _is_function(value: object) -> bool:
    return hasattr(value, "__code__") or isinstance(value, functools.partial)


def _owners(function: object) -> list[object]:
    """Return the object of a method, or one that is called itself."""
    owners = [] if _code_owner(function) is function else [function]
    return owners + ([function.__self__] if isinstance(function, MethodType) else [])


def _constants(function: object) -> list[tuple[str, object]]:
    """
    Return the constants in a function's closure, by their names.

    Other values in the closure do not count, except for functions, which a decorator keeps there. They may be what a
    decorator counts its calls with.
    """
    code_owner = _code_owner(function)
    assigned = _assigned(getattr(code_owner, "__code__", None))
    return [
        (name, value) for name, value in _closure(code_owner) if name not in assigned and _is_constant(value)
    ]


def _closure(function: object) -> list[tuple[str, object]]:
    """Return the names and values of the variables of enclosing functions."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = []
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        with suppress(ValueError):  # The cell is empty.
            found.append((name, cell.cell_contents))
    return found


def _is_constant(value: object) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_constant, value))
    return value is None or isinstance(value, (str, bytes, int, float, PurePath))


def _assigned(code: object) -> set[str]:
    """Return the `nonlocal` variables that a function, or one inside of it, assigns."""
    if not isinstance(code, CodeType):
        return set()
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}
    return names.union(*map(_assigned, code.co_consts)).intersection(code.co_freevars)


def _describe_value(value: object, seen: list[object]) -> str:
    """
    Describe a bound value by its code, or by its `repr` without the address.

    The address differs in every process, and so does the order of a set.

    Args:
        value: The value.
        seen: The functions that have been described, and the collections that contain the value. They may refer to themselves
            and to each other.
    """
    if any(value is item for item in seen):
        return f"again {getattr(value, '__qualname__', '')}"
    if _is_function(value):
        return _describe_callable(value, seen)
    if not isinstance(value, (dict, list, tuple, set, frozenset)):
        return re.sub(" at 0x[0-9A-Fa-f]+", "", repr(value))
    place = len(seen)
    seen.append(value)
    elements = [_describe_value(item, seen) for item in (value.items() if isinstance(value, dict) else value)]
    del seen[place]
    if isinstance(value, (set, frozenset)):
        elements.sort()
    return f"{type(value).__name__}({', '.join(elements)})"


def _describe_code(constant: object) -> str:
    """
    Describe code, or a constant in it, in the same way in every process.

    The elements of a set are sorted, since their order differs between processes.
    """
    if isinstance(constant, CodeType):
        constants = [_describe_code(inner) for inner in constant.co_consts]
        return f"{constant.co_code.hex()} {constant.co_names} {constants}"
    return f"{sorted(map(repr, constant))}" if isinstance(constant, frozenset) else repr(constant)
