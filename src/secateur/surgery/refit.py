"""Choosing units by what the layers behind them miss, and making up for the loss in these layers' weights.

Layers are taken from the front: each one sees what the network behind the cuts so far gives it, and is fitted to what
the uncut network gave. So errors do not add up; where a layer closes a residual block, it also makes up for what the
shortcut has lost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.graph import PruningGraph
from secateur.solvers import (
    Contributions,
    Gathered,
    LayerAccumulator,
    fit_scales,
    fit_weights,
    remove_greedily,
    select_by_lasso,
)
from secateur.surgery.calibration import Calibration, Closing, closings, is_reader, readers_of, weight_of
from secateur.surgery.cut import cut
from secateur.surgery.plan import Plan
from secateur.surgery.ranges import from_runs
from secateur.surgery.remarks import Remark

#: ``select(contributions, count)``: int64 [count], the channels that stay, with notes.
Select = Callable[[Contributions, int], "tuple[Tensor, tuple[str, ...]]"]
#: ``fit(layer, kept, weights)``: [outputs, kept, taps], what the kept channels' weights become, with notes.
Fit = Callable[[Gathered, Tensor, Tensor], "tuple[Tensor, tuple[str, ...]]"]


def by_lasso(contributions: Contributions, count: int) -> tuple[Tensor, tuple[str, ...]]:
    """The channels that a LASSO keeps."""
    found = select_by_lasso(contributions, count)
    # The scales that the selection fits for its errors are not those of the network.
    return found.kept, tuple(note for note in found.notes if note not in found.fit.notes)


def by_removal(contributions: Contributions, count: int) -> tuple[Tensor, tuple[str, ...]]:
    """The channels that are left when those that are missed least go one after another."""
    return remove_greedily(contributions).kept(count), ()


def by_weights(layer: Gathered, kept: Tensor, weights: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """New weights by least squares."""
    found = fit_weights(layer, kept, weights)
    return found.weights, found.notes


def by_scales(layer: Gathered, kept: Tensor, weights: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The old weights, each channel's times one factor by least squares."""
    found = fit_scales(Contributions.of_layer(layer, weights), kept)
    return weights[:, found.kept].double() * found.scales[None, :, None], found.notes


@dataclass
class Reference:
    """What the layers of the uncut network give: rows of outputs, and what enters the blocks that they close."""

    rows: dict[tuple[str, int], Tensor]
    around: dict[tuple[str, int], Tensor]

    @classmethod
    def of(cls, model: nn.Module, calibration: Calibration, blocks: dict[str, Closing], paths: list[str]) -> Reference:
        """One pass over the calibration data."""
        found = cls({}, {})
        for number, path, rows in calibration.watch(model, blocks, *paths):
            found.rows[path, number] = rows.y
            if rows.around is not None:
                found.around[path, number] = rows.around
        return found


class Refitter:
    """Measures a network against the uncut one, layer by layer.

    Args:
        graph: of the uncut network.
        calibration: images and places.
        compensate: choose units by what the uncut network gives, make up for what shortcuts lost, and fit every layer;
            otherwise units are chosen by what the layer itself gives, and only layers that lose inputs are fitted.
        remarks: what the solvers note of the layers is appended to it.
    """

    def __init__(
        self,
        graph: PruningGraph,
        calibration: Calibration,
        compensate: bool = True,
        remarks: list[Remark] | None = None,
    ):
        self.graph, self.calibration, self.compensate = graph, calibration, compensate
        paths = [name for name, m in graph.model.named_modules() if is_reader(m) and not graph.is_skipped(name)]
        self.order = calibration.order(graph.model, paths)
        self.blocks = {p: c for p, c in closings(graph).items() if p in self.order} if compensate else {}
        self.reference = Reference.of(graph.model, calibration, self.blocks, self.order)
        self.remarks: list[Remark] = [] if remarks is None else remarks

    def gathered(
        self,
        model: nn.Module,
        path: str,
        columns: Tensor | None = None,
        outputs: Tensor | None = None,
        own_target: bool = False,
    ) -> Gathered:
        """The samples of a layer in ``model`` with its target, or their products.

        Args:
            columns: int64 [units, per unit], the input channels that are fitted; all of them, one a unit, if left out.
            outputs: which of the uncut layer's outputs the layer still has.
            own_target: fit to what the layer gives now, not to what it gave in the uncut network.
        """
        layer = model.get_submodule(path)
        weight = weight_of(layer)
        columns = torch.arange(weight.shape[1])[:, None] if columns is None else columns
        units, each = columns.shape
        own = weight[:, columns.flatten()].reshape(len(weight), -1)
        found = LayerAccumulator(units, each * weight.shape[2], len(weight))
        ratio = self._ratio(model, path)
        for number, _, rows in self.calibration.watch(model, self.blocks, path):
            x = rows.x[:, columns.flatten()].flatten(1)
            y = x @ own.T
            if not own_target:
                wanted = self._kept(self.reference.rows[path, number], outputs)
                if rows.around is not None and ratio is not None:
                    lost = self._kept(self.reference.around[path, number], outputs) - rows.around
                    wanted = wanted + lost * ratio
                y = y + wanted - rows.y
            found.add(x.reshape(len(x), units, -1), y)
        return found.gathered()

    @staticmethod
    def _kept(rows: Tensor, outputs: Tensor | None) -> Tensor:
        return rows if outputs is None else rows[:, outputs]

    def _ratio(self, model: nn.Module, path: str) -> Tensor | None:
        """What one unit of the block's sum is in front of the batch norm between it and the layer."""
        closing = self.blocks.get(path)
        if closing is None:
            return None
        if closing.norm is None:
            return torch.ones(())
        norm: Any = model.get_submodule(closing.norm)
        scale = norm.weight.detach()
        wide = (norm.running_var + norm.eps).sqrt()
        # A scale of next to nothing cannot make up for anything.
        return torch.where(scale.abs() > 1e-3 * scale.abs().max(), wide / scale, torch.zeros(()))


def choose_in_order(refitter: Refitter, widths: Mapping[str, int], select: Select, fit: Fit) -> dict[str, list[int]]:
    """The units of every group that stay, chosen from the front, each layer refitted before the next is looked at.

    Args:
        widths: how many units of each group stay.

    Returns:
        Units by group; groups that no plain layer reads are left out.
    """
    graph, keep = refitter.graph, {}
    model = copy.deepcopy(graph.model)
    readers = {g.name: readers_of(graph, g) for g in graph.prunable if widths.get(g.name, g.width) < g.width}
    place = {path: k for k, path in enumerate(refitter.order)}
    readers = {name: {p: c for p, c in found.items() if p in place} for name, found in readers.items()}
    for name in sorted((n for n in readers if readers[n]), key=lambda n: min(place[p] for p in readers[n])):
        own = not refitter.compensate
        parts = {p: refitter.gathered(model, p, columns, own_target=own) for p, columns in readers[name].items()}
        kept, notes = select(_together(model, parts, readers[name]), widths[name])
        refitter.remarks += [(path, note) for path in parts for note in notes]
        keep[name] = kept.tolist()
        for path, columns in readers[name].items():
            weight: Any = model.get_submodule(path).weight
            flat = weight_of(model.get_submodule(path))
            units = flat[:, columns.flatten()].reshape(len(flat), len(columns), -1)
            new, notes = fit(parts[path], kept, units)
            refitter.remarks += [(path, note) for note in notes]
            fresh = torch.zeros_like(units)
            fresh[:, kept] = new.to(fresh)
            changed = flat.clone()
            changed[:, columns.flatten()] = fresh.reshape(len(flat), columns.numel(), -1)
            with torch.no_grad():
                weight.copy_(changed.reshape(weight.shape))
    return keep


def contributions_of(refitter: Refitter) -> dict[str, Contributions]:
    """What the units of every group that plain layers read contribute to these, in the uncut network."""
    graph, found = refitter.graph, {}
    for group in graph.prunable:
        readers = {p: c for p, c in readers_of(graph, group).items() if p in refitter.order}
        if readers:
            parts = {p: refitter.gathered(graph.model, p, columns, own_target=True) for p, columns in readers.items()}
            found[group.name] = _together(graph.model, parts, readers)
    return found


def _together(model: nn.Module, parts: Mapping[str, Gathered], columns: Mapping[str, Tensor]) -> Contributions:
    """The contributions of a group's units to all layers that read it, each layer's target with the same energy."""
    found = []
    for path, layer in parts.items():
        flat = weight_of(model.get_submodule(path))
        units = flat[:, columns[path].flatten()].reshape(len(flat), len(columns[path]), -1)
        found.append(Contributions.of_layer(layer, units))
    if len(found) == 1:
        return found[0]
    shares = [1 / c.energy if c.energy > 0 else 0.0 for c in found]
    # Slices of the weights are no sums over the samples, of which a layer of a single place has fewer.
    single = [s * c.samples / found[0].samples for s, c in zip(shares, found)]
    return Contributions(
        gram=sum((s * c.gram for s, c in zip(shares, found)), torch.zeros_like(found[0].gram)),
        target=sum((s * c.target for s, c in zip(shares, found)), torch.zeros_like(found[0].target)),
        energy=float(sum(s * c.energy for s, c in zip(shares, found))),
        norms=sum((s * c.norms**2 for s, c in zip(single, found)), torch.zeros_like(found[0].norms)).sqrt(),
        samples=found[0].samples,
        rounding=max(c.rounding for c in found),
    )


def refit_in_order(refitter: Refitter, plan: Plan, fit: Fit) -> nn.Module:
    """The uncut network, in a copy, whose weights that stay make up from the front for what the plan removes."""
    full = copy.deepcopy(refitter.graph.model)
    small = cut(full, plan)
    for path in refitter.order:
        slices = plan.slices.get(f"{path}.weight", {})
        if 1 not in slices and not refitter.compensate:
            continue
        weight: Any = full.get_submodule(path).weight
        rows, columns = (
            torch.tensor(list(from_runs(slices[a]))) if a in slices else torch.arange(weight.shape[a]) for a in (0, 1)
        )
        layer = small.get_submodule(path)
        old = weight_of(layer)
        found = refitter.gathered(small, path, outputs=rows)
        new, notes = fit(found, torch.arange(old.shape[1]), old)
        refitter.remarks += [(path, note) for note in notes]
        own: Any = layer.weight
        with torch.no_grad():
            own.copy_(new.to(own.dtype).reshape(own.shape))
            weight[rows[:, None], columns] = own
    return full
