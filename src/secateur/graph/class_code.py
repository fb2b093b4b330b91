"""The code of a class, to be looked at without running it."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any


def methods_of(kind: type) -> dict[str, list[CodeType]]:
    """The code of a class and of those that it derives from, by the name of the method; without PyTorch's.

    Properties, what decorators wrapped, and functions that are written inside of others are among it.
    """
    found: dict[str, list[CodeType]] = {}
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != "torch":
            for name, member in vars(base).items():
                if code := [part for function in _functions(member) for part in _parts(function.__code__)]:
                    found.setdefault(name, []).extend(code)
    return found


def _functions(member: Any) -> list[FunctionType]:
    """The Python functions behind a member of a class, and those that decorators wrapped."""
    if isinstance(member, property):
        return [f for part in (member.fget, member.fset, member.fdel) for f in _functions(part)]
    found = []
    while member is not None:
        if isinstance(member, FunctionType):
            found.append(member)
        member = getattr(member, "__func__", None) or getattr(member, "__wrapped__", None)
    return found


def _parts(code: CodeType) -> list[CodeType]:
    """A piece of code and the functions that are written inside of it."""
    return [code, *(part for inner in code.co_consts if isinstance(inner, CodeType) for part in _parts(inner))]
