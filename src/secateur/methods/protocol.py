"""What a method is: the one small base that every paper's file fills in, and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from secateur._errors import UnknownName
from secateur.graph import PruningGraph
from secateur.scores import Scores


@dataclass(frozen=True)
class Evidence:
    """What a method may look at while it judges; always of the training split.

    Attributes:
        data: batches ``(x, y)``, or ``None``.
        seed: for methods that draw numbers.
    """

    data: Iterable[Any] | None = None
    seed: int = 0


class Method(ABC):
    """A way of judging units.

    Instances hold no state between runs: everything that :meth:`judge` needs is passed to it.

    Attributes:
        name: as in ``sc.prune(method=name)``.
        summary: one line for the table of methods.
        ranking: how its scores compare between groups, see ``sc.plan``.
        needs_data: whether it cannot judge without training data.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    ranking: ClassVar[str] = "global"
    needs_data: ClassVar[bool] = False

    @abstractmethod
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        """One score per unit of every group that can be cut; higher means more worth keeping."""


def find(name: str, registry: dict[str, type[Method]]) -> type[Method]:
    """Look a method up.

    Raises:
        UnknownName: with the nearest names.
    """
    if name not in registry:
        raise UnknownName("method", name, registry)
    return registry[name]
