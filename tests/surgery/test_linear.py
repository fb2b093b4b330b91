"""Exact solutions of small systems."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secateur.surgery.linear import nullspace, solve

small = st.integers(-3, 3)


def test_no_solution_and_no_whole_one():
    assert solve([[1, 2], [1, 3]], 1) is None
    assert solve([[2, 3]], 1) is None
    assert solve([[2, 4], [0, 0]], 1) == [2]
    assert solve([[Fraction(1, 2), 0, 3]], 2) == [6, 0]


@given(
    st.lists(st.lists(small, min_size=4, max_size=4), min_size=1, max_size=5), st.lists(small, min_size=4, max_size=4)
)
def test_what_is_solved_fits(matrix: list[list[int]], x: list[int]):
    right = np.array(matrix) @ x
    found = solve([[*row, int(b)] for row, b in zip(matrix, right)], 4)
    if found is not None:
        assert (np.array(matrix) @ found == right).all()


@given(st.lists(st.lists(small, min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_null_space_is_one(matrix: list[list[int]]):
    basis = nullspace(matrix, 4)
    assert len(basis) == 4 - np.linalg.matrix_rank(np.array(matrix))
    for vector in basis:
        assert not (np.array(matrix) @ vector).any()
        assert np.gcd.reduce(vector) == 1
