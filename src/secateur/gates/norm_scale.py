"""The scale that a norm gives a unit, as the gate that it has already."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.graph import Group, Member


def norm_scales(model: nn.Module, group: Group) -> list[tuple[Tensor, Member]]:
    """The batch-norm scales that lie on a group, each with its place in it; none where no batch norm makes it."""
    found = []
    for member in group.members:
        path, _, attribute = member.tensor.rpartition(".")
        if attribute == "weight" and isinstance(norm := model.get_submodule(path), _BatchNorm) and norm.affine:
            found.append((norm.weight, member))
    return found
