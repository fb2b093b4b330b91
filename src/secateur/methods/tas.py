"""Transformable architecture search.

Paper: Dong, Yang, "Network Pruning via Transformable Architecture Search", NeurIPS 2019, arXiv 1905.09717; released
code of D-X-Y/AutoDL-Projects.
Idea: what matters of a pruned network is its shape, so search the widths and depths by gradient, and train what is
found from new weights with the unpruned network as its teacher.
Here: every group that can be cut has logits over candidate counts, every stack of equal residual blocks over numbers
of blocks. In a pass two candidates of every group run, drawn by Gumbel-softmax, each with a batch norm of its own,
brought to one number of channels by interpolation; a stack gives the weighted sum of what comes out after each number
of blocks. Weights are trained on one half of the training data; after each step the logits take one on the other half:
the loss plus the signed logarithm of the expected cost, whose sign the cost of the most likely architecture decides.
The most likely architecture of the last epoch is built.
Differs: all layers that share a width (a residual stream) share its logits, where the paper gives each its own and
mends the sums with 1x1 convolutions. If the last architecture misses the band around the budget, the latest that hit
it is taken, and if none did, the last one with the least likely steps to reach it; the card says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from secateur._errors import BudgetError, UsageError
from secateur.budget import Goal
from secateur.budget.allocate import protected
from secateur.gates.architecture import Costs, Space, space
from secateur.gates.width import parse_ratios
from secateur.graph import PruningGraph
from secateur.methods.protocol import Evidence, Method
from secateur.methods.tas_landing import Target
from secateur.methods.tas_search import Search, Settings
from secateur.scores import Scores
from secateur.surgery import Plan, make_plan

SEARCHED = ("both", "widths", "depths")
STARTS = ("fresh", "trained")


@dataclass(frozen=True)
class TAS(Method):
    """Search widths and depths by gradient; train what was found with the dense network as its teacher.

    Args:
        ratios: candidates of every width, as shares of it.
        search: ``both``, ``widths`` or ``depths``.
        tolerance: the cost may differ from the budget by this share of it.
        cost_weight: of the cost in the loss of the logits.
        temperature, last_temperature: of the Gumbel-softmax, from the first to the last epoch, by a cosine.
        arch_lr, arch_decay: learning rate and weight decay of the logits (Adam, betas 0.5 and 0.999).
        start: search with ``fresh`` weights, as the paper does, or go on from the ``trained`` ones (short runs).
        epochs, lr: of the search; by default those of the dense training (the paper's is 600 epochs at 0.1).
        weight_decay: of the weights during the search.

    Raises:
        UsageError: options that do not work, all of them at once.
    """

    ratios: str = "0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    search: str = "both"
    tolerance: float = 0.05
    cost_weight: float = 2.0
    temperature: float = 5.0
    last_temperature: float = 0.1
    arch_lr: float = 1e-3
    arch_decay: float = 1e-3
    start: str = "fresh"
    epochs: int | None = None
    lr: float | None = None
    weight_decay: float = 5e-4

    name: ClassVar[str] = "tas"
    summary: ClassVar[str] = "searches widths and depths by gradient, then trains them with a teacher (Dong 2019)"
    ranking: ClassVar[str] = "layer"
    trains: ClassVar[bool] = True
    teacher: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        problems = []
        try:
            parse_ratios(self.ratios)
        except UsageError as error:
            problems.append(str(error))
        for name, known in (("search", SEARCHED), ("start", STARTS)):
            if getattr(self, name) not in known:
                problems.append(f"{name}={getattr(self, name)!r} is not known; choose from {', '.join(known)}")
        if not 0 < self.tolerance < 1:
            problems.append(f"tolerance={self.tolerance!r} has to be between 0 and 1, a share of the budget")
        for name in ("temperature", "last_temperature", "arch_lr"):
            if not getattr(self, name) > 0:
                problems.append(f"{name}={getattr(self, name)!r} has to be above 0")
        for name in ("cost_weight", "arch_decay", "weight_decay"):
            if not getattr(self, name) >= 0:
                problems.append(f"{name}={getattr(self, name)!r} has to be 0 or more")
        if problems:
            raise UsageError("\n".join(["these options of tas do not work:", *problems]))

    @property
    def redraws(self) -> bool:
        return self.start == "fresh"

    def schedule(self) -> Mapping[str, Any]:
        own = {k: v for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v is not None}
        # Every step has other shapes, so nothing can be recorded.
        fixed = {"optimiser": "sgd", "momentum": 0.9, "nesterov": True, "schedule": "cosine", "compiled": False}
        return {**own, **fixed, "weight_decay": self.weight_decay}

    def feasible(self, graph: PruningGraph, goal: Goal) -> None:
        self._target(graph, goal)

    def law_towards(self, graph: PruningGraph, goal: Goal, epochs: int) -> Search:
        searched, target = self._target(graph, goal)
        settings = Settings(self.cost_weight, self.temperature, self.last_temperature, self.arch_lr, self.arch_decay)
        return Search(graph, searched, target, settings, epochs)

    def leave_out(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> tuple[str, ...]:
        law = evidence.law
        return law.space.dropped(law.found) if isinstance(law, Search) else ()

    def spend(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> Plan | None:
        """The first units of every group, as many as were found."""
        law = evidence.law
        if not isinstance(law, Search):
            return None
        full = graph.widths
        units = {name: count for name, count in law.space.units(law.found).items() if name in full}
        cost, dense = graph.cost(units), graph.cost()
        return make_plan(
            graph,
            {name: range(count) for name, count in units.items() if count < full[name]},
            ranking=self.ranking,
            round_to=goal.round_to,
            floor=goal.floor,
            protect=list(goal.protect),
            budget=goal.as_dict(),
            macs=cost.macs,
            params=cost.params,
            dense_macs=dense.macs,
            dense_params=dense.params,
        )

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        """Only counts are searched: of equal counts the first units stay."""
        return {g.name: torch.arange(g.width, 0, -1, dtype=torch.float64) for g in graph.prunable}

    def notes(self, evidence: Evidence) -> list[str]:
        return evidence.law.notes() if isinstance(evidence.law, Search) else []

    def record(self, evidence: Evidence) -> Mapping[str, Any]:
        return {"search": evidence.law.record()} if isinstance(evidence.law, Search) else {}

    def _target(self, graph: PruningGraph, goal: Goal) -> tuple[Space, Target]:
        """What can be searched, and where to.

        Raises:
            UsageError: there is nothing to search, or the goal is none that a search could have.
            BudgetError: it is out of reach of the candidates.
        """
        if goal.budget is None:
            raise UsageError("tas searches for widths itself: give a budget (macs=50%) and no preset")
        if goal.uniform:
            raise UsageError("tas searches every width by itself: leave uniform out")
        found = space(
            graph,
            parse_ratios(self.ratios),
            widths=self.search != "depths",
            depth=self.search != "widths",
            round_to=goal.round_to,
            floor=goal.floor,
            spared=protected(graph, goal.protect),
        )
        if not found.counts and not found.stacks:
            raise UsageError(_nothing(graph, found, self.search))
        costs = Costs(graph, found, goal.budget.metric)
        target = Target(costs, goal.budget.limit(graph.cost()), self.tolerance)
        least, most = costs.actual(found.least), costs.actual(found.most)
        if target.high < least or target.low > most:
            raise BudgetError(_unreachable(goal, target, least, most, costs.dense, found))
        return found, target


def _nothing(graph: PruningGraph, found: Space, search: str) -> str:
    lines = [f"tas has nothing to search in this network (search={search!r}):"]
    if search != "depths":
        locked = [f"{g.name}: {g.reason}" for g in graph.groups if g.locked]
        lines.append("- no group can be cut" if not found.whole else "- no group has two candidates")
        lines += [f"  {line[:150]}" for line in (*[f"{n}: {why}" for n, why in found.whole.items()], *locked)][:4]
    if search != "widths":
        lines.append("- no residual stack has blocks that could be left out")
    return "\n".join([*lines, "take other ratios, a smaller round_to, or another method"])


def _unreachable(goal: Goal, target: Target, least: int, most: int, dense: int, found: Space) -> str:
    metric, what = target.costs.metric, f"{len(found.counts)} widths and {len(found.stacks)} depths"
    way = (
        "add smaller ratios, lower round_to or floor, or ask for more"
        if target.high < least
        else "add larger ratios (1 is the whole width), or ask for less"
    )
    return (
        f"the budget {goal.budget} is out of the candidates' reach: it asks for {target.wanted:,.0f} {metric}, "
        f"within {target.tolerance:.0%}\n"
        f"the candidates of {what} reach from {least:,} ({least / dense:.1%} of the dense {dense:,}), the floor, "
        f"to {most:,} ({most / dense:.1%}), the ceiling\n{way}"
    )
