"""Small systems of linear equations over whole numbers, solved exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

Row = list[Fraction]


def _reduced(rows: Sequence[Sequence[Fraction | int]], columns: int) -> tuple[list[Row], list[int]]:
    """Reduced row echelon form over the first ``columns`` columns, and the pivot column of each row."""
    left = [list(map(Fraction, row)) for row in dict.fromkeys(tuple(row) for row in rows) if any(row)]
    pivots: list[int] = []
    for column in range(columns):
        top = len(pivots)
        found = next((i for i in range(top, len(left)) if left[i][column]), None)
        if found is None:
            continue
        left[top], left[found] = left[found], left[top]
        head = left[top][column]
        left[top] = [v / head for v in left[top]]
        for i, row in enumerate(left):
            if i != top and row[column]:
                factor = row[column]
                left[i] = [v - factor * t for v, t in zip(row, left[top])]
        pivots.append(column)
    return left, pivots


def solve(rows: Sequence[Sequence[Fraction | int]], columns: int) -> list[int] | None:
    """The whole numbers ``y`` with ``row[:columns] @ y == row[columns]`` for every row; free ones are 0.

    Returns:
        ``y``, or ``None`` if there is none.
    """
    reduced, pivots = _reduced(rows, columns)
    if any(row[columns] for row in reduced[len(pivots) :]):
        return None
    found = [Fraction(0)] * columns
    for row, pivot in zip(reduced, pivots):
        found[pivot] = row[columns]
    return [int(v) for v in found] if all(v.denominator == 1 for v in found) else None


def nullspace(rows: Sequence[Sequence[Fraction | int]], columns: int) -> list[list[int]]:
    """A basis of all ``v`` with ``row @ v == 0``, each vector in its smallest whole numbers."""
    reduced, pivots = _reduced(rows, columns)
    basis = []
    for free in range(columns):
        if free in pivots:
            continue
        vector = [Fraction(0)] * columns
        vector[free] = Fraction(1)
        for row, pivot in zip(reduced, pivots):
            vector[pivot] = -row[free]
        scale = math.lcm(*(v.denominator for v in vector))
        whole = [int(v * scale) for v in vector]
        divisor = math.gcd(*whole)
        basis.append([v // divisor for v in whole])
    return basis
