"""``bn_scale``: the scale that batch normalisation gives a channel.

Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, arXiv 1708.06519.
Where several norms scale the same unit, the largest scale counts: one open path is enough to be needed.
"""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from secateur._errors import UsageError
from secateur.graph import PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion, rows


@criterion("bn_scale", "absolute scale of the batch norm behind each unit (Liu 2017)")
def bn_scale(graph: PruningGraph, inputs: Inputs) -> Scores:
    norms = {f"{name}.weight": m for name, m in graph.model.named_modules() if isinstance(m, _BatchNorm) and m.affine}
    scores: Scores = {}
    without = []
    for group in graph.prunable:
        found = [rows(norms[m.tensor].weight.detach(), m).abs().amax(1) for m in group.members if m.tensor in norms]
        if found:
            scores[group.name] = torch.stack(found).amax(0).cpu()
        else:
            without.append(group.name)
    if without:
        raise UsageError(
            f"'bn_scale' needs a batch norm on every group; {len(without)} have none: {', '.join(without[:6])}\n"
            "use a criterion that needs none: l1, l2, fpgm or taylor"
        )
    return scores
