"""``fpgm``: how far is a filter from the geometric median of its layer?

Source: He, Liu, Wang, Hu, Yang, "Filter Pruning via Geometric Median", CVPR 2019, arXiv 1811.00250. A filter near the
median can be replaced by the others; its score is the sum of its Euclidean distances to all filters of the layer.
"""

from __future__ import annotations

import torch

from secateur.graph import PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion, producers, rows


@criterion("fpgm", "sum of distances to the other filters of the layer (He 2019)")
def fpgm(graph: PruningGraph, inputs: Inputs) -> Scores:
    scores = {}
    for name, found in producers(graph).items():
        filters = [rows(tensor, member) for tensor, member in found]
        scores[name] = torch.stack([torch.cdist(w, w).sum(1) for w in filters]).sum(0).cpu()
    return scores
