"""Operations that write where an index or a mask says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from secateur.graph.labels import Labels, along, broadcast, compressed, dropped, varying
from secateur.graph.rules.combinations import constant_met, own_shape
from secateur.graph.rules.registry import explaining, rule
from secateur.graph.trees import tensors


def _consumed(indices: list) -> int | None:
    """How many leading axes an index stands for, a mask for as many as it has; ``None`` if it leaves one out."""
    given = [item for item in indices if item is not None]
    if any(item is None for item in indices[: len(given)]):
        return None
    return sum(item.dim() if item.dtype in (torch.bool, torch.uint8) else 1 for item in given)


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


@rule("index_add", "index_copy", "index_reduce")
@explaining
def index_add(run, func, args, kwargs, out) -> None:
    """The same along one axis, where everything that is written has as many axes as what it is written into."""
    run.ledger.lock_systems(run.labels(args[2]).systems, f"used as an index in {run.where(func)}")
    _written_along(run, func, args[1] % max(out.dim(), 1), args[0], [args[3]], (), out)


@rule("scatter", "scatter_add", "scatter_reduce")
@explaining
def scatter(run, func, args, kwargs, out) -> None:
    """Every element has an index of its own along one axis; along the others the same units lie on one another."""
    x, axis = args[0], args[1] % max(out.dim(), 1)
    for t in (x, *tensors((args[3:], kwargs))):
        if (line := run.points_at(t)) is not None:
            # Nobody could say any more which of the numbers there are places.
            run.ledger.lock(line, f"indices into it are written by index in {run.where(func)}")
    chosen = _chosen_among(run, func, x, axis, run.points_at(args[2]))
    _written_along(run, func, axis, x, tensors((args[2:], kwargs)), chosen, out)


def _chosen_among(run, func, x: Tensor, axis: int, line: Tensor | None) -> tuple[Tensor, ...]:
    """The units on an axis that is written into by an index that was chosen among them."""
    if line is None:
        return ()
    own = run.labels(x)
    here = [s for s in own.systems if axis in varying(s)]
    if len(line) == x.shape[axis] and own.is_uniform and not here:
        return (along(axis, x.shape, line),)
    if len(line) == x.shape[axis] and [varying(s) for s in here] == [(axis,)]:
        run.ledger.tie(compressed(here[0], (axis,)), line, run.where(func))
        return (here[0],)
    run.ledger.lock(line, f"indices into it say where to write in {run.where(func)}")
    return ()


def _written_along(
    run, func, axis: int, x: Tensor, written: Sequence[Tensor], chosen: tuple[Tensor, ...], out: Tensor
) -> None:
    """Places on one axis of ``x`` are written, on which the ``chosen`` systems lie."""
    where, operands = run.where(func), [x, *written]
    around = [n for a, n in enumerate(x.shape) if a != axis]
    if any([n for a, n in enumerate(t.shape) if a != axis] != around for t in operands):
        # A part of what is there is written, so that different units may lie on one another.
        for t in operands:
            run.ledger.lock_systems((*run.labels(t).systems, *chosen), f"written by index in {where}")
        return
    met = []
    for t in operands:
        own = run.labels(t)
        if t is not x or not chosen:
            _lock_indexed(run, t, (axis,), where)
        kept = [dropped(s, (axis,), keepdim=True) for s in own.systems if axis not in varying(s)]
        # Copies along an axis, of an index most often, fit whatever is written there.
        shape = [1 if a == axis else n for a, n in enumerate(own_shape(t))]
        met.append((Labels(tuple(kept), is_uniform=own.is_uniform), shape))
    left = run.ledger.meet(met, [1 if a == axis else n for a, n in enumerate(x.shape)], where)
    systems = (*(broadcast(s, out.shape) for s in left), *chosen)
    for t in operands:
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
