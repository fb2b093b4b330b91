"""The dispatch mode under which labels follow every activation through one pass of a model."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from secateur._errors import InputError
from secateur.graph.aliases import told_of_parameters
from secateur.graph.blocks import FOLLOWED, Trails
from secateur.graph.clone import Copy
from secateur.graph.doubts import Doubts
from secateur.graph.functions import call_function
from secateur.graph.labels import FIXED, Labels, varying
from secateur.graph.leaves import Leaf, undispatched, unheard
from secateur.graph.ledger import AxisRef, Ledger, Literal, Site
from secateur.graph.memos import nothing_remembered
from secateur.graph.meta import MADE, MetaMemory
from secateur.graph.rules import EXPLAINING, argument, lookup
from secateur.graph.rules.experts import LOOKING_UP, PASSING, WRITING
from secateur.graph.size_watch import SizeWatch
from secateur.graph.skeleton import Dispatch, ModuleStack, is_model_code, plain_kernels
from secateur.graph.sources import Sources, line_of
from secateur.graph.trees import copied, output_tensors, tensors

_ATTRIBUTE = "_secateur_labels"
_POINTS_AT = "_secateur_points_at"


class Operation(NamedTuple):
    """One ATen operation that ran.

    Attributes:
        name: without overload.
        module: path of the module whose code ran it.
        ordinal: how many operations of that name this module had run before.
        shapes: of its results.
        outputs: label systems of its results.
        inputs: label systems of its tensor arguments, all in one.
        numbers: numbers that it was given as values.
        span: of a slice: the axis, the first index and the one behind the last.
        counts: arguments, by name, that have to be the length of an axis (the groups of a group norm).
    """

    name: str
    module: str
    ordinal: int
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[Tensor, ...], ...]
    inputs: tuple[Tensor, ...]
    numbers: tuple[float, ...]
    span: tuple[int, int, int] | None
    counts: tuple[tuple[str, AxisRef], ...]


#: Operations whose numbers are values, not sizes: one that depends on a width makes another function of the cut model.
_OF_VALUES = {"full", "full_like", "new_full", "fill", "fill_", "scalar_tensor", "scaled_dot_product_attention"}


@cache
def name_of(func: Any) -> str:
    """The name of an operation without its overload."""
    return func.overloadpacket.__name__


@cache
def takes_numbers(func: Any) -> bool:
    """Whether an operation takes numbers as values."""
    return torch.Tag.pointwise in func.tags or name_of(func) in _OF_VALUES


def numbers(func: Any, args: tuple, kwargs: dict) -> tuple[float, ...]:
    """The numbers given to an operation that takes them as values, also from real tensors of one element.

    In a pass over real tensors only those count that no operation made: PyTorch wraps Python numbers that way.
    """
    found = []
    for value in (*args, *kwargs.values()):
        kind = type(value)
        if kind is float or kind is int:
            found.append(value)
        elif isinstance(value, Tensor) and not value.is_meta and value.numel() == 1 and not hasattr(value, MADE):
            found.append(value.item())
    return tuple(found)


def span(func: Any, args: tuple, kwargs: dict) -> tuple[int, int, int]:
    """The axis of a slice, its first index and the one behind its last."""
    size = args[0].shape[axis := argument(func, args, kwargs, "dim", 0) % args[0].dim()]
    start, end = argument(func, args, kwargs, "start"), argument(func, args, kwargs, "end")
    first, last = (min(max(k + size if k < 0 else k, 0), size) for k in (start or 0, size if end is None else end))
    return axis, first, last


class Run(Dispatch):
    """The dispatch mode under which the skeleton runs; rules read and write labels through it."""

    def __init__(self, ledger: Ledger, skeleton: Copy, perform: MetaMemory):
        super().__init__()
        self.ledger = ledger
        ledger.here = self.where
        self.perform = perform
        self.trails = Trails()
        self.stack = ModuleStack(skeleton, self.entered, self.left, self.layer)
        self.entering: dict[str, list[Tensor]] = {}
        self.operations: list[Operation] = []
        self._counts: dict[tuple[str, str], int] = {}
        #: Of operations: name, rule, and whether numbers given to them are values.
        self._kinds: dict[Any, tuple[str, Any, bool]] = {}
        self.used: set[int] = set()
        # Storages that were written into: what was the same number everywhere is that no more. A weak reference
        # keeps others from their addresses.
        self._written: dict[int, StorageWeakRef] = {}
        self._pointing = False
        self._expected: list[tuple[str, AxisRef]] = []
        self._name = ""
        self._ordinal = 0
        self.doubts = Doubts()
        self.sources = Sources(ledger, self.labels, self.operations, self.frame, self.doubts, self.call)

    def close(self) -> None:
        """Let go of the skeleton: what is written down outlives it, and circles would keep it until they are found."""
        self.ledger.here = str
        del self.stack, self.sources

    @property
    def module(self) -> str:
        return self.stack.path

    def labels(self, tensor: Tensor) -> Labels:
        own = getattr(tensor, _ATTRIBUTE, FIXED)
        if own.is_uniform and self._written and tensor.untyped_storage()._cdata in self._written:
            return FIXED
        return own

    def set(self, tensor: Tensor, labels: Labels) -> None:
        setattr(tensor, _ATTRIBUTE, labels)

    def alias(self, tensor: Tensor, new: Tensor) -> None:
        """Note that a parameter was made of a tensor."""
        self.used.add(id(tensor))
        for name in (_ATTRIBUTE, _POINTS_AT):
            if (own := getattr(tensor, name, None)) is not None:
                setattr(new, name, own)

    def where(self, func: Any = None) -> str:
        """The running operation in words."""
        return f"{self.module or 'the model'} ({self._name})"

    def source(self) -> str:
        """The line of the model's own code that asked for the running operation."""
        return line_of(self.frame())

    @staticmethod
    def frame() -> types.FrameType | None:
        """The innermost frame of the model's own code."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and not is_model_code(frame.f_code.co_filename):
            frame = frame.f_back
        return frame

    def reads(self, func: Any, argument: int, systems: Sequence[Tensor], dims: Any) -> None:
        """Note that the running operation reads across labelled elements along ``dims``."""
        self._read(self._name, self._ordinal, argument, systems, dims)

    def reads_inside(self, name: str, argument: int, systems: Sequence[Tensor], dims: Any) -> None:
        """The same of an operation that PyTorch runs inside of the running one, and in a masked model for it.

        It has to be said of every one, whether it reads across units or not, because they are counted.
        """
        self._read(name, self._count(self.module, name), argument, systems, dims)

    def _read(self, name: str, ordinal: int, argument: int, systems: Sequence[Tensor], dims: Any) -> None:
        wanted = set(dims)
        crossed = tuple(s for s in systems if wanted & set(varying(s)))
        if crossed:
            self.ledger.sites.append(Site(self.module, name, ordinal, argument, tuple(sorted(wanted)), crossed))

    def _count(self, module: str, name: str) -> int:
        """Count one more operation of a name, and say how many the module had run before."""
        key = module, name
        self._counts[key] = count = self._counts.get(key, -1) + 1
        return count

    def point(self, index: Tensor, line: Tensor) -> None:
        """Note that the numbers in ``index`` are places on an axis with the labels ``line``."""
        setattr(index, _POINTS_AT, line)
        self._pointing = True

    def points_at(self, index: Any) -> Tensor | None:
        """The labels that the numbers in a tensor point at."""
        return getattr(index, _POINTS_AT, None)

    def follow(self, attribute: str, ref: AxisRef) -> None:
        """Note that an attribute of the running module, if it has it, is the length of an axis."""
        self.ledger.literals.append(Literal(self.module, attribute, ref))

    def _carry_points(self, name: str, flat: list[Tensor], outs: list[Tensor]) -> None:
        for place, t in enumerate(flat):
            line = self.points_at(t)
            if line is None or (place and name in LOOKING_UP) or name in WRITING:
                continue
            # Places that are looked up themselves are places still.
            if name in PASSING or name in LOOKING_UP:
                for out in outs:
                    setattr(out, _POINTS_AT, line)
            else:
                self.ledger.lock(line, f"indices into it are used as numbers in {self.where()}{self.source()}")

    def counts(self, name: str, attribute: str, ref: AxisRef) -> None:
        """Note that an argument of the running operation is the length of an axis; modules keep it as ``attribute``."""
        if ref.systems:
            self._expected.append((name, ref))
            self.ledger.literals.append(Literal(self.module, attribute, ref))

    def passes(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if torch._C._len_torch_function_stack():
            # Those who listen to PyTorch's functions did not hear this one.
            self.doubts.always = True
        return self.operation(func, args, kwargs, tensors((args, kwargs)))

    def operation(self, func: Any, args: tuple, kwargs: dict, flat: list[Tensor]) -> Any:
        """Run one operation, whose tensors are ``flat``, and let the labels follow it."""
        out = self.perform(func, args, kwargs, flat)
        inputs: tuple[Tensor, ...] = ()
        constant = False
        for t in flat:
            own = getattr(t, _ATTRIBUTE, FIXED)
            inputs += own.systems
            constant |= own.is_uniform and t.numel() > 1
            self.used.add(id(t))
        # Operations are slow to look up, so once is enough.
        kind = self._kinds.get(func)
        if kind is None:
            kind = self._kinds[func] = name_of(func), lookup(func), takes_numbers(func)
        name, apply, numbered = kind
        module, self._name = self.stack.paths[-1], name
        if constant and inputs and apply not in EXPLAINING:
            # A constant of a size of its own.
            self.doubts.about_systems(inputs)
        self._expected = []
        self._ordinal = self._count(module, name)
        try:
            apply(self, func, args, kwargs, out)
        except Exception as error:
            # A rule that does not understand its arguments must cost freedom, never correctness.
            reason = f"reaches {self.where()}, whose rule failed: {type(error).__name__}: {error}{self.source()}"
            self.ledger.lock_systems(inputs, reason)
        if name == "empty":
            # Nothing that anybody has to follow; PyTorch makes some on its way from a layer to its operation.
            return out
        if name[-1] == "_" and flat and (name != "fill_" or flat[0]._is_view()):
            storage = flat[0].untyped_storage()
            self._written[storage._cdata] = StorageWeakRef(storage)
        outs = [out] if type(out) is Tensor else tensors(out)
        if outs and outs[0].is_nested:
            raise InputError(f"nested tensors have no shape to follow{self.source()}\ntrace with padded ones")
        self.perform.mark(outs)
        if self._pointing:
            self._carry_points(name, flat, outs)
        if name in FOLLOWED:
            self.trails.operation(name, flat, outs)
        self.operations.append(
            Operation(
                name,
                module,
                self._ordinal,
                tuple([t.shape for t in outs]),
                tuple([getattr(t, _ATTRIBUTE, FIXED).systems for t in outs]),
                inputs,
                numbers(func, args, kwargs) if numbered else (),
                span(func, args, kwargs) if name == "slice" and argument(func, args, kwargs, "step", 1) == 1 else None,
                tuple(self._expected),
            )
        )
        return out

    def layer(self, path: str, module: nn.Module, leaf: Leaf, x: Tensor) -> Tensor | None:
        """Run one of PyTorch's own layers. None of them adds anything to what enters, so no trail begins here."""
        entering = getattr(x, _ATTRIBUTE, FIXED).systems
        self.stack.paths.append(path)
        try:
            with undispatched():
                output = leaf(module, x, self.operation)
        finally:
            self.stack.paths.pop()
        if output is not None:
            self.entering.setdefault(path, []).extend(entering)
        return output

    def call(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Call one of PyTorch's functions for the model's own code, directly where that can be done."""
        return call_function(func, args, kwargs, self.operation)

    def entered(self, module: str, args: tuple, kwargs: dict) -> None:
        """Note what enters a module."""
        with unheard():
            given = tensors((args, kwargs))
            self.entering.setdefault(module, []).extend(s for t in given for s in getattr(t, _ATTRIBUTE, FIXED).systems)
            self.trails.enter(module, *((given[0], self.labels(given[0]).systems) if given else (None, ())))

    def left(self, module: str, output: Any) -> None:
        """Note what a module gives back."""
        with unheard():
            self.trails.leave(module, output)


def follow(run: Run, skeleton: Copy, inputs: tuple[tuple, dict]) -> None:
    """Run the skeleton, once a run, while labels are followed; what it gives back is locked."""
    args, kwargs = copied(inputs)
    run.perform.mark([*output_tensors((args, kwargs))])
    watch = SizeWatch(dict(skeleton.modules), lambda: run.module, run.call, run.sources.run)
    told = told_of_parameters(run.alias)
    with plain_kernels(), nothing_remembered(skeleton.modules), told, run.stack, watch, run:
        output = skeleton.model(*args, **kwargs)
    given = list(output_tensors(output))
    if not given:
        raise InputError(f"the model gives back no tensor: {type(output).__name__}\nnothing could be proven of a cut")
    for tensor in given:
        run.ledger.lock_systems(run.labels(tensor).systems, "reaches the model's output")
        if (line := run.points_at(tensor)) is not None:
            run.ledger.lock(line, "indices into it reach the model's output")
