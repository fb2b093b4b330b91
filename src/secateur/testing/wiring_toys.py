"""Toy models over images whose channels are split, sliced, shuffled, reshaped or written into one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.toys import Image, conv_bn


class UnevenSplit(Image):
    """``torch.split`` into pieces of different sizes, each with a convolution of its own, joined again."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.b, self.last = conv_bn(3, 12), conv_bn(3, 5), conv_bn(9, 7), conv_bn(12, 8)

    def pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        """The two pieces, by sizes that stand in the code."""
        return torch.split(x, [3, 9], 1)

    def features(self, x: Tensor) -> Tensor:
        a, b = self.pieces(self.stem(x).relu())
        return self.last(torch.cat([self.a(a), self.b(b)], 1).relu()).relu()


class UnevenSplitAttribute(UnevenSplit):
    """The same with the sizes in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [3, 9]

    def pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(x, self.sizes, 1)


class SliceLiteral(UnevenSplit):
    """The same with slices at a number that stands in the code."""

    def pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        return x[:, :3], x[:, 3:]


class SliceAttribute(UnevenSplit):
    """The same with slices at a number in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.border = 3

    def pieces(self, x: Tensor) -> tuple[Tensor, ...]:
        return x[:, : self.border], x[:, self.border :]


class SliceHalves(Image):
    """Slices at half of the width that the tensor has, as GhostNet and many others do."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 12), conv_bn(6, 6), conv_bn(6, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        half = x.shape[1] // 2
        return self.last(x[:, :half] + self.a(x[:, half:]).sigmoid()).relu()


class SliceStrided(Image):
    """Every second channel."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 12), conv_bn(6, 6), conv_bn(6, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(x[:, ::2] + self.a(x[:, 1::2]).sigmoid()).relu()


class ListOfSlices(Image):
    """A C2f block (YOLOv8): two halves, then branches each fed by the last, all of them joined."""

    def __init__(self) -> None:
        super().__init__(9)
        self.stem, self.enter, self.leave = conv_bn(3, 6), conv_bn(6, 8, 1), conv_bn(16, 9, 1)
        self.branches = nn.ModuleList(nn.Sequential(conv_bn(4, 5), nn.ReLU(), conv_bn(5, 4)) for _ in range(2))

    def features(self, x: Tensor) -> Tensor:
        found = list(self.enter(self.stem(x).relu()).relu().chunk(2, 1))
        for branch in self.branches:
            found.append(found[-1] + branch(found[-1]).relu())
        return self.leave(torch.cat(found, 1)).relu()


class ShuffleBetween(Image):
    """``nn.ChannelShuffle`` between grouped convolutions (ShuffleNet) or dense ones."""

    def __init__(self, groups: int) -> None:
        super().__init__(7)
        self.stem, self.a, self.b = conv_bn(3, 8), conv_bn(8, 12, groups=groups), conv_bn(12, 8, groups=groups)
        self.shuffle, self.last = nn.ChannelShuffle(2), conv_bn(8, 7)

    def features(self, x: Tensor) -> Tensor:
        x = self.shuffle(self.a(self.stem(x).relu()).relu())
        return self.last(self.b(x).relu()).relu()


class ShuffleSquare(Image):
    """Two branches joined and interleaved in as many groups as a group has channels."""

    def __init__(self) -> None:
        super().__init__(16)
        self.groups, self.a, self.b = 4, conv_bn(3, 6), conv_bn(3, 10)

    def features(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x), self.b(x)], 1).relu()
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class PixelUnshuffle(Image):
    """Four corners become four channels."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.down, self.last = conv_bn(3, 6), nn.PixelUnshuffle(2), conv_bn(24, 7)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.down(self.stem(x).relu())).relu()


class GroupedDeconvolution(Image):
    """A transposed convolution with two groups."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.last = conv_bn(3, 8), conv_bn(12, 7)
        self.up = nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.stem(x).relu()).relu()).relu()


class StaticShape(Image):
    """A shape that was written down at construction, used in a ``view``."""

    def __init__(self) -> None:
        super().__init__(7)
        self.shape = (6, 4, 4)
        self.stem, self.last = conv_bn(3, 8), conv_bn(6, 7)
        self.mix = nn.Linear(8 * 16, 6 * 16)

    def features(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.stem(x).relu(), 2).flatten(1)
        return self.last(self.mix(x).view(-1, *self.shape).relu()).relu()


class WriteIntoSlice(Image):
    """A map of zeros into which two branches are written."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.b, self.last = conv_bn(3, 6), conv_bn(6, 5), conv_bn(6, 7), conv_bn(12, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = x.new_zeros(x.shape[0], 12, *x.shape[2:])
        y[:, :5] = self.a(x)
        y[:, 5:] = self.b(x)
        return self.last(y.relu()).relu()


class PartialWrite(Image):
    """The first channels are overwritten by a function of themselves (partial convolution of FasterNet)."""

    def __init__(self) -> None:
        super().__init__(8)
        self.part = 4
        self.stem, self.a, self.last = conv_bn(3, 12), conv_bn(4, 4), conv_bn(12, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().clone()
        x[:, : self.part] = self.a(x[:, : self.part].clone())
        return self.last(x).relu()


class RepeatInterleave(Image):
    """Every channel twice, side by side, against a convolution with as many."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.wide, self.last = conv_bn(3, 6), conv_bn(6, 12), conv_bn(12, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.last(self.wide(x).relu() * x.repeat_interleave(2, 1)).relu()


class ConstantGather(Image):
    """Channels reordered by a constant index."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), conv_bn(6, 7), conv_bn(7, 8)
        self.register_buffer("order", torch.tensor([3, 0, 5, 1, 4, 2]))

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.a(self.stem(x).relu()[:, self.order]).relu()).relu()


class Maxout(Image):
    """The larger of two channels, by ``max`` or ``amax`` over a reshaped axis."""

    def __init__(self, values: Callable[[Tensor], Tensor]) -> None:
        super().__init__(8)
        self.stem, self.both, self.last, self.values = conv_bn(3, 6), conv_bn(6, 14), conv_bn(7, 8), values

    def features(self, x: Tensor) -> Tensor:
        x = self.both(self.stem(x).relu())
        n, c, h, w = x.shape
        return self.last(self.values(x.view(n, c // 2, 2, h, w))).relu()


class PooledChannels(Image):
    """Adaptive pooling over the channel axis: which channels are neighbours matters."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.a, self.last = conv_bn(3, 6), conv_bn(6, 12), conv_bn(4, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x).relu())
        n, _, h, w = x.shape
        x = F.adaptive_avg_pool1d(x.flatten(2).transpose(1, 2), 4)
        return self.last(x.transpose(1, 2).reshape(n, 4, h, w)).relu()


class UnfoldPatches(nn.Module):
    """im2col over a hidden map: a channel becomes four columns of a linear layer, and back by col2im."""

    def __init__(self, fold: bool) -> None:
        super().__init__()
        self.stem, self.patch, self.fold = conv_bn(3, 6), nn.Linear(24, 9), fold
        self.back, self.last, self.head = nn.Linear(9, 28), nn.Conv2d(7, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        x = F.unfold(self.stem(x).relu(), 2, stride=2).transpose(1, 2)
        x = self.back(self.patch(x).relu())
        if self.fold:
            x = F.fold(x.transpose(1, 2), (8, 8), 2, stride=2)
        else:
            x = x.view(x.shape[0], 4, 4, -1, 4).permute(0, 3, 1, 2, 4).flatten(3)
        return self.head(self.last(x).relu().mean((2, 3)))


class GLUModule(Image):
    """``F.glu``, and the same gate behind a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__(7)
        self.stem, self.both, self.depthwise = conv_bn(3, 6), conv_bn(6, 14), conv_bn(14, 14, groups=14)

    def features(self, x: Tensor) -> Tensor:
        return F.glu(self.depthwise(self.both(self.stem(x).relu())), 1)


class SpatialGate(Image):
    """Every position scaled by a convolution with one output, over the mean and the largest channel (CBAM)."""

    def __init__(self, largest: Callable[[Tensor], Tensor]) -> None:
        super().__init__(8)
        self.stem, self.gate, self.last = conv_bn(3, 6), nn.Conv2d(2, 1, 3, padding=1), conv_bn(6, 8)
        self.mask, self.largest = nn.Conv2d(6, 1, 1), largest

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x * self.gate(torch.cat([x.mean(1, keepdim=True), self.largest(x)], 1)).sigmoid()
        return self.last(x * self.mask(x).sigmoid()).relu()


class Pyramid(nn.Module):
    """A feature pyramid: laterals added to what comes from above, and one head for every level."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.top = conv_bn(3, 6), conv_bn(6, 8), conv_bn(8, 9)
        self.laterals = nn.ModuleList(nn.Conv2d(width, 7, 1) for width in (6, 8, 9))
        self.tower, self.out = conv_bn(7, 7), nn.Conv2d(7, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(batch, 3, 8, 8) to three maps of 4 channels."""
        low = self.low(x).relu()
        high = self.high(F.max_pool2d(low, 2)).relu()
        levels = [low, high, self.top(F.max_pool2d(high, 2)).relu()]
        found, above = [], None
        for lateral, level in zip(reversed(self.laterals), reversed(levels)):
            level = lateral(level)
            above = level if above is None else level + F.interpolate(above, scale_factor=2, mode="nearest")
            found.append(self.out(self.tower(above).relu()))
        return found


def wiring_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def image(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make(), torch.randn(1, 3, 8, 8))

    found: dict[str, Callable[[], nn.Module]] = {
        "split_literal": UnevenSplit,
        "split_attribute": UnevenSplitAttribute,
        "slice_literal": SliceLiteral,
        "slice_attribute": SliceAttribute,
        "slice_halves": SliceHalves,
        "slice_strided": SliceStrided,
        "c2f": ListOfSlices,
        "shuffle_grouped": lambda: ShuffleBetween(2),
        "shuffle_dense": lambda: ShuffleBetween(1),
        "shuffle_square": ShuffleSquare,
        "pixel_unshuffle": PixelUnshuffle,
        "grouped_deconvolution": GroupedDeconvolution,
        "static_shape": StaticShape,
        "write_into_slice": WriteIntoSlice,
        "partial_write": PartialWrite,
        "repeat_interleave": RepeatInterleave,
        "constant_gather": ConstantGather,
        "maxout_amax": lambda: Maxout(lambda x: x.amax(2)),
        "maxout_max": lambda: Maxout(lambda x: x.max(2).values),
        "pooled_channels": PooledChannels,
        "unfold": lambda: UnfoldPatches(fold=False),
        "unfold_fold": lambda: UnfoldPatches(fold=True),
        "glu_module": GLUModule,
        "spatial_gate": lambda: SpatialGate(lambda x: x.amax(1, keepdim=True)),
        "spatial_gate_max": lambda: SpatialGate(lambda x: torch.max(x, 1, keepdim=True)[0]),
        "pyramid": Pyramid,
    }
    return {name: image(make) for name, make in found.items()}
