"""Name public classes after the package instead of the private module that defines them."""

from __future__ import annotations

from types import FunctionType
from typing import TypeVar

C = TypeVar("C")


def public(cls: type[C]) -> type[C]:
    """Set the module of a class and its functions, which tracebacks, pickles and documentation show."""
    cls.__module__ = "dockertest"
    for member in vars(cls).values():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if isinstance(function, FunctionType):
            function.__module__ = "dockertest"
    return cls
