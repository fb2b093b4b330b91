"""The architectures that TAS released, counted on the built networks."""

from __future__ import annotations

import pytest
import torch

import secateur as sc
from secateur import models
from secateur._errors import UsageError
from secateur.models.released_shapes import RELEASED, RELEASED_IMAGENET
from secateur.models.searched_imagenet import SearchedImageNet
from secateur.models.searched_resnet import SearchedResNet

# What the authors' configurations say of the networks that keep every block, to the digit; theirs of the others counts
# the next stage's input as wide as the last block that was removed.
ESTIMATES = {"tas-resnet20-cifar10": 22.444472, "tas-resnet32-cifar10": 34.945344}
# Millions of MACs, worked out from the width lists by hand.
COUNTED = {
    "tas-resnet20-cifar10": 22.444,
    "tas-resnet32-cifar10": 34.945,
    "tas-resnet56-cifar10": 59.858,
    "tas-resnet110-cifar10": 119.259,
    "tas-resnet32-cifar100": 42.469,
    "tas-resnet56-cifar100": 61.234,
    "tas-resnet110-cifar100": 119.578,
}


def by_formula(name: str) -> int:
    """Sum over the convolutions of ``k^2 h w in out``, from the lists alone."""
    widths, blocks, classes = RELEASED[name]
    n = (len(widths) - 1) // 6
    total, before = 9 * 32 * 32 * 3 * widths[0], widths[0]
    for stage, size in enumerate((32, 16, 8)):
        for k in range(blocks[stage]):
            middle, out = widths[1 + 2 * (stage * n + k) :][:2]
            total += 9 * size * size * (before * middle + middle * out)
            if before != out or (stage and not k):
                total += size * size * before * out
            before = out
    return total + before * classes


@pytest.mark.parametrize("name", RELEASED)
def test_macs_of_the_built_network(name: str):
    cost = sc.trace(models.build(name), torch.zeros(1, 3, 32, 32)).cost()
    assert cost.macs == by_formula(name)
    assert round(cost.macs / 1e6, 3) == COUNTED[name]
    if name in ESTIMATES:
        assert cost.macs / 1e6 == ESTIMATES[name]


def test_a_searched_network_can_be_cut_again():
    model = models.build("tas-resnet20-cifar10").eval()
    x = torch.randn(1, 3, 32, 32)
    graph = sc.trace(model, x)
    plan = sc.plan(graph, sc.score(graph, "l1"), sc.Budget(macs=0.6), round_to=1)
    assert sc.verify(model, plan, x).exact


@pytest.mark.parametrize(
    ("widths", "blocks", "said"),
    [((16, 8), (1, 1, 1), "6n + 1"), ((16,) * 7, (2, 1, 1), "1 blocks"), ((16,) * 7, (1, 1), "three stages")],
)
def test_lists_that_do_not_fit(widths, blocks, said):
    with pytest.raises(UsageError, match=said.replace("+", r"\+")):
        SearchedResNet(widths, blocks)


def imagenet_by_formula(name: str, released: bool = False) -> int:
    """The same for ImageNet; ``released`` counts as the authors' search does, which takes the width of the last removed
    block for what enters the next stage."""
    widths, layers, blocks = RELEASED_IMAGENET[name]
    each = (len(widths) - 1) // sum(layers)
    kernels = (3, 3) if each == 2 else (1, 3, 1)
    total, before, at = 49 * 112 * 112 * 3 * widths[0], widths[0], 1
    for stage, size in enumerate((56, 28, 14, 7)):
        for k in range(layers[stage]):
            own, at = widths[at : at + each], at + each
            if k < blocks[stage]:
                halved = bool(stage) and not k
                chain = (before, *own)
                for j, kernel in enumerate(kernels):
                    # Before the first 3x3 convolution, which has the stride, the map still is twice as large.
                    edge = 2 * size if halved and j < kernels.index(3) else size
                    total += kernel**2 * edge * edge * chain[j] * chain[j + 1]
                if halved or before != own[-1]:
                    total += size * size * before * own[-1]
                before = own[-1]
            elif released:
                before = own[-1]
    return total + before * 1000


@pytest.mark.parametrize(("name", "paper"), [("tas-resnet18-imagenet", 1.21e9), ("tas-resnet50-imagenet", 2.31e9)])
def test_macs_of_the_built_imagenet_networks_are_those_of_the_paper(name: str, paper: float):
    cost = sc.trace(models.build(name), torch.zeros(1, 3, 224, 224)).cost()
    assert cost.macs == imagenet_by_formula(name)
    assert round(cost.macs, -7) == paper


def test_the_released_estimate_for_resnet18_to_the_digit():
    assert imagenet_by_formula("tas-resnet18-imagenet", released=True) / 1e6 == 1120.44032


@pytest.mark.parametrize(
    ("widths", "layers", "blocks", "said"),
    [
        ((16,) * 10, (1, 1, 1, 1), (1, 1, 1, 1), "10 widths are neither"),
        ((16,) * 9, (1, 1, 1, 1), (1, 1, 1, 2), r"blocks=\(1, 1, 1, 2\)"),
        ((16,) * 7, (1, 1, 1), (1, 1, 1), "four stages"),
    ],
)
def test_imagenet_lists_that_do_not_fit(widths, layers, blocks, said):
    with pytest.raises(UsageError, match=said):
        SearchedImageNet(widths, layers, blocks)
