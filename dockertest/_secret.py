"""
Values that may be secret, which are hidden in their `repr`.

They work as usual, and tools that show variables show `***` instead of them.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class SecretStr(str):
    """
    A string whose `repr` is hidden.

    pytest's `--showlocals` and error trackers print the `repr` of variables.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SecretDict(dict[str, T]):
    """A dictionary whose `repr` shows its keys and hides its values."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key!r}: ***' for key in self)}}}"


class Assignment(str):
    """
    A `"K=V"` string whose `repr` shows the name and hides the value.

    It belongs to an environment or to build arguments.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(f"{self.name}=***")

    @property
    def name(self) -> str:
        """What stands before the first `=`."""
        return self.partition("=")[0]

    @property
    def value(self) -> SecretStr:
        """What stands after it."""
        return SecretStr(self.partition("=")[2])
