"""From dry runs to literals and locks.

Where the model's code does not follow a random cut, it holds a size as a Python integer: an attribute with the old
value is bound to the axis (a *literal*), and what cannot be mended that way is locked with the line of the code.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from secateur.graph import sizes
from secateur.graph.capture import Capture, Operation
from secateur.graph.classes import Classes
from secateur.graph.dry_run import Failure, RandomCut, dry_run
from secateur.graph.groups import build_groups
from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import AxisRef, Literal

_MOST_ROUNDS = 200


class Prober:
    """Finds literals and locks until random cuts of the skeleton run as the labels say."""

    def __init__(self, recorded: Capture):
        self.recorded = recorded
        self.literals: list[Literal] = list(recorded.ledger.literals)
        self.locks: list[tuple[np.ndarray, str]] = []
        self._types = {name: type(module) for name, module in recorded.skeleton.named_modules()}
        self.settle()

    def settle(self) -> None:
        self.classes = Classes(self.recorded.ledger, self.locks)
        self.groups, self.group_of = build_groups(self.recorded.ledger, self.classes, [])

    def run(self) -> tuple[Classes, list[Literal]]:
        mended = False
        for _ in range(_MOST_ROUNDS):
            if all(g.locked or g.width < 2 for g in self.groups):
                break
            # Code that followed the first cut without help follows the second; mended code has to show it twice.
            seeds = (0, 1) if mended else (0,)
            failure = next((f for seed in seeds if (f := self.dry_run(seed, self.literals))), None)
            if failure is None:
                break
            mended = True
            if not self._mend(failure):
                self._lock(failure)
                self.settle()
        else:
            self._lock_everything("no cut of this model could be made to run")
            self.settle()
        return self.classes, self.literals

    def dry_run(self, seed: int, literals: list[Literal]) -> Failure | None:
        """Cut the skeleton at random and run it."""
        return dry_run(self.recorded, RandomCut(self.classes, self.groups, self.group_of, seed), literals)

    # -- mending --------------------------------------------------------------------------------------------------

    def _alike(self, operation: Operation) -> list[Operation]:
        """The same line of code in every module of the same class."""
        mine = (self._types[operation.module], operation.name, operation.ordinal)
        return [o for o in self.recorded.operations if (self._types[o.module], o.name, o.ordinal) == mine]

    def _mend(self, failure: Failure) -> bool:
        """Bind an attribute that holds the old size; true if that carries the dry run past the failure."""
        # A reshape is refused before the copy in front of it runs, so the culprit may be a little further on.
        module = self.recorded.operations[failure.index].module
        for operation in self.recorded.operations[failure.index : failure.index + 3]:
            path = operation.module if operation.module == module else None
            while path is not None:
                for attribute, index, axis in self._candidates(operation, path):
                    proposal = [*self.literals, *self._bound(operation, path, attribute, index, axis)]
                    found = [self.dry_run(seed, proposal) for seed in (0, 1)]
                    if all(f is None or f.index > failure.index for f in found):
                        self.literals = proposal
                        return True
                path = path.rpartition(".")[0] if path else None
        return False

    def _bound(self, operation: Operation, path: str, attribute: str, index: int | None, axis: int) -> list[Literal]:
        """The attribute bound to the axis, in every module where the same line of code runs."""
        up = len(operation.module.split(".")) - len(path.split(".")) if path else None
        found = []
        for twin in self._alike(operation):
            owner = "" if up is None else twin.module.rsplit(".", up)[0] if up else twin.module
            refs = self._axes(twin)
            if axis < len(refs) and refs[axis].systems:
                found.append(Literal(owner, attribute, refs[axis], index=index))
        return found

    def _axes(self, operation: Operation) -> list[AxisRef]:
        """The axes whose sizes the operation's code may have written down: of its result, then of what it reads."""
        shape = operation.shapes[0] if operation.shapes else ()
        systems = operation.outputs[0] if operation.outputs else ()
        results = [self.recorded.ledger.axis(systems, axis, size) for axis, size in enumerate(shape)]
        return results + [AxisRef(s.shape[axis], ((s, axis),)) for s in operation.inputs for axis in varying(s)]

    def _candidates(self, operation: Operation, path: str) -> list[tuple[str, int | None, int]]:
        """Attributes of a module that hold the old size of an axis of the operation."""
        module = self.recorded.skeleton.get_submodule(path)
        known = {(x.attribute, x.index) for x in self.literals if x.module == path}
        found = []
        for axis, ref in enumerate(self._axes(operation)):
            line = self.classes.line(ref)
            if line is not None and not self.classes.locked[line].all():
                found += [(a, i, axis) for a, i in sizes.read(module, ref.size) if (a, i) not in known]
        return found

    # -- locking --------------------------------------------------------------------------------------------------

    def _lock(self, failure: Failure) -> None:
        """Lock the nearest thing that is still free: the operation's labels, its module's inputs, its parameters, …"""
        operation = self.recorded.operations[failure.index]
        where = (
            f"{self._types[operation.module].__name__} [{failure.line}]"
            if failure.line
            else operation.module or "the model"
        )
        reason = f"the code of {where} does not follow a cut: {failure.what}"
        twins = self._alike(operation)
        if self._lock_systems([s for o in twins for s in (*o.inputs, *(t for out in o.outputs for t in out))], reason):
            return
        modules = {o.module for o in twins}
        while modules:
            entering = [s for m in modules for s in self.recorded.entering.get(m, ())]
            if self._lock_systems(entering, reason) or self._lock_parameters(modules, reason):
                return
            if modules == {""}:
                break
            modules = {m.rpartition(".")[0] for m in modules}
        self._lock_everything(reason)

    def _lock_systems(self, systems: list[Tensor], reason: str) -> bool:
        labels = [compressed(s, varying(s)).reshape(-1).numpy() for s in systems]
        return self._lock_labels(np.concatenate(labels) if labels else np.zeros(0, dtype=np.int64), reason)

    def _lock_parameters(self, modules: set[str], reason: str) -> bool:
        inside = [a for a in self.recorded.ledger.axes if a.tensor.rpartition(".")[0] in modules]
        labels = [np.arange(a.start, a.start + a.size) for a in inside]
        return self._lock_labels(np.concatenate(labels) if labels else np.zeros(0, dtype=np.int64), reason)

    def _lock_labels(self, labels: np.ndarray, reason: str) -> bool:
        labels = np.unique(labels[labels > 0])
        free = labels[~self.classes.locked[self.classes.of[labels]]] if len(labels) else labels
        if not len(free):
            return False
        self.locks.append((free, reason))
        return True

    def _lock_everything(self, reason: str) -> None:
        self.locks.append((np.arange(1, self.recorded.ledger.count), reason))


def probe(recorded: Capture) -> tuple[Classes, list[Literal]]:
    """Classes whose cuts the model's code follows, and the attributes that have to follow with them."""
    return Prober(recorded).run()
