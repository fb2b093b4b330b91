"""Which groups do the same job in every layer of a stack."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from secateur.graph import Group, PruningGraph


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


def _numberless(text: str) -> str:
    return re.sub(r"\d+", "*", text)


def layers(model: nn.Module) -> set[str]:
    """Paths of the modules that are layers of a stack.

    A layer is one of several siblings that are of one class, are made of other modules, and whose names differ in a
    number only: ``encoder.layer.0``, ``denseblock1.denselayer3``. Siblings that only hold a list (the stages of a
    ResNet) are no layers, and neither are the convolutions of a plain chain.
    """
    found: set[str] = set()
    for path, module in model.named_modules():
        kinds: Counter[tuple[type, str]] = Counter()
        children = [
            (name, child)
            for name, child in module.named_children()
            if not isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
            and any(True for _ in child.children())
        ]
        for name, child in children:
            kinds[type(child), _numberless(name)] += 1
        for name, child in children:
            if kinds[type(child), _numberless(name)] > 1 and _numberless(name) != name:
                found.add(f"{path}.{name}" if path else name)
    return found


def stripped(name: str, stack: set[str]) -> str:
    """A name with ``*`` for the number of every layer in it."""
    parts = name.split(".")
    for k in range(len(parts)):
        if ".".join(name.split(".")[: k + 1]) in stack:
            parts[k] = _numberless(parts[k])
    return ".".join(parts)


def roles(graph: PruningGraph, groups: Iterable[Group]) -> list[Role]:
    """Sort groups by role, in order of appearance."""
    stack = layers(graph.model)
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
