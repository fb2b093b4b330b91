"""What the parts of random networks have in common: how they draw, and how they say that a tensor does not fit."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Unfit(Exception):
    """The part has no use for a tensor of this shape."""


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Draw:
    """Random choices of a part."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def width(self, multiple: int = 1) -> int:
        """A width from 2 to about 12, divisible by ``multiple``."""
        return multiple * self.random.randint(2, max(3, 12 // multiple))

    def one_of(self, *choices: T) -> T:
        """One of the choices."""
        return self.random.choice(choices)

    def chance(self, probability: float) -> bool:
        """True as often as that."""
        return self.random.random() < probability

    def geometric(self, stop: float) -> int:
        """0 with probability ``stop``, and so on."""
        count = 0
        while not self.chance(stop):
            count += 1
        return count

    def divisor(self, *widths: int) -> int:
        """A number greater than one that divides all widths.

        Raises:
            Unfit: there is none.
        """
        found = [k for k in range(2, min(widths) + 1) if all(w % k == 0 for w in widths)]
        if not found:
            raise Unfit
        return self.one_of(*found)

    def border(self, width: int) -> int:
        """Where to cut an axis into two pieces.

        Raises:
            Unfit: it is too short.
        """
        if width < 2:
            raise Unfit
        return self.random.randint(1, width - 1)

    def activation(self, width: int) -> nn.Module:
        """A function of every number; some are not zero at zero, one has a parameter for every channel."""
        return self.one_of(
            nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Hardswish(), nn.Identity()
        )

    def image_norm(self, width: int) -> nn.Module:
        """A norm over (batch, width, height, width), or none."""
        groups = [k for k in range(1, width + 1) if width % k == 0]
        return self.one_of(
            nn.BatchNorm2d(width),
            nn.BatchNorm2d(width),
            nn.GroupNorm(self.one_of(*groups), width),
            nn.InstanceNorm2d(width, affine=True),
            ChannelNorm(width),
            nn.Identity(),
        )

    def token_norm(self, width: int) -> nn.Module:
        """A norm over (batch, tokens, width), or none."""
        return self.one_of(nn.LayerNorm(width), nn.LayerNorm(width), nn.RMSNorm(width), nn.Identity())

    def conv(self, inputs: int, outputs: int, groups: int = 1, stride: int = 1) -> nn.Sequential:
        """Convolution, norm and activation that keep the size, or halve it."""
        kernel = self.one_of(1, 3)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=self.chance(0.5))
        act = nn.PReLU(outputs) if self.chance(0.1) else self.activation(outputs)
        return nn.Sequential(conv, self.image_norm(outputs), act)

    def linear(self, inputs: int, outputs: int) -> nn.Sequential:
        """Linear layer and activation."""
        return nn.Sequential(nn.Linear(inputs, outputs, bias=self.chance(0.7)), self.activation(outputs))


class Part(nn.Module):
    """A part draws itself for the tensors that it will read.

    Attributes:
        arity: how many tensors it may read.
        dims: how many axes they have.

    Raises:
        Unfit: it has no use for them.
    """

    arity: tuple[int, ...] = (1,)
    dims = 0

    def __init__(self, draw: Draw, *tensors: Tensor) -> None:
        super().__init__()
        if any(t.dim() != self.dims for t in tensors):
            raise Unfit
        self.draw_for(draw, *tensors)

    def draw_for(self, *args: Any, **settings: Any) -> None:
        """Make the layers, given a :class:`Draw` and the tensors."""


def scale(width: int) -> nn.Parameter:
    """One positive number for every channel."""
    return nn.Parameter(torch.rand(width) + 0.5)
