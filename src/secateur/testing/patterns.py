"""Every kind of wiring that the engine is held to, one toy model each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from secateur.testing.attention_toys import attention_toys
from secateur.testing.graph_toys import graph_toys
from secateur.testing.library_toys import library_toys
from secateur.testing.module_toys import module_toys
from secateur.testing.sequence_toys import sequence_toys
from secateur.testing.token_toys import token_toys
from secateur.testing.toys import image_toys
from secateur.testing.wiring_toys import wiring_toys


def patterns() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    """What builds every toy, by name: a model, and example inputs of batch 1 (a tensor or a dict of keywords)."""
    return {
        **image_toys(),
        **wiring_toys(),
        **token_toys(),
        **attention_toys(),
        **sequence_toys(),
        **module_toys(),
        **library_toys(),
        **graph_toys(),
    }
