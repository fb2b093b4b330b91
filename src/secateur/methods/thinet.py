"""ThiNet.

Paper: Luo, Wu, Lin, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", ICCV 2017,
arXiv 1707.06342.
Idea: a channel can go if the *next* layer's output hardly changes without it.
Here: at random positions the contributions of all input channels to the next layer's output are sampled; channels are
removed one after another so that the removed sum stays smallest (on the Gram matrix of the contributions), and the
channels that stay get one factor each by least squares. Layers are taken from the front.
Differs: the paper samples one output value per position, here all outputs of the layer count. The paper fine-tunes
between layers; here the factors are fitted to the uncut network and training comes at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from secateur.graph import PruningGraph, select_channels
from secateur.methods.protocol import Evidence, Method
from secateur.scores import Scores, score
from secateur.solvers import remove_greedily
from secateur.surgery import (
    Calibration,
    Plan,
    Refitter,
    by_removal,
    by_scales,
    choose_in_order,
    contributions_of,
    refit_in_order,
)


@dataclass(frozen=True)
class ThiNet(Method):
    """Keep the channels that the next layer misses most.

    Args:
        images: calibration images; by default up to 2,000 (the paper takes about 10 of every class).
        positions: places of a layer's output per image; one where there is but one, as behind a flatten.
        selectors: leave residual streams whole, and let every block choose the channels that it reads
            (:func:`secateur.select_channels`); the paper leaves them whole without.
    """

    images: int | None = None
    positions: int = 10
    selectors: bool = False

    name: ClassVar[str] = "thinet"
    summary: ClassVar[str] = "removes what the next layer misses least, and rescales the rest (Luo 2017)"
    ranking: ClassVar[str] = "layer"
    needs_data: ClassVar[bool] = True

    def prepare(self, model: nn.Module, example_inputs: Any) -> nn.Module:
        return select_channels(model, example_inputs) if self.selectors else model

    def _refitter(self, graph: PruningGraph, evidence: Evidence) -> Refitter:
        calibration = Calibration(evidence.data or (), self.images, self.positions, evidence.seed)
        return Refitter(graph, calibration, compensate=False, remarks=evidence.remarks)

    def choose(
        self, graph: PruningGraph, widths: Mapping[str, int], evidence: Evidence
    ) -> Mapping[str, Sequence[int]] | None:
        return choose_in_order(self._refitter(graph, evidence), widths, by_removal, by_scales)

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        """The order of removal in the uncut network; groups that no plain layer reads by their absolute weights."""
        found = contributions_of(self._refitter(graph, evidence))
        plain = score(graph, "l1")
        return {name: remove_greedily(found[name]).ranks().double() if name in found else plain[name] for name in plain}

    def refit(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> nn.Module:
        return refit_in_order(self._refitter(graph, evidence), plan, by_scales)
