"""From scores and a budget to kept units: one ranking, one bisection on the exact cost.

Every unit gets a rank, in its own group or over the whole network. Dropping the first q units of the ranking gives
widths, widths give a cost, and the cost falls with q; bisection finds the q that just fits. Steps (multiples of 8,
say) make that cost jump, so what is left of the budget is then given back one step at a time, best units first.
"""

from __future__ import annotations

import fnmatch
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur._errors import BudgetError, UnknownName, UsageError
from secateur.budget.budget import Budget
from secateur.budget.lane import Lane, Share, make_lane
from secateur.budget.uniform import narrow_until_said, uniform_lanes
from secateur.graph import Group, PruningGraph
from secateur.graph.cost import Meter
from secateur.graph.skeleton import no_collection
from secateur.surgery import Plan, follow, make_plan

RANKINGS = {
    "global": "one ranking over the network, scores divided by their group's mean",
    "raw": "one ranking over the network, scores as they are",
    "layer": "the same share of every group",
}


@no_collection()
def plan(
    graph: PruningGraph,
    scores: Mapping[str, Tensor],
    budget: Budget | Mapping[str, int],
    *,
    round_to: int = 8,
    ranking: str = "global",
    protect: Sequence[str] = (),
    floor: float = 0.1,
    uniform: bool = False,
) -> Plan:
    """Decide which units stay.

    Args:
        graph: from ``trace``.
        scores: from ``score``; groups without scores stay whole.
        budget: a target, or the width of every group by name (a preset); groups not named stay whole.
        round_to: widths of channels snap to multiples of this, because odd widths are often slower. A group narrower
            than twice this snaps to a quarter of its width. 1 turns it off.
        ranking: ``"global"``, ``"raw"`` or ``"layer"``, see :data:`RANKINGS`.
        protect: names or patterns (``layer1.*``) of groups, modules or parameters that stay whole.
        floor: the least share of a group that stays; at least one unit always does.
        uniform: groups that do the same job in every layer of a stack keep the same width (their units may differ),
            and a Hugging Face model keeps to widths that its configuration can say, so that plain transformers reads
            back what ``save_pretrained`` writes. What is held back is in ``plan.why["held"]``, with the reason.

    Returns:
        The plan, with the costs and the choices in ``plan.why``. Of a Hugging Face model and with ``uniform=True`` or
        a preset, ``plan.config`` has the fields of the configuration that follow, or ``plan.why["config"]`` the reason
        why none do; widths that a budget chose without ``uniform=True`` are looked up by ``save_pretrained``.

    Raises:
        BudgetError: the budget cannot be reached; the message says what can, and what holds it.
        UsageError: unknown groups, a ranking that does not exist, numbers out of range, uniform widths that no
            configuration says together.
    """
    check_choices(ranking, round_to, floor)
    spared = protected(graph, protect)
    why: dict[str, Any] = {"ranking": ranking, "round_to": round_to, "floor": floor, "protect": list(protect)}
    if isinstance(budget, Budget):
        lanes, held = _lanes(graph, scores, spared, round_to, floor, uniform, ranking == "raw")
        kept = _allocate(graph, lanes, budget, ranking, spared, held)
        why["budget"] = budget.as_dict()
        if uniform:
            why |= {"uniform": True, "held": held}
            return narrow_until_said(lanes, kept, lambda k: _made(graph, scores, _group_widths(lanes, k), why))
        return _made(graph, scores, _group_widths(lanes, kept), why)
    if uniform:
        raise UsageError("uniform=True chooses widths for a budget; a preset has its own: give one of the two")
    _check_widths(graph, scores, budget)
    widths = {n: w for n, w in budget.items() if n not in spared}
    return _made(graph, scores, widths, {"widths": dict(widths), "protect": list(protect)})


def _made(graph: PruningGraph, scores: Mapping[str, Tensor], widths: Mapping[str, int], why: Mapping[str, Any]) -> Plan:
    """The plan that keeps the best units of every group, with what it costs."""
    full = graph.widths
    keep = {n: _best(scores[n].detach().double().cpu().numpy(), w) for n, w in widths.items() if w < full[n]}
    made = follow(graph, make_plan(graph, keep, **why), asked="budget" not in why or "uniform" in why)
    cost, dense = graph.cost(widths), graph.cost()
    return made.explain(macs=cost.macs, params=cost.params, dense_macs=dense.macs, dense_params=dense.params)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the highest scores, in ascending order; of equal ones the first."""
    bar = np.partition(scores, -count)[-count]
    chosen = scores > bar
    equal = np.flatnonzero(scores == bar)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def check_choices(ranking: str, round_to: int, floor: float) -> None:
    """
    Raises:
        UsageError: a ranking that does not exist, or numbers out of range.
    """
    if ranking not in RANKINGS:
        raise UnknownName("ranking", ranking, RANKINGS)
    problems = []
    if not isinstance(round_to, int) or round_to < 1:
        problems.append(f"round_to must be a whole number from 1 on, got {round_to!r}")
    if not 0 <= floor <= 1:
        problems.append(f"floor is a share of a group, from 0 to 1, got {floor!r}")
    if problems:
        raise UsageError("\n".join(problems))


def _check_widths(graph: PruningGraph, scores: Mapping[str, Tensor], widths: Mapping[str, int]) -> None:
    dense, problems = graph.widths, []
    for name, width in widths.items():
        if name not in scores or name not in dense:
            raise UnknownName("group", name, scores)
        sound(scores[name], name, dense[name])
        if not isinstance(width, int) or not 1 <= width <= dense[name]:
            problems.append(f"{name} has {dense[name]} units: keep 1 to {dense[name]} of them, not {width!r}")
    if problems:
        raise UsageError("\n".join(problems))


def sound(scores: Tensor, name: str, width: int) -> Tensor:
    """The scores of a group, float64 on the CPU.

    Raises:
        UsageError: another number of them, or some that are not finite.
    """
    values = scores.detach().double().cpu()
    if values.shape != (width,) or not np.isfinite(values.numpy()).all():
        raise UsageError(f"the scores of {name} must be {width} finite numbers, got {_described(values)}")
    return values


def _described(values: Tensor) -> str:
    wrong = int((~torch.isfinite(values)).sum())
    return f"shape {tuple(values.shape)}" + (f" with {wrong} not finite" if wrong else "")


def protected(graph: PruningGraph, patterns: Iterable[str]) -> set[str]:
    """The groups that ``patterns`` name, by group, by module or by parameter.

    Raises:
        UnknownName: a pattern matches nothing.
    """
    spared: set[str] = set()
    for pattern in patterns:
        hit = {
            g.name
            for g in graph.groups
            if any(
                fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
                for name in (g.name, *(m.tensor for m in g.members))
            )
        }
        if not hit:
            raise UnknownName("group or module to protect", pattern, [g.name for g in graph.groups])
        spared |= hit
    return spared


def _lanes(
    graph: PruningGraph,
    scores: Mapping[str, Tensor],
    spared: set[str],
    round_to: int,
    floor: float,
    uniform: bool,
    raw: bool,
) -> tuple[list[Lane], dict[str, str]]:
    """What may be narrowed, and of ``uniform`` which roles are held back and why."""
    free = [g for g in graph.prunable if g.name not in spared and g.name in scores]
    values = {g.name: sound(scores[g.name], g.name, g.width).numpy() for g in free}
    if uniform:
        sorted_out = uniform_lanes(graph, free)
        found, held = sorted_out.lanes, sorted_out.held
    else:
        found, held = {g.name: (Share(g),) for g in free}, {}
    return [make_lane(name, shares, values, round_to, floor, raw) for name, shares in found.items()], held


def _group_widths(lanes: Iterable[Lane], kept: Mapping[str, int]) -> dict[str, int]:
    return {name: width for lane in lanes for name, width in lane.group_widths(kept[lane.name]).items()}


def _allocate(
    graph: PruningGraph, lanes: list[Lane], budget: Budget, ranking: str, spared: set[str], held: Mapping[str, str]
) -> dict[str, int]:
    """How much of every lane is kept."""
    limit = budget.limit(graph.cost())
    full = np.array([lane.width for lane in lanes], dtype=np.int64)
    floors = np.array([lane.floor for lane in lanes], dtype=np.int64)
    steps = np.array([lane.step for lane in lanes], dtype=np.int64)
    meter = graph.meter(budget.metric, [{s.group.name: s.per_step for s in lane.shares} for lane in lanes])
    least = round(meter.take(full - floors))
    if least > limit:
        raise BudgetError(_unreachable(graph, lanes, budget, limit, least, spared, held))

    if ranking == "layer":
        ranks = [(np.arange(lane.width, 0, -1) - 0.5) / lane.width for lane in lanes]
    else:
        ranks = [lane.rank for lane in lanes]
    merged = np.concatenate(ranks) if ranks else np.zeros(0)
    ascending = np.sort(merged)
    starts = np.cumsum(full) - full

    def kept_at(dropped: int) -> np.ndarray:
        bar = ascending[dropped] if dropped < len(ascending) else np.inf
        kept = np.add.reduceat(merged >= bar, starts, dtype=np.int64) if lanes else full
        return np.where(kept >= full, full, np.maximum(floors, kept // steps * steps))

    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if meter.take(full - kept_at(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    kept = kept_at(low)
    meter.take(full - kept)
    return _give_back(lanes, ranks, kept.tolist(), limit, meter)


def _give_back(
    lanes: list[Lane], ranks: list[np.ndarray], kept: list[int], limit: float, meter: Meter
) -> dict[str, int]:
    """Widen groups step by step, the best dropped unit first, as long as the budget holds.

    Of equal units the one of the group that has lost the larger share comes first, so that scores that say nothing
    (all alike) thin the network evenly instead of emptying its last layers.
    """

    def offer(k: int) -> tuple[float, float, int]:
        return -ranks[k][kept[k]], kept[k] / lanes[k].width, k

    offers = [offer(k) for k, lane in enumerate(lanes) if kept[k] < lane.width]
    heapq.heapify(offers)
    while offers:
        _, _, k = heapq.heappop(offers)
        lane = lanes[k]
        wider = min(lane.width, (kept[k] // lane.step + 1) * lane.step)
        if meter.give_back(k, wider - kept[k], limit):
            kept[k] = wider
            if wider < lane.width:
                heapq.heappush(offers, offer(k))
    return {lane.name: width for lane, width in zip(lanes, kept)}


def _unreachable(
    graph: PruningGraph,
    lanes: list[Lane],
    budget: Budget,
    limit: float,
    least: float,
    spared: set[str],
    held: Mapping[str, str],
) -> str:
    """What can be reached, and what holds it."""
    base = getattr(graph.cost(), budget.metric)
    lines = [
        f"the budget {budget} cannot be reached: it asks for {limit:,.0f} {budget.metric}, "
        f"the least is {least:,.0f} ({least / base:.1%} of the dense {base:,})",
        "what holds it:",
    ]
    locked = [g for g in graph.groups if g.locked]
    if spared:
        lines.append(f"- {len(spared)} protected: {', '.join(sorted(spared)[:4])}")
    for name, why in list(held.items())[:4]:
        lines.append(f"- uniform=True holds back {name}: {why[:110]}")
    reasons: dict[str, list[Group]] = {}
    for g in locked:
        reasons.setdefault(g.reason.split(" in ")[0][:110], []).append(g)
    for reason, groups in sorted(reasons.items(), key=lambda item: -sum(g.width for g in item[1]))[:4]:
        lines.append(f"- {len(groups)} locked ({groups[0].name}{', …' if len(groups) > 1 else ''}): {reason}")
    lines.append(f"- the floors of {len(lanes)} groups ({sum(lane.floor for lane in lanes)} units in all)")
    percent = math.ceil(1000 * least / base) / 10
    lines.append(f"ask for at least {budget.metric}={percent:g}%, or lower floor=, round_to= or protect=")
    return "\n".join(lines)
