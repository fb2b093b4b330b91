"""ImageNet residual networks with a width for every convolution, as architecture searches find them.

*Paper*: Dong, Yang, "Network Pruning via Transformable Architecture Search", NeurIPS 2019, arXiv 1905.09717.
*Here*: a 7x7 stem with stride 2 and max pooling, four stages of basic blocks (two 3x3 convolutions) or bottlenecks
(1x1, 3x3 with the stride, 1x1). Where the map is halved the shortcut is a 2x2 average pooling and a 1x1 convolution
with BN; elsewhere, where a block's output is of another width than its input, the 1x1 convolution with BN alone. A
width list has, as in the authors' released configurations, one entry for each convolution of the full depth, of which
only the first ``blocks`` of every stage are built.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise


class SearchedUnit(nn.Module):
    """Convolutions with BN around a shortcut; ReLU after each but the last, and after the sum.

    Args:
        widths: of what enters, then of every convolution: two make a basic block, three a bottleneck.
        stride: of the first 3x3 convolution.
    """

    def __init__(self, widths: Sequence[int], stride: int):
        super().__init__()
        kernels = (3, 3) if len(widths) == 3 else (1, 3, 1)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for k, kernel in enumerate(kernels):
            step = stride if k == kernels.index(3) else 1
            self.convs.append(nn.Conv2d(widths[k], widths[k + 1], kernel, step, kernel // 2, bias=False))
            self.norms.append(nn.BatchNorm2d(widths[k + 1]))
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2 or widths[0] != widths[-1]:
            pool = [nn.AvgPool2d(2)] if stride == 2 else []
            norm = nn.BatchNorm2d(widths[-1])
            self.shortcut = nn.Sequential(*pool, nn.Conv2d(widths[0], widths[-1], 1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            out = norm(conv(out))
            if k + 1 < len(self.convs):
                out = F.relu(out)
        return F.relu(out + self.shortcut(x))


class SearchedImageNet(nn.Module):
    """(batch, in_channels, height, width) -> logits (batch, num_classes).

    Args:
        widths: of the stem, then of every convolution of every block of the full depth.
        layers: how many blocks each of the four stages has at full depth.
        blocks: how many of them are built, from 1 on.
        num_classes: width of the last layer.
        in_channels: channels of the image.

    Raises:
        UsageError: the lists do not fit each other.
    """

    def __init__(
        self,
        widths: Sequence[int],
        layers: Sequence[int],
        blocks: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
    ):
        super().__init__()
        each, rest = divmod(len(widths) - 1, max(1, sum(layers)))
        if rest or each not in (2, 3):
            raise UsageError(
                f"{sum(layers)} blocks have two or three convolutions each, with a width of its own, and there is the "
                f"stem: {len(widths)} widths are neither"
            )
        if len(layers) != 4 or len(blocks) != 4 or not all(1 <= b <= n for b, n in zip(blocks, layers)):
            raise UsageError(
                f"blocks={tuple(blocks)}: say for each of four stages how many of {tuple(layers)} are built"
            )
        self.conv1 = nn.Conv2d(in_channels, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before, stages, start = widths[0], [], 1
        for stage, (full, count) in enumerate(zip(layers, blocks)):
            made = []
            for k in range(count):
                own = widths[start + k * each :][:each]
                made.append(SearchedUnit([before, *own], 2 if stage and not k else 1))
                before = own[-1]
            stages.append(nn.Sequential(*made))
            start += full * each
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(before, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
