"""Parts that run only in training are cut with what they read, so a cut model can be trained as the dense one was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import GoogLeNet

import secateur as sc
from secateur.surgery import make_plan

IMAGES = torch.zeros(2, 3, 8, 8)


class Auxiliary(nn.Module):
    """A second head, behind the first of three layers, that helps in training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 6, 3, padding=1) for n in (3, 6, 6))
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.aside = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))

    def forward(self, x: Tensor) -> Any:
        first = self.a(x).relu()
        last = self.c(self.norm(self.b(first)).relu()).relu()
        out = self.head(F.dropout(last, training=self.training).mean((2, 3)))
        return (out, self.second(F.dropout(first, 0.5, self.training))) if self.training else out

    def second(self, first: Tensor) -> Tensor:
        return self.aside(first.mean((2, 3)))


def trained(model: nn.Module, x: Tensor) -> list[Tensor]:
    outputs = model.train()(x)
    sum(t.square().mean() for t in outputs).backward()
    return list(outputs)


def test_an_auxiliary_head_is_cut_with_what_it_reads_and_proven():
    torch.manual_seed(0)
    model = Auxiliary().eval()
    graph = sc.trace(model, IMAGES)
    assert graph.widths == {"a": 6, "b": 6, "c": 6, "aside.0": 5}
    assert "aside.0.weight" in {m.tensor for m in graph["a"].members}
    assert graph.warnings == []
    plan = make_plan(graph, {"a": [0, 2, 4], "b": [0, 5], "c": [1, 2, 3], "aside.0": [3, 4]})
    proof = sc.verify(model, plan, IMAGES)
    assert proof.exact
    # The output of the one head, then those of both.
    assert proof.outputs == 3 * 2 * 4
    small = sc.cut(model, plan)
    assert [t.shape for t in trained(small, torch.randn(4, 3, 8, 8))] == [(4, 4), (4, 4)]
    # Nothing of that pass is left in the model, nor counted.
    assert not any(m.training for m in model.modules())
    assert model.norm.num_batches_tracked == 0
    assert graph.cost().macs == 2 * (64 * 9 * (3 * 6 + 36 + 36) + 24)
    assert sc.Plan.from_json(plan.to_json()) == plan


def test_a_wrong_cut_of_a_part_that_runs_only_in_training_is_seen():
    torch.manual_seed(0)
    model = Auxiliary().eval()
    plan = make_plan(sc.trace(model, IMAGES), {"a": [0, 2, 4]})
    wrong = {**plan.slices, "aside.0.weight": {1: "1,3,5"}}
    assert not sc.verify(model, replace(plan, slices=wrong), IMAGES).exact


class Centred(Auxiliary):
    """The part that runs only in training reads across units, and the one that always runs does so, too."""

    def forward(self, x: Tensor) -> Any:
        first = self.a(x).relu()
        always = self.head(F.normalize(self.c(first).mean((2, 3)), dim=-1))
        return (self.second(F.normalize(first, dim=1)), always) if self.training else always


def test_what_reads_across_units_is_told_of_in_either_pass():
    torch.manual_seed(0)
    model = Centred().eval()
    plan = make_plan(sc.trace(model, IMAGES), {"a": [0, 2, 4], "c": [1, 5]})
    assert plan.in_training is not None
    assert sc.Plan.from_json(plan.to_json()) == plan
    assert sc.verify(model, plan, torch.randn(2, 3, 8, 8)).exact
    assert [t.shape for t in trained(sc.cut(model, plan), torch.randn(4, 3, 8, 8))] == [(4, 4), (4, 4)]


class Stubborn(Auxiliary):
    """What runs only in training has a width of its own in the code."""

    def second(self, first: Tensor) -> Tensor:
        return self.aside(first.mean((2, 3)).view(-1, 6))


def test_a_part_that_does_not_follow_a_cut_holds_what_it_reads():
    torch.manual_seed(0)
    model = Stubborn().eval()
    graph = sc.trace(model, IMAGES)
    assert graph.widths == {"b": 6, "c": 6}
    assert graph["a"].reason.startswith(
        "a part that runs only in training does not follow a cut [test_training_parts.py"
    )
    plan = make_plan(graph, {"b": [1], "c": [0, 4]})
    assert sc.verify(model, plan, IMAGES).exact
    assert len(trained(sc.cut(model, plan), torch.randn(4, 3, 8, 8))) == 2


class Remembering(Auxiliary):
    """The number of heads is an attribute that both passes read."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3

    def forward(self, x: Tensor) -> Any:
        first = self.a(x).relu()
        b, c, h, w = first.shape
        last = self.c(
            first.view(b, self.heads, c // self.heads, h, w)
            .mean(2, keepdim=True)
            .expand(-1, -1, 2, -1, -1)
            .reshape(b, c, h, w)
        )
        out = self.head(last.mean((2, 3)))
        return (out, self.second(first)) if self.training else out


def test_sizes_in_the_code_follow_in_either_pass():
    torch.manual_seed(0)
    model = Remembering().eval()
    graph = sc.trace(model, IMAGES)
    plan = make_plan(graph, {name: range(width - 1) for name, width in graph.widths.items()})
    assert sc.verify(model, plan, torch.randn(2, 3, 8, 8)).exact
    assert len(trained(sc.cut(model, plan), torch.randn(4, 3, 8, 8))) == 2


class Decoder(nn.Module):
    """Is handed a head for every layer, and leaves layers out at random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Tensor, heads: nn.ModuleList) -> list[Tensor]:
        found = []
        for layer, head in zip(self.layers, heads):
            if not (self.training and torch.rand(()) < 0.5):
                x = x + layer(x).relu()
            if self.training or head is heads[-1]:
                found.append(head(x))
        return found


class Deep(nn.Module):
    """Supervised behind every layer; a vector of its own takes the place of some examples in training."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.decoder = nn.Linear(4, 6), Decoder()
        self.heads = nn.ModuleList(nn.Linear(6, 3) for _ in range(3))
        self.swap = Swap(6)

    def forward(self, x: Tensor) -> Any:
        found = self.decoder(self.swap(self.enter(x)), self.heads)
        return found if self.training else found[0]


class Swap(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(torch.rand(len(x), 1) < 0.5, self.vector, x) if self.training else x


def test_heads_that_are_handed_on_and_what_is_drawn_at_random():
    torch.manual_seed(0)
    model, x = Deep().eval(), torch.randn(5, 4)
    before = torch.random.get_rng_state()
    graph = sc.trace(model, x)
    assert graph.training_callers == ("", "decoder", "swap")
    assert graph.widths == {"enter": 6}
    plan = make_plan(graph, {"enter": [0, 3, 4]})
    assert sc.verify(model, plan, x).exact
    assert torch.equal(torch.random.get_rng_state(), before)
    small = sc.cut(model, plan)
    assert small.swap.vector.shape == (3,)
    assert [t.shape for t in trained(small, x)] == [(5, 3)] * 3


def test_blocks_are_left_out_beside_it():
    class Residual(Auxiliary):
        def __init__(self) -> None:
            super().__init__()
            self.join = Join(nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1)))

        def forward(self, x: Tensor) -> Any:
            first = self.join(self.a(x).relu())
            out = self.head(first.mean((2, 3)))
            return (out, self.second(first)) if self.training else out

    torch.manual_seed(0)
    model = Residual().eval()
    graph = sc.trace(model, IMAGES)
    (block,) = graph.blocks
    plan = make_plan(graph.without(block.name), {"a": [0, 1]})
    assert sc.verify(model, plan, IMAGES).exact
    assert len(trained(sc.cut(model, plan), torch.randn(4, 3, 8, 8))) == 2


class Join(nn.Module):
    """Adds what a block makes to what it read."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def test_a_network_of_torchvision_is_trained_after_its_cut():
    torch.manual_seed(0)
    model, x = GoogLeNet(num_classes=4, init_weights=False), torch.randn(2, 3, 64, 64)
    graph = sc.trace(model, x)
    plan = make_plan(graph, {g.name: range(max(1, g.width // 2)) for g in graph.prunable})
    assert plan.widths["inception4a.branch1.conv"] == 96
    assert plan.in_training is not None
    assert sc.verify(model, plan, x).exact
    assert len(trained(sc.cut(model, plan), x)) == 3


class Drops(Auxiliary):
    """Asks whether it is trained, but has nothing else to run."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.a(x).relu(), 0.5, self.training).mean((2, 3)))


class Targets(Auxiliary):
    """What it would do in training needs more than images."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        if self.training:
            self.second(self.a(x))
            return F.cross_entropy(super().forward(x)[0], targets)  # type: ignore[arg-type]
        return super().forward(x)


class Looks(Auxiliary):
    """Looks at its numbers, so it runs on the real tensors, which must not change."""

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.norm.running_mean.add_(1)
        return super().forward(-x if self.norm.weight.sum() < 0 else x)


@pytest.mark.parametrize("kind", [Drops, Targets, Looks])
def test_what_cannot_be_seen_is_said_as_before(kind: type[Auxiliary]):
    model = kind().eval()
    graph = sc.trace(model, IMAGES)
    assert "a" in graph.widths
    assert any(note.startswith("did not run on the example inputs") for note in graph.warnings)
    assert graph.training_callers == ()
    assert model.norm.running_mean.sum() == 0
    assert sc.verify(model, make_plan(graph, {"a": [0, 3]}), IMAGES).exact


class SampledMasks(nn.Module):
    """Masks for training that were drawn when it was built, of which every pass takes the next few."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("masks", torch.rand(20, 8))
        self.taken, self.size = 0, 1

    def forward(self, x: Tensor) -> Tensor:
        if self.size != len(x):
            self.size = len(x)
            if self.training:
                self.masks = torch.rand(20, self.a.out_features)
        y = self.a(x)
        if self.training:
            y = y * self.masks[self.taken : self.taken + self.size]
            self.taken += self.size
        return self.b(y.relu())


@pytest.mark.parametrize("ran", [False, True])
def test_a_buffer_that_is_read_only_in_training_is_cut_too(ran: bool):
    torch.manual_seed(0)
    model, x = SampledMasks().eval(), torch.randn(2, 4)
    if ran:
        model(x)
    graph = sc.trace(model, x)
    assert graph.widths == {"a": 8}
    assert ("masks", 1) in {(m.tensor, m.axis) for m in graph["a"].members}
    plan = make_plan(graph, {"a": [0, 3, 5]})
    assert sc.verify(model, plan, x).exact
    small = sc.cut(model, plan).train()
    assert small.masks.shape == (20, 3)
    small(torch.randn(5, 4)).sum().backward()
    assert (model.taken, small.taken) == (0, 5)
