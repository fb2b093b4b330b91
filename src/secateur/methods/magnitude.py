"""Unstructured magnitude pruning.

Paper: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
arXiv 1506.02626; protocol of "Rethinking the Value of Network Pruning", ICLR 2019, arXiv 1810.05270.
Idea: the smallest weights of the whole network can go.
Here: one threshold over the weights of all convolutions together (of all linear layers, if there are no convolutions);
norms and biases are not touched. Masks are stored and hold through training. ``pattern="2:4"`` keeps two of every four
neighbouring inputs instead.
Differs: nothing becomes smaller or faster by itself. The card counts what is left and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur._errors import BudgetError, UsageError
from secateur.budget import Goal
from secateur.graph import PruningGraph
from secateur.methods.protocol import Evidence, WeightMethod
from secateur.surgery import Masks, largest, layers_of, n_of_m


@dataclass(frozen=True)
class Magnitude(WeightMethod):
    """Set the smallest weights to zero.

    Args:
        pattern: ``"N:M"``, for instance ``"2:4"``: N of every M neighbours along the input stay. The budget has to be
            ``weights=N/M``.

    Raises:
        UsageError: a pattern that is none.
    """

    pattern: str | None = None

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "sets the smallest single weights to zero; nothing gets smaller (Han 2015)"

    def __post_init__(self) -> None:
        if self.pattern is not None:
            self._parsed()

    def _parsed(self) -> tuple[int, int]:
        try:
            n, m = (int(part) for part in str(self.pattern).split(":"))
        except ValueError:
            n = m = 0
        if not 1 <= n < m:
            raise UsageError(f"magnitude: pattern={self.pattern!r} is none: write N:M with N < M, for instance 2:4")
        return n, m

    def masks(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> Masks:
        parameters = dict(graph.model.named_parameters())
        sizes = {name: parameters[name].detach().abs().cpu() for name in layers_of(graph.model)}
        count = goal.weights(sum(t.numel() for t in sizes.values()))
        if self.pattern is None:
            return largest(sizes, count)
        n, m = self._parsed()
        if goal.budget is None or abs(goal.budget.target - n / m) > 1e-9:
            raise BudgetError(f"magnitude: pattern={self.pattern!r} keeps {n} of {m}: ask for weights={n / m:g}")
        return n_of_m(sizes, n, m)
