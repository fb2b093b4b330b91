"""Does the model's own code handle a size at all?

Where it does not, nothing in it can disagree with a cut, and the dry run of ``dry_run.py`` has nothing to find: the
layers of PyTorch follow their parameters, and what a network of convolutions does between them (add, multiply,
concatenate, flatten, average) takes every size from its tensors. This is known by listening to the calls of PyTorch's
functions on the way down: one that reads a size of an activation, or is given one, is on no list here.

Who listens can answer, too: functions of ``leaves.FUNCTIONS`` run here without PyTorch in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ARITHMETIC = (
    *("add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__rsub__", "__isub__"),
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_", "__truediv__", "__rtruediv__", "__itruediv__"),
    *("neg", "__neg__", "pow", "__pow__", "square", "sqrt", "rsqrt", "abs", "exp", "log", "clamp", "clamp_"),
    *("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm"),
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
    *("contiguous", "clone", "detach", "to", "float", "double", "half", "type_as", "_assert"),
)
#: Functions whose result has the size that their tensors have, but for axes that are named by their place.
_SIZELESS = frozenset((*_ARITHMETIC, *_ACTIVATIONS, *_NORMS, *_POOLS, *_MOVES))
#: What may be asked of any tensor.
_ABOUT_NO_SIZE = frozenset(
    ("dtype", "device", "ndim", "layout", "is_meta", "is_cuda", "is_quantized", "is_sparse", "requires_grad", "data")
)
_CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d"))
_RESHAPES = frozenset(("view", "reshape"))
_READ_SIZES = frozenset(("size", "dim", "numel", "__len__"))


class SizeWatch(TorchFunctionMode):
    """Listens while a model runs.

    Attributes:
        handled: whether the model's code read a size that a cut may change, or gave one to a function.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        path: Callable[[], str],
        labelled: Callable[[Tensor], bool],
        direct: Callable[[Any, tuple, dict], Tensor | None],
        run: Callable[[Any, tuple, dict], Any],
    ):
        """Args:
        modules: of the model that runs, by their paths.
        path: of the module whose code is running.
        labelled: whether a cut may change the size of a tensor.
        direct: runs a function directly, or gives ``None`` where PyTorch has to.
        run: runs any that may handle a size.
        """
        super().__init__()
        self.handled = False
        self._modules, self._path, self._labelled, self._direct, self._run = modules, path, labelled, direct, run

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if (out := self._direct(func, args, kwargs)) is not None:
            return out
        if (name := func.__name__) in _SIZELESS:
            return func(*args, **kwargs)
        self.handled = self.handled or not self._is_sizeless(name, func, args, kwargs)
        return self._run(func, args, kwargs)

    def _is_sizeless(self, name: str, func: Any, args: tuple, kwargs: dict) -> bool:
        if name == "__get__":
            what = func.__self__.__name__
            return what in _ABOUT_NO_SIZE or (what == "shape" and not self._labelled(args[0]))
        if name in _READ_SIZES:
            return not self._labelled(args[0])
        if name in _RESHAPES:
            # A vector of channels is brought into line with an image.
            return not kwargs and all(type(n) is int and n in (1, -1) for n in args[1:])
        if name in _CONVOLUTIONS:
            return (args[6] if len(args) > 6 else kwargs.get("groups", 1)) == 1
        if name == "layer_norm":
            # Layers that derive from PyTorch's, whose shape the trace keeps in line.
            shape = args[1] if len(args) > 1 else kwargs.get("normalized_shape")
            return shape is getattr(self._modules.get(self._path()), "normalized_shape", None)
        return False
