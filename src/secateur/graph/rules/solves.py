"""Systems of linear equations: every unknown depends on every equation, many are solved side by side."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from secateur.graph.labels import Labels, broadcast, laid, varying
from secateur.graph.rules.registry import argument, rule


@rule("linalg_solve_triangular")
def triangular(run, func, args, kwargs, out) -> None:
    """``a @ x == b``, or ``x @ a == b`` unless ``left``: the leading axes, and one of the sides of ``b``, pass."""
    a, b = args[0], args[1]
    solved = out.dim() - (2 if argument(func, args, kwargs, "left", True) else 1)
    where, last = run.where(func), (out.dim() - 2, out.dim() - 1)
    operands = [
        (_passing(run, a, last, out, where), _flat(a, last, out)),
        (_passing(run, b, (solved,), out, where), _flat(b, (solved,), out)),
    ]
    systems = run.ledger.meet(operands, [1 if axis == solved else n for axis, n in enumerate(out.shape)], where)
    run.set(out, Labels(tuple([broadcast(s, out.shape) for s in systems])))


def _flat(t: Tensor, axes: Iterable[int], out: Tensor) -> list[int]:
    lead = out.dim() - t.dim()
    return [1 if lead + axis in axes else n for axis, n in enumerate(t.shape)]


def _passing(run, t: Tensor, axes: Iterable[int], out: Tensor, where: str) -> Labels:
    """The systems of an operand that do not vary along ``axes`` of the result; the others stay whole."""
    lead, kept = out.dim() - t.dim(), []
    for system in run.labels(t).systems:
        if any(lead + axis in axes for axis in varying(system)):
            run.ledger.lock_systems([system], f"solved for along this axis in {where}")
        else:
            kept.append(laid(system, varying(system), _flat(t, axes, out)))
    return Labels(tuple(kept), is_uniform=run.labels(t).is_uniform)
