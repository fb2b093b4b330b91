"""Counts of the scores that stayed and that went, against numbers worked out by hand."""

from __future__ import annotations

import json

import pytest
import torch

import secateur as sc
from secateur.budget.histogram import BINS, histogram, unit_histogram, weight_histogram
from secateur.models import build


def graph() -> sc.PruningGraph:
    torch.manual_seed(0)
    return sc.trace(build("digits-resnet"), torch.zeros(1, 1, 8, 8))


def test_raw_scores_have_one_threshold():
    found = graph()
    scores = {g.name: torch.arange(1.0, g.width + 1) / 10 for g in found.prunable}
    plan = sc.plan(found, scores, sc.Budget(macs=0.5), round_to=1, ranking="raw")
    counted = unit_histogram(scores, plan, "raw")
    assert counted is not None
    kept = [scores[name][list(units)] for name, units in plan.keep.items()]
    gone = torch.cat([s for name, s in scores.items() if name not in plan.keep] + [
        scores[name][[i for i in range(len(scores[name])) if i not in units]] for name, units in plan.keep.items()
    ])  # fmt: skip
    assert (sum(counted["kept"]), sum(counted["removed"])) == (sum(map(len, kept)), len(gone))
    assert counted["relative"] is False
    assert counted["threshold"] in (None, pytest.approx(float(gone.max())))
    assert len(counted["kept"]) == len(counted["removed"]) == BINS
    assert json.loads(json.dumps(counted)) == counted


@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_other_scores_are_set_against_the_threshold_of_their_group(ranking: str):
    found = graph()
    generator = torch.Generator().manual_seed(1)
    # Groups on scales of their own: on one axis only because each is divided by its own threshold.
    scores = {g.name: 10.0**n * (1 + torch.rand(g.width, generator=generator)) for n, g in enumerate(found.prunable)}
    plan = sc.plan(found, scores, sc.Budget(macs=0.5), round_to=1, ranking=ranking)
    counted = unit_histogram(scores, plan, ranking)
    assert counted is not None
    assert (counted["relative"], counted["threshold"]) == (True, 1.0)
    assert counted["high"] < 2
    edge = [counted["low"] + n * (counted["high"] - counted["low"]) / BINS for n in range(BINS + 1)]
    # The best unit of what goes stands at 1 itself.
    assert not any(k for k, upper in zip(counted["kept"], edge[1:], strict=True) if upper <= 1)
    assert not any(r for r, lower in zip(counted["removed"], edge, strict=False) if lower > 1)
    narrowed = [g for g in plan.groups if g.kept < g.width]
    assert sum(counted["kept"]) == sum(g.kept for g in narrowed)
    assert sum(counted["removed"]) == sum(g.width - g.kept for g in narrowed)


def test_weights_by_hand():
    sizes = {"a": torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "b": torch.tensor([4.0, 100.0])}
    keep = {name: values > 1 for name, values in sizes.items()}
    counted = weight_histogram(sizes, keep)
    assert counted is not None
    assert (counted["what"], counted["threshold"], counted["low"], counted["high"]) == ("weights", 1.0, 0.0, 4.0)
    # Bins of 0.1; what lies beyond four times the threshold shares the last one.
    assert {n: c for n, c in enumerate(counted["kept"]) if c} == {20: 1, 30: 1, 39: 2}
    assert {n: c for n, c in enumerate(counted["removed"]) if c} == {0: 1, 10: 1}


def test_no_threshold_where_the_scores_did_not_decide():
    values = [torch.linspace(0, 1, 100).numpy()]
    counted = histogram(values, values, "weights", relative=False)
    assert counted is not None
    assert counted["threshold"] is None


def test_nothing_to_draw():
    one = [torch.ones(4).numpy()]
    assert histogram(one, [], "units", relative=False) is None
    found = graph()
    scores = {g.name: torch.ones(g.width) for g in found.prunable}
    plan = sc.plan(found, scores, {})
    assert unit_histogram(scores, plan, "layer") is None
