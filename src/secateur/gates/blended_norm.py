"""A batch norm for every candidate width in one module, and the blend of two of them.

Paper: TAS (arXiv 1905.09717): statistics of narrow and wide networks clash, so every candidate has a batch norm of its
own; their outputs are brought to the wider one's channels by interpolation and added with the weights of the draw.
Here: scales, shifts and running statistics become tables of shape ``[candidates, channels]``. In training both
candidates see the same batch, whose mean and variance per channel are the same for both, so the map is normalised once,
and the two affine parts with the interpolation between them are one 1x1 convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.gates.elastic import Line, Pairs

_TABLES = ("weight", "bias", "running_mean", "running_var")
_MIX: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class BlendedNorm:
    """Takes a batch norm over until :meth:`settle`.

    Attributes:
        makes: whether what enters is a layer's output as it is, so that the blend belongs here. Where a blend enters,
            the norm of the wider candidate is the one that fits.
        pairs: the candidates of the next pass; set by whoever runs the network.
        tracks: whether running statistics move.
    """

    def __init__(self, norm: _BatchNorm, line: Line):
        self.norm, self.line = norm, line
        self.makes = False
        self.tracks = True
        self.pairs: Pairs = {}
        candidates = max(len(counts) for counts in line.counts.values())
        for name in _TABLES:
            tensor = getattr(norm, name)
            if isinstance(tensor, nn.Parameter):
                table = tensor.detach().expand(candidates, -1).clone()
                norm._parameters[name] = nn.Parameter(table, requires_grad=tensor.requires_grad)
            elif tensor is not None:
                norm._buffers[name] = tensor.expand(candidates, -1).clone()
        self._plain = type(norm).forward is _BatchNorm.forward
        norm.forward = self.forward  # type: ignore[method-assign]

    def settle(self, pairs: Pairs) -> None:
        """A plain batch norm again, with the tables' rows of the wider candidates."""
        rows = self.line.rows(pairs, True, {name: len(positions) for name, positions in self.line.parts.items()})
        for name in _TABLES:
            table = getattr(self.norm, name)
            if table is None:
                continue
            row = table.detach()[rows] if isinstance(rows, int) else table.detach()[rows, torch.arange(len(rows))]
            if isinstance(table, nn.Parameter):
                self.norm._parameters[name] = nn.Parameter(row.clone(), requires_grad=table.requires_grad)
            else:
                self.norm._buffers[name] = row.clone()
        del self.norm.forward

    def forward(self, x: Tensor) -> Tensor:
        """The blend of the pairs' candidates; ``x`` has the wider ones' channels."""
        single = not self.makes or all(self.pairs[name].single for name in self.line.parts)
        if not self._plain or (not single and not self._by_batch):
            return self._called(x, single)
        if single:
            with _Rows(self, True) as row:
                return self._normalised(x, row)
        y = self._standardised(x)
        weight, bias = self.norm.weight, self.norm.bias
        # In mixed precision the map is shorter than what the norm computes with.
        own, mixed = self.line.mixing(self.pairs, y if weight is None else weight)
        matrix, shift = torch.diag(own) + mixed, None
        if weight is not None:
            matrix = torch.diag(own * self._of(weight, True)) + mixed * self._widened(self._of(weight, False), len(own))
        if bias is not None:
            shift = torch.addmv(own * self._of(bias, True), mixed, self._widened(self._of(bias, False), len(own)))
        return mix(y, matrix, shift)

    @property
    def _by_batch(self) -> bool:
        return self.norm.training or self.norm.running_mean is None

    def _units(self, high: bool) -> dict[str, int]:
        counts = self.line.counts
        return {n: counts[n][self.pairs[n].high if high else self.pairs[n].low] for n in self.line.parts}

    def _places(self) -> slice | Tensor:
        """Where the channels of the narrower candidates lie among those of the wider."""
        low, high = self.line.index(self._units(False)), self.line.index(self._units(True))
        if isinstance(low, slice) and isinstance(high, slice):
            return low
        every = torch.arange(self.line.size)
        low, high = every[low], every[high]
        return torch.searchsorted(high, low)

    def _of(self, table: Tensor, high: bool) -> Tensor:
        """The row of one side's candidates, as a vector of its channels."""
        units = self._units(high)
        row, index = self.line.rows(self.pairs, high, units), self.line.index(units)
        if isinstance(row, int):
            return table[row][index]
        return table[row.to(table.device), torch.arange(table.shape[1])[index].to(table.device)]

    def _standardised(self, x: Tensor) -> Tensor:
        """By mean and variance of the batch, which go into the statistics of both candidates."""
        norm = self.norm
        if norm.running_mean is None or not self.tracks:
            return F.batch_norm(x, None, None, None, None, True, 0.0, norm.eps)
        # With a momentum of one, what is tracked is what the batch says.
        seen = x.new_zeros(2, x.shape[1], dtype=norm.running_mean.dtype)
        y = F.batch_norm(x, seen[0], seen[1], None, None, True, 1.0, norm.eps)
        rate = self._rate()
        with torch.no_grad():
            for high, places in ((True, slice(None)), (False, self._places())):
                units = self._units(high)
                row, index = self.line.rows(self.pairs, high, units), self.line.index(units)
                for table, found in zip((norm.running_mean, norm.running_var), seen.unbind()):
                    assert table is not None
                    if isinstance(row, int) and isinstance(index, slice):
                        table[row, index].lerp_(found[places], rate)
                    else:
                        at = torch.arange(table.shape[1])[index].to(table.device)
                        key = (row if isinstance(row, int) else row.to(table.device), at)
                        some = found[places if isinstance(places, slice) else places.to(found.device)]
                        table[key] = table[key].lerp(some, rate)
        return y

    def _rate(self) -> float:
        """How far the statistics move; one more batch was seen."""
        norm = self.norm
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        return norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked or 1)

    def _widened(self, narrow: Tensor, size: int) -> Tensor:
        places = self._places()
        if isinstance(places, slice):
            return F.pad(narrow, (0, size - len(narrow)))
        return narrow.new_zeros(size).index_put((places.to(narrow.device),), narrow)

    def _normalised(self, x: Tensor, row: dict[str, Any]) -> Tensor:
        norm = self.norm
        moves = norm.training and self.tracks and norm.running_mean is not None
        rate = self._rate() if moves else 0.0
        by_batch = self._by_batch
        keep = moves or not by_batch
        mean, variance = (row.get("running_mean"), row.get("running_var")) if keep else (None, None)
        return F.batch_norm(x, mean, variance, row.get("weight"), row.get("bias"), by_batch, rate, norm.eps)

    def _called(self, x: Tensor, single: bool) -> Tensor:
        """By the module's own code, once for each candidate: it may do more than normalise."""
        high = self._call(x, True)
        if single:
            return high
        own, mixed = self.line.mixing(self.pairs, high)
        places = self._places()
        index = torch.arange(x.shape[1])[places].to(x.device)
        low = self._call(x.index_select(1, index), False)
        return high * own.view(-1, *[1] * (x.dim() - 2)) + mix(low, mixed.index_select(1, index), None)

    def _call(self, x: Tensor, high: bool) -> Tensor:
        norm = self.norm
        held = {name: getattr(norm, name) for name in _TABLES}
        tracked = norm.num_batches_tracked
        with _Rows(self, high) as row:
            try:
                for name, tensor in row.items():
                    (norm._parameters if name in norm._parameters else norm._buffers)[name] = (
                        tensor if self.tracks or name in norm._parameters else tensor.clone()
                    )
                if not self.tracks and tracked is not None:
                    norm._buffers["num_batches_tracked"] = tracked.clone()
                return type(norm).forward(norm, x)
            finally:
                norm._buffers["num_batches_tracked"] = tracked
                for name, tensor in held.items():
                    (norm._parameters if name in norm._parameters else norm._buffers)[name] = tensor


class _Rows:
    """The rows of one side's candidates as vectors; what is written into statistics goes back into the tables."""

    def __init__(self, blended: BlendedNorm, high: bool):
        self._blended, self._high = blended, high

    def __enter__(self) -> dict[str, Any]:
        blended = self._blended
        units = blended._units(self._high)
        self._row = blended.line.rows(blended.pairs, self._high, units)
        self._index = blended.line.index(units)
        self.found: dict[str, Any] = {}
        for name in _TABLES:
            table = getattr(blended.norm, name)
            if table is not None:
                row = table[self._key(table)]
                # Autograd keeps the statistics that a norm saw, and looks whether their memory was written to since.
                self.found[name] = row.clone() if name.startswith("running") else row
        return dict(self.found)

    def _key(self, table: Tensor) -> tuple[Any, Any]:
        if isinstance(self._row, int):
            return self._row, self._index
        row = self._row.to(table.device)
        every = torch.arange(table.shape[1], device=table.device)
        return row, every[self._index if isinstance(self._index, slice) else self._index.to(table.device)]

    def __exit__(self, *error: Any) -> None:
        for name in ("running_mean", "running_var"):
            if name in self.found:
                table = getattr(self._blended.norm, name)
                table[self._key(table)] = self.found[name]


def mix(x: Tensor, matrix: Tensor, shift: Tensor | None) -> Tensor:
    """``matrix @ x + shift`` along the channels, axis 1."""
    if x.dim() == 2:
        return F.linear(x, matrix, shift)
    return _MIX[x.dim()](x, matrix.view(*matrix.shape, *[1] * (x.dim() - 2)), shift)
