"""New weights: all of them, the same ones for the same seed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from secateur._errors import UsageError
from secateur.training import reinitialise


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 3)
        self.norm = nn.BatchNorm2d(64)
        self.attention = nn.MultiheadAttention(32, 4)
        self.recurrent = nn.LSTM(16, 16)
        self.linear = nn.Linear(64, 64)
        self.token = nn.Parameter(torch.ones(1, 1, 64))
        self.out_scale = nn.Parameter(torch.full((16,), 3.0))
        self.extra_bias = nn.Parameter(torch.full((16,), 3.0))
        self.register_buffer("mask", torch.ones(4))


@pytest.fixture
def model():
    """A model that looks trained: no parameter is where an initialiser would put it."""
    net = Everything()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p)).mul_(2)
    net.norm.running_mean.fill_(5.0)
    net.norm.num_batches_tracked.fill_(7)
    net.conv.requires_grad_(False)
    return net


def test_everything_changes_and_nothing_is_left(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    left = reinitialise(model, seed=1)
    assert set(left) == {"token", "out_scale", "extra_bias"}
    for name, p in model.named_parameters():
        assert p.isfinite().all(), name
        assert not (p == before[name]).any(), name
        if p.numel() >= 1000:
            both = torch.stack([p.detach().flatten(), before[name].flatten()])
            assert abs(torch.corrcoef(both)[0, 1]) < 5 / math.sqrt(p.numel()), name
    assert model.norm.running_mean.eq(0).all()
    assert model.norm.running_var.eq(1).all()
    assert model.norm.num_batches_tracked == 0
    assert model.mask.eq(1).all()
    assert not model.conv.weight.requires_grad


def test_the_rule(model):
    reinitialise(model, seed=1, norm_scale=0.5)
    assert model.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.1)
    assert model.conv.bias.eq(0).all()
    assert model.norm.weight.eq(0.5).all()
    assert model.norm.bias.eq(0).all()
    assert model.token.std().item() == pytest.approx(0.02, rel=0.3)
    assert model.out_scale.eq(1).all()
    assert model.extra_bias.eq(0).all()
    # The parent's own rule wins over its children's: attention sets its output bias to zero.
    assert model.attention.out_proj.bias.eq(0).all()


def test_a_seed_decides_and_the_global_generator_is_left_alone(model):
    state = torch.get_rng_state()
    reinitialise(model, seed=1)
    one = {k: v.clone() for k, v in model.state_dict().items()}
    assert torch.equal(torch.get_rng_state(), state)
    reinitialise(model, seed=1)
    assert all(torch.equal(v, one[k]) for k, v in model.state_dict().items())
    reinitialise(model, seed=2)
    assert not torch.equal(model.conv.weight, one["conv.weight"])


def test_weights_behind_a_parametrisation_are_refused_untouched():
    net = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UsageError, match="parametrisation: 1\n"):
        reinitialise(net, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
