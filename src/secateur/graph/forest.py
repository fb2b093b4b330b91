"""Connected components: which labels are one, if everything that was tied is.

A *forest* is an array in which every label names a smaller one of its component, or itself if it is the smallest, the
*root*. Ties are mostly between whole lines of labels that follow one another: those are united as lines. What is left
is united label by label, all at once: every root is hung below the smallest one that it meets, which at least halves
the number of those that still have to meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from secateur.graph.labels import Line, Span, labels_of

Array = np.ndarray
Pair = tuple[Array, Array]

#: Ties are looked at in portions of so many labels, so that temporary arrays stay small.
_AT_ONCE = 1 << 15


def roots(forest: Array, labels: Array) -> Array:
    """The smallest label of each one's component."""
    found = forest[labels]
    while np.count_nonzero((above := forest[found]) != found):
        found = above
    return found


def unite(forest: Array, one: Array, other: Array) -> None:
    """Make labels that lie on one another one component."""
    unite_roots(forest, roots(forest, one), roots(forest, other))


def unite_roots(forest: Array, one: Array, other: Array) -> None:
    """Make roots that lie on one another one component."""
    while np.count_nonzero(apart := one != other):
        one, other = one[apart], other[apart]
        # With an index of 64 bits numpy takes its fast path.
        np.minimum.at(forest, np.maximum(one, other).astype(np.int64), np.minimum(one, other))
        one, other = roots(forest, one), roots(forest, other)


def grow(count: int, ties: Sequence[tuple[Line, Line]]) -> Array:
    """The forest of ``count`` labels, in which every label names its root; label 0 is tied to nothing."""
    forest = np.arange(count, dtype=np.int32)
    spans: list[tuple[Span, Span]] = []
    arrays: list[Pair] = []
    for one, other in ties:
        if isinstance(one, Span) and isinstance(other, Span):
            spans.append((one, other))
        elif len(labels_of(one)):
            arrays.append((labels_of(one), labels_of(other)))
    starts = [start for some in _portions(arrays) for start in _starts([a for pair in some for a in pair])]
    meetings = [(a.first, b.first, a.size) for a, b in spans]
    meetings += [(a, b, len(pair[0])) for a, b, pair in zip(starts[::2], starts[1::2], arrays)]
    lines = _apart({(start, n) for a, b, n in meetings for start in (a, b) if a and b})
    whole = [(a, n) in lines and (b, n) in lines for a, b, n in meetings]
    if any(whole):
        unite(forest, *np.array([(a, b) for (a, b, _), is_whole in zip(meetings, whole) if is_whole]).T)
    for start, length in lines:
        root = start
        while (above := int(forest[root])) != root:
            root = above
        if root != start:
            forest[start : start + length] = forest[root : root + length]
    if not all(whole):
        left = [pair for pair, is_whole in zip((*spans, *arrays), whole) if not is_whole]
        for some in _portions([(labels_of(a), labels_of(b)) for a, b in left]):
            one, other = np.concatenate([a for a, _ in some]), np.concatenate([b for _, b in some])
            both = (one > 0) & (other > 0)
            unite(forest, one[both], other[both])
        flatten(forest)
    return forest


def flatten(forest: Array) -> None:
    """Let every label name its root."""
    while np.count_nonzero((above := forest[forest]) != forest):
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


def _starts(lines: list[Array]) -> list[int]:
    """The first label of each line whose labels count up one by one, and 0 for every other one."""
    lengths = np.array([len(line) for line in lines])
    long, ends = np.concatenate(lines), np.cumsum(lengths)
    starts = ends - lengths
    breaks = np.flatnonzero(long[1:] - long[:-1] != 1) + 1
    straight = np.searchsorted(breaks, ends) == np.searchsorted(breaks, starts + 1)
    return np.where(straight, long[starts], 0).tolist()


def _apart(lines: set[tuple[int, int]]) -> dict[tuple[int, int], None]:
    """Lines, as start and length, that lie apart; of those that lie partly on one another only the first."""
    found: dict[tuple[int, int], None] = {}
    end = 0
    for start, length in sorted(lines, key=lambda line: (line[0], -line[1])):
        if start >= end:
            found[start, length] = None
            end = start + length
    return found
