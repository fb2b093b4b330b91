"""``cut``: a plan becomes a new, smaller module."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from secateur.graph import sizes
from secateur.graph.adapters import adapt
from secateur.graph.clone import copy_with
from secateur.surgery.config import follow_config
from secateur.surgery.plan import Plan, check_fingerprint, from_runs


@lru_cache(maxsize=4096)
def _index(runs: str) -> Tensor:
    """Indices as a tensor; many tensors keep the same."""
    return torch.tensor(from_runs(runs))


def shrunk(name: str, tensor: Tensor, plan: Plan) -> Tensor:
    """What stays of one tensor (or of one laid out like it, such as a momentum); always a copy."""
    result = tensor
    for axis, runs in plan.slices.get(name, {}).items():
        result = result.index_select(axis, _index(runs).to(tensor.device))
    return result.clone() if result is tensor else result


def cut(model: nn.Module, plan: Plan) -> nn.Module:
    """Build the smaller model that a plan describes.

    Args:
        model: the dense model; it is not changed, and the new one shares no memory with it.
        plan: made for this model.

    Returns:
        A module of the same class with fewer channels, heads or features, in the same mode and on the same device.

    Raises:
        PlanError: the plan was made for another model, or the model was cut already.
    """
    check_fingerprint(model, plan)
    small = copy_with(model, lambda name, t: shrunk(name, t, plan))
    if any(isinstance(m, nn.MultiheadAttention) for m in small.modules()) and plan.slices:
        adapt(small)
    for size in plan.sizes:
        sizes.write(small.get_submodule(size.module), size.attribute, size.value, size.index)
    sizes.follow_parameters(small, plan.slices)
    follow_config(small, plan)
    small.secateur_plan = plan  # type: ignore[assignment]
    return small
