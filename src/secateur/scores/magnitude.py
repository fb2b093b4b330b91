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
_AT_ONCE = 1 << 17

#: Puts a measure of some numbers into a tensor of the same shape.
Measure = Callable[[Tensor, Tensor], Tensor]


class _Sums:
    """A measure (of absolute values or squares) summed over all that a tensor holds of each unit.

    PyTorch sums pairwise: in single precision a sum over an index is as exact as the weights are, and takes half the
    time of one in double precision. Sums over indices and over tensors are in double precision. All measures go to the
    same place in memory: fresh pages would take several times as long as the sums.
    """

    def __init__(self, measure: Measure, least: torch.dtype):
        """Args:
        least: measures have at least this precision.
        """
        self._measure, self._least = measure, least
        self._rooms: dict[tuple, Tensor] = {}
        self._places: dict[tuple, Tensor] = {}

    def __call__(self, tensor: Tensor, member: Member) -> np.ndarray:
        # In the order of memory, whichever axis it is: other orders take several times as long.
        rows = max(1, _AT_ONCE * len(tensor) // max(1, tensor.numel()))
        pieces = tensor.split(rows) if rows < len(tensor) else [tensor]
        sums = [self._along(member.axis, self._measure(some, self._place(some))) for some in pieces]
        if member.axis == 0:
            total = (torch.cat(sums) if len(sums) > 1 else sums[0]).double()
        else:
            total = torch.stack(sums).sum(0, dtype=torch.float64)
        return total.cpu().numpy()[member.positions].sum(axis=1)

    @staticmethod
    def _along(axis: int, measured: Tensor) -> Tensor:
        """Sums over all other axes."""
        if axis == 0:
            return measured.reshape(len(measured), -1).sum(1)
        others = [k for k in range(measured.dim()) if k != axis]
        return measured.sum(others)

    def _place(self, some: Tensor) -> Tensor:
        key = (some.shape, some.dtype, some.device)
        if key not in self._places:
            dtype, size = torch.promote_types(some.dtype, self._least), some.numel()
            room = self._rooms.get((dtype, some.device))
            if room is None or len(room) < size:
                room = some.new_empty(max(size, _AT_ONCE), dtype=dtype)
                self._rooms[dtype, some.device] = room
            self._places[key] = room[:size].view(some.shape)
        return self._places[key]


def _absolute(some: Tensor, place: Tensor) -> Tensor:
    return torch.abs(some, out=place) if some.dtype == place.dtype else place.copy_(some).abs_()


def _squares(some: Tensor, place: Tensor) -> Tensor:
    return place.copy_(some).square_()


def _norms(graph: PruningGraph, norm: Callable[[Tensor, Member], np.ndarray]) -> Scores:
    return {
        name: torch.from_numpy(functools.reduce(np.add, [norm(tensor, member) for tensor, member in found]))
        for name, found in producers(graph).items()
    }


@criterion("l1", "sum of absolute weights of each unit's filters (Li 2017)")
def l1(graph: PruningGraph, inputs: Inputs) -> Scores:
    return _norms(graph, _Sums(_absolute, torch.float32))


@criterion("l2", "Euclidean norm of each unit's filters")
def l2(graph: PruningGraph, inputs: Inputs) -> Scores:
    # In half precision, squares would overflow.
    sums = _Sums(_squares, torch.float64)
    return _norms(graph, lambda tensor, member: np.sqrt(sums(tensor, member)))
