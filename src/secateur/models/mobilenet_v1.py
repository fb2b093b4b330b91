"""MobileNet-V1.

*Paper*: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017,
arXiv 1704.04861, table 1.
*Here*: a 3x3 stem of stride 2 and thirteen separable blocks, each a depthwise 3x3 and a pointwise convolution with BN
and ReLU behind both, the mean over what is left, one linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise

# Of the stem and of every block's pointwise convolution, in multiples of the stem's.
MULTIPLES = (1, 2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32)
# Blocks whose depthwise convolution halves height and width, from 0.
HALVING = (1, 3, 5, 11)


class Separable(nn.Module):
    """(batch, in_channels, height, width) -> (batch, channels, height / stride, width / stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class MobileNetV1(nn.Module):
    """(batch, in_channels, height, width) -> logits (batch, num_classes).

    Args:
        num_classes: width of the last layer.
        in_channels: channels of the image.
        widths: of the stem and of the thirteen blocks; the paper's by default.

    Raises:
        UsageError: another number of widths.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3, widths: Sequence[int] | None = None):
        super().__init__()
        if widths is None:
            widths = [32 * m for m in MULTIPLES]
        if len(widths) != len(MULTIPLES):
            raise UsageError(f"MobileNet-V1 has a stem and 13 blocks, but {len(widths)} widths are given")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        pairs = enumerate(pairwise(widths))
        self.blocks = nn.Sequential(*(Separable(a, b, 2 if k in HALVING else 1) for k, (a, b) in pairs))
        self.linear = nn.Linear(widths[-1], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(self.stem(x)).mean((2, 3)))
