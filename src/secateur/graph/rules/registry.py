"""The registry of rules: what every ATen operation does to labels.

Three kinds cover nearly everything. An operation that *moves* data is replayed on the label tensor. One that
*combines* is a ``meet``, a ``reduce`` or both. One that nobody knows *locks* what reaches it, so that a missing rule
can cost some freedom but never a wrong cut.

A rule is a function ``rule(run, func, args, kwargs, out)``; it reads labels with ``run.labels(tensor)`` and writes
those of the results with ``run.set(tensor, labels)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}

#: The rule of every operation that PyTorch tags as pointwise.
POINTWISE = "<pointwise>"


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operations by their names without overload (``"add"`` also serves ``add_``)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def lookup(func: Any) -> Rule:
    """The rule of an operation; operations tagged as pointwise by PyTorch need none of their own."""
    name = func.overloadpacket.__name__
    found = RULES.get(name) or RULES.get(name.rstrip("_"))
    if found is not None:
        return found
    return RULES[POINTWISE] if torch.Tag.pointwise in func.tags else unknown


def tensors(tree: Any) -> Iterable[Tensor]:
    """Every tensor in nested arguments, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors(item)


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


def axes_of(dims: Any, ndim: int) -> list[int]:
    """Axes as non-negative numbers; ``None`` and ``[]`` stand for all of them."""
    if dims is None or dims == []:
        return list(range(ndim))
    dims = [dims] if isinstance(dims, int) else dims
    return [d % ndim for d in dims] if ndim else []


def argument(func: Any, args: tuple, kwargs: dict, name: str, default: Any = None) -> Any:
    """An argument by its name in the operation's schema, however it was passed."""
    for position, slot in enumerate(func._schema.arguments):
        if slot.name == name:
            if position < len(args):
                return args[position]
            return kwargs.get(name, default)
    return default


def unknown(run, func, args, kwargs, out) -> None:
    """No rule: whatever reaches the operation is locked, with its name and source line."""
    reached = [s for t in tensors((args, kwargs)) for s in run.labels(t).systems]
    if reached:
        run.ledger.lock_systems(reached, f"reaches {run.where(func)}, an operation without a rule{run.source()}")
