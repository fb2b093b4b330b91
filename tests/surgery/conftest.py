"""The small network, one input of it and its graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.graph import PruningGraph, trace
from surgery.small_cnn import SmallCNN


@pytest.fixture
def example() -> Tensor:
    """One input of the small network."""
    return torch.randn(2, 3, 8, 8)


@pytest.fixture
def model() -> SmallCNN:
    """The small network with statistics as after training."""
    net = SmallCNN()
    for norm in (net.bn1, net.bn2):
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 1.5)
    return net


@pytest.fixture
def graph(model: SmallCNN, example: Tensor) -> PruningGraph:
    """Its graph."""
    return trace(model, example)
