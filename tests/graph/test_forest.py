"""Connected components and runs, held against what takes longer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from secateur.graph import forest
from secateur.graph.labels import Line, Span
from secateur.graph.runs import Runs


def _some_ties(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ties between lines, parts of lines, and labels in any order, among them label 0."""
    ties = []
    for _ in range(rng.integers(0, 12)):
        length = int(rng.integers(0, min(40, count)))
        if rng.random() < 0.7 and length:
            a, b = rng.integers(0, count - length + 1, 2)
            ties.append((np.arange(a, a + length), np.arange(b, b + length)))
            if rng.random() < 0.6:
                ties[-1] = tuple(line - line[0] % length for line in ties[-1])
        else:
            ties.append((rng.integers(0, count, length), rng.integers(0, count, length)))
    return ties


@pytest.mark.parametrize("seed", range(200))
def test_a_forest_has_the_components_of_its_ties(seed: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(forest, "_AT_ONCE", int(rng.integers(1, 60)))
    count = int(rng.integers(5, 200))
    ties = _some_ties(rng, count)
    a, b = (np.concatenate([np.zeros(0, dtype=np.int64), *side]) for side in (zip(*ties) if ties else ((), ())))
    met = (a > 0) & (b > 0)
    _, component = connected_components(coo_matrix((np.ones(met.sum()), (a[met], b[met])), (count, count)), False)
    smallest = np.unique(component, return_index=True)[1]
    assert np.array_equal(forest.grow(count, [_as_spans(pair, rng) for pair in ties]), smallest[component])


def _as_spans(pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[Line, Line]:
    """Lines that are known to count up, or the same labels as arrays."""
    known = all(len(line) and line[0] > 0 and (np.diff(line) == 1).all() for line in pair)
    return tuple(Span(int(line[0]), len(line)) for line in pair) if known and rng.random() < 0.5 else pair


@pytest.mark.parametrize("seed", range(100))
def test_runs_say_what_lies_where(seed: int):
    rng = np.random.default_rng(seed)
    lines = [
        np.arange(start, start + 9) if rng.random() < 0.5 else rng.integers(0, 20, 9)
        for start in rng.integers(0, 11, 6)
    ]
    runs = Runs.of(lines).split(np.unique(rng.integers(1, 20, 3)))
    back = [np.full(9, -1) for _ in lines]
    for line, place, first, length in zip(runs.line, runs.place, runs.first, runs.length):
        back[line][place : place + length] = np.arange(first, first + length)
    assert np.array_equal(back, lines)
    values = rng.integers(1, 100, len(lines))
    expected = [sum(int(v) * int((line == c).sum()) for v, line in zip(values, lines)) for c in range(20)]
    assert runs.sums(values, 20).tolist() == expected
