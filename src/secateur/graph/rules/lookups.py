"""Operations that pick rows by index."""

from __future__ import annotations

from secateur.graph.labels import Labels, compressed, varying
from secateur.graph.rules import experts
from secateur.graph.rules.registry import rule
from secateur.graph.trees import tensors


@rule("embedding")
def embedding(run, func, args, kwargs, out) -> None:
    weight, index = args[0], args[1]
    labels, systems = run.labels(weight), []
    for system in labels.systems:
        if varying(system) == (1,):
            lead = (1,) * index.dim()
            systems.append(compressed(system, (1,)).view(*lead, weight.shape[1]).expand(out.shape))
        else:
            run.ledger.lock_systems([system], f"rows are looked up by index in {run.where(func)}")
    run.set(out, Labels(tuple(systems), False))


@rule("index", "_unsafe_index")
def index(run, func, args, kwargs, out) -> None:
    x, indices = args[0], args[1]
    looked_up = [i for i, item in enumerate(indices) if item is not None]
    labels, systems = run.labels(x), []
    leading = looked_up == list(range(len(looked_up)))
    for system in labels.systems:
        own = varying(system)
        if looked_up == [0] and own == (0,) and experts.looked_up(run, system, 0, indices[0]):
            continue
        if leading and not set(own) & set(looked_up):
            tail = system.select(0, 0)
            for _ in looked_up[1:]:
                tail = tail.select(0, 0)
            systems.append(tail.expand(out.shape))
        else:
            run.ledger.lock_systems([system], f"looked up by index in {run.where(func)}")
    for item in tensors(indices):
        run.ledger.lock_systems(run.labels(item).systems, f"used as an index in {run.where(func)}")
    run.set(out, Labels(tuple(systems), labels.is_weight))
