"""Channel-wise interpolation is PyTorch's adaptive average pooling along the channels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from secateur.gates.interpolate import interpolate, pooling


def test_four_to_two_is_the_mean_of_pairs():
    x = torch.tensor([[1.0, 3.0, 10.0, 20.0]])
    assert interpolate(x, 2).tolist() == [[2.0, 15.0]]


def test_two_to_three_has_the_mean_between_them():
    a, b = 1.0, 5.0
    assert interpolate(torch.tensor([[a, b]]), 3).tolist() == [[a, (a + b) / 2, b]]


@pytest.mark.parametrize(("before", "after"), [(4, 16), (6, 16), (9, 14), (16, 9), (7, 7), (1, 5), (5, 1), (12, 25)])
def test_it_is_adaptive_average_pooling(before: int, after: int):
    x = torch.randn(3, before, 4, 5, dtype=torch.float64)
    wanted = F.adaptive_avg_pool3d(x.unsqueeze(1), (after, 4, 5)).squeeze(1)
    torch.testing.assert_close(interpolate(x, after), wanted, rtol=1e-6, atol=1e-6)
    assert interpolate(x, before) is x, "the same number of channels is the same map"


def test_any_axis():
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(interpolate(x, 5, axis=2), F.adaptive_avg_pool1d(x, 5))
    assert pooling(8, 5).sum(1).tolist() == pytest.approx([1.0] * 5)
