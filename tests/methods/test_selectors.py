"""Methods that let every block choose the channels of the stream that it reads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.budget import Goal
from secateur.graph import selectors_of
from secateur.measure import model_bytes
from secateur.methods import Evidence, Reconstruction, Slimming, ThiNet
from secateur.models import build
from secateur.models.cifar_densenet import cifar_densenet
from secateur.models.cifar_preresnet import cifar_preresnet
from secateur.pipeline import rehearse
from secateur.study.recipe import read_study
from secateur.surgery import cut, make_plan
from secateur.testing.toys import Image, conv_bn
from secateur.training import TrainConfig, reinitialise

IMAGE = torch.zeros(1, 3, 8, 8)
CONFIG = TrainConfig(epochs=1, lr=0.05, batch_size=8, schedule="constant")


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    y = [torch.randint(5, (8,), generator=generator) for _ in range(count)]
    return [(torch.randn(8, 3, 8, 8, generator=generator) + labels[:, None, None, None] / 5, labels) for labels in y]


class Stream(Image):
    """A wide stream and two blocks that read it."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.a, self.b = conv_bn(3, 16), conv_bn(16, 7), conv_bn(7, 16)
        self.c, self.d = conv_bn(16, 9), conv_bn(9, 16)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.b(self.a(x).relu())).relu()
        return (x + self.d(self.c(x).relu())).relu()


def stream() -> Stream:
    torch.manual_seed(0)
    model = Stream()
    reinitialise(model, 3)
    return model.eval()


def error(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - other(x)).square().mean())


# -- slimming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selectors", [True, False])
def test_a_small_scale_closes_one_reading_only_with_a_selector(selectors: bool):
    model = cifar_preresnet(20).eval()
    with torch.no_grad():
        for k, (_, m) in enumerate((n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)):
            m.weight.copy_(1 + 0.01 * torch.arange(len(m.weight)) + k)
        model.get_parameter("layer1.1.bn1.weight")[5] = -1e-6
    method = Slimming(selectors=selectors)
    graph = sc.trace(method.prepare(model, IMAGE), IMAGE)
    plan = Goal(sc.Budget(macs=0.999), round_to=1).plan(graph, method.judge(graph, Evidence()), method.ranking)
    gone = {name: sorted(set(range(graph.widths[name])) - set(kept)) for name, kept in plan.keep.items()}
    lost = {name: units for name, units in gone.items() if units}
    if selectors:
        # The first unit by scale, and nothing of the stream: the next block still reads channel 5.
        assert lost["layer1.1.bn1"] == [5]
        assert "layer1.0.conv3" not in graph.widths
        assert 5 in plan.keep["layer2.0.bn1"]
    else:
        assert 5 not in lost.get("layer1.0.conv3", [])


@pytest.mark.parametrize("make", [lambda: cifar_preresnet(20, 5), lambda: cifar_densenet(10, num_classes=5)])
def test_slimming_leaves_streams_whole(make: Any, tmp_path: Path):
    torch.manual_seed(0)
    model = make()
    before = copy.deepcopy(model.state_dict())
    result = sc.prune(
        model,
        IMAGE,
        method="slimming",
        options={"selectors": True, "penalty": 1e-3},
        budget=sc.Budget(params=0.5),
        train_data=batches(4),
        config=CONFIG,
        round_to=1,
        floor=0.05,
        recover="scratch-e",
        latency_runs=2,
        out=tmp_path,
        progress=False,
    )
    assert result.check.exact
    small, card = result.model, result.card
    # What is compared with is the network that was given, without selectors.
    assert card.dense.bytes == model_bytes(model)
    assert card.dense.params == sum(p.numel() for p in model.parameters())
    assert card.pruned.params == sum(p.numel() for p in small.parameters()) <= card.dense.params / 2
    assert any("read through channel selectors" in note for note in card.notes)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    narrower = [p for p, s in selectors_of(small).items() if not s.is_whole]
    assert narrower
    # Streams: whatever is added or appended has as many channels as before.
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and not name.endswith((".conv1", ".conv2")):
            assert len(small.get_parameter(f"{name}.weight")) == len(module.weight), name
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(sc.load(tmp_path, model=make())(x), small(x))


# -- reconstruction and ThiNet ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [ThiNet(selectors=True), Reconstruction(selectors=True)], ids=lambda m: m.name)
def test_channels_that_a_block_does_not_need_are_not_sampled(method: Any):
    """The first block does not read channels 2, 7 and 11; the second one does, so the stream needs them."""
    model = stream()
    with torch.no_grad():
        model.get_parameter("a.0.weight")[:, [2, 7, 11]] = 0
    evidence = Evidence(batches(6))
    graph = sc.trace(method.prepare(model, IMAGE), IMAGE)
    keep = method.choose(graph, {**graph.widths, "a.0 input": 13}, evidence)
    assert keep is not None
    assert sorted(keep) == ["a.0 input"]
    assert sorted({*range(16)} - {*keep["a.0 input"]}) == [2, 7, 11]
    plan = make_plan(graph, {"a.0 input": sorted(keep["a.0 input"])})
    small = cut(method.refit(graph, plan, evidence), plan)
    assert error(model, small, batches(1, 9)[0][0]) < 1e-9
    assert selectors_of(small)["a.0"].indices.tolist() == sorted(keep["a.0 input"])


@pytest.mark.parametrize("method", [ThiNet(selectors=True), Reconstruction(selectors=True)], ids=lambda m: m.name)
def test_sampled_and_refitted_is_nearer_than_the_smallest_weights(method: Any):
    model = stream()
    graph = sc.trace(method.prepare(model, IMAGE), IMAGE)
    assert {"a.0 input", "c.0 input"} <= graph.widths.keys()
    widths = {name: -(-2 * width // 3) for name, width in graph.widths.items()}
    evidence = Evidence(batches(12))
    keep = method.choose(graph, widths, evidence)
    assert keep is not None
    assert {name: len(units) for name, units in keep.items()} == widths
    plan = make_plan(graph, {name: sorted(units) for name, units in keep.items()})
    unseen = torch.cat([x for x, _ in batches(4, seed=77)])
    scores = sc.score(graph, "l1")
    smallest = make_plan(graph, {n: scores[n].topk(w).indices.tolist() for n, w in widths.items()})
    refitted = error(model, cut(method.refit(graph, plan, evidence), plan), unseen)
    assert refitted < error(model, cut(model, plan), unseen)
    assert refitted < error(model, cut(model, smallest), unseen)


def test_without_the_option_nothing_changes():
    model = stream()
    for method in (Slimming(), Reconstruction(), ThiNet()):
        assert method.prepare(model, IMAGE) is model


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["cifar-preresnet164", "cifar-densenet40"])
def test_the_networks_of_the_slimming_table(name: str):
    """What the recipes ask of them is within reach, exact, and cuts no stream."""
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "rethinking" / "slimming-cifar10.toml"
    runs = {str(r.job.goal.budget): r for r in read_study(recipe).runs if r.model == name}
    assert len(runs) == 2
    for run in runs.values():
        assert run.job.method == Slimming(penalty=1e-5, selectors=True)
        torch.manual_seed(0)
        graph = rehearse(build(name).eval(), torch.zeros(1, 3, 32, 32), run.job, True)
        scores = {g.name: torch.rand(g.width) for g in graph.prunable}
        plan = run.job.goal.plan(graph, scores, Slimming.ranking)
        assert sc.verify(graph.model, plan, torch.zeros(1, 3, 32, 32)).require().exact
        small = cut(graph.model, plan)
        assert sum(p.numel() for p in small.parameters()) == plan.why["params"]
        assert len(selectors_of(small)) > 30
        # In the one the streams are sums, in the other whatever a layer appends.
        last = ("conv3", "shortcut") if "preresnet" in name else ("conv1",)
        for path, module in graph.model.named_modules():
            if isinstance(module, nn.Conv2d) and path.endswith(last) and path != "conv1":
                assert len(small.get_parameter(f"{path}.weight")) == len(module.weight), path
