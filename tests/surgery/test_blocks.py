"""Residual blocks are left out as a whole, exactly, at the cost that was foretold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.models as tv
from torch import Tensor, nn

import secateur as sc
from secateur._errors import PlanError, UnknownName
from secateur.surgery import Plan, make_plan

CASES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "resnet18": (partial(tv.resnet18, num_classes=10), 5, 64),
    "mobilenet_v2": (partial(tv.mobilenet_v2, num_classes=10), 10, 64),
    "convnext": (partial(timm.create_model, "convnext_atto", num_classes=10), 12, 64),
    "vit": (partial(timm.create_model, "vit_tiny_patch16_224", img_size=32, depth=3, num_classes=10), 3, 32),
}


@pytest.mark.parametrize("name", CASES)
def test_every_second_block_is_left_out(name: str, tmp_path: Path):
    build, count, pixels = CASES[name]
    model, x = build().eval(), torch.randn(1, 3, pixels, pixels)
    graph = sc.trace(model, x)
    assert len(graph.blocks) == count
    shorter = graph.without(*[b.name for b in graph.blocks[::2]])
    plan = make_plan(shorter, {g.name: range(0, g.width, 2) for g in shorter.prunable})
    assert Plan.from_json(plan.to_json()) == plan
    check = sc.verify(model, plan, x)
    assert check.exact, str(check)
    small = sc.cut(model, plan)
    cost = shorter.cost(plan.widths)
    assert cost.params == sum(p.numel() for p in small.parameters())
    assert cost.macs == sc.trace(small, x).cost().macs
    assert shorter.cost() == graph.cost(), "the cost without widths is that of the dense model"
    sc.save(small, tmp_path / "out")
    again = sc.load(tmp_path / "out", model=build()).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x), small(x), rtol=0, atol=0)


def test_a_budget_is_met_by_what_is_left():
    model, x = tv.resnet18(), torch.randn(1, 3, 64, 64)
    graph = sc.trace(model, x)
    shorter = graph.without("layer3.1", "layer4.1")
    plan = sc.plan(shorter, sc.score(shorter, "l1"), sc.Budget(macs=0.5))
    assert 0.49 < shorter.cost(plan.widths).macs / graph.cost().macs <= 0.5
    assert not any(name.startswith(("layer3.1", "layer4.1")) for name in plan.widths)


def test_no_such_block():
    graph = sc.trace(tv.resnet18(), torch.randn(1, 3, 64, 64))
    with pytest.raises(UnknownName, match="unknown residual block"):
        graph.without("layer1.7")


class Trunk(nn.Module):
    """Blocks, and modules that only look like one."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(5, 6), body, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.stem(x)))


class Added(nn.Module):
    def __init__(self, after: Callable[[Tensor], Tensor] | None = None, times: float = 1) -> None:
        super().__init__()
        self.linear, self.after, self.times = nn.Linear(6, 6), after, times

    def forward(self, x: Tensor) -> Tensor:
        y = (x if self.times == 1 else x * self.times) + self.linear(x)
        return y if self.after is None else self.after(y)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


def test_what_adds_nothing_of_its_own_is_not_left_out():
    graph = sc.trace(Trunk(Doubled()), torch.randn(2, 5))
    with pytest.raises(PlanError, match="body"):
        make_plan(graph.without("body"), {})


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Added()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x)).exp()


@pytest.mark.parametrize(
    ("body", "blocks"),
    [
        (Added(), ["body"]),
        (Added(torch.relu), []),
        (nn.Sequential(nn.ReLU(), Added(torch.relu)), ["body.1"]),
        (Added(torch.tanh), []),
        (Added(times=2), []),
        (Reused(), []),
        (nn.Sequential(Added(), Added()), ["body.0", "body.1"]),
        (nn.Linear(6, 6), []),
    ],
    ids=["plain", "relu_of_anything", "relu_of_relu", "tanh", "doubled", "reused", "nested", "no_addition"],
)
def test_what_is_a_block(body: nn.Module, blocks: list[str]):
    model, x = Trunk(body), torch.randn(2, 5)
    graph = sc.trace(model, x)
    assert [b.name for b in graph.blocks] == blocks
    for name in blocks:
        check = sc.verify(model, make_plan(graph.without(name), {}), x)
        assert check.exact, str(check)


def test_a_block_prints_in_one_line():
    """Its labels are a tensor with a number for every position of the map: pages."""
    graph = sc.trace(tv.resnet18(num_classes=10).eval(), torch.zeros(1, 3, 64, 64))
    assert repr(graph.blocks[0]) == "Block(name='layer1.0', stack='layer1', shape=(1, 64, 16, 16))"
    assert "tensor(" not in repr(graph.blocks)
