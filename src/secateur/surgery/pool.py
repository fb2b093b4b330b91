"""Memory for many tensors, taken from the system in large pieces.

A page of fresh memory is a trap into the kernel when it is first written, and for a cut model of hundreds of megabytes
those take longer than the copying. numpy asks for pages of two megabytes where an array is large; so many tensors share
one large array, each with a storage of its own that covers nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Bytes of the first piece, and of the largest.
_FIRST, _LARGEST = 1 << 20, 1 << 26
#: Bytes to which every tensor is aligned, as PyTorch's own are.
_ALIGNED = 64


class Pool:
    """Gives out arrays that are not initialised. A piece is freed when the last array in it is."""

    def __init__(self) -> None:
        self._piece = np.empty(0, dtype=np.uint8)
        self._used = self._given = 0

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """An array in row-major order."""
        size = math.prod(shape) * dtype.itemsize
        self._given += size
        if size >= _LARGEST:
            return np.empty(shape, dtype)
        if self._used + size > len(self._piece):
            # As large as all before together: a small model takes no more than it needs.
            self._piece = np.empty(max(size + _ALIGNED, min(max(self._given, _FIRST), _LARGEST)), dtype=np.uint8)
            self._used = -self._piece.ctypes.data % _ALIGNED
        start = self._used
        self._used = start + size + -size % _ALIGNED
        return np.ndarray(shape, dtype, self._piece, start)
