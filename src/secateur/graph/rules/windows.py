"""im2col and col2im: patches of an image as columns, and back."""

from __future__ import annotations

import math

from secateur.graph.labels import Labels, compressed, narrowed, settle, varying
from secateur.graph.ledger import KERNEL
from secateur.graph.rules.registry import argument, rule


@rule("im2col")
def patches(run, func, args, kwargs, out) -> None:
    """A channel becomes as many neighbouring rows as a patch has places."""
    x, taps = args[0], math.prod(argument(func, args, kwargs, "kernel_size"))
    channel, kept = x.dim() - 3, []
    for system in run.labels(x).systems:
        if varying(system) == (channel,):
            line = compressed(system, (channel,)).repeat_interleave(taps)
            kept.append(line.view(-1, 1).expand(out.shape))
        else:
            run.ledger.lock_systems([system], f"a spatial axis is cut into patches in {run.where(func)}")
    run.set(out, Labels(tuple(kept)))


@rule("col2im")
def image(run, func, args, kwargs, out) -> None:
    """The rows of a channel are added up where patches overlap."""
    x, taps = args[0], math.prod(argument(func, args, kwargs, "kernel_size"))
    rows, kept = x.dim() - 2, []
    for system in run.labels(x).systems:
        if varying(system) != (rows,):
            run.ledger.lock_systems([system], f"positions of patches are put together in {run.where(func)}")
            continue
        layout = settle(compressed(system, (rows,)).view(-1, taps))
        own = varying(layout)
        if 1 in own:
            # A patch keeps all of its places.
            run.ledger.lock(compressed(run.ledger.project(layout, (1,)), (1,)), KERNEL)
        if 0 in own:
            line = narrowed(run.ledger.project(layout, (0,)), ())
            kept.append(line.unsqueeze(-1).expand(out.shape))
    run.set(out, Labels(tuple(kept)))
