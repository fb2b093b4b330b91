"""LASSO choice of channels, along the exact path, on the c x c products alone.

He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv 1707.06168, section 3.1
step (i): min over β of (1/2N)·‖Y − Σ_c β_c·X_c·W_cᵀ‖² + λ·‖β‖₁ with ‖W_c‖_F = 1. Published code raises λ by trial until
the count fits, one fit of all the samples per trial; here the path is followed from its start, where all β are zero, to
the first λ with the wanted count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.solvers.contributions import Contributions, checked_count
from secateur.solvers.lasso_path import LassoPath
from secateur.solvers.least_squares import FittedScales, fit_scales
from secateur.solvers.ridge import factor
from secateur.solvers.threads import threads_for

#: Events of the path per channel, after which it is given up. Paths of real layers have less than three.
_EVENTS = 20


@dataclass(frozen=True, eq=False)
class LassoSelection:
    """The channels that the LASSO keeps.

    Attributes:
        kept: int64 [c'], ascending.
        joined: int64 [c'], the same channels in the order in which they came in; filled ones last.
        coefficients: float64 [c'] for ``kept``: β at ``penalty``, for contributions divided by ``norms`` where that was
            asked for. For the refit take ``fit``.
        penalty: λ of the paper's objective, in the middle of the stretch of the path that has these channels.
        dropped: how often a channel left again on the way.
        filled: channels that the path never reached, because those before it left nothing to explain (or because
            the path was given up, see ``notes``); taken by the energy of their contribution.
        fit: least-squares scales of ``kept``, with the errors.
        ridge: 0.0, or what was added to a singular Gram matrix, relative to its trace at unit diagonal.
        notes: lines for people.
    """

    kept: Tensor
    joined: Tensor
    coefficients: Tensor
    penalty: float
    dropped: int
    filled: tuple[int, ...]
    fit: FittedScales
    ridge: float
    notes: tuple[str, ...]


def select_by_lasso(contributions: Contributions, count: int, *, unit_weights: bool = True) -> LassoSelection:
    """Keeps exactly ``count`` channels: those of the largest penalty at which so many are not zero.

    The path adds or drops one channel at a time, so it cannot jump over a count; channels that tie come in one after
    the other at the same penalty, the lower index first. Where a channel leaves, its place is free again, and the path
    goes on. Where it ends early (fewer channels than wanted explain everything), the rest are filled up by energy.

    Args:
        contributions: of the layer.
        count: c'.
        unit_weights: divide every contribution by its ``norms`` first, as the paper's constraint has it: β then stands
            for the size of the slice, and small slices that read large inputs come cheap. Without, β is a factor that
            is one for all channels of the unpruned layer; that leaves less error where the slices differ in size.

    Raises:
        UsageError: ``count`` is less than one or more than there are channels.
    """
    count = checked_count(count, contributions.channels)
    with threads_for(contributions.channels):
        return _select(contributions, count, unit_weights)


def _select(contributions: Contributions, count: int, unit_weights: bool) -> LassoSelection:
    c = contributions.channels
    divide = (contributions.norms > 0) & unit_weights
    scale = torch.where(divide, contributions.norms, 1.0)
    scaled = contributions.gram / scale / scale[:, None]
    found = factor(scaled, contributions.rounding)
    gram, target = scaled.numpy(), (contributions.target / scale).numpy()
    notes = list(found.notes("the contributions of all channels"))
    if found.ridge:
        gram[np.arange(c), np.arange(c)] *= 1 + found.ridge
    path = LassoPath(gram, target, count, contributions.rounding)
    events = 0
    while path.size < count and events < _EVENTS * c and path.step():
        events += 1
    joined = path.active
    lasso, penalty = path.middle()
    filled: tuple[int, ...] = ()
    if len(joined) < count:
        if events == _EVENTS * c:
            notes.append(f"the path was given up after {events} events")
        energy = gram.diagonal().copy()
        energy[joined] = -1.0
        filled = tuple(np.argsort(-energy, kind="stable")[: count - len(joined)].tolist())
        notes.append(f"{len(joined)} channels explain the target; {len(filled)} more were taken by their energy")
    coefficients = np.zeros(c)
    coefficients[joined] = lasso
    order = torch.tensor([*joined, *filled], dtype=torch.int64)
    kept = order.sort().values
    fit = fit_scales(contributions, kept)
    return LassoSelection(
        kept=kept,
        joined=order,
        coefficients=torch.from_numpy(coefficients)[kept],
        penalty=penalty / contributions.samples,
        dropped=path.dropped,
        filled=filled,
        fit=fit,
        ridge=found.ridge,
        notes=(*notes, *fit.notes),
    )
