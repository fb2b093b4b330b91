"""LeNet-5 as Caffe ships it.

*Paper*: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998.
*Here*: Caffe's widths 20, 50, 800 -> 500 with a ReLU after every hidden layer, as the pruning literature uses it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from secateur.models.initialise import initialise


class LeNet5(nn.Module):
    """(batch, in_channels, 28, 28) -> logits (batch, num_classes)."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))
