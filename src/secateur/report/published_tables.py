"""The published rows of "Rethinking the Value of Network Pruning" as data.

Sources: Liu, Sun, Zhou, Huang, Darrell, ICLR 2019 (arXiv 1810.05270), its lists of released models, and the README of
Liu et al.'s network-slimming. A figure is *verified* where it was read in the authors' repository. The others (all
tables of CIFAR with mean and deviation) are as remembered: their order of magnitude is dependable and their last digit
is not, so they are shown without it and without deviation, and nothing may be asserted on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.card import Card

REMEMBERED = "as remembered, not verified"
_LIST = "authors' list of released models, which differs from the paper by up to 0.1 in places"
_README = "README of the network-slimming repository"


@dataclass(frozen=True)
class Published:
    """A figure in per cent; ``verified`` says whether it was read at the source."""

    value: float
    verified: bool

    def text(self) -> str:
        if self.verified:
            return f"{self.value:.2f}\u00a0%"
        return f"about {self.value:.1f}\u00a0% ({REMEMBERED})"


@dataclass(frozen=True)
class Protocol:
    """How the paper trained; None where that is not known here.

    Attributes:
        base: settings of the dense training and of both scratch recoveries, by the names of a card.
        finetune: settings of the fine-tuning that differ from them.
        base_epochs, finetune_epochs, seeds: numbers.
        cap: scratch-B takes at most this many times the base epochs.
    """

    base: Mapping[str, Any]
    finetune: Mapping[str, Any]
    base_epochs: int | None
    finetune_epochs: int | None
    seeds: int
    cap: float | None = None

    def epochs(self, recovery: str, card: Card) -> int | None:
        """What the paper's rule gives for the network of the card."""
        if recovery == "finetune":
            return self.finetune_epochs
        if self.base_epochs is None or recovery not in ("scratch-e", "scratch-b"):
            return None
        if recovery == "scratch-e":
            return self.base_epochs
        longer = self.base_epochs * card.dense.macs // max(card.pruned.macs, 1)
        return longer if self.cap is None else min(longer, math.floor(self.base_epochs * self.cap))


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
        method, model, data: as a card calls them.
        remains: in the paper, in words.
        budget: the same as a card says it.
        equivalent: whether ``budget`` asks for the same as the paper and not only for as many parameters.
        source: where the figures stand.
        protocol: how they came about.
        figures: by recovery; ``dense`` is the unpruned network.
        differs: what is different in every run here.
    """

    method: str
    model: str
    data: str
    remains: str
    budget: Mapping[str, Any]
    source: str
    protocol: Protocol
    figures: Mapping[str, Published]
    equivalent: bool = True
    differs: tuple[str, ...] = ()

    @property
    def read(self) -> bool:
        """Whether figures of it were read at the source."""
        return self.source != REMEMBERED


_SGD = {"optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "schedule": "step",
        "gamma": 0.1, "warmup_epochs": 0, "label_smoothing": 0.0, "mixed_precision": "no"}  # fmt: skip
_TUNE = {"lr": 0.001, "schedule": "constant"}
_CIFAR = Protocol({**_SGD, "milestones": (0.5, 0.75), "batch_size": 64}, _TUNE, 160, 40, seeds=5)
_SLIMMING_REPO = Protocol({}, {}, None, 160, seeds=1)
_SCALED = {"cifar10": ("images are scaled by ImageNet's mean and deviation, the paper's by CIFAR's",)}
_STREAM = "the stream itself is cut, the paper selects channels in front of each block"
_WAYS = ("finetune", "scratch-e", "scratch-b")


def _imagenet(finetune_epochs: int) -> Protocol:
    base = {**_SGD, "milestones": (1 / 3, 2 / 3), "batch_size": 256}
    return Protocol(base, {"lr": 0.001}, 90, finetune_epochs, seeds=1, cap=2.0)


def _remembered(values: Sequence[float], dense: float) -> dict[str, Published]:
    return {k: Published(v, False) for k, v in zip(("dense", *_WAYS), (dense, *values), strict=True)}


def _read(values: tuple[float, ...], dense: float) -> dict[str, Published]:
    return {"dense": Published(dense, False), **{k: Published(v, True) for k, v in zip(_WAYS, values, strict=True)}}


def _channels(gone: int) -> str:
    return f"{100 - gone} % of the channels"


def _weights(gone: float) -> str:
    return f"{100 - gone:g} % of the weights of the convolutions"


def _l1(name: str, model: str, dense: float, *values: float) -> Row:
    figures = _remembered(values, dense)
    return Row(
        "l1",
        model,
        "cifar10",
        f"preset {name}",
        {"preset": name},
        REMEMBERED,
        _CIFAR,
        figures,
        differs=_SCALED["cifar10"],
    )


def _l1_imagenet(name: str, *values: float) -> Row:
    return Row("l1", "torchvision:resnet34", "imagenet", f"preset {name}", {"preset": name}, _LIST, _imagenet(20),
               _read(values, 73.31))  # fmt: skip


def _slim(data: str, model: str, percent: int, budget: float, dense: float, *values: float) -> Row:
    differs = _SCALED.get(data, ()) + ((_STREAM,) if "vgg" not in model else ())
    return Row("slimming", model, data, _channels(percent), {"params": budget}, REMEMBERED, _CIFAR,
               _remembered(values, dense), equivalent=False, differs=differs)  # fmt: skip


def _slim_repo(data: str, model: str, percent: int, budget: float, dense: float, **figures: float) -> Row:
    read = {"dense": dense, **figures}
    differs = _SCALED.get(data, ()) + ((_STREAM,) if "vgg" not in model else ())
    return Row("slimming", model, data, _channels(percent), {"params": budget}, _README, _SLIMMING_REPO,
               {k: Published(v, True) for k, v in read.items()}, equivalent=False, differs=differs)  # fmt: skip


def _masked(data: str, model: str, dense: float, *rows: tuple[float, float, float, float]) -> list[Row]:
    return [
        Row("magnitude", model, data, _weights(gone), {"weights": round(1 - gone / 100, 4)},
            REMEMBERED, _CIFAR, _remembered(values, dense), differs=_SCALED.get(data, ()))
        for gone, *values in rows
    ]  # fmt: skip


def _masked_imagenet(model: str, dense: float, *rows: tuple[float, float, float, float]) -> list[Row]:
    return [
        Row("magnitude", model, "imagenet", _weights(gone),
            {"weights": round(1 - gone / 100, 4)}, _LIST, _imagenet(10), _read((a, b, c), dense))
        for gone, a, b, c in rows
    ]  # fmt: skip


ROWS: tuple[Row, ...] = (
    _l1("vgg16-A", "cifar-vgg16", 93.63, 93.41, 93.62, 93.78),
    _l1("resnet56-A", "cifar-resnet56", 93.14, 92.97, 92.96, 93.09),
    _l1("resnet56-B", "cifar-resnet56", 93.14, 92.67, 92.54, 93.05),
    _l1("resnet110-A", "cifar-resnet110", 93.14, 93.14, 93.25, 93.22),
    _l1("resnet110-B", "cifar-resnet110", 93.14, 92.69, 92.89, 93.60),
    _l1_imagenet("resnet34-A", 72.56, 72.77, 73.08),
    _l1_imagenet("resnet34-B", 72.29, 72.55, 72.84),
    _slim("cifar10", "cifar-vgg19", 70, 2.25e6, 93.53, 93.60, 93.30, 93.81),
    _slim("cifar10", "cifar-preresnet164", 40, 1.45e6, 95.04, 94.77, 94.70, 94.90),
    _slim("cifar10", "cifar-preresnet164", 60, 1.12e6, 95.04, 94.23, 94.58, 94.71),
    _slim("cifar10", "cifar-densenet40", 40, 0.69e6, 94.10, 94.00, 93.68, 94.06),
    _slim("cifar10", "cifar-densenet40", 60, 0.49e6, 94.10, 93.87, 93.58, 93.85),
    _slim("cifar100", "cifar-vgg19", 50, 4.93e6, 72.63, 72.32, 71.94, 73.08),
    _slim("cifar100", "cifar-preresnet164", 40, 0.85, 76.80, 76.22, 76.36, 76.68),
    _slim("cifar100", "cifar-preresnet164", 60, 0.65, 76.80, 74.17, 75.05, 75.73),
    _slim("cifar100", "cifar-densenet40", 40, 0.65, 73.82, 73.35, 73.24, 73.19),
    _slim("cifar100", "cifar-densenet40", 60, 0.46, 73.82, 72.46, 72.62, 72.91),
    Row("slimming", "torchvision:vgg11_bn", "imagenet", _channels(50), {"macs": 0.5}, _LIST, _imagenet(5),
        _read((68.62, 70.00, 71.18), 70.84), equivalent=False),
    _slim_repo("cifar10", "cifar-vgg19", 70, 2.25e6, 93.77, none=32.54, finetune=93.78),
    _slim_repo("cifar10", "cifar-preresnet164", 40, 1.45e6, 94.75, none=94.58, finetune=95.05),
    _slim_repo("cifar10", "cifar-preresnet164", 60, 1.12e6, 94.75, none=47.73, finetune=93.81),
    _slim_repo("cifar10", "cifar-densenet40", 40, 0.69e6, 94.11, finetune=94.32),
    _slim_repo("cifar10", "cifar-densenet40", 60, 0.49e6, 94.11, finetune=94.22),
    _slim_repo("cifar100", "cifar-vgg19", 50, 4.93e6, 72.12, none=5.31, finetune=73.32),
    _slim_repo("cifar100", "cifar-preresnet164", 40, 0.85, 76.79, finetune=77.36),
    _slim_repo("cifar100", "cifar-densenet40", 40, 0.65, 73.27, finetune=73.76),
    _slim_repo("cifar100", "cifar-densenet40", 60, 0.46, 73.27, finetune=73.19),
    *_masked("cifar10", "cifar-vgg19", 93.50, (30, 93.51, 93.71, 93.31), (80, 93.52, 93.71, 93.64),
             (95, 93.34, 93.21, 93.63)),
    *_masked("cifar10", "cifar-preresnet110", 95.04, (30, 95.06, 94.84, 95.11), (80, 94.55, 93.76, 94.52),
             (95, 92.35, 91.23, 91.55)),
    *_masked("cifar10", "cifar-densenet-bc100", 95.24, (30, 95.21, 95.22, 95.23), (80, 95.04, 94.42, 95.12),
             (95, 94.19, 92.91, 93.44)),
    *_masked("cifar100", "cifar-vgg19", 71.70, (30, 71.96, 72.81, 73.30), (50, 71.85, 73.12, 73.77),
             (95, 70.22, 70.88, 72.08)),
    *_masked("cifar100", "cifar-preresnet110", 76.96, (30, 76.88, 76.36, 76.96), (50, 76.60, 75.45, 76.42),
             (95, 68.55, 68.13, 68.99)),
    *_masked("cifar100", "cifar-densenet-bc100", 77.59, (30, 77.23, 77.58, 77.97), (50, 77.41, 77.65, 77.80),
             (95, 73.67, 71.47, 72.57)),
    *_masked_imagenet("torchvision:vgg16_bn", 73.37, (30, 73.68, 72.75, 74.02), (60, 73.63, 71.50, 73.42)),
    *_masked_imagenet("torchvision:resnet50", 76.15, (30, 76.06, 74.77, 75.60), (60, 76.09, 73.69, 74.90)),
)  # fmt: skip
