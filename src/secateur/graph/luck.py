"""Runs that can be compared: whatever a forward draws at random, it draws again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.graph.trees import copied


@contextmanager
def same_luck(network: nn.Module) -> Iterator[None]:
    """While this lasts, what is drawn at random begins at the same seed each time."""
    devices = {t.device.index for t in network.parameters() if t.device.type == "cuda"}
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(sorted(devices)):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def with_same_luck(network: nn.Module, args: tuple, kwargs: dict) -> Any:
    """The output for inputs that the forward may change, with the :func:`same_luck`."""
    with same_luck(network):
        args, kwargs = copied((args, kwargs))
        return network(*args, **kwargs)
