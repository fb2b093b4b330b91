"""CIFAR residual networks with a width for every convolution, as architecture searches find them.

*Paper*: Dong, Yang, "Network Pruning via Transformable Architecture Search", NeurIPS 2019, arXiv 1905.09717.
*Here*: depth 6n+2, three stages of basic blocks. Where the map is halved the shortcut is a 2x2 average pooling and a
1x1 convolution without BN; elsewhere, where a block's output is of another width than its input, a 1x1 convolution
with BN. A width list has, as in the authors' released configurations, one entry for each convolution of the full depth,
of which only the first ``blocks`` of every stage are built.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise


class SearchedBlock(nn.Module):
    """Two 3x3 convolutions with BN around a shortcut; ReLU after the first and after the sum."""

    def __init__(self, in_channels: int, middle: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, middle, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1, bias=False))
        elif in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class SearchedResNet(nn.Module):
    """(batch, in_channels, height, width) -> logits (batch, num_classes).

    Args:
        widths: of the stem, then of both convolutions of every block of the full depth: ``1 + 6n`` numbers.
        blocks: how many blocks of each stage are built, from 1 to n.
        num_classes: width of the last layer.
        in_channels: channels of the image.

    Raises:
        UsageError: the lists do not fit each other.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], num_classes: int = 10, in_channels: int = 3):
        super().__init__()
        n, rest = divmod(len(widths) - 1, 6)
        if rest or n < 1:
            raise UsageError(f"a CIFAR ResNet has 6n + 1 convolutions with widths of their own, not {len(widths)}")
        if len(blocks) != 3 or not all(1 <= b <= n for b in blocks):
            raise UsageError(
                f"blocks={tuple(blocks)}: say for each of three stages how many of its {n} blocks are built"
            )
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before, stages = widths[0], []
        for stage, count in enumerate(blocks):
            made = []
            for k in range(count):
                at = 1 + 2 * (stage * n + k)
                stride = 2 if stage and not k else 1
                made.append(SearchedBlock(before, widths[at], widths[at + 1], stride))
                before = widths[at + 1]
            stages.append(nn.Sequential(*made))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(before, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))
