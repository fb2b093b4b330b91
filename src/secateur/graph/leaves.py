"""PyTorch's own layers, asked for their operations without PyTorch in between.

A convolution, a batch norm or an activation asks for one ATen operation, and half of the time of a pass went into the
way from the layer to that operation: checks in Python, the dispatcher, the dispatch mode. The functions here name the
operations, with the arguments that the dispatcher would give, and the pass does with them what it does with any other.

They serve unmodified classes on plain meta tensors in evaluation mode. Where PyTorch would do anything else, refuse for
instance, they give ``None``, and the layer's own ``forward`` runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_ATEN = torch.ops.aten

#: Runs an operation: ``perform(func, args, kwargs, tensors in them)``.
Perform = Callable[[Any, tuple, dict, list[Tensor]], Any]
#: What a layer does to its one input; ``None`` where its own ``forward`` has to say.
Leaf = Callable[[Any, Tensor, Perform], Tensor | None]
LEAVES: dict[type, Leaf] = {}
#: Runs a layer: ``layer(path, module, what it does, its input)``, and gives back what the leaf does.
RunLayer = Callable[[str, nn.Module, Leaf, Tensor], Tensor | None]

_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.Python)
for _key in (torch._C.DispatchKey.PythonTLSSnapshot, torch._C.DispatchKey.ADInplaceOrView):
    _KEYS = _KEYS.add(_key)


#: A context in which tensors are looked at without those hearing of it who listen to PyTorch's functions.
unheard = torch._C.DisableTorchFunction


def undispatched() -> Any:
    """A context in which operations run as they do within a dispatch mode: no mode sees them."""
    return torch._C._ExcludeDispatchKeyGuard(_KEYS)


def leaf_of(module: nn.Module) -> Leaf | None:
    """What a layer does; ``None`` where it is none of PyTorch's own, or somebody gave it a forward of another."""
    leaf = LEAVES.get(type(module))
    return leaf if leaf is not None and "forward" not in module.__dict__ else None


def shortcut(
    path: str, module: nn.Module, leaf: Leaf, run: RunLayer, forward: Callable[..., Any]
) -> Callable[..., Any]:
    """A ``forward`` that runs the layer where it can be run directly, and ``forward`` elsewhere."""

    def direct(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and type(x := args[0]) is Tensor and not module.training:
            with unheard():
                output = run(path, module, leaf, x) if x.is_meta else None
            if output is not None:
                return output
        return forward(*args, **kwargs)

    # Code that reads the signature of a forward finds the real one.
    direct.__wrapped__ = forward  # type: ignore[attr-defined]
    return direct


@contextlib.contextmanager
def shortcuts(modules: Iterable[tuple[str, nn.Module]], run: RunLayer) -> Iterator[None]:
    """While this is entered, PyTorch's own layers among the modules run directly."""
    shadowed = []
    for path, module in modules:
        if (leaf := leaf_of(module)) is not None:
            module.__dict__["forward"] = shortcut(path, module, leaf, run, module.forward)
            shadowed.append(module)
    try:
        yield
    finally:
        for module in shadowed:
            del module.__dict__["forward"]


def _leaf(*kinds: type) -> Callable[[Leaf], Leaf]:
    def register(function: Leaf) -> Leaf:
        LEAVES.update(dict.fromkeys(kinds, function))
        return function

    return register


def given(*some: Tensor | None) -> list[Tensor]:
    return [t for t in some if t is not None]


@_leaf(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation
    if layer.padding_mode != "zeros" or not type(stride) is type(padding) is type(dilation) is tuple:
        return None
    shape, kernel = x.shape, weight.shape
    if len(shape) != len(kernel) or shape[1] != kernel[1] * layer.groups or x.dtype != weight.dtype:
        return None
    args = (x, weight, bias, list(stride), list(padding), list(dilation), False, [0] * len(stride), layer.groups)
    return perform(_ATEN.convolution.default, args, {}, given(x, weight, bias))


_DIMS = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}


@_leaf(*_DIMS)
def batch_norm(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    parameters, buffers = layer._parameters, layer._buffers
    vectors = parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]
    if x.dim() not in _DIMS[type(layer)]:
        return None
    return normalised(x, vectors, layer.momentum or 0.0, layer.eps, perform)


def normalised(x: Tensor, vectors: tuple, momentum: float, eps: float, perform: Perform) -> Tensor | None:
    """A batch norm by its running statistics; ``vectors`` are weight, bias, mean and variance."""
    if x.dim() < 2 or vectors[2] is None or vectors[3] is None:
        return None
    channels = x.shape[1:2]
    for t in vectors:
        if t is not None and t.shape != channels:
            return None
    return perform(_ATEN.native_batch_norm.default, (x, *vectors, False, momentum, eps), {}, given(x, *vectors))[0]


@_leaf(nn.LayerNorm)
def layer_norm(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    weight, bias, shape = layer._parameters["weight"], layer._parameters["bias"], layer.normalized_shape
    if type(shape) is not tuple or tuple(x.shape[-len(shape) :]) != shape or (weight is None) != (bias is None):
        return None
    if weight is not None and not tuple(weight.shape) == tuple(bias.shape) == shape:
        return None
    args = (x, list(shape), weight, bias, layer.eps)
    return perform(_ATEN.native_layer_norm.default, args, {}, given(x, weight, bias))[0]


@_leaf(nn.Linear)
def linear(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    weight, bias, shape = layer._parameters["weight"], layer._parameters["bias"], x.shape
    if len(shape) < 2 or shape[-1] != weight.shape[1] or x.dtype != weight.dtype or not x.numel():
        return None
    if bias is None:
        return perform(_ATEN.linear.default, (x, weight), {}, [x, weight])
    if bias.shape != weight.shape[:1]:
        return None
    return perform(_ATEN.linear.default, (x, weight, bias), {}, [x, weight, bias])


def _activation(func: Any, in_place: Any = None, *settings: str) -> Leaf:
    def activation(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
        writes = layer.__dict__.get("inplace", False)
        if writes and in_place is None:
            return None
        numbers = [getattr(layer, name) for name in settings]
        return perform(in_place if writes else func, (x, *numbers), {}, [x])

    return activation


LEAVES.update(
    {
        nn.ReLU: _activation(_ATEN.relu.default, _ATEN.relu_.default),
        nn.ReLU6: _activation(_ATEN.hardtanh.default, _ATEN.hardtanh_.default, "min_val", "max_val"),
        nn.Hardtanh: _activation(_ATEN.hardtanh.default, _ATEN.hardtanh_.default, "min_val", "max_val"),
        nn.SiLU: _activation(_ATEN.silu.default, _ATEN.silu_.default),
        nn.Mish: _activation(_ATEN.mish.default, _ATEN.mish_.default),
        nn.Hardswish: _activation(_ATEN.hardswish.default, _ATEN.hardswish_.default),
        nn.Hardsigmoid: _activation(_ATEN.hardsigmoid.default, _ATEN.hardsigmoid_.default),
        nn.Sigmoid: _activation(_ATEN.sigmoid.default),
        nn.Tanh: _activation(_ATEN.tanh.default),
    }
)


@_leaf(nn.LeakyReLU)
def leaky_relu(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    # The dispatcher leaves out an argument that has its default.
    slope = () if layer.negative_slope == 0.01 else (layer.negative_slope,)
    return perform(_ATEN.leaky_relu_.default if layer.inplace else _ATEN.leaky_relu.default, (x, *slope), {}, [x])


@_leaf(nn.GELU)
def gelu(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    how = {} if layer.approximate == "none" else {"approximate": layer.approximate}
    return perform(_ATEN.gelu.default, (x,), how, [x])


@_leaf(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
def nothing(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    return x


def _two(size: Any) -> list:
    return list(size) if isinstance(size, (tuple, list)) else [size, size]


@_leaf(nn.MaxPool2d)
def max_pool(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    if x.dim() != 4 or layer.return_indices:
        return None
    sizes = (_two(n) for n in (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    return perform(_ATEN.max_pool2d_with_indices.default, (x, *sizes, layer.ceil_mode), {}, [x])[0]


@_leaf(nn.AvgPool2d)
def avg_pool(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    if x.dim() != 4:
        return None
    sizes = (_two(n) for n in (layer.kernel_size, layer.stride, layer.padding))
    args = (x, *sizes, layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
    return perform(_ATEN.avg_pool2d.default, args, {}, [x])


@_leaf(nn.AdaptiveAvgPool2d)
def adaptive_avg_pool(layer: Any, x: Tensor, perform: Perform) -> Tensor | None:
    size = _two(layer.output_size)
    # Images in another order of memory get back their order in a further operation.
    if x.dim() != 4 or not x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) or None in size:
        return None
    if size == [1, 1]:
        return perform(_ATEN.mean.dim, (x, [-1, -2], True), {}, [x])
    return perform(_ATEN._adaptive_avg_pool2d.default, (x, size), {}, [x])
