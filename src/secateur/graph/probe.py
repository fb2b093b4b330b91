"""From dry runs to what has to hold for a cut model to run: literals, ties and locks.

Where the model's code does not follow a random cut, the first proposal of ``mend.py`` that carries it further is taken.
What nothing carries further is locked, with the line of the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from secateur.graph.capture import Capture
from secateur.graph.classes import Classes
from secateur.graph.dry_run import Failure, RandomCut, dry_run
from secateur.graph.groups import Group, build_groups
from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import Literal
from secateur.graph.mend import DIVIDING, Mender, Tie

_MOST_ROUNDS = 200
#: How many dry runs may be spent on looking for the best way, without numbers and on real tensors, where each takes as
#: long as the model. After that, what fails is locked without a search, so that no model takes for ever.
_MOST_RUNS = {True: 2000, False: 20}
#: How many pairs of widths are tried at one failure: each asks for new classes and a dry run.
_MOST_COUPLINGS = 24

_LAYING_OUT = {"view", "_unsafe_view", "reshape", "_reshape_alias"}

Lock = tuple[np.ndarray, str]


@dataclass(frozen=True)
class _Findings:
    """What has been found so far, with what follows from it."""

    recorded: Capture
    literals: tuple[Literal, ...]
    ties: tuple[Tie, ...]
    locks: tuple[Lock, ...]
    settled: tuple[Classes, list[Group], np.ndarray]
    spent: Counter[str]
    runs: dict[int, Failure | None] = field(default_factory=dict)

    @classmethod
    def settle(
        cls, recorded: Capture, literals: tuple[Literal, ...], ties: tuple, locks: tuple, spent: Counter[str]
    ) -> _Findings:
        classes = Classes(recorded.ledger, locks, ties)
        return cls(recorded, literals, ties, locks, (classes, *build_groups(recorded.ledger, classes)), spent)

    @property
    def classes(self) -> Classes:
        return self.settled[0]

    @property
    def groups(self) -> list[Group]:
        return self.settled[1]

    @property
    def free(self) -> int:
        """The number of units that can be removed."""
        return sum(g.width for g in self.groups if not g.locked and g.width > 1)

    def bind(self, literals: list[Literal]) -> _Findings:
        """More literals: classes stay as they are."""
        return _Findings(self.recorded, (*self.literals, *literals), self.ties, self.locks, self.settled, self.spent)

    def tie(self, ties: list[Tie]) -> _Findings:
        return self.settle(self.recorded, self.literals, (*self.ties, *ties), self.locks, self.spent)

    def lock(self, locks: list[Lock]) -> _Findings:
        return self.settle(self.recorded, self.literals, self.ties, (*self.locks, *locks), self.spent)

    def dry_run(self, seed: int) -> Failure | None:
        """Cut at random and run; what came of it is remembered."""
        if seed not in self.runs:
            self.spent["runs"] += 1
            self.runs[seed] = dry_run(self.recorded, RandomCut(*self.settled, seed), list(self.literals))
        return self.runs[seed]

    @property
    def reach(self) -> int:
        """How many operations both cuts run."""
        ends = [self.dry_run(seed) for seed in (0, 1)]
        return min(len(self.recorded.operations) if f is None else f.index for f in ends)

    def passes(self, index: int) -> bool:
        """Whether two different cuts run past an operation."""
        return all((f := self.dry_run(seed)) is None or f.index > index for seed in (0, 1))


@dataclass(frozen=True)
class Settled:
    """What a probe ends with: classes, their groups, the group of every class, and literals."""

    classes: Classes
    groups: list[Group]
    group_of: np.ndarray
    literals: tuple[Literal, ...]


class Prober:
    """Finds literals, ties and locks until random cuts of the skeleton run as the labels say."""

    def __init__(self, recorded: Capture):
        self.recorded = recorded
        self.findings = _Findings.settle(recorded, tuple(recorded.ledger.literals), (), (), Counter())

    @cached_property
    def mender(self) -> Mender:
        return Mender(self.recorded)

    def run(self) -> Settled:
        delicate = self._delicate()
        if not (delicate or self.recorded.handles_sizes):
            return Settled(*self.findings.settled, self.findings.literals)
        # A group of two is cut in every second run only, so that two of them do not always lose alike.
        mended = delicate or any(g.width == 2 and not g.locked for g in self.findings.groups)
        for _ in range(_MOST_ROUNDS if self.recorded.on_meta else 2 * _MOST_RUNS[False]):
            if not self.findings.free:
                break
            # Code that followed the first cut without help follows the second; mended code has to show it twice.
            seeds = (0, 1) if mended else (0,)
            failure = next((f for seed in seeds if (f := self.findings.dry_run(seed))), None)
            if failure is None:
                break
            mended = True
            self.findings = self._mended(failure) or self._locked(failure)
        else:
            self.findings = self._lock_everything("no cut of this model could be made to run")
        return Settled(*self.findings.settled, self.findings.literals)

    def _mended(self, failure: Failure) -> _Findings | None:
        """The literals that carry furthest, of equal ones the first; if none do, the first ties that do."""
        best: _Findings | None = None
        for proposal in self._bindings(failure):
            if self._hurried:
                return best
            if proposal.passes(failure.index) and (best is None or proposal.reach > best.reach):
                best = proposal
            if best is not None and best.reach == len(self.recorded.operations):
                return best
        for proposal in self._couplings(failure) if best is None else ():
            if self._hurried:
                return None
            if proposal.passes(failure.index):
                return proposal
        return best

    @property
    def _hurried(self) -> bool:
        return self.findings.spent["runs"] >= _MOST_RUNS[self.recorded.on_meta]

    def _delicate(self) -> bool:
        """Whether the code divides axes by numbers of its own, which one random cut may happen to suit."""
        return any(
            o.inputs and (o.name in DIVIDING or any(len(varying(s)) > 1 for out in o.outputs for s in out))
            for o in self.recorded.operations
            if o.name in DIVIDING or o.name in _LAYING_OUT
        )

    def _bindings(self, failure: Failure) -> Iterator[_Findings]:
        """Literals, which cost no freedom."""
        findings, seen = self.findings, set()
        for index in self.mender.window(failure.index):
            for literals in self.mender.literals(index, findings.classes, findings.literals):
                if (key := self._key(literals)) not in seen:
                    seen.add(key)
                    yield findings.bind(literals)

    def _couplings(self, failure: Failure) -> Iterator[_Findings]:
        """Ties, which cost some, alone and with literals."""
        tried = 0
        for index in self.mender.window(failure.index):
            for ties in self.mender.couplings(index, self.findings.classes):
                if (tried := tried + 1) > _MOST_COUPLINGS:
                    return
                tied = self.findings.tie(ties)
                yield tied
                for literals in self.mender.literals(index, tied.classes, tied.literals):
                    yield tied.bind(literals)

    def _key(self, literals: list[Literal]) -> tuple:
        """Literals that say the same have the same key, whichever operation they were read off."""
        lines = self.findings.classes.lines
        return tuple((x.module, x.attribute, x.index, *(a.tobytes() for a in lines(x.axis))) for x in literals)

    # -- locking --------------------------------------------------------------------------------------------------

    def _locked(self, failure: Failure) -> _Findings:
        """Lock the nearest thing that is still free: an axis, the operation's labels, its module's inputs, …"""
        operations = self.recorded.operations
        operation = operations[failure.index]
        kind = self.mender.kind(operation.module).__name__
        where = f"{kind} [{failure.line}]" if failure.line else operation.module or "the model"
        reason = f"the code of {where} does not follow a cut: {failure.what}"
        if self.recorded.ledger.count > len(self.findings.classes.of):
            # Proposals have brought new labels: of single axes of a layout, say.
            self.findings = self.findings.lock([])
        if failure.number and self._hurried and not self.recorded.on_meta:
            return self._without_numbers(failure)
        if failure.number and not self._hurried and (found := self._without(failure, reason)) is not None:
            return found
        partial: list[_Findings] = []
        tried: set[bytes] = set()
        for labels in self.mender.single_axes(failure.index):
            if self._hurried or not len(free := self._free(labels)) or free.tobytes() in tried:
                continue
            tried.add(free.tobytes())
            locked = self.findings.lock([(free, reason)])
            if locked.passes(failure.index):
                partial.append(locked)
        if partial:
            return max(partial, key=lambda found: found.free)
        twins = [operations[k] for k in self.mender.alike(failure.index)]
        labels = self._free(_labels([s for o in twins for s in (*o.inputs, *(t for out in o.outputs for t in out))]))
        modules = {o.module for o in twins}
        while not len(labels):
            labels = self._free(_labels([s for m in modules for s in self.recorded.entering.get(m, ())]))
            labels = labels if len(labels) else self._free(self._parameters(modules))
            if modules == {""}:
                break
            modules = {m.rpartition(".")[0] for m in modules}
        return self.findings.lock([(labels, reason)]) if len(labels) else self._lock_everything(reason)

    def _without(self, failure: Failure, reason: str) -> _Findings | None:
        """Lock the one width that a number was worked out of, found by halving; ``None`` if it is not one."""
        classes, groups, group_of = self.findings.settled
        suspects = [k for k, g in enumerate(groups) if not g.locked and g.width > 1]
        literals = list(self.findings.literals)

        def guilty(some: list[int]) -> bool:
            seeds = (0, 1) if self.recorded.on_meta else (0,)
            cuts = (RandomCut(classes, groups, group_of, seed, set(some)) for seed in seeds)
            self.findings.spent["runs"] += len(seeds)
            found = [dry_run(self.recorded, cut, literals) for cut in cuts]
            return any(f is not None and f.number and f.index == failure.index for f in found)

        middle = len(suspects) // 2
        if not self.recorded.on_meta and middle and guilty(suspects[:middle]) and guilty(suspects[middle:]):
            # Whatever is cut, the number is another: it was worked out of values, not of a size.
            return self._without_numbers(failure)
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            suspects = half if guilty(half) else suspects[len(suspects) // 2 :]
        if not suspects or not guilty(suspects):
            return None
        members = np.flatnonzero(group_of == suspects[0])
        lines = self.mender.lines(members, classes)
        if len(lines):
            # Another axis of the same layout may do as the unit: heads, where the width of a head is a number.
            other = self.findings.lock([(lines, reason)])
            if other.passes(failure.index):
                return other
        return self.findings.lock(
            [(np.flatnonzero(np.isin(classes.of, np.flatnonzero(group_of == suspects[0]))), reason)]
        )

    def _without_numbers(self, failure: Failure) -> _Findings:
        """Do not hold the numbers of a module against a cut: they follow the values; verification judges them."""
        operations = self.recorded.operations
        module = operations[failure.index].module
        operations[:] = [replace(o, numbers=()) if o.module == module else o for o in operations]
        return self.findings.bind([])

    def _parameters(self, modules: set[str]) -> np.ndarray:
        inside = [a for a in self.recorded.ledger.axes if a.tensor.rpartition(".")[0] in modules]
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(a.start, a.start + a.size) for a in inside)])

    def _free(self, labels: np.ndarray) -> np.ndarray:
        """Those labels that can still be removed."""
        labels, classes = np.unique(labels[labels > 0]), self.findings.classes
        if not len(labels):
            return labels
        known = labels[labels < len(classes.of)]
        return known[~classes.locked[classes.of[known]]] if len(known) == len(labels) else labels

    def _lock_everything(self, reason: str) -> _Findings:
        return self.findings.lock([(np.arange(1, self.recorded.ledger.count), reason)])


def _labels(systems: list[Tensor]) -> np.ndarray:
    """Every label of some systems."""
    parts = [compressed(s, varying(s)).reshape(-1).numpy() for s in systems]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def probe(recorded: Capture) -> Settled:
    """Groups whose cuts the model's code follows, and the attributes that have to follow with them."""
    return Prober(recorded).run()
