"""``cut``: a plan becomes a new, smaller module."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from secateur.graph import sizes
from secateur.graph.adapters import adapt
from secateur.graph.clone import copy_with
from secateur.surgery.config import follow_config
from secateur.surgery.plan import Plan, check_fingerprint, from_runs
from secateur.surgery.skip import Skip

_OF_NUMPY = (torch.float16, torch.float32, torch.float64)


@lru_cache(maxsize=4096)
def _index(runs: str, size: int) -> tuple[np.ndarray, int]:
    """Which blocks of an axis stay, and how long a block is: channels of a flattened map lie 49 and 49, say."""
    found = np.array(from_runs(runs), dtype=np.int64)
    edges = found[np.concatenate([[True], np.diff(found) != 1])]
    lasts = found[np.concatenate([np.diff(found) != 1, [True]])] + 1
    block = int(np.gcd.reduce([*edges, *lasts, size]))
    return found[::block] // block, block


def select(tensor: Tensor, axis: int, runs: str) -> Tensor:
    """The indices of one axis that stay, as :func:`to_runs` wrote them; a copy."""
    index, block = _index(runs, tensor.shape[axis])
    if block > 1:
        tensor = tensor.unflatten(axis, (-1, block))
    if tensor.device.type == "cpu" and tensor.dtype in _OF_NUMPY and tensor.layout == torch.strided:
        # Several times faster than index_select along any axis but the first.
        result = torch.from_numpy(np.take(tensor.numpy(), index, axis=axis))
    else:
        result = tensor.index_select(axis, torch.from_numpy(index).to(tensor.device))
    return result.flatten(axis, axis + 1) if block > 1 else result


def shrunk(name: str, tensor: Tensor, plan: Plan) -> Tensor:
    """What stays of one tensor (or of one laid out like it, such as a momentum); always a copy."""
    result = tensor
    for axis, runs in sorted(plan.slices.get(name, {}).items()):
        result = select(result, axis, runs)
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
    for skip in plan.skips:
        small.set_submodule(skip.block, Skip())
    if any(isinstance(m, nn.MultiheadAttention) for m in small.modules()) and plan.slices:
        adapt(small)
    for size in plan.sizes:
        sizes.write(small.get_submodule(size.module), size.attribute, size.value, size.index)
    sizes.follow_parameters(small, plan.slices)
    follow_config(small, plan)
    small.secateur_plan = plan  # type: ignore[assignment]
    return small
