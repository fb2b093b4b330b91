"""A network that runs at the first so many units of its groups without being cut.

Every tensor is seen through its first units while the network runs, and sizes that modules remember follow, as they do
in a cut. So the code of the network never knows, its function is exactly that of the network cut to those units, and
the gradient reaches the full tensors. What is narrower also runs faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.gates.interpolate import pooling
from secateur.gates.width import Pair
from secateur.graph import Group, PruningGraph, sizes
from secateur.graph.clone import Mould
from secateur.graph.constants import places

Pairs = Mapping[str, Pair]


class Line:
    """One axis of a tensor on which units of some groups lie.

    Args:
        size: of the axis.
        parts: positions of every group's units, each of shape ``[width, indices per unit]``.
        counts: what the candidates of every group are, in units.
    """

    def __init__(self, size: int, parts: Mapping[str, np.ndarray], counts: Mapping[str, Sequence[int]]):
        self.size, self.parts, self.counts = size, dict(parts), {name: counts[name] for name in parts}
        #: The only group, if its units are the axis from the first to the last.
        self.whole = next(iter(parts)) if len(parts) == 1 else ""
        if self.whole and not np.array_equal(parts[self.whole].reshape(-1), np.arange(size)):
            self.whole = ""
        self._found: dict[tuple[int, ...], slice | Tensor] = {}

    def index(self, units: Mapping[str, int]) -> slice | Tensor:
        """The indices of the first so many units of every group, and of all that belongs to no group."""
        key = tuple(units[name] for name in self.parts)
        if key not in self._found:
            here = np.ones(self.size, dtype=bool)
            for (_, positions), count in zip(self.parts.items(), key):
                here[positions[count:].reshape(-1)] = False
            alive = np.flatnonzero(here)
            prefix = len(alive) == 0 or alive[-1] == len(alive) - 1
            self._found[key] = slice(0, len(alive)) if prefix else torch.from_numpy(alive)
        return self._found[key]

    def narrowed(self, tensor: Tensor, axis: int, units: Mapping[str, int]) -> Tensor:
        """A tensor of this size along the axis, as far as these units go; a view where that is possible."""
        index = self.index(units)
        if isinstance(index, slice):
            return tensor if index.stop == tensor.shape[axis] else tensor.narrow(axis, 0, index.stop)
        return tensor.index_select(axis, index.to(tensor.device))

    def rows(self, pairs: Pairs, high: bool, units: Mapping[str, int]) -> int | Tensor:
        """Of every index at these units the candidate of its group; 0 for what belongs to no group."""
        if self.whole:
            return pairs[self.whole].high if high else pairs[self.whole].low
        row = np.zeros(self.size, dtype=np.int64)
        for name, positions in self.parts.items():
            row[positions.reshape(-1)] = pairs[name].high if high else pairs[name].low
        index = self.index(units)
        return torch.from_numpy(row[index if isinstance(index, slice) else index.numpy()])

    def mixing(self, pairs: Pairs, like: Tensor) -> tuple[Tensor, Tensor]:
        """What blends two candidates: ``y = own * x + other @ x`` over the indices of the wider ones.

        Returns:
            ``own`` of shape ``[n]``, the weight of each wider candidate, and ``other`` of shape ``[n, n]``, the
            interpolation of each narrower one from its first units to the wider, times its weight.
        """
        if self.whole:
            pair = pairs[self.whole]
            low, high, weights = self._pair(self.whole, pair, like)
            per = self.parts[self.whole].shape[1]
            other = weights[0] * pooling(low, high, like.device).to(like.dtype)
            if per > 1:
                other = torch.kron(other, torch.eye(per, dtype=like.dtype, device=like.device))
            own = weights[1].expand(high * per)
            return own, torch.nn.functional.pad(other, (0, (high - low) * per))
        units = {name: self.counts[name][pairs[name].high] for name in self.parts}
        index = self.index(units)
        alive = np.arange(index.stop) if isinstance(index, slice) else index.numpy()
        own = like.new_ones(len(alive))
        other = like.new_zeros(len(alive), len(alive))
        for name, positions in self.parts.items():
            if pairs[name].single:
                continue
            low, high, weights = self._pair(name, pairs[name], like)
            at = torch.from_numpy(np.searchsorted(alive, positions[:high])).to(like.device)
            own = own.index_put((at.reshape(-1),), weights[1].expand(at.numel()))
            matrix = weights[0] * pooling(low, high, like.device).to(like.dtype)
            for k in range(positions.shape[1]):
                other = other.index_put((at[:, k, None], at[None, :low, k]), matrix)
        return own, other

    def _pair(self, name: str, pair: Pair, like: Tensor) -> tuple[int, int, Tensor]:
        counts = self.counts[name]
        weights = like.new_tensor([0.0, 1.0]) if pair.weights is None else pair.weights.to(like.device, like.dtype)
        return counts[pair.low], counts[pair.high], weights


class Elastic:
    """The network of a graph, to be run at any number of first units of some groups.

    Args:
        graph: over the network that will be run; it is not changed.
        counts: the candidate counts of every group that can be run narrower.

    Attributes:
        lines: by tensor and axis.
    """

    def __init__(self, graph: PruningGraph, counts: Mapping[str, Sequence[int]]):
        self.model = graph.model
        self.groups: dict[str, Group] = {name: graph[name] for name in counts}
        self.dense = {name: group.width for name, group in self.groups.items()}
        mould = Mould(graph.model)
        shapes = {name: tuple(t.shape) for name, t in mould.tensors.items()}
        parts: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for name, group in self.groups.items():
            for member in group.members:
                if member.tensor in shapes:
                    parts.setdefault((member.tensor, member.axis), {})[name] = member.positions
        self.lines = {key: Line(shapes[key[0]][key[1]], found, counts) for key, found in parts.items()}
        self._axes: dict[str, list[int]] = {}
        for tensor, axis in self.lines:
            self._axes.setdefault(tensor, []).append(axis)
        self._places = _places(mould)
        self._sizes = _Sizes(graph, self.groups)

    @contextmanager
    def at(
        self,
        units: Mapping[str, int],
        own: frozenset[str] = frozenset(),
        blended: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
    ) -> Iterator[None]:
        """While this lasts, the network has only the first so many units of every group.

        Args:
            own: tensors whose modules look after themselves.
            blended: the last word on what a tensor is, by its name.
        """
        before: list[tuple[Any, Any, Tensor]] = []
        try:
            for name, axes in self._axes.items():
                if name in own:
                    continue
                places = self._places[name]
                holder, key = places[0]
                tensor = holder[key]
                for axis in axes:
                    tensor = self.lines[name, axis].narrowed(tensor, axis, units)
                tensor = blended(name, tensor)
                for holder, key in places:
                    before.append((holder, key, holder[key]))
                    holder[key] = tensor
            self._sizes.follow(self.model, units)
            yield
        finally:
            for holder, key, tensor in before:
                holder[key] = tensor
            self._sizes.follow(self.model, self.dense)


def _places(mould: Mould) -> dict[str, list[tuple[Any, Any]]]:
    """Where modules hold each tensor, as a container and a key: more than one place for a tied one."""
    names = {id(t): name for name, t in mould.tensors.items()}
    found: dict[str, list[tuple[Any, Any]]] = {}
    for _, module in mould.modules:
        for attribute in module.__dict__:
            for _, holder, key in places(module.__dict__, attribute, attribute):
                if (name := names.get(id(holder[key]))) is not None:
                    found.setdefault(name, []).append((holder, key))
    return found


class _Sizes:
    """Integers in Python that follow the widths."""

    def __init__(self, graph: PruningGraph, groups: Mapping[str, Group]):
        classes = graph.classes.of
        starts = {(axis.tensor, axis.axis): axis.start for axis in graph.ledger.axes}
        group_of = np.full(int(classes.max()) + 1, -1, dtype=np.int64)
        unit_of = np.zeros(len(group_of), dtype=np.int64)
        for number, group in enumerate(groups.values()):
            member = group.members[0]
            own = classes[starts[member.tensor, member.axis] + member.positions[:, 0]]
            group_of[own], unit_of[own] = number, np.arange(group.width)
        self._literals = []
        for literal in graph.literals:
            lines = []
            for line in graph.classes.lines(literal.axis):
                numbers = group_of[line]
                shares = {}
                for number, (name, group) in enumerate(groups.items()):
                    if (here := unit_of[line[numbers == number]]).size:
                        # How many indices the first n units have, for every n.
                        shares[name] = np.concatenate([[0], np.cumsum(np.bincount(here, minlength=group.width))])
                lines.append((int((numbers < 0).sum()), shares))
            if any(shares for _, shares in lines):
                self._literals.append((literal, lines))

    def follow(self, model: nn.Module, units: Mapping[str, int]) -> None:
        for literal, lines in self._literals:
            extent = math.prod(
                fixed + sum(int(shares[name][units[name]]) for name in shares) for fixed, shares in lines
            )
            module = model.get_submodule(literal.module)
            sizes.write(module, literal.attribute, extent * literal.factor, literal.index)
