"""The shapes that common operations give, worked out directly.

Many of PyTorch's meta kernels are Python decompositions that take a hundred microseconds for what is one line of
arithmetic. The functions here answer the plain cases of the operations that networks are made of, and give ``None``
for everything else (and for every error), which PyTorch then answers itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Shape = Callable[..., Any]
SHAPES: dict[str, Shape] = {}

#: Pointwise operations whose result has the type of their one floating-point input.
_LIKE_FIRST = (
    "relu relu_ hardswish hardswish_ hardsigmoid hardsigmoid_ hardtanh hardtanh_ silu silu_ gelu gelu_ sigmoid "
    "sigmoid_ tanh tanh_ mish mish_ elu elu_ leaky_relu leaky_relu_ softplus clamp clamp_ clamp_min clamp_max exp log "
    "sqrt rsqrt neg abs pow erf _softmax _log_softmax _safe_softmax"
)
_OF_TWO = "add add_ sub sub_ mul mul_ div div_"


def shape_of(*names: str) -> Callable[[Shape], Shape]:
    """Register the shape function of operations; one that ends in ``_`` gives back its first argument."""

    def register(function: Shape) -> Shape:
        for name in names:
            SHAPES[name] = function
        return function

    return register


def _blank(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _same(x: Tensor) -> Tensor | None:
    """A new tensor laid out like ``x``, unless its elements overlap or leave gaps."""
    if x.is_contiguous():
        return torch.empty(x.shape, dtype=x.dtype, device="meta")
    strides = sorted((s, n) for n, s in zip(x.shape, x.stride()) if n > 1)
    expected = 1
    for stride, size in strides:
        if stride != expected:
            return None
        expected *= size
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


@shape_of(*_LIKE_FIRST.split())
def like_first(name: str, args: tuple, kwargs: dict) -> Any:
    x = args[0]
    if kwargs or not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    if any(isinstance(a, Tensor) for a in args[1:]) or (name == "_softmax" and args[2]):
        return None
    return x if name.endswith("_") else _same(x)


@shape_of(*_OF_TWO.split())
def of_two(name: str, args: tuple, kwargs: dict) -> Any:
    x, y = args[0], args[1]
    if "rounding_mode" in kwargs or not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    if isinstance(y, Tensor):
        if y.dtype != x.dtype:
            return None
        if y.shape != x.shape:
            try:
                shape = torch.broadcast_shapes(x.shape, y.shape)
            except RuntimeError:
                return None
            if name.endswith("_"):
                return x if shape == x.shape else None
            return _same(x) if shape == x.shape else _same(y) if shape == y.shape else _blank(shape, x)
    return x if name.endswith("_") else _same(x)


@shape_of("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(name: str, args: tuple, kwargs: dict) -> Any:
    x = args[0]
    if kwargs or (name != "_native_batch_norm_legit_no_training" and args[5]):
        return None
    if any(t is not None and t.shape != x.shape[1:2] for t in args[1:5]):
        return None
    y = _same(x)
    return None if y is None else (y, _blank((0,), x), _blank((0,), x))


@shape_of("convolution")
def convolution(name: str, args: tuple, kwargs: dict) -> Any:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    axes = weight.dim() - 2
    if kwargs or transposed or x.dim() != weight.dim() or not len(stride) == len(padding) == len(dilation) == axes:
        return None
    shape, kernel = x.shape, weight.shape
    if shape[1] != kernel[1] * groups or kernel[0] % groups or not kernel[0] or x.dtype != weight.dtype:
        return None
    if bias is not None and bias.shape != kernel[:1]:
        return None
    result = [shape[0], kernel[0]]
    for k in range(axes):
        length = (shape[k + 2] + 2 * padding[k] - dilation[k] * (kernel[k + 2] - 1) - 1) // stride[k] + 1
        if length < 1:
            return None
        result.append(length)
    return _blank(tuple(result), x)


@shape_of("native_layer_norm")
def layer_norm(name: str, args: tuple, kwargs: dict) -> Any:
    x, shape, weight, bias = args[:4]
    count = len(shape)
    tail = tuple(x.shape[-count:])
    if kwargs or tuple(shape) != tail or any(t is not None and tuple(t.shape) != tail for t in (weight, bias)):
        return None
    lead = (*x.shape[:-count], *(1,) * count)
    return torch.empty(x.shape, dtype=x.dtype, device="meta"), _blank(lead, x), _blank(lead, x)


@shape_of("_adaptive_avg_pool2d")
def adaptive_pool(name: str, args: tuple, kwargs: dict) -> Any:
    x, size = args
    return None if kwargs or len(size) != 2 else _blank((*x.shape[:-2], *size), x)
