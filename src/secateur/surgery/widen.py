"""A network with more units than it was built with, by the same means as one with fewer: indices that repeat.

Channel expansion (Pruning from Scratch, section 4) starts from a wider network than the one that is to be shortened.
A plan in which units are named more than once builds it of any network that can be traced. The weights that it gives
are copies: the wider network is meant to be initialised anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secateur._errors import UsageError
from secateur.graph import PruningGraph
from secateur.surgery.plan import GroupPlan, Plan, Size, fingerprint
from secateur.surgery.ranges import to_runs


def widen(graph: PruningGraph, widths: Mapping[str, int]) -> Plan:
    """The plan by which ``cut`` makes groups wider.

    Args:
        graph: over the network as it was built.
        widths: of the groups that grow; a unit is repeated behind itself, evenly over the group.

    Raises:
        UsageError: groups that do not exist, are no channels or cannot change, or widths below what they are.
    """
    free, problems = {g.name: g for g in graph.prunable}, []
    for name, width in widths.items():
        if name not in free:
            problems.append(f"{name}: there is no such group that can change its width")
        elif free[name].kind != "channel":
            problems.append(f"{name}: only channels can become more, and these are {free[name].kind}s")
        elif width < free[name].width:
            problems.append(f"{name}: {width} is less than the {free[name].width} that it has")
    if problems:
        raise UsageError("these groups cannot be widened:\n" + "\n".join(problems))
    classes = graph.classes.of
    times = np.ones(int(classes.max()) + 1, dtype=np.int64)
    starts = {(axis.tensor, axis.axis): axis.start for axis in graph.ledger.axes}
    for name, width in widths.items():
        group = free[name]
        member = group.members[0]
        first = classes[starts[member.tensor, member.axis] + member.positions[:, 0]]
        times[first] = np.diff(np.arange(group.width + 1) * width // group.width)
    slices: dict[str, dict[int, str]] = {}
    for axis in graph.ledger.axes:
        here = classes[axis.start : axis.start + axis.size]
        if axis.tensor in graph.tensors and (times[here] != 1).any():
            slices.setdefault(axis.tensor, {})[axis.axis] = to_runs(_repeated(here, times))
    sizes = {}
    for literal in graph.literals:
        extent = graph.extent(literal.axis, times)
        if extent != literal.axis.size:
            key = (literal.module, literal.attribute, literal.index)
            sizes[key] = Size(*key, extent * literal.factor)
    groups = tuple(
        GroupPlan(
            g.name,
            g.kind,
            g.width,
            to_runs(_repeated(np.arange(g.width), np.diff(np.arange(g.width + 1) * widths[g.name] // g.width)))
            if g.name in widths
            else f"0-{g.width - 1}",
            tuple(map(str, g.members)),
        )
        for g in free.values()
    )
    return Plan(fingerprint(graph.model), groups, slices, tuple(sizes.values()), why={"widened": dict(widths)})


def _repeated(classes: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Indices of an axis in which every stretch of one unit stands as often as ``times`` says of it.

    A unit that takes several places in a row (the 49 of a flattened map) is repeated as a whole.
    """
    firsts = np.flatnonzero(np.append(True, classes[1:] != classes[:-1]))
    lengths = np.diff(firsts, append=len(classes))
    parts = [np.arange(f, f + n) for f, n in zip(firsts.tolist(), lengths.tolist()) for _ in range(times[classes[f]])]
    return np.concatenate(parts)
