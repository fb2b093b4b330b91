"""Fourier transforms, and the two ways of looking at a complex tensor."""

from __future__ import annotations

from secateur.graph.labels import Labels, lift, line, narrowed, varying
from secateur.graph.rules.registry import argument, axes_of, rule


@rule("_fft_c2c", "_fft_r2c", "_fft_c2r")
def fourier(run, func, args, kwargs, out) -> None:
    """Every number of a transformed axis depends on its whole length; the other axes pass."""
    x, labels = args[0], run.labels(args[0])
    dims, kept = set(axes_of(argument(func, args, kwargs, "dim"), x.dim())), []
    for system in labels.systems:
        across = dims & set(varying(system))
        if across:
            run.ledger.lock_systems([system], f"transformed along this axis in {run.where(func)}")
        else:
            kept.append(narrowed(system, ()).expand(out.shape))
    run.set(out, Labels(tuple(kept), labels.is_weight))


@rule("view_as_real")
def real_view(run, func, args, kwargs, out) -> None:
    run.set(out, lift(run.labels(args[0]), lambda s: s.unsqueeze(-1).expand(out.shape)))


@rule("view_as_complex")
def complex_view(run, func, args, kwargs, out) -> None:
    """The last axis, of real and imaginary part, disappears."""
    labels, last = run.labels(args[0]), args[0].dim() - 1
    for system in labels.systems:
        if last in varying(system):
            run.ledger.lock(line(run.ledger.project(system, (last,))), f"real and imaginary in {run.where()}")
    run.set(out, Labels(run.ledger.reduce(labels.systems, [last], keepdim=False), labels.is_weight))
