"""Square matrices with nothing beside their diagonal."""

from __future__ import annotations

from secateur.graph.labels import Labels, along, laid, line, varying
from secateur.graph.rules.registry import argument, rule


@rule("eye")
def identity(run, func, args, kwargs, out) -> None:
    """Rows and columns disappear together: of an identity matrix that leaves a smaller one.

    How large it is the code says, and nobody knows whether it will say another size after a cut.
    """
    if out.dim() != 2 or out.shape[0] != out.shape[1] or out.shape[0] < 2 or "out" in kwargs:
        return
    systems = _both(run.ledger.take(out.shape[0]), (0, 1), out.shape)
    run.doubts.about_systems(systems)
    run.set(out, Labels(systems))


@rule("diag_embed")
def diagonal(run, func, args, kwargs, out) -> None:
    """What lies along the last axis lies along both axes of a matrix."""
    x, last = args[0], args[0].dim() - 1
    ends = [argument(func, args, kwargs, name, end) % out.dim() for name, end in (("dim1", -2), ("dim2", -1))]
    others = [axis for axis in range(out.dim()) if axis not in ends]
    shifted = argument(func, args, kwargs, "offset", 0) != 0
    systems = []
    for system in run.labels(x).systems:
        own = varying(system)
        if last not in own:
            systems.append(laid(system, tuple(others[a] for a in own), out.shape))
        elif own == (last,) and not shifted:
            systems += _both(line(system), ends, out.shape)
        else:
            run.ledger.lock_systems([system], f"made a diagonal in {run.where(func)}")
    run.set(out, Labels(tuple(systems)))


def _both(labels, axes, shape) -> tuple:
    """The same labels along two axes."""
    return tuple(along(axis, shape, labels) for axis in axes)
