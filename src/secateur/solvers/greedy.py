"""ThiNet's choice: take away, one after another, the channels whose sum the next layer misses least.

Luo, Wu, Lin, "ThiNet", ICCV 2017, arXiv 1707.06342, section 3.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.solvers.contributions import Contributions, checked_count


@dataclass(frozen=True, eq=False)
class RemovalOrder:
    """The order in which channels go.

    Attributes:
        order: int64 [c]; ``order[0]`` goes first.
        energy: float64 [c]; mean over the samples of the squared sum of the removed contributions after each removal.
        pairs: pairs that cancel each other, removed before all others because together they cost nothing.
    """

    order: Tensor
    energy: Tensor
    pairs: tuple[tuple[int, int], ...]

    def kept(self, count: int) -> Tensor:
        """The ``count`` channels that go last: int64 [count], ascending.

        Raises:
            UsageError: less than one or more than there are.
        """
        count = checked_count(count, len(self.order))
        return self.order[len(self.order) - count :].sort().values

    def ranks(self) -> Tensor:
        """Place of each channel in the order, int64 [c]: a score, 0 for the one that goes first."""
        ranks = torch.empty_like(self.order)
        ranks[self.order] = torch.arange(len(self.order))
        return ranks


def remove_greedily(contributions: Contributions) -> RemovalOrder:
    """Removes the channel that minimises the energy of the sum of all removed ones, until none is left.

    With T removed, channel c adds G_cc + 2·Σ_{t∈T} G_ct; the sums are kept up to date, so that a step costs O(c).
    Equal costs are settled by the lower index. One step at a time cannot see that two channels which are each other's
    negative cost nothing together: such pairs go first.
    """
    gram = contributions.gram.numpy()
    c = len(gram)
    diagonal = gram.diagonal()
    pairs = _cancelling(gram, diagonal, contributions.rounding)
    first = [channel for pair in pairs for channel in pair]
    cost = diagonal.copy()  # of adding each channel; infinite once it is in
    doubled = 2 * gram
    order = np.empty(c, dtype=np.int64)
    energy = np.empty(c)
    total = 0.0
    for step in range(c):
        chosen = first[step] if step < len(first) else int(cost.argmin())
        total += cost[chosen]
        order[step], energy[step] = chosen, total
        cost += doubled[chosen]
        cost[chosen] = np.inf
    energy = np.maximum(energy, 0.0) / contributions.samples
    return RemovalOrder(torch.from_numpy(order), torch.from_numpy(energy), pairs)


def _cancelling(gram: np.ndarray, diagonal: np.ndarray, rounding: float) -> tuple[tuple[int, int], ...]:
    """Pairs whose sum has no energy beside their own, each channel in one pair at most, cheapest channels first."""
    own = diagonal[:, None] + diagonal
    found = np.argwhere(np.triu((own + 2 * gram <= rounding * own) & (own > 0), 1))
    taken: set[int] = set()
    pairs = []
    for a, b in sorted(found.tolist(), key=lambda pair: (diagonal[pair[0]], *pair)):
        if a not in taken and b not in taken:
            taken.update((a, b))
            pairs.append((a, b))
    return tuple(pairs)
