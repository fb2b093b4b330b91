"""Operations that pick rows by index."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor

from secateur.graph.labels import Labels, broadcast, compressed, varying
from secateur.graph.rules import experts
from secateur.graph.rules.combinations import constant_met
from secateur.graph.rules.registry import explaining, rule
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


@rule("index_put", "_index_put_impl")
def index_put(run, func, args, kwargs, out) -> None:
    """Rows written by index: what lies on the axes behind them meets what was there."""
    x, indices, values = args[:3]
    consumed, where = _consumed(indices), run.where(func)
    for item in tensors(indices):
        run.ledger.lock_systems(run.labels(item).systems, f"used as an index in {where}")
    behind = x.dim() - (consumed or 0)
    _lock_indexed(run, x, range(consumed or 0), where)
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


@rule("index_add", "index_copy")
@explaining
def index_add(run, func, args, kwargs, out) -> None:
    """The same along one axis, where everything that is written has as many axes as what it is written into."""
    x, axis, index, values = args[0], args[1] % max(args[0].dim(), 1), args[2], args[3]
    where = run.where(func)
    run.ledger.lock_systems(run.labels(index).systems, f"used as an index in {where}")
    operands = []
    for t in (x, values):
        _lock_indexed(run, t, (axis,), where)
        shape = [1 if a == axis else n for a, n in enumerate(t.shape)]
        kept = [s.narrow(axis, 0, 1) for s in run.labels(t).systems if axis not in varying(s)]
        operands.append((Labels(tuple(kept), is_uniform=run.labels(t).is_uniform), shape))
    systems = tuple([broadcast(s, out.shape) for s in run.ledger.meet(operands, operands[0][1], where)])
    for t in (x, values):
        constant_met(run, t, systems, out.dim())
    run.set(out, Labels(systems))


def _lock_indexed(run, x: Tensor, axes: Iterable[int], where: str) -> None:
    """The axes that an index counts along stay as they are."""
    for system in run.labels(x).systems:
        if not set(axes).isdisjoint(varying(system)):
            run.ledger.lock_systems([system], f"written by index in {where}")


@rule("masked_scatter")
def masked_scatter(run, func, args, kwargs, out) -> None:
    """Rows written where a mask says so: images into a text. The mask is the same all along what lies behind them."""
    x, mask, values = args
    where, own = run.where(func), run.labels(mask).systems
    rows = max(
        [axis + 1 for axis in range(-mask.dim(), 0) if mask.shape[axis] > 1 and mask.stride(axis)], default=-x.dim()
    )
    behind = -rows if rows else 0
    whole = 0 < behind <= values.dim() and values.shape[-behind:] == x.shape[-behind:]
    run.ledger.lock_systems([s for s in own if any(a - mask.dim() < rows for a in varying(s))], f"chosen in {where}")
    written = []
    for system in run.labels(values).systems:
        if whole and all(axis - values.dim() >= rows for axis in varying(system)):
            behind_rows = range(values.dim() - behind, values.dim())
            written.append(compressed(system, behind_rows))
        else:
            run.ledger.lock_systems([system], f"written where a mask says so in {where}")
    if not whole:
        run.ledger.lock_systems(run.labels(x).systems, f"written where a mask says so in {where}")
        return
    _lock_indexed(run, x, range(x.dim() + rows), where)
    operands = [(run.labels(x), tuple(x.shape)), (Labels(tuple(written)), tuple(values.shape[-behind:]))]
    run.set(out, Labels(run.ledger.meet(operands, x.shape, where)))
