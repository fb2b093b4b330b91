"""Groups: units that live on the same axes and can only be cut together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from secateur.graph.classes import Classes
from secateur.graph.ledger import KERNEL, Ledger
from secateur.graph.runs import Runs, places


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one tensor on which the units of a group lie.

    Attributes:
        tensor: name of the parameter, buffer or constant.
        axis: which axis.
        role: ``"out"`` (the rows that produce the units), ``"in"`` (the columns that read them) or ``"along"`` (one
            number per unit: biases, norms, statistics).
        positions: indices of each unit on the axis, shape ``[width, indices per unit]``.
    """

    tensor: str
    axis: int
    role: str
    positions: np.ndarray = field(repr=False)

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


def roles(ledger: Ledger) -> list[str]:
    """The role of every parameter axis."""
    starts = np.array([a.start for a in ledger.axes])
    found = ["along"] * len(ledger.axes)
    axes = np.searchsorted(starts, np.array(list(ledger.roles), dtype=np.int64), side="right") - 1
    for k, names in zip(axes.tolist(), ledger.roles.values()):
        found[k] = "out" if "out" in names else "in"
    return found


def build_groups(ledger: Ledger, classes: Classes) -> tuple[list[Group], np.ndarray]:
    """Collect classes that lie on the same axes, equally often, into groups.

    Axes of activations that count for the cost are looked at, too: units that differ there are not interchangeable.

    Returns:
        The groups in order of appearance, and the group of every class (-1 for a class that lies on no parameter).
    """
    if not ledger.axes:
        return [], np.full(len(classes.locked), -1, dtype=np.int32)
    group_of = _interchangeable(ledger, classes)
    first, width, unit_of = _units(group_of)
    groups, index = [], np.full(len(width) + 1, -1, dtype=np.int32)
    taken: dict[str, int] = {}
    leasts: dict[int, int] = {}
    for labels, least in ledger.leasts:
        for c in np.unique(classes.of[labels.numpy()]).tolist():
            leasts[c] = max(least, leasts.get(c, 1))
    for g, members in _members(ledger, classes, group_of, unit_of, width).items():
        lead = next((m for m in members if m.role == "out"), members[0])
        name = lead.tensor.rpartition(".")[0] or lead.tensor
        name = f"{name} input" if lead.role == "in" else name
        taken[name] = taken.get(name, 0) + 1
        name = name if taken[name] == 1 else f"{name}#{taken[name]}"
        c = int(first[g])
        index[g] = len(groups)
        groups.append(
            Group(
                name=name,
                kind="expert" if c in leasts else "head" if c in classes.heads else "channel",
                least=leasts.get(c, 1),
                width=int(width[g]),
                members=tuple(members),
                locked=bool(classes.locked[c]),
                reason=classes.reason(c),
            )
        )
    return groups, index[group_of]


def _keys(count: int) -> np.ndarray:
    """Numbers whose sums tell what was added up; at least a thousand are made at once, as making any takes long."""
    return _many_keys(max(1024, 1 << count.bit_length()))[:count]


@cache
def _many_keys(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2**63, count, dtype=np.uint64)


def _interchangeable(ledger: Ledger, classes: Classes) -> np.ndarray:
    """A number for all classes that lie on the same axes and are locked for the same reason; -1 off parameters."""
    count = len(classes.locked)
    refs = {id(ref): ref for term in ledger.terms for ref in term.axes if ref.systems}.values()
    lines = {id(line): line for ref in refs for line in classes.lines(ref)}
    keys = _keys(len(ledger.axes) + len(lines))
    runs, line_of = classes.on_parameters
    of_line = np.zeros(len(ledger.axes), dtype=np.uint64)
    np.add.at(of_line, line_of, keys[: len(ledger.axes)])
    signature = runs.sums(of_line, count)
    signature += Runs.of(list(lines.values())).sums(keys[len(ledger.axes) :], count)
    # Classes are numbered by their first labels, so those on parameters come first.
    on_parameter = np.zeros(count, dtype=bool)
    on_parameter[: int((runs.first + runs.length).max())] = True
    on_parameter[classes.of[0]] = False

    locked = np.flatnonzero(classes.lock_of >= 0)
    which = classes.lock_of[locked]
    locks, first = np.unique(which, return_index=True)
    key_of = np.zeros(len(classes.locks), dtype=np.uint64)
    texts: dict[str, int] = {}
    for lock in locks[np.argsort(first)].tolist():
        reason = classes.locks[lock][1]
        key_of[lock] = texts.setdefault(reason, len(texts) + 1)
    signature[locked] ^= key_of[which] * np.uint64(0x9E3779B97F4A7C15)
    if KERNEL in texts:
        on_parameter[locked[key_of[which] == texts[KERNEL]]] = False
    # Neighbours are mostly alike, so few of them have to be sorted.
    signature = signature[on_parameter]
    heads = np.flatnonzero(np.append(True, signature[1:] != signature[:-1])[: len(signature)])
    _, inverse = np.unique(signature[heads], return_inverse=True)
    group_of = np.full(count, -1, dtype=np.int32)
    group_of[on_parameter] = np.repeat(inverse, np.diff(heads, append=len(signature)))
    return group_of


def _units(group_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first class and the width of every group, and which unit of its group every class is."""
    starts = np.flatnonzero(np.append(True, group_of[1:] != group_of[:-1]))
    lengths, group = np.diff(starts, append=len(group_of)), group_of[starts]
    order = np.argsort(group, kind="stable")
    before = np.cumsum(lengths[order]) - lengths[order]
    numbers, head = np.unique(group[order], return_index=True)
    unit = np.empty(len(starts), dtype=np.int32)
    unit[order] = before - np.repeat(before[head], np.diff(head, append=len(order)))
    unit_of = np.repeat(unit, lengths) + places(lengths).astype(np.int32)
    free = numbers >= 0
    return starts[order[head[free]]], np.diff(before[head], append=len(group_of))[free], unit_of


def _members(
    ledger: Ledger, classes: Classes, group_of: np.ndarray, unit_of: np.ndarray, width: np.ndarray
) -> dict[int, list[Member]]:
    """The members of every group, groups in order of appearance."""
    runs, line_of = classes.on_parameters
    parts = _parts(runs, group_of, unit_of, width)
    found: dict[int, list[Member]] = {}
    for axis, role, line in zip(ledger.axes, roles(ledger), line_of):
        for g, positions in parts.get(line, ()):
            found.setdefault(g, []).append(Member(axis.tensor, axis.axis, role, positions))
    return found


def _parts(
    runs: Runs, group_of: np.ndarray, unit_of: np.ndarray, width: np.ndarray
) -> dict[int, list[tuple[int, np.ndarray]]]:
    """The groups that lie on each line, and where: indices of shape ``[width, indices per unit]``."""
    runs = runs.split(np.flatnonzero(group_of[1:] != group_of[:-1]) + 1)
    group, unit = group_of[runs.first], unit_of[runs.first]
    key = runs.line * (len(width) + 1) + group + 1
    order = np.argsort(key, kind="stable")
    order = order[group[order] >= 0]
    heads = np.flatnonzero(np.diff(key[order], prepend=-1))
    ends = np.append(heads[1:], len(order))
    one = order[heads]
    # Mostly every unit has one index, in order, and all such parts can share their numbers.
    simple = (ends - heads == 1) & (unit[one] == 0) & (runs.length[one] == width[group[one]])
    upwards = np.arange(int((runs.place + runs.length).max()), dtype=np.int32)[:, None]
    found: dict[int, list[tuple[int, np.ndarray]]] = {}
    columns = (runs.line[one], group[one], runs.place[one], runs.length[one], simple, heads, ends)
    for line, g, place, length, is_simple, head, end in zip(*(column.tolist() for column in columns)):
        if is_simple:
            positions = upwards[place : place + length]
        else:
            some = order[head:end]
            nth = places(runs.length[some])
            indices = (np.repeat(runs.place[some], runs.length[some]) + nth).astype(np.int32)
            units = np.repeat(unit[some], runs.length[some]) + nth
            positions = indices[np.argsort(units, kind="stable")].reshape(int(width[g]), -1)
        found.setdefault(line, []).append((g, positions))
    return found
