"""The marks that ``sc.lock`` leaves on modules and parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from secateur.graph.clone import Copy

_MARK = "_secateur_lock"


def mark(thing: nn.Module | nn.Parameter, reason: str) -> None:
    """Lock a module or a parameter in every later trace."""
    setattr(thing, _MARK, reason)
    if isinstance(thing, nn.Parameter):
        # A parameter's own __deepcopy__ forgets its attributes; without one, Python copies the way pickle does,
        # which keeps them.
        thing.__deepcopy__ = None  # type: ignore[method-assign]


def _marked(skeleton: Copy) -> Iterator[tuple[str, bool, str]]:
    """Everything in a model that is marked: its name, whether it is a module, and the reason of its lock."""
    for name, module in skeleton.modules:
        if _MARK in vars(module):
            yield name, True, _text(name, getattr(module, _MARK))
    for name, tensor in skeleton.tensors.items():
        if isinstance(tensor, nn.Parameter) and _MARK in vars(tensor):
            yield name, False, _text(name, getattr(tensor, _MARK))


def _text(name: str, reason: str) -> str:
    return f"by sc.lock on {name or 'the model'}{f': {reason}' if reason else ''}"


def lock_marked(run: Any, skeleton: Copy) -> None:
    """Lock, at the end of a run, what is marked and what entered a marked module."""
    for name, is_module, reason in _marked(skeleton):
        if is_module:
            module = skeleton.model.get_submodule(name)
            held: list[Tensor] = [*module.parameters(), *module.buffers()]
            run.ledger.lock_systems(run.entering.get(name, ()), reason)
        else:
            held = [skeleton.tensors[name]]
        for tensor in held:
            run.ledger.lock_systems(run.labels(tensor).systems, reason)
