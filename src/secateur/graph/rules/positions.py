"""Operations over positions: pooling, resampling, padding."""

from __future__ import annotations

from secateur.graph.labels import Labels, laid, narrowed, varying
from secateur.graph.rules.registry import Rule, rule
from secateur.graph.trees import tensors

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
                run.set(t, Labels(tuple([laid(s, varying(s), t.shape) for s in kept])))

    return over_positions


for _axes, _names in _SPATIAL.items():
    rule(*_names.split())(_spatial(_axes))


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
