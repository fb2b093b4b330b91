"""Samples of layers that the solvers are tried on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Layer = Callable[..., tuple[Tensor, Tensor, Tensor]]


@pytest.fixture(scope="session")
def layer() -> Layer:
    """``x`` [samples, c, k] of correlated, rectified features, ``weights`` [n, c, k] and the output [samples, n].

    Inputs and slices of the channels differ in size by up to a factor of three."""

    def build(samples: int, c: int, k: int, n: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        g = torch.Generator().manual_seed(seed)
        hidden = torch.randn(samples, 4, generator=g, dtype=dtype) @ torch.randn(4, c * k, generator=g, dtype=dtype)
        x = (hidden + torch.randn(samples, c * k, generator=g, dtype=dtype)).relu().reshape(samples, c, k)
        x = x * (torch.rand(c, 1, generator=g, dtype=dtype) + 0.5)
        weights = torch.randn(n, c, k, generator=g, dtype=dtype) * (torch.rand(c, 1, generator=g, dtype=dtype) + 0.5)
        return x, weights, x.flatten(1) @ weights.flatten(1).T

    return build
