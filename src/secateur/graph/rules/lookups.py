"""Operations that pick rows by index."""

from __future__ import annotations

import itertools

import torch

from secateur.graph.labels import Labels, compressed, laid, varying
from secateur.graph.rules import experts
from secateur.graph.rules.registry import rule
from secateur.graph.rules.selections import is_selection, selected
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
            kept.append(laid(system, (1,), out[0].shape))
        else:
            run.ledger.lock_systems([system], f"rows are looked up by index in {run.where(func)}")
    for t in tensors((args[1:], kwargs)):
        run.ledger.lock_systems(run.labels(t).systems, f"weights or indices of rows in {run.where(func)}")
    run.set(out[0], Labels(tuple(kept)))


@rule("index", "_unsafe_index")
def index(run, func, args, kwargs, out) -> None:
    """Places picked by index: what the other axes carry passes."""
    x, indices = args[0], args[1]
    labels, systems = run.labels(x), []
    taken, where = _taken(indices)
    others = [axis for axis in range(x.dim()) if axis not in taken]
    for system in labels.systems:
        own = varying(system)
        across = [axis for axis in own if axis in taken]
        if not across:
            line = compressed(system, others)
            for _ in range(out.dim() - len(others)):
                line = line.unsqueeze(where)
            systems.append(line.expand(out.shape))
        elif len(taken) == 1 and experts.looked_up(run, system, taken[0], indices[where]):
            continue
        else:
            run.ledger.lock_systems([system], f"looked up by index in {run.where(func)}")
    for item in tensors(indices):
        run.ledger.lock_systems(run.labels(item).systems, f"used as an index in {run.where(func)}")
    run.set(out, Labels(tuple(systems), labels.is_weight))


def _taken(indices: list) -> tuple[list[int], int]:
    """The axes that are indexed, and where the axes of the index come to lie among those of the result."""
    taken, axis, ends = [], 0, []
    for item in indices:
        length = item.dim() if item is not None and item.dtype in (torch.bool, torch.uint8) else 1
        if item is not None:
            taken += range(axis, axis + length)
            ends.append((axis, axis + length))
        axis += length
    side_by_side = all(one[1] == other[0] for one, other in itertools.pairwise(ends))
    return taken, taken[0] if side_by_side and taken else 0


@rule("index_select")
def index_select(run, func, args, kwargs, out) -> None:
    """The same along one axis."""
    axis = args[1] % max(args[0].dim(), 1)
    if is_selection(args[2]):
        return selected(run, args[0], axis, out)
    return index(run, torch.ops.aten.index.Tensor, (args[0], [*[None] * axis, args[2]]), {}, out)
