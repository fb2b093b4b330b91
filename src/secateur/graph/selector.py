"""Channel selectors: a layer reads some channels of a stream, and the stream stays whole.

A layer that reads what many layers read (a residual sum, a concatenation) can lose input channels only if all of them
do. Behind a selector it reads channels of its own choice: those that a list of indices names. The channel selection of
network slimming (Liu 2017, arXiv 1708.06519) in front of the first batch norm of a pre-activation block is one, the
channel sampler of He 2017 (arXiv 1707.06168) in front of a residual block another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from secateur.graph.clone import Mould, copy_with, modules_of

#: The name of a selector in the layer that it belongs to.
CHILD = "selector"
#: Marks the indices of a selector while a model is traced, so that the rule knows them from any others.
MARK = "_secateur_selector"


class ChannelSelector(nn.Module):
    """(..., channels, ...) -> the channels that ``indices`` names, in their order.

    It is a child of the layer that reads through it and runs in front of it, as a hook, so every other name in the
    model stays what it was. A new one names every channel; a plan takes entries away, as from any other tensor.

    Args:
        channels: of what the layer reads.
        axis: on which they lie, counted from the end where there may be no batch.

    Attributes:
        indices: int64 [selected], ascending; in the state dict.
    """

    indices: Tensor

    def __init__(self, channels: int, axis: int, device: torch.device | None = None):
        super().__init__()
        self.channels, self.axis = channels, axis
        self.register_buffer("indices", torch.arange(channels, device=device))
        # Decided once, not at every call: what watches a run would see a size that decides.
        self._idle = True

    @property
    def is_whole(self) -> bool:
        """Whether every channel is selected."""
        return self.indices.shape[0] == self.channels

    def begin(self) -> None:
        """Select from now on, where a new selector hands everything on as it is."""
        self._idle = False

    def watch(self) -> None:
        """Let a trace see the selection."""
        self.begin()
        setattr(self.indices, MARK, True)

    def forward(self, x: Tensor) -> Tensor:
        return x if self._idle else x.index_select(self.axis, self.indices)

    def extra_repr(self) -> str:
        return f"{self.indices.shape[0]} of {self.channels} channels"


def _in_front(reader: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The hook; without state, so that every copy of a model is served by its own selectors."""
    selector: Any = reader._modules[CHILD]
    return (selector(args[0]), *args[1:])


def reads_on(module: nn.Module) -> tuple[str, int] | None:
    """The tensor and its axis on which the input channels of a layer lie; ``None`` where no selector can serve it.

    A batch norm (whose channels do not know of one another), a plain convolution or a linear layer can be served.
    """
    if isinstance(module, _BatchNorm):
        held = {**module._parameters, **module._buffers}
        return next(((name, 0) for name in ("weight", "running_mean") if held.get(name) is not None), None)
    if isinstance(module, _ConvNd):
        return ("weight", 1) if module.groups == 1 and not module.transposed else None
    return ("weight", 1) if isinstance(module, nn.Linear) else None


def attach(model: nn.Module, paths: Iterable[str]) -> None:
    """Put selectors of all channels in front of layers, in place. The function stays the same."""
    for path in paths:
        reader = model.get_submodule(path)
        place = reads_on(reader)
        assert place is not None, f"{path} cannot read through a selector"
        tensor: Tensor = getattr(reader, place[0])
        axis = 1 if isinstance(reader, _BatchNorm) else 1 - tensor.dim()
        selector = ChannelSelector(tensor.shape[place[1]], axis, tensor.device)
        reader.add_module(CHILD, selector.train(reader.training))
        reader.register_forward_pre_hook(_in_front)


def detach(model: nn.Module, paths: Iterable[str]) -> None:
    """Take selectors away, in place. The function stays the same where they selected everything."""
    for path in paths:
        reader = model.get_submodule(path)
        delattr(reader, CHILD)
        for key in [k for k, hook in reader._forward_pre_hooks.items() if hook is _in_front]:
            del reader._forward_pre_hooks[key]


def selectors_of(model: nn.Module | Mould) -> dict[str, ChannelSelector]:
    """The selectors of a model, by the path of the layer in front of which they run."""
    modules = model.modules if isinstance(model, Mould) else modules_of(model)
    return {path.rpartition(".")[0]: m for path, m in modules if isinstance(m, ChannelSelector)}


def settle(model: nn.Module) -> None:
    """After a cut, in place: selectors begin to select, and those that would select everything go."""
    found = selectors_of(model)
    detach(model, [path for path, selector in found.items() if selector.is_whole])
    for selector in found.values():
        selector.begin()


def with_selectors(model: nn.Module, paths: Collection[str]) -> nn.Module:
    """The model with selectors of all channels in front of layers that have none, in a copy that shares its tensors.

    It is the model itself where nothing is missing; paths at which it has no such layer are left out.
    """
    there = selectors_of(model)
    modules = dict(modules_of(model)) if not there.keys() >= set(paths) else {}
    missing = [p for p in paths if p not in there and p in modules and reads_on(modules[p]) is not None]
    if not missing:
        return model
    fitted = copy_with(model, lambda _, t: t)
    attach(fitted, missing)
    return fitted


def without_whole_selectors(model: nn.Module) -> nn.Module:
    """The model without the selectors that select everything: itself, or a copy that shares all of its tensors."""
    if not any(selector.is_whole for selector in selectors_of(model).values()):
        return model
    plain = copy_with(model, lambda _, t: t)
    detach(plain, [path for path, selector in selectors_of(plain).items() if selector.is_whole])
    return plain
