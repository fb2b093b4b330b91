"""Networks with more units than they were built with, against networks that were built with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur._errors import PlanError, UsageError
from secateur.models import build
from secateur.models.cifar_densenet import CifarDenseNet
from secateur.models.cifar_resnet import CifarResNet
from secateur.models.cifar_vgg import CifarVGG
from secateur.models.mobilenet_v1 import MULTIPLES, MobileNetV1
from secateur.surgery import cut, make_plan, verify, widen
from secateur.testing.checks import counted

CIFAR = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VGG_80 = [80] * 2 + [160] * 2 + [320] * 3 + [640] * 6


def wider(model: nn.Module, x: Tensor, factor: float) -> nn.Module:
    graph = sc.trace(model, x)
    return cut(model, widen(graph, {name: int(w * factor) for name, w in graph.widths.items()}))


def resnet(base: int) -> nn.Module:
    return CifarResNet((3, 3, 3), (base, 2 * base, 4 * base), shortcut="conv")


@pytest.mark.parametrize(
    ("base", "factor", "built"),
    [
        (CifarVGG(16), 1.25, CifarVGG(16, widths=VGG_80)),
        (resnet(16), 1.25, resnet(20)),
        (CifarDenseNet(12, 12), 1.5, CifarDenseNet(12, 18)),
        (MobileNetV1(), 1.25, MobileNetV1(widths=[40 * m for m in MULTIPLES])),
    ],
    ids=["vgg16", "resnet20", "densenet40", "mobilenet-v1"],
)
def test_it_is_the_network_that_is_built_with_these_widths(base: nn.Module, factor: float, built: nn.Module):
    wide = wider(base, CIFAR, factor)
    shapes = [{n: tuple(t.shape) for n, t in m.state_dict().items()} for m in (wide, built)]
    assert shapes[0] == shapes[1]
    assert counted(wide, CIFAR) == counted(built, CIFAR)
    built.load_state_dict(wide.state_dict())
    assert torch.equal(wide.eval()(CIFAR), built.eval()(CIFAR))


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:vgg11_bn", "torchvision:shufflenet_v2_x0_5"])
def test_other_networks_run_and_cost_what_is_foretold(name: str):
    model, x = build(name).eval(), torch.randn(1, 3, 64, 64)
    graph = sc.trace(model, x)
    widths = {n: int(w * 1.5) for n, w in graph.widths.items()}
    wide = cut(model, widen(graph, widths))
    cost = graph.cost(widths)
    assert counted(wide, x) == (cost.macs, cost.params)
    assert sc.trace(wide, x).widths == widths


def test_a_plan_over_a_wider_network_is_one_of_the_given_network():
    model = CifarVGG(16).eval()
    graph = sc.trace(model, CIFAR)
    first = widen(graph, {n: int(w * 1.25) for n, w in graph.widths.items()})
    wide = sc.trace(cut(model, first), CIFAR)
    inner = make_plan(wide, {n: range(0, w, 2) for n, w in wide.widths.items()})
    from dataclasses import replace

    plan = replace(inner, base=first)
    assert sc.Plan.from_json(plan.to_json()) == plan
    assert verify(model, plan, CIFAR).exact
    small = cut(model, plan)
    assert counted(small, CIFAR) == counted(CifarVGG(16, widths=[w // 2 for w in VGG_80]), CIFAR)
    with pytest.raises(PlanError, match="made for another model"):
        cut(CifarVGG(19), plan)


def test_what_cannot_be_widened_is_all_named():
    graph = sc.trace(CifarVGG(16), CIFAR)
    with pytest.raises(UsageError) as caught:
        widen(graph, {"features.0": 63, "linear": 20, "nothing": 3})
    message = str(caught.value)
    assert "features.0: 63 is less than the 64" in message
    assert "linear: there is no such group" in message
    assert "nothing: there is no such group" in message
