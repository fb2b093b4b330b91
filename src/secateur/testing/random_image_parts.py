"""Parts of random networks that read images (batch, channels, height, width)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.random_parts import Draw, Part, Unfit, scale


class ImagePart(Part):
    dims = 4


class Plain(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.conv = draw.conv(x.shape[1], draw.width(), stride=2 if x.shape[2] > 4 and draw.chance(0.3) else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Residual(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width = draw.width()
        self.a, self.b = draw.conv(x.shape[1], width), draw.conv(width, x.shape[1])
        self.pre, self.in_place = draw.image_norm(x.shape[1]), draw.chance(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(self.pre(x)))
        if self.in_place:
            y += x
            return y.mul_(0.7)
        return x + y


class Depthwise(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width = x.shape[1]
        self.filter = draw.conv(width, width * draw.one_of(1, 1, 2), groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(x)


class Grouped(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        groups = draw.divisor(x.shape[1])
        self.conv = draw.conv(x.shape[1], groups * draw.one_of(1, 2, 3), groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Concat(ImagePart):
    arity = (2, 3)

    def draw_for(self, draw: Draw, *tensors: Tensor) -> None:
        if sum(t.shape[1] for t in tensors) > 40:
            raise Unfit
        self.size = min(t.shape[2] for t in tensors)

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(t, self.size) for t in tensors], 1)


class Add(ImagePart):
    arity = (2,)

    def draw_for(self, draw: Draw, x: Tensor, y: Tensor) -> None:
        same = x.shape[1] == y.shape[1] and draw.chance(0.7)
        self.size = min(x.shape[2], y.shape[2])
        self.project = nn.Identity() if same else nn.Conv2d(y.shape[1], x.shape[1], 1)
        self.product = draw.chance(0.2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = F.adaptive_max_pool2d(x, self.size), F.adaptive_avg_pool2d(self.project(y), self.size)
        return x * y if self.product else x + y


class ChunkGate(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.both, self.glu = draw.conv(x.shape[1], draw.width(2)), draw.chance(0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.glu:
            return F.glu(self.both(x), 1)
        value, gate = self.both(x).chunk(2, 1)
        return value * gate.sigmoid()


class Split(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        a, b, c = draw.width(), draw.width(), draw.width()
        self.sizes = [a, b, c]
        self.both, self.middle = draw.conv(x.shape[1], a + b + c), draw.conv(b, a)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.both(x).split(self.sizes, 1)
        return torch.cat([c, a + self.middle(b)], 1)


class Slices(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.border = draw.border(x.shape[1])
        self.a, self.swap = draw.conv(x.shape[1] - self.border, draw.width()), draw.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        pieces = [x[:, : self.border], self.a(x[:, self.border :])]
        return torch.cat(pieces[::-1] if self.swap else pieces, 1)


class Branches(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        half = draw.one_of(2, 3, 4)
        self.enter = draw.conv(x.shape[1], 2 * half)
        self.branches = nn.ModuleList(draw.conv(half, half) for _ in range(draw.one_of(1, 2)))
        self.leave, self.add = draw.conv(half * (2 + len(self.branches)), draw.width()), draw.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        found = list(self.enter(x).chunk(2, 1))
        for branch in self.branches:
            found.append(found[-1] + branch(found[-1]) if self.add else branch(found[-1]))
        return self.leave(torch.cat(found, 1))


class SqueezeExcite(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width, hidden = x.shape[1], draw.width()
        self.linear = draw.chance(0.5)
        self.a = nn.Linear(width, hidden) if self.linear else nn.Conv2d(width, hidden, 1)
        self.b = nn.Linear(hidden, width) if self.linear else nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        gate = self.b(self.a(pooled).relu()).sigmoid()
        return x * (gate[:, :, None, None] if self.linear else gate)


class Shuffle(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.groups = draw.divisor(x.shape[1])
        self.module = nn.ChannelShuffle(self.groups) if draw.chance(0.3) else None

    def forward(self, x: Tensor) -> Tensor:
        if self.module is not None:
            return self.module(x)
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class PixelShuffle(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.up = x.shape[2] <= 4
        if not self.up and (x.shape[1] > 6 or x.shape[2] % 2):
            raise Unfit
        self.conv = nn.Conv2d(x.shape[1], 4 * draw.one_of(2, 3), 1) if self.up else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2) if self.up else F.pixel_unshuffle(x, 2)


class Deconvolution(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        if x.shape[2] > 4:
            raise Unfit
        groups = draw.divisor(x.shape[1]) if draw.chance(0.4) else 1
        width = groups * draw.one_of(1, 2, 3)
        self.up, self.norm = nn.ConvTranspose2d(x.shape[1], width, 2, 2, groups=groups), draw.image_norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(x)).relu()


class Resample(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        small = x.shape[2] <= 4
        up = [nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReflectionPad2d(1)]
        self.change = draw.one_of(*(up if small else [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(3)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


class Twice(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.shared = draw.conv(x.shape[1], x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.shared(x).relu())


class ConvNeXt(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width, hidden = x.shape[1], draw.width()
        self.filter = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm, self.a, self.b = draw.token_norm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gamma = scale(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.gelu(self.a(self.norm(self.filter(x).permute(0, 2, 3, 1)))))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class DenseBlock(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        grow, width = draw.one_of(2, 3), x.shape[1]
        self.layers = nn.ModuleList(
            nn.Sequential(draw.image_norm(width + grow * k), draw.conv(width + grow * k, grow)) for k in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return torch.cat(found, 1)


class Doubled(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        if x.shape[1] > 12:
            raise Unfit
        self.how, self.mix = draw.one_of("cat", "interleave", "repeat"), draw.conv(x.shape[1], 2 * x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "cat":
            y = torch.cat([x, x], 1)
        elif self.how == "repeat":
            y = x.repeat(1, 2, 1, 1)
        else:
            y = x.repeat_interleave(2, 1)
        return y + self.mix(x)


class SpatialGate(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class Maxout(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.pieces = draw.one_of(2, 3)
        self.conv = nn.Conv2d(x.shape[1], self.pieces * draw.one_of(2, 3), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x.view(x.shape[0], -1, self.pieces, *x.shape[2:]).amax(2)


class NonLocal(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width = draw.width()
        self.q, self.k = nn.Conv2d(x.shape[1], width, 1), nn.Conv2d(x.shape[1], width, 1)
        self.v = nn.Conv2d(x.shape[1], x.shape[1], 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x).flatten(2), self.k(x).flatten(2), self.v(x).flatten(2)
        return x + (v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)).view(x.shape)


class FlattenView(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.shape = (draw.width(), 3, 3)
        self.small, hidden = F.adaptive_avg_pool2d(x, 2).shape[2], draw.width()
        self.a, self.b = nn.Linear(x.shape[1] * 4, hidden), nn.Linear(hidden, self.shape[0] * 9)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(F.adaptive_avg_pool2d(x, self.small).flatten(1)).relu())
        return y.view(-1, *self.shape)


class Write(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.part = draw.border(x.shape[1])
        self.conv = draw.conv(self.part, self.part)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, : self.part] = self.conv(x[:, : self.part].clone())
        return x


class Moved(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.how = draw.one_of("flip", "channels", "roll", "pad", "swap")

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "flip":
            return x.flip(3)
        if self.how == "channels":
            return x.flip(1)
        if self.how == "roll":
            return x.roll((1, 2), (2, 3))
        return F.pad(x, (1, 0, 0, 1)) if self.how == "pad" else x.transpose(2, 3) + 0.3


class ToTokens(ImagePart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.patch = 2 if x.shape[2] % 2 == 0 and x.shape[1] <= 8 and draw.chance(0.4) else 1

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        p = self.patch
        x = x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(n, (h // p) * (w // p), p * p * c)


PARTS: tuple[type[Part], ...] = tuple(ImagePart.__subclasses__())
