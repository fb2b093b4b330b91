"""Channel-wise interpolation: a map of some channels seen at another number of channels, by adaptive average pooling.

Output channel ``i`` of ``n`` is the mean of the input channels from ``floor(i c / n)`` up to ``ceil((i + 1) c / n)``.
That is linear in the channels, so as a matrix it can be joined with the scales of a norm, or with filters.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def interpolate(x: Tensor, channels: int, axis: int = 1) -> Tensor:
    """The map at another number of channels.

    Args:
        x: any shape.
        channels: how many there will be along the axis.
        axis: of the channels.
    """
    count = x.shape[axis]
    if count == channels:
        return x
    mixed = x.movedim(axis, -1) @ pooling(count, channels, x.device).to(x.dtype).T
    return mixed.movedim(-1, axis)


@lru_cache(maxsize=4096)
def pooling(before: int, after: int, device: torch.device | None = None) -> Tensor:
    """The matrix of the interpolation, shape ``[after, before]``; every row adds up to one."""
    matrix = torch.zeros(after, before)
    for i in range(after):
        start, end = i * before // after, -(-(i + 1) * before // after)
        matrix[i, start:end] = 1 / (end - start)
    return matrix.to(device)
