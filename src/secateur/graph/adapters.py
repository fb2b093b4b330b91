"""Modules whose forward derives one width from another, and equal modules that keep the two apart.

``nn.MultiheadAttention`` computes the width of a head from the width of its input, so neither can be cut alone. The
module here computes the same numbers from the same parameters, but reads ``num_heads`` and ``head_dim`` as they are.
"""

from __future__ import annotations

import inspect
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.graph.selector import ChannelSelector


class SlimMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose heads may be fewer than ``embed_dim / head_dim``.

    Parameters and their names are those of ``nn.MultiheadAttention``; ``in_proj_weight`` has shape
    ``(3 * num_heads * head_dim, embed_dim)`` and ``out_proj.weight`` ``(embed_dim, num_heads * head_dim)``. The scores
    are scaled by the head's width at construction.
    """

    @classmethod
    def adopt(cls, attention: nn.MultiheadAttention) -> SlimMultiheadAttention:
        """Turn a module into this class in place. It shares every parameter, so the function stays the same."""
        attention.__class__ = cls
        assert isinstance(attention, SlimMultiheadAttention)
        attention.scale = attention.head_dim**-0.5
        # The fused inference path of nn.TransformerEncoderLayer assumes the full width; this flag turns it off.
        attention._qkv_same_embed_dim = False
        return attention

    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = self._project(query, key, value)
        weights, mask = None, self._mask(q, k, key_padding_mask, attn_mask)
        if need_weights:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            y = F.dropout(weights, self.dropout, self.training) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0, scale=self.scale)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return (y if self.batch_first else y.transpose(0, 1)), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of shape ``(batch, num_heads, length, head_dim)``."""
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            weights = self.in_proj_weight.chunk(3)
        heads = []
        for x, weight, bias in zip((query, key, value), weights, biases):
            y = F.linear(x, weight, bias)
            heads.append(y.reshape(y.shape[0], y.shape[1], self.num_heads, self.head_dim).transpose(1, 2))
        q, k, v = heads
        if self.bias_k is not None and self.bias_v is not None:
            k, v = self._append(k, self.bias_k), self._append(v, self.bias_v)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        return q, k, v

    def _append(self, heads: Tensor, bias: Tensor) -> Tensor:
        row = bias.reshape(1, 1, self.num_heads, self.head_dim).transpose(1, 2)
        return torch.cat([heads, row.expand(heads.shape[0], -1, -1, -1)], 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        """One additive mask that broadcasts to ``(batch, num_heads, queries, keys)``."""
        total = None
        for mask, shape in ((padding, (q.shape[0], 1, 1, -1)), (attention, None)):
            if mask is None:
                continue
            if shape is None and mask.dim() == 3:
                shape = (q.shape[0], self.num_heads, *mask.shape[1:])
            mask = mask.reshape(shape) if shape is not None else mask
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))
            extra = k.shape[-2] - mask.shape[-1]
            mask = F.pad(mask, (0, extra)) if extra else mask
            total = mask if total is None else total + mask
        return total


def plain_settings(model: nn.Module) -> nn.Module:
    """Settings of a Hugging Face model, in place, under which its function is the same and can be followed.

    An attention cache holds the keys of every head, so as an output it would forbid to cut any. A state that the model
    makes beforehand is none: without it the code would never ask whether its sizes fit. A mixture of experts
    is computed by products of stacked weights instead of a fused kernel or a loop over what the router chose. Returns
    ``model``.
    """
    for module in model.modules():
        plain_module(module)
    return model


def plain_module(module: nn.Module) -> None:
    """What :func:`plain_settings` does to one module."""
    config = module.__dict__.get("config")
    if config is None:
        return
    if getattr(config, "use_cache", False) is True and not _makes_its_state(type(module)):
        config.use_cache = False
    if getattr(config, "_experts_implementation", None) is not None:
        config._experts_implementation = "batched_mm"


@cache
def _makes_its_state(kind: type) -> bool:
    """Whether a model begins with a state that it makes in the sizes of its configuration (RWKV), not with none."""
    return "state" in inspect.signature(kind.forward).parameters


def has_own_modes(module: nn.Module) -> bool:
    """Whether a module does more than to note it when it goes into training or evaluation mode.

    A Hugging Face model does only where it was told to replace its kernels.
    """
    kind = type(module)
    if kind.train is nn.Module.train and kind.eval is nn.Module.eval:
        return False
    of_transformers = {getattr(f, "__module__", "") for f in (kind.train, kind.eval)} == {"transformers.modeling_utils"}
    return not of_transformers or getattr(module, "use_kernels", False)


def adapt(model: nn.Module) -> nn.Module:
    """Replace, in place, what keeps widths apart only by coincidence. Returns ``model``."""
    for module in model.modules():
        adapt_module(module)
    return model


def adapt_module(module: nn.Module) -> None:
    """What :func:`adapt` does to one module."""
    if type(module) is nn.MultiheadAttention:
        SlimMultiheadAttention.adopt(module)
    elif type(module) is ChannelSelector:
        module.watch()
