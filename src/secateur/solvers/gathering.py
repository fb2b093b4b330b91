"""One pass over the samples of a layer, of which no more is kept than the square of its columns."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.solvers.gram import GramAccumulator, Grams, refuse_infinite, rounding_of
from secateur.solvers.samples import Samples

#: What is left of a pass; both have the same methods.
Gathered = Grams | Samples


class LayerAccumulator:
    """Takes the samples batch by batch, in any sizes, on any device; :meth:`gathered` gives the samples themselves
    where they are fewer than the layer's columns, and their products otherwise.

    Memory: samples are kept in the precision in which they came, up to (ck)² entries, for a moment twice; from then on
    that of :class:`GramAccumulator`.

    Args:
        channels: c, number of input channels.
        taps: k, taps of a channel (9 for a 3x3 kernel, 1 for a linear layer).
        outputs: n.

    Raises:
        UsageError: a size that is not positive.
    """

    def __init__(self, channels: int, taps: int = 1, outputs: int = 1):
        self._sums = GramAccumulator(channels, taps, outputs)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._count, self._rounding = 0, 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Adds the rows of ``x`` [samples, c, k] ([samples, c] where k is 1) and ``y`` [samples, n] ([samples] where
        n is 1). Nothing of either is kept by reference.

        Raises:
            UsageError: shapes that do not fit, or values that are not finite (at the latest by :meth:`gathered`).
        """
        x, y = self._sums.checked(x, y)
        self._count += len(x)
        self._rounding = max(self._rounding, rounding_of(x, y))
        if self._few():
            with torch.inference_mode(False):
                self._kept.append((x.clone(), y.clone()))
            return
        while self._kept:
            self._pass_on(*self._kept.pop(0))
        self._pass_on(x, y)

    def gathered(self) -> Gathered:
        """What all rows so far leave. More rows may follow.

        Raises:
            UsageError: no samples; values that are not finite.
        """
        if self._count == 0 or not self._few():
            return self._sums.grams()
        with torch.inference_mode(False):
            x, y = (torch.cat(rows) for rows in zip(*self._kept, strict=True))
        self._kept = [(x, y)]
        found = Samples(x.cpu(), y.cpu(), self._sums.taps, self._rounding)
        refuse_infinite(found.squares, found.yty)
        return found

    def _few(self) -> bool:
        return self._count < self._sums.channels * self._sums.taps

    def _pass_on(self, x: Tensor, y: Tensor) -> None:
        self._sums.add(x.unflatten(1, (self._sums.channels, self._sums.taps)), y)
