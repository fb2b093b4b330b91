"""Choosing channels beside the published procedures: ``python -m benchmarks.solvers [--out FILE]``.

All sides take turns in one process on the same samples. The last line of the output is a JSON object with everything
that the table says; see README.md in this folder.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.solvers_contestants import (
    Samples,
    lasso_lars,
    our_greedy,
    our_lasso,
    published_greedy,
    published_lasso,
    random_layer,
)
from secateur._atomic import write_atomic
from secateur._errors import SecateurError, UsageError
from secateur.measure import hardware, versions
from secateur.solvers import Contributions, fit_scales, select_by_lasso

ROOT = Path(__file__).resolve().parents[1]
SIDES = {
    "ours_lasso": "LASSO: ours",
    "lasso_lars": "LASSO: one LassoLars",
    "published_lasso": "LASSO: bisected Lasso",
    "published_lasso_tuned": "LASSO: bisected, tuned",
    "ours_greedy": "ThiNet: ours",
    "published_greedy": "ThiNet: over samples",
}
#: Seconds of rest before each turn: the threads of some libraries go on waiting, on a core, for more work to come.
REST = 0.5
#: What the authors' code sets, as far as is known; both make it faster.
TUNED = {"warm_start": True, "selection": "random", "random_state": 0}


def run(samples: Samples, count: int, repeats: int) -> dict[str, Any]:
    """Seconds, ratios and errors of all sides, which take turns ``repeats`` times."""
    z, y = samples.z, samples.y
    # In float64 and outside of the timing: the penalty for LassoLars, and the judge of all choices.
    train = Contributions.of_samples(z.double(), y.double())
    held_out = Contributions.of_samples(samples.held_z.double(), samples.held_y.double())
    penalty = select_by_lasso(train, count).penalty
    while len(lasso_lars(z, y, penalty)) < count:  # in float32 its path has a channel a little later
        penalty *= 0.999
    fits: dict[str, int] = {}

    def bisected(side: str, **options: Any) -> list[int]:
        # Its products are single columns: shared out over threads, they spend the time waiting for each other.
        with threadpool_limits(1, "blas"):
            channels, fits[side] = published_lasso(z, y, count, **options)
        return channels

    sides: dict[str, Callable[[], list[int]]] = {
        "ours_lasso": lambda: our_lasso(z, y, count),
        "lasso_lars": lambda: lasso_lars(z, y, penalty),
        "published_lasso": lambda: bisected("published_lasso"),
        "published_lasso_tuned": lambda: bisected("published_lasso_tuned", **TUNED),
        "ours_greedy": lambda: our_greedy(z, count),
        "published_greedy": lambda: published_greedy(z, count),
    }
    for side in ("ours_lasso", "ours_greedy", "lasso_lars"):
        sides[side]()  # libraries load on their first call
    turns: dict[str, list[float]] = {side: [] for side in sides}
    cpu_turns: dict[str, list[float]] = {side: [] for side in sides}
    kept: dict[str, list[int]] = {}
    for _ in range(repeats):
        for side, work in sides.items():
            time.sleep(REST)
            start, cpu = time.perf_counter(), time.process_time()
            kept[side] = work()
            cpu_turns[side].append(time.process_time() - cpu)
            turns[side].append(time.perf_counter() - start)
    seconds = {side: statistics.median(t) for side, t in turns.items()}
    cpu_seconds = {side: statistics.median(t) for side, t in cpu_turns.items()}
    # The published procedure stops at any count from c' to 1.1 c': more channels leave less error.
    for side in ("published_lasso", "published_lasso_tuned"):
        kept[f"ours_as_many_as_{side}"] = our_lasso(z, y, len(kept[side]))
    errors = {side: _errors(train, held_out, channels) for side, channels in kept.items()}

    def error_ratio(ours: str, theirs: str) -> dict[str, float]:
        return {part: errors[ours][part] / errors[theirs][part] for part in ("train", "held_out")}

    return {
        "seconds": seconds,
        "speedup": _speedups(seconds),
        "cpu_seconds": cpu_seconds,
        "speedup_cpu": _speedups(cpu_seconds),
        "error_ratio": {
            "lasso_to_published": error_ratio("ours_as_many_as_published_lasso", "published_lasso"),
            "lasso_to_published_tuned": error_ratio("ours_as_many_as_published_lasso_tuned", "published_lasso_tuned"),
            "lasso_to_lasso_lars": error_ratio("ours_lasso", "lasso_lars"),
            "greedy_to_published": error_ratio("ours_greedy", "published_greedy"),
        },
        "counts": {side: len(channels) for side, channels in kept.items()},
        "same_channels": {
            "lasso_lars": sorted(kept["lasso_lars"]) == kept["ours_lasso"],
            "published_greedy": sorted(kept["published_greedy"]) == kept["ours_greedy"],
        },
        "fits": fits,
        "errors": errors,
        "turns_s": turns,
        "cpu_turns_s": cpu_turns,
    }


def _speedups(seconds: dict[str, float]) -> dict[str, float]:
    """How many times longer than ours the others took."""
    return {
        "lasso_over_published": seconds["published_lasso"] / seconds["ours_lasso"],
        "lasso_over_published_tuned": seconds["published_lasso_tuned"] / seconds["ours_lasso"],
        "lasso_over_lasso_lars": seconds["lasso_lars"] / seconds["ours_lasso"],
        "greedy_over_published": seconds["published_greedy"] / seconds["ours_greedy"],
    }


def _errors(train: Contributions, held_out: Contributions, channels: list[int]) -> dict[str, float]:
    """Share of the target's energy that is missed after the least squares of the scales."""
    fit = fit_scales(train, torch.tensor(channels))
    missed = held_out.error(fit.kept, fit.scales) * held_out.samples / held_out.energy
    return {"train": fit.relative_error, "held_out": missed}


def conditions(asked: argparse.Namespace, reproduce: str) -> dict[str, Any]:
    """What a result is measured on and how."""
    packages = {name: importlib.metadata.version(name) for name in ("scipy", "scikit-learn")}
    try:
        command = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    names = ("samples", "held_out", "channels", "outputs", "count", "repeats", "threads", "seed")
    return {
        "hardware": {**hardware(), "threads": asked.threads},
        "versions": {**versions(), **packages},
        "protocol": {
            **{name: getattr(asked, name) for name in names},
            "commit": commit,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "reproduce": reproduce,
        },
    }


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description="solvers beside the published")
    parser.add_argument("--samples", type=int, default=50_000, help="rows (default 50000)")
    parser.add_argument("--held-out", type=int, default=10_000, help="further rows for the error (default 10000)")
    parser.add_argument("--channels", type=int, default=512, help="channels of the layer (default 512)")
    parser.add_argument("--outputs", type=int, default=1, help="output channels the samples are of (default 1)")
    parser.add_argument("--count", type=int, default=256, help="channels to keep (default 256)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the network and the images (default 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the JSON here")
    asked = parser.parse_args(words)
    problems = [
        f"--{name.replace('_', '-')} is {getattr(asked, name)}; give at least 1"
        for name in ("samples", "held_out", "channels", "outputs", "count", "repeats", "threads")
        if getattr(asked, name) < 1
    ]
    if 1 <= asked.channels < asked.count:
        problems.append(f"--count is {asked.count} of --channels {asked.channels}; give no more than there are")
    if asked.out is not None and not asked.out.absolute().parent.is_dir():
        problems.append(f"there is no folder {str(asked.out.parent)!r} for --out; make it first")
    if problems:
        raise UsageError("\n".join(problems))
    return asked


def _show(console: Console, result: dict[str, Any]) -> None:
    table = Table("side", "kept", "s", "of ours", "missed", "held out")
    for side, words in SIDES.items():
        ours = result["seconds"]["ours_lasso" if "lasso" in side else "ours_greedy"]
        seconds, errors = result["seconds"][side], result["errors"][side]
        times = "" if side.startswith("ours") else f"{seconds / ours:.1f}"
        row = (f"{seconds:.3f}", times, f"{errors['train']:.5f}", f"{errors['held_out']:.5f}")
        table.add_row(words, str(result["counts"][side]), *row)
    console.print(table)


def main(words: list[str] | None = None) -> int:
    console = Console(soft_wrap=True)
    try:
        asked = _arguments(words)
    except SecateurError as error:
        Console(stderr=True, emoji=False).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    arguments = shlex.join(sys.argv[1:] if words is None else words)
    load = {"before": list(os.getloadavg())}
    before = torch.get_num_threads()
    torch.set_num_threads(asked.threads)
    try:
        with threadpool_limits(asked.threads):
            samples = random_layer(asked.samples, asked.held_out, asked.channels, asked.outputs, asked.seed)
            result = run(samples, asked.count, asked.repeats)
    finally:
        torch.set_num_threads(before)
    result |= conditions(asked, f"python -m benchmarks.solvers {arguments}".strip())
    result["hardware"]["load_average"] = {**load, "after": list(os.getloadavg())}
    if asked.out is not None:
        write_atomic(asked.out, json.dumps(result, indent=1) + "\n")
    _show(console, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
