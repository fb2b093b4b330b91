"""Functions of the model's code that remember what they gave (``functools.lru_cache``).

A pass that finds the result of an earlier one runs other operations than that did, and the tensors of a trace would
outlive it, with their labels. So every pass begins and ends with nothing remembered.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_Memo = functools._lru_cache_wrapper


@contextmanager
def nothing_remembered(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[None]:
    """Empty the memories that the code of some modules uses, now and at the end."""
    memos = [memo for kind in {type(module) for _, module in modules} for memo in _memos_of(kind)]
    _forget(memos)
    try:
        yield
    finally:
        _forget(memos)


def _forget(memos: list[_Memo]) -> None:
    for memo in memos:
        memo.cache_clear()


@functools.lru_cache(4096)
def _memos_of(kind: type) -> tuple[_Memo, ...]:
    """Those that the methods of a class use, or functions that stand in the same file."""
    found: dict[int, _Memo] = {}
    seen: set[int] = set()
    for base in kind.__mro__:
        # What other files remember is more likely what is installed than what was computed.
        if not base.__module__.startswith("torch.") and base is not object:
            for value in vars(base).values():
                _collect(value, base.__module__, found, seen)
    return tuple(found.values())


def _collect(value: Any, file: str, found: dict[int, _Memo], seen: set[int]) -> None:
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        value = value.__func__
    if not isinstance(value, (types.FunctionType, _Memo)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, _Memo):
        if value.__module__ == file:
            found[id(value)] = value
        value = value.__wrapped__
    if not isinstance(value, types.FunctionType):
        return
    for cell in value.__closure__ or ():
        try:
            _collect(cell.cell_contents, file, found, seen)
        except ValueError:
            # The name is not bound yet.
            continue
    if value.__module__ == file:
        for name in value.__code__.co_names:
            _collect(value.__globals__.get(name), file, found, seen)
