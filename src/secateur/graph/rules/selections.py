"""Channel selectors: what is selected has units of its own, and what it is selected from stays whole."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.graph.labels import Labels, along, fresh, laid, varying
from secateur.graph.ledger import ParameterAxis
from secateur.graph.selector import MARK


def is_selection(index: Any) -> bool:
    """Whether an index is that of a channel selector."""
    return getattr(index, MARK, False)


def selected(run, x: Tensor, axis: int, out: Tensor) -> None:
    """The units of a selection lie on its indices: one goes with its entry, and nothing else does.

    A channel of the stream that is read this way could only go if every selector left it out, so the stream is locked.
    """
    labels, systems = run.labels(x), []
    for system in labels.systems:
        if axis in varying(system):
            run.ledger.lock_systems([system], f"read through a channel selector by {run.module.rpartition('.')[0]}")
        else:
            systems.append(laid(system, varying(system), out.shape))
    if out.shape[axis] > 1:
        systems.append(along(axis, out.shape, _labels_of(run, f"{run.module}.indices", out.shape[axis])))
    run.set(out, Labels(tuple(systems)))


def _labels_of(run, name: str, count: int) -> Tensor:
    """Labels of the entries; the same ones where a layer runs again."""
    found = next((a for a in reversed(run.ledger.axes) if a.tensor == name), None)
    if found is None:
        labels = run.ledger.take(count)
        found = ParameterAxis(name, 0, int(labels[0]), count)
        run.ledger.axes.append(found)
    return fresh(found.start, count)
