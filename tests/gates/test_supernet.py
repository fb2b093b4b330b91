"""The supernet: at a decided draw it is the cut network, at two candidates their blend."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur import models
from secateur.gates.architecture import Choice, Costs, Space, space
from secateur.gates.depth import depths, stacks
from secateur.gates.interpolate import interpolate
from secateur.gates.supernet import Draw, Supernet, decided
from secateur.gates.width import Pair
from secateur.graph import PruningGraph
from secateur.surgery import make_plan
from secateur.testing.checks import counted
from secateur.testing.contract import Depthwise, Plain
from secateur.testing.toys import Residual

RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plain": (Plain, (3, 8, 8)),
    "residual": (Residual, (3, 8, 8)),
    "depthwise": (Depthwise, (3, 8, 8)),
    "digits-resnet": (lambda: models.build("digits-resnet"), (1, 8, 8)),
    "padded shortcuts": (lambda: models.build("cifar-resnet20"), (3, 16, 16)),
    "pre-activation": (lambda: models.build("cifar-preresnet20"), (3, 16, 16)),
    "concatenations": (lambda: models.build("cifar-densenet40"), (3, 16, 16)),
    "no norms": (lambda: models.build("lenet5"), (1, 28, 28)),
    "inverted": (lambda: models.build("torchvision:mobilenet_v2"), (3, 32, 32)),
    "layer norms": (lambda: models.build("torchvision:convnext_tiny"), (3, 32, 32)),
    "norms that activate": (lambda: models.build("timm:resnet26"), (3, 32, 32)),
    "attention": (lambda: models.build("timm:vit_tiny_patch16_224"), (3, 224, 224)),
}


def lively(name: str) -> tuple[PruningGraph, Space, Tensor]:
    build, shape = NETS[name]
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(3, *shape, dtype=torch.float64)
    graph = sc.trace(model, x[:1])
    return graph, space(graph, RATIOS), x


def some_choice(searched: Space, seed: int) -> Choice:
    draw = random.Random(seed)
    widths = tuple(draw.randrange(len(c)) for c in searched.counts.values())
    return Choice(widths, tuple(draw.randrange(len(s.kept)) for s in searched.stacks))


def cut_to(graph: PruningGraph, searched: Space, choice: Choice) -> nn.Module:
    shorter = graph.without(*searched.dropped(choice))
    units = searched.units(choice)
    return sc.cut(graph.model, make_plan(shorter, {n: range(u) for n, u in units.items() if n in shorter.widths}))


@pytest.mark.parametrize("name", NETS)
def test_a_choice_is_the_cut_network_and_costs_what_it_costs(name: str):
    graph, searched, x = lively(name)
    own = graph.on(copy.deepcopy(graph.model))
    net, costs = Supernet(own, searched), Costs(graph, searched, "macs")
    for seed in range(2):
        choice = some_choice(searched, seed)
        small = cut_to(graph, searched, choice)
        net.choice = choice
        with torch.no_grad():
            torch.testing.assert_close(own.model.eval()(x), small(x), rtol=1e-9, atol=1e-9)
        if name != "attention":
            assert costs.actual(choice) == counted(small, x[:1])[0]
    before = {n: tuple(t.shape) for n, t in graph.model.state_dict().items()}
    net.settle(net.choice)
    assert {n: tuple(t.shape) for n, t in own.model.state_dict().items()} == before
    assert "forward" not in vars(own.model)
    with torch.no_grad():
        torch.testing.assert_close(own.model(x), graph.model(x), rtol=1e-12, atol=1e-12)


class OneLayer(nn.Module):
    def __init__(self, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=not norm)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu()).mean((2, 3))


def set_up(norm: bool) -> tuple[nn.Module, Supernet]:
    model = OneLayer(norm).double()
    graph = sc.trace(model, torch.zeros(1, 2, 6, 6, dtype=torch.float64))
    return model, Supernet(graph, space(graph, (0.5, 1.0)))


def test_two_candidates_are_blended_behind_norms_of_their_own():
    model, net = set_up(True)
    norm, conv, head = model.norm, model.conv, model.head
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    assert norm.weight.shape == (2, 4), "one norm for each candidate"
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    net.draw = Draw({"conv": Pair(0, 1, weights)}, ())
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    model.train()
    found = model(x)
    y = F.conv2d(x, conv.weight)
    low = F.batch_norm(y[:, :2], None, None, norm.weight[0, :2], norm.bias[0, :2], True)
    high = F.batch_norm(y, None, None, norm.weight[1], norm.bias[1], True)
    # Averaged after the norm and before the ReLU.
    mixed = 0.3 * interpolate(low, 4) + 0.7 * high
    torch.testing.assert_close(found, F.conv2d(mixed.relu(), head.weight, head.bias).mean((2, 3)), rtol=1e-6, atol=1e-7)
    mean = y.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean[1], 0.1 * mean)
    torch.testing.assert_close(norm.running_mean[0, :2], 0.1 * mean[:2])
    assert norm.running_mean[0, 2:].tolist() == [0.0, 0.0], "what the narrower one does not have stays as it was"
    torch.testing.assert_close(norm.running_var[1], 0.9 + 0.1 * y.transpose(0, 1).flatten(1).var(1))
    (gradient,) = torch.autograd.grad(found.square().sum(), weights)
    assert bool((gradient != 0).all())


def test_statistics_stay_where_they_are_for_steps_of_the_logits():
    model, net = set_up(True)
    net.draw, net.tracks = Draw({"conv": Pair(0, 1, torch.tensor([0.5, 0.5]))}, ()), False
    before = {k: t.clone() for k, t in model.state_dict().items()}
    model.train()(torch.randn(4, 2, 6, 6, dtype=torch.float64))
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_without_a_norm_the_filters_are_blended():
    model, net = set_up(False)
    net.draw = Draw({"conv": Pair(0, 1, torch.tensor([0.3, 0.7], dtype=torch.float64))}, ())
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    y = model.conv(x)
    mixed = 0.3 * interpolate(y[:, :2], 4) + 0.7 * y
    wanted = F.conv2d(mixed.relu(), model.head.weight, model.head.bias).mean((2, 3))
    torch.testing.assert_close(model.train()(x), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", [True, False])
def test_blends_in_mixed_precision(norm: bool):
    model, net = set_up(norm)
    model.float().train()
    weights = torch.tensor([0.3, 0.7], requires_grad=True)
    net.draw = Draw({"conv": Pair(0, 1, weights)}, ())
    x = torch.randn(5, 2, 6, 6)
    wanted = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)
    (gradient,) = torch.autograd.grad(found.float().square().sum(), weights)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).all())


def test_depths_of_the_released_code():
    assert [depths(n) for n in (1, 2, 3, 5, 9, 18)] == [
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 3, 5),
        (1, 3, 5, 7, 9),
        (1, 3, 5, 7, 9, 11, 13, 15, 17, 18),
    ]
    graph = sc.trace(models.build("cifar-resnet56"), torch.zeros(1, 3, 32, 32))
    found = stacks(graph)
    assert [(s.name, len(s.blocks), s.fixed, s.counts) for s in found] == [
        ("layer1", 9, 0, (1, 3, 5, 7, 9)),
        ("layer2", 8, 1, (1, 3, 5, 7, 9)),
        ("layer3", 8, 1, (1, 3, 5, 7, 9)),
    ]
    assert found[1].dropped(1) == tuple(f"layer2.{k}" for k in range(3, 9))


def test_what_leaves_a_stack_is_the_weighted_sum():
    model = models.build("digits-resnet").double().eval()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    graph = sc.trace(model, x[:1])
    own = graph.on(copy.deepcopy(model))
    searched = space(graph, RATIOS, widths=False)
    net = Supernet(own, searched)
    seen: dict[str, Tensor] = {}
    for name in ("layer1.0", "layer1.1"):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        model(x)
        # Norms by their statistics, so that both see the same; only the stack's end differs.
        stage = own.model.layer1
        net.depths[0].weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
        entered = F.relu(own.model.bn1(own.model.conv1(x)))
        torch.testing.assert_close(stage(entered), 0.2 * seen["layer1.0"] + 0.8 * seen["layer1.1"])


def test_gradients_go_back_into_a_stack_in_the_order_of_its_maps():
    model = models.build("digits-resnet").to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    graph = sc.trace(model, torch.zeros(1, 1, 8, 8))
    net = Supernet(graph, space(graph, RATIOS, widths=False))
    net.depths[0].weights = torch.tensor([0.2, 0.8], requires_grad=True)
    found: list[bool] = []

    def look(module: nn.Module, args: object, output: Tensor) -> None:
        output.register_hook(lambda g: found.append(g.is_contiguous(memory_format=torch.channels_last)))

    for block in model.layer1:
        block.register_forward_hook(look)
    x = torch.randn(2, 32, 8, 8, requires_grad=True).contiguous(memory_format=torch.channels_last)
    # The gradient of a sum of squares of another layout, as behind a shortcut that pads.
    model.layer1(x).contiguous(memory_format=torch.contiguous_format).square().sum().backward()
    assert found == [True, True]


def test_the_expected_cost_of_a_certain_choice_is_the_actual_one():
    graph = sc.trace(models.build("cifar-resnet20"), torch.zeros(1, 3, 32, 32))
    searched = space(graph, RATIOS)
    for metric in ("macs", "params"):
        costs = Costs(graph, searched, metric)
        for seed in range(4):
            choice = some_choice(searched, seed)
            widths = F.one_hot(torch.tensor(choice.widths), len(RATIOS)).double()
            chances = [F.one_hot(torch.tensor(k), len(s.kept)).double() for k, s in zip(choice.depths, searched.stacks)]
            assert float(costs.expected(widths, chances)) == pytest.approx(costs.actual(choice), rel=1e-12)


def test_the_expected_cost_weighs_a_block_by_the_chance_that_the_depth_reaches_it():
    graph = sc.trace(models.build("cifar-resnet20"), torch.zeros(1, 3, 32, 32))
    searched = space(graph, RATIOS, widths=False)
    costs = Costs(graph, searched, "macs")
    nothing = torch.zeros(0, 0)
    sure = torch.tensor([0.0, 0.0, 1.0])
    found = float(costs.expected(nothing, [torch.tensor([0.2, 0.3, 0.5]), sure, sure]))
    block = 2 * 9 * 16 * 16 * 32 * 32
    assert found == pytest.approx(costs.dense - block * (1 - 0.8) - block * (1 - 0.5))


def test_groups_that_are_left_whole_are_named():
    graph = sc.trace(models.build("timm:vit_tiny_patch16_224"), torch.zeros(1, 3, 224, 224))
    searched = space(graph, RATIOS, spared={"blocks.0.mlp.fc1"})
    assert searched.whole["blocks.0.mlp.fc1"] == "protected"
    assert any("heads" in why for why in searched.whole.values())
    assert decided(searched, searched.most).pairs["blocks.1.mlp.fc1"].single
