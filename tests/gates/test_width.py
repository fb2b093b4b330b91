"""The Gumbel law over counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import secateur as sc
from secateur._errors import UsageError
from secateur.gates.width import candidates, gumbel, padded, parse_ratios, two_of


def group(width: int):
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 4, 2))
    return sc.trace(model, torch.zeros(1, 3, 4, 4)).prunable[0]


def test_the_ratios_of_the_released_code():
    ratios = parse_ratios("0.3,0.4,0.5,0.6,0.7,0.8,0.9,1")
    assert candidates(group(16), ratios) == (4, 6, 8, 9, 11, 12, 14, 16)
    assert candidates(group(32), ratios) == (9, 12, 16, 19, 22, 25, 28, 32)
    assert candidates(group(64), ratios) == (19, 25, 32, 38, 44, 51, 57, 64)


def test_rounding_and_floors_leave_each_count_once():
    assert candidates(group(64), (0.3, 0.4, 0.5, 1.0), round_to=8) == (16, 24, 32, 64)
    assert candidates(group(8), (0.1, 0.2, 0.5, 1.0)) == (1, 4, 8), "at least one unit stays"
    assert candidates(group(10), (0.1, 0.5, 1.0), floor=0.3) == (3, 5, 10)


def test_bad_ratios_are_all_named():
    with pytest.raises(UsageError) as caught:
        parse_ratios("0.3,0.5,0.3,0,1.2,much")
    said = str(caught.value)
    assert "0.3 is there twice" in said
    assert "0 is out of (0, 1]" in said
    assert "1.2 is out of (0, 1]" in said
    assert "'much' is not a number" in said


def test_gumbel_draws_candidates_as_often_as_they_are_likely():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(20_000, 3)
    first = gumbel(logits, 1.0).argmax(1)
    shares = [float((first == k).float().mean()) for k in range(3)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.015)


def test_two_different_candidates_with_weights_of_one():
    logits = padded([3, 5], 0.01)
    for _ in range(50):
        chosen, weights = two_of(gumbel(logits, 0.1))
        assert bool((chosen[:, 0] < chosen[:, 1]).all())
        assert int(chosen[0, 1]) < 3, "a law has its own number of candidates"
        assert weights.sum(1).tolist() == pytest.approx([1.0, 1.0])


def test_the_weights_are_a_softmax_over_the_two_perturbed_logits():
    perturbed = torch.tensor([[0.0, math.log(3.0), -torch.inf]])
    chosen, weights = two_of(perturbed)
    assert chosen.tolist() == [[0, 1]]
    assert weights[0].tolist() == pytest.approx([0.25, 0.75])


def test_only_the_two_chosen_get_a_gradient():
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    chosen, weights = two_of(gumbel(logits, 0.7))
    (gradient,) = torch.autograd.grad((weights[:, 0] * torch.arange(1.0, 5.0)).sum(), logits)
    for row, pair in zip(gradient, chosen):
        rest = [k for k in range(6) if k not in pair.tolist()]
        assert float(row[rest].abs().max()) < 1e-14
        assert float(row[pair].abs().min()) > 1e-6
