"""``trace``: a model and example inputs become a :class:`PruningGraph`."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur._errors import UnknownName, UsageError
from secateur.graph.admit import elsewhere
from secateur.graph.blocks import Block
from secateur.graph.capture import Capture, capture
from secateur.graph.clone import Mould
from secateur.graph.cost import Cost, Meter, Polynomial
from secateur.graph.explain import Explainer
from secateur.graph.explanation import Explanation
from secateur.graph.fingerprint import fingerprint
from secateur.graph.groups import Group
from secateur.graph.ledger import AxisRef
from secateur.graph.probe import Settled, probe
from secateur.graph.runs import Runs
from secateur.graph.selector import selectors_of
from secateur.graph.skeleton import no_collection, one_thread
from secateur.graph.table import table


class PruningGraph:
    """Who is tied to whom in one model.

    Attributes:
        model: the traced model; never changed.
        example: the inputs that it was traced with.
        groups: every width, those that cannot be cut included (``locked``, with the ``reason``).
        blocks: residual blocks that can be left out as a whole (:meth:`without`).
        skipped: those that are.
        warnings: what the reader should know of how the trace was made.
        fingerprint: of the architecture; plans carry it.
        selectors: paths of the layers that select the channels that they read.
        sites: operations that read across units.
        training_callers: modules that call parts that run only in training.
        training_sites: the ``sites`` of a pass in which these are in training mode.
        tensors: names of all parameters, buffers and constants.
    """

    def __init__(self, model: nn.Module, example: Any, recorded: Capture, settled: Settled):
        self.model = model
        self.example = example
        self.classes = settled.classes
        self.literals = settled.literals
        self.warnings: list[str] = []
        self.blocks = tuple(recorded.blocks)
        self.skipped: tuple[Block, ...] = ()
        self.ledger = recorded.ledger
        self.sites = recorded.sites
        training = recorded.in_training
        self.training_callers = () if training is None else training.callers
        self.training_sites = [] if training is None else training.sites
        self.groups, self._group_of = settled.groups, settled.group_of
        self._starts = {(axis.tensor, axis.axis): axis.start for axis in self.ledger.axes}
        mould = recorded.mould
        self.fingerprint = fingerprint(mould)
        self.selectors = tuple(selectors_of(mould))
        self.tensors = mould.tensors.keys()
        self._parameters = [name for name, p in mould.parameters.items() if p.numel()]
        self._by_name = {g.name: k for k, g in enumerate(self.groups)}
        self._full, self._module_terms = self._build_polynomial()
        self._polynomial = self._full

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def prunable(self) -> list[Group]:
        """The groups that can be cut."""
        return [g for g in self.groups if not g.locked and g.width > g.least and not self._left_out(g)]

    def _left_out(self, group: Group) -> bool:
        return bool(self.skipped) and all(self.is_skipped(m.tensor) for m in group.members)

    def is_skipped(self, path: str) -> bool:
        """Whether a module, or a tensor, belongs to a block that is left out."""
        return bool(self.skipped) and any(path == b.name or path.startswith(f"{b.name}.") for b in self.skipped)

    def without(self, *names: str) -> PruningGraph:
        """The same graph with residual blocks left out: plans made from it cut those, and its costs lack them.

        Args:
            names: of ``graph.blocks``.

        Returns:
            A graph that shares everything with this one; ``cost()`` without widths is still that of the dense model.

        Raises:
            UnknownName: there is no such block.
        """
        known = {b.name: b for b in self.blocks}
        for name in names:
            if name not in known:
                raise UnknownName("residual block", name, known)
        shorter = copy.copy(self)
        shorter.skipped = tuple(b for b in self.blocks if b.name in names or b in self.skipped)
        shorter.__dict__.pop("_explainer", None)
        shorter._polynomial, _ = shorter._build_polynomial()
        return shorter

    @property
    def widths(self) -> dict[str, int]:
        """The dense width of every group that can be cut."""
        return {g.name: g.width for g in self.prunable}

    def on(self, model: nn.Module) -> PruningGraph:
        """The same graph over another instance of the same architecture: a copy that was trained further, say."""
        other = copy.copy(self)
        other.model = model
        other.__dict__.pop("_explainer", None)
        return other

    def __getitem__(self, name: str) -> Group:
        return self.groups[self._by_name[name]]

    def cost(self, widths: Mapping[str, Any] | Tensor | None = None) -> Cost:
        """Cost of one forward pass on the example inputs.

        Args:
            widths: width of each group by name (those not named stay whole), or a tensor of shape
                ``[len(graph.prunable)]``; the cost is differentiable in it. ``None`` is the dense model.

        Raises:
            UsageError: a name is not a group that can be cut.
        """
        dense = np.array([g.width for g in self.groups], dtype=np.float64)
        if widths is None:
            return self._full.cost(dense)
        places = [k for k, g in enumerate(self.groups) if not g.locked and g.width > g.least]
        if isinstance(widths, Tensor):
            full = torch.as_tensor(dense, device=widths.device)
            return self._polynomial.cost(full.index_put((torch.tensor(places),), widths.to(full.dtype)))
        wrong = [name for name in widths if name not in self._by_name]
        if wrong:
            raise UsageError(f"no such group: {', '.join(wrong)}\ngroups: {', '.join(self._by_name)}")
        if any(isinstance(w, Tensor) for w in widths.values()):
            values = [widths.get(self.groups[k].name, self.groups[k].width) for k in places]
            return self.cost(torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values]))
        for name, width in widths.items():
            dense[self._by_name[name]] = width
        return self._polynomial.cost(dense)

    def meter(self, metric: str, lanes: Sequence[Mapping[str, int]]) -> Meter:
        """One metric as a function of the steps that are taken from lanes.

        Args:
            lanes: how many units each group, by name, loses with a step; a group is in one lane only.
        """
        dense = np.array([g.width for g in self.groups], dtype=np.float64)
        by_number = [{self._by_name[name]: loss for name, loss in lane.items()} for lane in lanes]
        return self._polynomial.meter(metric, dense, by_number)

    def explain(self, name: str) -> Explanation:
        """Why is it tied to what it is tied to, or locked?

        Args:
            name: a module (``"layer3.0.conv2"``), a parameter (``"layer3.0.conv2.weight"``) or a group.

        Returns:
            For every group on the axes of it: its width, what else lies on it and through which operations, and why it
            is locked if it is. ``print`` it.

        Raises:
            UnknownName: nothing has this name.
        """
        return self._explainer.explain(name)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self)

    def module_macs(self) -> dict[str, int]:
        """Multiply-accumulates of the dense model by the path of the module that spends them."""
        dense = np.array([g.width for g in self.groups], dtype=np.float64)
        extents = self._full._fixed + self._full._matrix @ dense
        found: dict[str, int] = {}
        for module, coefficient, axes in self._module_terms:
            found[module] = found.get(module, 0) + round(coefficient * float(np.prod(extents[list(axes)])))
        return found

    def group_macs(self) -> dict[str, int]:
        """Multiply-accumulates of the dense model in the layers that have each group's width.

        A layer has the widths of its inputs and of its outputs, so it counts for more than one group.
        """
        dense = self.cost().macs
        return {g.name: round(dense - float(self.cost({g.name: 0}).macs)) for g in self.groups}

    # -- axes -----------------------------------------------------------------------------------------------------

    def _build_polynomial(self) -> tuple[Polynomial, list[tuple[str, int, tuple[int, ...]]]]:
        """Extents of every axis that matters, and the terms over them."""
        terms = [term for term in self.ledger.terms if not self.is_skipped(term.module)]
        lines = [[self.classes.lines(ref) for ref in term.axes] for term in terms]
        different = {id(line): line for axes in lines for found in axes for line in found}
        on_parameters, line_of = self.classes.on_parameters
        counts = np.concatenate(
            [
                self._counts(Runs.of(list(different.values())), len(different)),
                self._counts(on_parameters, max(line_of, default=-1) + 1),
            ]
        )
        # Axes on which as many indices of every group lie are one.
        known: dict[bytes, int] = {}
        rows = [known.setdefault(count.tobytes(), len(known)) for count in counts]
        _, first = np.unique(rows, return_index=True)
        row_of = dict(zip(different, rows))
        by_module = []
        for term, axes in zip(terms, lines):
            coefficient = term.coefficient * math.prod(ref.size for ref, found in zip(term.axes, axes) if not found)
            by_module.append((term.module, coefficient, tuple(row_of[id(line)] for found in axes for line in found)))
        by_name: dict[str, tuple[int, ...]] = {}
        for axis, line in zip(self.ledger.axes, line_of):
            by_name[axis.tensor] = (*by_name.get(axis.tensor, ()), rows[len(different) + line])
        parameters = self._parameters
        if self.skipped:
            # A tied parameter counts once, as long as one of its places is left.
            held = {id(p) for n, p in self.model.named_parameters(remove_duplicate=False) if not self.is_skipped(n)}
            own = Mould(self.model).parameters
            parameters = [name for name in parameters if id(own[name]) in held]
        macs = [(coefficient, axes) for _, coefficient, axes in by_module]
        params = [(self.ledger.taps.get(name, 1), by_name.get(name, ())) for name in parameters]
        widths = np.array([max(g.width, 1) for g in self.groups], dtype=np.float64)
        matrix, fixed = counts[first, :-1] / widths, counts[first, -1]
        return Polynomial(matrix, fixed, {"macs": macs, "params": params}), by_module

    def _counts(self, runs: Runs, lines: int) -> np.ndarray:
        """How many indices of each group lie on some lines, in the end how many of none: ``[lines, groups + 1]``."""
        runs = runs.split(np.flatnonzero(self._group_of[1:] != self._group_of[:-1]) + 1)
        # The number of no group is -1: the last column.
        columns = len(self.groups) + 1
        places = runs.line * columns + self._group_of[runs.first] % columns
        return np.bincount(places, runs.length, lines * columns).reshape(lines, columns)

    # -- what a choice of units means -------------------------------------------------------------------------------

    def living(self, keep: Mapping[str, Sequence[int] | np.ndarray]) -> np.ndarray:
        """Which classes live if of every named group only the given units are kept; shape ``[classes]``."""
        alive = np.ones(int(self.classes.of.max()) + 1, dtype=bool)
        for name, units in keep.items():
            group = self[name]
            gone = np.ones(group.width, dtype=bool)
            gone[np.asarray(units, dtype=np.int64)] = False
            member = group.members[0]
            start = self._starts[member.tensor, member.axis]
            alive[self.classes.of[start + member.positions[gone, 0]]] = False
        return alive

    def extent(self, ref: AxisRef, living: np.ndarray) -> int:
        """How many indices of an axis are left of those classes."""
        lines = self.classes.lines(ref)
        return math.prod(int(living[line].sum()) for line in lines) if lines else ref.size

    def __str__(self) -> str:
        return table(self.groups, self.cost())


def trace(model: nn.Module, example_inputs: Any) -> PruningGraph:
    """Find out which channels, heads and features of a model are tied together.

    The model runs once on the meta device (nothing is computed, nothing of it is changed), with integer labels
    following every activation; see the README in this folder.

    Args:
        model: any ``nn.Module``, in training or evaluation mode, on any device.
        example_inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments.

    Returns:
        The graph; ``print(graph)`` is a table.

    Raises:
        InputError: the model does not run on the example inputs, or is of a kind that cannot be traced.
    """
    # What the trace needs no longer is gone by the time the collector is back.
    with one_thread(), no_collection():
        return _trace(model, example_inputs)


def _trace(model: nn.Module, example_inputs: Any) -> PruningGraph:
    recorded = capture(model, example_inputs)
    graph = PruningGraph(model, example_inputs, recorded, probe(recorded))
    if model.training:
        graph.warnings.append("the model is in training mode; it was traced in evaluation mode and left as it was")
    if recorded.idle:
        names = sorted(recorded.idle)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        graph.warnings.append(
            f"did not run on the example inputs, so nothing of it is cut: {', '.join(names[:3])}{more}; "
            "if such a part reads a width that is cut, it will not run any more (protect it)"
        )
    if not recorded.on_meta:
        graph.warnings.append("the forward looks at values, so it was traced on the example inputs themselves")
        if note := elsewhere(model, example_inputs):
            graph.warnings.append(note)
    return graph
