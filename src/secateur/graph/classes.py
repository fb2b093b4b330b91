"""From the ledger to units: which labels share their fate, and which cannot be removed.

Labels that were tied form a *class*. A grid (labels laid out over several axes of one activation) asks for one more
decision (``grids.py``): units are removed along one of its axes, and the labels of all other axes are tied. For
attention that axis is the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from secateur.graph.forest import Array, grow
from secateur.graph.grids import Settler, by_axis
from secateur.graph.labels import line, span_of, varying
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
        self._extra_ties = list(extra_ties)
        self._found: dict[int, tuple[AxisRef, list[Array]]] = {}
        self._different: dict[bytes, Array] = {}
        # The system is kept beside its line, so that no other can come to lie at its address.
        self._lines: dict[tuple, tuple[Array | None, Tensor]] = {}
        ties = [(a, b) for a, b, _ in (*ledger.ties, *extra_ties)]
        forest = grow(ledger.count, ties)
        self._layouts = Settler(forest, self.locks).settle(ledger) if ledger.grids else []
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
        self.heads = {c for layout in self._layouts for c in self.of[layout.heads()].tolist()} - {int(self.of[0])}

    def reason(self, number: int) -> str:
        """Why a class is locked; empty for one that can be removed."""
        lock = int(self.lock_of[number])
        return self.locks[lock][1] if lock >= 0 else ""

    @cached_property
    def grid_ties(self) -> list[tuple[Array, Array, str]]:
        """Labels that a grid or the code of the model tied, and where."""
        return self._extra_ties + [(*pair, layout.where) for layout in self._layouts for pair in layout.ties()]

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
        lines = [row for system, axis in ref.systems if (row := self.line(system, axis)) is not None]
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

    def line(self, system: Tensor, axis: int) -> Array | None:
        """The class of every index of an axis, if it is the same wherever else one stands."""
        labels = line(system)
        key: tuple = span_of(labels) or (system.data_ptr(), tuple(system.shape), system.stride(), axis)
        if key not in self._lines:
            self._lines[key] = self._classes_of(labels, varying(system).index(axis)), system
        return self._lines[key][0]

    def _classes_of(self, labels: Tensor, axis: int) -> Array | None:
        if (span := span_of(labels)) is not None:
            return self._one(self.of[span.first : span.last + 1])
        if labels.dim() == 1:
            return self._one(self.of[labels.numpy()])
        rows = by_axis(self.of[labels.numpy()], axis)
        same = bool((rows == rows[:, :1]).all())
        if not same:
            # Whatever the reason for which it stays, what is locked counts alike.
            rows = np.where(self.locked[rows], self.of[0], rows)
            same = bool((rows == rows[:, :1]).all())
        return self._one(rows[:, 0]) if same else None

    def _one(self, line: Array) -> Array:
        """One and the same array for equal lines."""
        return self._different.setdefault(line.tobytes(), line)
