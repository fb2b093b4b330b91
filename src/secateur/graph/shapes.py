"""The shapes that common operations give, worked out directly.

Many of PyTorch's meta kernels are Python decompositions that take a hundred microseconds for what is one line of
arithmetic. The functions here answer the plain cases of the operations that networks are made of, and give ``None``
for everything else (and for every error), which PyTorch then answers itself.
"""

from __future__ import annotations

import math
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
    "sqrt rsqrt neg abs pow erf sin cos _softmax _log_softmax _safe_softmax"
)
_OF_TWO = "add add_ sub sub_ mul mul_ div div_"


def shape_of(*names: str) -> Callable[[Shape], Shape]:
    """Register the shape function of operations; one that ends in ``_`` gives back its first argument."""

    def register(function: Shape) -> Shape:
        for name in names:
            SHAPES[name] = function
        return function

    return register


_META = torch.device("meta")


#: A network asks for few different shapes, and a copy is made in a third of the time of a new tensor.
_TEMPLATES: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}
_MOST_TEMPLATES = 4096


def _blank(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A new tensor in row-major order."""
    key = shape, like.dtype
    template = _TEMPLATES.get(key)
    if template is not None:
        return template.clone()
    new = torch.empty(shape, dtype=like.dtype, device=_META)
    if type(new) is Tensor:
        # Anything else belongs to a mode of somebody else, who may leave it.
        if len(_TEMPLATES) >= _MOST_TEMPLATES:
            _TEMPLATES.clear()
        _TEMPLATES[key] = new.clone()
    return new


def _same(x: Tensor) -> Tensor | None:
    """A new tensor laid out like ``x``; ``None`` where that takes PyTorch to say."""
    if x.is_contiguous():
        return _blank(x.shape, x)
    strides = sorted((s, n) for n, s in zip(x.shape, x.stride()) if n > 1)
    if _in_order(x):
        # A part of a larger tensor: gaps close.
        return _blank(x.shape, x)
    expected = 1
    for stride, size in strides:
        if stride != expected:
            return _closed(x)
        expected *= size
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=_META)


def _closed(x: Tensor) -> Tensor | None:
    """A new tensor whose axes lie in the order of those of ``x``, without gaps; ``None`` where that is ambiguous."""
    shape, stride = x.shape, x.stride()
    if min(shape) < 2 or min(stride) < 1 or len({*stride}) < len(stride):
        return None
    closed, step = [0] * len(shape), 1
    for axis in sorted(range(len(shape)), key=stride.__getitem__):
        closed[axis] = step
        step *= shape[axis]
    return torch.empty_strided(shape, closed, dtype=x.dtype, device=_META)


def _in_order(x: Tensor) -> bool:
    """Whether the elements of every axis lie behind those of the next, none on another."""
    last = 0
    for size, stride in zip(reversed(x.shape), reversed(x.stride())):
        if stride <= last or size < 2:
            return False
        last = stride * (size - 1)
    return True


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """``torch.broadcast_shapes`` of two shapes, ``None`` where they do not fit: that one takes longer than its uses."""
    if len(a) < len(b):
        a, b = b, a
    lead = len(a) - len(b)
    result = list(a[:lead])
    for n, m in zip(a[lead:], b):
        if n != m and n != 1 and m != 1:
            return None
        result.append(m if n == 1 else n)
    return tuple(result)


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
            shape = _broadcast(x.shape, y.shape)
            if shape is None:
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
    channels = x.shape[1:2]
    for t in args[1:5]:
        if t is not None and t.shape != channels:
            return None
    y = _same(x)
    return None if y is None else (y, _blank((0,), x), _blank((0,), x))


@shape_of("convolution")
def convolution(name: str, args: tuple, kwargs: dict) -> Any:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    axes = weight.dim() - 2
    shape, kernel = x.shape, weight.shape
    if kwargs or transposed or len(shape) != len(kernel) or not len(stride) == len(padding) == len(dilation) == axes:
        return None
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
    return _blank(x.shape, x), _blank(lead, x), _blank(lead, x)


@shape_of("_adaptive_avg_pool2d")
def adaptive_pool(name: str, args: tuple, kwargs: dict) -> Any:
    x, size = args
    return None if kwargs or len(size) != 2 else _blank((*x.shape[:-2], *size), x)


@shape_of("native_group_norm")
def group_norm(name: str, args: tuple, kwargs: dict) -> Any:
    x, weight, bias, batch, channels, positions, groups = args[:7]
    if kwargs or not x.is_contiguous() or x.dim() < 2 or x.shape[:2] != (batch, channels):
        return None
    if channels % groups or x.numel() != batch * channels * positions:
        return None
    if any(t is not None and t.shape != x.shape[1:2] for t in (weight, bias)):
        return None
    return _blank(x.shape, x), _blank((batch, groups), x), _blank((batch, groups), x)


@shape_of("mean", "sum")
def reduction(name: str, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) < 2 or not args[1]:
        return None
    x, dims, keepdim = args[0], args[1], len(args) > 2 and args[2]
    if not x.is_floating_point() or not x.is_contiguous() or not x.numel():
        return None
    count = x.dim()
    gone = {d % count for d in dims if -count <= d < count}
    if len(gone) != len(dims):
        return None
    if keepdim:
        return _blank(tuple([1 if d in gone else n for d, n in enumerate(x.shape)]), x)
    return _blank(tuple([n for d, n in enumerate(x.shape) if d not in gone]), x)


@shape_of("mm")
def product(name: str, args: tuple, kwargs: dict) -> Any:
    a, b = args
    if kwargs or a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        return None
    return _blank((a.shape[0], b.shape[1]), a) if a.is_floating_point() else None


@shape_of("addmm")
def affine(name: str, args: tuple, kwargs: dict) -> Any:
    bias, a, b = args[:3]
    if len(args) > 3 or bias.dtype != a.dtype or bias.shape != b.shape[1:]:
        return None
    return product(name, (a, b), kwargs)


@shape_of("linear")
def linear(name: str, args: tuple, kwargs: dict) -> Any:
    x, weight = args[:2]
    if kwargs or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype or not x.is_floating_point():
        return None
    return _blank((*x.shape[:-1], weight.shape[0]), x)


@shape_of("bmm")
def batched_product(name: str, args: tuple, kwargs: dict) -> Any:
    a, b = args
    if kwargs or a.dim() != 3 or b.dim() != 3 or a.dtype != b.dtype or not a.is_floating_point():
        return None
    (batch, n, k), (others, inner, m) = a.shape, b.shape
    return _blank((batch, n, m), a) if batch == others and k == inner else None


@shape_of("matmul")
def product_in_batches(name: str, args: tuple, kwargs: dict) -> Any:
    a, b = args
    return _blank((*a.shape[:-1], b.shape[-1]), a)


@shape_of("scaled_dot_product_attention")
def attention(name: str, args: tuple, kwargs: dict) -> Any:
    query, value = args[0], args[2]
    return _blank((*query.shape[:-1], value.shape[-1]), query)


@shape_of("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d")
def upsample(name: str, args: tuple, kwargs: dict) -> Any:
    x, size = args[:2]
    if kwargs or x.dim() != 4 or not isinstance(size, (list, tuple)) or len(size) != 2 or min(size) < 1:
        return None
    if not x.is_floating_point() or not x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return None
    return _blank((*x.shape[:2], *size), x) if x.numel() else None


@shape_of("embedding")
def embedding(name: str, args: tuple, kwargs: dict) -> Any:
    weight, indices = args[:2]
    if weight.dim() != 2 or indices.dtype not in (torch.int64, torch.int32):
        return None
    return _blank((*indices.shape, weight.shape[1]), weight)


@shape_of("index")
def index(name: str, args: tuple, kwargs: dict) -> Any:
    x, places = args
    if kwargs or len(places) != 1 or not isinstance(places[0], Tensor) or places[0].dtype != torch.int64:
        return None
    contiguous = x.is_contiguous() and x.dim() and x.is_floating_point() and places[0].is_contiguous()
    return _blank((*places[0].shape, *x.shape[1:]), x) if contiguous else None


@shape_of("_unsafe_view")
def laid_out(name: str, args: tuple, kwargs: dict) -> Any:
    x, shape = args
    if kwargs or not x.is_contiguous() or min(shape, default=1) < 1 or math.prod(shape) != x.numel():
        return None
    return _blank(tuple(shape), x)


@shape_of("clone")
def copied(name: str, args: tuple, kwargs: dict) -> Any:
    (x,) = args
    if not kwargs or kwargs.get("memory_format") is torch.preserve_format:
        return _same(x)
    return _blank(x.shape, x) if kwargs == {"memory_format": torch.contiguous_format} else None


@shape_of("t", "view", "expand", "transpose", "permute", "unsqueeze")
def viewed(name: str, args: tuple, kwargs: dict) -> Any:
    # Asking the tensor takes half as long as asking the operation.
    return None if kwargs or torch._C._len_torch_function_stack() else getattr(args[0], name)(*args[1:])


@shape_of("where")
def where(name: str, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 3 or not all(isinstance(t, Tensor) and t.is_contiguous() for t in args):
        return None
    choice, x, y = args
    if choice.dtype != torch.bool or x.dtype != y.dtype or not x.is_floating_point():
        return None
    shape = _broadcast(x.shape, y.shape)
    # Only where one of the two has the shape of the result does PyTorch lay that out in order for sure.
    if shape is None or shape not in (x.shape, y.shape) or _broadcast(shape, choice.shape) != shape:
        return None
    return _blank(shape, x)


def _windows(x: Tensor, kernel: list, stride: list, padding: list, dilation: list, up: bool) -> tuple | None:
    """The shape that a two-dimensional pooling gives."""
    if x.dim() != 4 or not x.is_floating_point() or not x.is_contiguous() or not x.numel():
        return None
    if not len(kernel) == len(stride) == len(padding) == len(dilation) == 2:
        return None
    shape = list(x.shape[:2])
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation):
        if 2 * p > k or s < 1:
            return None
        length = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if up else 0)) // s + 1
        if up and (length - 1) * s >= n + p:
            # No window begins in the padding behind the last element.
            length -= 1
        if length < 1:
            return None
        shape.append(length)
    return tuple(shape)


@shape_of("max_pool2d_with_indices")
def max_pool(name: str, args: tuple, kwargs: dict) -> Any:
    if kwargs:
        return None
    given: Any = (*args, *([], [0, 0], [1, 1], False)[len(args) - 2 :])
    x, kernel, stride, padding, dilation, up = given
    shape = _windows(x, kernel, stride or kernel, padding, dilation, up)
    return None if shape is None else (_blank(shape, x), torch.empty(shape, dtype=torch.int64, device=_META))


@shape_of("avg_pool2d")
def avg_pool(name: str, args: tuple, kwargs: dict) -> Any:
    if kwargs or (len(args) > 6 and args[6] == 0):
        return None
    given: Any = (*args[:5], *([], [0, 0], False)[len(args[:5]) - 2 :])
    x, kernel, stride, padding, up = given
    shape = _windows(x, kernel, stride or kernel, padding, [1, 1], up)
    return None if shape is None else _blank(shape, x)


@shape_of("cat")
def cat(name: str, args: tuple, kwargs: dict) -> Any:
    parts, axis = args[0], args[1] if len(args) > 1 else 0
    if kwargs or not parts:
        return None
    shape, total = list(parts[0].shape), 0
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    for t in parts:
        own = list(t.shape)
        if t.dtype != parts[0].dtype or not t.is_contiguous() or len(own) != len(shape):
            return None
        total += own[axis]
        own[axis] = shape[axis]
        if own != shape:
            return None
    shape[axis] = total
    return _blank(tuple(shape), parts[0])


@shape_of("roll")
def roll(name: str, args: tuple, kwargs: dict) -> Any:
    if len(args) != 3:
        return None
    x, shifts, dims = args
    plain = not kwargs and len(dims) == len(shifts) > 0 and x.numel() and all(-x.dim() <= d < x.dim() for d in dims)
    return _blank(x.shape, x) if plain and x.is_contiguous() else None


@shape_of("masked_fill", "masked_fill_")
def masked_fill(name: str, args: tuple, kwargs: dict) -> Any:
    x, mask, value = args
    if kwargs or isinstance(value, Tensor) or mask.dtype != torch.bool or not x.is_contiguous():
        return None
    if _broadcast(x.shape, mask.shape) != x.shape:
        return None
    return x if name.endswith("_") else _blank(x.shape, x)
