"""``l1`` and ``l2``: how large are the weights that produce a unit?

Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv 1608.08710 (l1);
He et al., "Soft Filter Pruning", IJCAI 2018, arXiv 1808.06866 (l2). Where several layers produce the same unit (the sum
of a residual stage), their norms are added.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from secateur.graph import Member, PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion, producers

#: Numbers that are looked at in one go: a copy of so many stays in the processor's cache.
_AT_ONCE = 1 << 16


def _per_unit(tensor: Tensor, member: Member, measure: Callable[[Tensor], Tensor]) -> np.ndarray:
    """A measure (of absolute values or squares) summed over all that a tensor holds of each unit.

    PyTorch sums pairwise: in single precision a sum over an index is as exact as the weights are, and takes half the
    time of one in double precision. Sums over indices and over tensors are in double precision.
    """
    by_index = tensor.movedim(member.axis, 0) if member.axis else tensor
    rows = max(1, _AT_ONCE * len(by_index) // max(1, by_index.numel()))
    pieces = by_index.split(rows) if rows < len(by_index) else [by_index]
    exact = torch.promote_types(tensor.dtype, torch.float32)
    sums = [measure(some).reshape(len(some), -1).to(exact).sum(1) for some in pieces]
    per_index = (torch.cat(sums) if len(sums) > 1 else sums[0]).double().cpu().numpy()
    return per_index[member.positions].sum(axis=1)


def _squares(tensor: Tensor) -> Tensor:
    # In half precision, squares would overflow.
    return tensor.double().square_()


def _norms(graph: PruningGraph, norm: Callable[[Tensor, Member], np.ndarray]) -> Scores:
    return {
        name: torch.from_numpy(functools.reduce(np.add, [norm(tensor, member) for tensor, member in found]))
        for name, found in producers(graph).items()
    }


@criterion("l1", "sum of absolute weights of each unit's filters (Li 2017)")
def l1(graph: PruningGraph, inputs: Inputs) -> Scores:
    return _norms(graph, lambda tensor, member: _per_unit(tensor, member, torch.abs))


@criterion("l2", "Euclidean norm of each unit's filters")
def l2(graph: PruningGraph, inputs: Inputs) -> Scores:
    return _norms(graph, lambda tensor, member: np.sqrt(_per_unit(tensor, member, _squares)))
