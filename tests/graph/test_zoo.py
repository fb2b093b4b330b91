"""Networks that people use: their groups, their cost against the published one, and an exact cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pytest
import timm
import torch
import torchvision.models as tv
from torch import nn

from secateur.graph import PruningGraph, trace
from secateur.surgery import cut, make_plan, verify


@dataclass(frozen=True)
class Entry:
    """A network, what its graph has to hold, and where an exact cut is checked.

    ``published`` are the weights whose card states GMACs and parameters; ``verified`` is a lighter sibling with the
    same blocks where the network itself would take too long in float64.
    """

    build: Callable[[], nn.Module]
    prunable: int
    heads: int
    macs: int
    params: int
    pixels: int = 224
    published: str = ""
    verified: Callable[[], nn.Module] | None = None
    verified_pixels: int = 64


_VIT = partial(tv.VisionTransformer, 32, 16, num_layers=2, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=10)
_FCN = partial(tv.segmentation.fcn_resnet50, weights=None, weights_backbone=None)
ZOO = {
    "resnet18": Entry(tv.resnet18, 12, 0, 1_814_073_344, 11_689_512, published="ResNet18_Weights"),
    "resnet50": Entry(tv.resnet50, 37, 0, 4_089_184_256, 25_557_032, published="ResNet50_Weights"),
    "densenet121": Entry(tv.densenet121, 120, 0, 2_834_161_664, 7_978_856, published="DenseNet121_Weights"),
    "mobilenet_v3_small": Entry(
        tv.mobilenet_v3_small, 27, 0, 56_510_400, 2_542_856, published="MobileNet_V3_Small_Weights"
    ),
    "efficientnet_b0": Entry(tv.efficientnet_b0, 40, 0, 385_814_752, 5_288_548, published="EfficientNet_B0_Weights"),
    "convnext_tiny": Entry(tv.convnext_tiny, 22, 0, 4_455_531_264, 28_589_128, published="ConvNeXt_Tiny_Weights"),
    "shufflenet_v2_x1_0": Entry(
        tv.shufflenet_v2_x1_0, 19, 0, 144_907_992, 2_278_604, published="ShuffleNet_V2_X1_0_Weights"
    ),
    "vit_b_16": Entry(tv.vit_b_16, 25, 12, 17_563_828_224, 86_567_656, 224, "ViT_B_16_Weights", _VIT, 32),
    "swin_t": Entry(tv.swin_t, 16, 4, 4_490_566_656, 28_288_354, published="Swin_T_Weights"),
    "fcn_resnet50": Entry(_FCN, 38, 0, 26_484_498_432, 32_957_013),
    "timm deit_tiny_patch16_224": Entry(
        partial(timm.create_model, "deit_tiny_patch16_224"), 25, 12, 1_253_683_200, 5_717_416, verified_pixels=224
    ),
    "timm resnet50": Entry(partial(timm.create_model, "resnet50"), 37, 0, 4_089_184_256, 25_557_032),
}


@cache
def full(name: str) -> PruningGraph:
    """The graph of the network at its own resolution. Values play no part, so initialisation is not waited for."""
    entry = ZOO[name]
    with torch.device("meta"):
        model = entry.build()
    return trace(model, torch.zeros(1, 3, entry.pixels, entry.pixels))


@pytest.mark.parametrize("name", ZOO)
def test_groups_and_cost(name: str):
    entry, graph = ZOO[name], full(name)
    heads = sum(g.kind == "head" for g in graph.prunable)
    assert (len(graph.prunable), heads) == (entry.prunable, entry.heads), str(graph)
    assert (graph.cost().macs, graph.cost().params) == (entry.macs, entry.params)


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.published])
def test_the_published_cost(name: str):
    entry, cost = ZOO[name], full(name).cost()
    card = tv.get_weight(f"{entry.published}.IMAGENET1K_V1").meta
    assert card["num_params"] == cost.params
    # The cards give GMACs to three digits.
    assert card["_ops"] == pytest.approx(cost.macs / 1e9, rel=0.01, abs=0.001)


def test_the_widths_of_resnet18():
    widths = full("resnet18").widths
    inner = {f"layer{i}.{j}.conv1": 32 * 2**i for i in (1, 2, 3, 4) for j in (0, 1)}
    assert {name: widths[name] for name in inner} == inner
    assert sorted(w for name, w in widths.items() if name not in inner) == [64, 128, 256, 512]


def test_both_resnet50_have_the_same_widths():
    assert sorted(full("resnet50").widths.values()) == sorted(full("timm resnet50").widths.values())


@pytest.mark.parametrize("name", ZOO)
def test_a_random_cut_is_exact(name: str):
    entry = ZOO[name]
    model = (entry.verified or entry.build)()
    pixels = entry.verified_pixels
    graph = trace(model, torch.zeros(1, 3, pixels, pixels))
    if entry.verified is None:
        assert graph.widths == full(name).widths, "the resolution changed the groups"
    rng = np.random.default_rng(0)
    keep = {g.name: rng.choice(g.width, max(1, g.width // 3), replace=False).tolist() for g in graph.prunable}
    plan = make_plan(graph, keep)
    check = verify(model, plan, torch.randn(1, 3, pixels, pixels))
    assert check.exact, str(check)
    small = cut(model, plan)
    assert sum(p.numel() for p in small.parameters()) == graph.cost(plan.widths).params
