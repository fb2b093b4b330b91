"""VGG-16 with global average pooling in place of the three dense layers.

*Papers*: Simonyan, Zisserman, "Very Deep Convolutional Networks", ICLR 2015, arXiv 1409.1556; the head is that of Luo,
Wu, Lin, "ThiNet", ICCV 2017, arXiv 1707.06342, section 4.2, whose VGG-GAP and VGG-Tiny are widths of this network.
*Here*: convolutions with biases and no BN, four max poolings, the mean over what is left, one linear layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from secateur.models.cifar_vgg import STAGES, WIDTHS
from secateur.models.initialise import initialise


class VGGGap(nn.Module):
    """(batch, in_channels, height, width), at least 16 pixels a side -> logits (batch, num_classes)."""

    def __init__(self, num_classes: int = 1000, in_channels: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, (width, count) in enumerate(zip(WIDTHS, STAGES[16])):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).mean((2, 3)))
