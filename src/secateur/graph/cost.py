"""Cost as a polynomial in the group widths.

The multiply-accumulates of a contraction are a number times the extents of a few axes, and an extent is a linear
function of the widths: the channels that a convolution reads after a concatenation are the sum of what the parts kept.
Parameters are counted the same way, so one small object answers in microseconds what a built network would answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass on the example inputs.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products, nothing else.
        params: numbers held in parameters; a tied parameter counts once.
    """

    macs: Any
    params: Any

    def __str__(self) -> str:
        return f"{_short(self.macs)}MACs, {_short(self.params)}parameters"


def _short(value: float) -> str:
    value = float(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.2f} {letter}"
    return f"{value:.0f} "


class Polynomial:
    """``sum over terms of coefficient * product of extents``, where ``extents = fixed + matrix @ widths``.

    Args:
        matrix: how many indices of each axis one unit of each group takes, shape ``[axes, groups]``.
        fixed: indices of each axis that nothing removes, shape ``[axes]``.
        terms: per metric, a list of ``(coefficient, axes)``.
    """

    def __init__(self, matrix: np.ndarray, fixed: np.ndarray, terms: dict[str, list[tuple[int, tuple[int, ...]]]]):
        # One more axis, always of length one, pads terms of few axes.
        one = len(fixed)
        self._matrix = np.vstack([matrix, np.zeros((1, matrix.shape[1]))])
        self._fixed = np.append(fixed, 1.0)
        self._coefficients: dict[str, np.ndarray] = {}
        self._axes: dict[str, np.ndarray] = {}
        for metric, rows in terms.items():
            merged: dict[tuple[int, ...], int] = {}
            for coefficient, axes in rows:
                key = tuple(sorted(axes))
                merged[key] = merged.get(key, 0) + coefficient
            most = max((len(axes) for axes in merged), default=1) or 1
            self._axes[metric] = np.array([[*axes, *[one] * (most - len(axes))] for axes in merged], dtype=np.int64)
            self._axes[metric] = self._axes[metric].reshape(-1, most)
            self._coefficients[metric] = np.array(list(merged.values()), dtype=np.float64)

    def __call__(self, metric: str, widths: Any) -> Any:
        """The metric at the given widths, shape ``[groups]``; a tensor gives a differentiable tensor."""
        axes, coefficients = self._axes[metric], self._coefficients[metric]
        if isinstance(widths, Tensor):
            w = widths.to(torch.float64)
            matrix = torch.as_tensor(self._matrix, device=w.device)
            extents = torch.as_tensor(self._fixed, device=w.device) + matrix @ w
            return (torch.as_tensor(coefficients, device=w.device) * extents[torch.as_tensor(axes)].prod(1)).sum()
        extents = self._fixed + self._matrix @ np.asarray(widths, dtype=np.float64)
        return round(float((coefficients * extents[axes].prod(1)).sum()))

    def cost(self, widths: Any) -> Cost:
        return Cost(self("macs", widths), self("params", widths))
