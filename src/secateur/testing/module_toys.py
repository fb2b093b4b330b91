"""Toy models in which the Python around the operations is unusual: parametrised weights, outputs, branches, tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from secateur.testing.toys import Image, Normed, conv_bn


class Reparametrised(Image):
    """Convolutions whose weight is computed from other parameters: weight or spectral norm, as hook or as module."""

    def __init__(self, change: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__(8)
        self.stem, self.last = conv_bn(3, 6), conv_bn(7, 8)
        with warnings.catch_warnings():
            # The hooks of torch.nn.utils are deprecated, and in every second audio model.
            warnings.simplefilter("ignore", FutureWarning)
            self.a = change(nn.Conv2d(6, 7, 3, padding=1))

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.a(self.stem(x).relu()).relu()).relu()


class ShapeDependent(Image):
    """Which way it goes depends on the size of the picture, or on the number of channels."""

    def __init__(self, axis: int, least: int) -> None:
        super().__init__(8)
        self.stem, self.a, self.b, self.last = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 6), conv_bn(6, 8)
        self.axis, self.least = axis, least

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        if x.shape[self.axis] >= self.least:
            x = self.b(self.a(x).relu()) + 0.5
        return self.last(x).relu()


class ScaledByWidth(Image):
    """A factor that is computed from the number of channels."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 8)

    def features(self, x: Tensor) -> Tensor:
        y = self.a(self.stem(x).relu()).relu()
        return self.last(y * y.shape[1] ** -0.5).relu()


@dataclass
class Result:
    """What :class:`DataclassOut` gives back."""

    classes: Tensor
    boxes: Tensor | None = None
    hidden: Tensor | None = None


class DataclassOut(nn.Module):
    """Outputs in a dataclass, one of them missing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.classes, self.boxes = conv_bn(3, 6), conv_bn(6, 7), nn.Linear(7, 5), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Result:
        """(batch, 3, 8, 8) to classes (batch, 5) and boxes (batch, 4)."""
        x = self.a(self.stem(x).relu()).relu().mean((2, 3))
        return Result(self.classes(x), self.boxes(x))


class ParameterLists(Image):
    """Weights and biases in lists of bare parameters."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem = conv_bn(3, 6)
        self.weights = nn.ParameterList([torch.randn(7, 6) / 3, torch.randn(8, 7) / 3])
        self.biases = nn.ParameterDict({"0": torch.randn(7), "1": torch.randn(8)})

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().permute(0, 2, 3, 1)
        for k, weight in enumerate(self.weights):
            x = F.linear(x, weight, self.biases[str(k)]).relu()
        return x.permute(0, 3, 1, 2)


class OwnStatistics(Image):
    """A running mean kept by hand in a buffer as long as there are channels."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), nn.Conv2d(6, 7, 3, padding=1), conv_bn(7, 8)
        self.register_buffer("mean", torch.randn(7))

    def features(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x).relu())
        if self.training:
            self.mean.lerp_(x.detach().mean((0, 2, 3)), 0.1)
        return self.last((x - self.mean.view(1, -1, 1, 1)).relu()).relu()


class PlainTables(Image):
    """Tensors that are neither parameters nor buffers: one for every place, and shifts in a tuple of a dictionary."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), nn.Conv2d(6, 7, 3, padding=1), conv_bn(7, 8)
        self.places = self._waves(6, 8)
        self.more = {"shifts": (torch.randn(7), torch.randn(8))}

    def _waves(self, channels: int, size: int) -> Tensor:
        self.rates = torch.rand(channels, 1, 1)
        return torch.sin(self.rates * torch.arange(size * size).view(size, size))

    def features(self, x: Tensor) -> Tensor:
        x = self.a((self.stem(x) + self.places.to(x)).relu())
        inner, outer = self.more["shifts"]
        return self.last((x - inner.view(1, -1, 1, 1)).relu()).relu() + outer.view(-1, 1, 1)


class Siamese(nn.Module):
    """One trunk for two inputs, compared by their difference and by an angle."""

    def __init__(self, cosine: bool) -> None:
        super().__init__()
        self.stem, self.a, self.cosine = conv_bn(3, 6), conv_bn(6, 7), cosine
        self.head = nn.Linear(1 if cosine else 7, 5)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Twice (batch, 3, 8, 8) to (batch, 5)."""
        a, b = (self.a(self.stem(x).relu()).mean((2, 3)) for x in (left, right))
        return self.head(F.cosine_similarity(a, b, -1).unsqueeze(-1) if self.cosine else (a - b).abs())


class Checkpointed(Image):
    """A block that is computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__(6)
        self.stem, self.reentrant = conv_bn(3, 6), reentrant
        self.block = nn.Sequential(conv_bn(6, 7), nn.ReLU(), conv_bn(7, 6))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = checkpoint(self.block, x, use_reentrant=self.reentrant)
        assert isinstance(y, Tensor)
        return x + y


class StraightThrough(torch.autograd.Function):
    """Rounds to tenths; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 10).round() / 10

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class OwnFunction(Image):
    """An ``autograd.Function`` of one's own in the middle."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x).relu())
        return self.last(StraightThrough.apply(x).tanh()).relu()  # type: ignore[union-attr]


class OwnForward(Image):
    """The forward pass of a layer written out with ``F.conv2d`` and integers from its attributes."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), nn.Conv2d(6, 6, 3, padding=1, groups=6), conv_bn(6, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = F.conv2d(x, self.a.weight, self.a.bias, padding=1, groups=x.shape[1])
        return self.last(x.relu()).relu()


class HyperNetwork(nn.Module):
    """A linear layer computes the weight of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.weight = nn.Parameter(torch.randn(1, 4)), nn.Linear(4, 6 * 3)
        self.last, self.head = conv_bn(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        weight = self.weight(self.code).view(6, 3, 1, 1)
        return self.head(self.last(F.conv2d(x, weight).relu()).relu().mean((2, 3)))


def module_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def image(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make(), torch.randn(1, 3, 8, 8))

    def pair(cosine: bool) -> tuple[nn.Module, Any]:
        return Siamese(cosine), {"left": torch.randn(1, 3, 8, 8), "right": torch.randn(1, 3, 8, 8)}

    found: dict[str, Callable[[], nn.Module]] = {
        "weight_norm_hook": lambda: Reparametrised(nn.utils.weight_norm),
        "weight_norm": lambda: Reparametrised(parametrizations.weight_norm),
        "spectral_norm_hook": lambda: Reparametrised(nn.utils.spectral_norm),
        "spectral_norm": lambda: Reparametrised(parametrizations.spectral_norm),
        "depends_on_size": lambda: ShapeDependent(axis=2, least=8),
        "depends_on_width": lambda: ShapeDependent(axis=1, least=6),
        "depends_on_less": lambda: ShapeDependent(axis=1, least=5),
        "scaled_by_width": ScaledByWidth,
        "dataclass_out": DataclassOut,
        "parameter_list": ParameterLists,
        "own_statistics": OwnStatistics,
        "plain_tables": PlainTables,
        "checkpoint": lambda: Checkpointed(reentrant=False),
        "own_function": OwnFunction,
        "own_forward": OwnForward,
        "hyper_network": HyperNetwork,
        "local_response_norm": lambda: Normed(lambda width: nn.LocalResponseNorm(3)),
    }
    return {
        **{name: image(make) for name, make in found.items()},
        "siamese_difference": lambda: pair(cosine=False),
        "siamese_cosine": lambda: pair(cosine=True),
    }
