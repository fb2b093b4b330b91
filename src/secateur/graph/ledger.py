"""The ledger: everything that a trace writes down while labels meet, and the three ways in which they can meet.

``meet`` ties what a pointwise operation brings together, ``reduce`` follows what a sum leaves over, and a contraction
is a ``meet`` followed by a ``reduce``. Every rule of ``rules.py`` is made of these.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secateur.graph.labels import (
    Labels,
    Line,
    broadcast,
    compressed,
    dropped,
    fresh,
    fresh_lines,
    laid,
    lie_apart,
    line,
    span_of,
    varying,
)


class ParameterAxis(NamedTuple):
    """One axis of one parameter, buffer or constant; its labels are ``start .. start + size - 1``."""

    tensor: str
    axis: int
    start: int
    size: int


@dataclass
class Grid:
    """Labels laid out over several axes of one activation.

    What is kept of them must stay rectangular, so units are removed along one axis of the grid and tied along all
    others. ``projections`` are the labels of some of its axes alone, which came up where the others were summed or
    met. Axes of the grid are counted from 0 here, whatever axes of the activation they were.
    """

    system: Tensor
    axes: tuple[int, ...]
    projections: list[tuple[tuple[int, ...], Tensor]] = field(default_factory=list)
    batch_axes: set[int] = field(default_factory=set)
    where: str = ""

    @property
    def labels(self) -> Tensor:
        """Labels of shape ``[size of each axis]``."""
        return compressed(self.system, self.axes)


class AxisRef(NamedTuple):
    """One axis of an activation or of a contraction, as far as it can be cut: its systems and where it lies in them."""

    size: int
    systems: tuple[tuple[Tensor, int], ...] = ()


class Term(NamedTuple):
    """Multiply-accumulates of one contraction: ``coefficient * product of the axes' extents``."""

    module: str
    coefficient: int
    axes: tuple[AxisRef, ...]


class Site(NamedTuple):
    """An operation that reads across labelled elements, so a masked model must tell it which of them count.

    Attributes:
        module: path of the module whose code ran it.
        op: name of the ATen operation.
        ordinal: how many operations of that name this module had run before.
        argument: position of the tensor argument.
        dims: the axes that it reads across.
        systems: its label systems.
    """

    module: str
    op: str
    ordinal: int
    argument: int
    dims: tuple[int, ...]
    systems: tuple[Tensor, ...]


@dataclass(frozen=True)
class Literal:
    """A size that a module holds as a Python integer: ``module.attribute`` is ``factor`` times an axis's extent."""

    module: str
    attribute: str
    axis: AxisRef
    factor: int = 1
    index: int | None = None


#: Reason of locks that go without saying: nobody expects to cut a 3x3 kernel to 2x3.
KERNEL = "the taps of a kernel"
#: Tied labels that are looked at in one go: many enough to be fast, few enough to take no room.
_AT_ONCE = 1 << 18


class Ledger:
    """What a trace writes down. Label 0 is fixed; fresh labels are handed out by :meth:`take`."""

    def __init__(self) -> None:
        self.count = 1
        self.axes: list[ParameterAxis] = []
        #: Of weights whose taps bear no labels, how many taps there are.
        self.taps: dict[str, int] = {}
        #: Lines of labels that share their fate place by place, two spans or two arrays, and where they met.
        self.ties: list[tuple[Line, Line, str]] = []
        self.grids: dict[tuple, Grid] = {}
        self.terms: list[Term] = []
        self.sites: list[Site] = []
        self.literals: list[Literal] = []
        #: Of some labels at least so many have to stay, because the code chooses that many of them.
        self.leasts: list[tuple[Tensor, int]] = []
        #: Labels that count copies of one and the same thing, as ``expand`` makes them.
        self.spread: set[int] = set()
        self._locks: list[tuple[Tensor, str]] = []
        #: Ties that may contain a fixed index, and how many locks there were before each.
        self._unexamined: list[tuple[np.ndarray, np.ndarray, str, int]] = []
        self._unexamined_size = 0
        self._roles: dict[int, set[str]] = {}
        self._role_notes: list[tuple[Tensor, str]] = []
        self._projected: dict[tuple, tuple[Tensor, Tensor]] = {}
        #: Memory in which every label stands once, and what keeps it from being given to something else.
        self._fresh: dict[int, Tensor] = {}
        #: Names the running operation.
        self.here: Callable[[], str] = str

    def branch(self) -> Ledger:
        """One that goes on from here, and of which this one hears nothing."""
        new = copy.copy(self)
        for name, held in vars(self).items():
            if isinstance(held, (list, dict, set)):
                setattr(new, name, held.copy())
        new.grids = {
            key: replace(grid, projections=grid.projections.copy(), batch_axes=grid.batch_axes.copy())
            for key, grid in self.grids.items()
        }
        return new

    # -- labels ---------------------------------------------------------------------------------------------------

    def take(self, count: int) -> Tensor:
        """``count`` labels that nothing bears yet."""
        labels = fresh(self.count, count)
        self.count += count
        self._fresh[labels.untyped_storage()._cdata] = labels
        return labels

    def take_lines(self, counts: Sequence[int]) -> list[Tensor]:
        """Lines of labels that nothing bears yet, one behind the other; ``counts`` are at least two."""
        lines = fresh_lines(self.count, counts)
        self.count += sum(counts)
        if lines:
            self._fresh[lines[0].untyped_storage()._cdata] = lines[0]
        return lines

    def forget(self, tensors: Collection[str]) -> None:
        """Nothing is said of these tensors any more."""
        if tensors:
            self.axes = [axis for axis in self.axes if axis.tensor not in tensors]

    def tie(self, a: Tensor, b: Tensor, where: str) -> None:
        """Elements that lie on one another share their fate. ``a`` and ``b`` have the same shape.

        ``where`` names the operation in which they meet.
        """
        if a is b:
            return
        span, other_span = span_of(a), span_of(b)
        if span is not None and other_span is not None:
            # Both count up from a first label, and none of theirs is fixed.
            if span.first != other_span.first:
                self.ties.append((span, other_span, where))
            return
        if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
            return
        if a.dim() != 1:
            a, b = a.reshape(-1), b.reshape(-1)
        one, other = a.numpy(), b.numpy()
        self.ties.append((one, other, where))
        self._unexamined.append((one, other, where, len(self._locks)))
        self._unexamined_size += len(one)
        if self._unexamined_size > _AT_ONCE:
            self._examine()

    def _examine(self) -> None:
        """Lock what was tied to a fixed index. Hardly any tie has one, so many are looked at together."""
        ties, self._unexamined, self._unexamined_size = self._unexamined, [], 0
        if not ties or np.concatenate([labels for a, b, _, _ in ties for labels in (a, b)]).all():
            return
        inserted = 0
        for a, b, where, before in ties:
            for one, other in ((a, b), (b, a)):
                met = one[other == 0]
                if met.any():
                    # Where it would be had the tie been looked at at once: the first lock of a unit gives its reason.
                    self._locks.insert(before + inserted, (torch.from_numpy(met), f"meets a fixed axis in {where}"))
                    inserted += 1

    @property
    def locks(self) -> list[tuple[Tensor, str]]:
        """Labels that cannot be removed, and why."""
        self._examine()
        return self._locks

    def least(self, labels: Tensor, count: int) -> None:
        """At least ``count`` of these labels have to stay: units that are chosen by score, experts of a mixture."""
        self.leasts.append((labels, count))

    def lock(self, labels: Tensor, reason: str) -> None:
        """These labels cannot be removed."""
        self._locks.append((labels if labels.dim() == 1 else labels.reshape(-1), reason))

    def lock_systems(self, systems: Iterable[Tensor], reason: str) -> None:
        """Nothing that these systems describe can be removed."""
        for system in systems:
            self.lock(line(system), reason)

    def role(self, labels: Tensor, name: str) -> None:
        """Note that a contraction takes (``"in"``) or gives (``"out"``) the units of a weight's axis."""
        self._role_notes.append((labels, name))

    @property
    def roles(self) -> dict[int, set[str]]:
        """What contractions take and give: names by a label of the axis."""
        for labels, name in self._role_notes:
            span = span_of(labels)
            if sample := span.last if span is not None else int(labels.max()):
                self._roles.setdefault(sample, set()).add(name)
        self._role_notes.clear()
        return self._roles

    # -- grids ----------------------------------------------------------------------------------------------------

    def grid(self, system: Tensor, axes: tuple[int, ...] | None = None) -> Grid:
        """Note that the labels of ``system`` lie on several axes, or find the note."""
        axes = varying(system) if axes is None else axes
        key = (system.data_ptr(), *[(system.shape[a], system.stride(a)) for a in axes])
        found = self.grids.get(key)
        if found is None:
            found = self.grids[key] = Grid(system, axes, where=self.here())
        return found

    def project(self, system: Tensor, axes: tuple[int, ...], batch: bool = False) -> Tensor:
        """The labels of ``axes`` alone: index ``i`` lives as long as any label of the system at ``i`` does.

        Args:
            system: a system that varies along ``axes`` and maybe along others.
            axes: ascending.
            batch: the axes stay separate in a product of two activations, so they are the natural unit (heads).
        """
        own = varying(system)
        if axes == own:
            return system
        grid = self.grid(system, own)
        if batch and len(axes) == 1:
            grid.batch_axes.add(own.index(axes[0]))
        key = (system.data_ptr(), system.shape, *[system.stride(a) for a in own], axes)
        if key not in self._projected:
            size = [system.shape[a] for a in axes]
            labels = laid(self._take_one_each(grid.labels, [own.index(a) for a in axes]).view(size), axes, system.shape)
            grid.projections.append((tuple([own.index(a) for a in axes]), line(labels)))
            if len(axes) > 1:
                self.grid(labels)
            self._projected[key] = (labels, system)
        return self._projected[key][0]

    def _take_one_each(self, labels: Tensor, axes: Sequence[int]) -> Tensor:
        """A new label for every index along ``axes``; where the same labels lie behind two, they share theirs.

        Examples and heads that are one axis are such a case: a head is the same one for every example.
        """
        count = math.prod([labels.shape[a] for a in axes])
        if labels.untyped_storage()._cdata in self._fresh and lie_apart(labels):
            return self.take(count)
        rows = np.moveaxis(labels.numpy(), axes, range(len(axes))).reshape(count, -1)
        if len(np.unique(rows[:, 0])) == count:
            return self.take(count)
        different, which = np.unique(rows, axis=0, return_inverse=True)
        if len(different) == count:
            return self.take(count)
        return self.take(len(different))[torch.from_numpy(which.reshape(-1))]

    # -- the three ways of meeting --------------------------------------------------------------------------------

    def meet(
        self, operands: Sequence[tuple[Labels, Sequence[int]]], shape: Sequence[int], where: str, batch: bool = False
    ) -> tuple[Tensor, ...]:
        """Tie what a pointwise operation brings together; operands broadcast from the right.

        Args:
            operands: labels and shape of each operand.
            shape: shape of the result.
            where: names the operation in the reason of a lock.
            batch: see :meth:`project`.

        Returns:
            The systems of the result.
        """
        shape = tuple(shape)
        alike = self._meet_alike(operands, shape, where)
        if alike is not None:
            return alike
        result: list[Tensor] | None = None
        result_fixed: set[int] = set()
        for labels, own in operands:
            if labels.is_uniform:
                continue
            lead = len(shape) - len(own)
            wide = {lead + i for i, n in enumerate(own) if n > 1}
            systems = [broadcast(s, shape) for s in labels.systems]
            spans = [set(varying(s)) for s in systems]
            fixed = wide.difference(*spans) if spans else wide
            if result is None:
                result, result_fixed = systems, fixed
                continue
            result_spans = [set(varying(s)) for s in result]
            for s, span in zip(result, result_spans):
                for t, other in zip(systems, spans):
                    common = tuple(sorted(span & other))
                    if common:
                        self.tie(line(self.project(s, common, batch)), line(self.project(t, common, batch)), where)
            self._meet_fixed(result, result_spans, fixed, where)
            self._meet_fixed(systems, spans, result_fixed, where)
            merged = list(result)
            for t, other in zip(systems, spans):
                if any(other <= span for span in result_spans):
                    continue
                merged = [s for s in merged if not set(varying(s)) <= other]
                merged.append(t)
            result = merged
            covered = {a for s in result for a in varying(s)}
            result_fixed = (result_fixed | wide) - covered
        return tuple(result or ())

    def _meet_alike(self, operands: Sequence[tuple[Labels, Sequence[int]]], shape: tuple, where: str) -> tuple | None:
        """:meth:`meet` where each has one system and all vary along the same axes: nearly always the channels."""
        met: list[Tensor] = []
        places: list[int] = []
        for labels, _ in operands:
            if labels.is_uniform:
                continue
            if len(labels.systems) != 1:
                return None
            system = labels.systems[0]
            here = [axis - system.dim() for axis in varying(system)]
            if not met:
                places = here
            if not here or here != places:
                return None
            met.append(system)
        if not met:
            return None
        first = met[0]
        for system in met[1:]:
            self.tie(line(first), line(system), where)
        return (first if first.shape == shape else broadcast(first, shape),)

    def _meet_fixed(self, systems: list[Tensor], spans: list[set[int]], fixed: set[int], where: str) -> None:
        for s, span in zip(systems, spans):
            common = tuple(sorted(span & fixed))
            if common:
                self.lock(line(self.project(s, common)), f"meets a fixed axis in {where}")

    def reduce(self, systems: Iterable[Tensor], axes: Iterable[int], keepdim: bool, batch: bool = False) -> tuple:
        """What a sum over ``axes`` leaves over of the systems."""
        gone = set(axes)
        left = []
        for system in systems:
            own = varying(system)
            rest = tuple(a for a in own if a not in gone)
            if not rest:
                continue
            if len(rest) < len(own):
                system = self.project(system, rest, batch)
            left.append(dropped(system, tuple(gone), keepdim))
        return tuple(left)

    def contract(
        self, a: Labels, a_shape: Sequence[int], b: Labels, b_shape: Sequence[int], module: str, where: str, scale: int
    ) -> tuple[Tensor, ...]:
        """A sum of products over the last axis of the common iteration space, which both operands broadcast to.

        ``scale`` multiplies the number of multiply-accumulates (positions and kernel taps that carry no label).
        """
        lead = len(a_shape) - len(b_shape)
        shape = [m if n == 1 else n for n, m in zip((*(1,) * -lead, *a_shape), (*(1,) * lead, *b_shape))]
        batch = not (a.is_weight or b.is_weight)
        for operand in (a, b):
            if operand.is_weight:
                self._note_roles(operand, len(shape) - 1, len(shape))
        systems = self.meet([(a, a_shape), (b, b_shape)], shape, where, batch)
        refs = tuple(self.axis(systems, i, n) for i, n in enumerate(shape) if n != 1)
        if scale:
            self.terms.append(Term(module, scale, refs))
        left = self.reduce(systems, [len(shape) - 1], keepdim=False, batch=batch)
        # What is left of one system may lie within another that it met: the tie is noted, a second copy says no more.
        return tuple(s for s in left if not any(set(varying(s)) < set(varying(t)) for t in left))

    def _note_roles(self, weight: Labels, contracted: int, dims: int) -> None:
        for system in weight.systems:
            own = varying(system)
            last = contracted - (dims - system.dim())
            role = "in" if own == (last,) else "out"
            if own:
                self.role(line(system), role)

    @staticmethod
    def axis(systems: Iterable[Tensor], index: int, size: int) -> AxisRef:
        """A handle on one axis of a tensor that ``systems`` describe."""
        return AxisRef(size, tuple([(s, index) for s in systems if index in varying(s)]))
