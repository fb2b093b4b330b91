"""Choosing by score: ``topk`` or ``argmax`` over an axis gives indices that point into it; rows are looked up by them.

That is the router of a mixture of experts. Numbers change when an expert is removed, but what they point at does not,
as long as they serve for nothing but looking up rows of axes that are cut alike.
"""

from __future__ import annotations

from torch import Tensor

from secateur.graph.labels import Labels, compressed, laid, varying
from secateur.graph.ledger import AxisRef
from secateur.graph.rules.orders import ordered
from secateur.graph.rules.registry import argument, rule

#: Indices stay what they are while they are only laid out anew.
PASSING = {
    *("view", "_unsafe_view", "reshape", "alias", "clone", "contiguous", "detach", "expand", "unsqueeze", "squeeze"),
    *("transpose", "t", "permute", "select", "slice", "_to_copy", "repeat_interleave", "repeat", "unbind"),
}
#: Rules here take care of what indices point at.
LOOKING_UP = {"index", "_unsafe_index", "index_select", "gather"}
WRITING = {"scatter", "scatter_"}


@rule("topk")
def topk(run, func, args, kwargs, out) -> None:
    """The best along an axis; the indices point into it."""
    x, axis = args[0], argument(func, args, kwargs, "dim", -1) % args[0].dim()
    systems = run.labels(x).systems
    across = [s for s in systems if axis in varying(s)]
    if len(across) != 1 or varying(across[0]) != (axis,):
        return ordered(run, func, args, kwargs, out)
    run.reads(func, 0, systems, [axis])
    line = compressed(across[0], (axis,))
    run.ledger.least(line, argument(func, args, kwargs, "k"))
    run.point(out[1], line)
    left = [s for s in systems if s is not across[0]]
    for t in out:
        run.set(t, Labels(tuple(laid(s, varying(s), t.shape) for s in left)))
    return None


def looked_up(run, system: Tensor, axis: int, index: Tensor) -> bool:
    """Tie an axis to what an index points at; false where the index points at nothing that can be cut."""
    line = run.points_at(index)
    if line is None or varying(system) != (axis,):
        return False
    run.ledger.tie(compressed(system, (axis,)), line, run.where())
    # What is looked up by an index that was chosen are experts, also where a single one is chosen.
    run.ledger.least(line, 1)
    # Code that loops over experts, or counts them, reads the number from its module.
    for attribute in ("num_experts", "num_local_experts", "n_routed_experts"):
        run.follow(attribute, AxisRef(system.shape[axis], ((system, axis),)))
    return True


@rule("gather")
def gather(run, func, args, kwargs, out) -> None:
    """One element of each line, by an index that was chosen over the same axis."""
    x, axis, index = args[0], args[1] % max(args[0].dim(), 1), args[2]
    kept = []
    for system in run.labels(x).systems:
        if axis not in varying(system) and all(out.shape[a] == x.shape[a] for a in varying(system)):
            kept.append(laid(system, varying(system), out.shape))
        elif not looked_up(run, system, axis, index):
            run.ledger.lock_systems([system], f"reaches {run.where()}, looked up by index{run.source()}")
    run.ledger.lock_systems(run.labels(index).systems, f"used as an index in {run.where()}")
    run.set(out, Labels(tuple(kept)))
