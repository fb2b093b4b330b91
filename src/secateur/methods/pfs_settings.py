"""The networks of "Pruning from Scratch" with the paper's gates: where they sit and how they are learned.

Source: Wang et al. 2020 (arXiv 1909.12579) and the released code: a basic block has gates on its first convolution, a
bottleneck on its first two, VGG on all; MobileNet-V1 on the stem and the pointwise convolutions, MobileNet-V2 on the
stem, the expanded widths and the last convolution. The gates of DenseNet-40 were not published: here every group has
them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """How gates are learned on one network; the defaults are the paper's on CIFAR-10, without expansion.

    Attributes:
        model: whose setting it is.
        gated: patterns of group names.
        place, penalty, target, epochs, expand, expand_rest: see :class:`PruningFromScratch`.
    """

    model: str
    gated: tuple[str, ...] = ("*",)
    place: str = "every"
    penalty: float = 0.5
    target: float = 0.2
    epochs: int = 10
    expand: float = 1.0
    expand_rest: float = 1.0


_IMAGENET = {"penalty": 0.05, "target": 0.5, "epochs": 1}
_HIDDEN = tuple(f"features.{k}.conv.0.0" for k in range(2, 18))
SETTINGS: dict[str, Setting] = {
    **{f"resnet{depth}": Setting(f"cifar-resnet{depth}", ("layer?.*.conv1",)) for depth in (20, 56, 110)},
    **{f"vgg{depth}": Setting(f"cifar-vgg{depth}", ("features.*",), expand=1.25) for depth in (16, 19)},
    "densenet40": Setting("cifar-densenet40"),
    "resnet50": Setting("torchvision:resnet50", ("layer?.*.conv1", "layer?.*.conv2"), **_IMAGENET),
    # In both the gate stands in front of a depthwise convolution and its norm.
    "mobilenet-v1": Setting("mobilenet-v1", ("stem.0", "blocks.*.pointwise"), "first", expand=1.25, **_IMAGENET),
    "mobilenet-v2": Setting(
        "torchvision:mobilenet_v2", ("features.0.0", *_HIDDEN, "features.18.0"), "first", expand=1.25, **_IMAGENET
    ),
}
