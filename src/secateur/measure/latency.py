"""How long a call takes: candidates in turn in one process, median and interquartile range."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur._errors import UsageError
from secateur.measure.inputs import Inputs, as_call, device_of, in_own_containers, tensors_in
from secateur.measure.modes import evaluation_mode

MIN_RUNS = 3
_WARMUP_SHARE = 0.25


@dataclass(frozen=True)
class Latency:
    """The time of one call in milliseconds: median, interquartile range (third minus first quartile), number of runs.

    ``times`` are the single runs in the order in which they were measured; run i of every candidate of one
    :func:`compare` belongs to the same round, so they can be compared as pairs.
    """

    median: float
    iqr: float
    runs: int
    unit: str = "ms"
    times: tuple[float, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, float | int | str]:
        """What a card holds: everything but the single runs."""
        return {"median": self.median, "iqr": self.iqr, "runs": self.runs, "unit": self.unit}


@dataclass(frozen=True)
class Speedup:
    """How many times faster: the median of paired ratios, its interquartile range, and the number of pairs."""

    median: float
    iqr: float
    runs: int


def compare(
    candidates: Mapping[str, nn.Module | Callable[..., Any]],
    inputs: Inputs,
    *,
    runs: int = 50,
    warmup: int = 5,
    threads: int | None = None,
    budget_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time several models on the same inputs, in turn: A B A B ..., so that drifts of the machine meet all alike.

    Modules run in evaluation mode (each submodule gets its own mode back), everything under
    ``torch.inference_mode``. On CUDA the device is synchronised before each reading of the clock.

    Args:
        candidates: modules, or functions that are called with the inputs.
        inputs: a tensor, a sequence of positional arguments or a mapping of keywords, already on the right device.
        runs: measured rounds at most; each round calls every candidate once.
        warmup: rounds that are not counted.
        threads: intra-op threads of PyTorch while measuring; what it was before is restored.
        budget_s: seconds for the whole comparison. Rounds stop early when the next one would not fit, but never
            before three; the warm-up stops after a quarter of it, but never before one round.
        clock: seconds, for tests.

    Raises:
        UsageError: no candidates, or numbers out of range.
    """
    _check(candidates, runs, warmup, threads, budget_s)
    args, kwargs = as_call(inputs)
    modules = [candidate for candidate in candidates.values() if isinstance(candidate, nn.Module)]
    devices = {t.device for t in tensors_in((args, kwargs))} | {device_of(module) for module in modules}
    synchronise = torch.cuda.synchronize if any(d.type == "cuda" for d in devices) else _nothing

    def call(candidate: Callable[..., Any]) -> float:
        own_args, own_kwargs = in_own_containers((args, kwargs))
        synchronise()
        start = clock()
        candidate(*own_args, **own_kwargs)
        synchronise()
        return (clock() - start) * 1e3

    times: dict[str, list[float]] = {name: [] for name in candidates}
    begin = clock()
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(*modules))
        stack.enter_context(num_threads(threads))
        stack.enter_context(torch.inference_mode())
        for _ in range(warmup):
            for candidate in candidates.values():
                call(candidate)
            if budget_s is not None and clock() - begin > _WARMUP_SHARE * budget_s:
                break
        measured_from = clock()
        for done in range(runs):
            if budget_s is not None and done >= MIN_RUNS:
                now = clock()
                a_round = (now - measured_from) / done
                if now - begin + a_round > budget_s:
                    break
            for name, candidate in candidates.items():
                times[name].append(call(candidate))
    return {name: summarise(values) for name, values in times.items()}


def summarise(times_ms: list[float]) -> Latency:
    """Median and interquartile range (linear interpolation between runs) of times in milliseconds."""
    low, middle, high = np.percentile(times_ms, [25, 50, 75])
    return Latency(float(middle), float(high - low), len(times_ms), times=tuple(times_ms))


def speedup(baseline: Latency, other: Latency) -> Speedup:
    """How many times faster ``other`` is: the median over rounds of ``baseline / other``, with its spread.

    The ratio is taken inside each round, where both saw the same state of the machine, and only then summarised.

    Raises:
        UsageError: the two were not measured in the same :func:`compare`.
    """
    if not baseline.times or len(baseline.times) != len(other.times):
        raise UsageError(
            f"a speed-up needs pairs of runs, but there are {len(baseline.times)} and {len(other.times)}\n"
            "measure both in one call of compare({...})"
        )
    ratios = np.asarray(baseline.times) / np.asarray(other.times)
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return Speedup(float(middle), float(high - low), len(ratios))


@contextmanager
def num_threads(threads: int | None) -> Iterator[None]:
    """PyTorch's intra-op threads for the length of a block; ``None`` leaves them alone."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def _check(candidates: Mapping[str, Any], runs: int, warmup: int, threads: int | None, budget_s: float | None) -> None:
    problems = []
    if not candidates:
        problems.append("there is nothing to measure: the mapping of candidates is empty")
    if runs < 1:
        problems.append(f"runs={runs} must be 1 or more")
    if warmup < 0:
        problems.append(f"warmup={warmup} must be 0 or more")
    if threads is not None and threads < 1:
        problems.append(f"threads={threads} must be 1 or more")
    if budget_s is not None and not budget_s > 0:
        problems.append(f"budget_s={budget_s} must be above 0")
    if problems:
        raise UsageError("\n".join(problems))


def _nothing() -> None:
    return
