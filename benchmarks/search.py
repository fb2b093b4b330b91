"""What a search for widths costs beside training: ``python -m benchmarks.search [--model NAME] [--out FILE]``.

Every part of :data:`PARTS` measures one method and gives its ratio and how it came about; all run in one process. The
last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.search_tas import tas
from secateur._atomic import write_atomic
from secateur.budget import Budget, Goal
from secateur.graph import trace
from secateur.measure import hardware, versions
from secateur.methods import Evidence, configure
from secateur.methods.l1 import L1
from secateur.methods.pruning_from_scratch import PruningFromScratch
from secateur.surgery import cut
from secateur.training import TrainConfig, fit
from secateur.workbench import Bench, set_up


def pruning_from_scratch(bench: Bench, asked: argparse.Namespace) -> dict[str, Any]:
    """Gate learning, bisection and cut, beside pre-training and an L1 cut to the same budget.

    The paper's claim for CIFAR-10 is a tenth. It learns gates for 10 epochs where the network is trained for 160; here
    both are ``--scale`` times as long. Gates are learned before and again after the pre-training, and the slower time
    counts, because other work on the machine comes and goes. Neither side is trained any further.
    """
    gate_epochs, dense_epochs = (max(1, round(asked.scale * n)) for n in (10, 160))
    goal = Goal(Budget(macs=asked.macs), round_to=1)
    config = TrainConfig(epochs=dense_epochs, batch_size=asked.batch_size, channels_last=True, seed=asked.seed)
    method = configure(PruningFromScratch, {"epochs": gate_epochs})
    times: dict[str, float] = {}

    def clock(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = work()
        times[name] = time.perf_counter() - start
        return found

    def learn() -> Any:
        graph = trace(copy.deepcopy(bench.model), bench.example)
        law = method.law_towards(graph, goal, gate_epochs)
        data = law.data(bench.train)
        fit(graph.model, data, replace(config, **method.schedule()), hooks=(law,), progress=False)
        law.finish()
        return graph, law

    def bisect(graph: Any, law: Any) -> Any:
        plan = method.spend(graph, goal, Evidence(seed=asked.seed, law=law))
        assert plan is not None, "a budget without further wishes is spent by the threshold"
        return cut(graph.model, plan), plan

    def pre_train() -> Any:
        model = copy.deepcopy(bench.model)
        fit(model, bench.train, config, progress=False)
        return model

    def prune(model: Any) -> Any:
        graph = trace(model, bench.example)
        plan = goal.plan(graph, L1().judge(graph, Evidence()), L1.ranking)
        return cut(model, plan), plan

    # Libraries set themselves up in the first training of a process.
    fit(copy.deepcopy(bench.model), [next(iter(bench.train))], replace(config, epochs=1), progress=False)
    clock("gates_before_s", learn)
    dense = clock("pretraining_s", pre_train)
    _, theirs = clock("pruning_s", lambda: prune(dense))
    graph, law = clock("gates_after_s", learn)
    _, ours = clock("bisection_s", lambda: bisect(graph, law))
    times["gates_s"] = max(times["gates_before_s"], times["gates_after_s"])
    search, usual = times["gates_s"] + times["bisection_s"], times["pretraining_s"] + times["pruning_s"]
    return {
        "ratio": round(search / usual, 4),
        **{name: round(seconds, 3) for name, seconds in times.items()},
        "gate_epochs": gate_epochs,
        "pretraining_epochs": dense_epochs,
        "macs": {"dense": ours.why["dense_macs"], "pruning_from_scratch": ours.why["macs"], "l1": theirs.why["macs"]},
    }


#: Name in the JSON -> what measures it; a further method that searches is one more line.
PARTS: dict[str, Callable[[Bench, argparse.Namespace], dict[str, Any]]] = {
    "pruning_from_scratch": pruning_from_scratch,
    "tas": tas,
}


def main(words: list[str] | None = None) -> int:
    """Run it all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description="what a search for widths costs")
    parser.add_argument("--model", default="digits-resnet", help="see `secateur models` (default digits-resnet)")
    parser.add_argument("--data", default="digits", help="see `secateur data` (default digits)")
    parser.add_argument("--data-dir", type=Path, help="where the data set's files are")
    parser.add_argument("--images", type=int, help="only the first so many training images")
    parser.add_argument("--scale", type=float, default=0.1, help="epochs as a share of the papers' (default 0.1)")
    parser.add_argument("--macs", type=float, default=0.5, help="share of the MACs that remains (default 0.5)")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="only this part; repeatable")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the JSON here")
    asked = parser.parse_args(words)
    if not 0 < asked.scale <= 1 or asked.threads < 1:
        parser.error("--scale must be above 0 and at most 1, --threads 1 or more")
    torch.set_num_threads(asked.threads)
    console, busy = Console(), os.getloadavg()[0]
    bench = set_up(
        asked.model,
        asked.data,
        data_dir=asked.data_dir,
        limit=asked.images,
        limit_test=100,
        batch_size=asked.batch_size,
        seed=asked.seed,
    )
    parts = {}
    for name in asked.only or PARTS:
        parts[name] = PARTS[name](bench, asked)
        console.print(f"{name}: {parts[name]}", markup=False)
    result = {
        "model": asked.model,
        "data": asked.data,
        "images": len(bench.data.train),
        "batch_size": asked.batch_size,
        "seed": asked.seed,
        "hardware": {**hardware(), "threads": asked.threads},
        "versions": versions(),
        # Above the number of cores others were at work: the ratios hold less then, the seconds nothing.
        "load_average": [round(busy, 1), round(os.getloadavg()[0], 1)],
        "reproduce": shlex.join(["python", "-m", "benchmarks.search", *(words if words is not None else sys.argv[1:])]),
        "parts": parts,
        "ratios": {name: part["ratio"] for name, part in parts.items()},
    }
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(asked.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: result[k] for k in ("model", "data", "images", "ratios", "reproduce")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
