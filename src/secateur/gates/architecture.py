"""A space of architectures over a traced network: counts for its groups, depths for its stacks, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.gates.depth import Stack, stacks
from secateur.gates.width import candidates
from secateur.graph import Group, PruningGraph


@dataclass(frozen=True)
class Choice:
    """One architecture: the number of the candidate of every group and of every stack."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """What can be chosen.

    Attributes:
        counts: candidates of every group that has more than one, ascending.
        stacks: with the candidates of their depths.
        whole: the other groups that can be cut, and why they are not searched.
    """

    counts: Mapping[str, tuple[int, ...]]
    stacks: tuple[Stack, ...]
    whole: Mapping[str, str]

    def units(self, choice: Choice) -> dict[str, int]:
        """How many units of each group stay."""
        return {name: counts[k] for (name, counts), k in zip(self.counts.items(), choice.widths)}

    def dropped(self, choice: Choice) -> tuple[str, ...]:
        """The blocks that are left out."""
        return tuple(block for stack, k in zip(self.stacks, choice.depths) for block in stack.dropped(k))

    @property
    def least(self) -> Choice:
        return Choice((0,) * len(self.counts), (0,) * len(self.stacks))

    @property
    def most(self) -> Choice:
        widths = tuple(len(counts) - 1 for counts in self.counts.values())
        return Choice(widths, tuple(len(stack.kept) - 1 for stack in self.stacks))


def space(
    graph: PruningGraph,
    ratios: Sequence[float],
    *,
    widths: bool = True,
    depth: bool = True,
    round_to: int = 1,
    floor: float = 0.0,
    spared: frozenset[str] | set[str] = frozenset(),
) -> Space:
    """The space of a network.

    Args:
        ratios: shares of each width.
        widths, depth: what is searched.
        round_to, floor: see :func:`secateur.gates.width.candidates`.
        spared: groups that stay whole.
    """
    counts: dict[str, tuple[int, ...]] = {}
    whole: dict[str, str] = {}
    for group in graph.prunable if widths else ():
        found = candidates(group, ratios, round_to, floor)
        reason = "protected" if group.name in spared else _unfit(graph.model, group)
        if not reason and len(found) < 2:
            reason = f"its only candidate is {', '.join(map(str, found))} of {group.width}"
        if reason:
            whole[group.name] = reason
        else:
            counts[group.name] = found
    return Space(counts, stacks(graph) if depth else (), whole)


def _unfit(model: nn.Module, group: Group) -> str:
    if group.kind != "channel":
        return f"its units are {group.kind}s, not channels"
    for member in group.members:
        module: Any = model.get_submodule(member.tensor.rpartition(".")[0])
        if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            return f"it lies in a {type(module).__name__}, whose weights cannot be seen through a window"
    return ""


class Costs:
    """One metric over a space: exactly for a choice, differentiably for distributions.

    Args:
        metric: ``macs`` or ``params``.
    """

    def __init__(self, graph: PruningGraph, space: Space, metric: str):
        self.space, self.metric = space, metric
        self._graph = graph
        self._names = [g.name for g in graph.prunable]
        self._dense = torch.tensor([float(g.width) for g in graph.prunable], dtype=torch.float64)
        self._at = [self._names.index(name) for name in space.counts]
        # Of every stack and every candidate but the last, the network without what that candidate leaves out.
        self._shorter = [
            [graph.without(*stack.dropped(k)) for k in range(len(stack.kept) - 1)] for stack in space.stacks
        ]
        self._known: dict[tuple[int, ...], PruningGraph] = {}
        most = max((len(counts) for counts in space.counts.values()), default=0)
        self._counts = torch.zeros(len(space.counts), most, dtype=torch.float64)
        for row, counts in zip(self._counts, space.counts.values()):
            row[: len(counts)] = torch.tensor(counts, dtype=torch.float64)

    @property
    def dense(self) -> int:
        """Of the whole network."""
        return int(getattr(self._graph.cost(), self.metric))

    def actual(self, choice: Choice) -> int:
        """What the network of this choice costs, to the digit."""
        return int(getattr(self._shortened(choice).cost(self.space.units(choice)), self.metric))

    def left_out(self, choice: Choice) -> tuple[str, ...]:
        """The groups that lie in blocks which are left out, whatever width was chosen for them."""
        there = self._shortened(choice).widths
        return tuple(name for name in self.space.counts if name not in there)

    def _shortened(self, choice: Choice) -> PruningGraph:
        if choice.depths not in self._known:
            self._known[choice.depths] = self._graph.without(*self.space.dropped(choice))
        return self._known[choice.depths]

    def expected(self, widths: Tensor, depths: Sequence[Tensor]) -> Tensor:
        """The cost at the expected widths; a block counts with the probability that the depth reaches it.

        Args:
            widths: probabilities, shape ``[groups, candidates]``, zero where a group has fewer.
            depths: probabilities of every stack's candidates.

        Returns:
            A scalar in float64, differentiable.
        """
        mean = (widths.double() * self._counts).sum(1)
        every = self._dense.clone().index_put((torch.tensor(self._at, dtype=torch.int64),), mean)
        full = getattr(self._graph.cost(every), self.metric)
        total = full
        for shorter, chances in zip(self._shorter, depths):
            for graph, chance in zip(shorter, chances.double()):
                total = total - chance * (full - getattr(graph.cost(every), self.metric))
        return total
