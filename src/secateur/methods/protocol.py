"""What a method is: the small base that every paper's file fills in, and how one is found and set."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from secateur._errors import UnknownName, UsageError
from secateur.budget import Goal
from secateur.graph import PruningGraph
from secateur.scores import Scores
from secateur.surgery import Masks, Plan, Remark, merged


@dataclass(frozen=True)
class Evidence:
    """What a method may look at while it judges; always of the training split.

    Attributes:
        data: batches ``(x, y)``, or ``None``.
        seed: for methods that draw numbers.
        law: what the method trained the network under, when that is over; ``None`` if it did not.
        remarks: what the stages append of single layers, ``(layer, line)``, for :meth:`Method.notes`.
    """

    data: Iterable[Any] | None = None
    seed: int = 0
    law: Law | None = None
    remarks: list[Remark] = field(default_factory=list)


class Law:
    """What a method does to the dense network while that is trained: any of the moments of the training loop.

    The loop calls ``learning_rate``, ``on_epoch_start``, ``regulariser``, ``after_backward``, ``after_step`` and
    ``on_epoch_end`` where they exist, and keeps ``state_dict()`` in its checkpoints
    (see :class:`secateur.training.Hook`).
    """

    def data(self, batches: Iterable[Any]) -> Iterable[Any]:
        """What the network is trained on: by default all of the training data."""
        return batches

    def finish(self) -> None:
        """After the last epoch: leave a plain network behind, with everything that was attached folded in."""


@dataclass(frozen=True)
class Method(ABC):
    """A way of finding out which units can go.

    Subclasses are frozen dataclasses; their fields are the method's options. Instances hold no state between runs:
    everything that a stage needs is passed to it. The stages, in order:

    0. :meth:`prepare`: the network is given what the method needs to see it;
    1. :meth:`law`: if the method ``trains``, a copy of the dense network is trained under it first;
    2. :meth:`leave_out`: residual blocks that go as a whole;
    3. :meth:`choose`: which units stay, for methods that are told how many; or else
    4. :meth:`judge`: one score per unit, from which the budget makes a plan;
    5. :meth:`refit`: the dense weights adjusted to what will be left.

    Attributes:
        name: as in ``sc.prune(method=name)``.
        summary: one line for the table of methods.
        ranking: how its scores compare between groups, see ``sc.plan``.
        needs_data: whether it cannot judge without training data.
        trains: whether it trains the dense network before it judges.
        starts_untrained: whether that network should come with its initial weights.
        teacher: who teaches in the recovery unless the user says it: ``"dense"`` or ``"none"``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    ranking: ClassVar[str] = "global"
    needs_data: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    starts_untrained: ClassVar[bool] = False
    teacher: ClassVar[str] = "none"

    #: How often the network is trained before the judgement, if it is.
    rounds = 1

    def prepare(self, model: nn.Module, example_inputs: Any) -> nn.Module:
        """The network that is traced, trained and cut: the same function, maybe with channel selectors, in a copy."""
        return model

    def widened(self, graph: PruningGraph) -> Mapping[str, int]:
        """Groups that are wider than in the network that was given while units are judged, with their widths."""
        return {}

    def feasible(self, graph: PruningGraph, goal: Goal) -> None:
        """Refuse what cannot be reached, before anything is trained.

        Raises:
            SecateurError: the budget is out of reach, or the network has nothing that this method could remove.
        """
        # Which units score best changes nothing about what a budget can reach.
        goal.widths(graph, self.ranking)

    @property
    def redraws(self) -> bool:
        """Whether the training before the judgement starts from new random weights."""
        return False

    def schedule(self) -> Mapping[str, Any]:
        """What the training under the law changes of the dense training: fields of ``TrainConfig``."""
        return {}

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> Law:
        """The law of the training before the judgement.

        Args:
            graph: of the copy that will be trained.
            widths: how many units of each group would stay if the same share of every group went.
        """
        return Law()

    def law_towards(self, graph: PruningGraph, goal: Goal, epochs: int) -> Law:
        """The same for methods that have to know what is asked for; by default :meth:`law`.

        Args:
            goal: what may remain.
            epochs: how long the training will be.
        """
        return self.law(graph, goal.widths(graph, self.ranking))

    def between(self, graph: PruningGraph, goal: Goal, law: Law, done: int) -> None:
        """Between two rounds of training, of which ``done`` are over."""
        return

    def leave_out(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> tuple[str, ...]:
        """Names of residual blocks (``graph.blocks``) that go as a whole, before units are looked at."""
        return ()

    def choose(
        self, graph: PruningGraph, widths: Mapping[str, int], evidence: Evidence
    ) -> Mapping[str, Sequence[int]] | None:
        """The units that stay, so many of each group; ``None`` leaves it to :meth:`judge` and the budget."""
        return None

    @abstractmethod
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        """One score per unit of every group that can be cut; higher means more worth keeping."""

    def spend(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> Plan | None:
        """The plan, of methods that spend a budget in their own way; ``None`` leaves it to the stages before."""
        return None

    def refit(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> nn.Module:
        """The dense network, in a copy, with weights that make up for what the plan removes.

        What is cut, and what the cut is proven against, is this network. By default it is the one that was judged.
        """
        return graph.model

    def notes(self, evidence: Evidence) -> list[str]:
        """What the card should say of how it went, after the last stage: by default the remarks on single layers."""
        return [f"{self.name}: {line}" for line in merged(evidence.remarks)]

    def files(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> Mapping[str, str]:
        """What should lie in the run's folder beside its usual files: texts by name."""
        return {}

    def record(self, evidence: Evidence) -> Mapping[str, Any]:
        """What the card should hold beside its own fields, in JSON's kinds: for the report."""
        return {}


@dataclass(frozen=True)
class WeightMethod(Method):
    """A method that sets single weights to zero instead of removing units: its budget is a share of ``weights``."""

    @abstractmethod
    def masks(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> Masks:
        """Which weights stay.

        Raises:
            BudgetError: the goal is none of weights.
        """

    def feasible(self, graph: PruningGraph, goal: Goal) -> None:
        self.masks(graph, goal, Evidence())

    def law_towards(self, graph: PruningGraph, goal: Goal, epochs: int) -> Law:
        return self.law(graph, {})

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return {}


def find(name: str, registry: Mapping[str, type[Method]]) -> type[Method]:
    """Look a method up.

    Raises:
        UnknownName: with the nearest names.
    """
    if name not in registry:
        raise UnknownName("method", name, registry)
    return registry[name]


def configure(cls: type[Method], options: Mapping[str, Any] | None) -> Method:
    """A method with its options set.

    Raises:
        UnknownName: it has no such option.
        UsageError: values of the wrong kind, all of them at once.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    problems, given = [], dict(options or {})
    for name, value in given.items():
        if name not in fields:
            hint = "" if fields else f"{cls.name} has no options"
            raise UnknownName(f"option of {cls.name}", name, fields, hint=hint)
        kinds = str(fields[name].type).split(" | ")
        kind = {bool: "bool", int: "int", float: "float", str: "str", type(None): "None"}.get(type(value))
        if kind == "int" and "int" not in kinds and "float" in kinds:
            given[name] = float(value)
        elif kind not in kinds:
            problems.append(f"{name}={value!r} has to be of the kind {' or '.join(kinds)}")
    if problems:
        raise UsageError("\n".join([f"these options of {cls.name} do not work:", *problems]))
    return cls(**given)
