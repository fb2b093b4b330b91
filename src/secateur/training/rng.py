"""All random generators that training may draw from, as tensors and JSON values."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def capture(generator: torch.Generator | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of Python's, NumPy's and PyTorch's global generators (CUDA too) and of one more: tensors, values."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    tensors |= {f"cuda{i}": state for i, state in enumerate(_cuda_states())}
    if generator is not None:
        tensors["loader"] = generator.get_state()
    values = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, int(position), int(has_gauss), float(cached)],
    }
    return tensors, values


def restore(tensors: Mapping[str, Tensor], values: Mapping[str, Any], generator: torch.Generator | None = None) -> None:
    """Put the generators back where :func:`capture` found them; those of devices that are gone are left out."""
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, position, has_gauss, cached = values["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    for i in range(len(_cuda_states())):
        if f"cuda{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{i}"], i)
    if generator is not None and "loader" in tensors:
        generator.set_state(tensors["loader"])


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
