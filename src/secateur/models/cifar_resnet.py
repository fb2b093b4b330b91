"""CIFAR residual networks.

*Paper*: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, section 4.2.
*Here*: depth 6n+2, three stages of n basic blocks at 16/32/64 channels, parameter-free (option A) shortcuts. Module
names and padding are those of akamaster/pytorch_resnet_cifar10, whose published weights load after the prefix
``module.`` is removed. ``shortcut="conv"`` gives the 1x1-convolution + BN shortcut instead (the TAS baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise

Shortcut = Literal["pad", "conv"]


class PadShortcut(nn.Module):
    """Option A: every second row and column, then ``before`` and ``after`` channels of zeros around the others.

    (batch, in, height, width) -> (batch, before + in + after, ceil(height / stride), ceil(width / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BN around a shortcut; ReLU after the first and after the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module
        if stride == 1 and in_channels == channels:
            self.shortcut = nn.Identity()
        elif shortcut == "pad":
            self.shortcut = PadShortcut(in_channels, channels, stride)
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """(batch, in_channels, height, width) -> logits (batch, num_classes).

    Args:
        blocks: residual blocks in each stage; every stage but the first halves height and width.
        widths: channels of each stage; the stem has the first stage's.
        num_classes: width of the last layer.
        in_channels: channels of the image.
        shortcut: ``"pad"`` (option A, no parameters) or ``"conv"`` (1x1 convolution and BN) where the shape changes.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: Shortcut = "pad",
    ):
        super().__init__()
        if len(blocks) != 3 or len(widths) != 3:
            raise UsageError(f"a CIFAR ResNet has three stages, not blocks={tuple(blocks)}, widths={tuple(widths)}")
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks[0], 1, shortcut)
        self.layer2 = _stage(widths[0], widths[1], blocks[1], 2, shortcut)
        self.layer3 = _stage(widths[1], widths[2], blocks[2], 2, shortcut)
        self.linear = nn.Linear(widths[2], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def cifar_resnet(depth: int, num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "pad") -> CifarResNet:
    """The CIFAR ResNet of ``depth`` = 6n + 2 layers.

    Raises:
        UsageError: the depth is not 6n + 2.
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise UsageError(f"a CIFAR ResNet has 6n + 2 layers (20, 32, 44, 56, 110 …), not {depth}")
    return CifarResNet((n, n, n), num_classes=num_classes, in_channels=in_channels, shortcut=shortcut)


def _stage(in_channels: int, channels: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1)))
