"""The two sides of the engine benchmark: the same job, each as its documentation says.

The job: find out what is tied to what in a network, choose half of every width, and have a smaller network that runs.
"""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor, nn

from secateur._optional import require
from secateur.graph import trace
from secateur.surgery import Plan, cut, make_plan


def ours(model: nn.Module, x: Tensor) -> tuple[nn.Module, Plan]:
    """Trace, keep the first half of the units of every group, cut. The smaller network and its plan."""
    graph = trace(model, x)
    plan = make_plan(graph, {g.name: range(g.width - g.width // 2) for g in graph.prunable})
    return cut(model, plan), plan


def require_peer() -> Any:
    """Torch-Pruning.

    Raises:
        MissingExtra: it is not installed.
    """
    return require("torch_pruning", "bench")


def classifiers(model: nn.Module, num_classes: int) -> list[nn.Module]:
    """The layers that give the classes, which the peer's documentation asks its user to list by hand."""
    found: list[nn.Module] = []
    for module in model.modules():
        outputs = getattr(module, "out_features", None) if isinstance(module, nn.Linear) else None
        outputs = module.out_channels if isinstance(module, nn.Conv2d) else outputs
        if outputs == num_classes:
            found.append(module)
    return found


def peer(model: nn.Module, x: Tensor, ignored: list[nn.Module], importance: Any) -> nn.Module:
    """Torch-Pruning's pruner at half of every width. It changes ``model``, which is also what it returns."""
    import torch_pruning as tp

    pruner = tp.pruner.MagnitudePruner(
        model, x, importance=importance, global_pruning=False, pruning_ratio=0.5, ignored_layers=ignored
    )
    pruner.step()
    return model


def peer_importance() -> Any:
    """The L1 importance of the peer, which adds up the time spent in it: ``.seconds`` and ``.cpu``.

    Ours keeps the first half and scores nothing, so the time of the peer's scores has to be known apart.
    """
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
