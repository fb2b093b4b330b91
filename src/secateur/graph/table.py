"""``print(graph)``: the groups as a table a person can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secateur.graph.trace import PruningGraph


def table(graph: PruningGraph, limit: int | None = None) -> str:
    """One line a group: its width, what lies on it, and why it is locked if it is."""
    groups = graph.groups[:limit]
    free = graph.prunable
    lines = [f"{len(free)} groups can be cut, {len(graph.groups) - len(free)} are locked; {graph.cost()}", ""]
    width = max([len(g.name) for g in groups] + [5])
    lines.append(f"{'group'.ljust(width)}  {'kind':8}{'width':>6}  tied together")
    for g in groups:
        if g.locked:
            text = f"locked: {g.reason}"
        elif g.width < 2:
            text = "locked: a single unit"
        else:
            text = ", ".join(str(m) for m in g.members[:4])
            text += f" and {len(g.members) - 4} more" if len(g.members) > 4 else ""
        lines.append(f"{g.name.ljust(width)}  {g.kind:8}{g.width:6d}  {text}")
    return "\n".join(lines)
