"""Grids: along which of its axes is a layout cut?

Labels that are laid out over several axes of one activation must stay rectangular. So one axis is chosen, an index of
it is a unit, and the labels of all other axes are tied. Grids share labels: what one decides the next one finds, and
then its classes change along few of its axes. Only the different ones are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from secateur.graph.forest import Array, Pair, flatten, roots, unite, unite_roots
from secateur.graph.ledger import Grid, Ledger

#: Roots of the labels of a grid or of a projection of it, with the axes of the grid on which they lie.
Met = tuple[tuple[int, ...], Array]


class Layout(NamedTuple):
    """A grid and the axis along which it is cut."""

    grid: Grid
    axis: int

    @property
    def where(self) -> str:
        return f"layout {' x '.join(map(str, self.grid.labels.shape))} in {self.grid.where}"

    def ties(self) -> list[Pair]:
        """For every index of the axis its first label, on each other one."""
        rows = by_axis(self.grid.labels.numpy(), self.axis)
        beside = [rows[:, 1:]]
        beside += [by_axis(c.numpy(), axes.index(self.axis)) for axes, c in self.grid.projections if self.axis in axes]
        return [(rows[:, 0].repeat(others.shape[1]), others.ravel()) for others in beside]

    def heads(self) -> Array:
        """A label of every index of the axis, if a product of activations keeps it apart; empty if not."""
        labels = self.grid.labels.numpy()
        return by_axis(labels, self.axis)[:, 0] if self.axis in self.grid.batch_axes else labels.ravel()[:0]


class Settler:
    """Decides grid after grid, and unites in the forest what each one ties.

    Args:
        forest: see ``forest.py``; every label names its root, before and after.
        locks: labels that cannot be removed, and why; those of grids are appended.
    """

    def __init__(self, forest: Array, locks: list[tuple[Array, str]]):
        self._forest, self._locks = forest, locks
        self._locked = np.zeros(len(forest), dtype=bool)
        self._locked[0] = True
        if locks:
            self._locked[forest[np.concatenate([labels for labels, _ in locks])]] = True
        self._owner = np.empty(len(forest), dtype=np.int32)

    def settle(self, ledger: Ledger) -> list[Layout]:
        """All grids; those that a product of activations constrains choose first."""
        grids = sorted(ledger.grids.values(), key=lambda grid: not grid.batch_axes)
        layouts = [self._settled(grid) for grid in grids]
        flatten(self._forest)
        return layouts

    def _settled(self, grid: Grid) -> Layout:
        labels = grid.labels.numpy()
        met: list[Met] = [(tuple(range(labels.ndim)), roots(self._forest, labels))]
        met += [(axes, roots(self._forest, child.numpy())) for axes, child in grid.projections]
        apart = all(self._distinct(classes) for _, classes in met)
        if not apart:
            met = [(axes, _narrowed(classes)) for axes, classes in met]
        layout = Layout(grid, self._best(grid, met, apart))
        for axes, child in grid.projections:
            if layout.axis not in axes:
                self._lock(child.numpy().ravel(), "the other axis of a grid that is cut along its units")
        self._tie(layout, met)
        return layout

    def _lock(self, labels: Array, reason: str) -> None:
        self._locks.append((labels, reason))
        self._locked[roots(self._forest, labels)] = True

    # -- the choice -----------------------------------------------------------------------------------------------

    def _best(self, grid: Grid, met: Sequence[Met], apart: bool) -> int:
        """The axis that leaves most units, of equal ones the first; a head comes before anything else.

        Args:
            apart: no root occurs twice.
        """
        shape = grid.labels.shape
        simple = apart and not any(np.count_nonzero(self._locked[classes]) for _, classes in met)

        def worth(axis: int) -> int:
            return shape[axis] if simple else self._worth(axis, shape[axis], met, apart)

        heads = {k: worth(k) for k in sorted(grid.batch_axes)}
        if any(heads.values()):
            return max(heads, key=lambda k: heads[k])
        best, most = 0, -1
        for k in sorted(range(len(shape)), key=lambda k: -shape[k]):
            if (shape[k], -k) > (most, -best):
                found = worth(k)
                best, most = (k, found) if (found, -k) > (most, -best) else (best, most)
        return best

    def _worth(self, axis: int, size: int, met: Sequence[Met], apart: bool) -> int:
        """How many units are left if the grid is cut along this axis."""
        bad = np.zeros(size, dtype=bool)
        index = np.arange(size, dtype=self._owner.dtype)
        units = index.copy()
        for axes, classes in met:
            if axis not in axes:
                continue
            rows = by_axis(classes, axes.index(axis))
            bad |= self._locked[rows].any(1)
            if apart:
                continue
            # Rows that hold the same class are one unit.
            if len(rows) < size:
                units[:] = 0
                continue
            self._owner[rows] = index[:, None]
            held = self._owner[rows]
            if np.count_nonzero(held != index[:, None]):
                unite(units, *_pairs(held))
        if not apart:
            flatten(units)
            bad[units[bad]] = True
        return int(np.count_nonzero((units == index) & ~bad))

    def _distinct(self, classes: Array) -> bool:
        """Whether no class occurs twice."""
        classes = classes.ravel()
        places = np.arange(len(classes), dtype=self._owner.dtype)
        self._owner[classes] = places
        return not np.count_nonzero(self._owner[classes] != places)

    # -- what follows from it -------------------------------------------------------------------------------------

    def _tie(self, layout: Layout, met: Sequence[Met]) -> None:
        """Make the classes of every index one; a fixed label locks those beside it."""
        rows = [by_axis(classes, axes.index(layout.axis)) for axes, classes in met if layout.axis in axes]
        if len(set(map(len, rows))) > 1:
            size = max(map(len, rows))
            rows = [np.broadcast_to(some, (size, some.shape[1])) for some in rows]
        together = np.concatenate(rows, axis=1) if len(rows) > 1 else rows[0]
        if np.count_nonzero(together) < together.size:
            self._tie_beside_fixed(layout)
        elif together.shape[1] > 1:
            if self._distinct(together):
                self._forest[together] = together.min(1)[:, None]
            else:
                unite_roots(self._forest, together[:, :1].repeat(together.shape[1], 1).ravel(), together.ravel())
            self._spread_locks(together)

    def _tie_beside_fixed(self, layout: Layout) -> None:
        ties = []
        for one, other in layout.ties():
            both = (one > 0) & (other > 0)
            fixed = np.concatenate([one[(other == 0) & (one > 0)], other[(one == 0) & (other > 0)]])
            if len(fixed):
                self._lock(fixed, "lies beside a fixed index")
            ties.append((one[both], other[both]))
        one, other = [roots(self._forest, np.concatenate(side)) for side in zip(*ties)]
        unite_roots(self._forest, one, other)
        self._spread_locks(one)
        self._spread_locks(other)

    def _spread_locks(self, united: Array) -> None:
        """What was united with something locked is locked."""
        if len(held := united[self._locked[united]]):
            self._locked[roots(self._forest, held)] = True


def _narrowed(classes: Array) -> Array:
    """With one index of every axis along which nothing changes."""
    for axis in range(classes.ndim):
        if classes.shape[axis] < 2:
            continue
        lead = (slice(None),) * axis
        first = classes[(*lead, slice(1))]
        # Nearly always the second differs, or none does.
        if np.count_nonzero(classes[(*lead, slice(1, 2))] != first) or np.count_nonzero(classes != first):
            continue
        classes = first
    return classes


def by_axis(layout: Array, axis: int) -> Array:
    """A layout with one row for every index of an axis."""
    others = [k for k in range(layout.ndim) if k != axis]
    return layout.transpose(axis, *others).reshape(layout.shape[axis], -1)


def _pairs(held: Array) -> Pair:
    """The numbers in each row of ``held``, less than there are rows, with the number of the row: each pair once."""
    rows, columns = held.shape
    if rows > columns:
        return held.ravel(), np.arange(rows).repeat(columns)
    met = np.zeros((rows, rows), dtype=bool)
    met[np.arange(rows)[:, None], held] = True
    row, number = met.nonzero()
    return number, row
