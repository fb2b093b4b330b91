"""Toy models of attention in its many dialects: positions, norms of queries, windows, einsum, decoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.testing.token_toys import HEADS, WIDTH, FusedAttention, Tokens

TOKENS, EVEN_DIM = 7, 4


class Separate(Tokens):
    """Queries, keys and values from three layers, heads of four; what a dialect does to them is :meth:`turn`."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, EVEN_DIM
        self.q, self.k, self.v = (nn.Linear(WIDTH, HEADS * EVEN_DIM) for _ in range(3))
        self.out = nn.Linear(HEADS * EVEN_DIM, WIDTH)

    def turn(self, x: Tensor, which: str) -> Tensor:
        """Queries (``"q"``) or keys (``"k"``) of shape (batch, heads, tokens, head width), changed."""
        return x

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (y(x).view(n, t, self.num_heads, self.head_dim).transpose(1, 2) for y in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.turn(q, "q"), self.turn(k, "k"), v)
        return x + self.out(y.transpose(1, 2).reshape(n, t, -1))


class QueryKeyNorm(Separate):
    """A norm over the width of a head, for queries and for keys."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({"q": nn.LayerNorm(EVEN_DIM), "k": nn.RMSNorm(EVEN_DIM)})

    def turn(self, x: Tensor, which: str) -> Tensor:
        return self.norms[which](x)


class QueryKeyUnit(Separate):
    """Queries and keys of length one, with a temperature for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.full((HEADS, 1, 1), 2.0))

    def turn(self, x: Tensor, which: str) -> Tensor:
        x = F.normalize(x, dim=-1)
        return x * self.temperature if which == "q" else x


class Rotary(Separate):
    """Rotary positions over two halves of a head, or over neighbours."""

    cos: Tensor
    sin: Tensor

    def __init__(self, interleaved: bool) -> None:
        super().__init__()
        self.interleaved = interleaved
        angle = torch.outer(torch.arange(TOKENS), 0.3 ** torch.arange(EVEN_DIM // 2))
        angle = angle.repeat_interleave(2, 1) if interleaved else torch.cat([angle, angle], 1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def turn(self, x: Tensor, which: str) -> Tensor:
        if self.interleaved:
            turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        else:
            a, b = x.chunk(2, -1)
            turned = torch.cat([-b, a], -1)
        return x * self.cos + turned * self.sin


class RotaryLayer(Tokens):
    """Rotary positions over the whole width of one head: what is cut has to stay in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def body(self, x: Tensor) -> Tensor:
        def turn(y: Tensor) -> Tensor:
            a, b = y.chunk(2, -1)
            return torch.cat([a - 0.5 * b, b + 0.5 * a], -1)

        weights = (turn(self.q(x)) @ turn(self.k(x)).transpose(-2, -1) * 0.3).softmax(-1)
        return x + self.out(weights @ self.v(x))


class OneHead(Tokens):
    """Attention with one head, whose channels are units: the scale comes from the width, or stands in the code."""

    def __init__(self, fixed_scale: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, width) for width in (8, 8, 9))
        self.out, self.fixed_scale = nn.Linear(9, WIDTH), fixed_scale

    def body(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        scale = 8**-0.5 if self.fixed_scale else q.shape[-1] ** -0.5
        return x + self.out((q @ k.transpose(-2, -1) * scale).softmax(-1) @ v)


class OneHeadFused(OneHead):
    """The same by ``scaled_dot_product_attention``, which takes its scale from the width of its argument."""

    def __init__(self) -> None:
        super().__init__(fixed_scale=False)

    def body(self, x: Tensor) -> Tensor:
        return x + self.out(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)))


class RelativePosition(FusedAttention):
    """A learned bias for every head and every distance."""

    distance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2 * TOKENS - 1, HEADS))
        where = torch.arange(TOKENS)
        self.register_buffer("distance", where[:, None] - where[None] + TOKENS - 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.distance].permute(2, 0, 1)
        return (q @ k.transpose(-2, -1) * 0.5 + bias).softmax(-1) @ v


class IndexedAttention(FusedAttention):
    """Queries, keys and values taken by number."""

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = self.attend(qkv[0], qkv[1], qkv[2])
        return x + self.out(y.transpose(1, 2).reshape(n, t, -1))


class PerHeadAttention(FusedAttention):
    """One layer whose rows lie head by head: queries, keys and values of the first, then of the next (GPT-NeoX)."""

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, self.num_heads, 3 * self.head_dim).transpose(1, 2).chunk(3, -1)
        return x + self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))


class SplitAttention(Tokens):
    """One layer split into queries and fewer keys and values by computed sizes (Phi-3), grouped by ``repeat``."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = HEADS, HEADS // 2, EVEN_DIM
        self.qkv = nn.Linear(WIDTH, (HEADS + 2 * (HEADS // 2)) * EVEN_DIM, bias=False)
        self.out = nn.Linear(HEADS * EVEN_DIM, WIDTH, bias=False)

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        sizes = [self.num_heads * self.head_dim, *[self.num_kv_heads * self.head_dim] * 2]
        q, k, v = (y.view(n, t, -1, self.head_dim).transpose(1, 2) for y in self.qkv(x).split(sizes, -1))
        k, v = (y.repeat_interleave(self.num_heads // self.num_kv_heads, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))


class MultiQuery(Tokens):
    """All heads of queries share one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, EVEN_DIM
        self.q, self.kv = nn.Linear(WIDTH, HEADS * EVEN_DIM), nn.Linear(WIDTH, 2 * EVEN_DIM)
        self.out = nn.Linear(HEADS * EVEN_DIM, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = (y.unsqueeze(1).expand(-1, self.num_heads, -1, -1) for y in self.kv(x).chunk(2, -1))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))


class Decoder(nn.Module):
    """``nn.TransformerDecoder``: attention to itself, to a memory of the same width, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.memory = nn.Linear(6, WIDTH), nn.Linear(4, WIDTH)
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, dim_feedforward=10, dropout=0.0, batch_first=True)
        self.decoder, self.head = nn.TransformerDecoder(layer, 2), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(batch, tokens, 6) and (batch, others, 4) to (batch, tokens, 5)."""
        return self.head(self.decoder(self.x(x), self.memory(memory)))


class Windows(nn.Module):
    """A Swin block with shifted windows, then the merging of four patches; the head width is ``C // num_heads``."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.patch, self.norm = nn.Conv2d(3, WIDTH, 2, stride=2), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.a, self.b = nn.Linear(WIDTH, 10), nn.Linear(10, WIDTH)
        self.merge_norm, self.merge = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, 2 * WIDTH, bias=False)
        self.head = nn.Linear(2 * WIDTH, 5)

    def attend(self, x: Tensor) -> Tensor:
        """Attention within windows, (windows, 4, width) to the same shape."""
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, c))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        x = self.patch(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        y = self.attend(y).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x + torch.roll(y, (1, 1), (1, 2))
        x = x + self.b(F.gelu(self.a(x)))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.head(self.merge(self.merge_norm(torch.cat(corners, -1))).mean((1, 2)))


class EinsumAttention(Separate):
    """The products as ``einsum`` over tensors that keep tokens before heads."""

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, self.num_heads, self.head_dim) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(0.5).softmax(-1)
        return x + self.out(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))


class EinsumParameters(Tokens):
    """Projections of shape (heads, width, head width), as JAX code has them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(HEADS, WIDTH, EVEN_DIM) / 3) for _ in range(3))
        self.o = nn.Parameter(torch.randn(HEADS, EVEN_DIM, WIDTH) / 3)

    def body(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,hcd->bhtd", x, weight) for weight in (self.q, self.k, self.v))
        weights = torch.einsum("bhqd,bhkd->bhqk", q, k).mul(0.5).softmax(-1)
        return x + torch.einsum("bhqk,bhkd,hdc->bqc", weights, v, self.o)


class EinsumMixing(Tokens):
    """Channels and tokens mixed by ``einsum`` with bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(WIDTH, 9) / 3), nn.Parameter(torch.randn(9, WIDTH) / 3)
        self.tokens = nn.Parameter(torch.randn(TOKENS, TOKENS) / 3)

    def body(self, x: Tensor) -> Tensor:
        x = x + torch.einsum("btc,ts->bsc", x, self.tokens)
        return x + torch.einsum("bth,hc->btc", torch.einsum("btc,ch->bth", x, self.up).relu(), self.down)


class LinearAttention(Separate):
    """Keys times values first: no softmax over tokens, a feature map instead."""

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (y(x).view(n, t, self.num_heads, self.head_dim).transpose(1, 2) for y in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        y = q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2).unsqueeze(-1))
        return x + self.out(y.transpose(1, 2).flatten(2))


class OverlappingWindows(Separate):
    """Keys and values of each stretch of tokens and of the next one, cut out of memory by strides (Longformer)."""

    stretch = 2

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x, w = F.pad(x, (0, 0, 0, -t % self.stretch)), self.stretch
        q, k, v = (
            y(x)
            .view(n, -1, self.num_heads, self.head_dim)
            .transpose(1, 2)
            .reshape(n * self.num_heads, -1, w, self.head_dim)
            for y in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q[:, :-1], self._in_twos(k), self._in_twos(v))
        y = y.reshape(n, self.num_heads, -1, self.head_dim).transpose(1, 2).flatten(2)
        return x[:, :-w] + self.out(y)

    def _in_twos(self, x: Tensor) -> Tensor:
        size, stride = list(x.shape), x.stride()
        return x.as_strided([size[0], size[1] - 1, 2 * size[2], size[3]], stride)


class ChannelAttention(Tokens):
    """Attention between the channels of a head (XCiT): the softmax runs over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def body(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(-1)
        return x + self.out((weights @ v).permute(0, 3, 1, 2).reshape(n, t, c))


def attention_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def tokens(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
        return lambda: (make(), torch.randn(1, TOKENS, 6))

    found: dict[str, Callable[[], nn.Module]] = {
        "attention_norm": QueryKeyNorm,
        "attention_unit": QueryKeyUnit,
        "attention_rotary_halves": lambda: Rotary(interleaved=False),
        "attention_rotary_pairs": lambda: Rotary(interleaved=True),
        "rotary_layer": RotaryLayer,
        "one_head_fixed_scale": lambda: OneHead(fixed_scale=True),
        "one_head_scale_of_width": lambda: OneHead(fixed_scale=False),
        "one_head_fused": OneHeadFused,
        "attention_relative_position": RelativePosition,
        "attention_indexed": IndexedAttention,
        "attention_per_head": PerHeadAttention,
        "attention_split_sizes": SplitAttention,
        "attention_multi_query": MultiQuery,
        "attention_einsum": EinsumAttention,
        "attention_einsum_parameters": EinsumParameters,
        "attention_linear": LinearAttention,
        "attention_overlapping_windows": OverlappingWindows,
        "channel_attention": ChannelAttention,
        "einsum_mixing": EinsumMixing,
    }
    return {
        **{name: tokens(make) for name, make in found.items()},
        "transformer_decoder": lambda: (Decoder(), {"x": torch.randn(1, 7, 6), "memory": torch.randn(1, 5, 4)}),
        "attention_windows": lambda: (Windows(), torch.randn(1, 3, 8, 8)),
    }
