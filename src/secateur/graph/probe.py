"""The dry run: does the model's own code follow a cut?

The labels say what shape every tensor should have after a cut. The probe cuts the skeleton at random, runs it, and
holds every shape against that. Where the code disagrees, it holds a size as a Python integer: an attribute with the
old value is bound to the axis (a *literal*), and what cannot be mended that way is locked with the line of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.graph import sizes
from secateur.graph.capture import Capture, Dispatch, Operation, plain_attention
from secateur.graph.classes import Classes
from secateur.graph.clone import copy_with
from secateur.graph.groups import Group, build_groups
from secateur.graph.labels import compressed, varying
from secateur.graph.ledger import AxisRef, Literal
from secateur.graph.rules import tensors

_MOST_ROUNDS = 200
_RESHAPES = {"view", "_unsafe_view", "clone", "expand", "alias", "unsqueeze", "squeeze"}


@dataclass(frozen=True)
class Failure:
    """Where a dry run left the expected path."""

    index: int
    line: str
    what: str


class _Disagreement(Exception):
    pass


class _Check(Dispatch):
    """Compares the shape of every labelled result with what the labels say."""

    def __init__(self, recorded: Capture, classes: Classes, class_alive: np.ndarray):
        super().__init__()
        self.recorded, self.classes, self.class_alive = recorded, classes, class_alive
        self.index = 0
        self.diverged = False

    def expected(self, shape: tuple[int, ...], systems: tuple[Tensor, ...]) -> tuple[int, ...]:
        result = list(shape)
        for system in systems:
            own = varying(system)
            here = self.class_alive[self.classes.of[compressed(system, own).numpy()]]
            for k, axis in enumerate(own):
                others = tuple(i for i in range(here.ndim) if i != k)
                result[axis] = min(result[axis], int(here.any(axis=others).sum()) if others else int(here.sum()))
        return tuple(result)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = self.recorded.memory(func, args, kwargs or {})
        if self.diverged:
            return out
        operations = self.recorded.operations
        name = func.overloadpacket.__name__
        if self.index >= len(operations) or operations[self.index].name != name:
            if name in _RESHAPES:
                # PyTorch reshapes in other steps where a size has become one; the next real operation is compared.
                return out
            while self.index < len(operations) and operations[self.index].name in _RESHAPES:
                self.index += 1
        if self.index >= len(operations) or operations[self.index].name != name:
            if not self.recorded.on_meta:
                # On real values the code may take another branch for the cut model; verification judges that.
                self.diverged = True
                return out
            raise _Disagreement(f"runs {name} where the dense model did not")
        operation = operations[self.index]
        for t, shape, systems in zip(tensors(out), operation.shapes, operation.outputs):
            want = self.expected(shape, systems)
            # What ``expand`` added carries no label and follows the code.
            want = tuple(n if stride == 0 else w for w, n, stride in zip(want, t.shape, t.stride(), strict=True))
            if systems and want != tuple(t.shape):
                raise _Disagreement(f"{name} gives {tuple(t.shape)}, the cut asks for {want}")
        self.index += 1
        return out


def _source(error: BaseException) -> str:
    """The last line of the model's own code in a traceback."""
    found, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/torch/" not in file and "/secateur/" not in file and not file.startswith("<"):
            found = f"{file.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _random_alive(classes: Classes, groups: list[Group], group_of: np.ndarray, seed: int) -> np.ndarray:
    """Classes that survive a random cut of every free group to about half."""
    rng = np.random.default_rng(seed)
    alive = np.ones(len(group_of), dtype=bool)
    for k, group in enumerate(groups):
        if group.locked or group.width < 2:
            continue
        gone = rng.permutation(group.width)[: max(1, group.width // 2 - k % 2)]
        alive[np.flatnonzero(group_of == k)[gone]] = False
    return alive


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
            failure = next((f for seed in seeds if (f := self.dry_run(seed, self.literals)[0])), None)
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

    def dry_run(self, seed: int, literals: list[Literal]) -> tuple[Failure | None, np.ndarray]:
        """Cut the skeleton at random and run it."""
        recorded, classes = self.recorded, self.classes
        class_alive = _random_alive(classes, self.groups, self.group_of, seed)
        kept = sizes.slices(recorded.ledger.axes, class_alive[classes.of])

        def shrink(name: str, t: Tensor) -> Tensor:
            for axis, indices in kept.get(name, {}).items():
                t = t.index_select(axis, torch.as_tensor(indices, device=t.device))
            return t

        model = copy_with(recorded.skeleton, shrink)
        for literal in literals:
            value = self._extent(literal.axis, class_alive) * literal.factor
            sizes.write(model.get_submodule(literal.module), literal.attribute, value, literal.index)
        sizes.follow_parameters(model, kept)
        check = _Check(recorded, classes, class_alive)
        try:
            with plain_attention(), check:
                model(*recorded.inputs[0], **recorded.inputs[1])
        except Exception as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Failure(min(check.index, len(recorded.operations) - 1), _source(error), what), class_alive
        return None, class_alive

    def _extent(self, ref: AxisRef, class_alive: np.ndarray) -> int:
        line = self.classes.line(ref)
        return ref.size if line is None else int(class_alive[line].sum())

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
                    found = [self.dry_run(seed, proposal)[0] for seed in (0, 1)]
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
