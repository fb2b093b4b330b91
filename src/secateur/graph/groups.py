"""Groups: units that live on the same axes and can only be cut together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.graph.classes import Classes
from secateur.graph.ledger import KERNEL, AxisRef, Ledger, ParameterAxis


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one tensor on which the units of a group lie.

    Attributes:
        tensor: name of the parameter or buffer.
        axis: which axis.
        role: ``"out"`` (the rows that produce the units), ``"in"`` (the columns that read them) or ``"along"`` (one
            number per unit: biases, norms, statistics).
        positions: indices of each unit on the axis, shape ``[width, indices per unit]``.
    """

    tensor: str
    axis: int
    role: str
    positions: np.ndarray

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]"


@dataclass(frozen=True, eq=False)
class Group:
    """A width of the network.

    Attributes:
        name: the module that produces the units (the first of them).
        kind: ``"channel"`` or ``"head"``.
        width: number of units.
        members: every axis on which the units lie.
        locked: nothing of it can be removed, because of ``reason``.
    """

    name: str
    kind: str
    width: int
    members: tuple[Member, ...]
    locked: bool
    reason: str = ""

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that produce the units: weights of layers, rows of embeddings."""
        return tuple(m for m in self.members if m.role == "out") or tuple(m for m in self.members if m.role == "along")

    def __str__(self) -> str:
        return f"{self.name} ({self.width})"


def roles(ledger: Ledger) -> list[str]:
    """The role of every parameter axis."""
    starts = np.array([a.start for a in ledger.axes])
    found = ["along"] * len(ledger.axes)
    for label, names in ledger.roles.items():
        k = int(np.searchsorted(starts, label, side="right")) - 1
        found[k] = "out" if "out" in names else "in"
    return found


def build_groups(ledger: Ledger, classes: Classes, others: list[AxisRef]) -> tuple[list[Group], np.ndarray]:
    """Collect classes that lie on the same axes, equally often, into groups.

    Args:
        others: axes of activations that count for the cost; units that differ on them are not interchangeable.

    Returns:
        The groups in order of appearance, and the group of every class (-1 for a class that lies on no parameter).
    """
    count = int(classes.of.max()) + 1
    rng = np.random.default_rng(0)
    signature = np.zeros(count, dtype=np.uint64)
    on_parameter = np.zeros(count, dtype=bool)

    def stamp(line: np.ndarray) -> None:
        key = rng.integers(1, 2**63, dtype=np.uint64)
        found, times = np.unique(line, return_counts=True)
        signature[found] += key * times.astype(np.uint64)

    for axis in ledger.axes:
        line = classes.of[axis.start : axis.start + axis.size]
        stamp(line)
        on_parameter[line] = True
    seen: set[bytes] = set()
    for ref in others:
        for line in classes.lines(ref):
            if (key := line.tobytes()) not in seen:
                seen.add(key)
                stamp(line)

    lock_key = np.zeros(count, dtype=np.uint64)
    texts = {reason: k + 1 for k, reason in enumerate(dict.fromkeys(classes.reasons.values()))}
    for c, reason in classes.reasons.items():
        lock_key[c] = texts[reason]
        if reason == KERNEL:
            on_parameter[c] = False
    on_parameter[classes.of[0]] = False
    pair = np.stack([signature[on_parameter], lock_key[on_parameter]])
    _, inverse = np.unique(pair, axis=1, return_inverse=True)
    group_of = np.full(count, -1, dtype=np.int64)
    group_of[on_parameter] = inverse.ravel()

    role_of = roles(ledger)
    members: dict[int, list[tuple[ParameterAxis, str, np.ndarray]]] = {}
    unit_of = np.zeros(count, dtype=np.int64)
    order: dict[int, np.ndarray] = {}
    for axis, role in zip(ledger.axes, role_of):
        line = classes.of[axis.start : axis.start + axis.size]
        owners = group_of[line]
        for g in np.unique(owners):
            if g < 0:
                continue
            positions = np.flatnonzero(owners == g)
            if g not in order:
                distinct, first = np.unique(line[positions], return_index=True)
                order[g] = distinct[np.argsort(first)]
                unit_of[order[g]] = np.arange(len(distinct))
            units = unit_of[line[positions]]
            by_unit = positions[np.argsort(units, kind="stable")].reshape(len(order[g]), -1)
            members.setdefault(int(g), []).append((axis, role, by_unit))

    groups, index = [], {}
    taken: dict[str, int] = {}
    for g, found in members.items():
        lead = next((m for m in found if m[1] == "out"), found[0])
        name = lead[0].tensor.rpartition(".")[0] or lead[0].tensor
        name = f"{name} input" if lead[1] == "in" else name
        taken[name] = taken.get(name, 0) + 1
        name = name if taken[name] == 1 else f"{name}#{taken[name]}"
        first = int(order[g][0])
        index[g] = len(groups)
        groups.append(
            Group(
                name=name,
                kind="head" if first in classes.heads else "channel",
                width=len(order[g]),
                members=tuple(Member(a.tensor, a.axis, role, positions) for a, role, positions in found),
                locked=first in classes.reasons,
                reason=classes.reasons.get(first, ""),
            )
        )
    lookup = np.array([index.get(g, -1) for g in range(int(group_of.max()) + 1)] + [-1])
    return groups, lookup[group_of]
