"""Plans: what they refuse, and that they come back from disk as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur._errors import FileError, PlanError
from secateur.graph import PruningGraph, trace
from secateur.surgery import Plan, cut, make_plan, mask, verify
from secateur.surgery.ranges import count, from_runs, to_runs
from secateur.testing.toys import toys
from surgery.small_cnn import KEEP, SmallCNN


@given(st.sets(st.integers(0, 300)))
def test_run_lengths_round_trip(units: set[int]):
    ascending = tuple(sorted(units))
    assert from_runs(to_runs(ascending)) == ascending
    assert count(to_runs(ascending)) == len(ascending)


@pytest.mark.parametrize(("units", "text"), [((), ""), ((7,), "7"), ((0, 1), "0-1"), ((0, 1, 2, 5, 8, 9), "0-2,5,8-9")])
def test_run_lengths_are_readable(units: tuple[int, ...], text: str):
    assert to_runs(units) == text


@pytest.mark.parametrize("name", ["residual", "attention_fused", "group_norm_of_one", "linear_view_deconvolution"])
def test_json_round_trip(name: str):
    model, example = toys()[name]
    graph = trace(model, example)
    rng = np.random.default_rng(0)
    keep = {g.name: rng.choice(g.width, g.width // 2, replace=False).tolist() for g in graph.prunable}
    plan = make_plan(graph, keep, method="l1", ratio=0.5)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    one, two = cut(model, plan), cut(model, again)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert verify(model, again, example).exact


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": 1}', '{"schema": 1, "groups": 3}'])
def test_text_that_is_no_plan(text: str):
    with pytest.raises(FileError):
        Plan.from_json(text)


def test_a_plan_of_a_newer_version(graph: PruningGraph):
    data = json.loads(make_plan(graph, KEEP).to_json())
    with pytest.raises(FileError, match="update secateur"):
        Plan.from_json(json.dumps({**data, "schema": 99}))


def test_what_a_plan_says(graph: PruningGraph):
    plan = make_plan(graph, {"conv2": [7, 1, 2, 3, 4]}, method="by hand")
    assert plan.keep == {"conv1": tuple(range(6)), "conv2": (1, 2, 3, 4, 7)}
    assert plan.widths == {"conv1": 6, "conv2": 5}
    assert plan.why == {"method": "by hand"}
    assert plan.explain(budget=0.5).why == {"method": "by hand", "budget": 0.5}
    assert set(plan.slices) == {
        "conv2.weight", "conv2.bias", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var", "fc.weight"
    }  # fmt: skip
    assert from_runs(plan.slices["fc.weight"][1]) == tuple(i for c in (1, 2, 3, 4, 7) for i in range(4 * c, 4 * c + 4))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"conv1": []}, "conv1: nothing would be left of it"),
        ({"conv9": [0]}, "conv9: no such group"),
        ({"conv1": [0, 6]}, "conv1: units must be different numbers from 0 to 5"),
        ({"conv1": [-1, 2]}, "conv1: units must be different numbers from 0 to 5"),
        ({"conv1": [2, 2]}, "conv1: units must be different numbers from 0 to 5"),
        ({"fc": [0, 1]}, "fc: locked, reaches the model's output"),
    ],
)
def test_what_a_plan_refuses(graph: PruningGraph, keep: dict[str, list[int]], message: str):
    with pytest.raises(PlanError, match="this cannot be cut") as caught:
        make_plan(graph, keep)
    assert message in str(caught.value)


def test_all_problems_are_listed_at_once(graph: PruningGraph):
    with pytest.raises(PlanError) as caught:
        make_plan(graph, {"conv1": [], "conv2": [8], "fc": [0], "head": [0]})
    text = str(caught.value)
    assert all(f"\n{name}: " in text for name in ("conv1", "conv2", "fc", "head"))


def test_a_plan_of_another_model(model: SmallCNN, graph: PruningGraph, example: Tensor):
    plan = make_plan(graph, KEEP)
    other = SmallCNN()
    other.fc = nn.Linear(32, 6)
    for action in (cut, mask):
        with pytest.raises(PlanError, match="another model"):
            action(other, plan)
    with pytest.raises(PlanError, match=r"the model lacks: conv1\.weight"):
        cut(toys()["mixer"][0], plan)
    with pytest.raises(PlanError, match="another model"):
        verify(other, plan, example)


def test_a_plan_is_applied_once(model: SmallCNN, graph: PruningGraph):
    plan = make_plan(graph, KEEP)
    small = cut(model, plan)
    for action in (cut, mask):
        with pytest.raises(PlanError, match="cut already"):
            action(small, plan)


def test_a_cut_model_can_be_traced_and_cut_again(model: SmallCNN, graph: PruningGraph, example: Tensor):
    small = cut(model, make_plan(graph, KEEP))
    again = trace(small, example)
    assert again.widths == {"conv1": 3, "conv2": 5}
    plan = make_plan(again, {"conv1": [1], "conv2": [0, 3]})
    assert verify(small, plan, example).exact
    direct = make_plan(graph, {"conv1": [2], "conv2": [1, 4]})
    want, got = cut(model, direct).state_dict(), cut(small, plan).state_dict()
    assert all(torch.equal(want[name], got[name]) for name in want)
