"""The cost polynomial: published counts, the derivative, and an independent counter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from secateur import models
from secateur._errors import UsageError
from secateur.graph import PruningGraph, trace
from secateur.models.cifar_resnet import cifar_resnet
from secateur.surgery import cut, make_plan
from secateur.testing.toys import toys

# Multiply-accumulates of convolutions and matrix products, and parameters, computed from the papers' shapes.
COUNTS = {
    "cifar-vgg16": (313_201_664, 14_724_042),
    "cifar-vgg19": (398_136_320, 20_035_018),
    "cifar-resnet20": (40_551_040, 269_722),
    "cifar-resnet32": (68_862_592, 464_154),
    "cifar-resnet56": (125_485_696, 853_018),
    "cifar-resnet110": (252_887_680, 1_727_962),
}

# Li et al. 2017 (arXiv 1608.08710): widths of the first convolution of every block, and the MACs that go, in percent.
# Widths that the text gives as ratios are truncated.
LI_2017 = {
    "resnet56-a": ("cifar-resnet56", [*[14] * 7, 16, 14, 32, *[28] * 8, 64, *[57] * 7, 64], 10.4),
    "resnet56-b": ("cifar-resnet56", [*[6] * 7, 16, 16, 32, *[22] * 6, 32, 22, 64, *[57] * 7, 64], 27.6),
    "resnet110-a": ("cifar-resnet110", [*[8] * 17, 16, *[32] * 18, *[64] * 18], 15.9),
    "resnet110-b": ("cifar-resnet110", [*[8] * 17, 16, 32, *[19] * 17, 64, *[44] * 17], 38.7),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, PruningGraph]:
    """Graphs of the built-in networks."""
    return {name: trace(models.build(name), torch.zeros(1, 3, 32, 32)) for name in COUNTS}


@pytest.mark.parametrize("name", COUNTS)
def test_the_built_in_networks(graphs: dict[str, PruningGraph], name: str):
    cost = graphs[name].cost()
    assert (cost.macs, cost.params) == COUNTS[name]


def test_resnet34_at_224():
    import torchvision

    cost = trace(torchvision.models.resnet34(weights=None), torch.zeros(1, 3, 224, 224)).cost()
    assert (cost.macs, cost.params) == (3_663_761_408, 21_797_672)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(20, (40_813_184, 272_474)), (32, (69_124_736, 466_906)), (56, (125_747_840, 855_770))],
)
def test_convolution_shortcuts(depth: int, expected: tuple[int, int]):
    cost = trace(cifar_resnet(depth, shortcut="conv"), torch.zeros(1, 3, 32, 32)).cost()
    assert (cost.macs, cost.params) == expected


def test_vgg16_a(graphs: dict[str, PruningGraph]):
    """Li et al. 2017: the first and the last six convolutions halved."""
    graph = graphs["cifar-vgg16"]
    convolutions = [
        name for name, m in graph.model.named_modules() if isinstance(m, nn.Conv2d) and name in graph.widths
    ]
    assert len(convolutions) == 13
    halved = [convolutions[0], *convolutions[7:]]
    cost = graph.cost({name: graph.widths[name] // 2 for name in halved})
    assert (cost.macs, cost.params) == (206_146_048, 5_261_866)


@pytest.mark.parametrize("preset", LI_2017)
def test_the_reductions_of_li_2017(graphs: dict[str, PruningGraph], preset: str):
    name, widths, percent = LI_2017[preset]
    graph = graphs[name]
    first = [module for module in graph.widths if module.endswith("conv1") and "." in module]
    order = [module for module, _ in graph.model.named_modules() if module in first]
    assert len(order) == len(widths)
    cost, dense = graph.cost(dict(zip(order, widths, strict=True))), graph.cost()
    assert 100 * (1 - cost.macs / dense.macs) == pytest.approx(percent, abs=0.05)


def test_widths_given_in_any_form_cost_the_same(graphs: dict[str, PruningGraph]):
    graph = graphs["cifar-resnet20"]
    halves = {name: width // 2 for name, width in graph.widths.items()}
    by_name = graph.cost(halves)
    by_tensor = graph.cost(torch.tensor([float(w) for w in halves.values()]))
    mixed = graph.cost({name: torch.tensor(float(w)) for name, w in halves.items()})
    for cost in (by_tensor, mixed):
        assert (round(cost.macs.item()), round(cost.params.item())) == (by_name.macs, by_name.params)
    assert graph.cost(graph.widths) == graph.cost()


@pytest.mark.parametrize("name", ["residual", "dense_block", "attention_fused", "grouped_convolution", "mixer", "unet"])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_the_derivative(name: str, metric: str):
    model, example = toys()[name]
    graph = trace(model, example)
    widths = torch.tensor([w * 0.6 for w in graph.widths.values()], dtype=torch.float64, requires_grad=True)

    def value(w: torch.Tensor) -> Any:
        return getattr(graph.cost(w), metric)

    assert torch.autograd.gradcheck(value, (widths,))
    (slope,) = torch.autograd.grad(value(widths), widths)
    assert (slope > 0).all(), "a wider network costs more"


def test_the_derivative_through_named_widths(graphs: dict[str, PruningGraph]):
    graph = graphs["cifar-resnet20"]
    name = next(iter(graph.widths))
    width = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    graph.cost({name: width}).macs.backward()
    lower, upper = graph.cost({name: 7}).macs, graph.cost({name: 9}).macs
    assert width.grad is not None
    middle = graph.cost({name: 8}).macs
    curvature = upper - 2 * middle + lower
    assert width.grad.item() == pytest.approx((upper - lower) / 2, abs=abs(curvature) + 1)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_independent_counter(graphs: dict[str, PruningGraph], seed: int):
    graph = graphs["cifar-resnet20"]
    rng = np.random.default_rng(seed)
    plan = make_plan(graph, {n: range(rng.integers(1, w + 1)) for n, w in graph.widths.items()})
    small = cut(graph.model, plan).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(torch.zeros(1, 3, 32, 32))
    cost = graph.cost(plan.widths)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.params == sum(p.numel() for p in small.parameters())


def test_the_modules_share_out_the_total(graphs: dict[str, PruningGraph]):
    for graph in graphs.values():
        assert sum(graph.module_macs().values()) == graph.cost().macs


def test_an_unknown_group_is_named(graphs: dict[str, PruningGraph]):
    with pytest.raises(UsageError, match="no such group: stem"):
        graphs["cifar-resnet20"].cost({"stem": 3})
