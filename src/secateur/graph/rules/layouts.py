"""Axes that a reshape makes one, each with labels of its own: heads and the width of a head, where they come apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from secateur.graph.labels import Labels, compressed, varying


def joined(run, labels: Labels, before: Sequence[int], after: Sequence[int]) -> Labels:
    """The labels with systems that a reshape lays on one axis made one system.

    An element disappears with either of its labels. What is kept has to stay rectangular, so both become axes of one
    grid, of which one is chosen later on.
    """
    blocks = _merged(tuple(before), tuple(after))
    if not blocks:
        return labels
    systems = list(labels.systems)
    for block in blocks:
        here = [s for s in systems if block & set(varying(s))]
        spread = [s for s in here if is_spread(run, s)]
        if spread and len(spread) < len(here):
            # How often a thing was repeated says less than what lies beside it.
            systems = [s for s in systems if not any(s is t for t in spread)]
            here = [s for s in here if not any(s is t for t in spread)]
        spans = [varying(s) for s in here]
        if len(here) > 1 and sum(map(len, spans)) == len({a for span in spans for a in span}):
            systems = [s for s in systems if not any(s is t for t in here)]
            systems.append(_grid_of(run, here))
    return Labels(tuple(systems), labels.is_weight, labels.is_uniform)


def is_spread(run, system: Tensor) -> bool:
    """Whether a system counts copies that ``expand`` made."""
    first = compressed(system, varying(system)).reshape(-1)[:1]
    return bool(run.ledger.spread) and bool(first.numel()) and int(first) in run.ledger.spread


@lru_cache(4096)
def _merged(before: tuple[int, ...], after: tuple[int, ...]) -> list[set[int]]:
    """Sets of axes, longer than one, that a reshape lays on fewer or other axes."""
    found, block, inner, outer, rest = [], set(), 1, 1, list(after)
    for axis, size in enumerate(before):
        if size == 1:
            continue
        block.add(axis)
        inner *= size
        while rest and outer < inner:
            outer *= rest.pop(0)
        if inner == outer:
            if len(block) > 1:
                found.append(block)
            block, inner, outer = set(), 1, 1
    return found


def _grid_of(run, systems: list[Tensor]) -> Tensor:
    """One system over the axes of several, of which each is a projection."""
    shape = systems[0].shape
    axes = tuple(sorted(a for s in systems for a in varying(s)))
    size = [shape[a] if a in axes else 1 for a in range(len(shape))]
    labels = run.ledger.take(math.prod(size)).view(size).expand(shape)
    grid = run.ledger.grid(labels, axes)
    for system in systems:
        own = varying(system)
        grid.projections.append((tuple(axes.index(a) for a in own), compressed(system, own)))
    return labels
