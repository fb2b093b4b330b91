"""Groups: units that live on the same axes and can only be cut together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.graph.classes import Classes
from secateur.graph.ledger import KERNEL, Ledger, ParameterAxis


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
        kind: ``"channel"``, ``"head"`` or ``"expert"``.
        width: number of units.
        members: every axis on which the units lie.
        locked: nothing of it can be removed, because of ``reason``.
        least: so many units have to stay.
    """

    name: str
    kind: str
    width: int
    members: tuple[Member, ...]
    locked: bool
    reason: str = ""
    least: int = 1

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that produce the units: weights of layers, rows of embeddings."""
        return tuple(m for m in self.members if m.role == "out") or tuple(m for m in self.members if m.role == "along")

    def __str__(self) -> str:
        return f"{self.name} ({self.width})"


#: Labels that are looked at in one go, so that temporary arrays stay small.
_AT_ONCE = 1 << 20


def roles(ledger: Ledger) -> list[str]:
    """The role of every parameter axis."""
    starts = np.array([a.start for a in ledger.axes])
    found = ["along"] * len(ledger.axes)
    for label, names in ledger.roles.items():
        k = int(np.searchsorted(starts, label, side="right")) - 1
        found[k] = "out" if "out" in names else "in"
    return found


def build_groups(ledger: Ledger, classes: Classes) -> tuple[list[Group], np.ndarray]:
    """Collect classes that lie on the same axes, equally often, into groups.

    Axes of activations that count for the cost are looked at, too: units that differ there are not interchangeable.

    Returns:
        The groups in order of appearance, and the group of every class (-1 for a class that lies on no parameter).
    """
    count = int(classes.of.max()) + 1
    rng = np.random.default_rng(0)
    # Parameter axes bear runs of labels; one long line of all of them is handled in a few vectorised steps.
    lengths = np.array([axis.size for axis in ledger.axes], dtype=np.int64)
    starts = np.array([axis.start for axis in ledger.axes], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]) if len(lengths) else np.zeros(1, dtype=np.int64)
    every = np.empty(offsets[-1], dtype=classes.of.dtype)
    for start, size, offset in zip(starts.tolist(), lengths.tolist(), offsets.tolist()):
        every[offset : offset + size] = classes.of[start : start + size]
    signature = np.zeros(count, dtype=np.uint64)
    keys = rng.integers(1, 2**63, len(lengths), dtype=np.uint64)
    for some in np.array_split(np.arange(len(lengths)), 1 + offsets[-1] // _AT_ONCE) if len(lengths) else []:
        lines = slice(offsets[some[0]], offsets[some[-1] + 1]) if len(some) else slice(0, 0)
        np.add.at(signature, every[lines], np.repeat(keys[some], lengths[some]))
    on_parameter = np.zeros(count, dtype=bool)
    on_parameter[every] = True
    seen: set[bytes] = set()
    for ref in {id(ref): ref for term in ledger.terms for ref in term.axes if ref.systems}.values():
        for line in classes.lines(ref):
            if (key := line.tobytes()) not in seen:
                seen.add(key)
                np.add.at(signature, line, rng.integers(1, 2**63, dtype=np.uint64))

    lock_key = np.zeros(count, dtype=np.uint64)
    texts: dict[str, int] = {}
    for c in np.flatnonzero(classes.lock_of >= 0).tolist():
        reason = classes.reason(c)
        lock_key[c] = texts.setdefault(reason, len(texts) + 1)
        if reason == KERNEL:
            on_parameter[c] = False
    on_parameter[classes.of[0]] = False
    mixed = signature[on_parameter] ^ (lock_key[on_parameter] * np.uint64(0x9E3779B97F4A7C15))
    _, inverse = np.unique(mixed, return_inverse=True)
    group_of = np.full(count, -1, dtype=np.int32)
    group_of[on_parameter] = inverse.ravel()

    role_of = roles(ledger)
    members: dict[int, list[tuple[ParameterAxis, str, np.ndarray]]] = {}
    unit_of = np.full(count, -1, dtype=np.int32)
    order: dict[int, np.ndarray] = {}
    owners = group_of[every]
    for k, (axis, role) in enumerate(zip(ledger.axes, role_of)):
        line, owner = every[offsets[k] : offsets[k + 1]], owners[offsets[k] : offsets[k + 1]]
        first = int(owner[0])
        if (owner == first).all():
            found = [(first, None)]
        else:
            found = [(int(g), np.flatnonzero(owner == g)) for g in np.unique(owner)]
        for g, positions in found:
            if g < 0:
                continue
            here = line if positions is None else line[positions]
            if g not in order:
                distinct, place = np.unique(here, return_index=True)
                order[g] = distinct[np.argsort(place)]
                unit_of[order[g]] = np.arange(len(distinct))
            units, width = unit_of[here], len(order[g])
            # Mostly every unit has one index, in order.
            in_order = len(units) == width and bool((np.diff(units) > 0).all())
            by_unit = (
                np.arange(width, dtype=np.int32) if in_order else np.argsort(units, kind="stable").astype(np.int32)
            )
            by_unit = by_unit if positions is None else positions[by_unit]
            members.setdefault(g, []).append((axis, role, by_unit.reshape(width, -1)))

    leasts: dict[int, int] = {}
    for labels, least in ledger.leasts:
        for c in np.unique(classes.of[labels.numpy()]).tolist():
            leasts[c] = max(least, leasts.get(c, 1))
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
                kind="expert" if first in leasts else "head" if first in classes.heads else "channel",
                least=leasts.get(first, 1),
                width=len(order[g]),
                members=tuple(Member(a.tensor, a.axis, role, positions) for a, role, positions in found),
                locked=bool(classes.locked[first]),
                reason=classes.reason(first),
            )
        )
    lookup = np.array([index.get(g, -1) for g in range(int(group_of.max()) + 1)] + [-1])
    return groups, lookup[group_of]
