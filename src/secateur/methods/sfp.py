"""Soft filter pruning.

Paper: He, Kang, Dong, Fu, Yang, "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks", IJCAI 2018,
arXiv 1808.06866.
Idea: filters that are set to zero after an epoch go on being trained, so they may come back; only what is zero at the
end is removed.
Here: after every epoch the filters of the units with the smallest Euclidean norm of every group are set to zero, as
many as the budget takes from it at the same share of every group. Norms are left alone meanwhile, since a unit whose
norm is zero as well gets no gradient and never comes back; in the end they go with the filters.
Differs: the paper leaves the norms' biases of removed filters in the network, where they are constants.
Residual sums are pruned together with all that is tied to them (protect them to leave them alone).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.graph import Group, PruningGraph
from secateur.methods.protocol import Evidence, Law, Method
from secateur.scores import Scores, score


@dataclass(frozen=True)
class SFP(Method):
    """Zero the smallest filters after every epoch and let them come back; remove what is zero at the end.

    Args:
        epochs, lr: of the training; by default those of the dense training (the paper's is 200 epochs).
    """

    epochs: int | None = None
    lr: float | None = None

    name: ClassVar[str] = "sfp"
    summary: ClassVar[str] = "zeroes the smallest filters after every epoch, and they may come back (He 2018)"
    ranking: ClassVar[str] = "layer"
    trains: ClassVar[bool] = True

    def schedule(self) -> Mapping[str, Any]:
        return {k: v for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v is not None}

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> SoftZero:
        return SoftZero(graph, widths)

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return score(graph, "l2")


class SoftZero(Law):
    """Sets units to zero at the end of every epoch.

    Attributes:
        zeroed: the units of each group that were set to zero last.
        returned: how many units that had been zero were needed again at a later epoch's end.
    """

    def __init__(self, graph: PruningGraph, widths: Mapping[str, int]):
        self._graph = graph
        self._keep = {g.name: widths.get(g.name, g.width) for g in graph.prunable}
        self.zeroed: dict[str, Tensor] = {}
        self.returned = 0

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        scores = score(self._graph, "l2")
        for group in self._graph.prunable:
            order = torch.argsort(scores[group.name], descending=True, stable=True)
            gone = order[self._keep[group.name] :].sort().values
            before = self.zeroed.get(group.name)
            if before is not None:
                self.returned += len(set(before.tolist()) - set(gone.tolist()))
            self.zeroed[group.name] = gone
            self._zero(group, ("out",))

    def _zero(self, group: Group, roles: tuple[str, ...]) -> None:
        parameters = dict(self._graph.model.named_parameters())
        for member in group.members:
            if member.role in roles and member.tensor in parameters:
                tensor = parameters[member.tensor].detach()
                places = torch.as_tensor(member.positions)[self.zeroed[group.name]].reshape(-1).long()
                tensor.index_fill_(member.axis, places.to(tensor.device), 0)

    def finish(self) -> None:
        """What is left of a unit beside its filter (the bias of its norm) would be a constant: it goes, too."""
        for group in self._graph.prunable:
            if group.name in self.zeroed:
                self._zero(group, ("out", "along"))

    def state_dict(self) -> dict[str, Any]:
        return {"returned": self.returned, **{f"zeroed/{n}": t for n, t in self.zeroed.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.returned = int(state["returned"])
        self.zeroed = {n.partition("/")[2]: t for n, t in state.items() if n.startswith("zeroed/")}
