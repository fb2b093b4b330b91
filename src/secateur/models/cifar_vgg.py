"""VGG with batch normalisation for 32x32 images.

*Paper*: Simonyan, Zisserman, "Very Deep Convolutional Networks", ICLR 2015, arXiv 1409.1556.
*Here*: the CIFAR form of the pruning literature (Liu et al. 2017 and 2019): no convolution biases, average pooling at
the end, one linear layer, BN scales that start at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.models.initialise import initialise

# Convolutions in each of the five stages; a 2x2 max pooling stands between two stages.
STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class CifarVGG(nn.Module):
    """(batch, in_channels, height, width), at least 16 pixels a side -> logits (batch, num_classes).

    Args:
        depth: 16 or 19.
        num_classes: width of the last layer.
        in_channels: channels of the image.
        widths: channels of every convolution from the first on (13 or 16 of them); the paper's by default.

    Raises:
        UsageError: another depth, or a number of widths that does not fit it.
    """

    def __init__(
        self, depth: int = 16, num_classes: int = 10, in_channels: int = 3, widths: Sequence[int] | None = None
    ):
        super().__init__()
        if depth not in STAGES:
            raise UsageError(f"a CIFAR VGG has 16 or 19 layers, not {depth}")
        stages = STAGES[depth]
        if widths is None:
            widths = [width for width, count in zip(WIDTHS, stages) for _ in range(count)]
        if len(widths) != sum(stages):
            raise UsageError(f"VGG-{depth} has {sum(stages)} convolutions, but {len(widths)} widths are given")
        layers: list[nn.Module] = []
        channels, remaining = in_channels, iter(widths)
        for stage, count in enumerate(stages):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                width = next(remaining)
                layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self, bn_gamma=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(self.features(x)).flatten(1))
