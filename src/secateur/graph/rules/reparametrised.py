"""Weights that are computed from other parameters by one fused operation."""

from __future__ import annotations

from secateur.graph.labels import Labels
from secateur.graph.rules.registry import argument, rule


@rule("_weight_norm_interface")
def weight_norm(run, func, args, kwargs, out) -> None:
    """``v * g / norm(v)`` with a norm for each index of one axis: a pointwise meeting of ``v`` with ``g``.

    What is removed of the other axes is zero in the masked ``v``, so it does not count for the norm.
    """
    v, g = args[:2]
    given = run.labels(v), run.labels(g)
    systems = run.ledger.meet([(given[0], tuple(v.shape)), (given[1], tuple(g.shape))], v.shape, run.where(func))
    # A row of nothing but zeros has no direction: the masked model is told which rows count.
    axis = argument(func, args, kwargs, "dim", 0) % v.dim()
    run.reads(func, 0, systems, [axis])
    run.set(out[0], Labels(systems, is_weight=True))
    run.set(out[1], Labels(run.ledger.reduce(systems, [k for k in range(v.dim()) if k != axis], keepdim=True), True))
