"""Sums of products: matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secateur.graph.labels import (
    Labels,
    along,
    compressed,
    dropped,
    laid,
    lift,
    line,
    on_channels,
    reshaped,
    settle,
    varying,
)
from secateur.graph.ledger import KERNEL, AxisRef, Term
from secateur.graph.rules.combinations import constant_met
from secateur.graph.rules.registry import argument, explaining, rule


def multiplied(
    run, func, a: Labels, a_shape: Sequence[int], b: Labels, b_shape: Sequence[int], turned: bool = False
) -> tuple[Tensor, ...]:
    """``a @ b`` for ``a`` (..., n, k) and ``b`` (..., k, m), or (..., m, k) if ``turned``, of equal leading shape."""
    *lead, rows, inner = a_shape
    n, columns = len(lead), b_shape[-2 if turned else -1]
    shape = (*lead, rows, columns, inner)
    of_a, of_b = (*range(n + 1), n + 2), (*range(n), n + 1, n + 2) if turned else (*range(n), n + 2, n + 1)
    la = lift(a, lambda s: laid(s, tuple([of_a[i] for i in varying(s)]), shape))
    lb = lift(b, lambda s: laid(s, tuple([of_b[i] for i in varying(s)]), shape))
    sizes = (*lead, rows, 1, inner), (*lead, 1, columns, inner)
    return run.ledger.contract(la, sizes[0], lb, sizes[1], run.module, run.where(func), 1)


def in_batches(
    run, func, a: Labels, a_shape: Sequence[int], b: Labels, b_shape: Sequence[int], turned: bool = False
) -> tuple[Tensor, ...]:
    """The same for an operation inside of which PyTorch runs ``bmm``: there the leading axes are one."""
    across = [s for s in a.systems if len(a_shape) - 1 in varying(s)]
    merged = (math.prod(a_shape[:-2]), *a_shape[-2:])
    run.reads_inside("bmm", 0, [] if a.is_weight or b.is_weight else [reshaped(s, merged) for s in across], [2])
    return multiplied(run, func, a, a_shape, b, b_shape, turned)


def _product(run, func, a: Tensor, b: Tensor, place: int = 0) -> tuple[Tensor, ...]:
    """``a @ b``, where ``a`` is the argument at ``place``."""
    la, lb = run.labels(a), run.labels(b)
    if not (la.is_weight or lb.is_weight):
        run.reads(func, place, la.systems, [a.dim() - 1])
    return multiplied(run, func, la, a.shape, lb, b.shape)


def _layer(run, func, x: Tensor, weight: Tensor, out: Tensor, given: int) -> tuple[Tensor, ...] | None:
    """The frequent case of ``x @ weight``: what is summed over lies on an axis of its own. ``None`` in any other.

    Args:
        given: the axis of the weight that takes inputs.
    """
    lx, axes, where, last = run.labels(x), _axes_of(run.labels(weight)), run.where(func), x.dim() - 1
    if lx.is_weight or lx.is_uniform or not run.labels(weight).is_weight or len(axes) != 2:
        return None
    columns = [s for s in lx.systems if varying(s) == (last,)]
    rows = [s for s in lx.systems if last not in varying(s)]
    if len(rows) + len(columns) < len(lx.systems):
        return None
    ledger, inputs, outputs = run.ledger, axes[given], axes[1 - given]
    ledger.role(line(inputs), "in")
    ledger.role(line(outputs), "out")
    for system in columns:
        ledger.tie(line(system), line(inputs), where)
    if not columns:
        ledger.lock(line(inputs), f"meets a fixed axis in {where}")
    taken = tuple([(s, last) for s in columns]) or ((inputs, given),)
    refs = [ledger.axis(rows, axis, size) for axis, size in enumerate(x.shape[:last]) if size != 1]
    refs += [AxisRef(out.shape[last], ((outputs, 1 - given),)), AxisRef(x.shape[last], taken)]
    ledger.terms.append(Term(run.module, 1, tuple(refs)))
    return (*[laid(s, varying(s), out.shape) for s in rows], along(last, out.shape, line(outputs)))


@rule("matmul")
def product_in_batches(run, func, args, kwargs, out) -> None:
    a, b = args
    both = run.labels(a).is_weight and run.labels(b).is_weight
    run.set(out, Labels(in_batches(run, func, run.labels(a), a.shape, run.labels(b), b.shape), both))


@rule("mm", "bmm")
@explaining
def product(run, func, args, kwargs, out) -> None:
    a, b = args[0], args[1]
    _settle_inputs(run, a, b, 0)
    both = run.labels(a).is_weight and run.labels(b).is_weight
    short = _layer(run, func, a, b, out, 0) if b.dim() == 2 else None
    run.set(out, Labels(short or _product(run, func, a, b), both))


@rule("addmm", "baddbmm", "_addmm_activation")
@explaining
def affine(run, func, args, kwargs, out) -> None:
    bias, a, b = args[:3]
    _settle_inputs(run, a, b, 0)
    short = _layer(run, func, a, b, out, 0) if b.dim() == 2 else None
    systems = short or _product(run, func, a, b, 1)
    if run.labels(bias).is_uniform:
        run.doubts.about_systems(systems)
    operands = [(Labels(systems), out.shape), (run.labels(bias), bias.shape)]
    run.set(out, Labels(run.ledger.meet(operands, out.shape, run.where(func))))


@rule("linear")
@explaining
def linear(run, func, args, kwargs, out) -> None:
    x, weight = args[:2]
    _settle_inputs(run, x, weight, 1)
    systems = short = _layer(run, func, x, weight, out, 1)
    if systems is None:
        la = lift(run.labels(x), lambda s: s.unsqueeze(-2))
        shape = (*x.shape[:-1], 1, x.shape[-1])
        where = run.where(func)
        systems = run.ledger.contract(la, shape, run.labels(weight), weight.shape, run.module, where, 1)
    bias = args[2] if len(args) > 2 else None
    if bias is not None:
        vector = run.labels(bias)
        if vector.is_uniform:
            run.doubts.about_systems(systems)
        if short is not None and len(vector.systems) == 1:
            run.ledger.tie(line(systems[-1]), line(vector.systems[0]), run.where(func))
        else:
            operands = [(Labels(systems), out.shape), (vector, bias.shape)]
            systems = run.ledger.meet(operands, out.shape, run.where(func))
    run.set(out, Labels(systems, bias is None and run.labels(x).is_weight and run.labels(weight).is_weight))


def _settle_inputs(run, x: Tensor, weight: Tensor, given: int) -> None:
    """Constants that a layer is given have the size that the layer asks for, on the axis ``given`` of its weight."""
    of_x, of_weight = run.labels(x), run.labels(weight)
    if of_x.is_uniform and of_weight.is_weight:
        axes = _axes_of(of_weight)
        if given in axes and x.shape[-1] > 1:
            constant_met(run, x, (along(x.dim() - 1, x.shape, line(axes[given])),), x.dim())
    elif of_x.is_uniform or of_weight.is_uniform:
        run.doubts.about_systems((*of_x.systems, *of_weight.systems))


@rule("mv", "dot", "vdot", "addmv")
def vector_product(run, func, args, kwargs, out) -> None:
    bias, a, b = args if func.overloadpacket.__name__ == "addmv" else (None, *args[:2])
    shape = torch.broadcast_shapes(a.shape, b.shape)
    la, lb = run.labels(a), run.labels(b)
    if not (la.is_weight or lb.is_weight):
        run.reads(func, 0 if bias is None else 1, la.systems, [a.dim() - 1])
    # Not counted: what normalises a weight is no layer, and PyTorch's own counter leaves these out, too.
    systems = run.ledger.contract(la, a.shape, lb, b.shape, run.module, run.where(func), 0)
    if bias is not None:
        operands = [(Labels(systems), shape[:-1]), (run.labels(bias), bias.shape)]
        systems = run.ledger.meet(operands, shape[:-1], run.where(func))
    run.set(out, Labels(systems))


@rule("_trilinear")
def bilinear(run, func, args, kwargs, out) -> None:
    """A sum of products of three tensors, each of which has axes of length one added where it lacks some."""
    where, operands = run.where(func), []
    for factor, added in zip(args[:3], args[3:6]):
        dims = factor.dim() + len(added)
        places = [axis for axis in range(dims) if axis not in added]
        shape = [factor.shape[places.index(axis)] if axis in places else 1 for axis in range(dims)]
        own = run.labels(factor)
        systems = tuple([laid(s, tuple([places[a] for a in varying(s)]), shape) for s in own.systems])
        operands.append((Labels(systems, own.is_weight), shape))
        for axis, system in _axes_of(own).items() if own.is_weight else ():
            run.ledger.role(line(system), "in" if places[axis] in args[6] else "out")
    if not any(labels.is_weight for labels, _ in operands):
        # A masked model has no weight that would be zero for what is gone.
        for labels, _ in operands:
            run.ledger.lock_systems(labels.systems, f"multiplied by two activations in {where}")
    # Not counted: PyTorch's own counter leaves these out.
    met = run.ledger.meet(operands, torch.broadcast_shapes(*(shape for _, shape in operands)), where)
    run.set(out, Labels(run.ledger.reduce(met, args[6], keepdim=False)))


@rule("_sparse_addmm")
def sparse_product(run, func, args, kwargs, out) -> None:
    """A sparse matrix without units of its own, times a dense one: the columns of that pass."""
    start, rows, dense = args[:3]
    where, kept = run.where(func), []
    run.ledger.lock_systems(run.labels(rows).systems, f"a sparse matrix in {where}")
    for system in run.labels(dense).systems:
        if 0 in varying(system):
            run.ledger.lock_systems([system], f"meets a sparse matrix in {where}")
        else:
            kept.append(laid(system, varying(system), out.shape))
    operands = [(run.labels(start), start.shape), (Labels(tuple(kept)), out.shape)]
    run.set(out, Labels(run.ledger.meet(operands, out.shape, where)))


def _axes_of(weight: Labels) -> dict[int, Tensor]:
    """The system of every axis of a weight; empty where one varies along several."""
    spans = [varying(system) for system in weight.systems]
    if any(len(own) != 1 for own in spans):
        return {}
    return {own[0]: system for own, system in zip(spans, weight.systems)}


def _lock_kernel(run, axes: dict[int, Tensor]) -> None:
    for axis, taps in axes.items():
        if axis > 1:
            run.ledger.lock(line(taps), KERNEL)


def _dense(run, x: Tensor, weight: Tensor, bias: Tensor | None, channel: int, where: str, out: Tensor) -> bool:
    """The frequent case: channels in, a parameter, channels out. The same as the general case, in fewer steps."""
    ledger, given = run.ledger, run.labels(x).systems
    axes = _axes_of(run.labels(weight))
    if len(given) > 1 or channel != 1 or 0 not in axes or 1 not in axes or (given and varying(given[0]) != (1,)):
        return False
    rows, columns = axes[0], axes[1]
    outputs, inputs = line(rows), line(columns)
    _lock_kernel(run, axes)
    if given:
        ledger.tie(line(given[0]), inputs, where)
    else:
        ledger.lock(inputs, f"meets a fixed axis in {where}")
    ledger.role(outputs, "out")
    ledger.role(inputs, "in")
    scale = math.prod(out.shape[2:]) * math.prod(weight.shape[2:])
    batch = (AxisRef(x.shape[0]),) if x.shape[0] != 1 else ()
    refs = (*batch, AxisRef(out.shape[1], ((rows, 0),)), AxisRef(x.shape[1], ((columns, 1),)))
    ledger.terms.append(Term(run.module, scale, refs))
    if bias is not None:
        for system in run.labels(bias).systems:
            ledger.tie(outputs, line(system), where)
    run.set(out, Labels((along(1, out.shape, outputs),)))
    return True


def _depthwise(run, x: Tensor, weight: Tensor, bias: Tensor | None, channel: int, where: str, out: Tensor) -> bool:
    """The other frequent case: every channel has a kernel of its own."""
    ledger, given = run.ledger, run.labels(x).systems
    if channel != 1 or weight.shape[0] != x.shape[1] or len(given) != 1 or varying(given[0]) != (1,):
        return False
    axes = _axes_of(run.labels(weight))
    vector = run.labels(bias).systems if bias is not None else ()
    if 0 not in axes or 1 in axes or (bias is not None and len(vector) != 1):
        return False
    channels = line(given[0])
    _lock_kernel(run, axes)
    ledger.role(line(axes[0]), "out")
    ledger.tie(channels, line(axes[0]), where)
    scale = math.prod(out.shape[2:]) * math.prod(weight.shape[2:])
    ref = AxisRef(x.shape[1], ((given[0], 1),))
    ledger.terms.append(Term(run.module, scale, (AxisRef(x.shape[0]), ref) if x.shape[0] != 1 else (ref,)))
    run.counts("groups", "groups", ref)
    for system in vector:
        ledger.tie(channels, line(system), where)
    run.set(out, run.labels(x) if x.shape == out.shape else Labels((along(1, out.shape, channels),)))
    return True


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "cudnn_convolution")
def convolution(run, func, args, kwargs, out) -> None:
    """Iteration space ``[batch, group, out per group, in per group]``; positions and kernel taps only multiply."""
    x, weight = args[0], args[1]
    transposed = bool(argument(func, args, kwargs, "transposed", False))
    groups = argument(func, args, kwargs, "groups", 1)
    bias = argument(func, args, kwargs, "bias")
    where, ledger = run.where(func), run.ledger
    channel = x.dim() - (weight.dim() - 2) - 1
    short = _dense if groups == 1 else _depthwise if groups == x.shape[channel] else None
    if short is not None and not transposed and short(run, x, weight, bias, channel, where, out):
        return
    lead = tuple(x.shape[:channel])
    inner, outer = x.shape[channel] // groups, out.shape[channel] // groups

    def of_input(system: Tensor) -> Tensor | None:
        own = tuple([a for a in varying(system) if a <= channel])
        if spatial := tuple([a for a in varying(system) if a > channel]):
            ledger.lock(line(ledger.project(system, spatial)), f"a spatial axis is convolved in {where}")
        if not own:
            return None
        flat = dropped(ledger.project(system, own), range(channel + 1, x.dim()), keepdim=False)
        parts = reshaped(flat, (*lead, groups, 1, inner))
        return settle(parts) if groups > 1 else parts

    def of_weight(system: Tensor) -> Tensor | None:
        if any(a > 1 for a in varying(system)):
            ledger.lock_systems([system], KERNEL)
            return None
        place = len(lead)
        if varying(system) == (0, 1):
            # A kernel that was computed: one line of numbers, laid out over both.
            if groups > 1:
                ledger.lock_systems([system], f"a kernel laid out over groups in {where}")
                return None
            axes = (place + 2, place + 1) if transposed else (place + 1, place + 2)
            return laid(system, axes, (*(1,) * place, groups, outer, inner))
        if 0 in varying(system):
            # Its first axis holds, group by group, what comes out; of a transposed convolution what goes in.
            flat, axes = compressed(system, (0,)).view(groups, -1), (place, place + (2 if transposed else 1))
        else:
            flat, axes = compressed(system, (1,)), (place + (1 if transposed else 2),)
        return laid(flat, tuple([axes[a] for a in varying(flat)]), (*(1,) * place, groups, outer, inner))

    def lifted(labels: Labels, change: Callable[[Tensor], Tensor | None]) -> Labels:
        found = [change(s) for s in labels.systems]
        return Labels(tuple(s for s in found if s is not None), labels.is_weight)

    lx, lw = lifted(run.labels(x), of_input), lifted(run.labels(weight), of_weight)
    positions = x.shape[channel + 1 :] if transposed else out.shape[channel + 1 :]
    scale = math.prod(positions) * math.prod(weight.shape[2:])
    x_shape, w_shape = (*lead, groups, 1, inner), (groups, outer, inner)
    if groups > 1:
        for system in (*lx.systems, *lw.systems):
            if len(varying(system)) > 1:
                ledger.grid(system)
    systems = ledger.contract(lx, x_shape, lw, w_shape, run.module, where, scale)
    if groups > 1:
        run.counts("groups", "groups", ledger.axis(systems, len(lead), groups))
    spatial = out.shape[channel + 1 :]
    result = []
    for system in systems:
        flat = reshaped(system, (*lead, out.shape[channel]))
        flat = settle(flat) if groups > 1 else flat
        result.append(laid(flat, varying(flat), out.shape))
    if bias is not None:
        vector = on_channels(run.labels(bias), out.shape, channel)
        shape = (out.shape[channel], *(1,) * len(spatial))
        result = list(ledger.meet([(Labels(tuple(result)), out.shape), (vector, shape)], out.shape, where))
    run.set(out, Labels(tuple(result)))
