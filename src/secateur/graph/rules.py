"""What every ATen operation does to labels.

Three kinds cover nearly everything. An operation that *moves* data is replayed on the label tensor. One that
*combines* is a ``meet``, a ``reduce`` or both. One that nobody knows *locks* what reaches it, so that a missing rule
can cost some freedom but never a wrong cut.

A rule is a function ``rule(run, func, args, kwargs, out)``; it reads labels with ``run.labels(tensor)`` and writes
those of the results with ``run.set(tensor, labels)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from secateur.graph.labels import FIXED, UNIFORM, Labels, compressed, narrowed, settle, varying
from secateur.graph.ledger import KERNEL, Literal

Rule = Callable[..., None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operations by their names without overload (``"add"`` also serves ``add_``)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def lookup(func: Any) -> Rule:
    """The rule of an operation; operations tagged as pointwise by PyTorch need none of their own."""
    name = func.overloadpacket.__name__
    found = RULES.get(name) or RULES.get(name.rstrip("_"))
    if found is not None:
        return found
    return pointwise if torch.Tag.pointwise in func.tags else unknown


def tensors(tree: Any) -> Iterable[Tensor]:
    """Every tensor in nested arguments, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors(item)


def axes_of(dims: Any, ndim: int) -> list[int]:
    """Axes as non-negative numbers; ``None`` and ``[]`` stand for all of them."""
    if dims is None or dims == []:
        return list(range(ndim))
    dims = [dims] if isinstance(dims, int) else dims
    return [d % ndim for d in dims] if ndim else []


def argument(func: Any, args: tuple, kwargs: dict, name: str, default: Any = None) -> Any:
    """An argument by its name in the operation's schema, however it was passed."""
    for position, slot in enumerate(func._schema.arguments):
        if slot.name == name:
            if position < len(args):
                return args[position]
            return kwargs.get(name, default)
    return default


# -- unknown -------------------------------------------------------------------------------------------------------


def unknown(run, func, args, kwargs, out) -> None:
    """No rule: whatever reaches the operation is locked, with its name and source line."""
    reached = [s for t in tensors((args, kwargs)) for s in run.labels(t).systems]
    if reached:
        run.ledger.lock_systems(reached, f"reaches {run.where(func)}, an operation without a rule{run.source()}")


# -- moves ---------------------------------------------------------------------------------------------------------


@rule("detach", "alias", "clone", "contiguous", "_to_copy", "lift_fresh", "to", "positive", "tril", "triu")
def same(run, func, args, kwargs, out) -> None:
    run.set(out, run.labels(args[0]))


def _moved(run, labels: Labels, replay: Callable[[Tensor], Any], out: Any) -> None:
    """Give the results the systems of the one moved tensor."""
    outs = [out] if isinstance(out, Tensor) else list(out)
    parts: list[list[Tensor]] = [[] for _ in outs]
    for system in labels.systems:
        replayed = replay(system)
        before = len(varying(system))
        for into, target, new in zip(parts, outs, [replayed] if isinstance(replayed, Tensor) else replayed):
            if not new._is_view() or len(varying(new)) > before:
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


@rule("permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "diagonal", "swapaxes", "movedim", "unfold", "mT")
@rule("repeat", "flip", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "adjoint")
def move(run, func, args, kwargs, out) -> None:
    _moved(run, run.labels(args[0]), lambda s: func(s, *args[1:], **kwargs), out)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten")
def view(run, func, args, kwargs, out) -> None:
    _moved(run, run.labels(args[0]), lambda s: s.reshape(out.shape), out)


@rule("select", "unbind")
def select(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    axis = argument(func, args, kwargs, "dim", 0) % max(args[0].dim(), 1)
    for system in labels.systems:
        if axis in varying(system):
            run.ledger.lock(
                compressed(run.ledger.project(system, (axis,)), (axis,)), f"indexed by number in {run.where(func)}"
            )
    _moved(run, labels, lambda s: func(s, *args[1:], **kwargs), out)


@rule("slice")
def slice_(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    axis = argument(func, args, kwargs, "dim", 0) % args[0].dim()
    step = argument(func, args, kwargs, "step", 1)
    for system in labels.systems:
        if step != 1 and axis in varying(system):
            run.ledger.lock_systems([system], f"strided slice in {run.where(func)}")
    _moved(run, labels, lambda s: func(s, *args[1:], **kwargs), out)


@rule("split", "split_with_sizes", "chunk", "tensor_split")
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
    parts = [p for p in args[0] if p.dim() == out.dim()]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % max(out.dim(), 1)
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
        operands.append((Labels(tuple(s.narrow(axis, 0, 1) for s in across), is_uniform=own.is_uniform), flat))
    systems = [s.expand(out.shape) for s in ledger.meet(operands, shape, where)]
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
        run.ledger.lock_systems(source.systems, f"written into a part of another tensor in {run.where(func)}")
        return
    if not target.systems:
        run.set(out, Labels(tuple(s.expand(out.shape) for s in source.systems), source.is_weight))
        return
    pointwise(run, func, args[:2], {}, out)


@rule("as_strided")
def as_strided(run, func, args, kwargs, out) -> None:
    """Pooling to one position rewrites strides in place; any other use could mean anything."""
    if out is args[0]:
        return
    unknown(run, func, args, kwargs, out)


# -- look-ups


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


# -- factories -----------------------------------------------------------------------------------------------------


@rule("zeros", "ones", "full", "empty", "scalar_tensor", "new_zeros", "new_ones", "new_full", "new_empty")
@rule("zeros_like", "ones_like", "full_like", "empty_like", "empty_strided", "new_empty_strided", "zero", "fill")
def factory(run, func, args, kwargs, out) -> None:
    if not run.labels(out).systems:
        run.set(out, UNIFORM)


@rule(
    "arange", "linspace", "eye", "tril_indices", "triu_indices", "sym_size", "is_same_size", "size", "stride", "numel"
)
def constant(run, func, args, kwargs, out) -> None:
    """A constant that is not the same everywhere: nothing is known of it, and nothing reached it."""


# -- combinations --------------------------------------------------------------------------------------------------


@rule("native_dropout", "dropout", "masked_fill", "where", "threshold", "relu6", "_prelu_kernel", "rrelu_with_noise")
@rule("hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "silu", "mish", "gelu", "elu", "softplus", "celu", "selu")
@rule("hardshrink", "softshrink", "log_sigmoid_forward", "relu", "clamp", "clamp_min", "clamp_max", "logit", "pow")
@rule("lerp", "addcmul", "addcdiv", "sub", "rsub", "bernoulli")
def pointwise(run, func, args, kwargs, out) -> None:
    """Elements that meet are tied."""
    inputs = list(tensors((args, kwargs)))
    labels = [run.labels(t) for t in inputs]
    outs = list(tensors(out))
    weight, uniform = all(own.is_weight for own in labels), all(own.is_uniform for own in labels)
    systems: tuple[Tensor, ...] = ()
    if any(own.systems for own in labels):
        systems = run.ledger.meet([(own, t.shape) for own, t in zip(labels, inputs)], outs[0].shape, run.where(func))
        if inputs and outs[0] is inputs[0] and not labels[0].systems and inputs[0]._is_view():
            run.ledger.lock_systems(systems, f"written into a part of another tensor in {run.where(func)}")
            return
    result = Labels(systems, weight, uniform)
    for t in outs:
        run.set(t, result)


@rule("sum", "mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "logsumexp", "prod", "any", "all", "norm")
@rule("linalg_vector_norm", "nansum")
def reduction(run, func, args, kwargs, out) -> None:
    x = args[0]
    labels = run.labels(x)
    dims = axes_of(argument(func, args, kwargs, "dim"), x.dim())
    keepdim = bool(argument(func, args, kwargs, "keepdim", False))
    run.reads(func, 0, labels.systems, dims)
    systems = run.ledger.reduce(labels.systems, dims, keepdim)
    for t in tensors(out):
        run.set(t, Labels(systems, labels.is_weight))


@rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax")
def softmax(run, func, args, kwargs, out) -> None:
    labels = run.labels(args[0])
    run.reads(func, 0, labels.systems, axes_of(args[1], args[0].dim()))
    run.set(out, labels)


@rule("cumsum", "argmax", "argmin", "sort", "topk", "max", "min", "cumprod", "logcumsumexp")
def ordered(run, func, args, kwargs, out) -> None:
    """Order along an axis matters here, so that axis is locked; the others pass."""
    labels = run.labels(args[0])
    if len(args) > 1 and isinstance(args[1], Tensor):
        return pointwise(run, func, args, kwargs, out)
    dim = argument(func, args, kwargs, "dim")
    dims = axes_of(dim, args[0].dim())
    for system in labels.systems:
        if set(dims) & set(varying(system)):
            run.ledger.lock_systems([system], f"ordered along this axis in {run.where(func)}")
    left = [s for s in labels.systems if not set(dims) & set(varying(s))]
    for t in tensors(out):
        if t.dim() == args[0].dim():
            run.set(t, Labels(tuple(s.narrow(dims[0], 0, 1).expand(t.shape) for s in left)))
        elif t.dim() == args[0].dim() - 1:
            run.set(t, Labels(tuple(s.select(dims[0], 0) for s in left)))
    return None


# -- contractions --------------------------------------------------------------------------------------------------


def _lift(labels: Labels, change: Callable[[Tensor], Tensor]) -> Labels:
    return Labels(tuple(change(s) for s in labels.systems), labels.is_weight, labels.is_uniform)


def _product(run, func, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """``a @ b`` for ``a`` (..., n, k) and ``b`` (..., k, m) of equal leading shape; both at least two-dimensional."""
    la = _lift(run.labels(a), lambda s: s.unsqueeze(-2))
    lb = _lift(run.labels(b), lambda s: s.transpose(-1, -2).unsqueeze(-3))
    a_shape = (*a.shape[:-1], 1, a.shape[-1])
    b_shape = (*b.shape[:-2], 1, b.shape[-1], b.shape[-2])
    if not (la.is_weight or lb.is_weight):
        run.reads(func, 0, run.labels(a).systems, [a.dim() - 1])
    return run.ledger.contract(la, a_shape, lb, b_shape, run.module, run.where(func), 1)


@rule("mm", "bmm", "matmul")
def product(run, func, args, kwargs, out) -> None:
    a, b = args[0], args[1]
    both = run.labels(a).is_weight and run.labels(b).is_weight
    run.set(out, Labels(_product(run, func, a, b), both))


@rule("addmm", "baddbmm", "_addmm_activation")
def affine(run, func, args, kwargs, out) -> None:
    bias, a, b = args[:3]
    systems = _product(run, func, a, b)
    product_labels = Labels(systems)
    operands = [(product_labels, out.shape), (run.labels(bias), bias.shape)]
    run.set(out, Labels(run.ledger.meet(operands, out.shape, run.where(func))))


@rule("linear")
def linear(run, func, args, kwargs, out) -> None:
    x, weight = args[:2]
    la = _lift(run.labels(x), lambda s: s.unsqueeze(-2))
    lb = run.labels(weight)
    shape = (*x.shape[:-1], 1, x.shape[-1])
    systems = run.ledger.contract(la, shape, lb, weight.shape, run.module, run.where(func), 1)
    bias = args[2] if len(args) > 2 else None
    if bias is not None:
        operands = [(Labels(systems), out.shape), (run.labels(bias), bias.shape)]
        systems = run.ledger.meet(operands, out.shape, run.where(func))
    run.set(out, Labels(systems))


@rule("mv", "dot", "vdot", "addmv")
def vector_product(run, func, args, kwargs, out) -> None:
    bias, a, b = args if func.overloadpacket.__name__ == "addmv" else (None, *args[:2])
    shape = torch.broadcast_shapes(a.shape, b.shape)
    la, lb = run.labels(a), run.labels(b)
    systems = run.ledger.contract(la, a.shape, lb, b.shape, run.module, run.where(func), 1)
    if bias is not None:
        operands = [(Labels(systems), shape[:-1]), (run.labels(bias), bias.shape)]
        systems = run.ledger.meet(operands, shape[:-1], run.where(func))
    run.set(out, Labels(systems))


@rule("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "cudnn_convolution")
def convolution(run, func, args, kwargs, out) -> None:
    """Iteration space ``[batch, group, out per group, in per group]``; positions and kernel taps only multiply."""
    x, weight = args[0], args[1]
    transposed = bool(argument(func, args, kwargs, "transposed", False))
    groups = argument(func, args, kwargs, "groups", 1)
    bias = argument(func, args, kwargs, "bias")
    where, ledger = run.where(func), run.ledger
    channel = x.dim() - (weight.dim() - 2) - 1
    lead = tuple(x.shape[:channel])
    inner, outer = x.shape[channel] // groups, out.shape[channel] // groups

    def of_input(system: Tensor) -> Tensor | None:
        own = tuple(a for a in varying(system) if a <= channel)
        if not own:
            ledger.lock_systems([system], f"a spatial axis is convolved in {where}")
            return None
        system = ledger.project(system, own)
        while system.dim() > channel + 1:
            system = system.select(-1, 0)
        return settle(system.reshape(*lead, groups, 1, inner)) if groups > 1 else system.view(*lead, 1, 1, inner)

    def of_weight(system: Tensor) -> Tensor | None:
        if any(a > 1 for a in varying(system)):
            ledger.lock_systems([system], KERNEL)
            return None
        while system.dim() > 2:
            system = system.select(-1, 0)
        shape = (groups, inner, outer) if transposed else (groups, outer, inner)
        split_axis = 0
        if system.stride(split_axis) == 0:
            flat = system.select(0, 0).expand(*shape) if not transposed else system.select(0, 0).view(1, 1, outer)
            system = flat.expand(*shape)
        else:
            per_group = system.select(1, 0).view(groups, -1)
            system = per_group.unsqueeze(2).expand(*shape)
        return (system.transpose(1, 2) if transposed else system).view(*(1,) * len(lead), groups, outer, inner)

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
        ledger.literals.append(Literal(run.module, "groups", ledger.axis(systems, len(lead), groups)))
    spatial = out.shape[channel + 1 :]
    result = []
    for system in systems:
        flat = system.reshape(*lead, out.shape[channel])
        flat = settle(flat) if groups > 1 else flat
        result.append(flat.view(*flat.shape, *(1,) * len(spatial)).expand(out.shape))
    if bias is not None:
        vector = _on_channels(run.labels(bias), out.shape, channel)
        shape = (out.shape[channel], *(1,) * len(spatial))
        result = list(ledger.meet([(Labels(tuple(result)), out.shape), (vector, shape)], out.shape, where))
    run.set(out, Labels(tuple(result)))


def _on_channels(labels: Labels, shape: torch.Size, channel: int) -> Labels:
    """Labels of a vector of one entry per channel, shaped to broadcast over the axes behind the channels."""
    tail = (1,) * (len(shape) - channel - 1)
    return _lift(labels, lambda s: s.view(-1, *tail) if s.stride(0) else s.reshape(-1, *tail))


# -- norms ---------------------------------------------------------------------------------------------------------


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@rule("_batch_norm_no_update", "_batch_norm_with_update", "batch_norm", "miopen_batch_norm", "_batch_norm_impl_index")
def batch_norm(run, func, args, kwargs, out) -> None:
    x = args[0]
    y = out if isinstance(out, Tensor) else out[0]
    channel = 1 if x.dim() > 1 else 0
    tail = (1,) * (x.dim() - channel - 1)
    operands: list[tuple[Labels, tuple[int, ...]]] = [(run.labels(x), tuple(x.shape))]
    for vector in tensors(args[1:5]):
        operands.append((_on_channels(run.labels(vector), x.shape, channel), (x.shape[channel], *tail)))
    run.set(y, Labels(run.ledger.meet(operands, x.shape, run.where(func))))


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(run, func, args, kwargs, out) -> None:
    x, shape = args[0], args[1]
    y = out if isinstance(out, Tensor) else out[0]
    dims = list(range(x.dim() - len(shape), x.dim()))
    labels = run.labels(x)
    run.reads(func, 0, labels.systems, dims)
    for position, axis in enumerate(dims):
        ref = run.ledger.axis(labels.systems, axis, x.shape[axis])
        if ref.systems:
            run.ledger.literals.append(Literal(run.module, "normalized_shape", ref, index=position))
    operands = [(labels, x.shape), *((run.labels(t), t.shape) for t in tensors(args[2:]))]
    run.set(y, Labels(run.ledger.meet(operands, x.shape, run.where(func))))
    if not isinstance(out, Tensor):
        for statistic in out[1:]:
            run.set(statistic, Labels(run.ledger.reduce(labels.systems, dims, keepdim=True)))


@rule("native_group_norm", "group_norm")
def group_norm(run, func, args, kwargs, out) -> None:
    x, weight, bias = args[:3]
    groups = args[6] if len(args) > 6 else kwargs.get("group", args[1] if isinstance(args[1], int) else 1)
    y = out if isinstance(out, Tensor) else out[0]
    labels, tail = run.labels(x), (1,) * (x.dim() - 2)
    operands = [(labels, tuple(x.shape))]
    for vector in tensors((weight, bias)):
        operands.append((_on_channels(run.labels(vector), x.shape, 1), (x.shape[1], *tail)))
    systems = run.ledger.meet(operands, x.shape, run.where(func))
    run.reads(func, 0, systems, range(1, x.dim()))
    for system in systems:
        if 1 in varying(system) and groups > 1:
            parts = settle(compressed(system, (1,)).reshape(groups, -1))
            if len(varying(parts)) > 1:
                run.ledger.grid(parts)
            run.ledger.literals.append(Literal(run.module, "num_groups", run.ledger.axis([parts], 0, groups)))
    run.set(y, Labels(systems))


# -- operations over positions -------------------------------------------------------------------------------------

_SPATIAL = {
    1: "avg_pool1d max_pool1d_with_indices adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d "
    "upsample_linear1d reflection_pad1d replication_pad1d _upsample_nearest_exact1d max_pool1d",
    2: "avg_pool2d max_pool2d_with_indices _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d "
    "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa reflection_pad2d replication_pad2d grid_sampler_2d fractional_max_pool2d",
    3: "avg_pool3d max_pool3d_with_indices _adaptive_avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d max_pool3d "
    "upsample_nearest3d upsample_trilinear3d reflection_pad3d replication_pad3d _upsample_nearest_exact3d",
}


def _spatial(num_axes: int) -> Rule:
    def over_positions(run, func, args, kwargs, out) -> None:
        """Positions change, channels stay."""
        x, labels = args[0], run.labels(args[0])
        lead = x.dim() - num_axes
        kept = []
        for system in labels.systems:
            if all(a < lead for a in varying(system)):
                kept.append(system)
            else:
                run.ledger.lock_systems([system], f"a spatial axis is resampled in {run.where(func)}")
        for t in tensors(out):
            if t.dim() == x.dim():
                narrow = [narrowed(s, ()) for s in kept]
                run.set(t, Labels(tuple(s.expand(t.shape) for s in narrow)))

    return over_positions


for _axes, _names in _SPATIAL.items():
    rule(*_names.split())(_spatial(_axes))

__all__ = ["FIXED", "RULES", "Rule", "axes_of", "lookup", "rule", "tensors"]
