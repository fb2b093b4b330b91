"""From the ledger to units: which labels share their fate, and which cannot be removed.

Labels that were tied form a *class*. A grid (labels laid out over several axes of one activation) asks for one more
decision, because what is kept of it has to stay rectangular: units are removed along one of its axes, and the labels
of all other axes are tied. For attention that axis is the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from secateur.graph.forest import Array, flatten, grow, roots, unite, unite_roots
from secateur.graph.labels import line, varying
from secateur.graph.ledger import AxisRef, Ledger
from secateur.graph.runs import Runs


class Classes:
    """Every label's class, and every class's lock.

    Attributes:
        of: class of each label, shape ``[labels]``, numbered by their first labels; label 0 is in a class of its own.
        locked: whether a class cannot be removed, shape ``[classes]``.
        locks: labels, and why they cannot be removed.
        lock_of: the first lock of each class, -1 for a class that has none, shape ``[classes]``.
        heads: classes that a grid made into units along a batch axis of a product of activations.
        grid_ties: labels that a grid or the code of the model tied, and where.
    """

    def __init__(
        self,
        ledger: Ledger,
        extra_locks: Sequence[tuple[Array, str]] = (),
        extra_ties: Sequence[tuple[Array, Array, str]] = (),
    ):
        self._axes = ledger.axes
        self.locks = [(labels.numpy(), reason) for labels, reason in ledger.locks]
        self.locks += list(extra_locks)
        self.grid_ties: list[tuple[Array, Array, str]] = list(extra_ties)
        self._found: dict[int, tuple[AxisRef, list[Array]]] = {}
        self._different: dict[bytes, Array] = {}
        # The system is kept beside its line, so that no other can come to lie at its address.
        self._lines: dict[tuple, tuple[Array | None, Tensor]] = {}
        ties = [(a, b) for a, b, _ in (*ledger.ties, *extra_ties)]
        forest = grow(ledger.count, ties)
        heads = self._settle_grids(ledger, forest) if ledger.grids else []
        is_root = forest == np.arange(len(forest), dtype=forest.dtype)
        self.of = (np.cumsum(is_root, dtype=np.int32) - 1)[forest]
        self.lock_of = np.full(np.count_nonzero(is_root), -1, dtype=np.int32)
        if self.locks:
            # The first lock of a class gives its reason: of several numbers written to one place the last one stays.
            labels = np.concatenate([labels for labels, _ in reversed(self.locks)])
            which = np.repeat(np.arange(len(self.locks))[::-1], [len(labels) for labels, _ in reversed(self.locks)])
            self.lock_of[self.of[labels]] = which
        self.lock_of[self.of[0]] = -1
        self.locked = self.lock_of >= 0
        self.locked[self.of[0]] = True
        self.heads = {c for labels in heads for c in self.of[labels[labels > 0]].tolist()}

    def reason(self, number: int) -> str:
        """Why a class is locked; empty for one that can be removed."""
        lock = int(self.lock_of[number])
        return self.locks[lock][1] if lock >= 0 else ""

    # -- grids ----------------------------------------------------------------------------------------------------

    def _settle_grids(self, ledger: Ledger, forest: Array) -> list[Array]:
        """Choose the axis of every grid; those that a product of activations constrains choose first.

        Returns:
            The labels of heads.
        """
        locked = np.zeros(len(forest), dtype=bool)
        locked[0] = True
        if self.locks:
            locked[forest[np.concatenate([labels for labels, _ in self.locks])]] = True
        owner = np.empty(len(forest), dtype=np.int32)
        heads: list[Array] = []
        for grid in sorted(ledger.grids.values(), key=lambda g: not g.batch_axes):
            labels = grid.labels.numpy()
            projections = [(axes, child.numpy()) for axes, child in grid.projections]
            met = [(tuple(range(labels.ndim)), roots(forest, labels))]
            met += [(axes, roots(forest, child)) for axes, child in projections]
            apart = all(_distinct(classes, owner) for _, classes in met)
            worth: Callable[[int], int] = partial(_worth, met=met, locked=locked, owner=None if apart else owner)
            if apart and not any(locked[classes].any() for _, classes in met):
                worth = labels.shape.__getitem__
            best = _best(labels.shape, grid.batch_axes, worth)
            rows = _rows(labels, best)
            if best in grid.batch_axes:
                heads.append(rows[:, 0])
            beside = [rows[:, 1:]]
            for axes, child in projections:
                if best in axes:
                    beside.append(_rows(child, axes.index(best)))
                else:
                    self._fix(child.ravel(), "the other axis of a grid that is cut along its units", forest, locked)
            layout = " x ".join(str(n) for n in labels.shape)
            pairs = [(rows[:, 0].repeat(others.shape[1]), others.ravel()) for others in beside]
            for k, (one, other) in enumerate(pairs):
                if not (one.all() and other.all()):
                    both = (one > 0) & (other > 0)
                    fixed = np.concatenate([one[(other == 0) & (one > 0)], other[(one == 0) & (other > 0)]])
                    if len(fixed):
                        self._fix(fixed, "lies beside a fixed index", forest, locked)
                    pairs[k] = one[both], other[both]
            self.grid_ties += [(one, other, f"layout {layout} in {grid.where}") for one, other in pairs]
            before = [roots(forest, np.concatenate(side)) for side in zip(*pairs)]
            unite_roots(forest, *before)
            for some in before:
                if len(held := some[locked[some]]):
                    locked[roots(forest, held)] = True
        flatten(forest)
        return heads

    def _fix(self, labels: Array, reason: str, forest: Array, locked: Array) -> None:
        self.locks.append((labels, reason))
        locked[roots(forest, labels)] = True

    @cached_property
    def on_parameters(self) -> tuple[Runs, list[int]]:
        """The runs on the different lines of classes on the axes of parameters, and which line lies on each axis."""
        different: dict[bytes, int] = {}
        lines, line_of = [], []
        for axis in self._axes:
            line = self.of[axis.start : axis.start + axis.size]
            line_of.append(different.setdefault(line.tobytes(), len(lines)))
            if line_of[-1] == len(lines):
                lines.append(line)
        return Runs.of(lines), line_of

    # -- extents --------------------------------------------------------------------------------------------------

    def lines(self, ref: AxisRef) -> list[Array]:
        """Classes along an axis; none where the axis keeps its length whatever is cut.

        Nearly always one line: the class of every index. An axis that two systems share (heads and their width,
        flattened into one) has a line for each, every class once, and its extent is the product of theirs. Equal lines
        are one and the same array.
        """
        found = self._found.get(id(ref))
        if found is None:
            # The axis is kept beside its lines, so that no other can come to lie at its address.
            found = self._found[id(ref)] = ref, self._several_lines(ref)
        return found[1]

    def _several_lines(self, ref: AxisRef) -> list[Array]:
        lines = [row for system, axis in ref.systems if (row := self._line(system, axis, ref.size)) is not None]
        if len(lines) < 2:
            return lines
        lines = list({id(line): line for line in lines}.values())
        free = [line for line in lines if not self.locked[line].all()]
        if len(free) < 2:
            return free or lines[:1]
        distinct = [np.unique(line) for line in free]
        if (
            int(np.prod([len(d) for d in distinct])) == ref.size
            and len(np.unique(np.stack(free), axis=1).T) == ref.size
        ):
            return [self._one(line) for line in distinct]
        return free[:1]

    def _line(self, system: Tensor, axis: int, size: int) -> Array | None:
        """The class of every index, if it is the same wherever else one stands."""
        key = (system.data_ptr(), tuple(system.shape), system.stride(), axis)
        if key not in self._lines:
            classes = self.of[line(system).numpy()]
            rows = _rows(classes, varying(system).index(axis)) if classes.ndim > 1 else classes[:, None]
            same = rows.shape[1] == 1 or bool((rows == rows[:, :1]).all())
            if not same:
                # Whatever the reason for which it stays, what is locked counts alike.
                rows = np.where(self.locked[rows], self.of[0], rows)
                same = bool((rows == rows[:, :1]).all())
            self._lines[key] = (self._one(rows[:, 0]) if same else None, system)
        return self._lines[key][0]

    def _one(self, line: Array) -> Array:
        """One and the same array for equal lines."""
        return self._different.setdefault(line.tobytes(), line)


def _rows(layout: Array, axis: int) -> Array:
    """A layout with one row for every index of an axis."""
    others = [k for k in range(layout.ndim) if k != axis]
    return layout.transpose(axis, *others).reshape(layout.shape[axis], -1)


def _best(shape: Sequence[int], batch_axes: set[int], worth: Callable[[int], int]) -> int:
    """The axis of a grid that leaves most units, of equal ones the first; a head comes before anything else."""
    heads = {k: worth(k) for k in sorted(batch_axes)}
    if any(heads.values()):
        return max(heads, key=lambda k: heads[k])
    best, most = 0, -1
    for k in sorted(range(len(shape)), key=lambda k: -shape[k]):
        if (shape[k], -k) > (most, -best):
            found = worth(k)
            best, most = (k, found) if (found, -k) > (most, -best) else (best, most)
    return best


def _distinct(classes: Array, owner: Array) -> bool:
    """Whether no class occurs twice. ``owner`` is room for one number per class."""
    classes = classes.ravel()
    places = np.arange(len(classes), dtype=owner.dtype)
    owner[classes] = places
    return bool((owner[classes] == places).all())


def _worth(axis: int, met: list[tuple[tuple[int, ...], Array]], locked: Array, owner: Array | None) -> int:
    """How many units are left if a grid is cut along this axis.

    Args:
        axis: of the grid.
        met: roots of the labels of the grid and of its projections, with the axes of the grid on which they lie.
        locked: whether a root cannot be removed.
        owner: room for one number per root; ``None`` if no root occurs twice.
    """
    size = met[0][1].shape[axis]
    bad = np.zeros(size, dtype=bool)
    index = np.arange(size)
    units = index.copy()
    for axes, classes in met:
        if axis in axes:
            rows = _rows(classes, axes.index(axis))
            bad |= locked[rows].any(1)
            if owner is not None:
                # Rows that hold the same class are one unit.
                owner[rows] = index[:, None]
                held = owner[rows]
                if not (held == index[:, None]).all():
                    unite(units, *_pairs(held))
    if owner is not None:
        flatten(units)
        bad[units[bad]] = True
    return int(np.count_nonzero((units == index) & ~bad))


def _pairs(held: Array) -> tuple[Array, Array]:
    """The numbers in each row of ``held``, less than there are rows, with the number of the row: each pair once."""
    rows, columns = held.shape
    if rows > columns:
        return held.ravel(), np.arange(rows).repeat(columns)
    met = np.zeros((rows, rows), dtype=bool)
    met[np.arange(rows)[:, None], held] = True
    row, number = met.nonzero()
    return number, row
