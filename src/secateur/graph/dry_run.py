"""The dry run: does the model's own code follow a cut?

The labels say what shape every tensor should have after a cut. Here the skeleton is cut at random and run, and every
shape is held against that. Numbers that the code works out of a size (the ``d ** -0.5`` of an attention) are compared,
too: the cut model would be another function.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.graph import sizes
from secateur.graph.attribute_watch import Attribute, listen
from secateur.graph.capture import Capture
from secateur.graph.classes import Classes
from secateur.graph.following import name_of, numbers, span
from secateur.graph.functions import COMPOSED, Functions, call_function
from secateur.graph.groups import Group
from secateur.graph.labels import compressed, line, span_of, varying
from secateur.graph.leaves import Leaf, shortcuts, undispatched
from secateur.graph.ledger import AxisRef, Ledger, Literal
from secateur.graph.memos import nothing_remembered
from secateur.graph.rules import argument
from secateur.graph.skeleton import Dispatch, is_model_code, plain_kernels, skeleton_of, without_numbers
from secateur.graph.training_parts import in_training
from secateur.graph.trees import copied, output_tensors, tensors

_RESHAPES = {"view", "_unsafe_view", "clone", "expand", "alias", "unsqueeze", "squeeze"}
_MOVES = {*_RESHAPES, "permute", "transpose", "t"}


@dataclass(frozen=True)
class Failure:
    """Where a dry run left the expected path: at which operation, in which line, and how.

    ``number`` says that it did so with a value that it had worked out of a size, so every shape is right.
    """

    index: int
    line: str
    what: str
    number: bool = False


class _Disagreement(Exception):
    pass


class _OtherNumber(_Disagreement):
    pass


class _FarEnough(BaseException):
    """No error: code of the model that catches those lets it pass."""


class RandomCut:
    """A random choice of units of every free group, and the sizes that follow from it.

    Args:
        only: numbers of the groups to cut; all that are free where it is not given.

    Attributes:
        alive: which classes live.
    """

    def __init__(
        self, classes: Classes, groups: list[Group], group_of: np.ndarray, seed: int, only: set[int] | None = None
    ):
        self.classes = classes
        self.alive = np.ones(len(group_of), dtype=bool)
        self._living: dict[tuple, tuple[int, ...]] = {}
        self._shapes: dict[tuple[int, tuple[int, ...]], tuple[int, ...]] = {}
        rng = np.random.default_rng(seed)
        by_group = np.argsort(group_of, kind="stable")
        first = np.searchsorted(group_of, np.arange(len(groups)), sorter=by_group).tolist()
        met: Counter[int] = Counter()
        for k, group in enumerate(groups):
            if group.locked or group.width < 2 or (only is not None and k not in only):
                continue
            # Groups of one width lose different numbers, so that a size taken from the wrong one is noticed.
            turn = met[group.width] + seed
            met[group.width] += 1
            offset = (turn + 1) // 2 * (1 if turn % 2 else -1)
            if group.width == 2:
                gone = (turn + 1) % 2
            else:
                # At least two stay where that can be: axes of length one are dropped on the way by some code.
                gone = 1 + (group.width // 2 - 1 + offset) % max(1, group.width - 2)
            gone = min(gone, group.width - group.least)
            # What goes lies towards one end, for another seed towards the other: no equal shares of an axis suit both.
            reach = min(group.width, gone + gone // 3)
            places = rng.permutation(reach)[:gone] + (first[k] if seed % 2 else first[k] + group.width - reach)
            self.alive[by_group[places]] = False
        self.labels = self.alive[classes.of]
        self._kept: dict[str, dict[int, np.ndarray]] | None = None

    def kept(self, ledger: Ledger) -> dict[str, dict[int, np.ndarray]]:
        """For every tensor that shrinks, the indices that stay on each shrinking axis."""
        if self._kept is None:
            self._kept = sizes.slices(ledger.axes, self.labels)
        return self._kept

    def lengths(self, system: Tensor) -> Iterable[tuple[int, int]]:
        """How many indices live on each axis along which a system varies."""
        labels = line(system)
        key = span_of(labels) or (labels.data_ptr(), labels.shape, labels.stride())
        if key not in self._living:
            here = self.labels[labels.numpy()]
            if here.ndim == 1:
                self._living[key] = (int(np.count_nonzero(here)),)
            else:
                axes = range(here.ndim)
                living = [here.any(axis=tuple(i for i in axes if i != k)) for k in axes]
                self._living[key] = tuple(int(np.count_nonzero(some)) for some in living)
        return zip(varying(system), self._living[key])

    def shape(self, dense: tuple[int, ...], systems: tuple[Tensor, ...]) -> tuple[int, ...]:
        """The shape of a tensor after the cut."""
        # Layers behind one another share their systems.
        key = (id(systems), dense)
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = self._shape(dense, systems)
        return found

    def _shape(self, dense: tuple[int, ...], systems: tuple[Tensor, ...]) -> tuple[int, ...]:
        result = list(dense)
        shared = set()
        for system in systems:
            for axis, length in self.lengths(system):
                if result[axis] != dense[axis] and length != dense[axis]:
                    shared.add(axis)
                result[axis] = min(result[axis], length)
        for axis in shared:
            result[axis] = self.before(systems, axis, dense[axis])
        return tuple(result)

    def before(self, systems: tuple[Tensor, ...], axis: int, index: int) -> int:
        """How many of the first ``index`` places of an axis live."""
        here = np.ones(index, dtype=bool)
        for system in systems:
            own = varying(system)
            if axis in own:
                alive = np.moveaxis(self.labels[compressed(system, own).numpy()], own.index(axis), 0)
                here &= np.any(alive[:index], axis=tuple(range(1, alive.ndim)))
        return int(here.sum())

    def extent(self, ref: AxisRef) -> int:
        """How many indices of an axis live."""
        lines = self.classes.lines(ref)
        return math.prod(int(self.alive[line].sum()) for line in lines) if lines else ref.size


class _Check(Dispatch):
    """Compares every labelled result with what the labels say."""

    def __init__(self, recorded: Capture, cut: RandomCut, last: int | None = None):
        super().__init__()
        self.recorded, self.cut, self.last = recorded, cut, last
        self.index = 0
        self.diverged = False

    def passes(self, func: Any, args: tuple, kwargs: dict) -> Any:
        return self.operation(func, args, kwargs, tensors((args, kwargs)))

    def layer(self, path: str, module: nn.Module, leaf: Leaf, x: Tensor) -> Tensor | None:
        """Run one of PyTorch's own layers."""
        with undispatched():
            return leaf(module, x, self.operation)

    def call(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Call one of PyTorch's functions, directly where that can be done."""
        return call_function(func, args, kwargs, self.operation)

    def operation(self, func: Any, args: tuple, kwargs: dict, flat: list[Tensor]) -> Any:
        """Run one operation, whose tensors are ``flat``, and compare it."""
        out = self.recorded.memory(func, args, kwargs, flat)
        if self.diverged:
            return out
        operations = self.recorded.operations
        name = name_of(func)
        if name == "empty":
            return out
        if self.index >= len(operations) or operations[self.index].name != name:
            if name in _RESHAPES:
                # PyTorch reshapes in other steps where a size has become one; the next real operation is compared.
                return out
            while self.index < len(operations) and operations[self.index].name in _RESHAPES:
                self.index += 1
        if self.index >= len(operations) or operations[self.index].name != name:
            if not self.recorded.on_meta:
                # On real values the code may take another branch for the cut model; verification judges that.
                self.diverged = True
                return out
            asked = operations[min(self.index, len(operations) - 1)].name
            if asked in COMPOSED:
                raise _Disagreement(f"{asked} does not take what it is given")
            raise _Disagreement(f"runs {name} where the dense model did not")
        operation = operations[self.index]
        outs = [out] if type(out) is Tensor else tensors(out)
        for t, shape, systems in zip(outs, operation.shapes, operation.outputs):
            if not systems:
                continue
            got = t.shape
            want = self.cut.shape(shape, systems)
            if want != got:
                # What ``expand`` added carries no label and follows the code.
                want = tuple(n if stride == 0 else w for w, n, stride in zip(want, got, t.stride()))
                if not self.recorded.on_meta and len(want) == len(got):
                    # How many regions are found, say, depends on the numbers.
                    labelled = {axis for system in systems for axis in varying(system)}
                    want = tuple(w if axis in labelled else n for axis, (w, n) in enumerate(zip(want, got)))
                if want != tuple(got) and not (name in _MOVES and _same_but_ones(want, tuple(got))):
                    raise _Disagreement(f"{name} gives {tuple(got)}, the cut asks for {want}")
        self.recorded.memory.mark(outs)
        if operation.numbers:
            given = numbers(func, args, kwargs)
            if given != operation.numbers and len(given) == len(operation.numbers):
                was, now = next((a, b) for a, b in zip(operation.numbers, given) if a != b)
                raise _OtherNumber(
                    f"{name} computes with {now:.6g}, worked out of a size; before the cut it was {was:.6g}"
                )
        if operation.span is not None and operation.inputs:
            axis, *ends = operation.span
            given = span(func, args, kwargs)[1:]
            asked = tuple(self.cut.before(operation.inputs, axis, k) for k in ends)
            if given != asked:
                raise _Disagreement(f"slice takes {given[0]}:{given[1]}, the cut asks for {asked[0]}:{asked[1]}")
        for argument_name, ref in operation.counts:
            given, asked = argument(func, args, kwargs, argument_name), self.cut.extent(ref)
            if given != asked:
                raise _Disagreement(f"{name} takes {argument_name}={given}, the cut asks for {asked}")
        if self.index == self.last:
            raise _FarEnough
        self.index += 1
        return out


def _same_but_ones(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes differ only in where axes of length one lie: ``einsum`` moves those at will."""
    return [n for n in a if n > 1] == [n for n in b if n > 1]


@dataclass(frozen=True)
class Outcome:
    """What came of a dry run: where it failed, if it did, and which of the attributes listened for were read."""

    failure: Failure | None
    read: set[Attribute]


def dry_run(
    recorded: Capture,
    cut: RandomCut,
    literals: Iterable[Literal],
    attributes: Iterable[Attribute] = (),
    last: int | None = None,
) -> Outcome:
    """Run the skeleton with the cut, and literals set to what they become.

    Args:
        attributes: to listen for.
        last: the last operation that matters.
    """
    kept = cut.kept(recorded.ledger)

    def shrink(name: str, t: Tensor) -> Tensor:
        axes = kept.get(name)
        if not axes:
            return without_numbers(name, t) if recorded.on_meta else t
        if recorded.on_meta:
            shape = [len(axes[k]) if k in axes else n for k, n in enumerate(t.shape)]
            return torch.empty(shape, dtype=t.dtype, device="meta")
        for axis, indices in axes.items():
            t = t.index_select(axis, torch.as_tensor(indices, device=t.device))
        return t

    skeleton = skeleton_of(recorded.mould, shrink)
    model = skeleton.model
    for literal in literals:
        value = cut.extent(literal.axis) * literal.factor
        sizes.write(model.get_submodule(literal.module), literal.attribute, value, literal.index)
    read = listen(model, attributes)
    sizes.follow_parameters(skeleton.modules, kept)
    check = _Check(recorded, cut, last)
    args, call_kwargs = copied(recorded.inputs)
    recorded.memory.mark([*output_tensors((args, call_kwargs))])
    try:
        if recorded.callers:
            # A pass in training mode came second, and modules may count their passes. One that mixes tensors with and
            # without numbers does not run here, where nobody helps it.
            with contextlib.suppress(Exception), plain_kernels(), nothing_remembered(skeleton.modules):
                model(*args, **call_kwargs)
            args, call_kwargs = copied(recorded.inputs)
        with (
            in_training(model, recorded.callers),
            plain_kernels(),
            nothing_remembered(skeleton.modules),
            shortcuts(skeleton.modules, check.layer),
            Functions(check.call),
            check,
        ):
            model(*args, **call_kwargs)
    except _FarEnough:
        pass
    except Exception as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        index = min(check.index, len(recorded.operations) - 1)
        return Outcome(Failure(index, _source(error), what, isinstance(error, _OtherNumber)), read)
    return Outcome(None, read)


def _source(error: BaseException) -> str:
    """The last line of the model's own code in a traceback."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_model_code(file):
            found = f"{file.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
