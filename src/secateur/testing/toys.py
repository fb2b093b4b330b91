"""Toy models, each the smallest network that shows one way of wiring: the conformance list of the engine.

Every toy takes inputs whose first axis is the batch and gives outputs whose first axis is the batch. Widths are small
and, within a toy, mostly different, so that a mix-up of two axes cannot go unnoticed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.token_toys import token_toys


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **settings: Any) -> nn.Sequential:
    """Convolution that keeps the size, then BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **settings)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Image(nn.Module, ABC):
    """What the image toys share: 3 channels in, features, global pooling, 5 classes out."""

    def __init__(self, features: int):
        super().__init__()
        self.head = nn.Linear(features, 5)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, features, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        return self.head(self.features(x).mean((2, 3)))


class Residual(Image):
    """A stem and one residual block: the stem is tied to the block's output."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.a, self.b = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return (x + self.b(self.a(x).relu())).relu()


class Concat(Image):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__(9)
        self.stem, self.a, self.b, self.last = conv_bn(3, 6), conv_bn(6, 5), conv_bn(6, 7, 1), conv_bn(12, 9)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(torch.cat([self.a(x), self.b(x)], 1).relu())


class ConcatWithItself(Image):
    """A channel that reaches two places of one concat, added to a convolution of both."""

    def __init__(self) -> None:
        super().__init__(12)
        self.stem, self.mix = conv_bn(3, 6), conv_bn(12, 12)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = torch.cat([x, x], 1)
        return x + self.mix(x)


class GatedLinearUnit(Image):
    """``chunk``: one half gates the other, so index i goes with i + 7."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.both = conv_bn(3, 6), conv_bn(6, 14)

    def features(self, x: Tensor) -> Tensor:
        value, gate = self.both(self.stem(x).relu()).chunk(2, 1)
        return value * gate.sigmoid()


class ChannelShuffle(Image):
    """A ShuffleNet unit: halves, one of them through a bottleneck, joined and interleaved."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.reduce, self.expand = conv_bn(3, 8), conv_bn(4, 5, 1), conv_bn(5, 4, 1)
        self.last = conv_bn(8, 8)

    def features(self, x: Tensor) -> Tensor:
        kept, changed = self.stem(x).relu().chunk(2, 1)
        x = torch.cat([kept, self.expand(self.reduce(changed).relu())], 1)
        n, c, h, w = x.shape
        return self.last(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class FlattenLinear(nn.Module):
    """Each channel of a feature map becomes 16 columns of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = conv_bn(3, 6), nn.Linear(6 * 16, 9), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        x = F.max_pool2d(self.conv(x).relu(), 2)
        return self.b(self.a(x.flatten(1)).relu())


class LinearViewDeconvolution(nn.Module):
    """A generator: a linear layer's output viewed as a map whose width the module remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 6
        self.linear, self.norm = nn.Linear(10, 6 * 16), nn.BatchNorm2d(6)
        self.up, self.last = nn.ConvTranspose2d(6, 7, 4, stride=2, padding=1), nn.Conv2d(7, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(batch, 10) to (batch, 3, 8, 8)."""
        x = self.linear(z).view(-1, self.channels, 4, 4)
        return self.last(self.up(self.norm(x).relu()).relu()).tanh()


class SqueezeExcite(Image):
    """Channels scaled by a function of their own means, by linear layers or by 1x1 convolutions."""

    def __init__(self, linear: bool) -> None:
        super().__init__(8)
        self.stem = conv_bn(3, 8)
        self.reduce = nn.Linear(8, 3) if linear else nn.Conv2d(8, 3, 1)
        self.expand = nn.Linear(3, 8) if linear else nn.Conv2d(3, 8, 1)
        self.linear = linear

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        if self.linear:
            n, c, _, _ = x.shape
            pooled = F.adaptive_avg_pool2d(x, 1).view(n, c)
            return x * self.expand(self.reduce(pooled).relu()).sigmoid().view(n, c, 1, 1)
        return x * self.expand(self.reduce(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()


class DepthwiseMultiplier(Image):
    """A depthwise convolution that makes two channels of each."""

    def __init__(self) -> None:
        super().__init__(9)
        self.stem, self.depthwise, self.point = conv_bn(3, 6), conv_bn(6, 12, groups=6), conv_bn(12, 9, 1)

    def features(self, x: Tensor) -> Tensor:
        return self.point(self.depthwise(self.stem(x).relu()).relu())


class GroupedConvolution(Image):
    """A grouped convolution: every block of the input and of the output has to keep as many channels."""

    def __init__(self) -> None:
        super().__init__(10)
        self.stem, self.grouped, self.last = conv_bn(3, 8), conv_bn(8, 12, groups=2), conv_bn(12, 10, 1)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.stem(x).relu()).relu())


class Normed(Image):
    """Any norm over channels between two convolutions."""

    def __init__(self, make_norm: Callable[[int], nn.Module]) -> None:
        super().__init__(7)
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), make_norm(8), nn.Conv2d(8, 7, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)).relu())


class LayerScale(Image):
    """A ConvNeXt block: depthwise convolution, channels last, LayerNorm, MLP, a scale per channel, residual."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.depthwise = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.a, self.b = nn.LayerNorm(6), nn.Linear(6, 11), nn.Linear(11, 6)
        self.gamma = nn.Parameter(torch.full((6, 1, 1), 0.3))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.b(F.gelu(self.a(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return x + self.gamma * y.permute(0, 3, 1, 2)


class BareParameter(Image):
    """A weight that no layer owns, handed to ``F.linear``."""

    def __init__(self) -> None:
        super().__init__(9)
        self.stem = conv_bn(3, 6)
        self.weight, self.bias = nn.Parameter(torch.randn(9, 6) / 3), nn.Parameter(torch.zeros(9))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().permute(0, 2, 3, 1)
        return F.linear(x, self.weight, self.bias).permute(0, 3, 1, 2).relu()


class UsedTwice(Image):
    """One module at two places of the network, which ties its input to its output."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.shared, self.last = conv_bn(3, 6), conv_bn(6, 6), conv_bn(6, 7)

    def features(self, x: Tensor) -> Tensor:
        x = self.shared(self.stem(x).relu()).relu()
        return self.last(self.shared(x).relu())


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip connection joined by concat."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down, self.middle = conv_bn(3, 6), conv_bn(6, 8), conv_bn(8, 9)
        self.up, self.leave = nn.ConvTranspose2d(9, 7, 2, stride=2), conv_bn(13, 5)
        self.out = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 2, 8, 8)."""
        skip = self.enter(x).relu()
        x = self.middle(self.down(F.max_pool2d(skip, 2)).relu()).relu()
        return self.out(self.leave(torch.cat([skip, self.up(x)], 1)).relu())


class InPlace(Image):
    """ReLU, addition and scaling that overwrite their argument."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.a, self.b = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 6)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x), inplace=True)
        y = self.b(self.a(x).relu_())
        y += x
        return y.mul_(0.5).relu_()


class DictInDictOut(nn.Module):
    """Keyword inputs, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.table, self.joint = conv_bn(3, 6), nn.Linear(4, 7), nn.Linear(13, 8)
        self.label, self.value = nn.Linear(8, 5), nn.Linear(8, 1)

    def forward(self, image: Tensor, table: Tensor) -> dict[str, Any]:
        """(batch, 3, 8, 8) and (batch, 4) to ``{"label": (batch, 5), "more": [(batch, 1)]}``."""
        x = torch.cat([self.image(image).relu().mean((2, 3)), self.table(table).relu()], 1)
        x = self.joint(x).relu()
        return {"label": self.label(x), "more": [self.value(x)]}


class DenseBlock(Image):
    """Every layer reads all that came before it."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem = conv_bn(3, 6)
        self.layers = nn.ModuleList(conv_bn(6 + 4 * i, 4) for i in range(3))
        self.transition = conv_bn(18, 8, 1)

    def features(self, x: Tensor) -> Tensor:
        found = [self.stem(x).relu()]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)).relu())
        return self.transition(torch.cat(found, 1)).relu()


class Frozen(Residual):
    """A backbone whose parameters do not require gradients."""

    def __init__(self) -> None:
        super().__init__()
        for module in (self.stem, self.a, self.b):
            module.requires_grad_(False)


class NoGradBranch(Image):
    """A branch under ``no_grad`` and a ``detach``: no autograd graph shows that they are wired."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem, self.a, self.b = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        with torch.no_grad():
            y = self.b(self.a(x).relu())
        return x + y.detach()


class DataDependent(Image):
    """Which branch runs depends on the values of the input, so no trace without values can run."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.a, self.b = conv_bn(3, 6), conv_bn(6, 7), conv_bn(6, 7)

    def features(self, x: Tensor) -> Tensor:
        branch = self.a if x.mean() > 0 else self.b
        return branch(self.stem(x).relu()).relu()


class PreActivation(Image):
    """BatchNorm, ReLU, convolution: the norm reads the residual stream, so a masked channel is not zero behind it."""

    def __init__(self) -> None:
        super().__init__(6)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm_a, self.a = nn.BatchNorm2d(6), nn.Conv2d(6, 7, 3, padding=1)
        self.norm_b, self.b = nn.BatchNorm2d(7), nn.Conv2d(7, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(self.norm_b(self.a(self.norm_a(x).relu())).relu())
        return self.norm(x).relu()


class PixelShuffle(Image):
    """Four channels become the four corners of one, so they go together."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.up, self.last = conv_bn(3, 6), nn.Conv2d(6, 20, 3, padding=1), conv_bn(5, 7)

    def features(self, x: Tensor) -> Tensor:
        return self.last(F.pixel_shuffle(self.up(self.stem(x).relu()), 2).relu())


class ConvolutionsOf(nn.Module):
    """Convolutions over one or three axes."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 3: (nn.Conv3d, nn.BatchNorm3d)}[axes]
        self.a, self.norm, self.b = conv(3, 6, 3, padding=1), norm(6), conv(6, 7, 3, padding=1)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, …) to (batch, 5)."""
        return self.head(self.b(self.norm(self.a(x)).relu()).flatten(2).mean(2))


def image_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def image() -> Tensor:
        return torch.randn(1, 3, 8, 8)

    return {
        "residual": lambda: (Residual(), image()),
        "concat": lambda: (Concat(), image()),
        "concat_with_itself": lambda: (ConcatWithItself(), image()),
        "chunk_glu": lambda: (GatedLinearUnit(), image()),
        "channel_shuffle": lambda: (ChannelShuffle(), image()),
        "flatten_linear": lambda: (FlattenLinear(), image()),
        "linear_view_deconvolution": lambda: (LinearViewDeconvolution(), torch.randn(1, 10)),
        "squeeze_excite_conv": lambda: (SqueezeExcite(linear=False), image()),
        "squeeze_excite_linear": lambda: (SqueezeExcite(linear=True), image()),
        "depthwise_multiplier": lambda: (DepthwiseMultiplier(), image()),
        "grouped_convolution": lambda: (GroupedConvolution(), image()),
        "group_norm": lambda: (Normed(lambda width: nn.GroupNorm(4, width)), image()),
        "group_norm_of_one": lambda: (Normed(lambda width: nn.GroupNorm(1, width)), image()),
        "instance_norm": lambda: (Normed(lambda width: nn.InstanceNorm2d(width, affine=True)), image()),
        "prelu": lambda: (Normed(nn.PReLU), image()),
        "layer_scale": lambda: (LayerScale(), image()),
        "bare_parameter": lambda: (BareParameter(), image()),
        "used_twice": lambda: (UsedTwice(), image()),
        "unet": lambda: (UNet(), image()),
        "in_place": lambda: (InPlace(), image()),
        "dict_in_dict_out": lambda: (DictInDictOut(), {"image": image(), "table": torch.randn(1, 4)}),
        "dense_block": lambda: (DenseBlock(), image()),
        "frozen": lambda: (Frozen(), image()),
        "no_grad_branch": lambda: (NoGradBranch(), image()),
        "data_dependent": lambda: (DataDependent(), image().abs()),
        "pre_activation": lambda: (PreActivation(), image()),
        "pixel_shuffle": lambda: (PixelShuffle(), image()),
        "conv1d": lambda: (ConvolutionsOf(1), torch.randn(1, 3, 12)),
        "conv3d": lambda: (ConvolutionsOf(3), torch.randn(1, 3, 4, 4, 4)),
    }


def toys() -> dict[str, tuple[nn.Module, Any]]:
    """The common kinds of wiring by name, with example inputs of batch 1 (a tensor, or a dict of keyword arguments).

    :func:`secateur.testing.patterns.patterns` has the rarer kinds as well.
    """
    return {name: make() for name, make in {**image_toys(), **token_toys()}.items()}
