"""From the ledger to units: which labels share their fate, and which cannot be removed.

Labels that were tied form a *class*. A grid (labels laid out over several axes of one activation) asks for one more
decision, because what is kept of it has to stay rectangular: units are removed along one of its axes, and the labels
of all other axes are tied. For attention that axis is the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import AxisRef, Grid, Ledger

Array = np.ndarray


def _components(count: int, a: Array, b: Array) -> tuple[int, Array]:
    ones = np.ones(len(a), dtype=np.int8)
    return connected_components(coo_matrix((ones, (a, b)), shape=(count, count)), directed=False)


class Classes:
    """Every label's class, and every class's lock.

    Attributes:
        of: class of each label, shape ``[labels]``; label 0 is in a class of its own.
        reasons: why a class is locked; a class that is not in here can be removed.
        locks: labels, and why they cannot be removed.
        heads: classes that a grid made into units along a batch axis of a product of activations.
        grid_ties: labels that a grid or the code of the model tied, and where.
    """

    def __init__(
        self,
        ledger: Ledger,
        extra_locks: Sequence[tuple[Array, str]] = (),
        extra_ties: Sequence[tuple[Array, Array, str]] = (),
    ):
        self._ledger = ledger
        # Half the width: a network of 70 billion parameters has tens of millions of labels.
        pairs = [(a.numpy().astype(np.int32), b.numpy().astype(np.int32)) for a, b, _ in ledger.ties]
        pairs += [(a.astype(np.int32), b.astype(np.int32)) for a, b, _ in extra_ties]
        a = np.concatenate([p[0] for p in pairs]) if pairs else np.zeros(0, dtype=np.int32)
        b = np.concatenate([p[1] for p in pairs]) if pairs else np.zeros(0, dtype=np.int32)
        del pairs
        both = (a > 0) & (b > 0)
        self._ties = [(a, b)] if both.all() else [(a[both], b[both])]
        del a, b, both
        self.locks = [(labels.numpy(), reason) for labels, reason in ledger.locks]
        self.locks += list(extra_locks)
        self.heads: set[int] = set()
        # The system is kept beside its line, so that no other can come to lie at its address.
        self._lines: dict[tuple, tuple[Array | None, Tensor]] = {}
        self.grid_ties: list[tuple[Array, Array, str]] = list(extra_ties)
        self._close()
        self._settle_grids()
        del self._ties

    def _close(self) -> None:
        """Recompute classes and locks from ties."""
        a = np.concatenate([t[0].astype(np.int32, copy=False) for t in self._ties])
        b = np.concatenate([t[1].astype(np.int32, copy=False) for t in self._ties])
        self._ties = [(a, b)]
        _, self.of = _components(self._ledger.count, a, b)
        self.reasons: dict[int, str] = {}
        if self.locks:
            labels = np.concatenate([labels for labels, _ in self.locks])
            which = np.repeat(np.arange(len(self.locks)), [len(labels) for labels, _ in self.locks])
            found, first = np.unique(self.of[labels[labels > 0]], return_index=True)
            # The first lock of a class gives its reason.
            self.reasons = {
                c: self.locks[k][1] for c, k in zip(found.tolist(), which[labels > 0][first].tolist(), strict=True)
            }
        self.locked = np.zeros(int(self.of.max()) + 1 if len(self.of) else 1, dtype=bool)
        self.locked[list(self.reasons)] = True
        self.locked[self.of[0]] = True

    # -- grids ----------------------------------------------------------------------------------------------------

    def _settle_grids(self) -> None:
        """Choose the axis of every grid; those that a product of activations constrains choose first."""
        if not self._ledger.grids:
            return
        parent = np.arange(len(self.locked))
        locked = self.locked.copy()

        def roots(labels: Array) -> Array:
            classes = self.of[labels]
            while not np.array_equal(above := parent[classes], classes):
                classes = above
            return classes

        def unite(one: Array, other: Array) -> None:
            if not len(one):
                return
            a, b = roots(one), roots(other)
            nodes, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
            _, component = _components(len(nodes), inverse[: len(a)], inverse[len(a) :])
            _, first = np.unique(component, return_index=True)
            parent[nodes] = nodes[first][component]
            locked[nodes[first]] |= np.bincount(component, locked[nodes], len(first)) > 0

        chosen_heads: list[Array] = []
        grids = sorted(self._ledger.grids.values(), key=lambda g: not g.batch_axes)
        for grid in grids:
            labels = grid.labels.numpy()
            classes = roots(labels)
            projections = [(axes, child.numpy(), roots(child.numpy())) for axes, child in grid.projections]
            best = max(range(len(grid.axes)), key=lambda k: self._worth(grid, k, classes, projections, locked))
            lines = np.moveaxis(classes, best, 0).reshape(classes.shape[best], -1)
            raw = np.moveaxis(labels, best, 0).reshape(classes.shape[best], -1)
            pairs = [(raw[:, :1].repeat(raw.shape[1] - 1, 1).ravel(), raw[:, 1:].ravel())]
            if best in grid.batch_axes:
                chosen_heads.append(raw[:, 0])
            for axes, child, _ in projections:
                if best in axes:
                    rows = np.moveaxis(child, axes.index(best), 0).reshape(lines.shape[0], -1)
                    pairs.append((raw[:, :1].repeat(rows.shape[1], 1).ravel(), rows.ravel()))
                else:
                    self.locks.append((child.ravel(), "the other axis of a grid that is cut along its units"))
                    locked[roots(child)] = True
            for one, other in pairs:
                keep = (one > 0) & (other > 0)
                fixed = np.concatenate([one[(other == 0) & (one > 0)], other[(one == 0) & (other > 0)]])
                if len(fixed):
                    self.locks.append((fixed, "lies beside a fixed index"))
                    locked[roots(fixed)] = True
                one, other = one[keep], other[keep]
                self._ties.append((one, other))
                layout = " x ".join(str(n) for n in labels.shape)
                self.grid_ties.append((one, other, f"layout {layout} in {grid.where}"))
                unite(one, other)
        self._close()
        for labels in chosen_heads:
            self.heads.update(int(c) for c in np.unique(self.of[labels[labels > 0]]))

    @staticmethod
    def _worth(grid: Grid, axis: int, classes: Array, projections: list, locked: Array) -> tuple[bool, int]:
        """How many units are left if the grid is cut along this axis; a head comes before anything else."""
        lines = np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)
        distinct, inverse = np.unique(lines, return_inverse=True)
        inverse = inverse.reshape(lines.shape)
        count, rows = len(distinct), lines.shape[0]
        a = [np.repeat(np.arange(rows), lines.shape[1])]
        b = [inverse.ravel() + rows]
        bad = [np.flatnonzero(locked[distinct]) + rows]
        total = rows + count
        for axes, _, child_roots in projections:
            if axis in axes:
                child = np.moveaxis(child_roots, axes.index(axis), 0).reshape(rows, -1)
                found, position = np.unique(child, return_inverse=True)
                a.append(np.repeat(np.arange(rows), child.shape[1]))
                b.append(position.ravel() + total)
                bad.append(np.flatnonzero(locked[found]) + total)
                total += len(found)
        _, component = _components(total, np.concatenate(a), np.concatenate(b))
        free = np.setdiff1d(component[:rows], component[np.concatenate(bad)])
        return (len(free) > 0 and axis in grid.batch_axes, len(free))

    # -- extents --------------------------------------------------------------------------------------------------

    def lines(self, ref: AxisRef) -> list[Array]:
        """Classes along an axis; none where the axis keeps its length whatever is cut.

        Nearly always one line: the class of every index. An axis that two systems share (heads and their width,
        flattened into one) has a line for each, every class once, and its extent is the product of theirs.
        """
        found: dict[bytes, Array] = {}
        for system, axis in ref.systems:
            line = self._line(system, axis, ref.size)
            if line is not None:
                found.setdefault(line.tobytes(), line)
        free = [line for line in found.values() if not self.locked[line].all()]
        if len(free) < 2:
            return free or list(found.values())[:1]
        distinct = [np.unique(line) for line in free]
        if (
            int(np.prod([len(d) for d in distinct])) == ref.size
            and len(np.unique(np.stack(free), axis=1).T) == ref.size
        ):
            return distinct
        return free[:1]

    def _line(self, system: Tensor, axis: int, size: int) -> Array | None:
        """The class of every index, if it is the same wherever else one stands."""
        key = (system.data_ptr(), tuple(system.shape), system.stride(), axis)
        if key not in self._lines:
            own = varying(system)
            classes = self.of[compressed(system, own).numpy()]
            rows = np.moveaxis(classes, own.index(axis), 0).reshape(size, -1)
            same = rows.shape[1] == 1 or bool((rows == rows[:, :1]).all())
            self._lines[key] = (rows[:, 0].copy() if same else None, system)
        return self._lines[key][0]
