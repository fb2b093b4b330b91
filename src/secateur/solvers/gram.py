"""One pass over the samples of a layer, after which the samples are no longer needed.

Shapes: c input channels of k taps each, n outputs; ``x`` [samples, c, k] holds the windows that the layer reads, ``y``
[samples, n] what it should give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from secateur._errors import UsageError
from secateur.solvers.correction import Corrected, corrected
from secateur.solvers.rank_update import rank_update
from secateur.solvers.threads import SMALL, map_rows, threads_for

#: Rows of one product. Few enough that float32 loses little in it, and never so few that adding the product to the
#: float64 sums takes longer than the product itself.
_LEAST_ROWS, _MOST_ROWS = 2048, 4096
#: Columns of one panel: only the panels on and below the diagonal are computed.
_PANEL, _MOST_PANELS = 128, 8
#: Threads with sums of their own, for small products only (PyTorch shares out the others); parts of the rows per
#: thread, more than one so that a slow thread gets fewer; and the least rows of a part.
_MOST_WORKERS, _PARTS, _LEAST_PART = 8, 4, 512
#: Up to so many columns float64 costs next to nothing (and float32 loses most: sums of few columns are made in order).
_NARROW = 128
#: By how much an entry of the products is off, relative to the root of the product of its two diagonal entries: for
#: samples that came in float64, and for all others, which have been rounded before they came.
_ROUNDING, _ROUNDING_SINGLE = 1e-13, 1e-6


@dataclass(frozen=True, eq=False)
class Grams:
    """The second moments of a layer's input and target, as sums over the samples (not means).

    Attributes:
        xtx: XᵀX, float64 [ck, ck] on the CPU; column ``channel * k + tap``.
        xty: XᵀY, float64 [ck, n].
        yty: the diagonal of YᵀY, float64 [n].
        x_sum: sum of the rows of X, float64 [ck].
        y_sum: sum of the rows of Y, float64 [n].
        samples: number of rows.
        taps: k.
        rounding: relative error of the entries; less than this cannot be told from zero.
    """

    xtx: Tensor
    xty: Tensor
    yty: Tensor
    x_sum: Tensor
    y_sum: Tensor
    samples: int
    taps: int
    rounding: float

    @property
    def channels(self) -> int:
        return len(self.xtx) // self.taps

    @property
    def outputs(self) -> int:
        return len(self.yty)

    def centred(self) -> Grams:
        """The same of X and Y less their means: least squares on it is least squares with an intercept."""
        x, y = self.x_sum, self.y_sum
        return replace(
            self,
            xtx=self.xtx - torch.outer(x, x / self.samples),
            xty=self.xty - torch.outer(x, y / self.samples),
            yty=(self.yty - y * y / self.samples).clamp_min(0),
            x_sum=torch.zeros_like(x),
            y_sum=torch.zeros_like(y),
        )

    def columns(self, kept: Tensor) -> Tensor:
        """The columns of X that belong to the channels ``kept`` (int64 [c']): int64 [c'k]."""
        return (kept[:, None] * self.taps + torch.arange(self.taps)).flatten()

    def products(self, first: slice | Tensor, second: slice | Tensor) -> Tensor:
        """These rows and columns of XᵀX."""
        return self.xtx[first][:, second]

    def corrected(self, kept: Tensor, old: Tensor, what: str) -> Corrected:
        """The weights of the channels ``kept`` by least squares, as a correction of ``old`` [c'k, n]."""
        columns = self.columns(kept)
        a, b = self.products(columns, columns), self.xty[columns]
        return corrected(a, b, self.yty, old, self.rounding, what)

    def error(self, weights: Tensor, kept: Tensor | None = None, bias: Tensor | None = None) -> float:
        """Mean over the samples of ‖y − X_kept·weights − bias‖², summed over the outputs, without the samples.

        Args:
            weights: [n, c', k], the slices of the channels ``kept``.
            kept: int64 [c']; all channels if left out.
            bias: [n]; none if left out.
        """
        columns = self.columns(torch.arange(self.channels) if kept is None else kept)
        w = weights.detach().double().cpu().reshape(self.outputs, -1).T
        total = self.yty.sum() - 2 * (w * self.xty[columns]).sum() + (w * (self.xtx[columns][:, columns] @ w)).sum()
        if bias is not None:
            b = bias.detach().double().cpu()
            total = total + b @ (self.samples * b - 2 * self.y_sum + 2 * (self.x_sum[columns] @ w))
        return max(0.0, float(total)) / self.samples


class GramAccumulator:
    """Takes the samples batch by batch, in any sizes, on any device; :meth:`grams` gives their products.

    Products of up to 4,096 rows are made in float32 (in float64 where the samples are float64, few columns wide or on
    a GPU) and summed in float64. Memory: about (ck)² · 12 bytes, and a block of rows.

    Args:
        channels: c, number of input channels.
        taps: k, taps of a channel (9 for a 3x3 kernel, 1 for a linear layer).
        outputs: n.
        samples: how many samples are asked for; :meth:`grams` refuses fewer. ``None``: any number but zero.

    Raises:
        UsageError: a size that is not positive.
    """

    def __init__(self, channels: int, taps: int = 1, outputs: int = 1, *, samples: int | None = None):
        sizes = {"channels": channels, "taps": taps, "outputs": outputs, "samples": 1 if samples is None else samples}
        wrong = [f"{name} is {value}; give at least 1" for name, value in sizes.items() if value < 1]
        if wrong:
            raise UsageError("\n".join(wrong))
        self.channels, self.taps, self.outputs, self.asked = channels, taps, outputs, samples
        self.count = 0
        self._rounding = _ROUNDING
        self._rows = min(max(channels * taps, _LEAST_ROWS), _MOST_ROWS)
        self._sums: _Sums | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Adds the rows of ``x`` [samples, c, k] ([samples, c] where k is 1) and ``y`` [samples, n] ([samples] where
        n is 1). Nothing of either is kept by reference.

        Raises:
            UsageError: shapes that do not fit, or values that are not finite.
        """
        x, y = self.checked(x, y)
        with self._quietly(x.device) as threads:
            if self._sums is None:
                self._sums = _Sums(x, y, self._rows)
            self._sums.add(x, y, threads)
        self.count += len(x)
        self._rounding = max(self._rounding, rounding_of(x, y))

    def grams(self) -> Grams:
        """The products of all rows so far. More rows may follow.

        Raises:
            UsageError: fewer samples than asked for, or none; values that are not finite.
        """
        if self._sums is None or self.count < (self.asked or 1):
            raise UsageError(
                f"{self.count:,} samples were given where {self.asked or 1:,} are asked for\n"
                "give more calibration data or ask for fewer samples"
            )
        sums = self._sums
        with self._quietly(sums.device) as threads:
            sums.flush(threads)
            xtx, xty, yty, x_sum, y_sum = (t.cpu() for t in sums.totals())
        return Grams(xtx, xty, yty, x_sum, y_sum, self.count, self.taps, self._rounding)

    @contextmanager
    def _quietly(self, device: torch.device) -> Iterator[int]:
        columns = self.channels * self.taps
        with torch.inference_mode(False), torch.no_grad(), _full_precision(device), threads_for(columns) as threads:
            yield threads

    def checked(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The rows as [samples, ck] and [samples, n], on a device that has float64.

        Raises:
            UsageError: shapes that do not fit.
        """
        wide, deep = (self.channels, self.taps), (self.outputs,)
        x_fits = tuple(x.shape[1:]) == wide or (self.taps == 1 and tuple(x.shape[1:]) == wide[:1])
        y_fits = tuple(y.shape[1:]) == deep or (self.outputs == 1 and y.ndim == 1)
        wrong = []
        if not x_fits or x.ndim < 2:
            wrong.append(f"x is {list(x.shape)} where [samples, {wide[0]}, {wide[1]}] is expected")
        if not y_fits or y.ndim < 1:
            wrong.append(f"y is {list(y.shape)} where [samples, {deep[0]}] is expected")
        if not wrong and len(x) != len(y):
            wrong.append(f"x has {len(x)} samples and y has {len(y)}; give one row of y to each of x")
        if wrong:
            raise UsageError("\n".join(wrong))
        x, y = x.detach().flatten(1), y.detach().reshape(len(y), self.outputs)
        if x.device.type not in ("cpu", "cuda"):
            x = x.cpu()  # not every accelerator has float64
        return x, y.to(x.device)


class _Sums:
    """The running sums, and the rows that do not yet make a full block."""

    def __init__(self, x: Tensor, y: Tensor, rows: int):
        device, (p, n) = x.device, (x.shape[1], y.shape[1])
        # A GPU may be told to round float32 products to 10 bits; its float64 is fast enough and needs no such care.
        double = x.dtype == torch.float64 or device.type == "cuda" or p <= _NARROW
        self.dtype = torch.float64 if double else torch.float32
        self.rank_update = rank_update(p, self.dtype)
        self.sums = _zeros(p, n, device)
        self.rows, self.filled = rows, 0
        self.waiting_x = torch.empty(rows, p, dtype=self.dtype, device=device)
        self.waiting_y = torch.empty(rows, n, dtype=self.dtype, device=device)
        panels = min(max(p // _PANEL, 1), _MOST_PANELS)
        edges = [p * i // panels for i in range(panels + 1)]
        self.panels = list(pairwise(edges))

    @property
    def device(self) -> torch.device:
        return self.waiting_x.device

    def add(self, x: Tensor, y: Tensor, threads: int) -> None:
        x, y = x.to(self.device), y.to(self.device)
        done = 0
        while done < len(x):
            left = len(x) - done
            if self.filled == 0 and left >= self.rows:
                whole = left - left % self.rows
                self._take(x[done : done + whole], y[done : done + whole], threads)
                done += whole
                continue
            now = min(left, self.rows - self.filled)
            self.waiting_x[self.filled : self.filled + now] = x[done : done + now]
            self.waiting_y[self.filled : self.filled + now] = y[done : done + now]
            self.filled, done = self.filled + now, done + now
            if self.filled == self.rows:
                self.flush(threads)

    def flush(self, threads: int) -> None:
        if self.filled:
            filled, self.filled = self.filled, 0
            self._take(self.waiting_x[:filled], self.waiting_y[:filled], threads)

    def _take(self, x: Tensor, y: Tensor, threads: int) -> None:
        """Adds the products of any number of rows."""
        columns = x.shape[1]
        workers = min(threads, _MOST_WORKERS) if columns <= SMALL and self.device.type == "cpu" else 1
        parts = min(workers * _PARTS, -(-len(x) // _LEAST_PART)) if workers > 1 else 1
        size = -(-len(x) // parts)
        pieces = list(zip(x.split(size), y.split(size), strict=True))
        for found in map_rows(self._products, pieces, workers):
            for total, part in zip(self.sums, found, strict=True):
                total += part
        self._check()

    def _check(self) -> None:
        # One value that is not finite makes its sum so for good: no pass of its own over the samples, and no way on.
        xtx, _, *others = self.sums
        refuse_infinite(xtx.diagonal(), *others)

    def _products(self, rows: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The sums of these rows, block by block; of XᵀX the panels on and below the diagonal."""
        sums = _zeros(rows[0].shape[1], rows[1].shape[1], self.device)
        xtx, xty, yty, x_sum, y_sum = sums
        for x, y in zip(rows[0].split(self.rows), rows[1].split(self.rows), strict=True):
            x, y = x.to(self.dtype), y.to(self.dtype)
            self.rank_update(xtx, x, self.panels)
            xty += x.T @ y
            yty += y.square().sum(0)
            x_sum += x.sum(0)
            y_sum += y.sum(0)
        return sums

    def totals(self) -> tuple[Tensor, ...]:
        self._check()
        xtx, *others = (t.clone() for t in self.sums)
        for start, stop in self.panels:  # in place: what is above the diagonal mirrors what is below
            lower = xtx[start:stop, start:stop].tril()
            xtx[start:stop, start:stop] = lower + lower.tril(-1).T
            xtx[:start, start:stop] = xtx[start:stop, :start].T
        return xtx, *others


def rounding_of(*samples: Tensor) -> float:
    """By how much an entry of the products of these samples is off."""
    return _ROUNDING if all(s.dtype == torch.float64 for s in samples) else _ROUNDING_SINGLE


def refuse_infinite(*sums: Tensor) -> None:
    """Refuses samples by the sums of their values and of their squares.

    Raises:
        UsageError: values that are not finite.
    """
    if not all(bool(torch.isfinite(t).all()) for t in sums):
        raise UsageError(
            "the samples hold values that are not finite, or too large to square\n"
            "look for NaN or infinity in the calibration data and in the network that gives the features"
        )


def _zeros(p: int, n: int, device: torch.device) -> tuple[Tensor, ...]:
    """Sums of XᵀX, XᵀY, the diagonal of YᵀY, X and Y, all zero."""
    return tuple(
        torch.zeros(*shape, dtype=torch.float64, device=device) for shape in ((p, p), (p, n), (n,), (p,), (n,))
    )


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """A training loop may have allowed bfloat16 inside of float32 products; these here decide by small differences."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
