"""Least squares as a correction of old weights, from the products of the samples."""

from __future__ import annotations

from torch import Tensor

from secateur.solvers.ridge import factor

#: What becomes of the weights [m, n]; the ridge, 0.0 for none; and lines for people.
Corrected = tuple[Tensor, float, tuple[str, ...]]


def corrected(a: Tensor, b: Tensor, energy: Tensor, old: Tensor, rounding: float, what: str) -> Corrected:
    """Solves A·w = b ([m, m], [m, n]) as a correction of ``old`` [m, n].

    A ridge then pulls towards the old values and never makes the error larger than theirs. ``energy`` [n] is that of
    the target.
    """
    gradient = b - a @ old
    size = a.diagonal().clamp_min(0).sqrt()[:, None]
    gradient[:, unresolved(gradient, size, energy, (size * old).square().sum(0), rounding)] = 0.0
    if not gradient.any():
        return old.clone(), 0.0, ()
    found = factor(a, rounding)
    return old + found.solve(gradient), found.ridge, found.notes(what)


def unresolved(gradient: Tensor, size: Tensor, energy: Tensor, given: Tensor, rounding: float) -> Tensor:
    """The outputs, bool [n], whose gradient [m, n] holds no more than what rounding alone can leave in it: of the
    products with the target and of those with each column.

    Args:
        size: norms of the columns, [m, 1].
        energy: of the target, [n].
        given: energies of what the old weights make of the columns, one by one, summed: [n].
    """
    noise = rounding * size * (energy.sqrt() + given.sqrt())
    return (gradient.abs() <= noise).all(0)
