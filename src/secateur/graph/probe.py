"""From dry runs to what has to hold for a cut model to run: literals, ties and locks.

Where the model's code does not follow a random cut, the first proposal of ``mend.py`` that carries it further is taken.
What nothing carries further is locked, with the line of the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from secateur.graph.attribute_watch import Attribute
from secateur.graph.capture import Capture
from secateur.graph.classes import Classes
from secateur.graph.dry_run import Failure, dry_run
from secateur.graph.findings import Findings
from secateur.graph.following import Operation
from secateur.graph.groups import Group
from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import Literal
from secateur.graph.mend import DIVIDING, Mender

_MOST_ROUNDS = 200
#: How many dry runs may be spent on looking for the best way, without numbers and on real tensors, where each takes as
#: long as the model. After that, what fails is locked without a search, so that no model takes for ever.
_MOST_RUNS = {True: 2000, False: 20}
#: How many pairs of widths are tried at one failure: each asks for new classes and a dry run.
_MOST_COUPLINGS = 24

_LAYING_OUT = {"view", "_unsafe_view", "reshape", "_reshape_alias"}


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
        self.findings = Findings.settle(recorded, tuple(recorded.ledger.literals), (), (), Counter())

    @cached_property
    def mender(self) -> Mender:
        return Mender(self.recorded)

    def run(self) -> Settled:
        if self.findings.in_doubt:
            self._try()
        self.findings = self._followed_in_training()
        self.findings = self._with_parameters()
        return Settled(*self.findings.settled, self.findings.literals)

    def _followed_in_training(self) -> Findings:
        """Lock the parts that run only in training where these do not follow random cuts, their own widths first."""
        found, training = self.findings, self.recorded.in_training
        if training is None or not found.leaves_in_doubt(training):
            return found
        parts = self.recorded.unused - training.unused
        axes = [axis for axis in self.recorded.ledger.axes if axis.tensor in parts]
        own = {
            (m.tensor, m.axis) for g in found.groups if parts.issuperset(x.tensor for x in g.members) for m in g.members
        }
        for some in ([axis for axis in axes if (axis.tensor, axis.axis) in own], axes):
            cuts = (dry_run(training, found.cut(seed), found.literals) for seed in (0, 1))
            failed = next((outcome.failure for outcome in cuts if outcome.failure), None)
            if failed is None:
                break
            reason = f"a part that runs only in training does not follow a cut [{failed.line}]: {failed.what}"
            found = found.lock([(np.arange(axis.start, axis.start + axis.size), reason) for axis in some])
        return found

    def _with_parameters(self) -> Findings:
        """Lock what lies on buffers alone: no weight says what such a unit is worth, or is saved with it."""
        locks = [(labels, f"lies on no parameter, only on {name}") for name, labels in self._on_buffers()]
        return self.findings.lock(locks) if locks else self.findings

    def _on_buffers(self) -> Iterator[tuple[str, np.ndarray]]:
        """Groups that can be cut and lie on no parameter: a tensor of each, and the labels of its units there."""
        parameters = self.recorded.mould.parameters
        for group in self.findings.groups:
            if not group.locked and not any(m.tensor in parameters for m in group.members):
                member = group.members[0]
                axes = self.recorded.ledger.axes
                start = next(a.start for a in axes if (a.tensor, a.axis) == (member.tensor, member.axis))
                yield member.tensor, start + member.positions.reshape(-1)

    def _try(self) -> None:
        """Mend, tie and lock until random cuts run."""
        delicate = self._delicate()
        # A group of two is cut in every second run only, so that two of them do not always lose alike.
        mended = delicate or any(g.width == 2 and not g.locked for g in self.findings.groups)
        for _ in range(_MOST_ROUNDS if self.recorded.on_meta else 2 * _MOST_RUNS[False]):
            if not self.findings.free:
                break
            # Code that followed the first cut without help follows the second; mended code has to show it twice.
            seeds = (0, 1) if mended else (0,)
            failed = next(((seed, f) for seed in seeds if (f := self.findings.dry_run(seed))), None)
            if failed is None:
                break
            mended = True
            self.findings = self._unscaled(*failed) or self._mended(*failed) or self._locked(*failed)
        else:
            self.findings = self._lock_everything("no cut of this model could be made to run")

    def _unscaled(self, seed: int, failure: Failure) -> Findings | None:
        """Where the scale of an attention is another after the cut: no width that one is worked out of is cut."""
        if not failure.number or failure.index not in self.recorded.scales:
            return None
        locked = self.findings.lock(list(self.mender.scales()))
        return locked if locked.passes(failure.index, seed) else None

    def _mended(self, seed: int, failure: Failure) -> Findings | None:
        """What the code says itself, or the literals that carry furthest, or the first ties that carry further."""
        best: Findings | None = None
        for proposal in self._handed_on(failure):
            if self._hurried:
                return None
            if proposal.passes(failure.index, seed):
                return proposal
        for proposal in self._bindings(seed, failure):
            if self._hurried:
                return best
            if proposal.passes(failure.index, seed) and (best is None or proposal.reach > best.reach):
                best = proposal
            # The scale of an attention is no matter of literals.
            if best is not None and (best.reach == len(self.recorded.operations) or best.reach in self.recorded.scales):
                return best
        for proposal in self._couplings(failure) if best is None else ():
            if self._hurried:
                return None
            if proposal.passes(failure.index, seed):
                return proposal
        return best

    @property
    def _hurried(self) -> bool:
        return self.findings.spent["runs"] >= _MOST_RUNS[self.recorded.on_meta]

    def _delicate(self) -> bool:
        """Whether the code divides axes by numbers of its own, which one random cut may happen to suit."""
        groups, group_of = self.findings.settled[1:]
        # Classes that lie on no parameter have no group, which is number -1.
        cut = np.array([*(not g.locked and g.width > 1 for g in groups), False])[group_of][self.findings.classes.of]
        seen: dict[int, bool] = {}

        def changes(system: Tensor) -> bool:
            if id(system) not in seen:
                seen[id(system)] = bool(cut[compressed(system, varying(system)).numpy()].any())
            return seen[id(system)]

        def divides(o: Operation) -> bool:
            return o.name in DIVIDING or (
                o.name in _LAYING_OUT and any(len(varying(s)) > 1 for out in o.outputs for s in out)
            )

        return any(
            o.inputs and divides(o) and any(map(changes, (*o.inputs, *(s for out in o.outputs for s in out))))
            for o in self.recorded.operations
        )

    def _bindings(self, seed: int, failure: Failure) -> Iterator[Findings]:
        """Literals, which cost no freedom; of many only those of which the code reads something."""
        findings, module = self.findings, self.recorded.operations[failure.index].module
        proposals = self._literals(failure)
        first = next(proposals, [])
        if any(x.module == module and "." not in x.attribute for x in first):
            # Most often it is this one; to listen would take a run, too.
            yield findings.bind(first)
            first = []
        others = [some for some in (first, *proposals) if some]
        if len(others) > 2:
            again = findings.listening(_attributes(others))
            if again.dry_run(seed) == failure:
                others = [some for some in others if not again.is_unmoved_by(some, failure.index)]
        yield from map(findings.bind, others)

    def _handed_on(self, failure: Failure) -> Iterator[Findings]:
        """What the code says itself: one size for two axes."""
        for index in self.mender.window(failure.index):
            for ties in self.mender.handed_on(index, self.findings.classes):
                if ties:
                    yield self.findings.tie(ties)

    def _literals(self, failure: Failure) -> Iterator[list[Literal]]:
        seen: set[tuple] = set()
        for index in self.mender.window(failure.index):
            for literals in self.mender.literals(index, self.findings.classes, self.findings.literals):
                if (key := self._key(literals)) not in seen:
                    seen.add(key)
                    yield literals

    def _couplings(self, failure: Failure) -> Iterator[Findings]:
        """Ties, which cost some, alone and with literals."""
        tried = 0
        for index in self.mender.window(failure.index):
            for ties in self.mender.couplings(index, self.findings.classes):
                if (tried := tried + 1) > _MOST_COUPLINGS:
                    return
                tied = self.findings.tie(ties)
                proposals = list(self.mender.literals(index, tied.classes, tied.literals))
                tied = tied.listening(_attributes(proposals))
                yield tied
                for literals in proposals:
                    if not tied.is_unmoved_by(literals, failure.index):
                        yield tied.bind(literals)

    def _key(self, literals: list[Literal]) -> tuple:
        """Literals that say the same have the same key, whichever operation they were read off."""
        lines = self.findings.classes.lines
        return tuple((x.module, x.attribute, x.index, *(a.tobytes() for a in lines(x.axis))) for x in literals)

    # -- locking --------------------------------------------------------------------------------------------------

    def _locked(self, seed: int, failure: Failure) -> Findings:
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
        if failure.number and (found := self._without(seed, failure, reason)) is not None:
            return found
        twins = [operations[k] for k in self.mender.alike(failure.index)]
        here = _labels([s for o in twins for s in (*o.inputs, *(t for out in o.outputs for t in out))])
        # A place in a table of positions, say: to lock it costs nothing.
        if tables := [labels for _, labels in self._on_buffers() if np.isin(labels, here).any()]:
            return self.findings.lock([(np.concatenate(tables), reason)])
        partial: list[Findings] = []
        tried: set[bytes] = set()
        for labels in self.mender.single_axes(failure.index) if not self._hurried else ():
            if len(free := self._free(labels)) and free.tobytes() not in tried:
                tried.add(free.tobytes())
                partial.append(self.findings.lock([(free, reason)]))
        for locked in sorted(partial, key=lambda found: -found.free):
            if not self._hurried and locked.passes(failure.index, seed):
                return locked
        labels = self._free(here)
        if not len(labels) and not failure.number and (found := self._without(seed, failure, reason)) is not None:
            # Nothing of the operation can be cut: the code looked at something else in front of it.
            return found
        modules = {o.module for o in twins}
        while not len(labels):
            labels = self._free(_labels([s for m in modules for s in self.recorded.entering.get(m, ())]))
            labels = labels if len(labels) else self._free(self._parameters(modules))
            if modules == {""}:
                break
            modules = {m.rpartition(".")[0] for m in modules}
        return self.findings.lock([(labels, reason)]) if len(labels) else self._lock_everything(reason)

    def _without(self, seed: int, failure: Failure, reason: str) -> Findings | None:
        """Lock the one width that the code looked at, found by halving; ``None`` if it is not one."""
        if self._hurried:
            return None
        classes, groups, group_of = self.findings.settled
        suspects = [k for k, g in enumerate(groups) if not g.locked and g.width > 1]
        seeds = (seed, 1 - seed) if self.recorded.on_meta else (seed,)

        def guilty(some: list[int]) -> bool:
            return any(self.findings.fails_alike(failure, some, seed) for seed in seeds)

        middle = len(suspects) // 2
        if not self.recorded.on_meta and middle and guilty(suspects[:middle]) and guilty(suspects[middle:]):
            # Whatever is cut, it is another: it was worked out of values, not of a size.
            return self._without_numbers(failure) if failure.number else None
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
            if other.passes(failure.index, seed):
                return other
        return self.findings.lock(
            [(np.flatnonzero(np.isin(classes.of, np.flatnonzero(group_of == suspects[0]))), reason)]
        )

    def _without_numbers(self, failure: Failure) -> Findings:
        """Do not hold the numbers of a module against a cut: they follow the values; verification judges them."""
        operations = self.recorded.operations
        module = operations[failure.index].module
        operations[:] = [o._replace(numbers=()) if o.module == module else o for o in operations]
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

    def _lock_everything(self, reason: str) -> Findings:
        return self.findings.lock([(np.arange(1, self.recorded.ledger.count), reason)])


def _attributes(proposals: Sequence[list[Literal]]) -> frozenset[Attribute]:
    return frozenset((x.module, x.attribute) for literals in proposals for x in literals)


def _labels(systems: list[Tensor]) -> np.ndarray:
    """Every label of some systems."""
    parts = [compressed(s, varying(s)).reshape(-1).numpy() for s in systems]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def probe(recorded: Capture) -> Settled:
    """Groups whose cuts the model's code follows, and the attributes that have to follow with them."""
    return Prober(recorded).run()
