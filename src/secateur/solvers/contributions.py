"""What every input channel of a layer adds to its output, as products over the samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur._errors import UsageError
from secateur.solvers.gathering import Gathered
from secateur.solvers.gram import GramAccumulator
from secateur.solvers.samples import Samples

#: Channels whose products are made at a time, and about how many columns at most: bounds the memory of a layer of
#: thousands of columns.
_CHANNELS, _COLUMNS = 64, 4096
#: Numbers in the contributions of the samples that are taken at a time.
_NUMBERS = 2**25


@dataclass(frozen=True, eq=False)
class Contributions:
    """Channel c adds Z_c = X_c·W_cᵀ to the output; all sums run over samples and outputs.

    Attributes:
        gram: G[c, c'] = ⟨Z_c, Z_c'⟩, float64 [c, c].
        target: ⟨Z_c, Y⟩, float64 [c].
        energy: ‖Y‖².
        norms: ‖W_c‖_F, float64 [c]; ones where the contributions came without weights.
        samples: number of samples.
        rounding: relative error of the entries.
    """

    gram: Tensor
    target: Tensor
    energy: float
    norms: Tensor
    samples: int
    rounding: float

    @property
    def channels(self) -> int:
        return len(self.target)

    @classmethod
    def of_layer(cls, layer: Gathered, weights: Tensor) -> Contributions:
        """From a layer's samples, or their products, and its ``weights`` [n, c, k].

        Raises:
            UsageError: weights of another shape, or not finite.
        """
        n, c, k = layer.outputs, layer.channels, layer.taps
        if tuple(weights.shape) != (n, c, k):
            raise UsageError(f"the weights are {list(weights.shape)} where [{n}, {c}, {k}] is expected")
        if not bool(torch.isfinite(weights).all()):
            raise UsageError("the weights hold values that are not finite; load weights that are")
        w = weights.detach().double().cpu().reshape(n, c * k)
        # Multiplications on either way; those of the long, narrow products take half as long again.
        few = 1.5 * layer.samples * n * (c + 2 * k) < (layer.samples + n) * k * k * c
        gram = (_by_samples(layer, w) if few and isinstance(layer, Samples) else _by_products(layer, w)).triu()
        target = (layer.xty * w.T).sum(1).reshape(c, k).sum(1)
        norms = w.reshape(n, c, k).square().sum((0, 2)).sqrt()
        return cls(gram + gram.triu(1).T, target, float(layer.yty.sum()), norms, layer.samples, layer.rounding)

    @classmethod
    def of_samples(
        cls, z: Tensor, y: Tensor | None = None, norms: Tensor | None = None, *, samples: int | None = None
    ) -> Contributions:
        """From the contributions themselves (ThiNet takes one output value of each sample).

        Args:
            z: [samples, c].
            y: [samples], the target; the sum of all contributions if left out.
            norms: [c], ‖W_c‖_F; ones if left out.
            samples: how many samples are asked for; fewer are refused.

        Raises:
            UsageError: shapes that do not fit, values that are not finite, too few samples.
        """
        if z.ndim != 2 or z.shape[1] < 1:
            raise UsageError(f"the contributions are {list(z.shape)} where [samples, channels] is expected")
        c = z.shape[1]
        if norms is not None and (tuple(norms.shape) != (c,) or not bool((norms.isfinite() & (norms >= 0)).all())):
            raise UsageError(f"the norms must be {c} finite numbers, none below zero")
        sums = GramAccumulator(c, samples=samples)
        sums.add(z, z.new_zeros(len(z)) if y is None else y)
        grams = sums.grams()
        target, energy = grams.xty[:, 0], float(grams.yty[0])
        if y is None:
            target = grams.xtx.sum(1)
            energy = float(target.sum())
        norm = torch.ones(c, dtype=torch.float64) if norms is None else norms.detach().double().cpu()
        return cls(grams.xtx, target, energy, norm, grams.samples, grams.rounding)

    def error(self, kept: Tensor, scales: Tensor) -> float:
        """Mean over the samples of ‖Y − Σ scale·Z_c‖² over the channels ``kept`` (int64 [c'], scales [c'])."""
        b = scales.detach().double().cpu()
        total = self.energy - 2 * float(b @ self.target[kept]) + float(b @ self.gram[kept][:, kept] @ b)
        return max(0.0, total) / self.samples


def _by_products(layer: Gathered, w: Tensor) -> Tensor:
    """⟨Z_c, Z_c'⟩ for c' ≥ c, from the products of the inputs and those of the weights ``w`` [n, ck]."""
    c, k = layer.channels, layer.taps
    gram = torch.empty(c, c, dtype=torch.float64)
    for start, stop in _panels(c, min(_CHANNELS, _COLUMNS // k)):
        rows = slice(start * k, stop * k)
        part = layer.products(rows, slice(start * k, None)) * (w[:, rows].T @ w[:, start * k :])
        gram[start:stop, start:] = part.reshape(stop - start, k, c - start, k).sum((1, 3))
    return gram


def _by_samples(layer: Samples, w: Tensor) -> Tensor:
    """The same from the contributions themselves: less work where samples are few and taps are many."""
    c, k, n = layer.channels, layer.taps, layer.outputs
    slices = w.reshape(n, c, k).permute(1, 2, 0)
    gram = torch.zeros(c, c, dtype=torch.float64)
    for x in layer.x.split(max(1, _NUMBERS // (c * n))):
        z = torch.bmm(x.double().reshape(-1, c, k).transpose(0, 1), slices).flatten(1)
        for start, stop in _panels(c, _CHANNELS):
            gram[start:stop, start:].addmm_(z[start:stop], z[start:].T)
    return gram


def _panels(channels: int, step: int) -> list[tuple[int, int]]:
    """Channels of which the products are made at a time, from the diagonal on: the rest is its mirror image."""
    step = max(1, step)
    return [(start, min(start + step, channels)) for start in range(0, channels, step)]


def checked_count(count: int, channels: int) -> int:
    """``count`` if so many of ``channels`` can be kept.

    Raises:
        UsageError: less than one or more than there are.
    """
    if not 1 <= count <= channels:
        raise UsageError(f"{count} channels cannot be kept of {channels}: give a number from 1 to {channels}")
    return count


def checked_kept(kept: Tensor, channels: int) -> Tensor:
    """``kept`` as int64 indices in ascending order.

    Raises:
        UsageError: none, twice the same, or one that does not exist.
    """
    if kept.ndim != 1 or kept.dtype == torch.bool or kept.is_floating_point():
        raise UsageError("the kept channels must be one row of whole numbers, their indices")
    found = kept.detach().cpu().long().sort().values
    wrong = []
    if len(found) == 0:
        wrong.append("no channel is kept: a layer needs at least one")
    elif int(found[0]) < 0 or int(found[-1]) >= channels:
        wrong.append(f"a kept channel lies outside of 0 to {channels - 1}")
    if len(found.unique()) < len(found):
        wrong.append("a kept channel is named twice")
    if wrong:
        raise UsageError("\n".join(wrong))
    return found
