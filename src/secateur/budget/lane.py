"""What is narrowed in one go: a group, or every group of a role together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.graph import Group


@dataclass(frozen=True)
class Share:
    """One group of a lane: it loses ``per_step`` units with every step."""

    group: Group
    per_step: int = 1


@dataclass(frozen=True)
class Lane:
    """What it may lose and in what order.

    Attributes:
        name: for messages.
        width: number of steps; one more or less is one unit of a lane that is a single group.
        rank: worth of each step, best first, shape ``[width]``.
        floor: steps that always stay.
        step: steps are kept in multiples of this, unless that is all or the floor.
        shares: the groups.
    """

    name: str
    width: int
    rank: np.ndarray
    floor: int
    step: int
    shares: tuple[Share, ...]

    def group_widths(self, kept: int) -> dict[str, int]:
        """Width of each of its groups when so many steps are kept."""
        gone = self.width - kept
        return {s.group.name: s.group.width - gone * s.per_step for s in self.shares}


def make_lane(
    name: str, shares: Iterable[Share], scores: Mapping[str, np.ndarray], round_to: int, floor: float, raw: bool = False
) -> Lane:
    """Put groups into one lane.

    Args:
        scores: of every group, shape ``[width]``; a step is worth the mean of its units, each group's divided by the
            mean of the group.
        round_to: widths of channels snap to multiples of this, see ``plan``.
        floor: least share of each group.
        raw: take scores as they are, not divided.
    """
    shares = tuple(shares)
    width = min(s.group.width // s.per_step for s in shares)
    ranks = []
    for share in shares:
        values = scores[share.group.name]
        values = np.sort(values)[::-1] / (1.0 if raw else float(np.abs(values).mean()) or 1.0)
        # What does not fill a step of its own stays with the best.
        values = values[share.group.width - width * share.per_step :]
        ranks.append(values if share.per_step == 1 else values.reshape(width, share.per_step).mean(axis=1))
    steps = [_steps(s.group, round_to, floor) if s.per_step == 1 else (1, 1) for s in shares]
    least = max(
        least if s.per_step == 1 else width - (s.group.width - math.ceil(floor * s.group.width)) // s.per_step
        for s, (least, _) in zip(shares, steps)
    )
    rank = ranks[0] if len(ranks) == 1 else np.mean(ranks, axis=0)
    return Lane(name, width, rank, max(1, least), max(step for _, step in steps), shares)


def _steps(group: Group, round_to: int, floor: float) -> tuple[int, int]:
    """The least width of a group and the step of its widths."""
    step = round_to if group.kind == "channel" else 1
    if step > 1 and group.width < 2 * step:
        step = max(1, group.width // 4)
    least = max(group.least, math.ceil(floor * group.width))
    return min(group.width, math.ceil(least / step) * step), step
