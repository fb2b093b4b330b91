"""Copies that ``expand`` makes: one and the same thing, as often as the code asks for."""

from __future__ import annotations

from secateur.graph.labels import Labels, along, broadcast, lift
from secateur.graph.rules.registry import rule


@rule("expand")
def expand(run, func, args, kwargs, out) -> None:
    """An axis of copies has labels that lie on no parameter, so that it can follow what it meets.

    The one head of keys and values that all heads of queries share is the case in point.
    """
    x = args[0]
    labels = lift(run.labels(x), lambda s: broadcast(s, out.shape))
    run.set(out, labels)
    if not labels.systems:
        return
    lead = out.dim() - x.dim()
    copied = [a for a, n in enumerate(out.shape) if n > 1 and (a < lead or x.shape[a - lead] == 1)]
    systems = list(labels.systems)
    for axis in copied:
        line = run.ledger.take(out.shape[axis])
        run.ledger.spread.update(line.tolist())
        systems.append(along(axis, out.shape, line))
    if copied:
        run.set(out, Labels(tuple(systems), labels.is_weight))
