"""``graph.explain``: the right groups, the right chains, and text that a person can read."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn

from secateur._errors import UnknownName
from secateur.graph import Explanation, PruningGraph, trace
from secateur.testing.toys import toys


class Chain(nn.Module):
    """Two residual sums one behind the other, so that the first layer is tied to the last through two operations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3) to (batch, 2)."""
        x = self.stem(x)
        x = self.one(x.relu()) + x
        x = self.norm(self.two(x.relu())) + x
        return self.head(x)


@pytest.fixture
def graph() -> PruningGraph:
    return trace(Chain().eval(), torch.randn(2, 3))


@pytest.fixture(scope="module")
def resnet50() -> PruningGraph:
    return trace(tv.resnet50().eval(), torch.randn(1, 3, 64, 64))


def test_the_groups_of_a_layer(graph: PruningGraph):
    found = graph.explain("two")
    assert found.what == "Linear(in_features=6, out_features=6, bias=True)"
    (stream,) = found.groups
    assert stream.group is graph["stem"]
    assert sorted(map(str, stream.here)) == ["two.bias[0]", "two.weight[0]", "two.weight[1]"]
    assert len(stream.here) + len(stream.ties) == len(stream.group.members)
    assert stream.lock_chain == ()


def test_chains_are_shortest_and_name_the_operations(graph: PruningGraph):
    (stream,) = graph.explain("head.weight").groups[1:]
    chains = {str(tie.member): tie.chain for tie in stream.ties}
    assert chains["stem.weight[0]"][0] == "head (linear)"
    assert chains["stem.bias[0]"][-1] == "stem (linear)"
    assert chains["norm.weight[0]"][-1] == "norm (native_batch_norm)"
    lengths = [len(tie.chain) for tie in stream.ties]
    assert lengths[0] == 1
    assert max(lengths) <= 4
    for tie in stream.ties:
        if tie.via is not None:
            assert chains[str(tie.via)] == tie.chain[: len(chains[str(tie.via)])]


def test_every_member_of_every_group_is_reached():
    for name, (model, example) in toys().items():
        graph = trace(model, example)
        for group in graph.groups:
            lead = group.members[0]
            found = next(e for e in graph.explain(lead.tensor).groups if e.group is group)
            assert len(found.here) + len(found.ties) == len(group.members), (name, group.name)
            assert all(tie.chain for tie in found.ties), (name, group.name)
            assert str(graph.explain(lead.tensor))


@dataclass(frozen=True)
class Expected:
    """What the explanation of one part of ResNet-50 has to hold."""

    name: str
    groups: list[str]
    text: list[str]


RESNET50 = [
    Expected(
        "layer3.0.conv2",
        ["layer3.0.conv2", "layer3.0.conv1"],
        [
            "layer3.0.conv2: Conv2d(256, 256, kernel_size=(3, 3)",
            "group layer3.0.conv2: 256 channels, can be cut, in layers with 4.",
            "along  layer3.0.bn2.weight[0], .bias[0], .running_mean[0], .running_var[0]  native_batch_norm",
            "convolution in layer3.0.conv2",
            "layer3.0.conv2.weight[2], [3] (the taps of a kernel)",
        ],
    ),
    Expected("fc", ["fc", "layer4.0.conv3"], ["it reaches the model's output", "add_ in layer4.2", "linear in fc"]),
    Expected("conv1 input", ["conv1 input"], ["a group, seen from conv1.weight[1]", "it meets a fixed axis in conv1"]),
    Expected("relu", [], ["without a parameter", "nothing of it belongs to a group"]),
    Expected("layer1", [], ["layer1: Sequential", "group layer1.0.conv3: 256 channels", "tied to it: "]),
    Expected("", [], ["the model: ResNet", "more groups: ", "never cut"]),
]


@pytest.mark.parametrize("expected", RESNET50, ids=lambda e: e.name)
def test_resnet50(resnet50: PruningGraph, expected: Expected):
    found = resnet50.explain(expected.name)
    if expected.groups:
        assert [e.group.name for e in found.groups] == expected.groups
    text = str(found)
    for words in expected.text:
        assert words in text, text
    assert len(text.splitlines()) < 90
    assert max(map(len, text.splitlines())) < 400


def test_it_is_fast(resnet50: PruningGraph):
    resnet50.explain("conv1")
    took = []
    for name in ("layer3.0.conv2", "layer3", "fc"):
        start = time.perf_counter()
        str(resnet50.explain(name))
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1


class Elsewhere(nn.Module):
    """The lock arises behind a sum, not where the first layer is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 4) to (batch, 2)."""
        y = self.b(x)
        z = self.a(x) + y
        return self.c(z) + y.sort(-1).values[:, :1]


def test_the_way_to_a_lock():
    graph = trace(Elsewhere(), torch.randn(2, 4))
    found = graph.explain("a.weight")
    group = next(e for e in found.groups if e.here[0].axis == 0)
    assert group.group.locked
    assert group.lock_chain == ("the model (add)",)
    assert "ordered along this axis in the model (sort)" in str(found)
    assert "on the way from here: the model (add)" in str(found)
    own = next(e for e in graph.explain("b.weight").groups if e.here[0].axis == 0)
    assert own.lock_chain == ()


def test_layouts_tie_too():
    """The entries of a head are tied by the layout that splits an axis into heads."""
    model, example = toys()["mha_batch_first"]
    graph = trace(model, example)
    heads = next(g for g in graph.prunable if g.kind == "head")
    found = graph.explain(heads.members[0].tensor)
    assert "entries each)" in str(found)
    assert any("layout" in step for e in found.groups for tie in e.ties for step in tie.chain) or len(heads.members) > 1


def test_what_is_never_cut():
    class Indexed(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("order", torch.arange(6))

    found = trace(Indexed().eval(), torch.randn(2, 3)).explain("order")
    assert found.groups == ()
    assert found.never == ("order (int64)",)


def test_tied_tensors_answer_to_both_names():
    model, example = toys()["tied_embedding"]
    graph = trace(model, example)
    one, two = graph.explain("embed.weight"), graph.explain("head.weight")
    assert [e.group for e in one.groups] == [e.group for e in two.groups]


def test_unknown_names(resnet50: PruningGraph):
    with pytest.raises(UnknownName, match=r"did you mean 'layer3\.0\.conv2'") as caught:
        resnet50.explain("layer3.0.cnov2")
    assert "print(graph) lists the groups" in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_as_json(graph: PruningGraph):
    found = graph.explain("two")
    assert isinstance(found, Explanation)
    data = found.as_dict()
    assert data["groups"][0]["name"] == "stem"
    assert {"member": "head.weight[1]", "role": "in"}.items() <= next(
        t for t in data["groups"][0]["ties"] if t["member"] == "head.weight[1]"
    ).items()


def test_macs_of_groups(graph: PruningGraph):
    carried = graph.group_macs()
    assert carried["stem"] == graph.cost().macs
    assert carried["head"] == 2 * 6 * 2


def test_a_kernel_of_one_channel_has_nothing_but_taps():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1))
    graph = trace(model, torch.randn(1, 1, 8, 8))
    assert graph.explain("0").never == ("0.weight[2], [3] (the taps of a kernel)",)
    assert graph.explain("1.weight").never == ("1.weight[2], [3] (the taps of a kernel)",)
    assert graph.cost().params == sum(p.numel() for p in model.parameters())
