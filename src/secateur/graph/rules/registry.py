"""The registry of rules: what every ATen operation does to labels.

Three kinds cover nearly everything. An operation that *moves* data is replayed on the label tensor. One that
*combines* is a ``meet``, a ``reduce`` or both. One that nobody knows *locks* what reaches it, so that a missing rule
can cost some freedom but never a wrong cut.

A rule is a function ``rule(run, func, args, kwargs, out)``; it reads labels with ``run.labels(tensor)`` and writes
those of the results with ``run.set(tensor, labels)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from secateur._errors import UsageError
from secateur.graph.trees import tensors

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}
#: Rules of users by ``namespace::name``; they come before all others.
USER_RULES: dict[str, Rule] = {}

#: Rules that ask themselves what a constant meets, and so how long it has to be.
EXPLAINING: set[Rule] = set()

_PYTORCHS_OWN = ("aten", "prims", "prim")

#: The rule of every operation that PyTorch tags as pointwise.
POINTWISE = "<pointwise>"


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operations by their names without overload (``"add"`` also serves ``add_``)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def explaining(function: Rule) -> Rule:
    """Note that a rule is one of :data:`EXPLAINING`."""
    EXPLAINING.add(function)
    return function


def lookup(func: Any) -> Rule:
    """The rule of an operation; operations tagged as pointwise by PyTorch need none of their own."""
    return _lookup(func) if USER_RULES else _built_in(func)


@cache
def _built_in(func: Any) -> Rule:
    return _lookup(func)


def _lookup(func: Any) -> Rule:
    found = find(f"{func.namespace}::{func.overloadpacket.__name__}")
    if found is not None:
        return found
    return RULES[POINTWISE] if torch.Tag.pointwise in func.tags else unknown


def qualified(name: str) -> str:
    """``namespace::name`` of an operation; a plain name is one of ATen's.

    Raises:
        UsageError: it is neither.
    """
    namespace, colons, operation = name.rpartition("::")
    if not (operation.isidentifier() and (namespace.isidentifier() or not colons)):
        raise UsageError(f"{name!r} is no operation: write 'namespace::name', without the overload")
    return f"{namespace or 'aten'}::{operation}"


def find(key: str) -> Rule | None:
    """The rule for ``namespace::name``; a name with an underscore behind it (in place) has that of the plain one."""
    plain = key.rstrip("_")
    found = USER_RULES.get(key) or USER_RULES.get(plain) or RULES.get(key)
    namespace, _, name = key.partition("::")
    if found is None and namespace in _PYTORCHS_OWN:
        # A custom operation may bear the name of one of PyTorch's and do something else.
        found = RULES.get(name) or RULES.get(name.rstrip("_"))
    return found


def axes_of(dims: Any, ndim: int) -> list[int]:
    """Axes as non-negative numbers; ``None`` and ``[]`` stand for all of them."""
    if dims is None or dims == []:
        return list(range(ndim))
    dims = [dims] if isinstance(dims, int) else dims
    return [d % ndim for d in dims] if ndim else []


@cache
def _positions(func: Any) -> dict[str, int]:
    return {slot.name: position for position, slot in enumerate(func._schema.arguments)}


def argument(func: Any, args: tuple, kwargs: dict, name: str, default: Any = None) -> Any:
    """An argument by its name in the operation's schema, however it was passed."""
    position = _positions(func).get(name)
    if position is None:
        return default
    return args[position] if position < len(args) else kwargs.get(name, default)


def unknown(run, func, args, kwargs, out) -> None:
    """No rule: whatever reaches the operation is locked, with its name and source line."""
    reached = [s for t in tensors((args, kwargs)) for s in run.labels(t).systems]
    if reached:
        run.ledger.lock_systems(reached, f"reaches {run.where(func)}, an operation without a rule{run.source()}")
