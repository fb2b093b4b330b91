"""What ``graph.explain`` gives back, and how it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from secateur.graph.groups import Group, Member

#: Groups that are printed, rows of one of them, rows of all together, rows of one among many, what is never cut.
_MOST_GROUPS, _MOST_ROWS, _ALL_ROWS, _LEAST_ROWS, _MOST_NEVER = 8, 16, 36, 4, 4
_WIDEST, _DEEPEST = 80, 8


@dataclass(frozen=True, eq=False)
class Tie:
    """Another axis on which the units lie.

    Attributes:
        member: the axis.
        via: the axis on the way that is nearest to it, ``None`` where that is the axis that was asked for.
        step: the operations between ``via`` and ``member``, usually one.
        chain: all operations on the shortest way, the nearest to what was asked for first:
            ``("layer1.0 (add_)", "layer1.1.conv1 (convolution)")``.
    """

    member: Member
    via: Member | None
    step: tuple[str, ...]
    chain: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GroupExplanation:
    """One group that lies on what was asked for.

    Attributes:
        group: the group, with ``locked`` and ``reason``.
        here: the axes of what was asked for on which it lies.
        ties: every other axis, those that the fewest operations tie first.
        lock_chain: the operations between here and the place where the reason of the lock arose; empty if it arose
            here or if there is no lock.
        macs: share of the model's multiply-accumulates in the layers that have this width.
    """

    group: Group
    here: tuple[Member, ...]
    ties: tuple[Tie, ...]
    lock_chain: tuple[str, ...]
    macs: float

    def lines(self, most: int = _MOST_ROWS) -> Iterator[str]:
        """The explanation as text, with at most so many rows."""
        group = self.group
        units = f"{group.width} {group.kind}{'' if group.width == 1 else 's'}"
        state = "locked" if group.locked or group.width < 2 else "can be cut"
        share = f", in layers with {self.macs:.1%} of the MACs" if self.macs >= 0.0005 else ""
        yield f"group {group.name}: {units}, {state}{share}"
        if group.locked:
            yield f"  it {group.reason}" if _is_verb(group.reason) else f"  {group.reason}"
            if self.lock_chain:
                yield f"  on the way from here: {' > '.join(_short(self.lock_chain))}"
        elif group.width < 2:
            yield "  it is a single unit"
        yield "  here"
        yield from _limited([f"    {_row(members)}" for members in _alike(self.here)], most)
        if not self.ties:
            return
        axes = f"{len(self.ties)} other {'axis' if len(self.ties) == 1 else 'axes'}"
        yield f"  tied to it: {axes}, through the operations on the right"
        yield from _tree(self.ties, most)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What ``graph.explain`` found; ``str()`` is for reading, the attributes hold everything.

    Attributes:
        name: what was asked for.
        what: what that is.
        groups: the groups that lie on it, in the order of its axes.
        never: axes and tensors of it that are never cut, with the reason.
    """

    name: str
    what: str
    groups: tuple[GroupExplanation, ...]
    never: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        groups = [
            {
                "name": e.group.name,
                "kind": e.group.kind,
                "width": e.group.width,
                "locked": e.group.locked,
                "reason": e.group.reason,
                "lock_chain": list(e.lock_chain),
                "macs_share": e.macs,
                "here": [str(m) for m in e.here],
                "ties": [{"member": str(t.member), "role": t.member.role, "chain": list(t.chain)} for t in e.ties],
            }
            for e in self.groups
        ]
        return {"name": self.name, "what": self.what, "groups": groups, "never": list(self.never)}

    def __str__(self) -> str:
        lines = [f"{self.name or 'the model'}: {self.what}"]
        shown, more = self.groups[:_MOST_GROUPS], self.groups[_MOST_GROUPS:]
        for found in shown:
            lines += ["", *found.lines(min(_MOST_ROWS, max(_ALL_ROWS // len(shown), _LEAST_ROWS)))]
        if more:
            names = ", ".join(str(e.group) for e in more[:_MOST_GROUPS])
            lines += ["", f"and {len(more)} more groups: {names}{', …' if len(more) > _MOST_GROUPS else ''}"]
        if not self.groups:
            lines += ["", "nothing of it belongs to a group"]
        if self.never:
            lines += ["", "never cut", *_limited([f"  {text}" for text in self.never], _MOST_NEVER)]
        return "\n".join(lines)


def _limited(lines: Sequence[str], most: int) -> list[str]:
    """The first lines, and how many more there are."""
    if len(lines) <= most + 1:
        return list(lines)
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return [*lines[:most], f"{indent}and {len(lines) - most} more"]


def _is_verb(reason: str) -> bool:
    """Does a reason go on from "it"?"""
    return reason.partition(" ")[0] in {"reaches", "meets", "lies"}


def _short(chain: Sequence[str]) -> list[str]:
    """The operations in order; the middle of a long chain is only counted."""
    return [*chain[:3], f"{len(chain) - 6} more", *chain[-3:]] if len(chain) > 7 else list(chain)


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """Axes of one module with the same role, together."""
    found: dict[tuple[str, str], list[Member]] = {}
    for member in members:
        found.setdefault((member.tensor.rpartition(".")[0], member.role), []).append(member)
    return list(found.values())


def _row(members: Sequence[Member], depth: int = 0) -> str:
    """``along  bn1.weight[0], .bias[0]``, and how many entries a unit has where that is not one."""
    first, *rest = members
    names = [str(first), *(f".{m.tensor.rpartition('.')[2]}[{m.axis}]" for m in rest)]
    each = first.positions.shape[1]
    return f"{first.role:7}{'  ' * depth}{', '.join(names)}{f' ({each} entries each)' if each > 1 else ''}"


@dataclass(eq=False)
class _Row:
    """Axes that print on one line, and what hangs on them."""

    members: list[Member]
    step: tuple[str, ...]
    below: list[_Row] = field(default_factory=list)

    def lines(self, depth: int) -> Iterator[tuple[str, str]]:
        home = self.members[0].tensor.rpartition(".")[0]
        yield _row(self.members, min(depth, _DEEPEST)), " > ".join(_at(where, home) for where in _short(self.step))
        for row in self.below:
            yield from row.lines(depth + 1)


def _at(where: str, home: str) -> str:
    """``add_ in layer1.0`` for ``layer1.0 (add_)``; only ``add_`` in the module of the axis itself."""
    found = re.fullmatch(r"(.+) \((\w+)\)", where)
    if found is None or where.startswith("layout "):
        return where
    return found[2] if found[1] == home else f"{found[2]} in {found[1]}"


def _tree(ties: Sequence[Tie], most: int) -> Iterator[str]:
    """A row for every axis, below the axis that it is tied to and followed by the operation that ties the two."""
    roots: list[_Row] = []
    row_of: dict[int, _Row] = {}
    count = hidden = 0
    for tie in ties:
        if tie.via is not None and id(tie.via) not in row_of:
            hidden += 1
            continue
        siblings = roots if tie.via is None else row_of[id(tie.via)].below
        mine = (tie.member.tensor.rpartition(".")[0], tie.member.role, tie.step)
        like = [r for r in siblings if (r.members[0].tensor.rpartition(".")[0], r.members[0].role, r.step) == mine]
        if like:
            like[0].members.append(tie.member)
        elif count < most:
            siblings.append(_Row([tie.member], tie.step))
            count += 1
        else:
            hidden += 1
            continue
        row_of[id(tie.member)] = like[0] if like else siblings[-1]
    texts = [line for row in roots for line in row.lines(0)]
    width = min(max(len(text) for text, _ in texts), _WIDEST)
    for text, step in texts:
        yield f"    {text.ljust(width)}  {step}"
    if hidden:
        yield f"    and {hidden} more"
