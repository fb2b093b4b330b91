"""Models side by side on several runtimes: eager, compiled, ONNX Runtime."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur._errors import UnknownName
from secateur.measure.inputs import Inputs
from secateur.measure.latency import Latency, Speedup, compare, num_threads, speedup
from secateur.measure.modes import evaluation_mode
from secateur.measure.onnx_session import onnx_runner


@dataclass(frozen=True)
class BenchRow:
    """One model on one runtime: either a latency with the speed-up over the first model, or the reason for none."""

    backend: str
    model: str
    latency: Latency | None
    speedup: Speedup | None
    reason: str | None = None


def bench(
    models: Mapping[str, nn.Module],
    example_inputs: Inputs,
    backends: Sequence[str] = ("eager", "compiled", "onnxruntime"),
    *,
    runs: int = 50,
    warmup: int = 5,
    threads: int | None = None,
    budget_s: float | None = None,
) -> list[BenchRow]:
    """Time all models on each runtime, one runtime at a time, the models in turn (see :func:`compare`).

    A model that a runtime cannot run gets a row with the reason; the others are still measured.

    Args:
        models: name to module; the first one is the baseline of the speed-ups.
        example_inputs: what the models are called with, on the models' device.
        backends: any of ``eager``, ``compiled`` (``torch.compile``), ``onnxruntime`` (CPU).
        runs, warmup, threads: as in :func:`compare`; ONNX Runtime gets the same number of threads.
        budget_s: seconds of measuring for each runtime; compiling and exporting come on top.

    Raises:
        UnknownName: a backend that does not exist.
    """
    for backend in backends:
        if backend not in BACKENDS:
            raise UnknownName("backend", backend, BACKENDS)
    rows: list[BenchRow] = []
    for backend in backends:
        with evaluation_mode(*models.values()), num_threads(threads):
            rows += _on(backend, models, example_inputs, runs, warmup, threads, budget_s)
        # A session or a compiled graph keeps its thread pool alive: gone before the next runtime starts.
        gc.collect()
    return rows


def _on(
    backend: str,
    models: Mapping[str, nn.Module],
    inputs: Inputs,
    runs: int,
    warmup: int,
    threads: int | None,
    budget_s: float | None,
) -> list[BenchRow]:
    runners: dict[str, Callable[..., Any]] = {}
    reasons: dict[str, str] = {}
    for name, model in models.items():
        try:
            runners[name] = BACKENDS[backend](model, inputs, threads)
        # Runtimes fail in their own words and with their own exceptions: all of them become the row's reason.
        except Exception as error:
            reasons[name] = _reason(error)
    found = compare(runners, inputs, runs=runs, warmup=warmup, threads=threads, budget_s=budget_s) if runners else {}
    first = found.get(next(iter(models), ""))
    return [
        BenchRow(
            backend,
            name,
            found.get(name),
            speedup(first, found[name]) if first is not None and name in found else None,
            reasons.get(name),
        )
        for name in models
    ]


def _eager(model: nn.Module, inputs: Inputs, threads: int | None) -> Callable[..., Any]:
    _call_once(model, inputs)
    return model


def _compiled(model: nn.Module, inputs: Inputs, threads: int | None) -> Callable[..., Any]:
    # dynamic=False: widths and shapes are constants here, and a second model of the same class must not be
    # compiled as a generalisation of the first.
    compiled = torch.compile(model, dynamic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _call_once(compiled, inputs)
    return compiled


def _call_once(model: Callable[..., Any], inputs: Inputs) -> None:
    compare({"": model}, inputs, runs=1, warmup=0)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


BACKENDS: dict[str, Callable[[nn.Module, Inputs, int | None], Callable[..., Any]]] = {
    "eager": _eager,
    "compiled": _compiled,
    "onnxruntime": onnx_runner,
}
