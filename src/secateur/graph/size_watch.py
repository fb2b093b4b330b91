"""Which calls of the model's own code may handle a size?

The layers of PyTorch follow their parameters, and what most networks do between them (add, multiply, concatenate,
flatten, average) takes every size from its tensors: nothing in that can disagree with a cut. This is known by listening
to the calls of PyTorch's functions on the way down. One that reads a size of an activation, or is given one, is on no
list here, and ``sources.py`` looks at what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from secateur.graph.sourced import SourcedInt, doubt_numbers, plain

_ARITHMETIC = (
    *("add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__rsub__", "__isub__"),
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__rtruediv__", "__itruediv__"),
    *("neg", "__neg__", "pow", "__pow__", "square", "sqrt", "rsqrt", "abs", "exp", "log", "clamp", "clamp_"),
    *("maximum", "minimum", "where", "lerp", "sin", "cos", "erf", "floor", "ceil", "round"),
    *("masked_fill", "masked_fill_"),
    *("eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "embedding"),
)
_ACTIVATIONS = (
    *("relu", "relu_", "relu6", "gelu", "silu", "silu_", "mish", "elu", "leaky_relu", "leaky_relu_", "hardtanh"),
    *("hardswish", "hardsigmoid", "sigmoid", "sigmoid_", "tanh", "softplus", "softmax", "log_softmax"),
    *("dropout", "dropout_", "dropout2d", "alpha_dropout", "feature_dropout"),
)
_NORMS = ("batch_norm", "instance_norm", "normalize", "mean", "sum", "amax", "amin", "var", "std")
_POOLS = (
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
)
_MOVES = (
    *("cat", "concat", "concatenate", "stack", "flatten", "permute", "transpose", "movedim", "t", "unsqueeze"),
    *("contiguous", "clone", "detach", "to", "float", "double", "half", "type_as", "_assert", "dim"),
)
#: Functions whose result has the size that their tensors have, but for axes that are named by their place.
_SIZELESS = frozenset((*_ARITHMETIC, *_ACTIVATIONS, *_NORMS, *_POOLS, *_MOVES))
#: What may be asked of any tensor.
_ABOUT_NO_SIZE = frozenset(
    ("dtype", "device", "ndim", "layout", "is_meta", "is_cuda", "is_quantized", "is_sparse", "requires_grad")
) | {"data", "T", "mT"}
#: Functions with a setting that has to follow the size of an axis: its place and name, the class of layers that pass it
#: on, the attribute that holds it there, and a value that suits any size.
_KEPT_IN_LINE: dict[str, tuple[int, str, type, str, int | None]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), (6, "groups", nn.modules.conv._ConvNd, "groups", 1)),
    "layer_norm": (1, "normalized_shape", nn.LayerNorm, "normalized_shape", None),
    "group_norm": (1, "num_groups", nn.GroupNorm, "num_groups", 1),
}
_RESHAPES = frozenset(("view", "reshape"))


class SizeWatch(TorchFunctionMode):
    """Listens while a model runs, and hands on to ``sources`` what may handle a size."""

    def __init__(
        self,
        modules: dict[str, nn.Module],
        path: Callable[[], str],
        call: Callable[[Any, tuple, dict], Any],
        run: Callable[[Any, tuple, dict], Any],
    ):
        """Args:
        modules: of the model that runs, by their paths.
        path: of the module whose code is running.
        call: calls a function.
        run: calls one that may handle a size.
        """
        super().__init__()
        self._modules, self._path, self._call, self._run = modules, path, call, run

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name in _SIZELESS:
            # A size may still be among the numbers that it computes with.
            doubt_numbers((args, kwargs))
            return self._call(func, args, kwargs)
        if self._is_sizeless(name, func, args, kwargs):
            # What PyTorch itself checks about a number is no doubt.
            return self._call(func, tuple([plain(a) if type(a) is SourcedInt else a for a in args]), kwargs)
        return self._run(func, args, kwargs)

    def _is_sizeless(self, name: str, func: Any, args: tuple, kwargs: dict) -> bool:
        if name == "__get__":
            return func.__self__.__name__ in _ABOUT_NO_SIZE
        if name in _RESHAPES:
            # A vector of channels is brought into line with an image.
            return not kwargs and all(type(n) is int and n in (1, -1) for n in args[1:])
        setting = _KEPT_IN_LINE.get(name)
        if setting is None:
            return False
        # Layers of PyTorch, or such that derive from them, whose settings the trace keeps in line.
        place, word, kind, attribute, harmless = setting
        given = args[place] if len(args) > place else kwargs.get(word, harmless)
        layer = self._modules.get(self._path())
        return (type(given) is int and given == harmless) or (
            isinstance(layer, kind) and given is getattr(layer, attribute, None)
        )
