"""From scores and a budget to kept units."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import secateur as sc
from secateur._errors import BudgetError, UnknownName, UsageError
from secateur.budget import RANKINGS
from secateur.graph import PruningGraph
from secateur.models.cifar_resnet import CifarResNet
from secateur.scores import Scores
from secateur.testing.toys import Image, conv_bn

EXAMPLES = settings(max_examples=40, deadline=None, database=None)


class Odd(Image):
    """A residual network whose widths are no multiples of anything."""

    def __init__(self) -> None:
        super().__init__(21)
        self.stem, self.a, self.b = conv_bn(3, 13), conv_bn(13, 37), conv_bn(37, 13)
        self.c, self.d = conv_bn(13, 21), conv_bn(21, 21, groups=21)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.b(self.a(x).relu())
        return self.d(self.c(x.relu()).relu())


@pytest.fixture(scope="module")
def nets() -> list[PruningGraph]:
    torch.manual_seed(0)
    odd = sc.trace(Odd(), torch.randn(1, 3, 8, 8))
    return [odd, sc.trace(CifarResNet((1, 1, 1), shortcut="conv"), torch.randn(1, 3, 16, 16))]


@pytest.fixture(scope="module")
def odd(nets: list[PruningGraph]) -> PruningGraph:
    return nets[0]


def random_scores(graph: PruningGraph, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w, generator=generator).double() ** 2 for name, w in graph.widths.items()}


budgets = st.one_of(
    st.floats(0.15, 1.0).map(lambda share: sc.Budget(macs=share)),
    st.floats(0.2, 1.0).map(lambda share: sc.Budget(params=share)),
)


@EXAMPLES
@given(budget=budgets, ranking=st.sampled_from(sorted(RANKINGS)), seed=st.integers(0, 10**6), which=st.integers(0, 1))
def test_the_budget_is_met_to_the_unit(nets: Any, budget: sc.Budget, ranking: str, seed: int, which: int):
    graph = nets[which]
    plan = sc.plan(graph, random_scores(graph, seed), budget, round_to=1, ranking=ranking, floor=0.05)
    limit = budget.limit(graph.cost())
    assert getattr(graph.cost(plan.widths), budget.metric) <= limit
    assert plan.why[budget.metric] <= limit
    for name, kept in plan.widths.items():
        if kept < graph.widths[name]:
            assert getattr(graph.cost({**plan.widths, name: kept + 1}), budget.metric) > limit


@EXAMPLES
@given(budget=budgets, seed=st.integers(0, 10**6), which=st.integers(0, 1))
def test_the_cut_model_costs_what_the_plan_says(nets: Any, budget: sc.Budget, seed: int, which: int):
    graph = nets[which]
    plan = sc.plan(graph, random_scores(graph, seed), budget, round_to=1, floor=0.05)
    small = sc.cut(graph.model, plan)
    assert sum(p.numel() for p in small.parameters()) == plan.why["params"]


@EXAMPLES
@given(
    share=st.floats(0.25, 1.0),
    ranking=st.sampled_from(sorted(RANKINGS)),
    seed=st.integers(0, 10**6),
    which=st.integers(0, 1),
)
def test_widths_snap_to_steps_of_eight(nets: Any, share: float, ranking: str, seed: int, which: int):
    graph = nets[which]
    plan = sc.plan(graph, random_scores(graph, seed), sc.Budget(macs=share), round_to=8, ranking=ranking)
    limit = share * graph.cost().macs
    assert graph.cost(plan.widths).macs <= limit
    for name, kept in plan.widths.items():
        width = graph.widths[name]
        step = 8 if width >= 16 else width // 4
        assert kept == width or kept % step == 0, (name, kept, width)
        if kept < width:
            wider = min(width, (kept // step + 1) * step)
            assert graph.cost({**plan.widths, name: wider}).macs > limit


@EXAMPLES
@given(seed=st.integers(0, 10**6), ranking=st.sampled_from(sorted(RANKINGS)), share=st.floats(0.2, 0.95))
def test_what_stays_of_a_group_scores_no_less_than_what_goes(nets: Any, seed: int, ranking: str, share: float):
    graph = nets[0]
    scores = random_scores(graph, seed)
    plan = sc.plan(graph, scores, sc.Budget(macs=share), round_to=1, ranking=ranking, floor=0.0)
    for name, units in plan.keep.items():
        gone = sorted(set(range(graph.widths[name])) - set(units))
        assert not gone or float(scores[name][list(units)].min()) >= float(scores[name][gone].max())
        assert units == tuple(sorted(units))


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("round_to", [1, 8])
def test_all_of_it_keeps_every_unit(odd: PruningGraph, ranking: str, round_to: int):
    for budget in (sc.Budget(macs=1.0), sc.Budget(params=1.0), sc.Budget(macs=odd.cost().macs)):
        plan = sc.plan(odd, random_scores(odd, 1), budget, round_to=round_to, ranking=ranking)
        assert plan.widths == odd.widths


def test_absolute_budgets(odd: PruningGraph):
    scores, dense = random_scores(odd, 2), odd.cost()
    for metric in ("macs", "params"):
        half = getattr(dense, metric) // 2
        by_number = sc.plan(odd, scores, sc.Budget(**{metric: half}), round_to=1)
        assert by_number.why[metric] <= half
        assert by_number.why["budget"] == {metric: half}
        by_share = sc.plan(odd, scores, sc.Budget(**{metric: half / getattr(dense, metric)}), round_to=1)
        assert by_share.keep == by_number.keep


def test_the_floor_is_respected(odd: PruningGraph):
    scores = random_scores(odd, 3)
    scores["a.0"] = scores["a.0"] * 1e-6 + torch.linspace(0, 1e-9, 37)
    scores["a.0"][0] = 1.0
    free = sc.plan(odd, scores, sc.Budget(macs=0.6), round_to=1, floor=0.0)
    assert free.widths["a.0"] < 0.5 * 37
    for floor in (0.5, 0.6):
        plan = sc.plan(odd, scores, sc.Budget(macs=0.6), round_to=1, floor=floor)
        assert all(kept >= floor * odd.widths[name] for name, kept in plan.widths.items())
    least = sc.plan(odd, scores, sc.Budget(macs=0.006), round_to=1, floor=0.0)
    assert min(least.widths.values()) == 1


@pytest.mark.parametrize(
    ("pattern", "whole"),
    [
        ("a.0", {"a.0"}),
        ("a", {"a.0"}),
        ("c.*", {"c.0"}),
        ("b", {"stem.0"}),
        ("b.0.weight", {"stem.0", "a.0"}),
        ("d.1.bias", {"c.0"}),
        ("*", {"stem.0", "a.0", "c.0"}),
    ],
)
def test_protected_groups_stay_whole(odd: PruningGraph, pattern: str, whole: set[str]):
    from secateur.budget.allocate import protected

    assert protected(odd, [pattern]) & set(odd.widths) >= whole
    if whole != set(odd.widths):
        spared = protected(odd, [pattern])
        plan = sc.plan(odd, random_scores(odd, 4), sc.Budget(macs=0.99), round_to=1, protect=[pattern])
        assert all(plan.widths[name] == odd.widths[name] for name in spared & set(odd.widths))
        assert plan.why["protect"] == [pattern]


def test_protection_holds_against_a_preset_as_well(odd: PruningGraph):
    plan = sc.plan(odd, random_scores(odd, 4), {"a.0": 5, "c.0": 5}, protect=["a.0"])
    assert (plan.widths["a.0"], plan.widths["c.0"]) == (37, 5)


def test_out_of_reach_says_what_can_be_reached_and_what_holds_it(odd: PruningGraph):
    scores = random_scores(odd, 5)
    with pytest.raises(BudgetError) as caught:
        sc.plan(odd, scores, sc.Budget(macs=0.05), round_to=1, floor=0.5, protect=["head"])
    message = str(caught.value)
    least = odd.cost({"stem.0": 7, "a.0": 19}).macs
    assert f"the least is {least:,}" in message
    assert "2 protected: c.0, head" in message
    assert "locked" in message
    assert "reaches the model's output" in message
    assert "the floors of 2 groups (26 units in all)" in message
    # The way out works, and is not generous.
    found = re.search(r"ask for at least macs=([\d.]+)%", message)
    assert found is not None
    percent = float(found.group(1))
    sc.plan(odd, scores, sc.Budget.parse(f"macs={percent}%"), round_to=1, floor=0.5, protect=["head"])
    with pytest.raises(BudgetError):
        sc.plan(odd, scores, sc.Budget.parse(f"macs={percent - 0.1:.1f}%"), round_to=1, floor=0.5, protect=["head"])
    assert len(message.splitlines()) < 15


def test_equal_scores_thin_the_network_evenly(odd: PruningGraph):
    alike = {name: torch.ones(w) for name, w in odd.widths.items()}
    plan = sc.plan(odd, alike, sc.Budget(macs=0.5), round_to=1)
    shares = [plan.widths[name] / w for name, w in odd.widths.items()]
    assert max(shares) - min(shares) < 0.15


def test_groups_without_scores_stay_whole(odd: PruningGraph):
    plan = sc.plan(odd, {"a.0": random_scores(odd, 6)["a.0"]}, sc.Budget(macs=0.7), round_to=1)
    assert {name for name, kept in plan.widths.items() if kept < odd.widths[name]} == {"a.0"}


def test_heads_are_not_rounded():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(24, 12, batch_first=True), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    graph = sc.trace(Attention(), torch.randn(1, 4, 24))
    (heads,) = [g for g in graph.prunable if g.kind == "head"]
    scores = {heads.name: torch.arange(12.0)}
    kept = {sc.plan(graph, scores, sc.Budget(macs=share)).widths[heads.name] for share in (0.5, 0.6, 0.7, 0.8, 0.9)}
    assert kept - {4, 8, 12}, f"heads were kept by {kept}: only in steps"


def test_numbers_out_of_range_are_listed_together(odd: PruningGraph):
    with pytest.raises(UsageError) as caught:
        sc.plan(odd, random_scores(odd, 7), sc.Budget(macs=0.5), round_to=0, floor=1.5)
    assert "round_to must be a whole number from 1 on, got 0" in str(caught.value)
    assert "got 1.5" in str(caught.value)
    with pytest.raises(UnknownName, match="did you mean 'layer'"):
        sc.plan(odd, random_scores(odd, 7), sc.Budget(macs=0.5), ranking="layers")
    with pytest.raises(UnknownName, match="to protect 'nothing'"):
        sc.plan(odd, random_scores(odd, 7), sc.Budget(macs=0.5), protect=["nothing"])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (torch.ones(36), "37 finite numbers, got shape (36,)"),
        (torch.ones(37, 1), "got shape (37, 1)"),
        (torch.full((37,), float("nan")), "with 37 not finite"),
        (torch.cat([torch.ones(36), torch.tensor([float("inf")])]), "with 1 not finite"),
    ],
)
@pytest.mark.parametrize("budget", [sc.Budget(macs=0.5), {"a.0": 3}], ids=["budget", "widths"])
def test_scores_that_do_not_fit(odd: PruningGraph, scores: Tensor, said: str, budget: Any):
    with pytest.raises(UsageError, match=re.escape(said)):
        sc.plan(odd, {**random_scores(odd, 8), "a.0": scores}, budget)


def test_widths_that_do_not_fit(odd: PruningGraph):
    scores = random_scores(odd, 9)
    with pytest.raises(UsageError) as caught:
        sc.plan(odd, scores, {"a.0": -1, "c.0": 22, "stem.0": 13})
    assert "a.0 has 37 units: keep 1 to 37 of them, not -1" in str(caught.value)
    assert "c.0 has 21 units" in str(caught.value)
    assert "stem.0" not in str(caught.value)
    with pytest.raises(UnknownName, match="unknown group 'a'"):
        sc.plan(odd, scores, {"a": 3})
