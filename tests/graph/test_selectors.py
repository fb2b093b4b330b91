"""Channel selectors: which layers get one, what it changes of the labels, and that the cuts are exact."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import secateur as sc
from secateur._errors import InputError
from secateur.graph import ChannelSelector, PruningGraph, selectors_of
from secateur.graph.selector import attach
from secateur.models import build
from secateur.models.cifar_densenet import cifar_densenet
from secateur.models.cifar_preresnet import cifar_preresnet
from secateur.models.cifar_resnet import cifar_resnet
from secateur.surgery import make_plan
from secateur.testing.toys import Residual

IMAGE = torch.zeros(1, 3, 32, 32)


class Excited(nn.Module):
    """Squeeze and excitation: what looks at the whole map reads beside the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze, self.excite, self.last = nn.Linear(8, 4), nn.Linear(4, 8), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.last(x * gate[:, :, None, None]).mean((2, 3))


class InPlace(nn.Module):
    """Activations and a sum that write into their input, and a block that is given the same norm twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Linear(8, 5)
        self.a, self.b, self.c, self.d = (nn.Conv2d(8, 8, 1) for _ in range(4))
        self.twice = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.b(self.relu(self.a(x)))
        y += x
        y = y + self.d(self.twice(self.c(self.twice(y))))
        return self.head(self.relu(y).mean((2, 3)))


class Perceptron(nn.Module):
    """A residual block of linear layers behind a LayerNorm; takes inputs without a batch, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 3)
        self.widen, self.narrow = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.narrow(self.widen(self.norm(x)).relu()))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def halved(graph: PruningGraph) -> sc.Plan:
    """Every group loses other units than its neighbours."""
    rng = np.random.default_rng(0)
    keep = {g.name: np.sort(rng.permutation(g.width)[: max(g.least, g.width // 2)]) for g in graph.prunable}
    return make_plan(graph, keep)


READERS: dict[str, tuple[Callable[[], nn.Module], Tensor, list[str]]] = {
    "pre-activation": (
        lambda: cifar_preresnet(20),
        IMAGE,
        [f"layer{s}.{b}.bn1" for s in (1, 2, 3) for b in (0, 1)] + ["bn"],
    ),
    "dense": (
        lambda: cifar_densenet(10),
        IMAGE,
        [
            *("dense1.0.bn1", "dense1.1.bn1", "trans1.bn"),
            *("dense2.0.bn1", "dense2.1.bn1", "trans2.bn"),
            *("dense3.0.bn1", "dense3.1.bn1", "bn"),
        ],
    ),
    # Neither the projections of the shortcuts nor the head.
    "residual": (lambda: cifar_resnet(8, shortcut="conv"), IMAGE, [f"layer{s}.0.conv1" for s in (1, 2, 3)]),
    "plain": (lambda: build("cifar-vgg16"), IMAGE, []),
    "excited": (Excited, torch.zeros(1, 3, 8, 8), []),
    "in place": (InPlace, torch.zeros(1, 3, 8, 8), ["a"]),
    "linear": (Perceptron, torch.zeros(2, 4, 6), ["widen"]),
    "without a batch": (Perceptron, torch.zeros(6), ["widen"]),
}


@pytest.mark.parametrize("name", READERS)
def test_the_readers_of_streams_get_a_selector(name: str):
    make, example, readers = READERS[name]
    model = seeded(make)
    before = copy.deepcopy(model.state_dict())
    fitted = sc.select_channels(model, example)
    assert list(selectors_of(fitted)) == readers
    # The model itself is as it was, and the copy is the same function.
    assert not selectors_of(model)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    x = torch.randn(example.shape)
    assert torch.equal(fitted(x), model(x))


@pytest.mark.parametrize("name", [n for n, (_, _, readers) in READERS.items() if readers])
def test_what_is_selected_is_cut_exactly(name: str):
    make, example, readers = READERS[name]
    fitted = sc.select_channels(seeded(make), example)
    graph = sc.trace(fitted, example)
    tensors = {member.tensor for group in graph.prunable for member in group.members}
    assert {f"{r}.selector.indices" for r in readers} <= tensors
    plan = halved(graph)
    assert sc.verify(fitted, plan, example).require().exact
    small = sc.cut(fitted, plan)
    assert sum(p.numel() for p in small.parameters()) == graph.cost(plan.widths).params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(example)
    if example.dim() > 1:  # The counter does not know products with a vector.
        assert counter.get_total_flops() // 2 == graph.cost(plan.widths).macs


def test_norms_only():
    assert selectors_of(sc.select_channels(cifar_resnet(8), IMAGE, norms_only=True)) == {}
    assert len(selectors_of(sc.select_channels(cifar_preresnet(20), IMAGE, norms_only=True))) == 7


def test_selectors_come_once():
    once = sc.select_channels(cifar_preresnet(11).eval(), IMAGE)
    twice = sc.select_channels(once, IMAGE)
    assert once.state_dict().keys() == twice.state_dict().keys()
    assert all(len(m._forward_pre_hooks) < 2 for m in twice.modules())


def test_one_reader_loses_a_channel_and_nobody_else():
    fitted = sc.select_channels(seeded(lambda: cifar_preresnet(20)), IMAGE)
    graph = sc.trace(fitted, IMAGE)
    keep = [k for k in range(64) if k not in (0, 5, 63)]
    plan = make_plan(graph, {"layer1.1.bn1": keep})
    block = "layer1.1"
    vectors = [f"{block}.bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var", "selector.indices")]
    assert set(plan.slices) == {*vectors, f"{block}.conv1.weight"}
    small = sc.cut(fitted, plan)
    selector = selectors_of(small)[f"{block}.bn1"]
    assert selector.indices.tolist() == keep
    # The stream that goes around the block is whole, and whoever reads everything needs no selector.
    assert list(selectors_of(small)) == [f"{block}.bn1"]
    assert small.get_submodule("layer1.1.conv3").weight.shape[0] == 64  # type: ignore[union-attr]
    # What is left out is not read: the smaller network does not see what happens to those channels there.
    x = torch.randn(2, 64, 8, 8)
    y = x.clone()
    y[:, [0, 5, 63]] = 100.0
    norm = small.get_submodule(f"{block}.bn1")
    assert torch.equal(norm(x), norm(y))
    assert not torch.equal(fitted.get_submodule(f"{block}.bn1")(x), fitted.get_submodule(f"{block}.bn1")(y))


def test_the_stream_is_locked_and_says_why():
    graph = sc.trace(sc.select_channels(cifar_preresnet(20).eval(), IMAGE), IMAGE)
    stream = graph["layer1.0.conv3"]
    assert stream.locked
    assert stream.reason == "read through a channel selector by layer1.1.bn1"
    free = {g.name for g in graph.prunable}
    assert {"layer1.1.bn1", "layer1.1.conv1", "layer1.1.conv2"} <= free


def preresnet_macs(blocks: list[tuple[int, int, int, int]], head: int) -> int:
    """MACs of a pre-activation CIFAR ResNet by hand; a block is (stage, channels that are read, first, second)."""
    total, stream, side = 3 * 16 * 9 * 32**2, 16, 32
    for number, (stage, read, first, second) in enumerate(blocks):
        out, before = 64 * 2**stage, side
        opens = number == 0 or blocks[number - 1][0] != stage
        side = 32 // 2**stage
        total += read * first * before**2 + 9 * first * second * side**2 + second * out * side**2
        total += stream * out * side**2 if opens else 0
        stream = out
    return total + 10 * head


@pytest.mark.parametrize("depth", [20, 164])
def test_macs_by_hand(depth: int):
    model = cifar_preresnet(depth).eval()
    graph = sc.trace(sc.select_channels(model, IMAGE), IMAGE)
    n = (depth - 2) // 9
    places = [(s, b) for s in range(3) for b in range(n)]
    widths, blocks, full = {}, [], []
    for k, (s, b) in enumerate(places):
        stream, width = (16 if k == 0 else 64 * 2 ** (s - (b == 0))), 16 * 2**s
        read, first, second = max(1, stream - 3 * k), max(1, width - k), max(1, width - 2 * (k % 7))
        blocks.append((s, read, first, second))
        full.append((s, stream, width, width))
        block = f"layer{s + 1}.{b}"
        widths |= {f"{block}.bn1": read, f"{block}.conv1": first, f"{block}.conv2": second}
    assert graph.cost(widths | {"bn": 99}).macs == preresnet_macs(blocks, 99)
    assert graph.cost().macs == sc.trace(model, IMAGE).cost().macs == preresnet_macs(full, 256)


def test_a_layer_that_runs_twice_selects_the_same_channels():
    """``select_channels`` leaves such layers alone; whoever gives them a selector gets one set of units."""

    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(self.norm(x)) + self.head(self.norm(x * 2))

    model = Again().eval()
    assert not selectors_of(sc.select_channels(model, torch.zeros(2, 4)))
    attach(model, ["norm"])
    graph = sc.trace(model, torch.zeros(2, 4))
    assert [m.tensor for m in graph["norm"].members].count("norm.selector.indices") == 1
    assert sc.verify(model, halved(graph), torch.randn(2, 4)).exact


def test_indices_are_no_parameters():
    model = Residual().eval()
    fitted = sc.select_channels(model, torch.zeros(1, 3, 8, 8))
    assert list(selectors_of(fitted)) == ["a.0"]
    assert sc.trace(fitted, torch.zeros(1, 3, 8, 8)).cost() == sc.trace(model, torch.zeros(1, 3, 8, 8)).cost()
    assert [n for n, _ in fitted.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert fitted.half().get_submodule("a.0.selector").indices.dtype == torch.int64  # type: ignore[union-attr]


def test_it_says_what_it_selects():
    selector = ChannelSelector(8, 1)
    assert repr(selector) == "ChannelSelector(8 of 8 channels)"


def test_a_model_that_does_not_run():
    with pytest.raises(InputError, match="does not run on the example inputs"):
        sc.select_channels(Residual(), torch.zeros(1, 4, 8, 8))
