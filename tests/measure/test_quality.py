"""Accuracy and loss over all items."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur._errors import DataError
from secateur.measure import accuracy, evaluate


def test_a_short_last_batch_counts_by_its_items():
    x = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])]
    y = torch.tensor([0, 1, 2, 0, 2])
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    assert accuracy(nn.Identity(), batches) == 0.8
    found = evaluate(nn.Identity(), batches)
    assert found["accuracy"] == 0.8
    assert found["loss"] == pytest.approx(F.cross_entropy(x, y).item())


def test_the_model_is_evaluated_and_its_modes_come_back():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3))
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batches = [(torch.randn(6, 3), torch.zeros(6, dtype=torch.long))]
    assert evaluate(model, batches, device="cpu") == evaluate(model, batches)
    assert [m.training for m in model] == [True, False]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_nothing_to_evaluate_on():
    with pytest.raises(DataError, match="no batches"):
        accuracy(nn.Identity(), [])
