"""Which layers read a stream, so that a channel selector in front of them frees their input channels.

A *stream* is what several layers read: a residual sum, a concatenation. One pass over real tensors shows which layers
read one (:class:`_Readings`), the labels show whose units they are, and a trace with selectors in place has the last
word: those whose units are not free then are taken away again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.graph.capture import as_call
from secateur.graph.clone import copy_with, modules_of
from secateur.graph.following import name_of
from secateur.graph.groups import Group
from secateur.graph.selector import attach, detach, reads_on, selectors_of
from secateur.graph.skeleton import Dispatch
from secateur.graph.trace import PruningGraph, trace
from secateur.graph.trees import copied, map_tensors, tensors

#: Operations in which branches come together.
_SUMS = {"add", "add_", "sub", "sub_"}
_MERGING = {*_SUMS, "cat", "stack"}
#: Layers: what they make is read as theirs, whatever they read.
_LAYERS = {"convolution", "mm", "addmm", "bmm", "baddbmm", "linear", "embedding"}
_NORMS = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training"}
#: What looks at a whole map, or scales it by what it saw (squeeze and excitation), reads beside the stream.
_BESIDE = {"mean", "sum", "amax", "_adaptive_avg_pool2d", "mul", "mul_"}


class _Readings(Dispatch):
    """How often every activation is read, and what it was made of."""

    def __init__(self, inputs: list[Tensor]):
        super().__init__()
        self._derived = {id(t) for t in inputs}
        self._uses: Counter[int] = Counter()
        self._made: dict[int, tuple[str, list[Tensor]]] = {}
        self._summands: set[int] = set()
        # Numbers of objects are compared, so none may go away meanwhile.
        self._kept: list[Any] = [inputs]

    def passes(self, func: Any, args: tuple, kwargs: dict) -> Any:
        out = func(*args, **kwargs)
        given = {id(t): t for t in tensors((args, kwargs)) if id(t) in self._derived}
        made, name = tensors(out), name_of(func)
        self._kept += [*given.values(), *made]
        if not given:
            return out
        changed = {id(t) for t in made}
        if name not in _BESIDE:
            self._uses.update(k for k in given if k not in changed)
        if name in _SUMS and len(given) > 1:
            self._summands.update(id(layer) for t in given.values() if (layer := self._layer(t)) is not None)
        for t in made:
            self._derived.add(id(t))
            # What works in place on one tensor alone leaves it what it was made of.
            if id(t) not in given or len(given) > 1:
                self._made[id(t)] = name, [s for k, s in given.items() if k != id(t)]
        return out

    def _layer(self, t: Tensor) -> Tensor | None:
        """The result of the layer that a tensor is, but for norms and activations."""
        while id(t) in self._made:
            name, sources = self._made[id(t)]
            if name in _LAYERS:
                return t
            if len(sources) != 1:
                return None
            t = sources[0]
        return None

    def is_summand(self, t: Tensor) -> bool:
        """Whether what a layer gave goes into a sum as it is, or normalised: a projection in a shortcut, say."""
        layer = self._layer(t)
        return layer is not None and id(layer) in self._summands

    def is_stream(self, t: Tensor) -> bool:
        """Whether a tensor, or what it was made of since the last layer, is one of several readers' or of branches."""
        while id(t) in self._made:
            if self._uses[id(t)] > 1:
                return True
            name, sources = self._made[id(t)]
            if name in _MERGING and len(sources) > (0 if name.endswith("_") else 1):
                return True
            if name in _LAYERS or name in _NORMS or len(sources) != 1:
                return False
            t = sources[0]
        return False


@contextlib.contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class _Reader:
    """A layer whose one input is a stream.

    Attributes:
        path: of the layer.
        is_summand: what it gives goes into a sum with nothing but norms in between.
    """

    path: str
    is_summand: bool


def _stream_readers(model: nn.Module, example_inputs: Any) -> list[_Reader]:
    """The layers that could read a stream through a selector; runs ``model``."""
    home = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    args, kwargs = copied(map_tensors(as_call(example_inputs), lambda t: t.to(home)))
    readings = _Readings(tensors((args, kwargs)))
    calls: dict[str, list[tuple[tuple, Any]]] = {}
    hooks = []
    for path, module in modules_of(model):
        if path and reads_on(module) is not None:
            found = calls.setdefault(path, [])
            hooks.append(module.register_forward_hook(lambda _, given, out, found=found: found.append((given, out))))
    try:
        with _in_evaluation(model), torch.no_grad(), readings:
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    once = [(path, *found[0]) for path, found in calls.items() if len(found) == 1 and len(found[0][0]) == 1]
    return [_Reader(p, readings.is_summand(out)) for p, given, out in once if readings.is_stream(given[0])]


class _Widths:
    """The groups on the axes of a graph's layers."""

    def __init__(self, graph: PruningGraph):
        self._on: dict[tuple[str, int], list[Group]] = {}
        for group in graph.groups:
            for member in group.members:
                self._on.setdefault((member.tensor, member.axis), []).append(group)

    def on(self, path: str, name: str, axis: int) -> list[Group]:
        return self._on.get((f"{path}.{name}", axis), [])

    @staticmethod
    def is_shared(group: Group) -> bool:
        """Whether several layers take its units in."""
        return len({m.tensor.rpartition(".")[0] for m in group.members if m.role == "in"}) > 1


def select_channels(model: nn.Module, example_inputs: Any, *, norms_only: bool = False) -> nn.Module:
    """Put channel selectors in front of the layers that read a stream, so that each can be cut to channels of its own.

    In a pre-activation ResNet or a DenseNet these are the batch norms that open a block (and those of transitions and
    of the head), in an ordinary ResNet the first convolutions of the blocks. The streams they read stay whole, as in
    the papers: what leaves is that one layer's reading of a channel, with its norm and its weights. The function of the
    model is the same, to the bit; trace the result as any other model. ``sc.save`` and ``sc.load`` know of selectors.

    A convolution that adds to a stream without anything in between (the projection of a shortcut) and a layer that
    gives the model's output read all channels, as they do now.

    Args:
        model: is not changed.
        example_inputs: as for ``trace``; the model runs once on them.
        norms_only: only in front of batch norms, whose scales say which channels are needed (network slimming).

    Returns:
        A copy; the model has no such layer if it has no selector (``print`` shows them).

    Raises:
        InputError: the model does not run on the example inputs, or is of a kind that cannot be traced.
    """
    widths = _Widths(trace(model, example_inputs))
    copied = copy_with(model, lambda _, t: t.clone())
    there, paths = selectors_of(copied), []
    for reader in _stream_readers(copied, example_inputs):
        module = copied.get_submodule(reader.path)
        name, axis = reads_on(module) or ("", 0)
        layer = not isinstance(module, _BatchNorm)
        if reader.path in there or (layer and (norms_only or reader.is_summand)):
            continue
        if layer and any(g.locked for g in widths.on(reader.path, "weight", 0)):
            continue
        if any(map(widths.is_shared, widths.on(reader.path, name, axis))):
            paths.append(reader.path)
    attach(copied, paths)
    found = _Widths(trace(copied, example_inputs))
    detach(copied, [p for p in paths if any(g.locked for g in found.on(p, "selector.indices", 0))])
    return copied
