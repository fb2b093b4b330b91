"""What could carry a model's code past the point where it does not follow a cut.

The code holds a size of its own there. Either it is an integer attribute: then that is bound to the axis (a *literal*).
Or it was read off another tensor, as in ``B, N, C = x.shape … y.reshape(B, N, C)``: then two widths are one by the
will of the code, and their units are tied. Where the code did not say which (see ``sources.py``), every attribute and
every width of the right size is a proposal. Everything here only proposes; a dry run decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from secateur.graph import sizes
from secateur.graph.capture import Capture
from secateur.graph.classes import Classes
from secateur.graph.doubts import one_size
from secateur.graph.following import Operation
from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import AxisRef, Literal

Tie = tuple[np.ndarray, np.ndarray, str]

#: How many operations in front of a failing one may have given the size that it was called with.
_LOOK_BACK = 24
_MOST_CHOICES = 12

_NONE = np.zeros(0, dtype=np.int64)

#: Operations that divide an axis at places that the code works out.
DIVIDING = {"slice", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "narrow", "as_strided"}


class Mender:
    """Proposals for one capture."""

    def __init__(self, recorded: Capture):
        self.recorded = recorded
        self._types = {name: type(module) for name, module in recorded.skeleton.named_modules()}
        self._codes = {name: self._code(name) for name in self._types}

    def kind(self, path: str) -> type:
        """The class of a module."""
        return self._types[path]

    @cached_property
    def _places(self) -> dict[tuple, list[int]]:
        places: dict[tuple, list[int]] = {}
        for k, o in enumerate(self.recorded.operations):
            places.setdefault(self._place(o), []).append(k)
        return places

    def _place(self, operation: Operation) -> tuple:
        return *self._codes[operation.module], operation.name, operation.ordinal

    def _code(self, path: str) -> tuple[type, str]:
        """Whose code ran a module: its own class, or for a layer of PyTorch the one around it and its name there."""
        around, inside = path, ""
        while around and self._types[around].__module__.startswith("torch."):
            around, _, name = around.rpartition(".")
            inside = f"{name}.{inside}"
        return self._types[around], inside

    def alike(self, index: int) -> list[int]:
        """Where the same line of code ran, in every module of the same class."""
        return self._places[self._place(self.recorded.operations[index])]

    def window(self, index: int) -> list[int]:
        """Operations that may show what size the code holds.

        A reshape is refused before the copy in front of it runs, so the culprit may be a little further on; a slice
        that ends at ``num_heads * head_dim`` shows neither of them, but the reshapes behind it do.
        """
        operations = self.recorded.operations
        module, ahead = operations[index].module, 16 if operations[index].name in DIVIDING else 3
        return [k for k in range(index, min(index + ahead, len(operations))) if operations[k].module == module]

    # -- attributes -------------------------------------------------------------------------------------------------

    def literals(self, index: int, classes: Classes, known: Sequence[Literal]) -> Iterator[list[Literal]]:
        """Attributes, of the module that ran the operation and of those around it, that hold the old size."""
        operation = self.recorded.operations[index]
        bound = {(x.module, x.attribute, x.index) for x in known}
        path: str | None = operation.module
        while path is not None:
            yield from self._several(index, path)
            module = self.recorded.skeleton.get_submodule(path)
            proposed = set()
            for axis, ref in enumerate(self._axes(operation)):
                if not any(not classes.locked[line].all() for line in classes.lines(ref)):
                    continue
                for attribute, entry in sizes.read(module, ref.size):
                    key = (attribute, entry, *(line.tobytes() for line in classes.lines(ref)))
                    if (path, attribute, entry) not in bound and key not in proposed:
                        proposed.add(key)
                        yield self._everywhere(index, path, attribute, entry, axis)
            path = path.rpartition(".")[0] if path else None

    def _everywhere(self, index: int, path: str, attribute: str, entry: int | None, axis: int) -> list[Literal]:
        """The attribute bound to the axis, in every module where the same line of code runs."""
        found = []
        for twin in self.alike(index):
            operation = self.recorded.operations[twin]
            refs = self._axes(operation)
            if axis < len(refs) and refs[axis].systems:
                owner = self._owner(index, path, twin)
                # A twin may keep another number there.
                if (attribute, entry) in sizes.read(self.recorded.skeleton.get_submodule(owner), refs[axis].size):
                    found.append(Literal(owner, attribute, refs[axis], index=entry))
        return found

    def _owner(self, index: int, path: str, twin: int) -> str:
        """The module that stands to a twin as ``path`` stands to the operation's own module."""
        if not path:
            return ""
        operations = self.recorded.operations
        up = operations[index].module.count(".") - path.count(".")
        return operations[twin].module.rsplit(".", up)[0] if up else operations[twin].module

    def _axes(self, operation: Operation) -> list[AxisRef]:
        """The axes whose sizes the operation's code may have written down: of its result, then of what it reads."""
        shape = operation.shapes[0] if operation.shapes else ()
        systems = operation.outputs[0] if operation.outputs else ()
        results = [self.recorded.ledger.axis(systems, axis, size) for axis, size in enumerate(shape)]
        counted = [ref for _, ref in operation.counts]
        read = [AxisRef(s.shape[axis], ((s, axis),)) for s in operation.inputs for axis in varying(s)]
        return [*results, *counted, *read]

    def _several(self, index: int, path: str) -> Iterator[list[Literal]]:
        """All sizes of a split at once: a list in one attribute, or an attribute for every piece."""
        operation = self.recorded.operations[index]
        if len(operation.shapes) < 2 or operation.name not in DIVIDING:
            return
        module = self.recorded.skeleton.get_submodule(path)
        for axis in range(len(operation.shapes[0])):
            pieces = self._pieces(operation, axis)
            if not any(ref.systems for ref in pieces):
                continue
            choices: list[list[tuple[str, int | None]]] = []
            for k, ref in enumerate(pieces):
                holders = sizes.read(module, ref.size)
                lists = [(name, entry) for name, entry in holders if entry == k]
                choices.append(lists or [(name, entry) for name, entry in holders if entry is None])
            if not all(choices):
                continue
            for chosen in itertools.islice(itertools.product(*choices), _MOST_CHOICES):
                found = []
                for twin in self.alike(index):
                    refs = self._pieces(self.recorded.operations[twin], axis)
                    owner = self._owner(index, path, twin)
                    found += [Literal(owner, name, ref, index=entry) for (name, entry), ref in zip(chosen, refs)]
                yield found

    def _pieces(self, operation: Operation, axis: int) -> list[AxisRef]:
        ledger = self.recorded.ledger
        return [ledger.axis(s, axis, n[axis]) for s, n in zip(operation.outputs, operation.shapes) if axis < len(n)]

    # -- widths that the code makes one -------------------------------------------------------------------------------

    def couplings(self, index: int, classes: Classes) -> Iterator[list[Tie]]:
        """Pairs of widths of one size: one that the code could have read, one that it had to be the size of."""
        here = self.recorded.operations[index]
        yield from self._equal_parts(index)
        seen: set[tuple] = set()
        for source in self._sources(index):
            read = self._source(index, source)
            if read is None or classes.locked[classes.of[read]].all():
                continue
            for k, system in enumerate((*here.inputs, *(s for out in here.outputs for s in out))):
                for span in _spans(varying(system)):
                    if int(np.prod([system.shape[a] for a in span])) != len(read):
                        continue
                    ties = []
                    for twin in self.alike(index):
                        a, b = self._source(twin, source), self._target(twin, k, span)
                        if a is not None and b is not None and len(a) == len(b):
                            ties.append((a, b, f"{self.recorded.operations[twin].module} (a size read off a tensor)"))
                    key = tuple((_identity(classes, a), _identity(classes, b)) for a, b, _ in ties)
                    if key in seen or all(one == other for one, other in key):
                        continue
                    seen.add(key)
                    yield ties

    def handed_on(self, index: int, classes: Classes) -> Iterator[list[Tie]]:
        """Axes to which the code gave the size of another: in the same line, then wherever it did so."""
        if lines := {pair.line for pair in self.recorded.pairs.get(index, ())}:
            yield self._unequal(classes, lines)
            yield self._unequal(classes, None)

    def _unequal(self, classes: Classes, lines: set[str] | None) -> list[Tie]:
        """Pairs, in some lines of the code or in all, that a cut may tell apart."""
        ties: list[Tie] = []
        for index, pairs in self.recorded.pairs.items():
            for pair in pairs:
                if (lines is None or pair.line in lines) and not one_size(pair, classes):
                    source, axis = pair.taken.systems[0]
                    where = f"{self.recorded.operations[index].module} (one size in the code)"
                    ties.append((self._along(source, (axis,)), self._along(pair.system, pair.axes), where))
        return ties

    def scales(self) -> Iterator[tuple[np.ndarray, str]]:
        """The widths of heads by which attentions are scaled, and why they stay."""
        different = {id(scale): scale for scale in self.recorded.scales.values()}
        for systems, where in different.values():
            for system in systems:
                reason = f"the scale of the attention in {where} is worked out of a size"
                yield self._along(system, (system.dim() - 1,)), reason

    def _along(self, system: Tensor, axes: tuple[int, ...]) -> np.ndarray:
        """Labels of some axes alone, in their order."""
        return compressed(self.recorded.ledger.project(system, axes), axes).reshape(-1).numpy()

    def _equal_parts(self, index: int) -> Iterator[list[Tie]]:
        """The parts of an axis that a slice like ``x[:, : c // 2]`` divides, tied index by index."""
        operation = self.recorded.operations[index]
        if operation.span is None:
            return
        axis, first, last = operation.span
        ties = []
        for twin in self.alike(index):
            for system in self.recorded.operations[twin].inputs:
                own, size = varying(system), system.shape[axis]
                if own == (axis,) and last > first and size % (last - first) == 0 and first % (last - first) == 0:
                    parts = compressed(system, own).reshape(-1, last - first).numpy()
                    where = f"{self.recorded.operations[twin].module} (a share of an axis)"
                    ties += [(parts[0], part, where) for part in parts[1:]]
        if ties:
            yield ties

    def _sources(self, index: int) -> Iterator[tuple[str, int, int]]:
        """Where a size may have been read: what entered the module, then what earlier operations of it gave."""
        operations = self.recorded.operations
        module = operations[index].module
        for k in range(len(self.recorded.entering.get(module, ()))):
            yield "entering", k, 0
        for back in range(1, min(_LOOK_BACK, index) + 1):
            earlier = operations[index - back]
            if earlier.module == module:
                for k in range(len(earlier.outputs)):
                    yield "given", back, k

    def _source(self, index: int, source: tuple[str, int, int]) -> np.ndarray | None:
        """The labels of a width that may have been read, in the order of its axis."""
        operations = self.recorded.operations
        how, k, output = source
        if how == "entering":
            systems = self.recorded.entering.get(operations[index].module, [])
            systems = systems[k : k + 1]
        else:
            outputs = operations[index - k].outputs if index >= k else ()
            systems = outputs[output] if output < len(outputs) else ()
        for system in systems:
            own = varying(system)
            if len(own) == 1:
                return compressed(system, own).numpy()
        return None

    def _target(self, index: int, k: int, span: tuple[int, ...]) -> np.ndarray | None:
        here = self.recorded.operations[index]
        systems: list[Tensor] = [*here.inputs, *(s for out in here.outputs for s in out)]
        if k >= len(systems) or not set(span) <= set(varying(systems[k])):
            return None
        return self._along(systems[k], span)

    # -- one axis of a layout -----------------------------------------------------------------------------------------

    def single_axes(self, index: int) -> Iterator[np.ndarray]:
        """Labels of one axis alone, of whatever the operation lays out over several."""
        here = self.recorded.operations[index]
        systems = [*here.inputs, *(s for out in here.outputs for s in out)]
        for k, system in enumerate(systems):
            own = varying(system)
            for axis in own if len(own) > 1 else ():
                found = [self._target(twin, k, (axis,)) for twin in self.alike(index)]
                yield np.concatenate([labels for labels in found if labels is not None])

    def lines(self, members: np.ndarray, classes: Classes) -> np.ndarray:
        """Labels of the axis, alone, along which layouts over several axes are cut into the given classes."""
        ledger, found = self.recorded.ledger, [_NONE]
        for grid in list(ledger.grids.values()):
            own = classes.of[grid.labels.numpy()]
            if not np.isin(own, members).all():
                continue
            for k, axis in enumerate(grid.axes):
                rows = np.moveaxis(own, k, 0).reshape(own.shape[k], -1)
                if (rows == rows[:, :1]).all() and len(np.unique(rows[:, 0])) > 1:
                    found.append(compressed(ledger.project(grid.system, (axis,)), (axis,)).numpy())
        return np.concatenate(found)


def _identity(classes: Classes, labels: np.ndarray) -> bytes:
    """What tells one line of units from another; labels younger than the classes stand for themselves."""
    known = len(labels) and labels.max() < len(classes.of)
    return (classes.of[labels] if known else -labels).tobytes()


def _spans(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every run of neighbouring axes, long ones first."""
    for length in range(len(axes), 0, -1):
        for start in range(len(axes) - length + 1):
            yield axes[start : start + length]
