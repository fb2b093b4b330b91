"""Parts that run only while a model is trained: auxiliary heads, the second branch of a head, a mask that is learned.

The pass that is traced is one in evaluation mode, which sees nothing of them, and a cut model that is trained would
stop there. So the skeleton runs once more, with those modules in training mode that would call one, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secateur.graph.class_code import methods_of
from secateur.graph.clone import Copy
from secateur.graph.luck import same_luck

_DROPOUTS = {
    *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d),
    *(functional.alpha_dropout, functional.feature_alpha_dropout),
}


class _WithoutDropout(TorchFunctionMode):
    """What is dropped at random would be other units in every run, and a mask has no labels."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)


@contextmanager
def in_training(model: nn.Module, callers: Sequence[str]) -> Iterator[None]:
    """While this lasts, some modules are in training mode, though nothing is dropped at random.

    What is drawn at random all the same (which layers are left out, say) is the same each time.
    """
    if not callers:
        yield
        return
    modules = [model.get_submodule(path) for path in callers]
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = True
        with same_luck(model), _WithoutDropout():
            yield
    finally:
        for module, was in zip(modules, before):
            module.training = was


def callers_of(idle: Collection[str], ran: Collection[str], skeleton: Copy) -> list[tuple[str, ...]]:
    """The modules that ran, and whose code might run idle ones if it was trained.

    Args:
        idle: paths of modules that did not run.
        ran: of those that did.

    Returns:
        What to try: those around an idle one; then those inside of these, too, as they may be handed it (the heads of
        all layers of a decoder).
    """
    around = {_around(path, ran) for path in idle}
    asking = [path for path, module in skeleton.modules if path in ran and _asks(type(module))]
    first = tuple(path for path in asking if path in around)
    if not first:
        return []
    # Modules that hold layers call others; a norm that asks would take the statistics of a batch.
    holding = {outer for name in skeleton.tensors for outer in _outer(name.rpartition(".")[0])}
    inside = tuple(path for path in asking if path in around or (path in holding and _is_inside(path, first)))
    return list(dict.fromkeys([first, inside]))


def _outer(path: str) -> Iterator[str]:
    """The modules around one, itself left out."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _is_inside(path: str, some: Collection[str]) -> bool:
    return any(outer in some for outer in _outer(path))


def _around(path: str, ran: Collection[str]) -> str:
    """The innermost module around an idle one that ran."""
    return path if path in ran else next((outer for outer in _outer(path) if outer in ran), "")


@cache
def _asks(kind: type) -> bool:
    """Whether the code of a class asks whether it is trained."""
    return any("training" in code.co_names for method in methods_of(kind).values() for code in method)
