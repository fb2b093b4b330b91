"""Parts that run only while a model is trained: auxiliary heads, the second branch of a head, a mask that is learned.

The pass that is traced is one in evaluation mode, which sees nothing of them, and a cut model that is trained would
stop there. So the skeleton runs once more, with those modules in training mode that would call one, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secateur.graph.class_code import methods_of
from secateur.graph.clone import Copy

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
def in_training(model: nn.Module, callers: Iterable[str]) -> Iterator[None]:
    """While this lasts, some modules are in training mode, though nothing is dropped at random."""
    modules = [model.get_submodule(path) for path in callers]
    before = [module.training for module in modules]
    with ExitStack() as stack:
        if modules:
            stack.enter_context(_WithoutDropout())
        try:
            for module in modules:
                module.training = True
            yield
        finally:
            for module, was in zip(modules, before):
                module.training = was


def callers_of(idle: Collection[str], ran: Collection[str], skeleton: Copy) -> tuple[str, ...]:
    """The modules that ran, and whose code might run idle ones if it was trained.

    Args:
        idle: paths of modules that did not run.
        ran: of those that did.
    """
    modules = dict(skeleton.modules)
    return tuple(sorted(path for path in {_around(path, ran) for path in idle} if _asks(type(modules[path]))))


def _around(path: str, ran: Collection[str]) -> str:
    """The innermost module around an idle one that ran."""
    while path and path not in ran:
        path = path.rpartition(".")[0]
    return path


@cache
def _asks(kind: type) -> bool:
    """Whether the code of a class asks whether it is trained."""
    return any("training" in code.co_names for method in methods_of(kind).values() for code in method)
