"""Recalibration equals the statistics computed directly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur._errors import UsageError
from secateur.training import recalibrate


@pytest.fixture
def model():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Dropout(0.5), nn.BatchNorm2d(5, momentum=0.3), nn.ReLU())
    net[2].running_mean.fill_(9.0)
    return net


def test_it_is_the_direct_mean_and_variance(model):
    batches = [(torch.randn(8, 3, 6, 6), None) for _ in range(3)]
    weights = [p.clone() for p in model.parameters()]
    model.train()
    model[1].eval()
    assert recalibrate(model, batches) == 3
    with torch.no_grad():
        features = [model[0](x) for x, _ in batches]
    mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    variance = torch.stack([f.var((0, 2, 3), unbiased=True) for f in features]).mean(0)
    torch.testing.assert_close(model[2].running_mean, mean)
    torch.testing.assert_close(model[2].running_var, variance)
    assert model[2].momentum == 0.3
    assert [m.training for m in model] == [True, False, True, True]
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_without_data_or_after_an_error_nothing_changes(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UsageError, match="no batches"):
        recalibrate(model, [])
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.randn(2, 3, 6, 6), torch.randn(2, 4, 6, 6)])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model[2].momentum == 0.3


def test_a_model_without_statistics_is_left_alone():
    assert recalibrate(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), []) == 0
