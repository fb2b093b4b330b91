"""The samples of the solver benchmark, our side, and the published procedures as they are run elsewhere."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.solvers import Contributions, remove_greedily, select_by_lasso

#: Positions that are taken from each image, and pixels of a side.
POSITIONS, SIDE = 20, 12
#: Where the published procedure starts its penalty (of a target brought to unit variance), and by how much more
#: channels than asked for it may keep.
FIRST_PENALTY, TOO_MANY = 1e-4, 1.1
MOST_FITS = 60


@dataclass(frozen=True, eq=False)
class Samples:
    """Contributions ``z`` [samples, channels] and their sum ``y`` [samples], float32; the last rows are held out."""

    z: Tensor
    y: Tensor
    held_z: Tensor
    held_y: Tensor


def random_layer(samples: int, held_out: int, channels: int, outputs: int, seed: int) -> Samples:
    """What the input channels of a 3x3 convolution add to its output before ReLU, at random positions, each time to
    one of ``outputs`` output channels. The more of these with their random weights, the less correlated it comes out.

    The network (four convolutions with batch normalisation and ReLU, random weights, random widths of its channels)
    sees images of smooth random fields, so that channels are correlated and some are strong and some weak.
    """
    torch.manual_seed(seed)
    widths = [3, max(channels // 8, 8), max(channels // 4, 8), channels]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        norm = nn.BatchNorm2d(after)
        nn.init.normal_(norm.weight, 0.8, 0.4)
        nn.init.normal_(norm.bias, -0.2, 0.3)
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), norm, nn.ReLU()]
    network = nn.Sequential(*layers)
    weights = torch.randn(outputs, channels, 9) / (3 * channels**0.5) * torch.rand(channels, 1).add(0.3)
    found: list[Tensor] = []
    total = samples + held_out
    batch = 50
    with torch.no_grad():
        while sum(map(len, found)) < total:
            coarse = torch.randn(batch, 3, 4, 4)
            images = nn.functional.interpolate(coarse, SIDE, mode="bicubic") + 0.3 * torch.randn(batch, 3, SIDE, SIDE)
            features = nn.functional.pad(network(images), (1, 1, 1, 1))
            rows = torch.randint(0, SIDE, (batch, POSITIONS))
            columns = torch.randint(0, SIDE, (batch, POSITIONS))
            image = torch.arange(batch)[:, None].expand_as(rows)
            taps = [features[image, :, rows + i, columns + j] for i in range(3) for j in range(3)]
            windows = torch.stack(taps, -1).flatten(0, 1)  # [samples, channels, 9]
            chosen = weights[torch.randint(0, outputs, (len(windows),))]
            found.append((windows * chosen).sum(-1))
    z = torch.cat(found)[:total]
    y = z.sum(1)
    return Samples(z[:samples], y[:samples], z[samples:], y[samples:])


def our_lasso(z: Tensor, y: Tensor, count: int) -> list[int]:
    """The pass over the samples, the path, and the least squares of the scales."""
    return select_by_lasso(Contributions.of_samples(z, y), count).kept.tolist()


def lasso_lars(z: Tensor, y: Tensor, penalty: float) -> list[int]:
    """One fit of scikit-learn's ``LassoLars``, at a penalty that it does not have to find."""
    from sklearn.linear_model import LassoLars

    return np.flatnonzero(LassoLars(alpha=penalty, fit_intercept=False).fit(z.numpy(), y.numpy()).coef_).tolist()


def published_lasso(z: Tensor, y: Tensor, count: int, **options: Any) -> tuple[list[int], int]:
    """The penalty of scikit-learn's ``Lasso`` doubled until few enough channels are left, then bisected.

    Args:
        z: [samples, channels].
        y: [samples].
        count: the least number of channels; up to 1.1 times as many will do.
        options: of ``Lasso``.

    Returns:
        The channels and the number of fits that it took.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    spread = float(y.std())
    x, target = (z / spread).numpy(), (y / spread).numpy()
    model = Lasso(alpha=FIRST_PENALTY, fit_intercept=False, **options)
    fits = 0

    def fit(penalty: float) -> list[int]:
        nonlocal fits
        fits += 1
        model.alpha = penalty
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return np.flatnonzero(model.fit(x, target).coef_).tolist()

    low, high = 0.0, FIRST_PENALTY
    kept = fit(high)
    while len(kept) > TOO_MANY * count:
        low, high = high, 2 * high
        kept = fit(high)
    while not count <= len(kept) <= TOO_MANY * count and fits < MOST_FITS:
        middle = (low + high) / 2
        kept = fit(middle)
        if len(kept) > TOO_MANY * count:
            low = middle
        elif len(kept) < count:
            high = middle
    return kept, fits


def our_greedy(z: Tensor, count: int) -> list[int]:
    """The pass over the samples and the order of all channels."""
    return remove_greedily(Contributions.of_samples(z)).kept(count).tolist()


def published_greedy(z: Tensor, count: int) -> list[int]:
    """Every candidate's energy from the samples, again at each step; the sum of what is removed is kept."""
    columns = np.ascontiguousarray(z.numpy().T)
    left = list(range(len(columns)))
    total = np.zeros(columns.shape[1], dtype=np.float32)
    while len(left) > count:
        energies = []
        for channel in left:
            candidate = total + columns[channel]
            energies.append(float(candidate @ candidate))
        chosen = left.pop(int(np.argmin(energies)))
        total += columns[chosen]
    return left
