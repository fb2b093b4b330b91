"""A layer that has fewer samples than columns: the samples themselves are smaller than their products.

With D the norms of the columns and X̃ = X·D⁻¹, the correction of weights with a ridge r,
D⁻¹·(X̃ᵀX̃ + r·I)⁻¹·X̃ᵀ·R for the residual R, is the same as D⁻¹·X̃ᵀ·(X̃X̃ᵀ + r·I)⁻¹·R: as many equations as samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from secateur.solvers.correction import Corrected, corrected, unresolved
from secateur.solvers.ridge import raised

#: Columns that are in float64 at a time.
_COLUMNS = 1024


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a layer's input and target, with the methods of :class:`secateur.solvers.Grams`.

    All products are summed in float64. Memory beside the samples, the weights in float64 and what is asked for: 16
    bytes times the square of the samples, and a few blocks of 1,024 columns.

    Attributes:
        x: [samples, ck], on the CPU, in the precision in which it came; column ``channel * k + tap``.
        y: [samples, n].
        taps: k.
        rounding: relative error of the products; less than this cannot be told from zero.
    """

    x: Tensor
    y: Tensor
    taps: int
    rounding: float

    @property
    def samples(self) -> int:
        return len(self.x)

    @property
    def channels(self) -> int:
        return self.x.shape[1] // self.taps

    @property
    def outputs(self) -> int:
        return self.y.shape[1]

    @cached_property
    def squares(self) -> Tensor:
        """The diagonal of XᵀX, [ck]."""
        return torch.cat([x.square().sum(0) for _, x in self._blocks(slice(None))])

    @property
    def xty(self) -> Tensor:
        return self._cross(slice(None))

    @cached_property
    def yty(self) -> Tensor:
        return self.y.double().square().sum(0)

    @property
    def x_sum(self) -> Tensor:
        return torch.cat([x.sum(0) for _, x in self._blocks(slice(None))])

    @property
    def y_sum(self) -> Tensor:
        return self.y.double().sum(0)

    def centred(self) -> Samples:
        """The same of X and Y less their means, both in float64."""
        return replace(self, x=self._less_mean(self.x), y=self._less_mean(self.y))

    def _less_mean(self, rows: Tensor) -> Tensor:
        mean = rows.double().mean(0)
        rows = rows.double() - mean
        size = torch.linalg.vector_norm(rows, dim=0)
        rows[:, size <= self.rounding * self.samples**0.5 * mean.abs()] = 0.0  # a constant
        return rows

    def columns(self, kept: Tensor) -> Tensor:
        """The columns of X that belong to the channels ``kept`` (int64 [c']): int64 [c'k]."""
        return (kept[:, None] * self.taps + torch.arange(self.taps)).flatten()

    def products(self, first: slice | Tensor, second: slice | Tensor) -> Tensor:
        """These rows and columns of XᵀX."""
        every = torch.arange(self.x.shape[1])
        first, second = every[first], every[second]
        found = torch.empty(len(first), len(second), dtype=torch.float64)
        for rows, a in self._blocks(first):
            for at, b in self._blocks(second):
                torch.mm(a.T, b, out=found[rows, at])
        return found

    def error(self, weights: Tensor, kept: Tensor | None = None, bias: Tensor | None = None) -> float:
        """Mean squared error, as :meth:`secateur.solvers.Grams.error` gives it."""
        columns = self.columns(torch.arange(self.channels) if kept is None else kept)
        left = self._left(columns, weights.detach().double().cpu().reshape(self.outputs, -1).T)
        if bias is not None:
            left -= bias.detach().double().cpu()
        return float(left.square().sum()) / self.samples

    def corrected(self, kept: Tensor, old: Tensor, what: str) -> Corrected:
        """The weights of the channels ``kept`` by least squares, as a correction of ``old`` [c'k, n]."""
        columns = self.columns(kept)
        if len(columns) <= self.samples:
            a, b = self.products(columns, columns), self._cross(columns)
            return corrected(a, b, self.yty, old, self.rounding, what)
        left = self._left(columns, old)
        size = self.squares[columns].sqrt()[:, None]
        given = self.squares[columns] @ old.square()
        still = torch.ones(self.outputs, dtype=torch.bool)
        for at, x in self._blocks(columns):
            still &= unresolved(x.T @ left, size[at], self.yty, given, self.rounding)
        if still.all():
            return old.clone(), 0.0, ()
        left[:, still] = 0.0
        size[size == 0] = 1.0
        between = torch.zeros(self.samples, self.samples, dtype=torch.float64)
        for at, x in self._blocks(columns):
            x /= size[at].T
            between.addmm_(x, x.T)
        found = raised(between, torch.ones(self.samples, dtype=torch.float64), self.rounding)
        shares = found.solve(left)
        new = old.clone()
        for at, x in self._blocks(columns):
            new[at] += (x.T @ shares) / size[at].square()
        return new, found.ridge, found.notes(what)

    def _left(self, columns: Tensor, weights: Tensor) -> Tensor:
        """What ``weights`` [m, n] of these columns leave of the target, [samples, n]."""
        left = self.y.to(torch.float64, copy=True)
        for at, x in self._blocks(columns):
            left -= x @ weights[at]
        return left

    def _cross(self, columns: slice | Tensor) -> Tensor:
        """These rows of XᵀY."""
        y = self.y.double()
        return torch.cat([x.T @ y for _, x in self._blocks(columns)])

    def _blocks(self, columns: slice | Tensor) -> Iterator[tuple[slice, Tensor]]:
        """These columns of X in float64, some at a time, and where they stand among them."""
        wanted = torch.arange(self.x.shape[1])[columns]
        for start in range(0, len(wanted), _COLUMNS):
            at = slice(start, start + _COLUMNS)
            yield at, self.x[:, wanted[at]].double()
