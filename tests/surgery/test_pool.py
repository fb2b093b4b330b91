"""Memory from a pool: arrays lie apart, and a tensor over one owns nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.surgery.pool import Pool


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_lie_apart(dtype: str):
    rng = np.random.default_rng(0)
    pool = Pool()
    shapes = [tuple(rng.integers(0, 40, rng.integers(0, 4)).tolist()) for _ in range(300)]
    # One that is larger than all before it together, and one that is larger than any piece.
    shapes += [(1 << 10, 1 << 10), (7,), (1 << 12, 1 << 12), (5, 5)]
    arrays = [pool.empty(shape, np.dtype(dtype)) for shape in shapes]
    for k, array in enumerate(arrays):
        array.fill(k % 1000)
    for k, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        assert array.shape == shape
        assert array.flags["C_CONTIGUOUS"]
        assert (array == k % 1000).all()


def test_a_tensor_has_a_storage_of_its_own():
    pool = Pool()
    one, two = (torch.from_numpy(pool.empty((3, 5), np.dtype(np.float32))) for _ in range(2))
    assert one.untyped_storage().nbytes() == two.untyped_storage().nbytes() == 60
    assert one.untyped_storage().data_ptr() != two.untyped_storage().data_ptr()
    assert one.data_ptr() % 64 == two.data_ptr() % 64 == 0
