"""``print(graph)``: the groups as a table a person can read."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.cost import Cost
from secateur.graph.groups import Group

_MOST_MEMBERS = 4


def table(groups: Sequence[Group], cost: Cost) -> str:
    """One line a group: its width, what lies on it, and why it is locked if it is."""
    free = [g for g in groups if not g.locked and g.width > g.least]
    lines = [f"{len(free)} groups can be cut, {len(groups) - len(free)} are locked; {cost}", ""]
    width = max([len(g.name) for g in groups] + [5])
    lines.append(f"{'group'.ljust(width)}  {'kind':8}{'width':>6}  tied together")
    for g in groups:
        if g.locked:
            text = f"locked: {g.reason}"
        elif g.width <= g.least:
            text = "locked: a single unit" if g.width < 2 else f"locked: the model chooses {g.least} of them"
        else:
            text = ", ".join(str(m) for m in g.members[:_MOST_MEMBERS])
            more = len(g.members) - _MOST_MEMBERS
            text += f" and {more} more" if more > 0 else ""
        lines.append(f"{g.name.ljust(width)}  {g.kind:8}{g.width:6d}  {text}")
    return "\n".join(lines)
