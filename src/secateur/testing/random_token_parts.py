"""Parts of random networks that read tokens (batch, tokens, width)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.random_parts import Draw, Part, Unfit, scale


class TokenPart(Part):
    dims = 3


class Embed(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width = draw.width()
        self.linear, self.norm = draw.linear(x.shape[2], width), draw.token_norm(width)
        self.position = torch.randn(1, x.shape[1], width) if draw.chance(0.5) else None
        # No draw decides, as one more would change the networks that once failed.
        if self.position is not None and width % 2:
            self.position = nn.Parameter(self.position)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.norm(x if self.position is None else x + self.position)


class ResidualMLP(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width, hidden = x.shape[2], draw.width()
        self.norm, self.a, self.b = draw.token_norm(width), draw.linear(width, hidden), nn.Linear(hidden, width)
        self.inner, self.scale, self.post = draw.token_norm(hidden), scale(width), draw.chance(0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            return self.norm(x + self.b(self.inner(self.a(x))))
        return x + self.scale * self.b(self.inner(self.a(self.norm(x))))


class GatedMLP(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width, self.fused = x.shape[2], draw.chance(0.5)
        hidden = draw.width()
        self.a = nn.Linear(width, 2 * hidden if self.fused else hidden)
        self.b = None if self.fused else nn.Linear(width, hidden)
        self.norm, self.down = draw.token_norm(hidden), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.a(x).chunk(2, -1) if self.b is None else (self.a(x), self.b(x))
        return x + self.down(self.norm(F.silu(gate) * value))


class Attention(TokenPart):
    """All the spellings: one or three layers, own or fused product, norms of queries, rotary, grouped queries."""

    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.heads, self.dim = draw.one_of(1, 2, 3, 4), draw.one_of(2, 4)
        self.how, self.product = draw.one_of("fused", "chunk", "separate", "heads"), draw.one_of("sdpa", "manual")
        self.rotary, width = draw.chance(0.3), self.heads * self.dim
        if self.how == "separate":
            self.q, self.k, self.v = (nn.Linear(x.shape[2], width, bias=draw.chance(0.5)) for _ in range(3))
        else:
            self.qkv = nn.Linear(x.shape[2], 3 * width, bias=draw.chance(0.5))
        self.norm = draw.token_norm(self.dim) if draw.chance(0.3) else nn.Identity()
        self.bias = nn.Parameter(torch.randn(self.heads, 1, 1)) if draw.chance(0.2) else None
        self.pre, self.out = draw.token_norm(x.shape[2]), nn.Linear(width, x.shape[2])

    def projected(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of shape (batch, heads, tokens, head width)."""
        n, t, _ = x.shape
        if self.how == "fused":
            return self.qkv(x).reshape(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.how == "heads":
            return self.qkv(x).view(n, t, self.heads, 3 * self.dim).transpose(1, 2).chunk(3, -1)
        parts = self.qkv(x).chunk(3, -1) if self.how == "chunk" else (self.q(x), self.k(x), self.v(x))
        return tuple(y.view(n, t, self.heads, self.dim).transpose(1, 2) for y in parts)

    def turned(self, x: Tensor) -> Tensor:
        """A rotation of both halves of a head by the same angle everywhere."""
        a, b = x.chunk(2, -1)
        return x * 0.8 + torch.cat([-b, a], -1) * 0.6

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.projected(self.pre(x))
        q, k = self.norm(q), self.norm(k)
        if self.rotary:
            q, k = self.turned(q), self.turned(k)
        if self.product == "manual" or self.bias is not None:
            weights = q @ k.transpose(-2, -1) * 0.5
            y = (weights if self.bias is None else weights * self.bias).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.heads * self.dim))


class CrossAttention(TokenPart):
    arity = (2,)

    def draw_for(self, draw: Draw, x: Tensor, y: Tensor) -> None:
        self.heads, self.shared, self.dim = draw.one_of(2, 4), draw.one_of(1, 2), draw.one_of(2, 3)
        self.q = nn.Linear(x.shape[2], self.heads * self.dim)
        self.k, self.v = (nn.Linear(y.shape[2], self.heads // self.shared * self.dim) for _ in range(2))
        self.out = nn.Linear(self.heads * self.dim, x.shape[2])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (-1, self.dim)).transpose(1, 2) for z in (self.q(x), self.k(y), self.v(y)))
        if self.shared > 1:
            k, v = k.repeat_interleave(self.shared, 1), v.repeat_interleave(self.shared, 1)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Multihead(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        heads = draw.divisor(x.shape[2])
        self.attention = nn.MultiheadAttention(x.shape[2], heads, batch_first=True, bias=draw.chance(0.7))
        self.norm, self.weights = draw.token_norm(x.shape[2]), draw.chance(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=self.weights)[0]


class Mixer(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        hidden = draw.width()
        self.norm = draw.token_norm(x.shape[2])
        self.a, self.b = nn.Linear(x.shape[1], hidden), nn.Linear(hidden, x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.gelu(self.a(self.norm(x).transpose(1, 2)))).transpose(1, 2)


class Joined(TokenPart):
    arity = (2,)

    def draw_for(self, draw: Draw, x: Tensor, y: Tensor) -> None:
        self.axis = 2 if x.shape[1] == y.shape[1] and draw.chance(0.5) else 1
        if x.shape[self.axis] + y.shape[self.axis] > 80:
            raise Unfit
        mixed = y.shape[2] != x.shape[2] or draw.chance(0.3)
        self.project = nn.Linear(y.shape[2], x.shape[2]) if self.axis == 1 and mixed else None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y = y if self.project is None else self.project(y)
        return torch.cat([x, y], self.axis)


class Added(TokenPart):
    arity = (2,)

    def draw_for(self, draw: Draw, x: Tensor, y: Tensor) -> None:
        same = x.shape[2] == y.shape[2] and draw.chance(0.7)
        self.project = nn.Identity() if same else nn.Linear(y.shape[2], x.shape[2])
        self.pool = x.shape[1] != y.shape[1] or draw.chance(0.3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y = self.project(y)
        return x + (y.mean(1, keepdim=True) if self.pool else y)


class ClassToken(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.token = nn.Parameter(torch.randn(1, 1, x.shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)


class Filter(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        width = x.shape[2]
        self.conv = nn.Conv1d(width, width, 3, padding=2, groups=draw.one_of(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)


class TiedPair(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.linear = nn.Linear(x.shape[2], draw.width())

    def forward(self, x: Tensor) -> Tensor:
        return x + F.linear(self.linear(x).relu(), self.linear.weight.t())


class Recurrent(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        if x.shape[1] > 20:
            raise Unfit
        both = draw.chance(0.4)
        kind = draw.one_of(nn.LSTM, nn.GRU)
        self.rnn = kind(x.shape[2], draw.width(), draw.one_of(1, 2), bidirectional=both, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Einsum(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        hidden = draw.width()
        self.up = nn.Parameter(torch.randn(x.shape[2], hidden) / 3)
        self.down = nn.Parameter(torch.randn(hidden, x.shape[2]) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.einsum("bth,hc->btc", torch.einsum("btc,ch->bth", x, self.up).relu(), self.down)


class Pieces(TokenPart):
    """Every head of a width has a linear layer of its own kind: shared by all heads."""

    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.pieces = draw.divisor(x.shape[2])
        width = x.shape[2] // self.pieces
        self.a, self.b = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        y = x.view(n, t, self.pieces, c // self.pieces)
        return (y + self.b(self.a(y).relu())).flatten(2)


class Changed(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.how = draw.one_of("normalize", "centre", "softmax", "first", "half", "in place")

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "normalize":
            return F.normalize(x, dim=-1)
        if self.how == "centre":
            return x - x.mean(-1, keepdim=True)
        if self.how == "softmax":
            return x * x.softmax(-1)
        if self.how == "first":
            return x[:, :4]
        if self.how == "half":
            return x[:, : x.shape[1] // 2 + 1] * 0.5
        return x.clone().add_(0.3).tanh_()


class ToImage(TokenPart):
    def draw_for(self, draw: Draw, x: Tensor) -> None:
        self.side = math.isqrt(x.shape[1])
        if self.side < 2:
            raise Unfit

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, : self.side * self.side].transpose(1, 2)
        return x.reshape(x.shape[0], x.shape[1], self.side, self.side)


PARTS: tuple[type[Part], ...] = tuple(TokenPart.__subclasses__())
