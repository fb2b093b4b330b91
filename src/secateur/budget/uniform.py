"""Every layer alike: which groups have to be narrowed together, and which cannot be because no configuration says it.

Without a configuration, groups of one role form a lane. A Hugging Face configuration says less: one field may govern
several roles (``d_ff`` of both stacks of T5), some roles need several fields (query and key-value heads), some go only
hand in hand (a head of BERT and 64 channels of its stream), and some cannot be said at all. The lanes are the ways in
which fields and roles can change with one another: the null space of "shapes that the roles lose = shapes that the
fields take away", each tried on a model that transformers builds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from secateur._errors import UsageError
from secateur.budget.lane import Lane, Share
from secateur.graph import Group, PruningGraph
from secateur.surgery import Plan, make_plan
from secateur.surgery.config import is_hugging_face
from secateur.surgery.express import express, knobs
from secateur.surgery.knobs import Knob
from secateur.surgery.linear import nullspace
from secateur.surgery.roles import Role, roles

#: So many steps narrower is looked for widths that can be said: what they have to divide is hardly larger.
_FAR = 128


@dataclass(frozen=True)
class Uniform:
    """Lanes by name, and what is held back.

    Attributes:
        lanes: groups that are narrowed together.
        held: name and reason of every role that stays whole.
    """

    lanes: dict[str, tuple[Share, ...]]
    held: dict[str, str]


def uniform_lanes(graph: PruningGraph, free: list[Group]) -> Uniform:
    """Sort the groups that may be cut into lanes.

    Args:
        free: groups that are neither locked nor protected. A role of which one group is not among them stays whole.
    """
    allowed, lanes, held = {g.name for g in free}, {}, {}
    found = []
    for role in roles(graph, graph.prunable):
        fixed = [g.name for g in role.groups if g.name not in allowed]
        if not fixed:
            found.append(role)
        elif len(fixed) < len(role.groups):
            held[role.name] = f"{fixed[0]} stays whole"
    if not is_hugging_face(graph.model):
        for role in found:
            lanes[role.name] = tuple(Share(g) for g in role.groups)
        return Uniform(lanes, held)
    known = knobs(graph)
    if known.trouble:
        return Uniform({}, {**held, **{role.name: known.trouble for role in found}})
    config = type(graph.model.config).__name__
    for steps in _ways(graph, found):
        moving = [(role, n) for role, n in zip(found, steps) if n]
        name = " + ".join(role.name if n == 1 else f"{n} x {role.name}" for role, n in moving)
        shares = tuple(Share(g, n) for role, n in moving for g in role.groups)
        if any(n < 0 for _, n in moving) or {s.group.name for s in shares} & _taken(lanes):
            reason = "goes only against the width of another"
        else:
            reason = _trial(graph, shares)
        if not reason:
            lanes[name] = shares
        else:
            for role, _ in moving:
                held.setdefault(role.name, reason)
    reached = _taken(lanes)
    for role in found:
        if role.groups[0].name in reached:
            held.pop(role.name, None)
        else:
            held.setdefault(role.name, f"no field of {config} says this width alone")
    return Uniform(lanes, held)


def _taken(lanes: Mapping[str, tuple[Share, ...]]) -> set[str]:
    return {share.group.name for shares in lanes.values() for share in shares}


def _ways(graph: PruningGraph, found: list[Role]) -> list[list[int]]:
    """Units that each role loses in one step, for every independent way in which fields and roles change together.

    A field that has to grow where widths shrink multiplies one of them (``mlp_ratio``): what is said without it comes
    first, and then, for roles that are left, what is said with it.
    """
    turning = knobs(graph).turning
    trained = {name for name, _ in graph.model.named_parameters()}
    lost: list[dict[tuple[str, int], int]] = []
    for role in found:
        axes: dict[tuple[str, int], int] = {}
        for group in role.groups:
            for m in (m for m in group.members if m.tensor in trained):
                axes[m.tensor, m.axis] = axes.get((m.tensor, m.axis), 0) + m.positions.shape[1]
        lost.append(axes)
    ways = _changes(turning, lost)
    growing = {k for turns, _ in ways for k, turn in enumerate(turns) if turn < 0}
    if growing:
        ways = _changes([knob for k, knob in enumerate(turning) if k not in growing], lost) + ways
    return [steps for _, steps in ways]


def _changes(turning: Sequence[Knob], lost: list[dict[tuple[str, int], int]]) -> list[tuple[list[int], list[int]]]:
    """By how much fields shrink, and roles lose units, in every independent way in which both agree."""
    every = {axis for axes in lost for axis in axes} | {axis for knob in turning for axis in knob.effect}
    rows: set[tuple[Fraction | int, ...]] = {
        (*(knob.effect.get(axis, 0) for knob in turning), *(-axes.get(axis, 0) for axes in lost)) for axis in every
    }
    found = []
    for vector in nullspace(sorted(rows), len(turning) + len(lost)):
        turns, steps = vector[: len(turning)], vector[len(turning) :]
        if any(steps):
            sign = -1 if sum(steps) < 0 else 1
            found.append(([sign * n for n in turns], [sign * n for n in steps]))
    return found


def _trial(graph: PruningGraph, shares: tuple[Share, ...]) -> str:
    """Why this lane cannot be narrowed; empty if it can."""
    width = min(s.group.width // s.per_step for s in shares)
    most = min((s.group.width - s.group.least) // s.per_step for s in shares)
    reason = ""
    for gone in dict.fromkeys(n for n in (width // 2, width // 4, 1, width - 1) if 0 < n <= most):
        keep = {s.group.name: range(s.group.width - gone * s.per_step) for s in shares}
        if any(len(keep[s.group.name]) == 1 and s.group.kind == "channel" for s in shares):
            # A norm over one channel gives the same number whatever it reads, and hides every difference.
            continue
        found = express(graph, make_plan(graph, keep))
        if found.fields:
            return ""
        reason = reason or found.reason
    return reason or "it is a single step wide"


def narrow_until_said(lanes: Sequence[Lane], kept: dict[str, int], make: Callable[[dict[str, int]], Plan]) -> Plan:
    """The plan for these widths, or for the nearest narrower ones if a configuration refuses them together.

    Llama, for instance, wants a ``hidden_size`` that is a multiple of the number of heads.

    Args:
        lanes: in the order in which they are tried.
        kept: steps kept of every lane.
        make: from kept steps to a plan that has its configuration.

    Raises:
        UsageError: no such widths.
    """
    first = make(kept)
    if _is_said(first):
        return first
    for wanted in _narrower_ones(lanes, kept, make):
        if _is_said(plan := make(wanted)):
            return plan
    raise UsageError(
        f"no configuration says these widths together: {first.why['config']}\n"
        "try another budget or round_to=, or protect one of the groups"
    )


def _narrower_ones(
    lanes: Sequence[Lane], kept: dict[str, int], make: Callable[[dict[str, int]], Plan]
) -> Iterator[dict[str, int]]:
    """What to try next: one lane narrower at a time, the nearest first, and then each as it can be said alone."""
    narrower = {}
    for one in lanes:
        widest = kept[one.name] - one.step
        narrower[one.name] = range(widest, max(one.floor, widest - _FAR) - 1, -one.step)
    yield from ({**kept, one.name: n} for one in lanes for n in narrower[one.name])
    full = {one.name: one.width for one in lanes}
    alone = {}
    for name, wanted in kept.items():
        tried = (wanted, *narrower[name])
        alone[name] = next((n for n in tried if _is_said(make({**full, name: n}))), wanted)
    yield alone


def _is_said(plan: Plan) -> bool:
    return bool(plan.config) or "config" not in plan.why
