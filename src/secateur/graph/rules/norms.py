"""Normalisations."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.labels import Labels, compressed, line, on_channels, settle, varying
from secateur.graph.ledger import Literal
from secateur.graph.rules.registry import argument, rule
from secateur.graph.trees import tensors


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
@rule("_batch_norm_no_update", "_batch_norm_with_update", "batch_norm", "miopen_batch_norm", "_batch_norm_impl_index")
def batch_norm(run, func, args, kwargs, out) -> None:
    x = args[0]
    y = out if isinstance(out, Tensor) else out[0]
    channel = 1 if x.dim() > 1 else 0
    training = bool(argument(func, args, {}, "training", False))
    if training:
        # Statistics of what is given: of the batch, or of a weight that is standardised.
        run.reads(func, 0, run.labels(x).systems, [axis for axis in range(x.dim()) if axis != channel])
    given = run.labels(x).systems
    if len(given) == 1 and varying(given[0]) == (channel,):
        # The frequent case, in fewer steps: every vector is tied to the channels.
        own, where, tie = line(given[0]), run.where(func), run.ledger.tie
        for vector in args[1:5]:
            if vector is not None:
                for system in run.labels(vector).systems:
                    tie(own, line(system), where)
        run.set(y, run.labels(x))
        return
    tail = (1,) * (x.dim() - channel - 1)
    operands: list[tuple[Labels, tuple[int, ...]]] = [(run.labels(x), tuple(x.shape))]
    for vector in tensors(args[1:5]):
        operands.append((on_channels(run.labels(vector), x.shape, channel), (x.shape[channel], *tail)))
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
    operands = [(labels, x.shape), *((run.labels(t), t.shape) for t in args[2:] if isinstance(t, Tensor))]
    run.set(y, Labels(run.ledger.meet(operands, x.shape, run.where(func))))
    if not isinstance(out, Tensor):
        left = Labels(run.ledger.reduce(labels.systems, dims, keepdim=True))
        for statistic in out[1:]:
            run.set(statistic, left)


@rule("native_group_norm", "group_norm")
def group_norm(run, func, args, kwargs, out) -> None:
    x, weight, bias = args[:3]
    groups = args[6] if len(args) > 6 else kwargs.get("group", args[1] if isinstance(args[1], int) else 1)
    y = out if isinstance(out, Tensor) else out[0]
    labels, tail = run.labels(x), (1,) * (x.dim() - 2)
    operands = [(labels, tuple(x.shape))]
    for vector in tensors((weight, bias)):
        operands.append((on_channels(run.labels(vector), x.shape, 1), (x.shape[1], *tail)))
    systems = run.ledger.meet(operands, x.shape, run.where(func))
    run.reads(func, 0, systems, range(1, x.dim()))
    for system in systems:
        if 1 in varying(system) and groups > 1:
            parts = settle(compressed(system, (1,)).reshape(groups, -1))
            if len(varying(parts)) > 1:
                run.ledger.grid(parts)
            run.counts("group", "num_groups", run.ledger.axis([parts], 0, groups))
    run.set(y, Labels(systems))
