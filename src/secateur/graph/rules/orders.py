"""Operations for which order along an axis matters."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.labels import Labels, compressed, varying
from secateur.graph.rules.combinations import pointwise
from secateur.graph.rules.registry import argument, axes_of, rule
from secateur.graph.trees import tensors

#: These take the last axis where none is given; the others take all of them.
_ALONG_THE_LAST = {"sort", "topk"}


@rule("cumsum", "argmin", "sort", "cumprod", "logcumsumexp")
def ordered(run, func, args, kwargs, out) -> None:
    """Order along an axis matters here, so that axis is locked; the others pass."""
    x, labels = args[0], run.labels(args[0])
    if len(args) > 1 and isinstance(args[1], Tensor):
        return pointwise(run, func, args, kwargs, out)
    last = -1 if func.overloadpacket.__name__ in _ALONG_THE_LAST else None
    dims = axes_of(argument(func, args, kwargs, "dim", last), x.dim())
    for system in labels.systems:
        across = tuple(a for a in varying(system) if a in dims)
        if across:
            line = compressed(run.ledger.project(system, across), across)
            run.ledger.lock(line, f"ordered along this axis in {run.where(func)}")
    for t in tensors(out):
        keepdim = t.dim() == x.dim()
        if keepdim or t.dim() == x.dim() - len(dims):
            left = run.ledger.reduce(labels.systems, dims, keepdim)
            run.set(t, Labels(tuple(s.expand(t.shape) for s in left)))
    return None


@rule("max", "min", "argmax")
def extreme(run, func, args, kwargs, out) -> None:
    """The largest or smallest along an axis is that of what stays; its index points into the axis."""
    x, labels = args[0], run.labels(args[0])
    dim = argument(func, args, kwargs, "dim")
    axis = dim % x.dim() if isinstance(dim, int) and x.dim() else None
    across = [s for s in labels.systems if axis in varying(s)]
    if axis is None or len(across) != 1:
        return ordered(run, func, args, kwargs, out)
    run.reads(func, 0, labels.systems, [axis])
    outs = list(tensors(out))
    run.point(outs[-1], compressed(run.ledger.project(across[0], (axis,)), (axis,)))
    left = run.ledger.reduce(labels.systems, [axis], keepdim=outs[0].dim() == x.dim())
    for t in outs:
        run.set(t, Labels(left))
    return None
