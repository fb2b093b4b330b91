"""The best weights, or the best scales, for the channels that stay.

Luo, Wu, Lin, ThiNet, arXiv 1707.06342, section 3.2.3 (one scale per channel); He, Zhang, Sun, "Channel Pruning for
Accelerating Very Deep Neural Networks", ICCV 2017, arXiv 1707.06168, section 3.1 step (ii) (all weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur._errors import UsageError
from secateur.solvers.contributions import Contributions, checked_kept
from secateur.solvers.correction import corrected
from secateur.solvers.gathering import Gathered
from secateur.solvers.threads import threads_for


@dataclass(frozen=True, eq=False)
class FittedScales:
    """One factor per kept channel.

    Attributes:
        kept: int64 [c'], ascending.
        scales: float64 [c']; multiply the kernel slices of the channels by them.
        error: mean over the samples of the squared error, summed over the outputs.
        error_before: the same with all scales at one.
        relative_error: ``error`` over the mean energy of the target.
        ridge: 0.0, or what made dependent channels solvable, relative to the trace of the Gram matrix at unit diagonal.
        notes: lines for people.
    """

    kept: Tensor
    scales: Tensor
    error: float
    error_before: float
    relative_error: float
    ridge: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FittedWeights:
    """New kernel slices for the kept channels.

    Attributes:
        kept: int64 [c'], ascending.
        weights: float64 [n, c', k].
        bias: float64 [n] to add to the output, or ``None`` where none was asked for.
        error: mean over the samples of the squared error, summed over the outputs.
        error_before: the same with the old weights of the kept channels (no weights, where none were given).
        relative_error: ``error`` over the mean energy of the target.
        ridge: 0.0, or what made dependent columns solvable, relative to the trace of XᵀX at unit diagonal.
        notes: lines for people.
    """

    kept: Tensor
    weights: Tensor
    bias: Tensor | None
    error: float
    error_before: float
    relative_error: float
    ridge: float
    notes: tuple[str, ...]


def fit_scales(contributions: Contributions, kept: Tensor) -> FittedScales:
    """Scales w = argmin ‖Y − Σ_{c kept} w_c·Z_c‖². Where they are not unique, those nearest to one.

    Args:
        contributions: of the layer.
        kept: int64 [c'], in any order.

    Raises:
        UsageError: channels that do not exist, none, or one named twice.
    """
    kept = checked_kept(kept, contributions.channels)
    with threads_for(contributions.channels):
        return _fit_scales(contributions, kept)


def _fit_scales(contributions: Contributions, kept: Tensor) -> FittedScales:
    ones = torch.ones(len(kept), dtype=torch.float64)
    found, ridge, notes = corrected(
        contributions.gram[kept][:, kept],
        contributions.target[kept, None],
        torch.tensor([contributions.energy], dtype=torch.float64),
        ones[:, None],
        contributions.rounding,
        "the contributions of the kept channels",
    )
    scales = found[:, 0]
    error = contributions.error(kept, scales)
    return FittedScales(
        kept=kept,
        scales=scales,
        error=error,
        error_before=contributions.error(kept, ones),
        relative_error=_relative(error, contributions.energy / contributions.samples),
        ridge=ridge,
        notes=notes,
    )


def fit_weights(
    layer: Gathered, kept: Tensor, weights: Tensor | None = None, *, intercept: bool = False
) -> FittedWeights:
    """Weights W = argmin ‖Y − X_kept·W‖². Where they are not unique, those nearest to ``weights``.

    Where the old weights already solve it, to what the products can resolve, they come back unchanged: keeping every
    channel of a layer whose target is its own output changes nothing.

    Args:
        layer: its samples, or their products.
        kept: int64 [c'], in any order.
        weights: the old ones of all channels, [n, c, k]; zero if left out.
        intercept: fit a bias as well.

    Raises:
        UsageError: channels that do not exist, none, or one named twice; weights of another shape or not finite.
    """
    n, c, k = layer.outputs, layer.channels, layer.taps
    kept = checked_kept(kept, c)
    if weights is None:
        weights = torch.zeros(n, c, k)
    if tuple(weights.shape) != (n, c, k):
        raise UsageError(f"the weights are {list(weights.shape)} where [{n}, {c}, {k}] is expected")
    old = weights.detach().double().cpu()[:, kept]
    if not bool(torch.isfinite(old).all()):
        raise UsageError("the weights hold values that are not finite; load weights that are")
    fitted = layer.centred() if intercept else layer
    found, ridge, notes = fitted.corrected(kept, old.reshape(n, -1).T, "the inputs of the kept channels")
    if ridge and layer.samples < len(kept) * k:
        few = f"fitted exactly to {layer.samples} samples, which are fewer than the inputs: other images may differ"
        notes = (*notes, few)
    new = found.T.reshape(n, len(kept), k).contiguous()
    bias = None
    if intercept:
        bias = (layer.y_sum - new.reshape(n, -1) @ layer.x_sum[layer.columns(kept)]) / layer.samples
    error = layer.error(new, kept, bias)
    return FittedWeights(
        kept=kept,
        weights=new,
        bias=bias,
        error=error,
        error_before=layer.error(old, kept),
        relative_error=_relative(error, float(layer.yty.sum()) / layer.samples),
        ridge=ridge,
        notes=notes,
    )


def _relative(error: float, energy: float) -> float:
    return error / energy if energy > 0 else 0.0
