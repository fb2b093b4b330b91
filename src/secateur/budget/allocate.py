"""From scores and a budget to kept units: one ranking, one bisection on the exact cost.

Every unit gets a rank, in its own group or over the whole network. Dropping the first q units of the ranking gives
widths, widths give a cost, and the cost falls with q; bisection finds the q that just fits. Steps (multiples of 8,
say) make that cost jump, so what is left of the budget is then given back one step at a time, best units first.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur._errors import BudgetError, UnknownName, UsageError
from secateur.budget.budget import Budget
from secateur.graph import Group, PruningGraph
from secateur.surgery import Plan, make_plan

RANKINGS = {
    "global": "one ranking over the network, scores divided by their group's mean",
    "layer": "the same share of every group",
}


@dataclass(frozen=True)
class _Lane:
    """One group in the allocation: what it may lose and in what order."""

    name: str
    width: int
    order: np.ndarray
    rank: np.ndarray
    floor: int
    step: int

    def snap(self, kept: np.ndarray | int) -> int:
        """The nearest allowed width that is not larger; never below the floor."""
        kept = int(kept)
        if kept >= self.width:
            return self.width
        return max(self.floor, kept // self.step * self.step)


def plan(
    graph: PruningGraph,
    scores: Mapping[str, Tensor],
    budget: Budget | Mapping[str, int],
    *,
    round_to: int = 8,
    ranking: str = "global",
    protect: Sequence[str] = (),
    floor: float = 0.1,
) -> Plan:
    """Decide which units stay.

    Args:
        graph: from ``trace``.
        scores: from ``score``; groups without scores stay whole.
        budget: a target, or the width of every group by name (a preset); groups not named stay whole.
        round_to: widths of channels snap to multiples of this, because odd widths are often slower. A group narrower
            than twice this snaps to a quarter of its width. 1 turns it off.
        ranking: ``"global"`` or ``"layer"``.
        protect: names or patterns (``layer1.*``) of groups, modules or parameters that stay whole.
        floor: the least share of a group that stays; at least one unit always does.

    Returns:
        The plan, with the costs and the choices in ``plan.why``.

    Raises:
        BudgetError: the budget cannot be reached; the message says what can, and what holds it.
        UsageError: unknown groups, a ranking that does not exist, numbers out of range.
    """
    _check(ranking, round_to, floor)
    spared = protected(graph, protect)
    why = {"ranking": ranking, "round_to": round_to, "floor": floor, "protect": list(protect)}
    if isinstance(budget, Budget):
        lanes = _lanes(graph, scores, spared, round_to, floor)
        widths = _allocate(graph, lanes, budget, ranking, spared)
        why["budget"] = budget.as_dict()
    else:
        _check_widths(graph, scores, budget)
        widths = {n: w for n, w in budget.items() if n not in spared}
        why = {"widths": dict(widths), "protect": list(protect)}
    keep = {}
    for name, width in widths.items():
        best = torch.argsort(scores[name].double(), descending=True, stable=True)[:width]
        keep[name] = sorted(best.tolist())
    made = make_plan(graph, keep, **why)
    cost, dense = graph.cost(made.widths), graph.cost()
    return made.explain(macs=cost.macs, params=cost.params, dense_macs=dense.macs, dense_params=dense.params)


def _check(ranking: str, round_to: int, floor: float) -> None:
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
        _sound(scores[name], name, dense[name])
        if not isinstance(width, int) or not 1 <= width <= dense[name]:
            problems.append(f"{name} has {dense[name]} units: keep 1 to {dense[name]} of them, not {width!r}")
    if problems:
        raise UsageError("\n".join(problems))


def _sound(scores: Tensor, name: str, width: int) -> Tensor:
    values = scores.detach().double().cpu()
    if values.shape != (width,) or not bool(torch.isfinite(values).all()):
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
    graph: PruningGraph, scores: Mapping[str, Tensor], spared: set[str], round_to: int, floor: float
) -> list[_Lane]:
    lanes = []
    for group in graph.prunable:
        if group.name in spared or group.name not in scores:
            continue
        values = _sound(scores[group.name], group.name, group.width).numpy()
        order = np.argsort(-values, kind="stable")
        mean = float(np.abs(values).mean()) or 1.0
        lanes.append(_Lane(group.name, group.width, order, values[order] / mean, *_steps(group, round_to, floor)))
    return lanes


def _steps(group: Group, round_to: int, floor: float) -> tuple[int, int]:
    """The least width of a group and the step of its widths."""
    step = round_to if group.kind == "channel" else 1
    if step > 1 and group.width < 2 * step:
        step = max(1, group.width // 4)
    least = max(1, math.ceil(floor * group.width))
    return min(group.width, math.ceil(least / step) * step), step


def _allocate(
    graph: PruningGraph, lanes: list[_Lane], budget: Budget, ranking: str, spared: set[str]
) -> dict[str, int]:
    dense = graph.cost()
    limit = budget.limit(dense)

    def spend(widths: Mapping[str, int]) -> float:
        return getattr(graph.cost(widths), budget.metric)

    least = {lane.name: lane.floor for lane in lanes}
    if spend(least) > limit:
        raise BudgetError(_unreachable(graph, lanes, budget, limit, spend(least), spared))

    if ranking == "layer":
        ranks = [(np.arange(lane.width, 0, -1) - 0.5) / lane.width for lane in lanes]
    else:
        ranks = [lane.rank for lane in lanes]
    merged = np.sort(np.concatenate(ranks)) if ranks else np.zeros(0)

    def widths_at(dropped: int) -> dict[str, int]:
        bar = merged[dropped] if dropped < len(merged) else np.inf
        return {lane.name: lane.snap((rank >= bar).sum()) for lane, rank in zip(lanes, ranks)}

    low, high = 0, len(merged)
    while low < high:
        middle = (low + high) // 2
        if spend(widths_at(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return _give_back(lanes, ranks, widths_at(low), limit, spend)


def _give_back(
    lanes: list[_Lane], ranks: list[np.ndarray], widths: dict[str, int], limit: float, spend
) -> dict[str, int]:
    """Widen groups step by step, the best dropped unit first, as long as the budget holds.

    Of equal units the one of the group that has lost the larger share comes first, so that scores that say nothing
    (all alike) thin the network evenly instead of emptying its last layers.
    """
    open_lanes = {lane.name: (lane, rank) for lane, rank in zip(lanes, ranks) if widths[lane.name] < lane.width}
    while open_lanes:
        name = max(open_lanes, key=lambda n: (open_lanes[n][1][widths[n]], -widths[n] / open_lanes[n][0].width))
        lane, _ = open_lanes[name]
        wider = min(lane.width, (widths[name] // lane.step + 1) * lane.step)
        if spend({**widths, name: wider}) <= limit:
            widths[name] = wider
            if wider == lane.width:
                del open_lanes[name]
        else:
            del open_lanes[name]
    return widths


def _unreachable(
    graph: PruningGraph, lanes: list[_Lane], budget: Budget, limit: float, least: float, spared: set[str]
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
    reasons: dict[str, list[Group]] = {}
    for g in locked:
        reasons.setdefault(g.reason.split(" in ")[0][:110], []).append(g)
    for reason, groups in sorted(reasons.items(), key=lambda item: -sum(g.width for g in item[1]))[:4]:
        lines.append(f"- {len(groups)} locked ({groups[0].name}{', …' if len(groups) > 1 else ''}): {reason}")
    lines.append(f"- the floors of {len(lanes)} groups ({sum(lane.floor for lane in lanes)} units in all)")
    percent = math.ceil(1000 * least / base) / 10
    lines.append(f"ask for at least {budget.metric}={percent:g}%, or lower floor=, round_to= or protect=")
    return "\n".join(lines)
