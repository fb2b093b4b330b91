"""Cost as a polynomial in the group widths.

The multiply-accumulates of a contraction are a number times the extents of a few axes, and an extent is a linear
function of the widths: the channels that a convolution reads after a concatenation are the sum of what the parts kept.
Parameters are counted the same way, so one small object answers in microseconds what a built network would answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
            padded = np.array([[*axes, *[one] * (most - len(axes))] for axes in merged], dtype=np.int64)
            # Factors lie along the first axis: numpy multiplies a few long lines faster than many short ones.
            self._axes[metric] = np.ascontiguousarray(padded.reshape(-1, most).T)
            self._coefficients[metric] = np.array(list(merged.values()), dtype=np.float64)

    def __call__(self, metric: str, widths: Any) -> Any:
        """The metric at the given widths, shape ``[groups]``; a tensor gives a differentiable tensor."""
        axes, coefficients = self._axes[metric], self._coefficients[metric]
        if isinstance(widths, Tensor):
            w = widths.to(torch.float64)
            matrix = torch.as_tensor(self._matrix, device=w.device)
            extents = torch.as_tensor(self._fixed, device=w.device) + matrix @ w
            return (torch.as_tensor(coefficients, device=w.device) * extents[torch.as_tensor(axes)].prod(0)).sum()
        extents = self._fixed + self._matrix @ np.asarray(widths, dtype=np.float64)
        return round(float((coefficients * extents[axes].prod(0)).sum()))

    def cost(self, widths: Any) -> Cost:
        return Cost(self("macs", widths), self("params", widths))

    def meter(self, metric: str, widths: np.ndarray, lanes: Sequence[Mapping[int, int]]) -> Meter:
        """The metric as a function of the steps that are taken from several lanes.

        Args:
            widths: of every group of the dense model, shape ``[groups]``.
            lanes: how many units each group loses with a step, by number of the group; a group is in one lane only.
        """
        extents = self._fixed + self._matrix @ np.asarray(widths, dtype=np.float64)
        groups = [(k, group, loss) for k, lane in enumerate(lanes) for group, loss in lane.items()]
        of, columns, losses = (np.array(some, dtype=np.int64) for some in (zip(*groups) if groups else ((), (), ())))
        column, row = np.nonzero(self._matrix.T[columns])
        slopes = losses[column] * self._matrix[row, columns[column]]
        return Meter(extents, of[column], row, slopes, self._coefficients[metric], self._axes[metric])


class Meter:
    """One metric while steps are taken from lanes and given back; a lane is groups that lose units together.

    Args:
        extents: length of each axis before anything is taken.
        lane, row, slope: one entry for each axis that a lane shortens: by how much, when one step is taken from it.
            Ascending by lane.
        coefficients, axes: of the terms, shapes ``[terms]`` and ``[factors, terms]``.
    """

    def __init__(
        self,
        extents: np.ndarray,
        lane: np.ndarray,
        row: np.ndarray,
        slope: np.ndarray,
        coefficients: np.ndarray,
        axes: np.ndarray,
    ):
        self._dense, self._lane, self._row, self._slope = extents, lane, row, slope
        self._coefficients, self._axes = coefficients, axes
        self._met: dict[int, tuple[np.ndarray, ...]] = {}

    def take(self, steps: np.ndarray) -> float:
        """The metric when so many steps are taken from each lane of the dense model, shape ``[lanes]``."""
        self._extents = self._dense - np.bincount(self._row, self._slope * steps[self._lane], len(self._dense))
        self._values = self._coefficients * self._extents[self._axes].prod(0)
        self._total = float(self._values.sum())
        return self._total

    def give_back(self, lane: int, steps: int, limit: float) -> bool:
        """Give steps back to one lane, unless the metric would be more than ``limit``; whether it was done.

        Only the terms that have an axis of the lane are looked at. Sums of whole numbers are exact in float64.
        """
        if lane not in self._met:
            self._met[lane] = self._meets(lane)
        rows, slopes, terms, coefficients, axes = self._met[lane]
        before = self._extents[rows]
        self._extents[rows] = before + steps * slopes
        values = coefficients * np.multiply.reduce(self._extents[axes])
        total = self._total + float(np.add.reduce(values - self._values[terms]))
        if total > limit:
            self._extents[rows] = before
            return False
        self._total = total
        self._values[terms] = values
        return True

    def _meets(self, lane: int) -> tuple[np.ndarray, ...]:
        """The axes that a lane shortens and by how much, and the terms that have one of them: coefficients and axes."""
        some = slice(*np.searchsorted(self._lane, (lane, lane + 1)))
        shortened = np.bincount(self._row[some], self._slope[some], len(self._dense))
        (rows,) = shortened.nonzero()
        terms = np.flatnonzero((shortened > 0)[self._axes].any(0))
        return rows, shortened[rows], terms, self._coefficients[terms], self._axes[:, terms]
