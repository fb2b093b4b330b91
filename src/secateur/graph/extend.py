"""What users can tell the trace: rules for operations that it does not know, and locks on what must stay whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack

from secateur._errors import UnknownName, UsageError
from secateur.graph.following import Run
from secateur.graph.marks import mark
from secateur.graph.rules.registry import POINTWISE, RULES, USER_RULES, Rule, find, qualified

T = TypeVar("T")


@overload
def register_rule(name: str, *, replace: bool = ...) -> Callable[[Rule], Rule]: ...
@overload
def register_rule(name: str, *, like: str, replace: bool = ...) -> None: ...
def register_rule(name: str, *, like: str | None = None, replace: bool = False) -> Callable[[Rule], Rule] | None:
    """Say what an operation does to labels, so that what reaches it can be cut.

    Without a rule an operation locks whatever reaches it. Most operations of your own behave like one that PyTorch
    has, whatever they compute::

        sc.register_rule("mylib::swish", like="silu")          # pointwise, one tensor or several that broadcast
        sc.register_rule("mylib::fast_linear", like="linear")  # the same arguments in the same order

    Any other gets a function; see ``docs/extend.md`` for what ``run`` offers and a
    worked example (``from secateur.graph import Labels``)::

        @sc.register_rule("mylib::gate")
        def gate(run, func, args, kwargs, out):
            x, scale = args
            operands = [(run.labels(x), x.shape), (run.labels(scale), scale.shape)]
            run.set(out, Labels(run.ledger.meet(operands, out.shape, run.where(func))))

    A rule that is wrong does no harm that stays hidden: ``verify`` refuses the cut.

    Args:
        name: ``"namespace::operation"`` without overload; a plain name is one of ATen's. It also serves the in-place
            operation with an underscore behind its name.
        like: the operation whose rule to use.
        replace: needed to replace a rule of Secateur's own. A rule of yours is replaced without asking.

    Raises:
        UnknownName: there is no rule for ``like``.
        UsageError: the name is malformed, or Secateur has a rule for it already.
    """
    key = qualified(name)
    if key.startswith("aten::") and not replace and _known(key) is not None and key not in USER_RULES:
        raise UsageError(
            f"register_rule({name!r}): Secateur has a rule for this operation of PyTorch\n"
            "pass replace=True to use yours instead, everywhere in this process"
        )
    if like is not None:
        USER_RULES[key] = _rule_like(like)
        return None

    def register(rule: Rule) -> Rule:
        USER_RULES[key] = rule
        return rule

    return register


def unregister_rule(name: str) -> None:
    """Take back what :func:`register_rule` said of an operation; nothing happens if it said nothing."""
    USER_RULES.pop(qualified(name), None)


def _known(key: str) -> Rule | None:
    """The rule of an operation, also where it only follows from a tag of PyTorch's."""
    found = find(key)
    namespace, _, operation = key.partition("::")
    packet = getattr(getattr(torch.ops, namespace), operation, None) if found is None else None
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    return RULES[POINTWISE] if any(torch.Tag.pointwise in o.tags for o in overloads) else found


def _rule_like(like: str) -> Rule:
    found = _known(qualified(like))
    if found is None:
        known = {name for name in RULES if name != POINTWISE} | set(USER_RULES)
        raise UnknownName("operation with a rule", like, known, "any operation that is pointwise in PyTorch will do")
    return found


def lock(thing: T, reason: str = "") -> T:
    """Keep something whole in every later trace.

    - A module or a parameter: nothing on any axis of it is cut, nor what is tied to that. The mark lies on the object,
      goes with its copies, and is no part of the state dict.
    - An activation inside a ``forward``: what it carries is locked while the model is traced. At any other time, also
      when compiled or exported, nothing happens.

    Args:
        thing: a module, a parameter or an activation.
        reason: what ``print(graph)`` and ``graph.explain`` say.

    Returns:
        ``thing`` itself, unchanged.

    Raises:
        UsageError: it is none of these.
    """
    if torch.compiler.is_compiling():
        return thing
    if isinstance(thing, nn.Module | nn.Parameter):
        mark(cast(Any, thing), reason)
    elif not isinstance(thing, Tensor):
        raise UsageError(
            f"lock() takes a module, a parameter or an activation, not {type(thing).__name__}\n"
            "a group is protected by name: sc.plan(..., protect=['layer1.*'])"
        )
    run = next((mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Run)), None)
    if isinstance(thing, Tensor) and run is not None:
        where = f"by sc.lock in {run.module or 'the model'}{run.source()}{f': {reason}' if reason else ''}"
        # What is done to label tensors here is no operation of the model.
        with _disable_current_modes():
            run.ledger.lock_systems(run.labels(thing).systems, where)
    return thing
