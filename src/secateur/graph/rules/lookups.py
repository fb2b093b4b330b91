"""Operations that pick rows by index."""

from __future__ import annotations

import torch

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


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(run, func, args, kwargs, out) -> None:
    """Sums, means or maxima of rows: made of the same columns."""
    weight, kept = args[0], []
    for system in run.labels(weight).systems:
        if varying(system) == (1,):
            kept.append(system.narrow(0, 0, 1).expand(out[0].shape))
        else:
            run.ledger.lock_systems([system], f"rows are looked up by index in {run.where(func)}")
    for t in tensors((args[1:], kwargs)):
        run.ledger.lock_systems(run.labels(t).systems, f"weights or indices of rows in {run.where(func)}")
    run.set(out[0], Labels(tuple(kept)))


def _consumed(indices: list) -> int | None:
    """How many leading axes an index stands for, a mask for as many as it has; ``None`` if it leaves one out."""
    given = [item for item in indices if item is not None]
    if any(item is None for item in indices[: len(given)]):
        return None
    return sum(item.dim() if item.dtype in (torch.bool, torch.uint8) else 1 for item in given)


@rule("index", "_unsafe_index")
def index(run, func, args, kwargs, out) -> None:
    """Rows picked by index: what the axes behind them carry passes."""
    x, indices = args[0], args[1]
    labels, systems, consumed = run.labels(x), [], _consumed(indices)
    for system in labels.systems:
        own = varying(system)
        if consumed == 1 and own == (0,) and experts.looked_up(run, system, 0, indices[0]):
            continue
        if consumed is not None and all(axis >= consumed for axis in own):
            systems.append(compressed(system, range(consumed, x.dim())).expand(out.shape))
        else:
            run.ledger.lock_systems([system], f"looked up by index in {run.where(func)}")
    for item in tensors(indices):
        run.ledger.lock_systems(run.labels(item).systems, f"used as an index in {run.where(func)}")
    run.set(out, Labels(tuple(systems), labels.is_weight))


@rule("index_put", "_index_put_impl")
def index_put(run, func, args, kwargs, out) -> None:
    """Rows written by index: what lies on the axes behind them meets what was there."""
    x, indices, values = args[:3]
    consumed, where = _consumed(indices), run.where(func)
    for item in tensors(indices):
        run.ledger.lock_systems(run.labels(item).systems, f"used as an index in {where}")
    behind = x.dim() - (consumed or 0)
    lead = values.dim() - behind
    written = []
    for system in run.labels(values).systems:
        if consumed is not None and lead >= 0 and all(axis >= lead for axis in varying(system)):
            written.append(compressed(system, range(lead, values.dim())).expand(x.shape))
        else:
            run.ledger.lock_systems([system], f"written by index in {where}")
    if consumed is None:
        run.ledger.lock_systems(run.labels(x).systems, f"written by index in {where}")
        return
    # Rows are written into; along the indexed axes nothing is known of the values.
    shape = (*(1,) * consumed, *(values.shape[max(lead, 0) :] if lead >= 0 else (1,) * behind))
    operands = [(run.labels(x), tuple(x.shape)), (Labels(tuple(written)), shape)]
    run.set(out, Labels(run.ledger.meet(operands, x.shape, where)))
