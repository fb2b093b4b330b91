"""Connected components: which labels are one, if everything that was tied is.

A *forest* is an array in which every label names a smaller one of its component, or itself if it is the smallest, the
*root*. Ties are mostly between whole lines of labels that follow one another: those are united as lines. What is left
is united label by label, all at once: every root is hung below the smallest one that it meets, which at least halves
the number of those that still have to meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Array = np.ndarray
Pair = tuple[Array, Array]

#: Ties are looked at in portions of so many labels, so that temporary arrays stay small.
_AT_ONCE = 1 << 18


def roots(forest: Array, labels: Array) -> Array:
    """The smallest label of each one's component."""
    found = forest[labels]
    while not ((above := forest[found]) == found).all():
        found = above
    return found


def unite(forest: Array, one: Array, other: Array) -> None:
    """Make labels that lie on one another one component."""
    while len(one):
        one, other = roots(forest, one), roots(forest, other)
        apart = one != other
        one, other = one[apart], other[apart]
        # Its index in 64 bits, and numpy takes its fast path.
        np.minimum.at(forest, np.maximum(one, other).astype(np.int64), np.minimum(one, other))


def grow(count: int, ties: Sequence[Pair]) -> Array:
    """The forest of ``count`` labels, in which every label names its root; label 0 is tied to nothing."""
    forest = np.arange(count, dtype=np.int32)
    ties = [pair for pair in ties if len(pair[0])]
    straight = [k for some in _portions(ties) for k in _runs([a for pair in some for a in pair])]
    ends = [(int(a[0]), int(b[0]), len(a)) for a, b in ties]
    runs = [k for k in range(len(ties)) if straight[2 * k] and straight[2 * k + 1]]
    lines = _apart({(start, ends[k][2]) for k in runs for start in ends[k][:2]})
    whole = [k for k in runs if all((start, ends[k][2]) in lines for start in ends[k][:2])]
    if whole:
        unite(forest, *np.array([ends[k][:2] for k in whole]).T)
    for start, length in lines:
        root = start
        while (above := int(forest[root])) != root:
            root = above
        forest[start : start + length] = forest[root : root + length]
    taken = set(whole)
    for some in _portions([pair for k, pair in enumerate(ties) if k not in taken]):
        one, other = np.concatenate([a for a, _ in some]), np.concatenate([b for _, b in some])
        both = (one > 0) & (other > 0)
        unite(forest, one[both], other[both])
    flatten(forest)
    return forest


def flatten(forest: Array) -> None:
    """Let every label name its root."""
    while not ((above := forest[forest]) == forest).all():
        forest[:] = above


def _portions(ties: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    first = size = 0
    for k, (a, _) in enumerate(ties):
        size += len(a)
        if size >= _AT_ONCE:
            yield ties[first : k + 1]
            first, size = k + 1, 0
    if first < len(ties):
        yield ties[first:]


def _runs(lines: list[Array]) -> list[bool]:
    """Which of some lines count up one by one, from a label that is not 0."""
    long, ends = np.concatenate(lines), np.cumsum([len(line) for line in lines])
    starts = ends - [len(line) for line in lines]
    breaks = np.flatnonzero(long[1:] - long[:-1] != 1) + 1
    inside = np.searchsorted(breaks, ends) - np.searchsorted(breaks, starts + 1)
    return ((inside == 0) & (long[starts] > 0)).tolist()


def _apart(lines: set[tuple[int, int]]) -> dict[tuple[int, int], None]:
    """Lines, as start and length, that lie apart; of those that lie partly on one another only the first."""
    found: dict[tuple[int, int], None] = {}
    end = 0
    for start, length in sorted(lines, key=lambda line: (line[0], -line[1])):
        if start >= end:
            found[start, length] = None
            end = start + length
    return found
