"""The two sides of the engine benchmark: the same job, each as its documentation says.

The job: find out what is tied to what in a network, judge every unit by the sum of its absolute weights, and have a
network of about half the work that runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur import Budget, Plan, PruningGraph, cut, plan, score, trace
from secateur._errors import BudgetError
from secateur._optional import require

#: Ours: what is to remain of the multiply-accumulates, and the least share of a group (the default of ``plan``).
BUDGET = 0.5
FLOOR = 0.1
#: The peer's: the share of every width that goes; 0.7 of the inputs by 0.7 of the outputs is about half of the work.
PEER_RATIO = 0.3


class Ours:
    """One job of Secateur; what it has come to stays readable when it fails on the way.

    Attributes:
        graph, plan, small: the results so far.
        seconds, cpu: of each stage that ended.
    """

    def __init__(self) -> None:
        self.graph: PruningGraph | None = None
        self.plan: Plan | None = None
        self.small: nn.Module | None = None
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name], self.cpu[name] = time.perf_counter() - start, time.process_time() - cpu

    def run(self, model: nn.Module, inputs: Any, traced: Callable[[], None] = lambda: None) -> None:
        """Trace, score, plan at half of the multiply-accumulates (or as near as it gets), cut."""
        with self._stage("trace"):
            self.graph = graph = trace(model, inputs)
        traced()
        with self._stage("scores"):
            scores = score(graph, "l1")
        with self._stage("plan"):
            self.plan = made = plan_half(graph, scores)
        with self._stage("cut"):
            self.small = cut(model, made)


def plan_half(graph: PruningGraph, scores: dict[str, Tensor]) -> Plan:
    """The same share of every group, so that the budget holds; every group at its floor where it cannot."""
    for round_to in (8, 1):
        try:
            return plan(graph, scores, Budget(macs=BUDGET), ranking="layer", round_to=round_to, floor=FLOOR)
        except BudgetError:
            continue
    return plan(
        graph, scores, {g.name: max(g.least, math.ceil(FLOOR * g.width)) for g in graph.prunable if g.name in scores}
    )


def require_peer() -> Any:
    """Torch-Pruning.

    Raises:
        MissingExtra: it is not installed.
    """
    return require("torch_pruning", "bench")


def peer(model: nn.Module, inputs: Any, ignored: list[nn.Module], importance: Any) -> None:
    """Torch-Pruning's pruner at 0.7 of every width. It changes ``model``."""
    import torch_pruning as tp

    pruner = tp.pruner.MagnitudePruner(
        model, inputs, importance=importance, global_pruning=False, pruning_ratio=PEER_RATIO, ignored_layers=ignored
    )
    pruner.step()


def ready_for_peer(model: nn.Module) -> nn.Module:
    """What the peer's user does by hand: no cache of keys and values among the outputs, which it cannot follow."""
    for module in model.modules():
        if getattr(getattr(module, "config", None), "use_cache", False):
            module.config.use_cache = False  # type: ignore[union-attr]
    return model


def peer_importance() -> Any:
    """The L1 importance of the peer, which adds up the time spent in it: ``.seconds`` and ``.cpu``."""
    import torch_pruning as tp

    class Timed(tp.importance.MagnitudeImportance):
        seconds = 0.0
        cpu = 0.0

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            start, cpu = time.perf_counter(), time.process_time()
            try:
                return super().__call__(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self.cpu += time.process_time() - cpu

    return Timed(p=1)


def tiny() -> tuple[nn.Module, Tensor]:
    """The network of the warm-up: what a library imports and caches on first use is not timed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return model.eval(), torch.randn(1, 3, 32, 32)
