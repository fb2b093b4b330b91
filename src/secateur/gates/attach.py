"""Scalars that multiply units, attached to a network without changing its code.

A unit is scaled where it is read: the columns of the weights that take it in are multiplied by its gate. That is the
same function as multiplying the unit itself, whatever lies between (a norm, an activation), and it works for every
network that can be traced. A group that no weight reads (its units are only normalised and added) is scaled where its
last norm or layer makes it. The multiplication is a parametrization of PyTorch's, so the network runs as it is, the
gradient reaches the gates, and folding them in afterwards leaves the plain network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from secateur.graph import Group, Member, PruningGraph
from secateur.graph.blocks import Block

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)


class Gates:
    """The gates of a network, by name of a group or a block.

    They are not among the network's parameters, so its optimiser never touches them: whoever attached them says how
    they move.

    Attributes:
        values: one tensor of shape ``[width]`` each, requiring a gradient; a block has one gate.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self._places: list[tuple[nn.Module, str]] = []

    def add(self, name: str, width: int, device: torch.device) -> None:
        """New gates, all open."""
        self.values[name] = torch.ones(width, device=device, requires_grad=True)

    def scale(self, model: nn.Module, name: str, tensor: str, axis: int, unit_of: Tensor) -> None:
        """Let the gates of a name multiply one axis of a parameter.

        Args:
            unit_of: the unit of every index on the axis; the number of units for an index that has none.
        """
        path, _, attribute = tensor.rpartition(".")
        module = model.get_submodule(path)
        parametrize.register_parametrization(module, attribute, _Scaled(self, name, axis, unit_of), unsafe=True)
        self._places.append((module, attribute))

    def fold(self) -> None:
        """Multiply the gates into the weights and take them off."""
        for module, attribute in dict.fromkeys(self._places):
            if not parametrize.is_parametrized(module, attribute):
                continue  # Other gates on the same weight were folded before, and these with them.
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
        self._places.clear()

    def drop(self) -> None:
        """Take them off and leave the weights as they were before."""
        for module, attribute in dict.fromkeys(self._places):
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        self._places.clear()


class _Scaled(nn.Module):
    def __init__(self, gates: Gates, name: str, axis: int, unit_of: Tensor):
        super().__init__()
        self.axis, self.unit_of = axis, unit_of
        # In a list, so that it is neither a submodule nor part of the state.
        self._gates = [gates, name]

    def forward(self, weight: Tensor) -> Tensor:
        gates, name = self._gates
        values = gates.values[name]
        line = torch.cat([values, values.new_ones(1)])[self.unit_of.to(values.device)]
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        return weight * line.to(weight.dtype).view(shape)


def attach(graph: PruningGraph, groups: Iterable[Group]) -> Gates:
    """Gates on every unit of some groups.

    Args:
        graph: over the network that is going to be trained; it is changed until :meth:`Gates.fold`.
    """
    gates, parameters = Gates(), dict(graph.model.named_parameters())
    for group in groups:
        members = [m for m in where(graph.model, group) if m.tensor in parameters]
        gates.add(group.name, group.width, next(iter(parameters.values())).device)
        for member in members:
            size = parameters[member.tensor].shape[member.axis]
            gates.scale(graph.model, group.name, member.tensor, member.axis, unit_of(member, group.width, size))
    return gates


def attach_to_blocks(graph: PruningGraph, blocks: Sequence[Block], silenced: Sequence[Sequence[str]]) -> Gates:
    """One gate on what each residual block adds.

    Args:
        graph: as in :func:`attach`.
        blocks: of ``graph.blocks``.
        silenced: for each block the parameters that make what it adds.
    """
    gates, parameters = Gates(), dict(graph.model.named_parameters())
    for block, names in zip(blocks, silenced, strict=True):
        gates.add(block.name, 1, next(iter(parameters.values())).device)
        for name in _last(graph.model, names):
            size = parameters[name].shape[0]
            gates.scale(graph.model, block.name, name, 0, torch.zeros(size, dtype=torch.int64))
    return gates


def unit_of(member: Member, width: int, size: int) -> Tensor:
    """The unit of every index on an axis of that size; ``width`` for an index that has none."""
    line = torch.full((size,), width, dtype=torch.int64)
    line[torch.as_tensor(member.positions).reshape(-1).long()] = torch.arange(width).repeat_interleave(
        member.positions.shape[1]
    )
    return line


def where(model: nn.Module, group: Group) -> list[Member]:
    """The axes that :func:`attach` scales: what reads the units, or else what makes them last."""
    readers = [m for m in group.members if m.role == "in"]
    if readers:
        return readers
    made = [m for m in group.members if m.axis == 0]
    last = set(_last(model, [m.tensor for m in made]))
    return [m for m in made if m.tensor in last]


def _last(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Of parameters that make the same thing one after another, those of the norms if there are any: behind a norm
    that sees its own input's scale, a gate on the layer before it would do nothing."""
    norms = [n for n in names if isinstance(model.get_submodule(n.rpartition(".")[0]), NORMS)]
    return norms or list(names)
