"""Factors a Gram matrix, and says so where it needed a ridge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.linalg import get_lapack_funcs
from torch import Tensor

#: The least ridge, and the ridge as a multiple of the rounding error: as little as makes a solution that holds.
_LEAST, _TIMES = 1e-9, 10.0


@dataclass(frozen=True, eq=False)
class Factor:
    """Cholesky factor of D⁻¹·A·D⁻¹ + ridge·I, where D² is the diagonal of A (ones where that is zero).

    Attributes:
        lower: [m, m], its lower triangle.
        scale: D, [m].
        ridge: relative to the mean of the diagonal (its trace over m) after the scaling; 0.0 where none was needed.
    """

    lower: Tensor
    scale: Tensor
    ridge: float

    def solve(self, b: Tensor) -> Tensor:
        """(A + ridge·D²)⁻¹·b for ``b`` [m, n]."""
        scale = self.scale[:, None]
        return torch.cholesky_solve(b / scale, self.lower) / scale

    def notes(self, what: str) -> tuple[str, ...]:
        """One line for people where there is a ridge, none otherwise."""
        if not self.ridge:
            return ()
        return (f"{what} are linearly dependent in the samples: solved with a ridge of {self.ridge:.0e} of the trace",)


def factor(a: Tensor, rounding: float) -> Factor:
    """Factors ``a`` (symmetric, positive semi-definite up to ``rounding``, float64 [m, m]).

    A ridge is added only where ``a``, scaled to a unit diagonal, cannot be told from a singular matrix: where the
    1-norm of its inverse exceeds 1 / rounding.
    """
    diagonal = a.diagonal().clamp_min(0)
    scale = torch.where(diagonal > 0, diagonal.sqrt(), 1.0)
    scaled = a / scale / scale[:, None]
    lower, info = torch.linalg.cholesky_ex(scaled)
    if int(info) == 0:
        norm = float(scaled.abs().sum(0).max())
        # Row-major lower is column-major upper: LAPACK reads it in place.
        upper = lower.contiguous().numpy().T
        (pocon,) = get_lapack_funcs(("pocon",), (upper,))
        rcond, _ = pocon(upper, norm, uplo="U")
        if rcond * norm > rounding:
            return Factor(lower, scale, 0.0)
    return raised(scaled, scale, rounding)


def raised(scaled: Tensor, scale: Tensor, rounding: float) -> Factor:
    """Factors ``scaled``, which is overwritten, with a ridge: as little as holds."""
    ridge, diagonal = max(_LEAST, _TIMES * rounding), scaled.diagonal().clone()
    while True:
        scaled.diagonal().copy_(diagonal + ridge)
        lower, info = torch.linalg.cholesky_ex(scaled)
        if int(info) == 0:
            return Factor(lower, scale, ridge)
        ridge *= 10
