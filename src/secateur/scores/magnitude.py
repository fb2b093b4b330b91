"""``l1`` and ``l2``: how large are the weights that produce a unit?

Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv 1608.08710 (l1);
He et al., "Soft Filter Pruning", IJCAI 2018, arXiv 1808.06866 (l2). Where several layers produce the same unit (the sum
of a residual stage), their norms are added.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from secateur.graph import Member, PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion, producers


def _per_unit(tensor: Tensor, member: Member, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """A measure (of absolute values or squares) summed over all that a tensor holds of each unit, in float64."""
    by_index = measure(tensor.movedim(member.axis, 0).flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1))
    sums = by_index.sum(1, dtype=torch.float64)
    positions = torch.as_tensor(member.positions, device=tensor.device)
    return sums[positions].sum(1)


@criterion("l1", "sum of absolute weights of each unit's filters (Li 2017)")
def l1(graph: PruningGraph, inputs: Inputs) -> Scores:
    return {
        name: torch.stack([_per_unit(tensor, member, torch.abs) for tensor, member in found]).sum(0).cpu()
        for name, found in producers(graph).items()
    }


@criterion("l2", "Euclidean norm of each unit's filters")
def l2(graph: PruningGraph, inputs: Inputs) -> Scores:
    return {
        name: torch.stack([_per_unit(tensor.double(), member, torch.square).sqrt() for tensor, member in found])
        .sum(0)
        .cpu()
        for name, found in producers(graph).items()
    }
