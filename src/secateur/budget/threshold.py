"""One threshold over the network: kept units that are nested, whatever the budget.

Every unit has its place in one fixed order. A budget says how far down this order to go, and nothing else: what a
smaller budget keeps is part of what a larger one keeps. :func:`plan` spends what then is left of a budget on units
further down that still fit, which uses it up but gives that away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from secateur._errors import BudgetError, UsageError
from secateur.budget.allocate import check_choices, plan, protected, sound
from secateur.budget.budget import Budget
from secateur.budget.lane import Lane, Share, make_lane
from secateur.graph import Cost, PruningGraph
from secateur.surgery import Plan


def threshold(
    graph: PruningGraph,
    scores: Mapping[str, Tensor],
    budget: Budget,
    *,
    base: Cost | None = None,
    round_to: int = 8,
    protect: Sequence[str] = (),
    floor: float = 0.1,
) -> Plan:
    """Keep all units above the lowest threshold that the budget allows, found by bisection on the exact cost.

    Units of a group are taken in the order of their scores; steps of several units (``round_to``) count with the
    mean of theirs. Of equal scores the one goes first whose group has lost the smaller share, so that scores which
    say nothing thin all groups evenly.

    Args:
        graph: from ``trace``.
        scores: comparable over the whole network; groups without scores stay whole.
        base: of what the budget is a share; by default the cost of ``graph``.
        round_to, protect, floor: see :func:`plan`.

    Raises:
        BudgetError: the budget is out of reach; the message says from where to where it could be.
        UsageError: there is nothing to cut, unknown groups, or numbers out of range.
    """
    check_choices("raw", round_to, floor)
    spared = protected(graph, protect)
    free = [g for g in graph.prunable if g.name in scores and g.name not in spared]
    if not free:
        raise UsageError(nothing_to_cut(graph, spared))
    values = {g.name: sound(scores[g.name], g.name, g.width).numpy() for g in free}
    lanes = [make_lane(g.name, (Share(g),), values, round_to, floor, raw=True) for g in free]
    full = np.array([lane.width for lane in lanes], dtype=np.int64)
    meter = graph.meter(budget.metric, [{lane.name: 1} for lane in lanes])
    dense = graph.cost()
    limit = _limit(budget, base or dense)
    floors = np.array([lane.floor for lane in lanes], dtype=np.int64)
    least, most = round(meter.take(full - floors)), getattr(dense, budget.metric)
    if not least <= limit <= most:
        raise BudgetError(_out_of_reach(budget, limit, least, most, base or dense, lanes, graph, spared))
    order = _order(lanes)

    def kept_at(count: int) -> np.ndarray:
        kept = floors.copy()
        np.add.at(kept, order[:count, 0], order[:count, 1])
        return kept

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if meter.take(full - kept_at(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    widths = {lane.name: width for lane, width in zip(lanes, kept_at(low).tolist())}
    made = plan(graph, scores, widths, protect=protect)
    why: dict[str, Any] = {"ranking": "one threshold", "round_to": round_to, "floor": floor, "budget": budget.as_dict()}
    if base is not None:
        why["base"] = {"macs": base.macs, "params": base.params}
    return made.explain(**why)


def nothing_to_cut(graph: PruningGraph, spared: set[str]) -> str:
    """Why no group is left to be cut."""
    reasons = dict.fromkeys(f"- {g.name}: {g.reason.splitlines()[0][:110]}" for g in graph.groups if g.locked)
    held = [f"- protected: {', '.join(sorted(spared)[:4])}"] if spared else []
    lines = [*held, *list(reasons)[:6]] or ["- it has no layer whose width is a choice"]
    return "\n".join(["nothing of this network can be cut:", *lines])


def _limit(budget: Budget, base: Cost) -> float:
    # The checks of the budget itself, but for its size: an expanded network may cost more than its base.
    if budget.target <= 1:
        return budget.limit(base)
    budget.limit(Cost(math.inf, math.inf))
    return budget.target


def _order(lanes: Sequence[Lane]) -> np.ndarray:
    """Steps above the floors, best first: number of the lane, and how many units the step has."""
    rows = []
    for k, lane in enumerate(lanes):
        start = lane.floor
        while start < lane.width:
            stop = min(lane.width, (start // lane.step + 1) * lane.step)
            # Full steps only, but that the last one ends where the group does.
            rows.append((-float(lane.rank[start:stop].mean()), start / lane.width, k, stop - start))
            start = stop
    return np.array([(k, units) for _, _, k, units in sorted(rows)], dtype=np.int64).reshape(-1, 2)


def _out_of_reach(
    budget: Budget,
    limit: float,
    least: int,
    most: int,
    base: Cost,
    lanes: Sequence[Lane],
    graph: PruningGraph,
    spared: set[str],
) -> str:
    whole = getattr(base, budget.metric)
    floors, locked = sum(lane.floor for lane in lanes), [g.name for g in graph.groups if g.locked]
    lines = [
        f"the budget {budget} cannot be reached: it asks for {limit:,.0f} {budget.metric}",
        f"within reach is what lies from {least:,} ({least / whole:.1%}), the floor of {len(lanes)} groups "
        f"({floors} units in all), to {most:,} ({most / whole:.1%}), the whole network",
    ]
    if limit < least:
        lines += [f"- protected: {', '.join(sorted(spared)[:4])}"] if spared else []
        lines += [f"- locked: {', '.join(locked[:6])}"] if locked else []
        lines.append(f"ask for at least {budget.metric}={math.ceil(1000 * least / whole) / 10:g}%, or lower floor=")
    else:
        lines.append(f"ask for at most {budget.metric}={most}")
    return "\n".join(lines)
