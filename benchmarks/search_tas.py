"""What a step of transformable architecture search costs, beside a plain step of the whole network."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from torch.nn import functional as F

from secateur.budget import Budget, Goal
from secateur.graph import trace
from secateur.methods.tas import TAS
from secateur.training import TrainConfig
from secateur.training.schedule import build_optimiser
from secateur.workbench import Bench

_STEPS = 30
_WARM_UP = 3


def tas(bench: Bench, asked: Any) -> dict[str, Any]:
    """The search's two steps (weights, then logits on another batch) and a plain one, in turn, on equal batches.

    Time is that of the processor, so that others at work on the machine do not count; the ratio is of the medians.
    """
    # Both learn as `fit` has it: fused updates, channels last.
    config = TrainConfig(lr=0.01, nesterov=True, weight_decay=5e-4)
    graph = trace(copy.deepcopy(bench.model), bench.example)
    law = TAS().law_towards(graph, Goal(Budget(macs=asked.macs), round_to=1), _STEPS)
    batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in bench.train]
    full = [batch for batch in batches if len(batch[1]) == asked.batch_size] or batches[:1]
    law.data([*full, *full])
    plain, searched = copy.deepcopy(bench.model).train(), graph.model.train()
    for model in (plain, searched):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    movers = {id(model): build_optimiser(config, list(model.parameters())) for model in (plain, searched)}
    law.on_epoch_start(searched, 0)

    def step(model: Any, x: Any, y: Any) -> None:
        movers[id(model)].zero_grad()
        F.cross_entropy(model(x), y).backward()
        movers[id(model)].step()

    times: dict[str, list[float]] = {"plain_ms": [], "weights_ms": [], "logits_ms": []}
    for k in range(_STEPS + _WARM_UP):
        x, y = full[k % len(full)]
        clock = [time.process_time()]
        step(plain, x, y)
        clock.append(time.process_time())
        step(searched, x, y)
        clock.append(time.process_time())
        law.after_step(searched)
        clock.append(time.process_time())
        if k >= _WARM_UP:
            for name, start, end in zip(times, clock, clock[1:]):
                times[name].append(1000 * (end - start))
    middle = {name: statistics.median(some) for name, some in times.items()}
    ratio = (middle["weights_ms"] + middle["logits_ms"]) / middle["plain_ms"]
    return {"ratio": round(ratio, 3), **{name: round(ms, 2) for name, ms in middle.items()}, "steps": _STEPS}
