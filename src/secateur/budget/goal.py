"""What is asked to remain, with all that bounds the choice: the arguments of :func:`plan` as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secateur._errors import BudgetError, UsageError
from secateur.budget.allocate import plan
from secateur.budget.budget import Budget
from secateur.budget.configuration import is_widths, read_widths
from secateur.budget.presets import preset_widths
from secateur.graph import Cost, PruningGraph
from secateur.surgery import Plan


@dataclass(frozen=True)
class Goal:
    """A target and its bounds, see :func:`plan`.

    Args:
        budget: what may remain; or give a ``preset``.
        preset: predefined widths of a paper, or a file of widths (``widths.json`` of a run).
        base: of what a budget is a share; by default the network at hand.
        ranking: ``None`` is the method's own.

    Raises:
        UsageError: both a budget and a preset, or neither.
    """

    budget: Budget | None = None
    preset: str | None = None
    round_to: int = 8
    ranking: str | None = None
    protect: tuple[str, ...] = ()
    floor: float = 0.1
    uniform: bool = False
    base: Cost | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "protect", tuple(self.protect))
        if (self.budget is None) == (self.preset is None):
            raise UsageError("give either a budget (macs=50%) or a preset (resnet56-B), and not both")

    def as_dict(self) -> dict[str, float | str]:
        """As a card says it."""
        return {**self.budget.as_dict()} if self.budget is not None else {"preset": str(self.preset)}

    def weights(self, total: int) -> int:
        """How many single weights may stay, of so many.

        Raises:
            BudgetError: the goal is none of weights, or more than there are.
        """
        if self.budget is None or self.budget.metric != "weights":
            raise BudgetError(
                "this method masks single weights, so its budget is a share of them: weights=20%\n"
                "macs and params are for methods that remove units (l1, slimming ...)"
            )
        count = round(self.budget.target * total) if self.budget.target <= 1 else round(self.budget.target)
        if not 1 <= count <= total:
            raise BudgetError(f"the budget {self.budget} keeps {count:,} of {total:,} weights: keep 1 to all of them")
        return count

    def plan(self, graph: PruningGraph, scores: Mapping[str, Tensor], ranking: str) -> Plan:
        """The best units under the target.

        Args:
            ranking: how the scores compare between groups, unless the goal says it.

        Raises:
            SecateurError: as :func:`plan` and :func:`preset_widths`.
        """
        made = plan(
            graph,
            scores,
            self._absolute if self.budget is not None else self._predefined(graph),
            round_to=self.round_to,
            ranking=self.ranking or ranking,
            protect=self.protect,
            floor=self.floor,
            uniform=self.uniform,
        )
        return made.explain(preset=self.preset) if self.preset else made

    @property
    def _absolute(self) -> Budget:
        """The budget as a number, if it is a share of something else than the network at hand."""
        assert self.budget is not None
        if self.base is None or self.budget.target > 1:
            return self.budget
        return Budget(**{self.budget.metric: self.budget.limit(self.base)})

    def _predefined(self, graph: PruningGraph) -> dict[str, int]:
        name = self.preset or ""
        return read_widths(name).for_graph(graph, name) if is_widths(name) else preset_widths(name, graph)

    def expansion(self, graph: PruningGraph) -> dict[str, int]:
        """The groups that have to be wider than they are before the widths of a file can be cut out of them.

        Raises:
            FileError: the file cannot be read.
        """
        name = self.preset or ""
        return read_widths(name).expansion(graph) if is_widths(name) else {}

    def holds(self, graph: PruningGraph) -> bool:
        """Whether the graph costs no more than the target with all that is left in it."""
        if self.budget is None:
            return False
        return getattr(graph.cost({}), self.budget.metric) <= self._absolute.limit(graph.cost())

    def widths(self, graph: PruningGraph, ranking: str) -> dict[str, int]:
        """How many units of each group stay where every unit is worth the same: the same share of every group."""
        return self.plan(graph, {g.name: torch.ones(g.width) for g in graph.prunable}, ranking).widths

    def keeping(self, graph: PruningGraph, keep: Mapping[str, Sequence[int]], ranking: str) -> Plan:
        """The plan that keeps the given units, whose numbers are those of :meth:`widths`."""
        chosen = {}
        for group in graph.prunable:
            scores = torch.zeros(group.width)
            scores[list(keep.get(group.name, range(group.width)))] = 1
            chosen[group.name] = scores
        widths = {name: len(units) for name, units in keep.items()}
        made = plan(graph, chosen, widths, protect=self.protect)
        even = self.plan(graph, {g.name: torch.ones(g.width) for g in graph.prunable}, ranking).why
        return made.explain(**{k: v for k, v in even.items() if k not in ("macs", "params")})
