"""Operations that only move data: replayed on the label tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from secateur.graph.labels import (
    Labels,
    along,
    broadcast,
    laid,
    lift,
    line,
    narrowed,
    reshaped,
    settle,
    span_of,
    varying,
)
from secateur.graph.rules.combinations import pointwise
from secateur.graph.rules.layouts import joined
from secateur.graph.rules.registry import argument, axes_of, rule, unknown
from secateur.graph.rules.strides import stride_of_units

#: Labels of more numbers than this are not laid out one by one.
_LAID_OUT = 10_000_000


@rule("dequantize")
@rule("detach", "alias", "clone", "contiguous", "_to_copy", "lift_fresh", "to", "positive", "tril", "triu")
def same(run, func, args, kwargs, out) -> None:
    run.set(out, run.labels(args[0]))


def _moved(run, labels: Labels, replay: Callable[[Tensor], Any], out: Any, whole: bool = False) -> None:
    """Give the results the systems of the one moved tensor; a ``whole`` move leaves nothing out."""
    outs = [out] if isinstance(out, Tensor) else list(out)
    if not labels.systems:
        for target in outs:
            run.set(target, labels)
        return
    parts: list[list[Tensor]] = [[] for _ in outs]
    for system in labels.systems:
        replayed = replay(system)
        before = len(varying(system))
        for into, target, new in zip(parts, outs, [replayed] if isinstance(replayed, Tensor) else replayed):
            if not whole or len(varying(new)) > before:
                new = settle(new, target.shape)
            own = varying(new)
            if len(own) > 1 and len(own) > before:
                run.ledger.grid(new)
            if own:
                into.append(new)
            elif new.numel():
                # Nothing varies here any more, but a single label may still decide over the whole tensor.
                run.ledger.lock(new.reshape(-1)[:1], f"a single index is taken in {run.where(func=None)}")
    for target, systems in zip(outs, parts):
        run.set(target, Labels(tuple(systems), labels.is_weight, labels.is_uniform))


@cache
def _out_of_place(func: Any) -> Any:
    """The operation that does not change its argument: labels are shared."""
    name = func.overloadpacket.__name__
    return getattr(getattr(torch.ops.aten, name[:-1]), func._overloadname) if name[-1] == "_" else func


@rule("permute", "transpose", "t")
def permute(run, func, args, kwargs, out) -> None:
    labels, dims = run.labels(args[0]), out.dim()
    order = list(range(dims))
    if len(args) == 1:
        order.reverse()
    elif len(args) == 2:
        order = [a % dims for a in args[1]]
    else:
        a, b = args[1] % dims, args[2] % dims
        order[a], order[b] = b, a
    run.set(out, lift(labels, lambda s: laid(s, tuple([order.index(a) for a in varying(s)]), out.shape)))


@rule("squeeze", "unsqueeze", "diagonal", "swapaxes", "movedim", "unfold", "mT")
@rule("repeat", "flip", "pixel_shuffle", "pixel_unshuffle", "adjoint")
def move(run, func, args, kwargs, out) -> None:
    replay = _out_of_place(func)
    _moved(run, run.labels(args[0]), lambda s: replay(s, *args[1:], **kwargs), out)


@rule("repeat_interleave")
def repeat_each(run, func, args, kwargs, out) -> None:
    """Every index so many times, as long as it is equally many times."""
    if all(isinstance(t, Tensor) for t in args[:2]) or not isinstance(args[0], Tensor):
        return unknown(run, func, args, kwargs, out)
    return move(run, func, args, kwargs, out)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten")
def view(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    if len(labels.systems) == 1 and out.numel() and span_of(line(labels.systems[0])) is not None:
        # The frequent case: a line that is laid out over axes, on none of which it is constant.
        new = reshaped(labels.systems[0], tuple(out.shape))
        if len(varying(new)) > 1:
            run.ledger.grid(new)
        run.set(out, Labels((new,), labels.is_weight, labels.is_uniform))
        return
    if len(labels.systems) > 1:
        labels = joined(run, labels, args[0].shape, out.shape)
    _moved(run, labels, lambda s: reshaped(s, tuple(out.shape)), out, whole=True)


@rule("channel_shuffle", "native_channel_shuffle")
def shuffle(run, func, args, kwargs, out) -> None:
    """As written out in views: groups of equally many channels, so after a cut they have to be equal again."""
    x, groups = args[0], args[1]
    for system in run.labels(x).systems:
        if 1 in varying(system):
            parts = settle(system.reshape(x.shape[0], groups, -1, *x.shape[2:]))
            if len(varying(parts)) > 1:
                run.ledger.grid(parts)
            run.counts("groups", "groups", run.ledger.axis([parts], 1, groups))
    _moved(run, run.labels(x), lambda s: func(s, *args[1:], **kwargs), out)


@rule("select", "unbind")
def select(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    axis = argument(func, args, kwargs, "dim", 0) % max(args[0].dim(), 1)
    for system in labels.systems:
        if axis in varying(system):
            run.ledger.lock(line(run.ledger.project(system, (axis,))), f"indexed by number in {run.where(func)}")
    _moved(run, labels, lambda s: func(s, *args[1:], **kwargs), out)


@rule("slice")
def slice_(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    axis = argument(func, args, kwargs, "dim", 0) % args[0].dim()
    step = argument(func, args, kwargs, "step", 1)
    for system in labels.systems:
        if step != 1 and axis in varying(system):
            start, end = argument(func, args, kwargs, "start"), argument(func, args, kwargs, "end")
            span = (start or 0, args[0].shape[axis] if end is None else end, step)
            stride_of_units(run, func, system, axis, span)
    _moved(run, labels, lambda s: func(s, *args[1:], **kwargs), out)


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk")
def split(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    axis = argument(func, args, kwargs, "dim", 0) % args[0].dim()
    sizes = {piece.shape[axis] for piece in out}
    if len(sizes) == 1 and len(out) > 1:
        # Equal pieces come from a number of pieces, so after a cut they have to be equal again.
        shape = args[0].shape
        for system in labels.systems:
            if axis in varying(system):
                pieces = settle(system.reshape(*shape[:axis], len(out), -1, *shape[axis + 1 :]))
                run.ledger.grid(pieces)
    _moved(run, labels, lambda s: func(s, *args[1:], **kwargs), out)


@rule("roll")
def roll(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    dims = axes_of(args[2] if len(args) > 2 else kwargs.get("dims"), args[0].dim())
    kept = []
    for system in labels.systems:
        if set(dims) & set(varying(system)):
            run.ledger.lock_systems([system], f"rolled by a fixed number in {run.where(func)}")
        else:
            kept.append(system)
    run.set(out, Labels(tuple(kept), labels.is_weight))


@rule("constant_pad_nd")
def pad(run, func, args, kwargs, out) -> None:
    x, amounts = args[0], args[1]
    touched = [x.dim() - 1 - i // 2 for i, n in enumerate(amounts) if n]
    labels, systems = run.labels(x), []
    for system in labels.systems:
        if set(touched) & set(varying(system)):
            systems.append(settle(torch.constant_pad_nd(system, amounts, 0), out.shape))
        else:
            small = narrowed(system, ())
            systems.append(small.expand(out.shape) if small.numel() else small)
    run.set(out, Labels(tuple(systems), labels.is_weight))


@rule("cat", "concat", "concatenate")
def cat(run, func, args, kwargs, out) -> None:
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % max(out.dim(), 1)
    parts = [p for p in args[0] if p.dim() == out.dim()]
    run.set(out, _joined(run, parts, [run.labels(p) for p in parts], axis, out))


@rule("stack")
def stack(run, func, args, kwargs, out) -> None:
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    labels = []
    for part in args[0]:
        own = run.labels(part)
        labels.append(Labels(tuple(s.unsqueeze(axis) for s in own.systems), own.is_weight, own.is_uniform))
    run.set(out, _joined(run, [p.unsqueeze(axis) for p in args[0]], labels, axis, out))


def _joined(run, parts: list[Tensor], labels: list[Labels], axis: int, out: Tensor) -> Labels:
    """Systems of a concatenation: one that varies along the joined axis, and those of the other axes, tied."""
    ledger, where = run.ledger, run.where("cat")
    is_weight = all(own.is_weight for own in labels)
    if not any(own.systems for own in labels):
        return Labels((), is_weight)
    lines = [line(own.systems[0]) for own in labels if [varying(s) for s in own.systems] == [(axis,)]]
    if len(lines) == len(labels):
        # The frequent case, in fewer steps: channels beside channels.
        return Labels((along(axis, out.shape, torch.cat(lines)),), is_weight)
    # Systems that do not vary along the joined axis have to agree between the parts.
    shape = list(out.shape)
    shape[axis] = 1
    crossing, operands = [], []
    for part, own in zip(parts, labels):
        across = [s for s in own.systems if axis not in varying(s)]
        crossing.append([s for s in own.systems if axis in varying(s)])
        covered = {a for s in own.systems for a in varying(s)}
        flat = [1 if a in covered and not any(a in varying(s) for s in across) else n for a, n in enumerate(part.shape)]
        flat[axis] = 1
        # A part may be empty along the joined axis, and has to be as long as the others along the rest all the same.
        one = [1 if a == axis else n for a, n in enumerate(part.shape)]
        operands.append((Labels(tuple(laid(s, varying(s), one) for s in across), is_uniform=own.is_uniform), flat))
    systems = [broadcast(s, tuple(out.shape)) for s in ledger.meet(operands, shape, where)]
    width = max((len(c) for c in crossing), default=0)
    for k in range(width):
        live = set()
        for c in crossing:
            if k < len(c):
                live.update(varying(c[k]))
        live.add(axis)
        pieces = []
        for part, c in zip(parts, crossing):
            small = [part.shape[a] if a in live else 1 for a in range(out.dim())]
            if k < len(c):
                source = c[k]
                for a in range(out.dim()):
                    if a not in live:
                        source = source.narrow(a, 0, 1)
                pieces.append(source)
            else:
                pieces.append(torch.zeros(small, dtype=torch.int64))
        joined = settle(torch.cat(pieces, axis), out.shape)
        if len(varying(joined)) > 1 and any(k < len(c) and len(varying(c[k])) < 2 for c in crossing):
            ledger.grid(joined)
        systems.append(joined)
    return Labels(tuple(systems), is_weight)


@rule("copy_", "copy")
def copy(run, func, args, kwargs, out) -> None:
    target, source = run.labels(args[0]), run.labels(args[1])
    if not target.systems and source.systems and args[0]._is_view():
        if _written_into(run, args[0], source):
            return
        run.ledger.lock_systems(source.systems, f"written into a part of another tensor in {run.where(func)}")
        return
    if not target.systems:
        run.set(out, Labels(tuple(s.expand(out.shape) for s in source.systems), source.is_weight))
        return
    pointwise(run, func, args[:2], {}, out)


def _written_into(run, part: Tensor, source: Labels) -> bool:
    """Label the whole tensor by what is written into a part of it, if that takes in every axis on which units lie.

    ``out = torch.zeros_like(x)`` and then ``out[:, t] = …`` for every ``t``, as in a scan.
    """
    whole = part._base
    if whole is None or run.labels(whole).systems or part.dim() > whole.dim():
        return False
    axes = [
        [a for a in range(whole.dim()) if whole.stride(a) == stride and whole.shape[a] == size]
        for size, stride in zip(part.shape, part.stride())
    ]
    own = {axis for system in source.systems for axis in varying(system)}
    lead = part.dim() - max((s.dim() for s in source.systems), default=0)
    if any(len(axes[lead + axis]) != 1 for axis in own):
        return False
    systems = []
    for system in source.systems:
        places = tuple([axes[lead + axis][0] for axis in varying(system)])
        systems.append(laid(system, places, whole.shape))
    for axis, size in enumerate(whole.shape):
        run.sources.explain(whole, axis, run.ledger.axis(systems, axis, size))
    for tensor, labels in ((whole, systems), (part, [broadcast(s, part.shape) for s in source.systems])):
        run.set(tensor, Labels(tuple(labels)))
    return True


@rule("as_strided")
def as_strided(run, func, args, kwargs, out) -> None:
    """Windows that overlap, say: labels that lie in memory as the numbers do come out as these do."""
    x = args[0]
    if out is x:
        # Pooling to one position rewrites strides in place.
        return
    size, stride, offset = (argument(func, args, kwargs, name) for name in ("size", "stride", "storage_offset"))
    reach = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride()))
    if reach != x.numel() or reach > _LAID_OUT or offset not in (None, x.storage_offset()):
        unknown(run, func, args, kwargs, out)
        return

    def replay(system: Tensor) -> Tensor:
        laid_out = torch.empty_strided(x.shape, x.stride(), dtype=system.dtype)
        return laid_out.copy_(system.expand(x.shape)).as_strided(size, stride)

    _moved(run, run.labels(x), replay, out)
