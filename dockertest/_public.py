"""Name public classes after the package instead of their private module."""

from __future__ import annotations

from types import FunctionType
from typing import TypeVar

C = TypeVar("C")


def public(cls: type[C]) -> type[C]:
    """
    Set the module of a class and its functions to the public package.

    Tracebacks, pickles and documentation show the module.
    """
    cls.__module__ = "dockertest"
    for member in vars(cls).values():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if isinstance(function, FunctionType):
            function.__module__ = "dockertest"
    return cls
