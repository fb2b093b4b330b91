"""What has been found of a model's code so far, and what random cuts say of it.

A dry run takes as long as the model's own code, so none is made twice, and none whose end is known: binding an
attribute that the code does not read before it fails leaves it where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from secateur.graph.attribute_watch import Attribute
from secateur.graph.capture import Capture
from secateur.graph.classes import Classes
from secateur.graph.dry_run import Failure, Outcome, RandomCut, dry_run
from secateur.graph.groups import Group, build_groups
from secateur.graph.ledger import Literal
from secateur.graph.mend import Tie

Lock = tuple[np.ndarray, str]


@dataclass(frozen=True)
class Findings:
    """Literals, ties and locks, with what follows from them.

    Attributes:
        settled: classes, their groups, and the group of every class.
        spent: how many dry runs were made, all findings of one search together.
        attributes: those for whose reads dry runs listen.
    """

    recorded: Capture
    literals: tuple[Literal, ...]
    ties: tuple[Tie, ...]
    locks: tuple[Lock, ...]
    settled: tuple[Classes, list[Group], np.ndarray]
    spent: Counter[str]
    attributes: frozenset[Attribute] = frozenset()
    _cuts: dict[int, RandomCut] = field(default_factory=dict)
    _outcomes: dict[int, Outcome] = field(default_factory=dict)

    @classmethod
    def settle(
        cls,
        recorded: Capture,
        literals: tuple[Literal, ...],
        ties: tuple[Tie, ...],
        locks: tuple[Lock, ...],
        spent: Counter[str],
    ) -> Findings:
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

    @property
    def in_doubt(self) -> bool:
        """Whether the code does something with a size that can be cut of which nobody knows whether it follows."""
        return self.leaves_in_doubt(self.recorded)

    def leaves_in_doubt(self, recorded: Capture) -> bool:
        """The same of another pass over the same labels."""
        pairs = [pair for pairs in recorded.pairs.values() for pair in pairs]
        return recorded.doubts.remain(*self.settled, self.literals, pairs)

    def bind(self, literals: Sequence[Literal]) -> Findings:
        """More literals: classes stay as they are, and so do the random cuts."""
        literals = (*self.literals, *literals)
        return Findings(self.recorded, literals, self.ties, self.locks, self.settled, self.spent, _cuts=self._cuts)

    def tie(self, ties: list[Tie]) -> Findings:
        return self.settle(self.recorded, self.literals, (*self.ties, *ties), self.locks, self.spent)

    def lock(self, locks: list[Lock]) -> Findings:
        return self.settle(self.recorded, self.literals, self.ties, (*self.locks, *locks), self.spent)

    def listening(self, attributes: frozenset[Attribute]) -> Findings:
        """The same, with dry runs that listen for reads of some attributes."""
        return replace(self, attributes=attributes, _outcomes={})

    def cut(self, seed: int, only: set[int] | None = None) -> RandomCut:
        """A random cut, of all groups or only of some; one of all is kept, with what it has worked out."""
        if only is not None:
            return RandomCut(*self.settled, seed, only)
        if seed not in self._cuts:
            self._cuts[seed] = RandomCut(*self.settled, seed)
        return self._cuts[seed]

    def dry_run(self, seed: int) -> Failure | None:
        """Cut at random and run; what came of it is remembered."""
        if seed not in self._outcomes:
            self.spent["runs"] += 1
            self._outcomes[seed] = dry_run(self.recorded, self.cut(seed), self.literals, self.attributes)
        return self._outcomes[seed].failure

    def fails_alike(self, failure: Failure, groups: list[int], seed: int) -> bool:
        """Whether a cut of some groups alone leaves the path at this very operation, too, and as that failure did."""
        self.spent["runs"] += 1
        found = dry_run(self.recorded, self.cut(seed, set(groups)), self.literals, last=failure.index).failure
        return found is not None and found.number == failure.number and found.index == failure.index

    @property
    def reach(self) -> int:
        """How many operations both cuts run."""
        ends = [self.dry_run(seed) for seed in (0, 1)]
        return min(len(self.recorded.operations) if f is None else f.index for f in ends)

    def passes(self, index: int, first: int = 0) -> bool:
        """Whether two different cuts run past an operation; ``first`` is the seed that is tried first."""
        return all((f := self.dry_run(seed)) is None or f.index > index for seed in (first, 1 - first))

    def is_unmoved_by(self, literals: Sequence[Literal], index: int) -> bool:
        """Whether these literals, too, would fail up to an operation: nothing of them is read before."""
        return any(
            outcome.failure is not None
            and outcome.failure.index <= index
            and outcome.read.isdisjoint((x.module, x.attribute) for x in literals)
            for outcome in self._outcomes.values()
            if self.attributes.issuperset((x.module, x.attribute) for x in literals)
        )
