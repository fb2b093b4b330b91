"""Scalar gates behind the norms of units: ``activation(gate * norm(layer(x)))``, learned with the weights frozen.

Multiplying what a norm gives is multiplying its scale and its shift, so that is what the gates do: between norm and
activation, as Pruning from Scratch (Wang 2020) has it, in any network that can be traced. A gate in front of a norm
would be divided away. Units that several norms make in parallel (a residual sum) or read (dense connections) have one
gate on all of them. Where two norms follow each other on the same unit, as around a depthwise convolution, the second
divides the first one's gate away, and the gate counts once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from secateur.gates.attach import NORMS, Gates, unit_of, where
from secateur.graph import Group, Member, PruningGraph
from secateur.graph.trees import output_tensors

PLACES = {
    "every": "behind every norm of a unit",
    "first": "behind the norm of the layer that makes a unit, not behind that of a depthwise convolution after it",
}
_PREFIX = "secateur_gate_"
_TOLERANCE = 1e-4


class ScalarGates(Gates):
    """Gates that are parameters of the network while they are attached, so that its optimiser moves them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._names: list[str] = []

    def add(self, name: str, width: int, device: torch.device) -> None:
        """New gates, all exactly 1."""
        parameter = nn.Parameter(torch.ones(width, device=device))
        # On the model itself: a further submodule would run in an nn.Sequential.
        self._names.append(f"{_PREFIX}{len(self._names)}")
        self._model.register_parameter(self._names[-1], parameter)
        self.values[name] = parameter

    def _let_go(self) -> None:
        for name in self._names:
            delattr(self._model, name)
        self._names.clear()

    def fold(self) -> None:
        super().fold()
        self._let_go()

    def drop(self) -> None:
        super().drop()
        self._let_go()


def attach_scalars(graph: PruningGraph, groups: Iterable[Group], place: str = "every", example: Any = None) -> Gates:
    """Gates on every unit of some groups.

    Heads, experts and units without a norm are scaled where they are read, which is behind the activation.

    Args:
        graph: over the network whose gates are going to be learned; it is changed until :meth:`Gates.drop`.
        place: one of :data:`PLACES`.
        example: one batch of inputs. With it every gate of ``"every"`` is tried: where units pass by their norms, or
            an activation makes something of nothing, they are scaled where they are read instead.
    """
    groups = list(groups)
    gates = _attached(graph, groups, place, set())
    if example is None or place != "every":
        return gates
    gates.drop()
    return _attached(graph, groups, place, uncovered(graph, groups, example))


def _attached(graph: PruningGraph, groups: Sequence[Group], place: str, read: set[str]) -> ScalarGates:
    gates, parameters = ScalarGates(graph.model), dict(graph.model.named_parameters())
    device = next(iter(parameters.values())).device
    for group in groups:
        members = [] if group.name in read else behind_norms(graph.model, group, place)
        gates.add(group.name, group.width, device)
        for member in members or where(graph.model, group):
            if member.tensor in parameters:
                size = parameters[member.tensor].shape[member.axis]
                gates.scale(graph.model, group.name, member.tensor, member.axis, unit_of(member, group.width, size))
    return gates


def behind_norms(model: nn.Module, group: Group, place: str = "every") -> list[Member]:
    """Scales and shifts of the norms on a group of channels; none where no norm has any."""
    found: list[Member] = []
    if group.kind != "channel":
        return found
    per_unit = False
    for member in group.members:
        path, _, attribute = member.tensor.rpartition(".")
        module = model.get_submodule(path)
        if isinstance(module, _ConvNd) and attribute == "weight" and member.role != "in":
            per_unit = 1 < module.groups == module.in_channels
        elif isinstance(module, NORMS) and attribute in ("weight", "bias") and not (place == "first" and per_unit):
            found.append(member)
    return found


@torch.no_grad()
def uncovered(graph: PruningGraph, groups: Sequence[Group], example: Any) -> set[str]:
    """Names of the groups of which something is still read when the gates behind their norms are shut.

    Half of the units are shut behind their norms in one copy of the network, and where they are read in another, both
    with random norms; the outputs have to agree.
    """
    some = [g for g in groups if behind_norms(graph.model, g) and any(m.role == "in" for m in g.members)]
    if not some or _agree(graph, some, example):
        return set()
    return {g.name for g in some if not _agree(graph, [g], example)}


def _agree(graph: PruningGraph, groups: Sequence[Group], example: Any) -> bool:
    generator = torch.Generator().manual_seed(0)
    stirred = copy.deepcopy(graph.model).eval()
    for module in stirred.modules():
        if isinstance(module, NORMS):
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if tensor.is_floating_point():
                    noise = torch.rand(tensor.shape, generator=generator).to(tensor)
                    # A bias of either sign, so that the activation behind it lets something through.
                    tensor.copy_(noise - 0.4 if name in ("bias", "running_mean") else noise + 0.5)
    shut = {g.name: (torch.arange(g.width) + k) % 2 for k, g in enumerate(groups)}
    outputs = []
    for read in (set(), {g.name for g in groups}):
        other = graph.on(copy.deepcopy(stirred))
        gates = _attached(other, groups, "every", read)
        for name, values in gates.values.items():
            values.copy_(shut[name])
        outputs.append([t.double() for t in output_tensors(other.model(example)) if t.is_floating_point()])
    return all(
        float((a - b).abs().max()) <= _TOLERANCE * max(float(b.abs().max()), 1e-12)
        for a, b in zip(*outputs)
        if a.numel()
    )
