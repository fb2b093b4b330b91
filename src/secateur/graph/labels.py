"""Label tensors: which unit does every element of a tensor belong to?

A *label* is a positive integer that stands for one index of one parameter axis; 0 stands for "fixed". A *system* is an
integer tensor of the same shape as the tensor it describes, with stride 0 along every axis on which it is constant, so
a system of a (1, 256, 56, 56) activation takes 256 numbers. A tensor may have several systems: in an MLP-mixer an
element belongs to a channel and to a hidden token at once, and it disappears when either of them does.

Because a system is an ordinary tensor, an operation that only moves data is replayed on it with the very same call,
and PyTorch computes the index map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Labels(NamedTuple):
    """What is known of one tensor.

    Attributes:
        systems: label tensors, each of the tensor's own shape; empty where no axis can be cut.
        is_weight: computed from parameters alone (so a contraction with it is a layer, not attention).
        is_uniform: the same constant everywhere (``zeros``, ``ones``), so it fits any size.
    """

    systems: tuple[Tensor, ...] = ()
    is_weight: bool = False
    is_uniform: bool = False


FIXED = Labels()
UNIFORM = Labels(is_uniform=True)


#: Where a system notes what was derived from it: it is asked for many times, and a system never changes.
_VARYING = "_secateur_varying"
_LINE = "_secateur_line"
_SPAN = "_secateur_span"


class Span(NamedTuple):
    """Labels that count up one by one: ``first .. first + size - 1``. Most lines are, and need not be looked at."""

    first: int
    size: int

    @property
    def last(self) -> int:
        return self.first + self.size - 1


#: Labels in a row.
Line = Span | np.ndarray


def labels_of(line: Line) -> np.ndarray:
    """The labels of a line one by one."""
    return np.arange(line.first, line.first + line.size) if isinstance(line, Span) else line


def span_of(line: Tensor) -> Span | None:
    """A line as a span, where it is known to be one."""
    return getattr(line, _SPAN, None)


def varying(system: Tensor) -> tuple[int, ...]:
    """The axes along which a system is not constant."""
    own = getattr(system, _VARYING, None)
    if own is None:
        own = tuple([i for i, (n, s) in enumerate(zip(system.shape, system.stride())) if s != 0 and n > 1])
        setattr(system, _VARYING, own)
    return own


def line(system: Tensor) -> Tensor:
    """The labels of a system without the axes on which it is constant: ``[size of each axis that varies]``."""
    own = varying(system)
    if len(own) == system.dim():
        return system
    found = getattr(system, _LINE, None)
    if found is None:
        found = compressed(system, own)
        setattr(system, _LINE, found)
    return found


def compressed(system: Tensor, axes: Sequence[int]) -> Tensor:
    """The system with every axis but ``axes`` (ascending) reduced to its first index: shape ``[size of each axis]``.

    An axis that is dropped may be empty (no region was found in the example image): labels do not vary along it.
    """
    shape, stride = system.shape, system.stride()
    return system.as_strided([shape[a] for a in axes], [stride[a] for a in axes], system.storage_offset())


def _over(system: Tensor, shape: Sequence[int], stride: list[int], axes: tuple[int, ...], same_line: bool) -> Tensor:
    """A view of the labels that varies along ``axes``, which are ascending."""
    new = system.as_strided(shape, stride, system.storage_offset())
    setattr(new, _VARYING, axes)
    if same_line and len(axes) == 1:
        setattr(new, _LINE, line(system))
    return new


def laid(system: Tensor, axes: tuple[int, ...], shape: Sequence[int]) -> Tensor:
    """The system laid out over another shape: the axes along which it varies become ``axes`` there, in their order."""
    stride = [0] * len(shape)
    for own, axis in zip(varying(system), axes):
        stride[axis] = system.stride(own)
    ascending = axes if len(axes) == 1 else tuple(sorted(axes))
    return _over(system, shape, stride, ascending, axes == ascending)


def dropped(system: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """The system without ``axes``, along which it does not vary."""
    if keepdim:
        return laid(system, varying(system), [1 if a in axes else n for a, n in enumerate(system.shape)])
    shape = [n for a, n in enumerate(system.shape) if a not in axes]
    return laid(system, tuple([a - sum([g < a for g in axes]) for a in varying(system)]), shape)


def narrowed(system: Tensor, touched: Sequence[int]) -> Tensor:
    """The system with size 1 on every constant axis that is not ``touched``: what a copying move has to work on."""
    moves = {a % system.dim() for a in touched} if system.dim() else set()
    live = set(varying(system)) | moves
    for axis in range(system.dim()):
        if axis not in live and system.shape[axis] > 1:
            system = system.narrow(axis, 0, 1)
    return system


def settle(system: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Give a system its final shape and stride 0 along every axis on which it turned out to be constant."""
    shape = system.shape if shape is None else shape
    if 0 in system.shape:
        if any(stride for stride, size in zip(system.stride(), system.shape) if not size):
            # Nothing is left of an axis that had labels, and where it began others lie.
            return laid(system, (), shape)
        # Of no element nothing is seen, but what varies along the other axes does all the same.
        one = settle(laid(system, varying(system), [n or 1 for n in system.shape]))
        return laid(one, varying(one), shape)
    for axis in varying(system):
        # Nearly always the first two differ, and comparing them is far cheaper than comparing all.
        if not torch.equal(system.select(axis, 0), system.select(axis, 1)):
            continue
        first = system.narrow(axis, 0, 1)
        if bool((system == first).all()):
            system = first
    return system.expand(tuple(shape))


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes, of the old shape and of the new one, that hold the same elements."""
    blocks, place = [], 0
    wide = [a for a, n in enumerate(new) if n != 1]
    held = filled = 1
    for axis, size in enumerate(old):
        if size == 1:
            continue
        if held == filled:
            blocks.append(([], []))
        blocks[-1][0].append(axis)
        held *= size
        while filled < held:
            blocks[-1][1].append(wide[place])
            filled *= new[wide[place]]
            place += 1
    return blocks


@dataclass(frozen=True, slots=True)
class _Reshape:
    """How a system that varies along some axes is reshaped.

    Attributes:
        steps: of every new axis along which it varies then: the old axis whose stride it has, times a factor.
        merged: neighbours ``a, b`` that become one; the stride of ``a`` has to be so many times that of ``b``.
        axes: those along which it varies then.
        moved, small: old axes to look at where strides do not fit, and the shape into which these are reshaped.
        mixed: some axes become others in one go, so that one which comes out may be constant.
    """

    steps: tuple[tuple[int, int, int], ...]
    merged: tuple[tuple[int, int, int], ...]
    axes: tuple[int, ...]
    moved: tuple[int, ...]
    small: tuple[int, ...]
    mixed: bool


@lru_cache(4096)
def _reshape(old: tuple[int, ...], new: tuple[int, ...], own: tuple[int, ...]) -> _Reshape:
    steps, merged, moved, mixed = [], [], [], False
    for before, behind in _blocks(old, new):
        if not any(a in own for a in before):
            continue
        merged += [(a, b, old[b]) for a, b in pairwise(before)]
        moved += before
        mixed |= len(before) > 1 and len(behind) > 1
        factor = 1
        for axis in reversed(behind):
            steps.append((axis, before[-1], factor))
            factor *= new[axis]
    axes = tuple(sorted(axis for axis, _, _ in steps))
    small = tuple(n if a in axes else 1 for a, n in enumerate(new))
    return _Reshape(tuple(steps), tuple(merged), axes, tuple(moved), small, mixed)


def reshaped(system: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The system of the reshaped tensor. Only axes along which it varies are moved, and mostly not even those."""
    if 0 in shape:
        return _reshaped_empty(system, shape)
    own, had = varying(system), system.stride()
    how = _reshape(tuple(system.shape), shape, own)
    for a, b, size in how.merged:
        if had[a] != had[b] * size:
            return settle(compressed(system, how.moved).reshape(how.small), shape)
    stride = [0] * len(shape)
    for axis, source, factor in how.steps:
        stride[axis] = had[source] * factor
    new = _over(system, shape, stride, how.axes, len(own) == len(how.axes) == 1)
    return settle(new) if how.mixed else new


def _reshaped_empty(system: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same of a tensor without elements: what varies along its other axes does so where those come to lie."""
    old = tuple(system.shape)
    if old.count(0) == shape.count(0) == 1 and not system.stride(old.index(0)):
        # As if there were just so many that both shapes hold equally many.
        held, filled = (math.prod([n or 1 for n in some]) for some in (old, shape))
        least = math.lcm(held, filled)
        full = laid(system, varying(system), [n or least // held for n in old])
        full = reshaped(full, tuple([n or least // filled for n in shape]))
        if shape.index(0) not in varying(full):
            return laid(full, varying(full), shape)
    return laid(system, (), shape)


def along(axis: int, shape: Sequence[int], labels: Tensor) -> Tensor:
    """A system of the given shape that varies along one axis only, by at least two labels."""
    if len(shape) == 1:
        return labels
    stride = [0] * len(shape)
    stride[axis] = labels.stride(0)
    new = labels.as_strided(shape, stride)
    setattr(new, _VARYING, (axis,))
    setattr(new, _LINE, labels)
    return new


def broadcast(system: Tensor, shape: Sequence[int]) -> Tensor:
    """The system of what the tensor becomes where it broadcasts to ``shape``."""
    if system.shape == shape:
        return system
    lead = len(shape) - system.dim()
    return laid(system, tuple([lead + a for a in varying(system)]), shape)


def fresh(start: int, count: int) -> Tensor:
    """``count`` new labels from ``start`` on."""
    labels = torch.arange(start, start + count, dtype=torch.int64)
    if count:
        setattr(labels, _SPAN, Span(start, count))
    return labels


def fresh_lines(start: int, counts: Sequence[int]) -> list[Tensor]:
    """Lines of new labels, the first from ``start`` on, each behind the one before; ``counts`` are at least two."""
    lines = list(torch.arange(start, start + sum(counts), dtype=torch.int64).split(counts)) if counts else []
    for labels, count in zip(lines, counts):
        setattr(labels, _SPAN, Span(start, count))
        setattr(labels, _VARYING, (0,))
        start += count
    return lines


def lie_apart(labels: Tensor) -> bool:
    """Whether no two places of a tensor are one and the same in its memory."""
    reach = 0
    for stride, size in sorted(zip(labels.stride(), labels.shape)):
        if size > 1:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
    return True


def lift(labels: Labels, change: Callable[[Tensor], Tensor]) -> Labels:
    """The same labels with every system reshaped."""
    return Labels(tuple(change(s) for s in labels.systems), labels.is_weight, labels.is_uniform)


def on_channels(labels: Labels, shape: Sequence[int], channel: int) -> Labels:
    """Labels of a vector of one entry per channel, shaped to broadcast over the axes behind the channels."""
    tail = (1,) * (len(shape) - channel - 1)
    return lift(labels, lambda s: s.view(-1, *tail) if s.stride(0) else s.reshape(-1, *tail))
