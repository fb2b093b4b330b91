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

#: Numbers that are looked at in one go: a copy of so many stays in the processor's cache.
_AT_ONCE = 1 << 17


def _per_unit(tensor: Tensor, member: Member, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """A measure (of absolute values or squares) summed over all that a tensor holds of each unit, in float64."""
    by_index = tensor.movedim(member.axis, 0).flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
    rows = max(1, _AT_ONCE // max(1, by_index.shape[1]))
    sums = torch.cat([measure(some).sum(1, dtype=torch.float64) for some in by_index.split(rows)])
    positions = torch.as_tensor(member.positions, device=tensor.device)
    return sums[positions].sum(1)


def _squares(tensor: Tensor) -> Tensor:
    # In half precision, squares would overflow.
    return tensor.double().square_()


@criterion("l1", "sum of absolute weights of each unit's filters (Li 2017)")
def l1(graph: PruningGraph, inputs: Inputs) -> Scores:
    return {
        name: torch.stack([_per_unit(tensor, member, torch.abs) for tensor, member in found]).sum(0).cpu()
        for name, found in producers(graph).items()
    }


@criterion("l2", "Euclidean norm of each unit's filters")
def l2(graph: PruningGraph, inputs: Inputs) -> Scores:
    return {
        name: torch.stack([_per_unit(tensor, member, _squares).sqrt() for tensor, member in found]).sum(0).cpu()
        for name, found in producers(graph).items()
    }
