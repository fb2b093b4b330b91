"""The piecewise linear path of LASSO solutions, one event at a time.

Osborne, Presnell, Turlach, "A new approach to variable selection in least squares problems", IMA J. Numer. Anal. 20
(2000); Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", Ann. Statist. 32 (2004). Objective here:
½·βᵀGβ − gᵀβ + λ·‖β‖₁. On active set A with signs s, β_A(λ) = G_AA⁻¹·(g_A − λ·s), and the correlation of what is left
with the others is g − G·β(λ).

Both come out of exchanges (Goodnight, "A tutorial on the SWEEP operator", Amer. Statist. 33, 1979), each of which
brings one channel in or lets one go. With M what the exchanges so far have made of G, m the channel's column of it, and
d the channel's entry on the diagonal:

    m[channel] = d − r,    M ← M − m·mᵀ/d

Here r is the root of the channel's entry on the diagonal of G, and minus that where the channel goes; any other number
would do, but this one keeps d and r of the same size. M is then −r·r'·G_AA⁻¹ between two active channels (on the
diagonal 2·r more), r·G_AA⁻¹·G between an active one and another, and between two others what is left of G. Column g
goes the same way, and so do the signs, each from when its channel comes in: for active channels that makes r·β(λ) of
g − λ·s, and for the others the correlations.
"""

from __future__ import annotations

import numpy as np
import torch

#: Exchanges to make room for beyond two for each active channel.
_MORE = 64
#: The kinds of events: a channel comes in with a positive or with a negative correlation, or its coefficient is zero
#: and it goes.
_SIGNS = (1.0, -1.0, 0.0)


class LassoPath:
    """Walks down from the penalty at which the first channel comes in.

    M itself is never made: the columns m of the exchanges are kept, and an event costs one product with them and a few
    passes over the channels.

    Args:
        gram: G, float64 [c, c], positive definite (with a ridge where it needs one) but for rows that are zero.
        target: g, float64 [c].
        most: number of active channels to make room for.
        rounding: correlations below this share of the first are none at all.
    """

    def __init__(self, gram: np.ndarray, target: np.ndarray, most: int, rounding: float):
        c = len(target)
        self.active: list[int] = []
        self.dropped = 0
        self.penalty = float(np.abs(target).max())
        self._end = rounding * self.penalty
        diagonal = gram.diagonal()
        # NumPy's products would take their threads from elsewhere; these are made by PyTorch in the same memory.
        self._gram, self._target = torch.from_numpy(gram), target
        self._roots = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        self._columns = torch.empty(2 * most + _MORE, c, dtype=torch.float64)
        self._pivots = torch.empty(len(self._columns), dtype=torch.float64)
        self._exchanges = 0
        # state[0] − λ·state[1] is r·β of the active channels and the correlation of the others. An event is where
        # factors · that = λ · bounds, each row for one of _SIGNS; zeros where it cannot be.
        self._state = np.stack([target, np.zeros(c)])
        self._factors = np.stack([np.full(c, sign) for sign in _SIGNS])
        self._bounds = np.abs(self._factors)
        self._barred = (2, 0)

    @property
    def size(self) -> int:
        return len(self.active)

    def step(self) -> bool:
        """Goes to the next event and carries it out; false where there is none: the path is at its end."""
        penalty, channel, sign = self._next()
        if penalty <= self._end:
            return False
        self.penalty = penalty
        if self._exchanges == len(self._columns):
            self._afresh()
        if sign:
            self._join(channel, sign)
        else:
            self._drop(channel)
        return True

    def middle(self) -> tuple[np.ndarray, float]:
        """β of the active channels (in their order), and the penalty, half way to the next event.

        The path says which channels and signs; β is solved from them anew, without what rounding has piled up on the
        way: with nearly dependent channels that depends on the processor.
        """
        penalty = (self.penalty + max(self._next()[0], 0.0)) / 2
        active, signs = self.active, -self._factors[2, self.active]
        wanted = torch.from_numpy(self._target[active] - penalty * signs)[:, None]
        root, failed = torch.linalg.cholesky_ex(self._gram[active][:, active])
        if not failed:
            return torch.cholesky_solve(wanted, root)[:, 0].numpy(), penalty
        fixed, slope = self._state[:, active] / self._roots[active]
        return fixed - penalty * slope, penalty

    def _next(self) -> tuple[float, int, float]:
        """Penalty, channel and sign (0.0: it goes) of the next event below the present penalty."""
        above = self._factors * self._state[0]
        below = self._bounds + self._factors * self._state[1]
        # Where this is not positive, it leads away from the event.
        meets = np.divide(above, below, out=np.zeros_like(below), where=below > 0)
        meets[self._barred] = 0.0
        event, channel = divmod(int(meets.argmax()), meets.shape[1])
        return min(float(meets[event, channel]), self.penalty), channel, _SIGNS[event]

    def _join(self, channel: int, sign: float) -> None:
        self._state[1, channel] += sign
        self._exchange(channel, self._roots[channel])
        self.active.append(channel)
        self._bounds[:2, channel] = 0.0
        self._factors[:, channel] = 0.0, 0.0, -sign
        self._barred = 2, channel  # its coefficient is zero just now

    def _drop(self, channel: int) -> None:
        sign = -self._factors[2, channel]
        self._exchange(channel, -self._roots[channel])
        self._state[1, channel] -= sign
        self.active.remove(channel)
        self.dropped += 1
        self._bounds[:2, channel] = 1.0
        self._factors[:, channel] = 1.0, -1.0, 0.0
        self._barred = _SIGNS.index(sign), channel  # its correlation is the penalty just now

    def _exchange(self, channel: int, root: float) -> None:
        """Brings ``channel`` in where ``root`` is positive, lets it go where that is negative."""
        n = self._exchanges
        before = self._columns[:n]
        shares = before[:, channel] / self._pivots[:n]
        column = torch.addmv(self._gram[channel], before.T, shares, alpha=-1, out=self._columns[n]).numpy()
        pivot = column[channel] + min(2 * root, 0.0)  # an active channel's entry is too large by 2·r
        column[channel] = pivot - root
        self._state -= (self._state[:, channel] / pivot)[:, None] * column
        self._pivots[n] = pivot
        self._exchanges = n + 1

    def _afresh(self) -> None:
        """Makes the exchanges of the active channels anew, so that neither those of channels that have gone nor their
        rounding pile up."""
        self._exchanges = 0
        self._state[0], self._state[1] = self._target, 0.0
        for channel in self.active:
            self._state[1, channel] -= self._factors[2, channel]
            self._exchange(channel, self._roots[channel])
