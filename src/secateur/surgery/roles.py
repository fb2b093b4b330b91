"""Which groups do the same job in every layer of a stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from secateur.graph import Group, PruningGraph
from secateur.graph.clone import modules_of


@dataclass(frozen=True)
class Role:
    """Groups whose producing parameters have the same names but for the number of the layer.

    Attributes:
        name: the name of the first group, with ``*`` for the number of the layer; ``#2`` for other groups of that name.
        width: of every group of it.
        groups: in order of appearance.
    """

    name: str
    width: int
    groups: tuple[Group, ...]


@lru_cache(4096)
def _numberless(text: str) -> str:
    return re.sub(r"\d+", "*", text)


class Layers:
    """Paths of the modules of a model that are layers of a stack; holders are looked at as they are asked for.

    A layer is one of several siblings that are of one class, are made of other modules, and whose names differ in a
    number only: ``encoder.layer.0``, ``denseblock1.denselayer3``. Siblings that only hold a list (the stages of a
    ResNet) are no layers, and neither are the convolutions of a plain chain.
    """

    def __init__(self, model: nn.Module):
        self._modules = dict(modules_of(model))
        self._inside: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        holder, _, name = path.rpartition(".")
        if _numberless(name) == name:
            return False
        if holder not in self._inside:
            self._inside[holder] = _alike(self._modules.get(holder))
        return name in self._inside[holder]


def _alike(holder: nn.Module | None) -> set[str]:
    """Names of the modules that a module holds of which several are alike."""
    kinds: dict[tuple[type, str], list[str]] = {}
    for name, child in holder._modules.items() if holder is not None else ():
        made_of_others = child is not None and any(inner is not None for inner in child._modules.values())
        if made_of_others and not isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            kinds.setdefault((type(child), _numberless(name)), []).append(name)
    return {name for names in kinds.values() if len(names) > 1 for name in names}


def stripped(name: str, stack: Layers) -> str:
    """A name with ``*`` for the number of every layer in it."""
    parts, path, found = name.split("."), "", []
    for part in parts:
        path = f"{path}.{part}" if path else part
        found.append(_numberless(part) if path in stack else part)
    return ".".join(found)


def roles(graph: PruningGraph, groups: Iterable[Group]) -> list[Role]:
    """Sort groups by role, in order of appearance."""
    stack = Layers(graph.model)
    found: dict[object, list[Group]] = {}
    for group in groups:
        names = frozenset((stripped(m.tensor, stack), m.axis) for m in group.producers)
        found.setdefault((group.width, group.kind, names), []).append(group)
    times: Counter[str] = Counter()
    sorted_out = []
    for same in found.values():
        name = stripped(same[0].name, stack)
        times[name] += 1
        name = name if times[name] == 1 else f"{name}#{times[name]}"
        sorted_out.append(Role(name, same[0].width, tuple(same)))
    return sorted_out
