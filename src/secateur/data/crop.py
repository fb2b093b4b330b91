"""The augmentation of CIFAR training: pad, crop, mirror, one gather for the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4


def crop_flip(images: Tensor, generator: torch.Generator, padding: int = PADDING) -> Tensor:
    """(batch, C, H, W) of any dtype -> the same shape: black all round, a random crop, mirrored half of the time.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.2.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator)
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.arange(width)
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, width - 1 - columns, columns)
    which = torch.arange(batch)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]
