"""What is asked of one network: the words of a command, a recipe or a call, checked and in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from secateur._errors import UnknownName
from secateur.budget import Budget, Goal
from secateur.methods import REGISTRY, Method, configure, find
from secateur.training import RECOVERIES, TrainConfig, recovery

TEACHERS = ("dense", "none")


@dataclass(frozen=True)
class Job:
    """What is asked of the network, all of it sound in itself.

    Attributes:
        method: with its options set.
        goal: what may remain.
        teacher: ``"dense"`` or ``"none"``; by default the method's own.
        recover, epochs, recover_lr, scratch_b_cap, compare, config, recalibrate_batches, latency_runs, seed: see
            :func:`prune`.

    Raises:
        SecateurError: names that do not exist, numbers out of range.
    """

    method: Method
    goal: Goal
    recover: str = "none"
    epochs: int | None = None
    recover_lr: float | None = None
    scratch_b_cap: float | None = None
    compare: tuple[str, ...] = ()
    teacher: str | None = None
    config: TrainConfig = field(default_factory=TrainConfig)
    recalibrate_batches: int = 0
    latency_runs: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher not in (None, *TEACHERS):
            raise UnknownName("teacher", str(self.teacher), TEACHERS)
        for name in (self.recover, *self.compare):
            if name not in RECOVERIES:
                raise UnknownName("recovery", name, RECOVERIES)
            own = self.epochs if name == self.recover else None
            recovery(name, self.config, 1, 1, own, self.scratch_b_cap)

    @property
    def taught(self) -> bool:
        """Whether the dense network is the teacher in whatever is trained after the cut."""
        after = any(name != "none" for name in (self.recover, *self.compare))
        return after and (self.teacher or self.method.teacher) == "dense"

    @property
    def trains(self) -> bool:
        """Whether anything of it needs training data."""
        return self.method.needs_data or self.method.trains or any(r != "none" for r in (self.recover, *self.compare))

    def options(self) -> dict[str, Any]:
        """Those of the method that are set, also by default."""
        return {k: v for k, v in asdict(self.method).items() if v is not None}

    def recipe(self) -> dict[str, Any]:
        """The job as a recipe says it, with dots for tables."""
        return {
            "method": self.method.name,
            **{f"options.{k}": v for k, v in self.options().items()},
            **_target(self.goal),
            "recover": self.recover,
            **{k: v for k in ("epochs", "recover_lr", "scratch_b_cap") if (v := getattr(self, k)) is not None},
            "compare": list(self.compare),
            **({} if self.teacher is None else {"teacher": self.teacher}),
            "seed": self.seed,
            "round_to": self.goal.round_to,
            "ranking": self.goal.ranking or self.method.ranking,
            "protect": list(self.goal.protect),
            "floor": self.goal.floor,
            **({"uniform": True} if self.goal.uniform else {}),
            **{f"training.{k}": v for k, v in settings(self.config).items() if v is not None},
        }


def _target(goal: Goal) -> dict[str, Any]:
    return {"preset": goal.preset} if goal.budget is None else {f"budget.{k}": v for k, v in goal.as_dict().items()}


def job(
    method: str = "l1",
    options: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    preset: str | None = None,
    compare: Sequence[str] = (),
    round_to: int = 8,
    ranking: str | None = None,
    protect: Sequence[str] = (),
    floor: float = 0.1,
    uniform: bool = False,
    config: TrainConfig | None = None,
    seed: int = 0,
    **more: Any,
) -> Job:
    """A :class:`Job` from the arguments of :func:`prune`."""
    chosen = configure(find(method, REGISTRY), options)
    goal = Goal(budget, preset, round_to, ranking, tuple(protect), floor, uniform)
    return Job(chosen, goal, compare=tuple(compare), config=config or TrainConfig(seed=seed), seed=seed, **more)


def settings(config: TrainConfig) -> dict[str, Any]:
    """A training configuration in JSON's kinds."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
