"""
Identify the function that fills a database, so that its result can be reused.

A stored result stands for another run of the same function. A fingerprint is the same in every process and on every run
as long as the function's code, the values that are bound to it and the files that it depends on are the same. Nothing
is executed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType

from dockertest import _validation
from dockertest._containers import files
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
    parts = [_describe_callable(function), *map(_describe_version, _version_parts(version))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def describe_origin(function: object, version: object) -> str:
    """
    Describe where a function and its files are, without their content.

    Results with the same origin are versions of each other; those of two folders, or of one function with two sets of
    arguments, are not.
    """
    arguments = []
    while isinstance(function, functools.partial):
        arguments.append(_describe_value((function.args, function.keywords)))
        function = function.func
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    paths = [os.fspath(part) for part in _version_parts(version) if not isinstance(part, str)]
    return repr(
        (getattr(function, "__module__", ""), name, getattr(code, "co_filename", ""), arguments, paths)
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
    return f"files {files.digest({'/version': Path(part)})}"


def _describe_callable(function: object) -> str:
    """
    Describe a callable by its name, its code and the values bound to it.

    Its source file is not part of the description.
    """
    if isinstance(function, functools.partial):
        bound = f"{_describe_value(function.args)} {_describe_value(function.keywords)}"
        return f"{_describe_callable(function.func)} {bound}"
    code_owner = function if hasattr(function, "__code__") else vars(type(function)).get("__call__")
    qualified_name = getattr(function, "__qualname__", type(function).__qualname__)
    defaults = [getattr(code_owner, name, None) for name in ("__defaults__", "__kwdefaults__")]
    # Functions in the closure count, since a decorator keeps there what it wraps. Other values do not: they may be what
    # a decorator counts its calls with.
    wrapped = []
    for cell in getattr(code_owner, "__closure__", None) or ():
        with suppress(ValueError):  # The cell is empty.
            wrapped += [_describe_value(cell.cell_contents)] * hasattr(cell.cell_contents, "__code__")
    return (
        f"{getattr(function, '__module__', '')} {qualified_name} "
        f"{_describe_code(getattr(code_owner, '__code__', None))} {_describe_value(defaults)} {wrapped}"
    )


def _describe_value(value: object) -> str:
    """
    Describe a bound value by its code, or by its `repr` without the address.

    The address differs in every process.
    """
    if code := getattr(value, "__code__", None):
        return _describe_code(code)
    return re.sub(" at 0x[0-9A-Fa-f]+", "", repr(value))


def _describe_code(constant: object) -> str:
    """
    Describe code, or a constant in it, in the same way in every process.

    The elements of a set are sorted, since their order differs between processes.
    """
    if isinstance(constant, CodeType):
        constants = [_describe_code(inner) for inner in constant.co_consts]
        return f"{constant.co_code.hex()} {constant.co_names} {constants}"
    return f"{sorted(map(repr, constant))}" if isinstance(constant, frozenset) else repr(constant)
