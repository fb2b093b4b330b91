"""``graph.explain(name)``: which groups something belongs to, what is tied to it, and through which operations.

The ledger notes where labels meet. What is tied to one unit is therefore a small graph: its labels are the nodes, the
meetings are the edges, and the shortest path to another axis is the chain of operations that ties the two.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from secateur._errors import UnknownName
from secateur.graph.clone import Mould
from secateur.graph.explanation import Explanation, GroupExplanation, Tie
from secateur.graph.groups import Member
from secateur.graph.labels import labels_of
from secateur.graph.ledger import KERNEL

if TYPE_CHECKING:
    from secateur.graph.trace import PruningGraph


def _describe(module: nn.Module) -> str:
    """A layer as it prints itself; of anything bigger, its class."""
    text = repr(module)
    return type(module).__name__ if "\n" in text else text


def _axis_list(tensor: str, axes: Sequence[int]) -> str:
    return tensor + ", ".join(f"[{axis}]" for axis in axes)


class Explainer:
    """Answers questions about one graph; what it needs for that is collected once, when the first one is asked."""

    def __init__(self, graph: PruningGraph):
        self.graph = graph
        ledger, classes = graph.ledger, graph.classes
        ties = [(labels_of(a), labels_of(b), where) for a, b, where in (*ledger.ties, *classes.grid_ties)]
        none = [np.zeros(0, dtype=np.int64)]
        self._a = np.concatenate([a for a, _, _ in ties] or none)
        self._b = np.concatenate([b for _, b, _ in ties] or none)
        self._tie = np.repeat(np.arange(len(ties)), [len(a) for a, _, _ in ties])
        self._where = [where for _, _, where in ties]
        known = (self._a > 0) & (self._b > 0)
        self._a, self._b, self._tie = self._a[known], self._b[known], self._tie[known]
        self._class = classes.of[self._a]
        self._axes = {(a.tensor, a.axis): a for a in ledger.axes}
        self._groups: dict[tuple[str, int], list[tuple[int, Member]]] = {}
        for k, group in enumerate(graph.groups):
            for member in group.members:
                self._groups.setdefault((member.tensor, member.axis), []).append((k, member))
        self._macs = graph.cost().macs
        self._group_macs = graph.group_macs()
        self._starts = [a.start for a in ledger.axes]

    def explain(self, name: str) -> Explanation:
        """See ``PruningGraph.explain``."""
        model = self.graph.model
        modules = dict(model.named_modules(remove_duplicate=False))
        tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        parameters = set(tensors)
        tensors |= dict(model.named_buffers(remove_duplicate=False))
        # Of those that did not run nothing is known.
        constants = {
            n: t for n, t in Mould(model).constants.items() if any((n, a) in self._axes for a in range(t.dim()))
        }
        tensors |= constants
        own = [n for n in tensors if not name or n.startswith(f"{name}.")]
        if name in modules and own:
            return self._of_tensors(name, _describe(modules[name]), own, tensors)
        if name in tensors:
            kind = "parameter" if name in parameters else "constant" if name in constants else "buffer"
            return self._of_tensors(name, f"{kind} of shape {tuple(tensors[name].shape)}", [name], tensors)
        for k, group in enumerate(self.graph.groups):
            if group.name == name:
                lead = (group.producers or group.members)[0]
                return Explanation(name, f"a group, seen from {lead}", (self._of_group(k, [lead]),), ())
        if name in modules:
            return Explanation(name, f"{_describe(modules[name])}, without a parameter", (), ())
        known = {*modules, *tensors, *(g.name for g in self.graph.groups)} - {""}
        raise UnknownName("module, parameter or group", name, known, hint="print(graph) lists the groups")

    def _of_tensors(self, name: str, what: str, own: Sequence[str], tensors: dict[str, Tensor]) -> Explanation:
        # The axes of a tensor that has several names are noted under the first of them.
        first: dict[int, str] = {}
        for tensor, t in tensors.items():
            first.setdefault(id(t), tensor)
        here: dict[int, list[Member]] = {}
        never: list[str] = []
        for tensor in dict.fromkeys(first[id(tensors[n])] for n in own):
            t = tensors[tensor]
            labelled = [axis for axis in range(t.dim()) if (tensor, axis) in self._axes]
            taps = [axis for axis, n in enumerate(t.shape) if n > 1 and (tensor, axis) not in self._groups]
            if taps and (labelled or tensor in self.graph.ledger.taps):
                never.append(f"{_axis_list(tensor, taps)} ({KERNEL})")
            elif not labelled and t.numel() > 1:
                never.append(f"{tensor} ({str(t.dtype).removeprefix('torch.')})")
            for axis in labelled:
                for k, member in self._groups.get((tensor, axis), ()):
                    here.setdefault(k, []).append(member)
        return Explanation(name, what, tuple(self._of_group(k, found) for k, found in here.items()), tuple(never))

    # -- one group ------------------------------------------------------------------------------------------------

    def _of_group(self, index: int, here: Sequence[Member]) -> GroupExplanation:
        group = self.graph.groups[index]
        others = [m for m in group.members if not any(m is h for h in here)]
        # All units of a group are tied in the same way, so the first one speaks for all.
        starts = np.concatenate([self._labels(m) for m in here])
        paths = self._paths(starts)
        on = {(m.tensor, m.axis): m for m in others}
        ends = {m: paths.nearest(np.searchsorted(paths.labels, self._labels(m))) for m in others}
        ties = [self._tie_of(m, end, on, paths) for m, end in sorted(ends.items(), key=lambda e: paths.distance[e[1]])]
        chain: tuple[str, ...] = ()
        if group.locked:
            locked = [labels for labels, reason in self.graph.classes.locks if reason == group.reason]
            met = np.flatnonzero(np.isin(paths.labels, np.concatenate([*locked, np.zeros(0, dtype=np.int64)])))
            if len(met):
                chain = _operations(self._walk(paths.nearest(met), paths))
        macs = self._group_macs[group.name] / self._macs if self._macs else 0.0
        return GroupExplanation(group, tuple(here), tuple(ties), chain, macs)

    def _tie_of(self, member: Member, end: int, on: dict[tuple[str, int], Member], paths: _Paths) -> Tie:
        walk = list(self._walk(end, paths))
        via, step = None, len(walk)
        for k, (_, label) in enumerate(walk):
            axis = self.graph.ledger.axes[bisect_right(self._starts, label) - 1]
            beside = on.get((axis.tensor, axis.axis)) if label < axis.start + axis.size else None
            if beside is not None and beside is not member:
                via, step = beside, k + 1
                break
        return Tie(member, via, _operations(walk[:step]), _operations(walk))

    def _walk(self, end: int, paths: _Paths) -> Iterator[tuple[str, int]]:
        """From a label back to the start: the operation of every edge, and the label behind it."""
        while (before := int(paths.before[end])) >= 0:
            yield self._where[paths.edges[before, end]], int(paths.labels[before])
            end = before

    def _labels(self, member: Member) -> np.ndarray:
        """The labels of the first unit on an axis."""
        return self._axes[member.tensor, member.axis].start + member.positions[0]

    def _paths(self, starts: np.ndarray) -> _Paths:
        """Shortest paths from any of ``starts`` to every label of their classes."""
        inside = np.isin(self._class, np.unique(self.graph.classes.of[starts]))
        a, b, tie = self._a[inside], self._b[inside], self._tie[inside]
        labels = np.unique(np.concatenate([a, b, starts]))
        i, j = np.searchsorted(labels, a), np.searchsorted(labels, b)
        # Loaded here, because a trace does not need it.
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import dijkstra

        matrix = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(labels), len(labels))).tocsr()
        sources = np.searchsorted(labels, np.unique(starts))
        distance, before, _ = dijkstra(
            matrix, directed=False, indices=sources, unweighted=True, return_predecessors=True, min_only=True
        )
        edges: dict[tuple[int, int], int] = {}
        used = (before[i] == j) | (before[j] == i)
        for x, y, t in zip(i[used].tolist(), j[used].tolist(), tie[used].tolist()):
            edges.setdefault((x, y), t)
            edges.setdefault((y, x), t)
        return _Paths(labels, distance, before, edges)


@dataclass(frozen=True)
class _Paths:
    """Shortest paths between labels, which are known by their position in ``labels`` (ascending).

    ``before`` is the position of the one before it, negative at a start; ``edges`` holds the first tie of each edge.
    """

    labels: np.ndarray
    distance: np.ndarray
    before: np.ndarray
    edges: dict[tuple[int, int], int]

    def nearest(self, positions: np.ndarray) -> int:
        return int(positions[np.argmin(self.distance[positions])])


def _operations(walk: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """The operations of a walk from its start on, each once in a row."""
    found = [where for where, _ in walk]
    return tuple(reversed([where for k, where in enumerate(found) if k == 0 or where != found[k - 1]]))
