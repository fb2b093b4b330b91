"""L1-norm filter pruning.

Paper: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv 1608.08710.
Idea: filters with small absolute weights give weak feature maps, so the smallest of every layer can go.
Here: the sum of absolute weights of each unit, ranked inside its layer; the share removed is the same in every layer,
and bisection sets it so that the budget holds. The paper's own widths are presets (``resnet56-B`` …).
Differs: the paper picks the share per stage by a sensitivity study and leaves residual sums alone; here they are cut
together with all that is tied to them, unless protected. Where several layers produce a unit, their norms are added.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.graph import PruningGraph
from secateur.methods.protocol import Evidence, Method
from secateur.scores import Scores, score


@dataclass(frozen=True)
class L1(Method):
    """Keep the filters with the largest absolute weights."""

    name = "l1"
    summary = "smallest sum of absolute weights goes first (Li 2017)"
    ranking = "layer"

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return score(graph, "l1")
