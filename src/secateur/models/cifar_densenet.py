"""CIFAR DenseNets.

*Paper*: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, arXiv
1608.06993.
*Here*: three dense blocks between a 3x3 stem of twice the growth rate and a linear layer, BN and ReLU in front of every
other convolution, no dropout. DenseNet-40 has 3x3 convolutions only and keeps all channels in the transitions;
DenseNet-BC-100 has 1x1 bottlenecks of four times the growth rate and halves the channels there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise

BOTTLENECK = 4


class DenseLayer(nn.Module):
    """(batch, channels, height, width) -> the same with ``growth`` channels appended."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv1(F.relu(self.bn1(x)))), 1)


class BottleneckLayer(nn.Module):
    """(batch, channels, height, width) -> the same with ``growth`` channels appended, through a 1x1 convolution."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        return torch.cat((x, self.conv2(F.relu(self.bn2(out)))), 1)


class Transition(nn.Module):
    """BN, ReLU, a 1x1 convolution, and half the height and width by averaging."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class CifarDenseNet(nn.Module):
    """(batch, in_channels, height, width) -> logits (batch, num_classes).

    Args:
        layers: in each of the three dense blocks.
        growth: channels that each layer appends.
        bottleneck: with 1x1 bottlenecks, and transitions that halve the channels (the paper's BC).
        num_classes: width of the last layer.
        in_channels: channels of the image.
        bn_gamma: what BN scales start from.
    """

    def __init__(
        self,
        layers: int,
        growth: int = 12,
        bottleneck: bool = False,
        num_classes: int = 10,
        in_channels: int = 3,
        bn_gamma: float = 1.0,
    ):
        super().__init__()
        kind = BottleneckLayer if bottleneck else DenseLayer
        channels = 2 * growth
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        stages: list[nn.Module] = []
        for stage in range(3):
            if stage:
                kept = channels // 2 if bottleneck else channels
                stages.append(Transition(channels, kept))
                channels = kept
            stages.append(nn.Sequential(*(kind(channels + i * growth, growth) for i in range(layers))))
            channels += layers * growth
        self.dense1, self.trans1, self.dense2, self.trans2, self.dense3 = stages
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self, bn_gamma)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.dense3(self.trans2(self.dense2(x)))
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


def cifar_densenet(
    depth: int,
    bottleneck: bool = False,
    growth: int = 12,
    num_classes: int = 10,
    in_channels: int = 3,
    bn_gamma: float = 1.0,
) -> CifarDenseNet:
    """The DenseNet of ``depth`` = 3n + 4 layers, or 6n + 4 with bottlenecks.

    Raises:
        UsageError: another depth.
    """
    step = 6 if bottleneck else 3
    n, rest = divmod(depth - 4, step)
    if rest or n < 1:
        kind = "a CIFAR DenseNet-BC" if bottleneck else "a CIFAR DenseNet"
        raise UsageError(f"{kind} has {step}n + 4 layers ({12 * step + 4}, {16 * step + 4} …), not {depth}")
    return CifarDenseNet(n, growth, bottleneck, num_classes, in_channels, bn_gamma)
