"""The skeleton: a model's modules with other tensors, run under watch, while the model itself stays as it is."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch._higher_order_ops.cond import cond_op
from torch._ops import HigherOrderOperator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from secateur._errors import InputError
from secateur.graph.adapters import adapt_module, has_own_modes, plain_module
from secateur.graph.clone import Copy, Mould, modules_of
from secateur.graph.leaves import RunLayer, leaf_of, shortcut
from secateur.graph.recurrent import begin_like_input

_OURS = tuple(os.path.join(os.path.dirname(os.path.dirname(__file__)), room) + os.sep for room in ("graph", "surgery"))
_TORCH = os.path.dirname(torch.__file__) + os.sep
_META = torch.device("meta")


@cache
def is_model_code(file: str) -> bool:
    """Whether a source file is the model's own: neither PyTorch's nor part of the engine."""
    # What ``torch.fx`` writes has no file.
    return not file.startswith((*_OURS, _TORCH, "<")) or file.startswith("<eval_with_key>")


def skeleton_of(mould: Mould, change: Callable[[str, Tensor], Tensor]) -> Copy:
    """The model's modules in evaluation mode with ``change(name, tensor)`` in place of every tensor."""
    skeleton = mould.cast(change)
    configured: dict[int, nn.Module] = {}
    for _, module in skeleton.modules:
        adapt_module(module)
        if (config := module.__dict__.get("config")) is not None:
            configured.setdefault(id(config), module)
        if isinstance(module, nn.RNNBase):
            begin_like_input(module)
    # All modules mostly share one configuration, which takes its time to be asked.
    for module in configured.values():
        plain_module(module)
    _in_evaluation(skeleton)
    return skeleton


def _in_evaluation(skeleton: Copy) -> None:
    """``eval()``, without its recursion where no module has an own way."""
    if any(has_own_modes(module) for _, module in skeleton.modules):
        skeleton.model.eval()
        return
    for _, module in skeleton.modules:
        module.__dict__["training"] = False


def without_numbers(name: str, tensor: Tensor) -> Tensor:
    """The tensor on the meta device; one of integers keeps its numbers, if it has any: code may look at them."""
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.to("cpu") if is_whole and not tensor.is_meta else tensor.to(_META)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Attention as products and a softmax, a recurrent layer as its steps, so that labels can be followed through."""
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Label tensors are small: waking threads for them costs more than it saves, far more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Python's search for reference cycles waits until the end.

    While thousands of small objects are made, it would go through every object of every library again and again.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


#: Whoever has loaded these has code that PyTorch would compile. To ask without need takes a second.
_COMPILING = {"torch._dynamo", "torch.nn.attention.flex_attention"}


class Dispatch(TorchDispatchMode, ABC):
    """A dispatch mode that PyTorch does not wrap for its compiler: that would import the compiler (over a second).

    An operation that is given functions (a condition, a loop, an attention with scores of its own) is replaced by what
    it is made of, so that only plain operations pass by. PyTorch would compile some of these first, with all modes.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self._eagerly: list[contextlib.AbstractContextManager] = []

    def __enter__(self) -> Any:
        if sys.modules.keys() & _COMPILING:
            self._eagerly.append(torch.compiler.set_stance("force_eager"))
        else:
            self._eagerly.append(contextlib.nullcontext())
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._eagerly.pop().__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self._steps(func, args, kwargs or {})
        return self.passes(func, args, kwargs or {})

    def _steps(self, func: HigherOrderOperator, args: tuple, kwargs: dict) -> Any:
        """Run what an operation is made of, under this mode."""
        steps = func.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
        if steps is None:
            raise InputError(f"nothing is known of what {func.name()} does with the functions that it is given")
        with self:
            if func is cond_op:
                # Its own steps are asked for without any mode.
                chosen, yes, no, operands = args
                return (yes if chosen else no)(*operands)
            return steps(*args, **kwargs)

    @abstractmethod
    def passes(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run an operation that the code asks for."""


class ModuleStack:
    """Whose code is running? While the stack is entered, :attr:`path` is the path of that module.

    Every module's ``forward`` is shadowed by one that notes its coming and going: far cheaper than hooks, which make
    each call of a module take PyTorch's slow path, and it also sees modules whose ``forward`` is called directly.
    """

    def __init__(
        self,
        model: nn.Module | Copy,
        entered: Callable[[str, tuple, dict], None] | None = None,
        left: Callable[[str, Any], None] | None = None,
        layer: RunLayer | None = None,
    ):
        """Args:
        entered: called with the path of a module and what it is given.
        left: called with its path and what it gives back.
        layer: runs PyTorch's own layers (see ``leaves.py``), of which the other two then hear nothing.
        """
        self._modules = model.modules if isinstance(model, Copy) else modules_of(model)
        self.paths: list[str] = [""]
        self._entered, self._left, self._layer = entered, left, layer

    @property
    def path(self) -> str:
        return self.paths[-1]

    def __enter__(self) -> ModuleStack:
        self._shadowed: list[tuple[nn.Module, Any]] = []
        for name, module in self._modules:
            if not isinstance(module, torch.jit.ScriptModule):
                self._shadowed.append((module, module.__dict__.get("forward")))
                shadow = self._watched(name, module.forward)
                if self._layer is not None and (leaf := leaf_of(module)) is not None:
                    shadow = shortcut(name, module, leaf, self._layer, shadow)
                module.__dict__["forward"] = shadow
        return self

    def _watched(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        paths, entered, left = self.paths, self._entered, self._left

        def watched(*args: Any, **kwargs: Any) -> Any:
            paths.append(name)
            try:
                if entered is not None:
                    entered(name, args, kwargs)
                output = forward(*args, **kwargs)
                if left is not None:
                    left(name, output)
                return output
            finally:
                paths.pop()

        # Code that reads the signature of a forward finds the real one.
        watched.__wrapped__ = forward  # type: ignore[attr-defined]
        return watched

    def __exit__(self, *error: Any) -> None:
        for module, before in self._shadowed:
            if before is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = before
