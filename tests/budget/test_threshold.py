"""One threshold: nested, within the budget to a unit, refused with floor and ceiling."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

import secateur as sc
from secateur._errors import BudgetError, UsageError
from secateur.budget import Budget, threshold
from secateur.graph import Cost, PruningGraph
from secateur.models import build
from secateur.surgery import cut
from secateur.testing.checks import counted

BUDGETS = (0.9, 0.7, 0.5, 0.3, 0.2)


@pytest.fixture(scope="module")
def graph() -> PruningGraph:
    return sc.trace(build("cifar-resnet20"), torch.randn(1, 3, 32, 32))


def random_scores(graph: PruningGraph, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.width, generator=generator, dtype=torch.float64) for g in graph.prunable}


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_what_a_smaller_budget_keeps_is_part_of_what_a_larger_one_keeps(
    graph: PruningGraph, metric: str, round_to: int
):
    scores = random_scores(graph)
    plans = [threshold(graph, scores, Budget(**{metric: b}), round_to=round_to) for b in BUDGETS]
    for large, small in pairwise(plans):
        assert all(set(units) <= set(large.keep[name]) for name, units in small.keep.items())
        assert sum(small.widths.values()) < sum(large.widths.values())
    steps = {n: round_to if w >= 2 * round_to else max(1, w // 4) for n, w in graph.widths.items()}
    least = {n: getattr(graph.cost({n: w - steps[n]}), metric) for n, w in graph.widths.items()}
    # Nothing else can be left over: the next step in the order did not fit.
    dearest = getattr(graph.cost(), metric) - min(least.values())
    for plan, share in zip(plans, BUDGETS):
        limit = share * getattr(graph.cost(), metric)
        macs, params = counted(cut(graph.model, plan), torch.randn(1, 3, 32, 32))
        spent = {"macs": macs, "params": params}[metric]
        assert limit - dearest < spent <= limit
        assert (plan.why["macs"], plan.why["params"]) == (macs, params)


def test_one_unit_more_would_be_too_much(graph: PruningGraph):
    scores = random_scores(graph)
    budget = Budget(macs=0.5)
    plan = threshold(graph, scores, budget, round_to=1)
    kept, floors = plan.keep, {g.name: -(-g.width // 10) for g in graph.prunable}
    # All that is kept above the floors is worth more than all that goes, and the best of what goes does not fit.
    gone = {(float(scores[n][u]), n) for n in kept for u in set(range(graph[n].width)) - set(kept[n])}
    above = [float(scores[n][u]) for n, units in kept.items() if len(units) > floors[n] for u in units]
    best, name = max(gone)
    assert min(above) > best
    assert graph.cost({**plan.widths, name: len(kept[name]) + 1}).macs > budget.limit(graph.cost())


def test_no_group_falls_below_its_floor(graph: PruningGraph):
    scores = random_scores(graph)
    scores["layer2.1.conv1"] = torch.zeros(32, dtype=torch.float64)
    plan = threshold(graph, scores, Budget(macs=0.5), round_to=1, floor=0.25)
    assert plan.widths["layer2.1.conv1"] == 8
    assert threshold(graph, scores, Budget(macs=0.5), round_to=1, floor=0).widths["layer2.1.conv1"] == 1


def test_scores_that_say_nothing_thin_all_groups_evenly(graph: PruningGraph):
    ones = {name: torch.ones(width) for name, width in graph.widths.items()}
    plan = threshold(graph, ones, Budget(macs=0.5), round_to=1)
    shares = [plan.widths[name] / width for name, width in graph.widths.items()]
    assert max(shares) - min(shares) <= 1 / 16


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_a_budget_below_the_floors_is_refused_with_floor_and_ceiling(graph: PruningGraph, share: float):
    floors = {g.name: -(-g.width // 10) for g in graph.prunable}
    least, most = graph.cost(floors).macs, graph.cost().macs
    with pytest.raises(BudgetError) as caught:
        threshold(graph, random_scores(graph), Budget(macs=share), round_to=1)
    message = str(caught.value)
    assert f"from {least:,} " in message
    assert f"to {most:,} " in message
    percent = message.split("ask for at least macs=")[1].split("%")[0]
    threshold(graph, random_scores(graph), Budget(macs=float(percent) / 100), round_to=1)


def test_a_budget_above_the_whole_network_is_refused_with_floor_and_ceiling(graph: PruningGraph):
    with pytest.raises(BudgetError, match=r"from [\d,]+ .*to 40,551,040 \(100.0%\), the whole network"):
        threshold(graph, random_scores(graph), Budget(macs=50_000_000), round_to=1)


def test_shares_of_another_network(graph: PruningGraph):
    base = Cost(20_000_000, 100_000)
    plan = threshold(graph, random_scores(graph), Budget(macs=0.9), base=base, round_to=1)
    assert 17_000_000 < plan.why["macs"] <= 18_000_000
    assert plan.why["base"] == {"macs": 20_000_000, "params": 100_000}


def test_nothing_to_cut():
    model = nn.Sequential(nn.Linear(4, 3))
    graph = sc.trace(model, torch.randn(1, 4))
    with pytest.raises(UsageError, match="nothing of this network can be cut"):
        threshold(graph, {}, Budget(macs=0.5))


def test_everything_protected(graph: PruningGraph):
    with pytest.raises(UsageError, match=r"protected: .*layer1"):
        threshold(graph, random_scores(graph), Budget(macs=0.5), protect=["conv1", "layer*"])
