"""Runs: stretches along which classes count up one by one.

Lines of classes (the axes of parameters) are nearly always made of a few runs, so what has to be known of every class
on every line is worked out in a few vectorised steps over their runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Runs:
    """Runs on some lines, in order; all arrays have shape ``[runs]``.

    Attributes:
        line: number of the line.
        place: where the run starts on its line.
        first: its first class.
        length: how many classes it has.
    """

    line: Array
    place: Array
    first: Array
    length: Array

    @classmethod
    def along(cls, classes: Array, starts: Array) -> Runs:
        """The runs on lines that lie one behind another in ``classes``, from the given starts on."""
        begins = np.empty(len(classes), dtype=bool)
        np.not_equal(classes[1:], classes[:-1] + 1, out=begins[1:])
        begins[starts] = True
        at = np.flatnonzero(begins)
        line = np.searchsorted(starts, at, side="right") - 1
        first = classes[at].astype(np.int64)
        return cls(line, at - starts[line], first, np.diff(at, append=len(classes)))

    @classmethod
    def of(cls, lines: Sequence[Array]) -> Runs:
        """The runs on some lines."""
        if not lines:
            return cls(*np.zeros((4, 0), dtype=np.int64))
        ends = np.cumsum([len(line) for line in lines])
        return cls.along(np.concatenate(lines), ends - [len(line) for line in lines])

    def sums(self, values: Array, count: int) -> Array:
        """For each of ``count`` classes the sum of the values, one a line, over all places where it lies."""
        steps = np.zeros(count + 1, dtype=values.dtype)
        np.add.at(steps, self.first, values[self.line])
        np.subtract.at(steps, self.first + self.length, values[self.line])
        return np.cumsum(steps, dtype=values.dtype)[:count]

    def split(self, bounds: Array) -> Runs:
        """The same runs, divided in front of every class of ``bounds`` (ascending)."""
        low = np.searchsorted(bounds, self.first, side="right")
        pieces = np.searchsorted(bounds, self.first + self.length) - low + 1
        if (pieces == 1).all():
            return self
        of = np.repeat(np.arange(len(pieces)), pieces)
        nth = places(pieces)
        inner = np.append(bounds, 0)
        first = np.where(nth == 0, self.first[of], inner[low[of] + nth - 1])
        end = np.where(nth == pieces[of] - 1, (self.first + self.length)[of], inner[low[of] + nth])
        return Runs(self.line[of], self.place[of] + first - self.first[of], first, end - first)


def places(lengths: Array) -> Array:
    """``0 .. length - 1`` for each length, one behind another."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
