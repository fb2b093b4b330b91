"""All architectures of a space in one network, which runs as a blend of a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.gates.architecture import Choice, Space
from secateur.gates.blended_norm import BlendedNorm
from secateur.gates.depth import BlendedDepth
from secateur.gates.elastic import Elastic
from secateur.gates.width import Pair
from secateur.graph import PruningGraph
from secateur.graph.trees import map_tensors, output_tensors

_MAKERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding)


@dataclass(frozen=True)
class Draw:
    """What the network is in one pass: two candidates of every group, weights for every stack's candidates."""

    pairs: Mapping[str, Pair]
    depths: Sequence[Tensor | int]


def decided(space: Space, choice: Choice) -> Draw:
    """One architecture, as a draw."""
    return Draw({name: Pair(k, k) for name, k in zip(space.counts, choice.widths)}, choice.depths)


class Supernet:
    """Takes the forward of a graph's network over, in place, until :meth:`settle`.

    At a draw with pairs, every layer that makes units of a group gives the blend of its two candidates, and everything
    behind it runs at the wider one's width. At a decided draw the network is what cutting it to that choice leaves.

    Attributes:
        draw: of the next pass in training mode.
        choice: of a pass in evaluation mode.
        tracks: whether running statistics move in training mode.
    """

    def __init__(self, graph: PruningGraph, space: Space):
        self.model, self.space = graph.model, space
        self.elastic = Elastic(graph, space.counts)
        self.choice = space.most
        self.draw = decided(space, self.choice)
        self.tracks = True
        self.norms: dict[str, BlendedNorm] = {}
        for path, module in graph.model.named_modules():
            line = next(
                (
                    self.elastic.lines[k]
                    for n in ("weight", "running_mean")
                    if (k := (f"{path}.{n}", 0)) in self.elastic.lines
                ),
                None,
            )
            if isinstance(module, _BatchNorm) and line is not None:
                self.norms[path] = BlendedNorm(module, line)
        self._own = frozenset(f"{path}.{name}" for path in self.norms for name, _ in _tensors(graph.model, path))
        self.depths = [BlendedDepth(graph.model, stack) for stack in space.stacks]
        self._makers = _makers(graph, space)
        self._blended: dict[str, int] | None = None
        self._forward = graph.model.forward
        graph.model.forward = self.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output at the draw, or, in evaluation mode, at the choice."""
        if self._blended is None:
            self._blended = self._where_to_blend(args, kwargs)
        draw = self.draw if self.model.training else decided(self.space, self.choice)
        counts = self.space.counts
        units = {name: counts[name][pair.high] for name, pair in draw.pairs.items()}
        for norm in self.norms.values():
            norm.pairs, norm.tracks = draw.pairs, self.tracks
        for depth, weights in zip(self.depths, draw.depths):
            depth.weights = weights
        with self.elastic.at(units, self._own, lambda name, tensor: self._blend(name, tensor, draw)):
            return self._forward(*args, **kwargs)

    def settle(self, choice: Choice) -> None:
        """A plain network again; batch norms are those of the choice."""
        final = decided(self.space, choice)
        for norm in self.norms.values():
            norm.settle(final.pairs)
        for depth in self.depths:
            depth.remove()
        del self.model.forward

    def _blend(self, name: str, tensor: Tensor, draw: Draw) -> Tensor:
        """Where no norm follows, the filters are blended: a layer is linear in them."""
        assert self._blended is not None
        axis = self._blended.get(name)
        if axis is None:
            return tensor
        line = self.elastic.lines[name, axis]
        if all(draw.pairs[group].single for group in line.parts):
            return tensor
        own, other = line.mixing(draw.pairs, tensor)
        matrix = torch.diag(own) + other
        return (tensor.movedim(axis, -1) @ matrix.T).movedim(-1, axis)

    def _where_to_blend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, int]:
        """Decide for every layer that makes units whether its norm blends them or its filters are blended.

        A norm does where the layer's output goes into it and nowhere else, as the autograd graph of a pass shows.
        """
        made: dict[Any, str] = {}
        normed: dict[Any, str] = {}
        handles = []
        for path in self._makers:
            hook = lambda module, args, out, path=path: made.setdefault(_node(out), path)  # noqa: E731
            handles.append(self.model.get_submodule(path).register_forward_hook(_silent(hook)))
        for path in self.norms:
            hook = lambda module, args, out, path=path: normed.setdefault(_node(out), path)  # noqa: E731
            handles.append(self.model.get_submodule(path).register_forward_hook(_silent(hook)))
        before = [(m, m.training) for m in self.model.modules()]
        # In evaluation mode nothing is drawn and no statistics move.
        self.model.eval()
        last = decided(self.space, self.space.most)
        for norm in self.norms.values():
            norm.pairs, norm.tracks = last.pairs, False
        for depth, weights in zip(self.depths, last.depths):
            depth.weights = weights
        try:
            with torch.enable_grad():
                some = map_tensors((args, kwargs), _one_example)
                outputs = [o for o in output_tensors(self._forward(*some[0], **some[1])) if o.grad_fn is not None]
        finally:
            for handle in handles:
                handle.remove()
            for module, training in before:
                module.training = training
        readers = _readers([o.grad_fn for o in outputs])
        by_norm = set()
        for node, path in made.items():
            follower = readers.get(node, [])
            if node is not None and len(follower) == 1 and follower[0] in normed:
                norm = self.norms[normed[follower[0]]]
                if all(name in norm.line.parts for name in self._makers[path]):
                    norm.makes = True
                    by_norm.add(path)
        return {
            tensor: axis
            for path, tensors in _made(self.elastic, self._makers).items()
            if path not in by_norm
            for tensor, axis in tensors.items()
        }


def _tensors(model: nn.Module, path: str) -> list[tuple[str, Any]]:
    module = model.get_submodule(path)
    return [*module._parameters.items(), *module._buffers.items()]


def _makers(graph: PruningGraph, space: Space) -> dict[str, set[str]]:
    """Layers that make units, with the groups of these."""
    found: dict[str, set[str]] = {}
    for name in space.counts:
        for member in graph[name].members:
            path, _, attribute = member.tensor.rpartition(".")
            module: Any = graph.model.get_submodule(path)
            # A depthwise convolution filters units that others made; what enters it is blended already.
            depthwise = isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels
            if member.role == "out" and attribute == "weight" and isinstance(module, _MAKERS) and not depthwise:
                found.setdefault(path, set()).add(name)
    return found


def _made(elastic: Elastic, makers: Mapping[str, set[str]]) -> dict[str, dict[str, int]]:
    """The tensors of these layers along whose axis the units lie that they make."""
    found: dict[str, dict[str, int]] = {}
    for path, groups in makers.items():
        module = elastic.model.get_submodule(path)
        turned = isinstance(module, nn.modules.conv._ConvTransposeNd | nn.Embedding)
        for tensor, axis in ((f"{path}.weight", 1 if turned else 0), (f"{path}.bias", 0)):
            line = elastic.lines.get((tensor, axis))
            if line is not None and groups & line.parts.keys():
                found.setdefault(path, {})[tensor] = axis
    return found


def _silent(hook: Any) -> Any:
    def call(*arguments: Any) -> None:
        hook(*arguments)

    return call


def _node(output: Any) -> Any:
    return getattr(output, "grad_fn", None)


def _one_example(tensor: Tensor) -> Tensor:
    some = tensor[:1] if tensor.dim() else tensor
    return some.detach().requires_grad_() if some.is_floating_point() else some


def _readers(ends: Sequence[Any]) -> dict[Any, list[Any]]:
    """Which nodes of the autograd graph read what each node made."""
    found: dict[Any, list[Any]] = {}
    seen, waiting = set(ends), list(ends)
    while waiting:
        node = waiting.pop()
        for earlier, _ in node.next_functions:
            if earlier is None:
                continue
            found.setdefault(earlier, []).append(node)
            if earlier not in seen:
                seen.add(earlier)
                waiting.append(earlier)
    return found
