"""What the model's code did with sizes of which nobody can say whether it follows a cut.

Everything that the code does with a size is heard (``size_watch.py``, ``sources.py``). Most of it follows a cut by
itself: a size that is read off a tensor and given to another of the same units, an attribute that is kept in line with
its axis. What is left are *doubts*, each with the widths that it is about. Where none of those can be cut there is
nothing for a dry run to find; elsewhere dry runs decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from secateur.graph.classes import Classes
from secateur.graph.groups import Group
from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import AxisRef, Literal

_NONE = np.zeros(0, dtype=np.int64)


class Place(NamedTuple):
    """An attribute of a module, or an entry of one."""

    module: str
    attribute: str
    entry: int | None = None


class Pair(NamedTuple):
    """An axis whose size the code took, and to which it gave that size: one, or two neighbours as one.

    Attributes:
        taken: the axis whose size it took.
        system: of the tensor to which it gave it.
        axes: of that tensor, along which the system varies.
        line: of the code.
        times: how often it gave it.
    """

    taken: AxisRef
    system: Tensor
    axes: tuple[int, ...]
    line: str
    times: int = 1


class Doubts:
    """Collects doubts during a trace.

    Attributes:
        always: whether there is one that no lock can remove.
    """

    def __init__(self) -> None:
        self.always = False
        self._axes: dict[int, AxisRef] = {}
        self._places: set[Place] = set()
        self._systems: dict[int, Tensor] = {}
        self._pairs: list[Pair] = []

    def about(self, source: Place | AxisRef) -> None:
        """The code works with the length of an axis, or with what an attribute holds, and nobody follows it."""
        if isinstance(source, Place):
            self._places.add(source)
        elif source.systems:
            self._axes[id(source)] = source

    def about_systems(self, systems: Iterable[Tensor]) -> None:
        """The code does something with tensors that may depend on any of their sizes."""
        self._systems.update((id(s), s) for s in systems)

    def about_sizes(self, one: AxisRef, other: AxisRef, line: str, times: int = 1) -> None:
        """The code asks that an axis is as long as another, or so many times as long."""
        if len(one.systems) == len(other.systems) == 1:
            system, axis = other.systems[0]
            self._pairs.append(Pair(one, system, (axis,), line, times))
        else:
            self.about(one)
            self.about(other)

    def remain(
        self,
        classes: Classes,
        groups: Sequence[Group],
        group_of: np.ndarray,
        literals: Iterable[Literal],
        pairs: Iterable[Pair],
    ) -> bool:
        """Whether one is about something that a cut may change."""
        # Classes that lie on no parameter have no group, which is number -1.
        cut = np.array([*(not g.locked and g.width > 1 for g in groups), False])[group_of]

        def changes(axis: AxisRef) -> bool:
            return any(bool(cut[line].any()) for line in classes.lines(axis))

        return (
            self.always
            or any(map(changes, self._axes.values()))
            or any(Place(x.module, x.attribute, x.index) in self._places and changes(x.axis) for x in literals)
            or any(bool(cut[classes.of[compressed(s, varying(s)).numpy()]].any()) for s in self._systems.values())
            or not all(one_size(pair, classes) for pair in (*self._pairs, *pairs))
        )


def one_size(pair: Pair, classes: Classes) -> bool:
    """Whether the two have one size, whatever is cut: the same units lie on them, shuffled maybe."""
    if len(pair.axes) == pair.times == len(pair.taken.systems) == 1:
        # Equal lines are one and the same array.
        taken, given = classes.line(*pair.taken.systems[0]), classes.line(pair.system, pair.axes[0])
        if taken is given and taken is not None:
            return True
    lines = classes.lines(pair.taken) * pair.times
    if len(pair.axes) == 1:
        other = classes.lines(AxisRef(pair.system.shape[pair.axes[0]], ((pair.system, pair.axes[0]),)))
    else:
        other = [classes.of[compressed(pair.system, varying(pair.system)).numpy()].reshape(-1)]
    return np.array_equal(_removable(lines, classes), _removable(other, classes))


def _removable(lines: Sequence[np.ndarray], classes: Classes) -> np.ndarray:
    """The units on some lines that are not locked, in ascending order."""
    units = np.concatenate([_NONE, *lines])
    return np.sort(units[~classes.locked[units]])
