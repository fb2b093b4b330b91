"""Toy data and a toy network for the loop's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn


class Blobs:
    """Four separable clouds in batches, in an order that depends on the epoch alone; the last batch is short."""

    def __init__(self, items: int = 100, batch: int = 16):
        generator = torch.Generator().manual_seed(7)
        self.y = torch.randint(0, 4, (items,), generator=generator)
        self.x = torch.randn(items, 3, 4, 4, generator=generator) + 2 * torch.eye(4)[self.y][:, None, :, None]
        self.batch = batch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.y) // self.batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(self.epoch))
        for part in order.split(self.batch):
            yield self.x[part], self.y[part]


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def toy() -> Callable[[], nn.Module]:
    """Makes the same network each time. It has dropout, so that a run depends on the random generators."""

    def build() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(128, 4),
        )

    return build
