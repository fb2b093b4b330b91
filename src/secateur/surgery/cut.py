"""``cut``: a plan becomes a new, smaller module."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from secateur._errors import PlanError
from secateur.graph import sizes
from secateur.graph.adapters import adapt
from secateur.graph.clone import Mould, modules_of
from secateur.graph.selector import settle, with_selectors
from secateur.graph.skeleton import no_collection
from secateur.surgery.experts import loop_over_odd_experts
from secateur.surgery.plan import Plan, check_fingerprint
from secateur.surgery.pool import Pool
from secateur.surgery.pretrained import catch_up, follow_config
from secateur.surgery.ranges import bounds, spread
from secateur.surgery.skip import Skip

_OF_NUMPY = (torch.float16, torch.float32, torch.float64)
#: Bytes that are gathered in one go along the first axis, before the others: so many stay in the processor's cache.
_AT_ONCE = 1 << 18


@lru_cache(maxsize=4096)
def _index(runs: str, size: int) -> tuple[np.ndarray, int]:
    """Which blocks of an axis stay, and how long a block is: channels of a flattened map lie 49 and 49, say."""
    firsts, stops = bounds(runs)
    block = int(np.gcd.reduce([size, np.gcd.reduce(firsts), np.gcd.reduce(stops)]))
    return spread(firsts // block, stops // block), block


def _gathered(source: np.ndarray, indices: dict[int, np.ndarray], pool: Pool) -> np.ndarray:
    """What lies at the given indices of each of the given axes."""
    kept = pool.empty([len(indices[a]) if a in indices else n for a, n in enumerate(source.shape)], source.dtype)
    (first, index), *others = indices.items()
    # Indices are in range; other modes than the default write straight into ``out``.
    if not others:
        return source.take(index, axis=first, out=kept, mode="wrap")
    if first:
        return _gathered(_gathered(source, {first: index}, pool), dict(others), pool)
    *between, (last, columns) = others
    rows = max(1, _AT_ONCE // max(1, source[:1].nbytes))
    for start in range(0, len(index), rows):
        some = source.take(index[start : start + rows], axis=0)
        for axis, inner in between:
            some = some.take(inner, axis=axis)
        some.take(columns, axis=last, out=kept[start : start + rows], mode="wrap")
    return kept


def shrunk(name: str, tensor: Tensor, plan: Plan, pool: Pool) -> Tensor:
    """What stays of one tensor (or of one laid out like it, such as a momentum); always a copy."""
    slices = plan.slices.get(name)
    if not slices:
        return tensor.clone()
    numeric = tensor.device.type == "cpu" and tensor.dtype in _OF_NUMPY and tensor.layout == torch.strided
    if numeric and tensor.dim() == 1:
        # Most tensors are vectors, and short.
        index, block = _index(slices[0], len(tensor))
        if block == 1:
            return torch.from_numpy(tensor.numpy().take(index))
    # Blocks are made an axis of their own, so an axis moves by one for every earlier one that has them.
    indices: dict[int, np.ndarray] = {}
    shape, view, moved = list(tensor.shape), list(tensor.shape), 0
    for axis, runs in sorted(slices.items()):
        index, block = _index(runs, shape[axis])
        indices[axis + moved] = index
        shape[axis] = len(index) * block
        if block > 1:
            view[axis + moved : axis + moved + 1] = [view[axis + moved] // block, block]
            moved += 1
    if moved:
        tensor = tensor.reshape(view)
    if numeric:
        # Several times faster than index_select along any axis but the first.
        tensor = torch.from_numpy(_gathered(tensor.numpy(), indices, pool))
    else:
        for axis, index in indices.items():
            tensor = tensor.index_select(axis, torch.from_numpy(index).to(tensor.device))
    return tensor.reshape(shape) if moved else tensor


def _check_constants(mould: Mould, plan: Plan) -> None:
    """Refuse a plan whose constants had other sizes; a fingerprint is only of what a model registers."""
    for name in mould.constants.keys() & plan.slices.keys():
        shape = tuple(mould.constants[name].shape)
        for axis, runs in plan.slices[name].items():
            last = int(bounds(runs)[1][-1]) - 1
            if axis >= len(shape) or last >= shape[axis]:
                raise PlanError(
                    f"the plan keeps entry {last} of axis {axis} of {name}, which has the shape {shape} here"
                    "\nbuild the model with the same arguments as when it was traced, or trace it again"
                )


@no_collection()
def cut(model: nn.Module, plan: Plan) -> nn.Module:
    """Build the smaller model that a plan describes.

    Args:
        model: the dense model; it is not changed, and the new one shares no memory with it.
        plan: made for this model.

    Returns:
        A module of the same class with fewer channels, heads or features, in the same mode and on the same device.
        The configuration of a Hugging Face model follows where the plan says how, otherwise when ``save_pretrained``
        is called.

    Raises:
        PlanError: the plan was made for another model, or the model was cut already.
    """
    if plan.base is not None:
        model = cut(model, plan.base)
    if plan.selectors:
        model = with_selectors(model, plan.selectors)
    mould = Mould(model)
    check_fingerprint(mould, plan)
    _check_constants(mould, plan)
    catch_up(model)
    pool = Pool()
    copied = mould.cast(lambda name, t: shrunk(name, t, plan, pool))
    small, modules = copied.model, copied.modules
    for skip in plan.skips:
        small.set_submodule(skip.block, Skip())
    if any(isinstance(m, nn.MultiheadAttention) for _, m in modules) and plan.slices:
        adapt(small)
        modules = modules_of(small)
    by_path = dict(modules)
    for size in plan.sizes:
        module = by_path.get(size.module) or small.get_submodule(size.module)
        sizes.write(module, size.attribute, size.value, size.index)
    sizes.follow_parameters(modules, plan.slices)
    if plan.selectors:
        settle(small)
    loop_over_odd_experts(modules)
    follow_config(small, plan, getattr(model, "config", None))
    small.secateur_plan = plan  # type: ignore[assignment]
    return small
