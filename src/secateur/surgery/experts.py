"""Mixtures of experts of transformers, which multiply by all experts at once where the widths of these allow it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

#: Bytes: the product takes rows that begin at multiples of it, and nothing else.
_ALIGNED = 16


def loop_over_odd_experts(modules: Iterable[tuple[str, nn.Module]]) -> None:
    """Let a cut model go through its experts one by one where it could not multiply by all at once.

    Otherwise it would stop with an error as soon as it runs. The configuration says it, so whoever reads the model back
    has the loop too; it is the slower way, and ``round_to=8`` leaves widths that spare it.

    Args:
        modules: of the cut model, which are changed in place.
    """
    holders: list[Any] = [m for _, m in modules if m.__dict__.get("config") is not None]
    if all(_is_even(p) for module in holders for p in module._parameters.values()):
        return
    # The configuration of the whole passes its choice on to those of its parts when it is read back.
    for config in {id(m.config): m.config for m in holders}.values():
        if getattr(config, "_experts_implementation", None) == "grouped_mm":
            config._experts_implementation = config.experts_implementation = "eager"


def _is_even(parameter: nn.Parameter | None) -> bool:
    """Whether it is no stack of matrices, or one of such widths as the product takes."""
    if parameter is None or parameter.dim() != 3 or len(parameter) == 1:
        return True
    return not any(width * parameter.element_size() % _ALIGNED for width in parameter.shape[1:])
