"""One forward pass, with labels following every activation.

The model runs once as a *skeleton*: a copy of its modules whose parameters live on the meta device, so nothing is
computed and nothing of the user's model is touched. Models that look at their values cannot run that way; those run on
the real tensors, which the skeleton then shares.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from secateur._errors import InputError
from secateur.graph.adapters import adapt, without_cache
from secateur.graph.clone import copy_with
from secateur.graph.labels import FIXED, Labels, along, varying
from secateur.graph.ledger import Ledger, ParameterAxis, Site
from secateur.graph.meta import MetaMemory
from secateur.graph.rules import lookup, output_tensors, tensors

_ATTRIBUTE = "_secateur_labels"


@dataclass(frozen=True, slots=True)
class Operation:
    """One ATen operation that ran: where, and what its first tensors carried."""

    name: str
    module: str
    ordinal: int
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[Tensor, ...], ...]
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Capture:
    """A finished pass."""

    ledger: Ledger
    operations: list[Operation]
    entering: dict[str, tuple[Tensor, ...]]
    skeleton: nn.Module
    inputs: tuple[tuple, dict]
    on_meta: bool
    memory: MetaMemory
    idle: set[str]


def as_call(example_inputs: Any) -> tuple[tuple, dict]:
    """Example inputs as positional and keyword arguments: a tensor, a tuple of arguments, or a dict of keywords."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def map_tensors(tree: Any, change: Any) -> Any:
    """A copy of nested arguments with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, (list, tuple)):
        items = [map_tensors(item, change) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {key: map_tensors(item, change) for key, item in tree.items()}
    return tree


def skeleton_of(model: nn.Module, on_meta: bool) -> nn.Module:
    """The model's modules in evaluation mode, on the meta device or sharing the model's tensors."""
    return without_cache(adapt(copy_with(model, lambda _, t: t.to("meta") if on_meta else t))).eval()


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as products and a softmax, so that labels can be followed through it."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Label tensors are small: waking threads for them costs more than it saves, far more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class ModuleStack:
    """Whose code is running? Hooks on every module of one model keep the answer in :attr:`path`."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.paths: list[str] = [""]
        self.entering: dict[str, tuple[Tensor, ...]] = {}

    @property
    def path(self) -> str:
        return self.paths[-1]

    def __enter__(self) -> ModuleStack:
        self._handles = []
        for name, module in self.model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))
        return self

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.paths.append(name)
            found = [s for t in tensors((args, kwargs)) for s in getattr(t, _ATTRIBUTE, FIXED).systems]
            self.entering[name] = (*self.entering.get(name, ()), *found)

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.paths.pop()

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()


class Dispatch(TorchDispatchMode):
    """A dispatch mode that PyTorch does not wrap for its compiler: that would import the compiler (over a second)."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Run(Dispatch):
    """The dispatch mode under which the skeleton runs; rules read and write labels through it."""

    def __init__(self, ledger: Ledger, stack: ModuleStack, perform: MetaMemory):
        super().__init__()
        self.ledger = ledger
        ledger.here = self.where
        self.perform = perform
        self.stack = stack
        self.operations: list[Operation] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rules: dict[Any, Any] = {}
        self.used: set[int] = set()
        self._name = ""
        self._ordinal = 0

    @property
    def module(self) -> str:
        return self.stack.path

    def labels(self, tensor: Tensor) -> Labels:
        return getattr(tensor, _ATTRIBUTE, FIXED)

    def set(self, tensor: Tensor, labels: Labels) -> None:
        setattr(tensor, _ATTRIBUTE, labels)

    def where(self, func: Any = None) -> str:
        """The running operation in words."""
        return f"{self.module or 'the model'} ({self._name})"

    def source(self) -> str:
        """The line of the model's own code that asked for the running operation."""
        frame = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if "/torch/" not in file and "/secateur/" not in file and not file.startswith("<"):
                return f" [{file.rsplit('/', 1)[-1]}:{frame.f_lineno}]"
            frame = frame.f_back
        return ""

    def reads(self, func: Any, argument: int, systems: Sequence[Tensor], dims: Any) -> None:
        """Note that the running operation reads across labelled elements along ``dims``."""
        wanted = set(dims)
        crossed = tuple(s for s in systems if wanted & set(varying(s)))
        if crossed:
            self.ledger.sites.append(
                Site(self.module, self._name, self._ordinal, argument, tuple(sorted(wanted)), crossed)
            )

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = self.perform(func, args, kwargs)
        self.used.update(id(t) for t in tensors((args, kwargs)))
        self._name = name = func.overloadpacket.__name__
        key = (self.module, name)
        self._ordinal = self._counts[key]
        self._counts[key] += 1
        apply = self._rules.get(func)
        if apply is None:
            apply = self._rules[func] = lookup(func)
        try:
            apply(self, func, args, kwargs, out)
        except Exception as error:
            # A rule that does not understand its arguments must cost freedom, never correctness.
            reached = [s for t in tensors((args, kwargs)) for s in self.labels(t).systems]
            reason = f"reaches {self.where()}, whose rule failed: {type(error).__name__}: {error}{self.source()}"
            self.ledger.lock_systems(reached, reason)
        outs = tuple(tensors(out))
        self.operations.append(
            Operation(
                name,
                self.module,
                self._ordinal,
                tuple(tuple(t.shape) for t in outs),
                tuple(self.labels(t).systems for t in outs),
                tuple(s for t in tensors(args) for s in self.labels(t).systems),
            )
        )
        return out


def label_parameters(ledger: Ledger, skeleton: nn.Module) -> None:
    """Fresh labels for every axis of every parameter and floating-point buffer that is longer than one."""
    done: set[int] = set()
    named = [*skeleton.named_parameters(), *skeleton.named_buffers()]
    for name, tensor in named:
        if id(tensor) in done:
            continue
        done.add(id(tensor))
        systems = []
        workable = tensor.is_floating_point() and not tensor.is_sparse and tensor.layout == torch.strided
        for axis, size in enumerate(tensor.shape):
            if size > 1 and workable:
                ledger.axes.append(ParameterAxis(name, axis, ledger.count, size))
                systems.append(along(axis, tensor.shape, ledger.take(size)))
        setattr(tensor, _ATTRIBUTE, Labels(tuple(systems), is_weight=True))


def capture(model: nn.Module, example_inputs: Any) -> Capture:
    """Run the model once and follow its labels.

    Raises:
        InputError: the model does not take the example inputs.
    """
    call = as_call(example_inputs)
    try:
        return _capture(model, call, on_meta=True)
    except Exception:
        # Whatever the meta device could not do (reading a value, an operation without a meta kernel) real tensors can.
        pass
    try:
        return _capture(model, call, on_meta=False)
    except Exception as error:
        given = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors(call))
        raise InputError(
            f"the model does not run on the example inputs: {type(error).__name__}: {str(error).splitlines()[0]}\n"
            f"given: {given or 'no tensor'}\n"
            "pass what the model's forward takes: a tensor, a tuple of arguments, or a dict of keyword arguments"
        ) from error


def _capture(model: nn.Module, call: tuple[tuple, dict], on_meta: bool) -> Capture:
    skeleton = skeleton_of(model, on_meta)
    if on_meta:
        inputs = map_tensors(call, lambda t: t.detach().to("meta"))
    else:
        device = next((p.device for p in skeleton.parameters()), torch.device("cpu"))
        inputs = map_tensors(call, lambda t: t.detach().to(device))
    ledger, memory = Ledger(), MetaMemory()
    label_parameters(ledger, skeleton)
    with plain_attention(), ModuleStack(skeleton) as stack, Run(ledger, stack, memory) as run:
        output = skeleton(*inputs[0], **inputs[1])
    unused = [(n, t) for n, t in (*skeleton.named_parameters(), *skeleton.named_buffers()) if id(t) not in run.used]
    idle = {name.rpartition(".")[0] for name, tensor in unused if isinstance(tensor, nn.Parameter)}
    for _, tensor in unused:
        ledger.lock_systems(run.labels(tensor).systems, "not used when the model runs on the example inputs")
    given = list(output_tensors(output))
    if not given:
        raise InputError(f"the model gives back no tensor: {type(output).__name__}\nnothing could be proven of a cut")
    for tensor in given:
        ledger.lock_systems(run.labels(tensor).systems, "reaches the model's output")
    return Capture(ledger, run.operations, stack.entering, skeleton, inputs, on_meta, memory, idle)
