"""PyTorch's functions, run without PyTorch in between.

The functions that models call most are asked for the operation that they end in, as the layers of ``leaves.py`` are. A
product of batches goes through six of them on its way, attention through some twenty: here each is one, with a rule of
its own, and the pass does with it what it does with any other.

These serve plain meta tensors. Where PyTorch would do anything else, refuse for instance, they give ``None``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from secateur.graph.leaves import Perform, given, normalised, undispatched

_ATEN = torch.ops.aten

#: By the function that is called: ``function(perform, arguments)``.
FUNCTIONS: dict[Any, Callable[..., Tensor | None]] = {}
#: Operations that PyTorch takes other steps for where these do not serve: where sizes do not fit, say.
COMPOSED = {"linear", "matmul", "scaled_dot_product_attention"}


class Functions(TorchFunctionMode):
    """While this is entered, ``call(function, arguments, keywords)`` calls PyTorch's functions."""

    def __init__(self, call: Callable[[Any, tuple, dict], Any]):
        super().__init__()
        self._call = call

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self._call(func, args, kwargs or {})


def call_function(func: Any, args: tuple, kwargs: dict, perform: Perform) -> Any:
    """Call one of PyTorch's functions, directly where that can be done."""
    direct = FUNCTIONS.get(func)
    if direct is not None:
        with undispatched():
            out = direct(perform, *args, **kwargs)
        if out is not None:
            return out
    return func(*args, **kwargs)


def _function(*called: Any) -> Callable[[Callable[..., Tensor | None]], Callable[..., Tensor | None]]:
    def register(function: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
        FUNCTIONS.update(dict.fromkeys(called, function))
        return function

    return register


def _is_meta(*some: Any) -> bool:
    return all((type(x) is Tensor or type(x) is nn.Parameter) and x.is_meta for x in some)


@_function(functional.batch_norm)
def _batch_norm(
    perform: Perform,
    x: Any,
    mean: Any,
    variance: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if training or not _is_meta(x):
        return None
    return normalised(x, (weight, bias, mean, variance), momentum, eps, perform)


def _of_two(func: Any) -> Callable[..., Tensor | None]:
    def combined(perform: Perform, *args: Any, **kwargs: Any) -> Tensor | None:
        if kwargs or len(args) != 2 or not _is_meta(args[0]):
            return None
        x, y = args
        if type(y) is float or type(y) is int:
            return perform(func, args, {}, [x])
        return perform(func, args, {}, [x, y]) if _is_meta(y) else None

    return combined


for _name in ("add", "sub", "mul", "div"):
    _function(getattr(Tensor, _name), getattr(torch, _name))(_of_two(getattr(_ATEN, _name).Tensor))


@_function(Tensor.transpose, torch.transpose)
def _transpose(perform: Perform, *args: Any, **kwargs: Any) -> Tensor | None:
    if kwargs or len(args) != 3 or not _is_meta(args[0]):
        return None
    return perform(_ATEN.transpose.int, args, {}, [args[0]])


@_function(Tensor.view)
def _view(perform: Perform, x: Any, *sizes: Any, **kwargs: Any) -> Tensor | None:
    if kwargs or not sizes or not _is_meta(x):
        return None
    shape = list(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes)
    if not all(isinstance(size, int) for size in shape):
        return None
    return perform(_ATEN.view.default, (x, shape), {}, [x])


@_function(Tensor.reshape, torch.reshape)
def _reshape(perform: Perform, x: Any, *sizes: Any, **kwargs: Any) -> Tensor | None:
    return _view(perform, x, *sizes, **kwargs) if _is_meta(x) and x.is_contiguous() else None


@_function(functional.dropout)
def _dropout(perform: Perform, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    return x if not training and 0.0 <= p <= 1.0 and _is_meta(x) else None


def _factors(*some: Any) -> bool:
    """Whether these are activations of one type, of at least three axes, whose leading axes are alike."""
    first = some[0]
    if not _is_meta(*some) or first.dim() < 3 or not first.is_floating_point():
        return False
    lead = first.shape[:-2]
    return all(x.dtype == first.dtype and x.shape[:-2] == lead and x.numel() > 0 for x in some)


@_function(torch.matmul, Tensor.matmul)
def _matmul(perform: Perform, a: Any, b: Any) -> Tensor | None:
    if not _factors(a, b) or a.shape[-1] != b.shape[-2]:
        return None
    return perform(_ATEN.matmul.default, (a, b), {}, [a, b])


def _repeated(perform: Perform, x: Tensor, times: int) -> Tensor:
    """Every head so many times, as PyTorch does it."""
    *lead, heads, rows, width = x.shape
    x = perform(_ATEN.unsqueeze.default, (x, len(lead) + 1), {}, [x])
    x = perform(_ATEN.expand.default, (x, [*lead, heads, times, rows, width]), {}, [x])
    x = perform(_ATEN.clone.default, (x,), {"memory_format": torch.contiguous_format}, [x])
    return perform(_ATEN.view.default, (x, [*lead, heads * times, rows, width]), {}, [x])


@_function(functional.scaled_dot_product_attention)
def _attention(
    perform: Perform,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if dropout_p or not _factors(key, value) or not _factors(query) or query.dtype != key.dtype:
        return None
    *lead, rows, width = query.shape
    # Heads that share a key get copies of it.
    times = max(1, lead[-1] // key.shape[-3]) if enable_gqa else 1
    if [*key.shape[:-3], key.shape[-3] * times] != lead or key.shape[-1] != width or key.shape[-2] != value.shape[-2]:
        return None
    if attn_mask is not None:
        scores = (*lead, rows, key.shape[-2])
        if is_causal or type(attn_mask) is not Tensor or attn_mask.dtype not in (torch.bool, query.dtype):
            return None
        wide = zip(reversed(attn_mask.shape), reversed(scores))
        if attn_mask.dim() > len(scores) or any(n not in (1, m) for n, m in wide):
            return None
    if times > 1:
        key, value = _repeated(perform, key, times), _repeated(perform, value, times)
    # What PyTorch works out of the width of a head is a number that the code computes with.
    scale = width**-0.5 if scale is None else scale
    args = (query, key, value, attn_mask, 0.0, is_causal)
    return perform(
        _ATEN.scaled_dot_product_attention.default, args, {"scale": scale}, given(query, key, value, attn_mask)
    )
