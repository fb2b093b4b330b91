"""Operations over positions: pooling, resampling, padding."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.labels import Labels, laid, narrowed, varying
from secateur.graph.rules.registry import Rule, rule
from secateur.graph.trees import tensors

_SPATIAL = {
    1: "avg_pool1d max_pool1d_with_indices adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d "
    "upsample_linear1d reflection_pad1d replication_pad1d _upsample_nearest_exact1d max_pool1d",
    2: "avg_pool2d max_pool2d_with_indices _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d "
    "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa reflection_pad2d replication_pad2d fractional_max_pool2d",
    3: "avg_pool3d max_pool3d_with_indices _adaptive_avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d max_pool3d "
    "fractional_max_pool3d upsample_nearest3d upsample_trilinear3d reflection_pad3d replication_pad3d "
    "_upsample_nearest_exact3d",
}


def _spatial(num_axes: int) -> Rule:
    def over_positions(run, func, args, kwargs, out) -> None:
        """Positions change, channels stay."""
        x = args[0]
        kept = _without_positions(run, func, x, num_axes)
        for t in tensors(out):
            if t.dim() == x.dim():
                run.set(t, Labels(tuple([laid(s, varying(s), t.shape) for s in kept])))

    return over_positions


def _without_positions(run, func, x: Tensor, num_axes: int) -> list[Tensor]:
    """The systems of a tensor that say the same at every position; what lies on the last axes is locked."""
    kept = []
    for system in run.labels(x).systems:
        if all(a < x.dim() - num_axes for a in varying(system)):
            kept.append(system)
        else:
            run.ledger.lock_systems([system], f"a spatial axis is resampled in {run.where(func)}")
    return kept


for _axes, _names in _SPATIAL.items():
    rule(*_names.split())(_spatial(_axes))


@rule("grid_sampler_2d", "grid_sampler_3d")
def sampled(run, func, args, kwargs, out) -> None:
    """Every channel is read at the same places, which the second argument gives."""
    run.ledger.lock_systems(run.labels(args[1]).systems, f"places to sample at in {run.where(func)}")
    _spatial(args[0].dim() - 2)(run, func, args, kwargs, out)


@rule("max_unpool2d", "max_unpool3d")
def unpooled(run, func, args, kwargs, out) -> None:
    """What was pooled goes back to the places where it was found; every channel has places of its own."""
    x, places = args[:2]
    num_axes = int(func.overloadpacket.__name__[-2])
    operands = [(Labels(tuple(_without_positions(run, func, t, num_axes))), t.shape) for t in (x, places)]
    systems = run.ledger.meet(operands, x.shape, run.where(func))
    run.set(out, Labels(tuple([laid(s, varying(s), out.shape) for s in systems])))


@rule("torchvision::roi_align", "torchvision::roi_pool")
def regions(run, func, args, kwargs, out) -> None:
    """Every region becomes an image of its own, with the channels of the map that it lies on."""
    x, places, shape = args[0], args[1], tensors(out)[0].shape
    run.ledger.lock_systems(run.labels(places).systems, f"places of regions in {run.where(func)}")
    kept = []
    for system in run.labels(x).systems:
        if varying(system) == (1,):
            kept.append(narrowed(system, ()).narrow(0, 0, 1).expand(shape))
        else:
            run.ledger.lock_systems([system], f"positions are sampled in {run.where(func)}")
    for t in tensors(out):
        run.set(t, Labels(tuple(kept)))
