"""Nested arguments and results: every tensor in them, and copies with other tensors."""

from __future__ import annotations

import copy
import enum
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

_PLAIN = frozenset((int, float, str, bool, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format))
_NO_HOLDERS = (nn.Module, enum.Enum, type, types.FunctionType, types.ModuleType)


def tensors(tree: Any) -> list[Tensor]:
    """Every tensor in nested arguments, in order."""
    found: list[Tensor] = []
    _collect(tree, found)
    return found


def _collect(tree: Any, found: list[Tensor]) -> None:
    # Exact types first: this runs for every argument of every operation.
    kind = type(tree)
    if kind is Tensor or kind is Parameter:
        found.append(tree)
    elif kind in _PLAIN:
        return
    elif kind is tuple or kind is list or (kind is not dict and isinstance(tree, (list, tuple))):
        for item in tree:
            if type(item) not in _PLAIN:
                _collect(item, found)
    elif isinstance(tree, Tensor):
        found.append(tree)
    elif kind is dict or isinstance(tree, Mapping):
        for item in tree.values():
            _collect(item, found)


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """A copy of nested arguments with every tensor changed, also inside of objects."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, (list, tuple)):
        items = [map_tensors(item, change) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {key: map_tensors(item, change) for key, item in tree.items()}
    return _map_object(tree, change) if _may_hold(type(tree)) else tree


@cache
def _may_hold(kind: type) -> bool:
    """Whether objects of a class may hold tensors: data classes, batches of graphs, caches."""
    return kind not in _PLAIN and kind.__dictoffset__ != 0 and not issubclass(kind, _NO_HOLDERS)


def _map_object(holder: Any, change: Callable[[Tensor], Any]) -> Any:
    # To whoever copies, what stands in the memo has been copied already.
    memo = {id(t): change(t) for t in output_tensors(holder)}
    try:
        return copy.deepcopy(holder, memo)
    except Exception:
        # It cannot be copied, a lock for instance, so there is only the one.
        return holder


def plain_tensor(tensor: Tensor) -> Tensor:
    """The numbers alone. What a subclass does around every function hides its results from those who listen."""
    return tensor.detach() if type(tensor) in (Tensor, Parameter) else tensor.detach().as_subclass(Tensor)


def copied(tree: Any) -> Any:
    """Nested arguments for one call: code may write into the lists, and into the numbers, that it is given."""
    return map_tensors(tree, lambda t: t if t.is_meta else t.detach().clone())


def output_tensors(output: Any) -> Iterable[Tensor]:
    """Every tensor that a model gives back, also inside mappings, dataclasses and plain objects, in order."""
    seen: set[int] = set()

    def walk(item: Any) -> Iterable[Tensor]:
        if isinstance(item, Tensor):
            yield item
            return
        if item is None or isinstance(item, (str, bytes, int, float, complex, type)) or id(item) in seen:
            return
        seen.add(id(item))
        if isinstance(item, Mapping):
            parts: Iterable[Any] = item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            parts = item
        else:
            slots = [name for cls in type(item).__mro__ for name in getattr(cls, "__slots__", ())]
            parts = [*getattr(item, "__dict__", {}).values(), *(getattr(item, name, None) for name in slots)]
        for part in parts:
            yield from walk(part)

    return walk(output)
