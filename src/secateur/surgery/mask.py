"""``mask``: the plan at full size, which is what the cut model has to equal.

Every entry of a parameter that touches a removed unit becomes zero, so no layer reads one. Operations that read across
units without a parameter (the mean of a LayerNorm, a softmax over channels) would still see zeros where the cut model
has nothing at all; those are told which units count.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from secateur._errors import VerifyError
from secateur.graph.adapters import adapt
from secateur.graph.clone import copy_with
from secateur.graph.rules import argument, axes_of
from secateur.graph.selector import with_selectors
from secateur.graph.skeleton import Dispatch, ModuleStack, plain_kernels
from secateur.surgery.cut import cut
from secateur.surgery.plan import Plan, Read, check_fingerprint
from secateur.surgery.ranges import from_runs

#: Operations that add up products or powers: what is zero does not count.
_SUMS = {
    *("mm", "bmm", "matmul", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot"),
    *("sum", "nansum", "linalg_vector_norm", "norm"),
}


def mask(model: nn.Module, plan: Plan) -> nn.Module:
    """The full-size model in which the plan's removed units count for nothing.

    Returns:
        A copy of the model; where norms read across removed units it is wrapped in :class:`Masked` and meant for
        inference only.

    Raises:
        PlanError: the plan was made for another model.
    """
    if plan.base is not None:
        model = cut(model, plan.base)
    if plan.selectors:
        model = with_selectors(model, plan.selectors)
    check_fingerprint(model, plan)
    parameters = {name for name, _ in model.named_parameters()}
    silent = {name for skip in plan.skips for name in skip.silenced}

    def zeroed(name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        if name not in parameters:
            return tensor
        if name in silent:
            return tensor.zero_()
        for axis, runs in plan.slices.get(name, {}).items():
            gone = torch.ones(tensor.shape[axis], dtype=torch.bool, device=tensor.device)
            gone[list(from_runs(runs))] = False
            tensor.index_fill_(axis, gone.nonzero().reshape(-1), 0)
        return tensor

    full = copy_with(model, zeroed)
    return Masked(adapt(full), plan.reads) if plan.reads else full


class Masked(nn.Module):
    """A full-size model whose reading operations are told which units count."""

    def __init__(self, model: nn.Module, reads: tuple[Read, ...]):
        super().__init__()
        self.model = model
        self._reads = {(r.module, r.op, r.ordinal): r for r in reads}
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with plain_kernels(), ModuleStack(self.model) as stack, _Correct(stack, self._reads) as correct:
            output = self.model(*args, **kwargs)
        missed = set(self._reads) - correct.met
        if missed:
            raise VerifyError(
                f"the masked model took another path than the traced one: {sorted(missed)[0]} did not run"
            )
        return output


class _Correct(Dispatch):
    def __init__(self, stack: ModuleStack, reads: dict[tuple[str, str, int], Read]):
        super().__init__()
        self.stack, self.reads = stack, reads
        self.counts: Counter[tuple[str, str]] = Counter()
        self.met: set[tuple[str, str, int]] = set()

    def passes(self, func: Any, args: tuple, kwargs: dict) -> Any:
        name, module = func.overloadpacket.__name__, self.stack.path
        key = (module, name, self.counts[module, name])
        self.counts[module, name] += 1
        read = self.reads.get(key)
        if read is None:
            return func(*args, **kwargs)
        self.met.add(key)
        x = args[read.argument]
        alive = torch.zeros(math.prod(read.shape), dtype=torch.bool, device=x.device)
        alive[list(from_runs(read.alive))] = True
        alive = alive.view(read.shape)
        if name in _SUMS:
            return func(*args[: read.argument], x * alive, *args[read.argument + 1 :], **kwargs)
        return _corrected(func, name, args, kwargs, alive)


def _corrected(func: Any, name: str, args: tuple, kwargs: dict, alive: Tensor) -> Any:
    """The operation over what is alive only; ``alive`` broadcasts to the first argument."""
    x, rest = args[0], args[1:]
    if name in {"prod", "all"}:
        return func(x.masked_fill(~alive, True), *rest, **kwargs)
    if name == "any":
        return func(x.masked_fill(~alive, False), *rest, **kwargs)
    if name in {"amax", "amin", "max", "min"}:
        found = func(x.masked_fill(~alive, -math.inf if name.endswith("max") else math.inf), *rest, **kwargs)
        # Where nothing counts nothing is the largest; an infinite number would not go away behind a zero weight.
        return (_finite(found[0]), found[1]) if isinstance(found, tuple) else _finite(found)
    if name in {"topk", "argmax"}:
        return func(x.masked_fill(~alive, -math.inf), *rest, **kwargs)
    if name in {"_softmax", "_log_softmax", "_safe_softmax", "logsumexp"}:
        return func(x.masked_fill(~alive, -math.inf), *rest, **kwargs).nan_to_num(0.0, None, -math.inf)
    if name == "native_layer_norm":
        shape, weight, bias, eps = rest
        dims = list(range(x.dim() - len(shape), x.dim()))
        mean, variance = _moments(x, alive, dims)
        scale = (variance + eps).rsqrt()
        return _affine((x - mean) * scale, weight, bias, 0), mean, scale
    if name in {"native_batch_norm", "_native_batch_norm_legit"}:
        weight, bias, *_, eps = rest
        mean, variance = _moments(x, alive, [axis for axis in range(x.dim()) if axis != 1])
        scale = (variance + eps).rsqrt()
        return _affine((x - mean) * scale, weight, bias, x.dim() - 2), mean.reshape(-1), scale.reshape(-1)
    if name == "_weight_norm_interface":
        weight, norm = func(x, *rest, **kwargs)
        return weight.masked_fill(~alive, 0), norm
    if name == "_fused_rms_norm":
        shape, weight, eps = rest
        dims = list(range(x.dim() - len(shape), x.dim()))
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        scale = (_mean(x * x, alive, dims) + eps).rsqrt()
        return _affine(x * scale, weight, None, 0), scale
    if name == "native_group_norm":
        weight, bias, _, _, _, groups, eps = rest
        parts = x.reshape(x.shape[0], groups, -1)
        alive = alive.expand(1, *x.shape[1:]).reshape(1, groups, -1)
        mean, variance = _moments(parts, alive, [2])
        scale = (variance + eps).rsqrt()
        y = ((parts - mean) * scale).reshape(x.shape)
        return _affine(y, weight, bias, x.dim() - 2), mean.squeeze(2), scale.squeeze(2)
    dims = axes_of(argument(func, args, kwargs, "dim"), x.dim())
    keepdim = bool(argument(func, args, kwargs, "keepdim", False))
    if name == "mean":
        mean = _mean(x, alive, dims)
        return mean if keepdim else mean.squeeze(dims)
    if name in {"var", "std", "var_mean", "std_mean"}:
        correction = argument(func, args, kwargs, "correction", 1)
        mean, variance = _moments(x, alive, dims)
        count = _count(x, alive, dims)
        variance = variance * count / (count - (1 if correction is None else correction))
        spread = variance.sqrt() if name.startswith("std") else variance
        spread, mean = (spread, mean) if keepdim else (spread.squeeze(dims), mean.squeeze(dims))
        return (spread, mean) if name.endswith("_mean") else spread
    raise VerifyError(f"{name} reads across removed units and has no masked form; protect the groups that reach it")


def _finite(x: Tensor) -> Tensor:
    return x.nan_to_num(math.nan, 0.0, 0.0)


def _count(x: Tensor, alive: Tensor, dims: list[int]) -> Tensor:
    return alive.expand(x.shape).sum(dims, keepdim=True).clamp(min=1)


def _mean(x: Tensor, alive: Tensor, dims: list[int]) -> Tensor:
    return (x * alive).sum(dims, keepdim=True) / _count(x, alive, dims)


def _moments(x: Tensor, alive: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    mean = _mean(x, alive, dims)
    return mean, _mean((x - mean) ** 2, alive, dims)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int) -> Tensor:
    for vector, combine in ((weight, torch.mul), (bias, torch.add)):
        if vector is not None:
            x = combine(x, vector.reshape(*vector.shape, *(1,) * trailing))
    return x
