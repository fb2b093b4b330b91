"""Where a search of TAS should land, and the architecture that does: in the band around the budget, if any does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from secateur.gates.architecture import Choice, Costs

_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Target:
    """Where the cost should land: ``wanted``, give or take a share of it."""

    costs: Costs
    wanted: float
    tolerance: float

    @property
    def low(self) -> float:
        return (1 - self.tolerance) * self.wanted

    @property
    def high(self) -> float:
        return (1 + self.tolerance) * self.wanted

    def side(self, cost: float) -> int:
        """1 above the band, -1 below, 0 within."""
        return int(cost > self.high) - int(cost < self.low)

    def loss(self, expected: Tensor, actual: float) -> Tensor:
        """``log E`` if the actual cost is above the band, ``-log E`` if it is below, 0 within."""
        return self.side(actual) * expected.log()


def landed(
    target: Target, last: Choice, history: Sequence[Mapping[str, Any]], logits: Sequence[Tensor]
) -> tuple[Choice, str]:
    """The last architecture, or the nearest to it in time or in likelihood that lies in the band.

    Args:
        last: the most likely architecture in the end.
        history: of every epoch, with its most likely architecture (``choice``) and what that costs (``actual``).
        logits: of widths and of depths, minus infinity where there is no candidate.

    Returns:
        The architecture, and how it was found, for the card.
    """
    if target.side(target.costs.actual(last)) == 0:
        return last, "the most likely architecture of the last epoch"
    for point in reversed(history):
        if target.side(point["actual"]) == 0:
            widths, depths = point["choice"]
            return Choice(tuple(widths), tuple(depths)), (
                f"the most likely architecture of epoch {point['epoch']}, as that of the last one missed the band"
            )
    found, steps = moved(target, last, logits)
    return found, (
        f"the most likely architecture of the last epoch, moved by {steps} steps of one candidate each, the "
        "likeliest first: no epoch's was within the band (search longer, or with a larger arch_lr)"
    )


def moved(target: Target, choice: Choice, logits: Sequence[Tensor]) -> tuple[Choice, int]:
    """Steps into the band, each the one that costs least likelihood for what it brings; and how many they were."""
    steps, side = 0, target.side(target.costs.actual(choice))
    seen = {choice}
    while side:
        cost = target.costs.actual(choice)
        best, rank = None, (2, math.inf)
        for other, price in _neighbours(choice, -side, logits):
            reached = target.costs.actual(other)
            gain = side * (cost - reached)
            if gain <= 0 or other in seen:
                continue
            # A step that jumps over the band comes last, and then the one that lands nearest.
            over = target.side(reached) == -side
            far = abs(reached - target.wanted) if over else price / gain
            if (int(over), far) < rank:
                best, rank = other, (int(over), far)
        if best is None or steps > _MOST_STEPS:
            break
        choice, steps = best, steps + 1
        seen.add(choice)
        side = target.side(target.costs.actual(choice))
    return choice, steps


def _neighbours(choice: Choice, way: int, logits: Sequence[Tensor]) -> Iterator[tuple[Choice, float]]:
    """Choices that differ by one candidate in one place, and how much less likely they are, above zero."""
    for field, table in zip(("widths", "depths"), (t.detach() for t in logits)):
        at: Sequence[int] = getattr(choice, field)
        for k, row in enumerate(table):
            near = at[k] + way
            if 0 <= near < len(row) and bool(row[near].isfinite()):
                yield replace(choice, **{field: (*at[:k], near, *at[k + 1 :])}), float(row.max() - row[near]) + 1e-6
