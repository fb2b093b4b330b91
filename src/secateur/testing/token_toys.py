"""Toy models over sequences of tokens: norms, attention in its many spellings, mixers and tied embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, HEAD_DIM = 12, 4, 3


class Tokens(nn.Module, ABC):
    """What most token toys share: 6 numbers a token in, a residual stream, LayerNorm, 5 classes out."""

    def __init__(self, inputs: int = 6, width: int = WIDTH):
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(inputs, width), nn.LayerNorm(width), nn.Linear(width, 5)

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 6) to (batch, 5)."""
        return self.head(self.norm(self.body(self.enter(x))).mean(1))


class LayerNormed(Tokens):
    """An MLP around a LayerNorm whose own width is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.inner, self.b = nn.Linear(WIDTH, 9), nn.LayerNorm(9), nn.Linear(9, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        return x + self.b(self.inner(F.gelu(self.a(x))))


class GatedMLP(Tokens):
    """SwiGLU with RMSNorm: gate and value keep the same indices."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 9, bias=False)
        self.value, self.down = nn.Linear(WIDTH, 9, bias=False), nn.Linear(9, WIDTH, bias=False)

    def body(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return x + self.down(F.silu(self.gate(y)) * self.value(y))


class ClassToken(nn.Module):
    """Patches, a class token and position embeddings on the residual width; the head reads the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.1)
        self.position = nn.Parameter(torch.randn(1, 5, WIDTH) * 0.1)
        self.a, self.b = nn.Linear(WIDTH, 10), nn.Linear(10, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 8, 8) to (batch, 5)."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.b(F.gelu(self.a(x)))
        return self.head(self.norm(x)[:, 0])


class SeparateAttention(Tokens):
    """Queries, keys and values from three layers; ``forward`` reads the number of heads from an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, HEADS * HEAD_DIM) for _ in range(3))
        self.out = nn.Linear(HEADS * HEAD_DIM, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, self.num_heads, HEAD_DIM).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(n, t, self.num_heads * HEAD_DIM))


class FusedAttention(Tokens):
    """One layer for queries, keys and values, split by a reshape as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, HEAD_DIM
        self.qkv, self.out = nn.Linear(WIDTH, 3 * HEADS * HEAD_DIM), nn.Linear(HEADS * HEAD_DIM, WIDTH)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over tensors of shape (batch, heads, tokens, head width)."""
        return F.scaled_dot_product_attention(q, k, v)

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.out(self.attend(q, k, v).transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))


class ManualAttention(FusedAttention):
    """The same with the products and the softmax written out."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) * HEAD_DIM**-0.5).softmax(-1) @ v


class ChunkedAttention(Tokens):
    """Queries, keys and values from one layer by ``chunk``."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.out = nn.Linear(WIDTH, 3 * HEADS * HEAD_DIM), nn.Linear(HEADS * HEAD_DIM, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (part.view(n, t, self.num_heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GroupedQueryAttention(Tokens):
    """Two heads of queries share one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = HEADS, HEADS // 2
        self.q, self.k = nn.Linear(WIDTH, HEADS * HEAD_DIM), nn.Linear(WIDTH, HEADS // 2 * HEAD_DIM)
        self.v, self.out = nn.Linear(WIDTH, HEADS // 2 * HEAD_DIM), nn.Linear(HEADS * HEAD_DIM, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.num_heads, HEAD_DIM).transpose(1, 2)
        k = self.k(x).view(n, t, self.num_kv_heads, HEAD_DIM).transpose(1, 2).repeat_interleave(2, 1)
        v = self.v(x).view(n, t, self.num_kv_heads, HEAD_DIM).transpose(1, 2).repeat_interleave(2, 1)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MultiheadAttention(Tokens):
    """``nn.MultiheadAttention`` with the batch first or second, with or without its weights."""

    def __init__(self, batch_first: bool, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.need_weights = need_weights

    def body(self, x: Tensor) -> Tensor:
        y = x if self.attention.batch_first else x.transpose(0, 1)
        y, _ = self.attention(y, y, y, need_weights=self.need_weights)
        return x + (y if self.attention.batch_first else y.transpose(0, 1))


class CrossAttention(nn.Module):
    """``nn.MultiheadAttention`` whose keys and values come from elsewhere and have another width."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.memory = nn.Linear(6, WIDTH), nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=8, vdim=8, batch_first=True)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(batch, tokens, 6) and (batch, others, 4) to (batch, tokens, 5)."""
        x, memory = self.x(x), self.memory(memory)
        return self.head(x + self.attention(x, memory, memory, need_weights=False)[0])


class Encoder(Tokens):
    """``nn.TransformerEncoder``, which has a fused path of its own in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, dim_feedforward=10, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def body(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class TiedEmbedding(nn.Module):
    """A language model whose output head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, 9), nn.Linear(9, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) of integers to (batch, tokens, 11)."""
        x = self.embed(tokens)
        return self.head(self.norm(x + self.b(F.gelu(self.a(x)))))


class Mixer(Tokens):
    """An MLP over tokens and one over channels, with transposes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_a, self.token_a, self.token_b = nn.LayerNorm(WIDTH), nn.Linear(7, 8), nn.Linear(8, 7)
        self.norm_b, self.channel_a, self.channel_b = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10), nn.Linear(10, WIDTH)

    def body(self, x: Tensor) -> Tensor:
        x = x + self.token_b(F.gelu(self.token_a(self.norm_a(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.channel_b(F.gelu(self.channel_a(self.norm_b(x))))


def token_toys() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy of this file, with example inputs of batch 1."""

    def tokens() -> Tensor:
        return torch.randn(1, 7, 6)

    return {
        "layer_norm": lambda: (LayerNormed(), tokens()),
        "gated_mlp": lambda: (GatedMLP(), tokens()),
        "class_token": lambda: (ClassToken(), torch.randn(1, 3, 8, 8)),
        "attention_separate": lambda: (SeparateAttention(), tokens()),
        "attention_fused": lambda: (FusedAttention(), tokens()),
        "attention_manual": lambda: (ManualAttention(), tokens()),
        "attention_chunked": lambda: (ChunkedAttention(), tokens()),
        "attention_grouped_query": lambda: (GroupedQueryAttention(), tokens()),
        "mha_batch_first": lambda: (MultiheadAttention(batch_first=True, need_weights=False), tokens()),
        "mha_batch_first_weights": lambda: (MultiheadAttention(batch_first=True, need_weights=True), tokens()),
        "mha_batch_second": lambda: (MultiheadAttention(batch_first=False, need_weights=False), tokens()),
        "mha_batch_second_weights": lambda: (MultiheadAttention(batch_first=False, need_weights=True), tokens()),
        "cross_attention": lambda: (CrossAttention(), {"x": tokens(), "memory": torch.randn(1, 5, 4)}),
        "transformer_encoder": lambda: (Encoder(), tokens()),
        "tied_embedding": lambda: (TiedEmbedding(), torch.randint(0, 11, (1, 7))),
        "mixer": lambda: (Mixer(), tokens()),
    }
