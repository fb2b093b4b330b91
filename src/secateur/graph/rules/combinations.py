"""Operations that bring elements together: pointwise ones, reductions, and the constants they may meet."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.labels import FIXED, UNIFORM, Labels, narrowed, settle, varying
from secateur.graph.rules.registry import POINTWISE, argument, axes_of, explaining, rule
from secateur.graph.trees import tensors


@rule("zeros", "ones", "full", "empty", "scalar_tensor", "new_zeros", "new_ones", "new_full", "new_empty")
@rule("empty_strided", "new_empty_strided", "zero", "fill")
def factory(run, func, args, kwargs, out) -> None:
    if not run.labels(out).systems:
        run.set(out, UNIFORM)


@rule("zeros_like", "ones_like", "full_like", "empty_like")
def factory_like(run, func, args, kwargs, out) -> None:
    """The same in the shape of another tensor: where that is fixed, so is this."""
    own = run.labels(args[0])
    run.set(out, UNIFORM if own.systems or own.is_uniform or own.is_weight else FIXED)


@rule("arange", "linspace", "tril_indices", "triu_indices", "sym_size", "is_same_size", "size", "stride", "numel")
def constant(run, func, args, kwargs, out) -> None:
    """A constant that is not the same everywhere: nothing is known of it, and nothing reached it."""


@rule(POINTWISE)
@rule("native_dropout", "dropout", "masked_fill", "where", "threshold", "relu6", "_prelu_kernel", "rrelu_with_noise")
@rule("hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "silu", "mish", "gelu", "elu", "softplus", "celu", "selu")
@rule("hardshrink", "softshrink", "log_sigmoid_forward", "relu", "clamp", "clamp_min", "clamp_max", "logit", "pow")
@rule("lerp", "addcmul", "addcdiv", "sub", "rsub", "bernoulli", "polar", "complex")
@explaining
def pointwise(run, func, args, kwargs, out) -> None:
    """Elements that meet are tied."""
    inputs = tensors((args, kwargs))
    labels = [run.labels(t) for t in inputs]
    outs = [out] if type(out) is Tensor else tensors(out)
    if len(inputs) == 1 and inputs[0].shape == outs[0].shape:
        for t in outs:
            run.set(t, labels[0])
        return
    weight, uniform = all(own.is_weight for own in labels), all(own.is_uniform for own in labels)
    systems: tuple[Tensor, ...] = ()
    if any(own.systems for own in labels):
        operands = [(own, own_shape(t)) for own, t in zip(labels, inputs)]
        systems = run.ledger.meet(operands, outs[0].shape, run.where(func))
        if inputs and outs[0] is inputs[0] and not labels[0].systems and inputs[0]._is_view():
            run.ledger.lock_systems(systems, f"written into a part of another tensor in {run.where(func)}")
            return
        for t in inputs:
            constant_met(run, t, systems, outs[0].dim())
    result = Labels(systems, weight, uniform)
    for t in outs:
        run.set(t, result)


def constant_met(run, t: Tensor, systems: tuple[Tensor, ...], dims: int) -> None:
    """What a tensor met, aligned at the right with ``dims`` axes, may say how long it is where it is constant."""
    uniform = run.labels(t).is_uniform and t.numel() > 1
    if uniform or own_shape(t) != t.shape:
        _doubt_size(run, t, systems, dims)
    if uniform:
        _settle_uniform(run, t, systems, dims)


def _doubt_size(run, t: Tensor, systems: tuple[Tensor, ...], dims: int) -> None:
    """What is constant along an axis fits any size there, but has the one that the code gave it."""
    lead, own = dims - t.dim(), {a for s in run.labels(t).systems for a in varying(s)}
    for axis, size in enumerate(t.shape):
        met = [s for s in systems if lead + axis in varying(s)] if size > 1 and axis not in own else []
        if met and not run.sources.explain(t, axis, run.ledger.axis(met, lead + axis, size)):
            run.doubts.about_systems(met)


def _settle_uniform(run, t: Tensor, systems: tuple[Tensor, ...], dims: int) -> None:
    """A constant fits any size until it is used; from then on it has the size of what it met there."""
    lead = dims - t.dim()
    wide = {lead + axis for axis, size in enumerate(own_shape(t)) if size > 1}
    found = []
    for system in systems:
        common = tuple(a for a in varying(system) if a in wide)
        if common:
            own = run.ledger.project(system, common)
            for _ in range(lead):
                own = own.select(0, 0)
            found.append(narrowed(own, ()).expand(t.shape))
    if found:
        run.set(t, Labels(tuple(found)))


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


def own_shape(t: Tensor) -> tuple[int, ...]:
    """The shape without what ``expand`` added: along an expanded axis a tensor is constant and fits any size."""
    shape, strides = t.shape, t.stride()
    return tuple([1 if stride == 0 else size for size, stride in zip(shape, strides)]) if 0 in strides else shape


@rule("glu")
def gated(run, func, args, kwargs, out) -> None:
    """The first half of an axis times the sigmoid of the second."""
    x, labels = args[0], run.labels(args[0])
    axis = argument(func, args, kwargs, "dim", -1) % x.dim()
    halves = (*x.shape[:axis], 2, x.shape[axis] // 2, *x.shape[axis + 1 :])
    parts = []
    for system in labels.systems:
        if axis in varying(system):
            run.ledger.grid(settle(system.reshape(halves)))
        parts.append([settle(p) for p in system.chunk(2, axis)])
    operands = [(Labels(tuple(p[k] for p in parts)), out.shape) for k in (0, 1)]
    run.set(out, Labels(run.ledger.meet(operands, out.shape, run.where(func))))
