"""Memory for many tensors, taken from the system in large pieces.

A page of fresh memory is a trap into the kernel when it is first written, and for a cut model of hundreds of megabytes
those take longer than the copying. numpy asks for pages of two megabytes where an array is large; so many tensors share
one large array, each with a storage of its own that covers nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_PIECE = 1 << 24
#: Bytes to which every tensor is aligned, as PyTorch's own are.
_ALIGNED = 64


class Pool:
    """Gives out arrays that are not initialised. A piece is freed when the last array in it is."""

    def __init__(self) -> None:
        self._piece = np.empty(0, dtype=np.uint8)
        self._used = 0

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """An array in row-major order."""
        size = math.prod(shape) * dtype.itemsize
        if size >= _PIECE:
            return np.empty(shape, dtype)
        if self._used + size > len(self._piece):
            self._piece = np.empty(_PIECE, dtype=np.uint8)
            self._used = -self._piece.ctypes.data % _ALIGNED
        start = self._used
        self._used = start + size + -size % _ALIGNED
        return self._piece[start : start + size].view(dtype).reshape(shape)
