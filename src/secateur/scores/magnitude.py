"""``l1`` and ``l2``: how large are the weights that produce a unit?

Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv 1608.08710 (l1);
He et al., "Soft Filter Pruning", IJCAI 2018, arXiv 1808.06866 (l2). Where several layers produce the same unit (the sum
of a residual stage), their norms are added.
"""

from __future__ import annotations

from secateur.graph import PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion, filters


@criterion("l1", "sum of absolute weights of each unit's filters (Li 2017)")
def l1(graph: PruningGraph, inputs: Inputs) -> Scores:
    return {g.name: sum(w.abs().sum(1) for w in filters(graph, g)).cpu() for g in graph.prunable}  # type: ignore[union-attr]


@criterion("l2", "Euclidean norm of each unit's filters")
def l2(graph: PruningGraph, inputs: Inputs) -> Scores:
    return {g.name: sum(w.norm(dim=1) for w in filters(graph, g)).cpu() for g in graph.prunable}  # type: ignore[union-attr]
