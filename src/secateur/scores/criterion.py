"""What a criterion is, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur._errors import UnknownName, UsageError
from secateur.graph import Member, PruningGraph
from secateur.graph.clone import parameter_of

#: One score per unit: group name -> tensor of shape ``[width]``, float64. Higher means more worth keeping.
Scores = dict[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """What a criterion may look at beside the graph.

    Attributes:
        data: batches ``(x, y)``; needed by criteria with ``needs_data``.
        loss: ``loss(output, y) -> scalar``; cross-entropy by default.
        batches: how many batches to use at most.
        seed: for criteria that draw numbers.
    """

    data: Iterable[Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    batches: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Criterion:
    """A named way of scoring units.

    Attributes:
        name: as in ``sc.score(graph, name)``.
        summary: one line.
        function: ``function(graph, inputs) -> Scores`` over ``graph.prunable``.
        needs_data: whether ``data=`` has to be given.
    """

    name: str
    summary: str
    function: Callable[[PruningGraph, Inputs], Scores]
    needs_data: bool = False


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, summary: str, needs_data: bool = False) -> Callable:
    """Register a scoring function."""

    def register(function: Callable[[PruningGraph, Inputs], Scores]) -> Callable[[PruningGraph, Inputs], Scores]:
        CRITERIA[name] = Criterion(name, summary, function, needs_data)
        return function

    return register


def score(
    graph: PruningGraph,
    criterion: str,
    *,
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    batches: int | None = None,
    seed: int = 0,
) -> Scores:
    """Score every unit of every group that can be cut.

    Args:
        graph: from ``trace``.
        criterion: ``l1``, ``l2``, ``bn_scale``, ``fpgm``, ``taylor`` or ``random``.
        data: batches ``(x, y)`` from the training split, for criteria that look at data.
        loss: ``loss(output, y)``; cross-entropy by default.
        batches: use at most so many batches.
        seed: for ``random``.

    Returns:
        Group name to a float64 tensor of shape ``[width]``; higher means more worth keeping.

    Raises:
        UnknownName: no such criterion.
        UsageError: it needs data and got none, or a group has nothing that it could score.
    """
    found = CRITERIA.get(criterion)
    if found is None:
        raise UnknownName("criterion", criterion, CRITERIA)
    if found.needs_data and data is None:
        raise UsageError(f"{criterion!r} looks at data: pass data=, batches (x, y) of the training split")
    return found.function(graph, Inputs(data, loss, batches, seed))


def producers(graph: PruningGraph) -> dict[str, list[tuple[Tensor, Member]]]:
    """The parameters that produce the units of every group that can be cut, each with its place in the group."""
    found = {}
    for group in graph.prunable:
        held = [(parameter_of(graph.model, m.tensor), m) for m in group.producers]
        if all(tensor is None for tensor, _ in held):
            held = [(parameter_of(graph.model, m.tensor), m) for m in group.members]
        found[group.name] = [(tensor.detach(), m) for tensor, m in held if tensor is not None]
    return found


def rows(tensor: Tensor, member: Member) -> Tensor:
    """What a tensor holds of each unit: shape ``[width, numbers per unit]``, float64."""
    positions = torch.as_tensor(member.positions, device=tensor.device)
    moved = tensor.movedim(member.axis, 0)[positions.reshape(-1)]
    return moved.reshape(positions.shape[0], -1).double()
