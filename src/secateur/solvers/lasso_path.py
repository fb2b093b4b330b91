"""The piecewise linear path of LASSO solutions, one event at a time.

Osborne, Presnell, Turlach, "A new approach to variable selection in least squares problems", IMA J. Numer. Anal. 20
(2000); Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", Ann. Statist. 32 (2004). Objective here:
½·βᵀGβ − gᵀβ + λ·‖β‖₁. On active set A with signs s, β_A(λ) = p − λ·q with p = G_AA⁻¹·g_A and q = G_AA⁻¹·s.
"""

from __future__ import annotations

import numpy as np
import torch

#: After so many events the inverse is computed afresh, so that rounding does not pile up.
_REFRESH = 128


class LassoPath:
    """Walks down from the penalty at which the first channel comes in.

    The inverse of G_AA is kept rather than its Cholesky factor: bringing a channel in or letting one go is then one
    update of rank one whichever it is, p and q follow in O(a), and ``gram`` has a ridge where it needs one.

    Args:
        gram: G, float64 [c, c], positive definite but for rows that are zero.
        target: g, float64 [c].
        most: number of active channels to make room for.
        rounding: correlations below this share of the first are none at all.
    """

    def __init__(self, gram: np.ndarray, target: np.ndarray, most: int, rounding: float):
        self._gram, self._target = gram, target
        self.active: list[int] = []
        self.dropped = 0
        self.penalty = float(np.abs(target).max())
        self._end = rounding * self.penalty
        # NumPy's products would take their threads from elsewhere; these are made by PyTorch in the same memory.
        self._inverse_t, self._rows_t = (torch.zeros(most, n, dtype=torch.float64) for n in (most, len(target)))
        self._inverse, self._rows = self._inverse_t.numpy(), self._rows_t.numpy()  # the latter: G[active]
        self._p, self._q, self._signs = np.zeros(most), np.zeros(most), np.zeros(most)
        # G·p and G·q over all channels, from which every correlation at every penalty follows.
        self._gp, self._gq = np.zeros(len(target)), np.zeros(len(target))
        self._out = np.ones(len(target), dtype=bool)
        self._just_joined, self._just_dropped = -1, (-1, 0.0)
        self._events = 0

    @property
    def size(self) -> int:
        return len(self.active)

    def step(self) -> bool:
        """Goes to the next event and carries it out; false where there is none: the path is at its end."""
        penalty, channel, sign = self._next()
        if penalty <= self._end:
            return False
        self.penalty = penalty
        self._events += 1
        if sign:
            self._join(channel, sign)
        else:
            self._drop(self.active.index(channel))
        if self._events % _REFRESH == 0:
            self._refresh()
        return True

    def middle(self) -> tuple[np.ndarray, float]:
        """β of the active channels (in their order), and the penalty, half way to the next event."""
        penalty = (self.penalty + max(self._next()[0], 0.0)) / 2
        a = self.size
        if a == 0:
            return np.zeros(0), penalty
        self._refresh()
        return self._p[:a] - penalty * self._q[:a], penalty

    def _next(self) -> tuple[float, int, float]:
        """Penalty, channel and sign (0.0: it goes) of the next event below the present penalty."""
        a = self.size
        best, channel, sign = 0.0, -1, 1.0
        rest = self._target - self._gp
        dropped, dropped_sign = self._just_dropped
        for side in (1.0, -1.0):
            # The correlation rest + λ·gq meets ±λ. A slope that is not positive leads away from it.
            slope = 1.0 - side * self._gq
            meets = np.divide(side * rest, slope, out=np.zeros_like(slope), where=self._out & (slope > 0))
            if side == dropped_sign:
                meets[dropped] = 0.0
            found = int(meets.argmax())
            if meets[found] > best:
                best, channel, sign = float(meets[found]), found, side
        if a:
            p, q = self._p[:a], self._q[:a]
            zero = np.divide(p, q, out=np.zeros(a), where=self._signs[:a] * q < 0)
            if self._just_joined >= 0:
                zero[self._just_joined] = 0.0
            found = int(zero.argmax())
            if zero[found] > best:
                best, channel, sign = float(zero[found]), self.active[found], 0.0
        return min(best, self.penalty), channel, sign

    def _join(self, channel: int, sign: float) -> None:
        a, row = self.size, self._gram[channel]
        across = self._rows_t[:a, channel].contiguous()
        v_t = torch.mv(self._inverse_t[:a, :a], across)
        v = v_t.numpy()
        left = float(row[channel] - torch.dot(across, v_t))
        residual = (row - torch.mv(self._rows_t[:a].T, v_t).numpy()) / left
        for values, all_values, goal in (
            (self._p, self._gp, self._target[channel]),
            (self._q, self._gq, sign),
        ):
            change = goal - all_values[channel]
            values[:a] -= change / left * v
            values[a] = change / left
            all_values += change * residual
        self._inverse_t[:a, :a].addr_(v_t, v_t, alpha=1.0 / left)
        self._inverse[a, :a] = self._inverse[:a, a] = -v / left
        self._inverse[a, a] = 1.0 / left
        self._rows[a] = row
        self._signs[a] = sign
        self._out[channel] = False
        self.active.append(channel)
        self._just_joined, self._just_dropped = a, (-1, 0.0)

    def _drop(self, place: int) -> None:
        last = self.size - 1
        channel, sign = self.active[place], self._signs[place]
        if place != last:  # the order of the active channels in the matrices is free
            self._swap(place, last)
        corner = float(self._inverse[last, last])
        m_t = self._inverse_t[:last, last] / corner
        m = m_t.numpy()
        residual = self._rows[last] + torch.mv(self._rows_t[:last].T, m_t).numpy()
        for values, all_values in ((self._p, self._gp), (self._q, self._gq)):
            change = values[last]
            values[:last] -= change * m
            all_values -= change * residual
        self._inverse_t[:last, :last].addr_(m_t, m_t, alpha=-corner)
        self.active.pop()
        self._out[channel] = True
        self.dropped += 1
        self._just_joined, self._just_dropped = -1, (channel, sign)

    def _swap(self, i: int, j: int) -> None:
        for values in (self._p, self._q, self._signs, self._rows, self._inverse, self._inverse.T):
            values[[i, j]] = values[[j, i]]
        self.active[i], self.active[j] = self.active[j], self.active[i]

    def _refresh(self) -> None:
        a = self.size
        lower = torch.linalg.cholesky(self._rows_t[:a, self.active])
        self._inverse_t[:a, :a] = torch.cholesky_inverse(lower)
        goals = torch.from_numpy(np.stack([self._target[self.active], self._signs[:a]]))
        both = goals @ self._inverse_t[:a, :a]
        self._p[:a], self._q[:a] = both.numpy()
        self._gp, self._gq = (both @ self._rows_t[:a]).numpy()
