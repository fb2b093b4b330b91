"""What layers read and give, sampled from batches of the training split.

A *reader* is a plain convolution or linear layer that takes units in. At random positions of its output it is seen as
a linear map: ``y = W x`` with the window ``x`` [channels, taps] that lies under the position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur._errors import UsageError
from secateur.graph import Group, PruningGraph
from secateur.surgery.skip import silenced

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: How many images are looked at if nothing else is said; positions per image are those of He 2017.
IMAGES, POSITIONS = 2000, 10


def is_reader(module: Any) -> bool:
    """Whether a module is a plain linear map of windows."""
    if type(module) in _CONVOLUTIONS:
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.Linear


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a reader as [outputs, channels, taps]."""
    weight: Any = module.weight
    return weight.detach().reshape(weight.shape[0], weight.shape[1], -1)


@dataclass(frozen=True)
class Closing:
    """A layer that makes what a residual block adds.

    Attributes:
        block: path of the block; what enters it goes around the layer.
        norm: path of the batch norm between the layer and the addition, if there is one.
    """

    block: str
    norm: str | None


def closings(graph: PruningGraph) -> dict[str, Closing]:
    """The layers that close a residual block with an identity shortcut, by path."""
    found = {}
    for block in graph.blocks:
        modules = dict.fromkeys(name.rpartition(".")[0] for name in silenced(graph, block))
        layers = [m for m in modules if is_reader(graph.model.get_submodule(m))]
        norms = [m for m in modules if isinstance(graph.model.get_submodule(m), _BatchNorm)]
        if len(layers) == 1 and len(norms) < 2:
            found[layers[0]] = Closing(block.name, norms[0] if norms else None)
    return found


def readers_of(graph: PruningGraph, group: Group) -> dict[str, Tensor]:
    """The plain readers of a group by path, each with the input channels of every unit: int64 [width, per unit]."""
    found = {}
    for member in group.members:
        path, _, attribute = member.tensor.rpartition(".")
        reads = member.role == "in" and attribute == "weight" and member.axis == 1
        if reads and is_reader(graph.model.get_submodule(path)):
            found[path] = torch.as_tensor(member.positions).long()
    return found


@dataclass(frozen=True)
class Rows:
    """Samples of one layer: ``x`` [samples, channels, taps], ``y`` [samples, outputs] without the bias, and what enters
    the block around it at the same places, [samples, outputs], where it closes one."""

    x: Tensor
    y: Tensor
    around: Tensor | None


class Calibration:
    """Batches of images and the places at which layers are looked at; the same in every network of this architecture.

    Args:
        data: batches ``(x, y)`` or bare ``x``.
        images: how many are taken; more than there are is refused. ``None``: up to 2,000.
        positions: places of each layer's output per image; where there is but one place, it is looked at once.
        seed: of the places.

    Raises:
        UsageError: fewer images than asked for, or none.
    """

    def __init__(self, data: Iterable[Any], images: int | None = None, positions: int = POSITIONS, seed: int = 0):
        self.positions, self.seed = positions, seed
        self.batches: list[Tensor] = []
        wanted, seen = IMAGES if images is None else images, 0
        for batch in data:
            x = batch[0] if isinstance(batch, (tuple, list)) else batch
            self.batches.append(x[: wanted - seen])
            seen += len(self.batches[-1])
            if seen >= wanted:
                break
        if seen < (1 if images is None else images):
            raise UsageError(
                f"{seen:,} calibration images were given where {images or 1:,} are asked for\n"
                "give more training data (--limit takes some away), or ask for fewer: --option images=N"
            )

    def watch(self, model: nn.Module, around: dict[str, Closing], *paths: str) -> Iterator[tuple[int, str, Rows]]:
        """Run a network and look at some layers: the number of the batch, the layer, and its rows.

        A pass ends as soon as the last of the layers has run.
        """
        device = next(model.parameters()).device
        for number, batch in enumerate(self.batches):
            with _Watch(model, around, paths, self, number) as watch, torch.no_grad(), suppress(_Enough):
                model(batch.to(device))
            for path in paths:
                if path in watch.rows:
                    yield number, path, watch.rows[path]

    def order(self, model: nn.Module, paths: Iterable[str]) -> list[str]:
        """Layers in the order in which they run."""
        ran: list[str] = []
        paths = list(paths)
        hooks = [model.get_submodule(p).register_forward_hook(lambda *_, p=p: ran.append(p)) for p in paths]
        try:
            with torch.no_grad(), _in_evaluation(model):
                model(self.batches[0][:1].to(next(model.parameters()).device))
        finally:
            for hook in hooks:
                hook.remove()
        return list(dict.fromkeys(ran))

    def places(self, path: str, number: int, images: int, size: int) -> tuple[Tensor, Tensor]:
        """Image and place of every sample of a layer in a batch."""
        label = sum((k + 1) * ord(c) for k, c in enumerate(path))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + label * 8191 + number) % 2**63)
        # The same place again would say nothing new.
        positions = 1 if size == 1 else self.positions
        place = torch.randint(size, (images * positions,), generator=generator)
        return torch.arange(images).repeat_interleave(positions), place


class _Enough(Exception):
    pass


class _Watch:
    def __init__(
        self, model: nn.Module, around: dict[str, Closing], paths: tuple[str, ...], plan: Calibration, number: int
    ):
        self._model, self._around, self._paths = model, around, paths
        self._calibration, self._number = plan, number
        self._entered: dict[str, Tensor] = {}
        self.rows: dict[str, Rows] = {}

    def __enter__(self) -> _Watch:
        self._hooks: list[Any] = []
        for path in self._paths:
            layer = self._model.get_submodule(path)
            self._hooks.append(layer.register_forward_hook(partial(self._seen, path)))
            if path in self._around:
                block = self._around[path].block
                holder = self._model.get_submodule(block)
                self._hooks.append(holder.register_forward_pre_hook(partial(self._enter, block)))
        self._mode = _in_evaluation(self._model)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(None, None, None)
        for hook in self._hooks:
            hook.remove()

    def _enter(self, block: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        # A copy: the addition may write into it.
        self._entered[block] = args[0].clone()

    def _seen(self, path: str, layer: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        x = args[0]
        axis = 1 if type(layer) in _CONVOLUTIONS else y.dim() - 1
        size = y[0].numel() // y.shape[axis]
        image, place = self._calibration.places(path, self._number, len(y), size)
        around = None
        if path in self._around:
            entered = self._entered[self._around[path].block]
            around = _at(entered, axis, image, place) if entered.shape == y.shape else None
        bias: Any = layer.bias
        rows = _at(y, axis, image, place)
        windows = _windows(layer, x, y, image, place)
        self.rows[path] = Rows(windows, rows if bias is None else rows - bias.detach(), around)
        if len(self.rows) == len(self._paths):
            raise _Enough


def _at(y: Tensor, axis: int, image: Tensor, place: Tensor) -> Tensor:
    """Rows of an output at some places, [samples, outputs]."""
    return y.movedim(axis, -1).flatten(1, -2)[image, place] if y.dim() > 2 else y[image]


def _windows(layer: nn.Module, x: Tensor, y: Tensor, image: Tensor, place: Tensor) -> Tensor:
    """What lies under some places of the output, [samples, channels, taps]."""
    if type(layer) not in _CONVOLUTIONS:
        return (x.flatten(1, -2)[image, place] if x.dim() > 2 else x[image]).unsqueeze(-1)
    settings: Any = layer
    x = F.pad(x, [n for p in reversed(settings.padding) for n in (p, p)])
    index: list[Tensor] = []
    rest, spatial = place, y.shape[2:]
    for k in reversed(range(len(spatial))):
        taps = torch.arange(settings.kernel_size[k]) * settings.dilation[k]
        at = (rest % spatial[k])[:, None] * settings.stride[k] + taps
        rest = rest // spatial[k]
        index.insert(0, at.view(len(place), *[1] * k, -1, *[1] * (len(spatial) - k - 1)))
    # Channels last, so that all indices stand side by side.
    found = x.movedim(1, -1)[(image.view(-1, *[1] * len(spatial)), *index)]
    return found.flatten(1, -2).transpose(1, 2)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
