"""Lottery tickets.

Paper: Frankle, Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, arXiv 1803.03635; the comparison is that of
"Rethinking the Value of Network Pruning", ICLR 2019, arXiv 1810.05270, section 6.
Idea: a trained network's largest weights mark a subnetwork of the *untrained* one that trains as well as the whole.
Here: the method is given an untrained network. It trains a copy, keeps the largest weights, goes back to the values
that these had before training, and does so in rounds, each removing the same share of what is left. Then
``recover="retrain"`` trains the ticket as the dense network was trained, and ``recover="scratch-e"`` trains the same
mask from other random weights: the comparison that decides.
Differs: ``lottery-units`` does the same with units ranked by their absolute weights, so that the ticket is really
smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.budget import Goal
from secateur.graph import PruningGraph
from secateur.methods.protocol import Evidence, Law, Method, WeightMethod
from secateur.scores import Scores, score
from secateur.surgery import Hold, Masks, Plan, largest, layers_of


def _sizes(model: nn.Module) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().abs().cpu() for name in layers_of(model)}


@dataclass(frozen=True)
class Lottery(WeightMethod):
    """Find a winning ticket of single weights.

    Args:
        rounds: how often the network is trained and masked.
        epochs, lr: of every round; by default those of the dense training. The paper compares rates of 0.1 and 0.01.

    Raises:
        UsageError: fewer rounds than one.
    """

    rounds: int = 1
    epochs: int | None = None
    lr: float | None = None

    name: ClassVar[str] = "lottery"
    summary: ClassVar[str] = "trains, keeps the largest weights, rewinds them to their start (Frankle 2019)"
    trains: ClassVar[bool] = True
    starts_untrained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"lottery: rounds={self.rounds} has to be 1 or more")

    def schedule(self) -> Mapping[str, Any]:
        return {k: v for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v is not None}

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> Rewind:
        return Rewind(graph.model)

    def between(self, graph: PruningGraph, goal: Goal, law: Law, done: int) -> None:
        """After a round: mask by what was learned, and go back to the start."""
        assert isinstance(law, Rewind)
        sizes = _sizes(graph.model)
        total = sum(t.numel() for t in sizes.values())
        share = goal.weights(total) / total
        law.begin_again(graph.model, law.masked(sizes, round(total * share ** (done / self.rounds))))

    def masks(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> Masks:
        sizes = _sizes(graph.model)
        count = goal.weights(sum(t.numel() for t in sizes.values()))
        law = evidence.law
        return law.masked(sizes, count) if isinstance(law, Rewind) else largest(sizes, count)

    def refit(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> nn.Module:
        return evidence.law.start_of(graph.model) if isinstance(evidence.law, Rewind) else graph.model


@dataclass(frozen=True)
class LotteryUnits(Method):
    """Find a winning ticket of units, by the absolute weights of the trained network.

    Args:
        epochs, lr: of the training; by default those of the dense training.
    """

    epochs: int | None = None
    lr: float | None = None

    name: ClassVar[str] = "lottery-units"
    summary: ClassVar[str] = "trains, keeps the units with the largest weights, rewinds them to their start"
    ranking: ClassVar[str] = "layer"
    trains: ClassVar[bool] = True
    starts_untrained: ClassVar[bool] = True

    def schedule(self) -> Mapping[str, Any]:
        return {k: v for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v is not None}

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> Rewind:
        return Rewind(graph.model)

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return score(graph, "l1")

    def refit(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> nn.Module:
        return evidence.law.start_of(graph.model) if isinstance(evidence.law, Rewind) else graph.model


class Rewind(Law):
    """Remembers what a network was before it was trained, and holds the masks of earlier rounds meanwhile."""

    def __init__(self, model: nn.Module):
        self._start = {name: t.detach().clone() for name, t in model.state_dict().items()}
        self._kept: Masks | None = None

    def after_step(self, model: nn.Module) -> None:
        if self._kept is not None:
            Hold(self._kept).after_step(model)

    def masked(self, sizes: Mapping[str, Tensor], count: int) -> Masks:
        """The largest weights; what an earlier round removed is none of them, however many are equal."""
        if self._kept is None:
            return largest(sizes, count)
        return largest({n: t.masked_fill(~self._kept.keep[n], -1.0) for n, t in sizes.items()}, count)

    def begin_again(self, model: nn.Module, masks: Masks) -> None:
        """Back to the start, under masks."""
        self._kept = masks
        with torch.no_grad():
            model.load_state_dict(self._start)
        masks.apply(model)

    def start_of(self, model: nn.Module) -> nn.Module:
        """A copy of the model as it was before training."""
        begun = copy.deepcopy(model)
        begun.load_state_dict(self._start)
        return begun
