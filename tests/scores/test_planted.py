"""A filter planted near zero has to be the one that goes (papers.md 3.11), in every layer that can be cut."""

from __future__ import annotations

import pytest
import torch

import secateur as sc
from secateur.graph import PruningGraph
from secateur.models import build

PLANTED = 3


@pytest.fixture(scope="module")
def planted() -> PruningGraph:
    """ResNet-20 in which unit 3 of every group has filters of a millionth of their size."""
    torch.manual_seed(0)
    model = build("cifar-resnet20").eval()
    graph = sc.trace(model, torch.randn(1, 3, 32, 32))
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for group in graph.prunable:
            for member in group.producers:
                assert member.axis == 0
                tensors[member.tensor][torch.as_tensor(member.positions[PLANTED])] *= 1e-6
    return graph


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_it_has_the_lowest_score(planted: PruningGraph, criterion: str):
    scores = sc.score(planted, criterion)
    assert len(scores) == len(planted.prunable) == 10
    for name, values in scores.items():
        assert int(values.argmin()) == PLANTED, name


@pytest.mark.parametrize("ranking", ["global", "layer"])
def test_it_is_the_one_that_goes(planted: PruningGraph, ranking: str):
    scores = sc.score(planted, "l1")
    one_less = {name: width - 1 for name, width in planted.widths.items()}
    for plan in (
        sc.plan(planted, scores, one_less),
        sc.plan(planted, scores, sc.Budget(macs=0.85), round_to=1, ranking=ranking),
    ):
        for name, units in plan.keep.items():
            assert PLANTED not in units, name
    exact = sc.plan(planted, scores, one_less)
    assert all(units == tuple(u for u in range(planted.widths[n]) if u != PLANTED) for n, units in exact.keep.items())
