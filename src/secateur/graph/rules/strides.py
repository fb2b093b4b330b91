"""Slices that take every second, third … index of an axis."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.labels import compressed, settle, varying


def stride_of_units(run, func, system: Tensor, axis: int, span: tuple[int, int, int]) -> None:
    """Of every ``step`` neighbours the slice takes one, so neighbours go together and a stretch of them stays whole."""
    (start, end, step), size, where = span, system.shape[axis], run.where(func)
    if size % step or not 0 <= start < step or end < size:
        run.ledger.lock_systems([system], f"strided slice in {where}")
        return
    layout = settle(system.reshape(*system.shape[:axis], size // step, step, *system.shape[axis + 1 :]))
    if axis + 1 in varying(layout):
        neighbours = run.ledger.project(layout, (axis + 1,))
        run.ledger.lock(compressed(neighbours, (axis + 1,)), f"place within a stride in {where}")
