"""The predefined widths of Li et al. 2017, to the digit (papers.md 3.1)."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import secateur as sc
from secateur._errors import UnknownName, UsageError
from secateur.budget import PRESETS, preset_widths
from secateur.graph import PruningGraph
from secateur.models import build, default_input_shape

WIDTHS = {
    "vgg16-A": [[32, 64, 128, 128] + [256] * 9],
    "resnet56-A": [[14] * 7 + [16, 14], [32] + [28] * 8, [64] + [57] * 7 + [64]],
    "resnet56-B": [[6] * 7 + [16, 16], [32] + [22] * 6 + [32, 22], [64] + [57] * 7 + [64]],
    "resnet110-A": [[8] * 17 + [16], [32] * 18, [64] * 18],
    "resnet110-B": [[8] * 17 + [16], [32] + [19] * 17, [64] + [44] * 17],
    "resnet34-A": [[64, 44, 44], [128, 89, 89, 128], [256, 179, 179, 179, 179, 256], [512] * 3],
    "resnet34-B": [[64, 32, 32], [128, 51, 51, 128], [256, 153, 153, 153, 153, 256], [512] * 3],
}
REDUCTIONS = {
    "vgg16-A": 34.2,
    "resnet56-A": 10.4,
    "resnet56-B": 27.6,
    "resnet110-A": 15.9,
    "resnet110-B": 38.7,
    "resnet34-A": 15.4,
    "resnet34-B": 24.1,
}


@cache
def graph_of(name: str) -> PruningGraph:
    shape = default_input_shape(name)
    assert shape is not None
    return sc.trace(build(name).eval(), torch.zeros(1, *shape))


def first_convolutions(name: str, widths: dict[str, int]) -> list[list[int]]:
    """The widths of the table of papers.md: of every convolution of VGG, of the first one of each residual block."""
    if name.startswith("vgg"):
        return [list(widths.values())]
    stages = sorted({n.partition(".")[0] for n in widths if n.endswith(".conv1")})
    return [[w for n, w in widths.items() if n.startswith(f"{s}.") and n.endswith(".conv1")] for s in stages]


@pytest.mark.parametrize("name", PRESETS)
def test_widths_and_reduction(name: str):
    graph = graph_of(PRESETS[name].model)
    chosen = preset_widths(name, graph)
    widths = {**graph.widths, **chosen}
    assert first_convolutions(name, widths) == WIDTHS[name]
    # Nothing else is cut: residual sums stay whole.
    assert name.startswith("vgg") or all(n.endswith(".conv1") for n in chosen)
    reduction = 100 * (1 - graph.cost(widths).macs / graph.cost().macs)
    assert round(reduction, 1) == REDUCTIONS[name]


def test_every_preset_is_tested():
    assert set(PRESETS) == set(WIDTHS) == set(REDUCTIONS)


def test_vgg16_a_to_the_last_digit():
    graph = graph_of("cifar-vgg16")
    plan = sc.plan(graph, sc.score(graph, "l1"), preset_widths("vgg16-A", graph))
    assert (plan.why["macs"], plan.why["params"]) == (206_146_048, 5_261_866)
    assert (plan.why["dense_macs"], plan.why["dense_params"]) == (313_201_664, 14_724_042)
    assert sum(p.numel() for p in sc.cut(graph.model, plan).parameters()) == 5_261_866


def test_a_preset_keeps_the_best_units():
    graph = graph_of("cifar-resnet56")
    scores = sc.score(graph, "l1")
    plan = sc.plan(graph, scores, preset_widths("resnet56-B", graph))
    for name, units in plan.keep.items():
        gone = sorted(set(range(graph.widths[name])) - set(units))
        assert not gone or float(scores[name][list(units)].min()) >= float(scores[name][gone].max())


@pytest.mark.parametrize(
    ("preset", "model", "what"),
    [
        ("resnet56-B", "cifar-resnet20", "it has no group layer1.3.conv1"),
        ("resnet56-B", "cifar-resnet110", "it has 54 residual blocks, not 27"),
        ("resnet56-A", "cifar-vgg16", "it has no group layer1.0.conv1"),
        ("vgg16-A", "cifar-resnet20", "it has 10 widths, not 13"),
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
