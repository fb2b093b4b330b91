"""The same widths in every layer of a stack."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur._errors import BudgetError, UsageError
from secateur.budget import Budget, plan
from secateur.budget.lane import Lane, Share, make_lane
from secateur.budget.uniform import narrow_until_said
from secateur.graph import Group, PruningGraph, trace
from secateur.surgery import Plan, cut
from secateur.surgery.roles import Layers, roles


class Block(nn.Module):
    """A residual feed-forward block."""

    def __init__(self, hidden: int = 24):
        super().__init__()
        self.up, self.down = nn.Linear(8, hidden), nn.Linear(hidden, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Stack(nn.Module):
    """Three blocks and a narrower one."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block(), Block(), Block(12)])
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def graph() -> PruningGraph:
    return trace(Stack().eval(), torch.randn(2, 8))


def scores(graph: PruningGraph) -> dict[str, Tensor]:
    return {g.name: torch.rand(g.width) * (k + 1) for k, g in enumerate(graph.prunable)}


def test_roles_are_the_same_names_in_other_layers(graph: PruningGraph):
    stack = Layers(graph.model)
    assert {path for path, _ in graph.model.named_modules() if path in stack} == {f"blocks.{k}" for k in range(4)}
    found = {role.name: [g.name for g in role.groups] for role in roles(graph, graph.prunable) if "up" in role.name}
    assert found == {"blocks.*.up": ["blocks.0.up", "blocks.1.up", "blocks.2.up"], "blocks.*.up#2": ["blocks.3.up"]}


@pytest.mark.parametrize("share", [0.8, 0.6, 0.4])
def test_widths_are_alike_and_units_are_not(graph: PruningGraph, share: float):
    made = plan(graph, scores(graph), Budget(params=share), round_to=1, uniform=True)
    kept = [made.keep[f"blocks.{k}.up"] for k in range(3)]
    assert len({len(units) for units in kept}) == 1
    assert len(set(kept)) > 1
    small = cut(graph.model, made)
    assert sum(p.numel() for p in small.parameters()) == made.why["params"] <= share * made.why["dense_params"]
    assert made.why["uniform"] is True
    assert made.why["held"] == {}


def test_without_stacks_it_is_a_normal_plan():
    chain = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    graph = trace(chain, torch.randn(2, 6))
    some = scores(graph)
    both = [plan(graph, some, Budget(macs=0.5), round_to=1, uniform=uniform) for uniform in (False, True)]
    assert both[0].keep == both[1].keep


def test_a_protected_layer_holds_its_role_back(graph: PruningGraph):
    made = plan(graph, scores(graph), Budget(params=0.95), round_to=1, uniform=True, protect=["blocks.1.up"])
    assert {made.widths[f"blocks.{k}.up"] for k in range(3)} == {24}
    assert "stays whole" in made.why["held"]["blocks.*.up"]
    with pytest.raises(BudgetError, match=r"uniform=True holds back blocks\.\*\.up: blocks\.\d\.up stays whole"):
        plan(graph, scores(graph), Budget(params=0.1), round_to=1, uniform=True, protect=["blocks.1.up"])


def test_given_widths_are_not_chosen_again(graph: PruningGraph):
    with pytest.raises(UsageError, match="a preset has its own"):
        plan(graph, scores(graph), {"blocks.0.up": 8}, uniform=True)


def test_a_step_of_a_lane_may_be_many_units():
    wide, heads = Group("wide", "channel", 20, (), False), Group("heads", "head", 4, (), False)
    values = {"wide": torch.arange(20.0).numpy(), "heads": torch.tensor([4.0, 1.0, 2.0, 3.0]).numpy()}
    found = make_lane("both", (Share(wide, 5), Share(heads)), values, round_to=8, floor=0.5)
    assert (found.width, found.floor, found.step) == (4, 2, 1)
    assert found.group_widths(3) == {"wide": 15, "heads": 3}
    best = (torch.arange(15.0, 20).mean() / 9.5 + 4 / 2.5) / 2
    assert found.rank[0] == pytest.approx(float(best))
    assert list(found.rank) == sorted(found.rank, reverse=True)
    uneven = make_lane("uneven", (Share(Group("w", "channel", 7, (), False), 2),), {"w": values["wide"][:7]}, 1, 0.0)
    assert uneven.width == 3
    assert uneven.group_widths(1) == {"w": 3}


class Said:
    """What stands for a plan: a configuration says it if every width that is cut divides by the given one."""

    def __init__(self, widths: dict[str, int], full: int, of: int):
        self.widths, self.why = widths, {"config": "no"}
        self.config = all(w == full or w % of == 0 for w in widths.values())


@pytest.mark.parametrize(
    ("kept", "found"),
    [({"a": 8, "b": 12}, [8, 12]), ({"a": 11, "b": 12}, [8, 12]), ({"a": 11, "b": 15}, [8, 12])],
    ids=["as it is", "one is narrower", "both are"],
)
def test_widths_get_narrower_until_a_configuration_says_them(kept: dict[str, int], found: list[int]):
    lanes: list[Any] = [Lane(name, 16, np.arange(16.0), 1, 1, ()) for name in kept]
    made: Any = narrow_until_said(lanes, kept, lambda widths: cast(Plan, Said(widths, 16, 4)))
    assert list(made.widths.values()) == found


def test_widths_that_no_configuration_says_are_refused():
    lanes: list[Any] = [Lane("a", 16, np.arange(16.0), 9, 1, ())]
    with pytest.raises(UsageError, match=r"no configuration says these widths together: no"):
        narrow_until_said(lanes, {"a": 11}, lambda widths: cast(Plan, Said(widths, 16, 4)))
