"""Runs that can be compared: whatever a forward draws at random, it draws again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.graph.trees import copied


def with_same_luck(network: nn.Module, args: tuple, kwargs: dict) -> Any:
    """The output, where whatever the forward draws at random begins at the same seed each time."""
    devices = {t.device.index for t in network.parameters() if t.device.type == "cuda"}
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(sorted(devices)):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            args, kwargs = copied((args, kwargs))
            return network(*args, **kwargs)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
