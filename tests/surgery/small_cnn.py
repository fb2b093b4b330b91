"""A small network whose cut can be checked by hand."""

from __future__ import annotations

from torch import Tensor, nn

#: What the tests keep of it.
KEEP = {"conv1": [0, 2, 5], "conv2": [1, 2, 3, 4, 7]}


class SmallCNN(nn.Module):
    """Two convolutions with BatchNorm and a linear layer behind a flatten of 2 x 2 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(2), nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        x = self.bn1(self.conv1(x)).relu()
        return self.fc(self.pool(self.bn2(self.conv2(x)).relu()).flatten(1))
