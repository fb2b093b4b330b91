"""The sentence written out once: trace, judge, plan, cut, verify, recover, measure, card."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur import report
from secateur._atomic import write_atomic
from secateur._errors import FileError, UnknownName, UsageError
from secateur.budget import Budget, preset_widths
from secateur.budget import plan as make_plan
from secateur.card import (
    Card,
    Comparison,
    Exactness,
    GroupWidth,
    HistoryPoint,
    Latency,
    Measurement,
    Recovery,
    write_card,
)
from secateur.graph import PruningGraph, trace
from secateur.measure import compare as compare_latency
from secateur.measure import evaluate, hardware, model_bytes, speedup, versions
from secateur.methods import REGISTRY, Evidence, find
from secateur.surgery import Plan, Verification, cut, save, verify
from secateur.training import RECOVERIES, RecoveryPlan, TrainConfig, fit, recalibrate, recovery, reinitialise


@dataclass(frozen=True)
class Result:
    """What :func:`prune` gives back.

    Attributes:
        model: the smaller network, recovered as asked.
        plan: which units stayed, and why.
        card: the evidence.
        check: cut against masked model in float64.
        graph: what was tied to what in the dense model.
    """

    model: nn.Module
    plan: Plan
    card: Card
    check: Verification
    graph: PruningGraph


@dataclass
class _Run:
    """The paper trail of one call: where files go, what was seen on the way."""

    out: Path | None
    eval_data: Iterable[Any] | None
    progress: bool
    history: list[HistoryPoint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def log(self, stage: str, **facts: Any) -> None:
        """One line to ``log.jsonl``."""
        if self.out is not None:
            line = json.dumps({"time": round(time.time(), 3), "stage": stage, **facts})
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise FileError(f"cannot write to {self.out}: {error.strerror or error}") from error

    def quality(self, model: nn.Module) -> dict[str, float]:
        """Quality on the evaluation data, under its own name."""
        if self.eval_data is None:
            return {}
        found = evaluate(model, self.eval_data)
        return {"accuracy": found["accuracy"]}

    def point(self, stage: str, epoch: float, quality: Mapping[str, float], **more: Any) -> None:
        self.history.append(HistoryPoint(stage, epoch, accuracy=quality.get("accuracy"), **more))
        self.log(stage, epoch=epoch, **quality)


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    method: str = "l1",
    budget: Budget | None = None,
    preset: str | None = None,
    train_data: Iterable[Any] | None = None,
    eval_data: Iterable[Any] | None = None,
    recover: str = "none",
    epochs: int | None = None,
    recover_lr: float | None = None,
    compare: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    round_to: int = 8,
    ranking: str | None = None,
    protect: Sequence[str] = (),
    floor: float = 0.1,
    uniform: bool = False,
    config: TrainConfig | None = None,
    recalibrate_batches: int = 0,
    latency_runs: int = 50,
    names: Mapping[str, str] | None = None,
    source: Mapping[str, Any] | None = None,
    reproduce: str | None = None,
    progress: bool = True,
) -> Result:
    """Make a network smaller, recover it, prove it and measure it.

    Args:
        model: a trained network; it is not changed.
        example_inputs: one example, as ``trace`` takes it; latency is measured on it.
        method: see ``sc.methods()``.
        budget: what may remain; or give a ``preset``.
        preset: predefined widths of a paper, for instance ``"resnet56-B"``.
        train_data: batches ``(x, y)`` of the training split; needed for every recovery and for some methods.
        eval_data: batches ``(x, y)`` that are only reported on.
        recover: ``"finetune"``, ``"scratch-e"``, ``"scratch-b"`` or ``"none"``.
        epochs: of the recovery; by default what its paper says.
        recover_lr: learning rate of ``"finetune"``; by default 0.001, as its paper says.
        compare: further recoveries of the same small network, each from the same start, for the table.
        seed: of everything random.
        out: folder for ``card.json``, ``plan.json``, ``model.safetensors``, ``recipe.toml``, ``log.jsonl`` and
            ``report.html``; training resumes from the checkpoints in it.
        round_to, protect, floor, uniform: see ``sc.plan``.
        ranking: see ``sc.plan``; by default the method's own.
        config: how the dense network was trained; recoveries are derived from it.
        recalibrate_batches: re-estimate batch-norm statistics on so many training batches after the cut.
        latency_runs: timed runs of each network; 0 leaves latency out.
        names: ``{"model": ..., "data": ...}`` for the card.
        source: see ``sc.save``.
        reproduce: the line that does it again.
        progress: show progress bars.

    Raises:
        SecateurError: one of its kinds, each with the way out; see ``secateur._errors``.
    """
    chosen = find(method, REGISTRY)
    config = config or TrainConfig(seed=seed)
    graph = rehearse(
        model,
        example_inputs,
        method=method,
        budget=budget,
        preset=preset,
        train_data=train_data,
        recover=recover,
        epochs=epochs,
        compare=compare,
        out=out,
        round_to=round_to,
        ranking=ranking,
        protect=protect,
        floor=floor,
        uniform=uniform,
        config=config,
    )
    run = _Run(None if out is None else Path(out), eval_data, progress)
    run.notes += graph.warnings
    torch.manual_seed(seed)

    scores = chosen().judge(graph, Evidence(train_data, seed))
    goal = budget if budget is not None else preset_widths(preset or "", graph)
    plan = make_plan(
        graph,
        scores,
        goal,
        round_to=round_to,
        ranking=ranking or chosen.ranking,
        protect=protect,
        floor=floor,
        uniform=uniform,
    ).explain(method=method, **({"preset": preset} if preset else {}))
    small = cut(model, plan)
    check = verify(model, plan, example_inputs).require()
    run.notes += [f"{name} stays whole: {reason}" for name, reason in plan.why.get("held", {}).items()]
    run.log("cut", macs=plan.why["macs"], params=plan.why["params"], max_error=check.max_error)

    dense_quality = run.quality(model)
    run.point("dense", 0, dense_quality)
    if recalibrate_batches and train_data is not None:
        recalibrate(small, _first(train_data, recalibrate_batches))
        run.notes.append(
            f"batch-norm statistics were re-estimated on {recalibrate_batches} training batches after the cut"
        )
    cut_quality = run.quality(small)
    run.point("cut", 0, cut_quality, event="cut")

    dense_macs, macs = plan.why["dense_macs"], plan.why["macs"]
    latency = _latency(model, small, example_inputs, latency_runs, run)
    after_cut = {k: v.clone() for k, v in small.state_dict().items()} if compare else {}
    todo = recovery(recover, config, dense_macs, macs, epochs)
    if recover == "finetune" and recover_lr is not None:
        todo = replace(todo, config=replace(todo.config, lr=recover_lr))
    recovered = _recover(small, recover, todo, train_data, run, seed)
    quality = cut_quality if recover == "none" else run.quality(small)
    comparisons = []
    for name in compare:
        twin = cut(model, plan)
        twin.load_state_dict(after_cut)
        record = _recover(twin, name, recovery(name, config, dense_macs, macs), train_data, run, seed)
        comparisons.append(
            Comparison(
                name,
                record.epochs,
                macs,
                plan.why["params"],
                model_bytes(twin),
                latency.get("pruned"),
                run.quality(twin),
            )
        )

    card = Card(
        model=(names or {}).get("model", type(model).__name__),
        data=(names or {}).get("data", "none" if eval_data is None else "given batches"),
        method=method,
        budget=budget.as_dict() if budget is not None else {"preset": preset},
        seed=seed,
        dense=Measurement(
            dense_macs, plan.why["dense_params"], model_bytes(model), latency.get("dense"), dense_quality
        ),
        pruned=Measurement(macs, plan.why["params"], model_bytes(small), latency.get("pruned"), quality),
        exactness=Exactness(check.max_error, check.exact, check.dtype),
        hardware=hardware(),
        versions={k: v for k, v in versions().items() if v is not None},
        reproduce=reproduce or _call(method, budget, preset, recover, epochs, seed),
        recovery=recovered,
        comparisons=tuple(comparisons),
        groups=_groups(graph, plan),
        history=tuple(run.history),
        notes=tuple(run.notes),
        extra={} if (shape := _shape(example_inputs)) is None else {"input": "x".join(map(str, shape))},
    )
    result = Result(small, plan, card, check, graph)
    if run.out is not None:
        _write(result, run.out, source, config, recover, compare)
    return result


def rehearse(
    model: nn.Module,
    example_inputs: Any,
    *,
    method: str = "l1",
    budget: Budget | None = None,
    preset: str | None = None,
    train_data: Iterable[Any] | None = None,
    recover: str = "none",
    epochs: int | None = None,
    compare: Sequence[str] = (),
    out: str | Path | None = None,
    round_to: int = 8,
    ranking: str | None = None,
    protect: Sequence[str] = (),
    floor: float = 0.1,
    uniform: bool = False,
    config: TrainConfig | None = None,
) -> PruningGraph:
    """Refuse what :func:`prune` would refuse, before anything is trained, judged or written.

    Args:
        model: the architecture counts; its weights may still be random.

    Returns:
        The traced graph.

    Raises:
        SecateurError: as :func:`prune` does for names that do not exist, a budget out of reach, or a bad folder.
    """
    chosen = find(method, REGISTRY)
    if (budget is None) == (preset is None):
        raise UsageError("give either a budget (macs=50%) or a preset (resnet56-B), and not both")
    for name in (recover, *compare):
        if name not in RECOVERIES:
            raise UnknownName("recovery", name, RECOVERIES)
        recovery(name, config or TrainConfig(), 1, 1, epochs if name == recover else None)
    if train_data is None and (chosen.needs_data or any(name != "none" for name in (recover, *compare))):
        raise UsageError("this needs training data: pass train_data=, batches (x, y)")
    if out is not None:
        _check_folder(Path(out))
    graph = trace(model, example_inputs)
    # Which units score best changes nothing about what a budget can reach.
    alike = {g.name: torch.ones(g.width) for g in graph.prunable}
    goal = budget if budget is not None else preset_widths(preset or "", graph)
    make_plan(
        graph,
        alike,
        goal,
        round_to=round_to,
        ranking=ranking or chosen.ranking,
        protect=protect,
        floor=floor,
        uniform=uniform,
    )
    return graph


def _check_folder(folder: Path) -> None:
    standing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), folder)
    if not standing.is_dir():
        raise FileError(f"cannot write to {folder}: {standing} is not a folder\nname another one with --out (out=...)")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise FileError(f"cannot write to {folder}: no permission in {standing}\nname another one with --out (out=...)")


def _shape(example_inputs: Any) -> tuple[int, ...] | None:
    """Of an example that is a single tensor."""
    return tuple(example_inputs.shape) if isinstance(example_inputs, torch.Tensor) else None


def _call(method: str, budget: Budget | None, preset: str | None, recover: str, epochs: int | None, seed: int) -> str:
    goal = f"budget=sc.{budget!r}" if budget is not None else f"preset={preset!r}"
    length = "" if epochs is None else f", epochs={epochs}"
    return f"sc.prune(model, example_inputs, method={method!r}, {goal}, recover={recover!r}{length}, seed={seed})"


def _first(batches: Iterable[Any], count: int) -> Iterable[Any]:
    for k, batch in enumerate(batches):
        if k == count:
            return
        yield batch


def _recover(
    small: nn.Module,
    name: str,
    todo: RecoveryPlan,
    train_data: Any,
    run: _Run,
    seed: int,
) -> Recovery:
    """Train the small network in place as the recovery says."""
    if todo.reinitialise:
        fallback = reinitialise(small, seed)
        if fallback:
            run.notes.append(f"{name}: {len(fallback)} bare parameters were re-initialised by the fallback rule")
    if todo.config.epochs:
        folder = None if run.out is None else run.out / "checkpoints" / name
        history = fit(
            small,
            train_data,
            todo.config,
            eval_fn=run.quality if run.eval_data is not None else None,
            checkpoint_dir=folder,
            progress=run.progress,
        )
        for record in history:
            run.point(name, record.epoch + 1, record.metrics, loss=record.train_loss)
    small.eval()
    return Recovery(name, todo.config.epochs, {} if name == "none" else _settings(todo.config))


def _settings(config: TrainConfig) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def _latency(model: nn.Module, small: nn.Module, inputs: Any, runs: int, run: _Run) -> dict[str, Latency]:
    """Dense and pruned in turn; a note where fewer operations did not become less time."""
    if not runs:
        return {}
    times = compare_latency({"dense": model, "pruned": small}, inputs, runs=runs)
    gain = speedup(times["dense"], times["pruned"])
    batch = (_shape(inputs) or (1,))[0]
    run.log("latency", dense_ms=times["dense"].median, pruned_ms=times["pruned"].median, speedup=gain.median)
    if gain.median < 1.05:
        run.notes.append(f"MACs fell but time did not: {gain.median:.2f}x on this machine at batch size {batch}")
    settings = {"threads": torch.get_num_threads(), "batch": batch}
    return {k: Latency(t.median, t.iqr, t.runs, settings) for k, t in times.items()}


def _groups(graph: PruningGraph, plan: Plan) -> tuple[GroupWidth, ...]:
    kept = plan.widths
    return tuple(
        GroupWidth(
            g.name,
            g.kind,
            g.width,
            kept.get(g.name, g.width),
            g.name not in kept,
            g.reason or ("" if g.name in kept else "a single unit"),
            tuple(dict.fromkeys(m.tensor.rpartition(".")[0] or m.tensor for m in g.producers)),
        )
        for g in graph.groups
    )


def _write(result: Result, out: Path, source: Any, config: TrainConfig, recover: str, compare: Sequence[str]) -> None:
    """The run's folder, as DESIGN section 2 lists it."""
    card = result.card
    save(result.model, out, source=source)
    recipe: dict[str, Any] = {
        "model": card.model,
        "data": card.data,
        "method": card.method,
        **{f"budget.{k}": v for k, v in card.budget.items()},
        "recover": recover,
        "compare": list(compare),
        "seed": card.seed,
        **{k: v for k, v in result.plan.why.items() if k in ("round_to", "ranking", "protect", "floor", "uniform")},
        **{f"training.{k}": v for k, v in _settings(config).items() if v is not None},
    }
    # Scalars and lists of them are written the same in JSON and TOML, but for the escapes of rare letters.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in recipe.items()]
    try:
        write_atomic(out / "recipe.toml", "\n".join(lines) + "\n")
        write_card(card, out / "card.json")
    except OSError as error:
        raise FileError(f"cannot write to {out}: {error.strerror or error}") from error
    report.write_report([out])
