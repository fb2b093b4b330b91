"""XᵀX of a block of rows, added to sums in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from secateur.solvers.threads import SMALL

#: Rows of one product of oneDNN, which adds them up in one chain where MKL makes several: twice as many are off by
#: twice as much, half as many take a fifth longer.
_CHAIN = 256

#: Adds to the sums [p, p] the products of rows [rows, p], on and below the diagonal: one panel of rows (start, stop) of
#: the sums after the other.
RankUpdate = Callable[[Tensor, Tensor, Sequence[tuple[int, int]]], None]


def rank_update(columns: int, dtype: torch.dtype) -> RankUpdate:
    """The fastest for so many columns on this machine.

    PyTorch's matmul is MKL's, which fills vectors of 512 bits on Intel's processors only. oneDNN fills them on others
    too, where it is more than twice as fast; with few rows at a time that still is a third less time for the whole
    pass. (The sums have to stay in the cache, as they are read and written once for every such block.)
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    return _by_onednn if wide and dtype == torch.float32 and columns <= SMALL else _by_matmul


def _by_matmul(sums: Tensor, x: Tensor, panels: Sequence[tuple[int, int]]) -> None:
    for start, stop in panels:
        sums[start:stop, :stop] += x[:, start:stop].T @ x[:, :stop]


def _by_onednn(sums: Tensor, x: Tensor, panels: Sequence[tuple[int, int]]) -> None:
    chains: list[Tensor] = []
    for rows in x.split(_CHAIN):
        columns = rows.T.contiguous()
        found = [functional.linear(columns[start:stop].to_mkldnn(), columns[:stop]) for start, stop in panels]
        chains = [total.add_(part) for total, part in zip(chains, found, strict=True)] if chains else found
    for (start, stop), total in zip(panels, chains, strict=True):
        sums[start:stop, :stop] += total.to_dense()
