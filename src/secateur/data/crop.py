"""The augmentation of CIFAR training: pad, crop, mirror, one gather for the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4


def draw(batch: int, generator: torch.Generator, padding: int = PADDING) -> Tensor:
    """Where to crop each image and whether to mirror it: int64 (3, batch, 1), rows top, left and mirrored (0 or 1)."""
    corner = torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator)
    return torch.cat((corner, (torch.rand(1, batch, 1, generator=generator) < 0.5).long()))


def cropped(images: Tensor, drawn: Tensor, padding: int = PADDING) -> Tensor:
    """(batch, C, H, W) of any dtype -> the same shape: black all round, cropped and mirrored as :func:`draw` says.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.2.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left, mirrored = drawn
    columns = torch.arange(width, device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.where(mirrored.bool(), width - 1 - columns, columns)
    which = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


def crop_flip(images: Tensor, generator: torch.Generator, padding: int = PADDING) -> Tensor:
    """(batch, C, H, W) of any dtype, on the CPU -> the same shape, drawn and cropped."""
    return cropped(images, draw(len(images), generator, padding), padding)
