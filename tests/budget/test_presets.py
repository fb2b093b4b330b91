"""The predefined widths of the papers, to the digit (papers.md 3.1 to 3.3 and 3.6)."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import secateur as sc
from secateur._errors import UnknownName, UsageError
from secateur.budget import PRESETS, preset_widths
from secateur.graph import PruningGraph
from secateur.models import build, default_input_shape
from secateur.models.cifar_resnet import cifar_resnet

# Of the first convolution of every block, or of all convolutions of a plain network.
WIDTHS = {
    "vgg16-A": [[32, 64, 128, 128] + [256] * 9],
    "resnet56-A": [[14] * 7 + [16, 14], [32] + [28] * 8, [64] + [57] * 7 + [64]],
    "resnet56-B": [[6] * 7 + [16, 16], [32] + [22] * 6 + [32, 22], [64] + [57] * 7 + [64]],
    "resnet110-A": [[8] * 17 + [16], [32] * 18, [64] * 18],
    "resnet110-B": [[8] * 17 + [16], [32] + [19] * 17, [64] + [44] * 17],
    "resnet34-A": [[64, 44, 44], [128, 89, 89, 128], [256, 179, 179, 179, 179, 256], [512] * 3],
    "resnet34-B": [[64, 32, 32], [128, 51, 51, 128], [256, 153, 153, 153, 153, 256], [512] * 3],
    "thinet-conv": [[32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512]],
    "thinet-gap": [[32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512]],
    "thinet-tiny": [[16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 256]],
    "thinet-30": [[19] * 3, [38] * 4, [76] * 6, [153] * 3],
    "thinet-50": [[32] * 3, [64] * 4, [128] * 6, [256] * 3],
    "thinet-70": [[44] * 3, [89] * 4, [179] * 6, [358] * 3],
    "vgg16-5x": [[24, 22, 41, 51, 108, 89, 111, 184, 276, 228, 512, 512, 512]],
    "resnet50-2x": [[64, 51, 50], [128, 105, 105, 128], [256, 209, 204, 212, 211, 256], [512] * 3],
}
# MACs and parameters as papers.md prints them, with as many digits.
REDUCTIONS = {
    "vgg16-A": 34.2,
    "resnet56-A": 10.4,
    "resnet56-B": 27.6,
    "resnet110-A": 15.9,
    "resnet110-B": 38.7,
    "resnet34-A": 15.4,
    "resnet34-B": 24.1,
}
GIGA_MACS = {"thinet-conv": "4.79", "thinet-gap": "4.67", "thinet-tiny": "1.005", "vgg16-5x": "3.515"}
MEGA_PARAMS = {"thinet-gap": "8.32", "thinet-tiny": "1.33"}


@cache
def graph_of(name: str) -> PruningGraph:
    shape = default_input_shape(name)
    assert shape is not None
    return sc.trace(build(name).eval(), torch.zeros(1, *shape))


def convolutions(name: str, widths: dict[str, int]) -> list[list[int]]:
    """The widths as the tables list them."""
    if not PRESETS[name].blocks:
        return [[w for n, w in widths.items() if n.startswith("features.")]]
    stages = range(1, len(PRESETS[name].blocks) + 1)
    return [[w for n, w in widths.items() if n.startswith(f"layer{s}.") and n.endswith(".conv1")] for s in stages]


@pytest.mark.parametrize("name", WIDTHS)
def test_widths(name: str):
    graph = graph_of(PRESETS[name].model)
    chosen = preset_widths(name, graph)
    assert convolutions(name, {**graph.widths, **chosen}) == WIDTHS[name]
    # Nothing else is cut: residual sums stay whole.
    inside = (".conv1", ".conv2") if "resnet50" in PRESETS[name].model else (".conv1",)
    assert all(n.startswith("features.") or n.endswith(inside) for n in chosen)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_published_reductions(name: str):
    graph = graph_of(PRESETS[name].model)
    reduction = 100 * (1 - graph.cost(preset_widths(name, graph)).macs / graph.cost().macs)
    assert round(reduction, 1) == REDUCTIONS[name]


@pytest.mark.parametrize("name", GIGA_MACS)
def test_published_costs(name: str):
    graph = graph_of(PRESETS[name].model)
    cost = graph.cost(preset_widths(name, graph))
    digits = len(GIGA_MACS[name].partition(".")[2])
    assert f"{cost.macs / 1e9:.{digits}f}" == GIGA_MACS[name]
    if name in MEGA_PARAMS:
        assert f"{cost.params / 1e6:.2f}" == MEGA_PARAMS[name]


def bottleneck_macs(stages: list[list[tuple[int, int, int]]]) -> int:
    """MACs of a ResNet-50 at 224 pixels whose bottlenecks read, have and pass on so many channels, by hand."""
    total, stream, side = 64 * 3 * 49 * 112**2 + 2048 * 1000, 64, 56
    for stage, blocks in enumerate(stages):
        out = 256 * 2**stage
        for i, (read, first, second) in enumerate(blocks):
            before = side
            if i == 0 and stage:
                side //= 2
            # The second convolution of a block has the stride.
            total += read * first * before**2 + (9 * first * second + second * out) * side**2
            if i == 0:
                total += stream * out * side**2
            stream = out
    return total


@pytest.mark.parametrize("name", ["thinet-30", "thinet-50", "thinet-70", "resnet50-2x"])
def test_bottlenecks_cost_what_they_cost_by_hand(name: str):
    preset, graph = PRESETS[name], graph_of("torchvision:resnet50")
    streams = [64, *[256] * 3, *[512] * 4, *[1024] * 6, *[2048] * 2]
    rows = iter(zip(streams, preset.kept["conv1"], preset.kept["conv2"], strict=True))
    by_hand = bottleneck_macs([[next(rows) for _ in range(count)] for count in preset.blocks])
    assert graph.cost(preset_widths(name, graph)).macs == by_hand


def test_he_s_resnet_with_its_samplers():
    preset = PRESETS["resnet50-2x"]
    rows = iter(zip(preset.inputs, preset.kept["conv1"], preset.kept["conv2"], strict=True))
    macs = bottleneck_macs([[next(rows) for _ in range(count)] for count in preset.blocks])
    model = build("torchvision:resnet50").eval()
    graph = sc.trace(sc.select_channels(model, torch.zeros(1, 3, 224, 224)), torch.zeros(1, 3, 224, 224))
    assert graph.cost(preset_widths("resnet50-2x", graph)).macs == macs == 2_730_129_076
    # Half only in its first author's counting. Liu trains Scratch-B for 132 of 90 epochs, which is 1.47 times by a
    # counter that has norms and activations in it.
    assert graph_of("torchvision:resnet50").cost().macs / macs == pytest.approx(1.498, abs=1e-3)


@pytest.mark.parametrize(("depth", "published"), [(20, 52.5), (56, 52.7), (110, 52.7)])
def test_soft_filter_pruning_counts_inputs_and_outputs(depth: int, published: float):
    # papers.md counts all channels, so those of the stream too: they can go where shortcuts are convolutions.
    graph = sc.trace(cifar_resnet(depth, shortcut="conv").eval(), torch.zeros(1, 3, 32, 32))
    widths = preset_widths("sfp-30", graph)
    assert set(widths) == set(graph.widths)
    assert set(widths.values()) == {11, 22, 44}
    assert 100 * (1 - graph.cost(widths).macs / graph.cost().macs) == pytest.approx(published, abs=0.1)


def test_every_preset_is_tested():
    assert set(PRESETS) == {*WIDTHS, "sfp-30"}


def test_vgg16_a_to_the_last_digit():
    graph = graph_of("cifar-vgg16")
    plan = sc.plan(graph, sc.score(graph, "l1"), preset_widths("vgg16-A", graph))
    assert (plan.why["macs"], plan.why["params"]) == (206_146_048, 5_261_866)
    assert (plan.why["dense_macs"], plan.why["dense_params"]) == (313_201_664, 14_724_042)
    assert sum(p.numel() for p in sc.cut(graph.model, plan).parameters()) == 5_261_866


def test_a_cut_bottleneck_network_costs_what_was_planned():
    graph = graph_of("torchvision:resnet50")
    plan = sc.plan(graph, sc.score(graph, "l1"), preset_widths("thinet-30", graph))
    small = sc.cut(graph.model, plan)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small.eval()(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() // 2 == plan.why["macs"]


def test_a_preset_keeps_the_best_units():
    graph = graph_of("cifar-resnet56")
    scores = sc.score(graph, "l1")
    plan = sc.plan(graph, scores, preset_widths("resnet56-B", graph))
    for name, units in plan.keep.items():
        gone = sorted(set(range(graph.widths[name])) - set(units))
        assert not gone or float(scores[name][list(units)].min()) >= float(scores[name][gone].max())


def test_batch_norms_do_not_change_a_plain_preset():
    graph = graph_of("torchvision:vgg16_bn")
    assert convolutions("thinet-conv", preset_widths("thinet-conv", graph)) == WIDTHS["thinet-conv"]


@pytest.mark.parametrize(
    ("preset", "model", "what"),
    [
        ("resnet56-B", "cifar-resnet20", "it has no group layer1.3.conv1"),
        ("resnet56-B", "cifar-resnet110", "it has 54 residual blocks, not 27"),
        ("resnet56-A", "cifar-vgg16", "it has no group layer1.0.conv1"),
        ("vgg16-A", "cifar-resnet20", "it has 0 convolutions in a row (features.*), not 13"),
        ("vgg16-A", "cifar-vgg19", "it has 16 convolutions in a row (features.*), not 13"),
    ],
)
def test_another_model(preset: str, model: str, what: str):
    with pytest.raises(UsageError) as caught:
        preset_widths(preset, graph_of(model))
    message = str(caught.value)
    assert what in message
    assert PRESETS[preset].model in message
    assert "budget=" in message


def test_unknown():
    with pytest.raises(UnknownName, match="did you mean 'resnet56-B'"):
        preset_widths("resnet56-C", graph_of("cifar-resnet20"))
