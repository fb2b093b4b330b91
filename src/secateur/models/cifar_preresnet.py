"""CIFAR residual networks with pre-activation.

*Paper*: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv 1603.05027.
*Here*: depth 9n+2, three stages of n bottleneck blocks (1x1, 3x3, 1x1) at 16/32/64 channels inside and four times that
on the stream, as Liu et al. 2017 and 2019 prune them: a bare 1x1 convolution where the stream changes its shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise

EXPANSION = 4


class PreActivationBottleneck(nn.Module):
    """BN and ReLU in front of each of three convolutions; what is added to the stream is the bare last one."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        out_channels = EXPANSION * channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        return out + self.shortcut(x)


class CifarPreResNet(nn.Module):
    """(batch, in_channels, height, width) -> logits (batch, num_classes).

    Args:
        blocks: bottleneck blocks in each of the three stages; the second and the third halve height and width.
        widths: channels inside the blocks of each stage; the stem has the first stage's.
        num_classes: width of the last layer.
        in_channels: channels of the image.
        bn_gamma: what BN scales start from.

    Raises:
        UsageError: there are not three stages.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 10,
        in_channels: int = 3,
        bn_gamma: float = 1.0,
    ):
        super().__init__()
        if len(blocks) != 3 or len(widths) != 3:
            raise UsageError(f"a CIFAR ResNet has three stages, not blocks={tuple(blocks)}, widths={tuple(widths)}")
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.layer1 = _stage(widths[0], widths[0], blocks[0], 1)
        self.layer2 = _stage(EXPANSION * widths[0], widths[1], blocks[1], 2)
        self.layer3 = _stage(EXPANSION * widths[1], widths[2], blocks[2], 2)
        self.bn = nn.BatchNorm2d(EXPANSION * widths[2])
        self.linear = nn.Linear(EXPANSION * widths[2], num_classes)
        initialise(self, bn_gamma)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


def cifar_preresnet(depth: int, num_classes: int = 10, in_channels: int = 3, bn_gamma: float = 1.0) -> CifarPreResNet:
    """The pre-activation ResNet of ``depth`` = 9n + 2 layers.

    Raises:
        UsageError: the depth is not 9n + 2.
    """
    n, rest = divmod(depth - 2, 9)
    if rest or n < 1:
        raise UsageError(f"a pre-activation CIFAR ResNet has 9n + 2 layers (20, 56, 110, 164 …), not {depth}")
    return CifarPreResNet((n, n, n), num_classes=num_classes, in_channels=in_channels, bn_gamma=bn_gamma)


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActivationBottleneck(in_channels, channels, stride)
    more = (PreActivationBottleneck(EXPANSION * channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *more)
