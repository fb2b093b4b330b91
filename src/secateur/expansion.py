"""The network in which a method looks for widths, where that is wider than the one that was given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.budget import Goal
from secateur.graph import PruningGraph, trace
from secateur.job import Job
from secateur.surgery import Plan, cut, widen
from secateur.training import reinitialise


@dataclass(frozen=True)
class Start:
    """Where the judgement starts.

    Attributes:
        graph: over the network that is judged.
        goal: what may remain; shares are shares of the network that was given.
        plan: by which that one was widened; ``None`` if it was not, and the graph is over the given network.
    """

    graph: PruningGraph
    goal: Goal
    plan: Plan | None = None

    def note(self, dense: PruningGraph) -> list[str]:
        """What the card should say."""
        if self.plan is None:
            return []
        wide, base = self.graph.cost(), dense.cost()
        return [
            f"widths were looked for in a network expanded from {base.macs:,} to {wide.macs:,} MACs; budgets and "
            "ratios are those of the network that was given, without the expansion"
        ]

    def finished(self, plan: Plan, dense: PruningGraph) -> Plan:
        """The plan as one of the given network."""
        if self.plan is None:
            return plan
        base, wide = dense.cost(), self.graph.cost()
        return replace(plan, base=self.plan).explain(
            dense_macs=base.macs, dense_params=base.params, expanded_macs=wide.macs, expanded_params=wide.params
        )


def start_of(dense: PruningGraph, example_inputs: Any, asked: Job) -> Start:
    """Widen the network as method or goal ask for it.

    The wider network has new weights, drawn from the seed.

    Raises:
        UsageError: groups that cannot be widened.
    """
    wider = {**asked.goal.expansion(dense), **asked.method.widened(dense)}
    if not wider:
        return Start(dense, asked.goal)
    plan = widen(dense, wider)
    network = cut(dense.model, plan)
    reinitialise(network, asked.seed, norm_scale=norm_scale(dense.model))
    network.train(dense.model.training)
    return Start(trace(network, example_inputs), replace(asked.goal, base=dense.cost()), plan)


def norm_scale(model: nn.Module) -> float:
    """What the batch norms of an untrained network start from: the one scale that they all have, or else 1."""
    found = {
        float(value)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.affine
        for value in module.weight.detach().aminmax()
    }
    return found.pop() if len(found) == 1 else 1.0
