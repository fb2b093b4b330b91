"""The sentence written out once: trace, judge, plan, cut, verify, recover, measure, card."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur._errors import UsageError
from secateur.budget import Budget, Goal
from secateur.budget.histogram import unit_histogram, weight_histogram
from secateur.card import Card, Comparison, Exactness, GroupWidth, Latency, Measurement, Recovery
from secateur.expansion import Start, norm_scale, start_of
from secateur.graph import PruningGraph, selectors_of, trace, without_whole_selectors
from secateur.job import Job, job, settings
from secateur.measure import compare as compare_latency
from secateur.measure import hardware, model_bytes, speedup, versions
from secateur.methods import Evidence, Law, Method, WeightMethod
from secateur.record import Trail, check_folder, write_run
from secateur.surgery import Hold, Masks, Plan, Verification, cut, hold, make_plan, masks_of, verify
from secateur.training import RecoveryPlan, TrainConfig, fit, recalibrate, recovery, reinitialise
from secateur.training.distill import Tutor, check_teacher


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


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    method: str = "l1",
    options: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    preset: str | None = None,
    train_data: Iterable[Any] | None = None,
    eval_data: Iterable[Any] | None = None,
    recover: str = "none",
    epochs: int | None = None,
    recover_lr: float | None = None,
    scratch_b_cap: float | None = None,
    compare: Sequence[str] = (),
    teacher: str | nn.Module | None = None,
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
    trained: bool = True,
) -> Result:
    """Make a network smaller, recover it, prove it and measure it.

    Args:
        model: the dense network, trained unless ``trained`` says otherwise; it is not changed.
        example_inputs: one example, as ``trace`` takes it; latency is measured on it.
        method: see ``sc.methods()``.
        options: of the method, by name; see ``secateur methods``.
        budget: what may remain; or give a ``preset``.
        preset: predefined widths of a paper, for instance ``"resnet56-B"``, or a file of them (``widths.json``).
        train_data: batches ``(x, y)`` of the training split; needed for every recovery and for some methods.
        eval_data: batches ``(x, y)`` that are only reported on.
        recover: ``"finetune"``, ``"scratch-e"``, ``"scratch-b"`` or ``"none"``.
        epochs: of the recovery; by default what its paper says.
        recover_lr: learning rate of ``"finetune"``; by default 0.001, as its paper says.
        scratch_b_cap: train ``"scratch-b"`` for at most this many times the dense epochs; 2 in the paper's ImageNet
            runs, by default without a limit.
        compare: further recoveries of the same small network, each from the same start, for the table.
        teacher: ``"dense"`` trains every recovery on what the dense network says as well (knowledge distillation),
            ``"none"`` does not; another network of the same classes can be given. By default the method's own.
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
        trained: whether the network has seen any data. If not, its own quality means nothing: it is left out, and no
            difference to it is reported.

    Raises:
        SecateurError: one of its kinds, each with the way out; see ``secateur._errors``.
    """
    given = teacher if isinstance(teacher, nn.Module) else None
    asked = job(
        method,
        options,
        budget,
        preset,
        compare,
        round_to,
        ranking,
        protect,
        floor,
        uniform,
        config,
        seed,
        recover=recover,
        epochs=epochs,
        recover_lr=recover_lr,
        scratch_b_cap=scratch_b_cap,
        recalibrate_batches=recalibrate_batches,
        latency_runs=latency_runs,
        teacher="none" if given is not None else teacher,
    )
    if given is not None:
        check_teacher(given, model, example_inputs)
    graph = rehearse(model, example_inputs, asked, train_data is not None, out)
    trail = Trail(None if out is None else Path(out), eval_data, progress)
    result = cut_down(graph, example_inputs, asked, train_data, trail, names or {}, trained=trained)
    reproduce = reproduce or _call(method, budget, preset, recover, epochs, seed)
    result = replace(result, card=replace(result.card, reproduce=reproduce))
    tutor = Tutor("given", given) if given is not None else Tutor("dense", graph.model) if asked.taught else None
    small, card = bring_back(result.model, result.card, asked, train_data, trail, tutor)
    result = replace(result, model=small, card=card)
    if trail.out is not None:
        recipe = {"model": card.model, "data": card.data, **asked.recipe()}
        write_run(small, card, recipe, trail.out, source)
    return result


def rehearse(
    model: nn.Module, example_inputs: Any, asked: Job, has_data: bool, out: str | Path | None = None
) -> PruningGraph:
    """Refuse what :func:`prune` would refuse, before anything is trained, judged or written.

    Args:
        model: the architecture counts; its weights may still be random.
        has_data: whether there will be training data.

    Returns:
        The traced graph.

    Raises:
        SecateurError: as :func:`prune` does for a budget out of reach, missing data, or a bad folder.
    """
    if asked.trains and not has_data:
        raise UsageError("this needs training data: pass train_data=, batches (x, y)")
    if out is not None:
        check_folder(Path(out))
    graph = trace(asked.method.prepare(model, example_inputs), example_inputs)
    start = start_of(graph, example_inputs, asked)
    asked.method.feasible(start.graph, start.goal)
    return graph


def cut_down(
    graph: PruningGraph,
    example_inputs: Any,
    asked: Job,
    train_data: Any,
    trail: Trail,
    names: Mapping[str, str],
    *,
    trained: bool = True,
) -> Result:
    """From the dense network to the smaller one as it is right after the cut.

    Args:
        graph: from :func:`rehearse`.
        trail: is written to, and says what to evaluate on.
        names: ``{"model": ..., "data": ...}`` for the card.
        trained: see :func:`prune`.

    Raises:
        SecateurError: as :func:`prune`.
    """
    model, method = graph.model, asked.method
    trail.notes += graph.warnings
    if readers := selectors_of(model):
        trail.notes.append(
            f"{len(readers)} layers read through channel selectors, so the streams that they read stay whole"
        )
    torch.manual_seed(asked.seed)
    dense_quality = trail.quality(model) if trained else {}
    if trained:
        trail.point("dense", 0, dense_quality)
    else:
        trail.notes.append("the dense network was never trained, so there is no quality of it to compare with")
        if asked.recover == "finetune":
            trail.notes.append(
                "finetune goes on from weights that were never trained, at its small learning rate; scratch-e and "
                "scratch-b train new ones at that of the dense network"
            )
    start = start_of(graph, example_inputs, asked)
    trail.notes += start.note(graph)
    goal = start.goal
    judged, law = _trained(start, asked, train_data, trail) if method.trains else (start.graph, None)
    evidence = Evidence(train_data, asked.seed, law)
    judged = judged.without(*method.leave_out(judged, goal, evidence))
    masks = method.masks(judged, goal, evidence) if isinstance(method, WeightMethod) else None
    plan, scores = _planned(judged, method, goal, evidence) if masks is None else _sparse(judged, masks)
    plan = plan.explain(method=method.name)
    dense = method.refit(judged, plan, evidence)
    trail.notes += method.notes(evidence)
    if masks is not None:
        dense = masks.applied(dense)
        trail.notes.append(
            f"{masks.weights - masks.kept:,} of {masks.weights:,} weights are zero, none is gone: every tensor keeps "
            "its size, and MACs and parameters are counted without the zeros"
        )
    small = cut(dense, plan)
    hold(small, masks)
    check = verify(dense, plan, example_inputs).require()
    plan = start.finished(plan, graph)
    small.secateur_plan = plan  # pyright: ignore[reportArgumentType]
    trail.keep(method.files(judged, plan, evidence))
    trail.notes += [f"{name} stays whole: {reason}" for name, reason in plan.why.get("held", {}).items()]
    trail.log("cut", macs=plan.why["macs"], params=plan.why["params"], max_error=check.max_error)
    if asked.recalibrate_batches and train_data is not None:
        recalibrate(small, _first(train_data, asked.recalibrate_batches))
        trail.notes.append(
            f"batch-norm statistics were re-estimated on {asked.recalibrate_batches} training batches after the cut"
        )
    quality = trail.quality(small)
    trail.point("cut", 0, quality, event="cut")
    model = without_whole_selectors(model)
    latency = _latency(model, small, example_inputs, asked.latency_runs, trail)
    why, shape = plan.why, _shape(example_inputs)
    card = Card(
        model=names.get("model", type(model).__name__),
        data=names.get("data", "none" if trail.eval_data is None else "given batches"),
        method=method.name,
        budget=goal.as_dict(),
        seed=asked.seed,
        dense=Measurement(
            why["dense_macs"], why["dense_params"], model_bytes(model), latency.get("dense"), dense_quality
        ),
        pruned=Measurement(why["macs"], why["params"], model_bytes(small), latency.get("pruned"), quality),
        exactness=Exactness(check.max_error, check.exact, check.dtype),
        hardware=hardware(),
        versions={k: v for k, v in versions().items() if v is not None},
        reproduce="",
        groups=_groups(start.graph, plan),
        history=tuple(trail.history),
        notes=tuple(trail.notes),
        extra={
            **({} if shape is None else {"input": "x".join(map(str, shape))}),
            **({"options": options} if (options := asked.options()) else {}),
            **({} if scores is None else {"scores": scores}),
            **method.record(evidence),
        },
    )
    return Result(small, plan, card, check, graph)


def _planned(graph: PruningGraph, method: Method, goal: Goal, evidence: Evidence) -> tuple[Plan, dict[str, Any] | None]:
    """The plan, and how the scores that it was made from are spread; None where it was made in another way."""
    spent = method.spend(graph, goal, evidence)
    if spent is not None:
        return spent, None
    keep = method.choose(graph, goal.widths(graph, method.ranking), evidence)
    if keep is not None:
        return goal.keeping(graph, keep, method.ranking), None
    scores = method.judge(graph, evidence)
    plan = goal.plan(graph, scores, method.ranking)
    return plan, unit_histogram(scores, plan, goal.ranking or method.ranking)


def _sparse(graph: PruningGraph, masks: Masks) -> tuple[Plan, dict[str, Any] | None]:
    """A plan that removes no unit; what it says of cost leaves out what is zero."""
    dense, spent = graph.cost(), graph.module_macs()
    macs = 0.0
    for module, count in spent.items():
        keep = masks.keep.get(f"{module}.weight")
        macs += count if keep is None else count * float(keep.float().mean())
    plan = make_plan(graph, {}).explain(
        weights=masks.kept,
        macs=round(macs),
        params=dense.params - (masks.weights - masks.kept),
        dense_macs=dense.macs,
        dense_params=dense.params,
    )
    sizes = {name: p.detach().abs() for name, p in graph.model.named_parameters() if name in masks.keep}
    return plan, weight_histogram(sizes, masks.keep)


def _trained(start: Start, asked: Job, train_data: Any, trail: Trail) -> tuple[PruningGraph, Law]:
    """The graph over a copy of the network that was trained under the method's law, and that law."""
    method, graph, goal = asked.method, start.graph, start.goal
    judged = graph.on(copy.deepcopy(graph.model))
    if method.redraws and start.plan is None:
        fallback = reinitialise(judged.model, asked.seed, norm_scale=norm_scale(graph.model))
        if fallback:
            trail.notes.append(f"{method.name}: {len(fallback)} bare parameters were drawn by the fallback rule")
    config = replace(asked.config, **method.schedule())
    law = method.law_towards(judged, goal, config.epochs)
    learned_from = law.data(train_data)
    for done in range(method.rounds):
        if done:
            method.between(judged, goal, law, done)
        stage = method.name if method.rounds == 1 else f"{method.name}-{done + 1}"
        history = fit(
            judged.model,
            learned_from,
            config,
            hooks=(law,),
            eval_fn=trail.quality if trail.eval_data is not None else None,
            log=trail.epoch,
            checkpoint_dir=trail.checkpoints(stage),
            progress=trail.progress,
        )
        for record in history:
            trail.point(stage, record.epoch + 1, record.metrics, loss=record.train_loss)
    law.finish()
    judged.model.eval()
    return judged, law


def bring_back(
    small: nn.Module, card: Card, asked: Job, train_data: Any, trail: Trail, tutor: Tutor | None = None
) -> tuple[nn.Module, Card]:
    """Recover a network that was cut, in place, and copies of it in the other ways that are to be compared.

    Args:
        small: as it is right after the cut.
        card: its evidence so far.
        tutor: the teacher, if there is one.

    Returns:
        The network and its card.

    Raises:
        SecateurError: as :func:`secateur.training.fit`.
    """
    after_cut, start = copy.deepcopy(small) if asked.compare else None, card
    card = _recovered(small, start, asked.recover, asked, train_data, trail, tutor)
    for name in asked.compare:
        other = _recovered(copy.deepcopy(after_cut), start, name, asked, train_data, trail, tutor)
        card = replace(card, comparisons=(*card.comparisons, _as_comparison(other)), history=other.history)
    return small, replace(card, notes=tuple(dict.fromkeys(trail.notes)))


def _recovered(
    small: Any, card: Card, name: str, asked: Job, train_data: Any, trail: Trail, tutor: Tutor | None
) -> Card:
    main = name == asked.recover
    epochs = asked.epochs if main else None
    todo = recovery(name, asked.config, card.dense.macs, card.pruned.macs, epochs, asked.scratch_b_cap)
    if main and name == "finetune" and asked.recover_lr is not None:
        todo = replace(todo, config=replace(todo.config, lr=asked.recover_lr))
    record, quality = _recover(small, name, todo, train_data, trail, asked.seed, tutor)
    if quality is None:
        quality = card.pruned.quality if name == "none" else trail.quality(small)
    pruned = replace(card.pruned, quality=quality, bytes=model_bytes(small))
    return replace(card, pruned=pruned, recovery=record, history=tuple(trail.history))


def _recover(
    small: nn.Module,
    name: str,
    todo: RecoveryPlan,
    train_data: Any,
    trail: Trail,
    seed: int,
    tutor: Tutor | None = None,
) -> tuple[Recovery, dict[str, float] | None]:
    """What was done, and the quality after the last epoch if there was one."""
    quality = None
    if todo.reinitialise:
        fallback = reinitialise(small, seed)
        if fallback:
            trail.notes.append(f"{name}: {len(fallback)} bare parameters were re-initialised by the fallback rule")
    masks = masks_of(small)
    if masks is not None:
        masks.apply(small)
    if todo.config.epochs:
        history = fit(
            small,
            train_data,
            todo.config,
            hooks=() if masks is None else (Hold(masks),),
            eval_fn=trail.quality if trail.eval_data is not None else None,
            log=trail.epoch,
            objective=None if tutor is None else tutor.objective(todo.config),
            checkpoint_dir=trail.checkpoints(name if tutor is None else f"{name}-taught"),
            progress=trail.progress,
        )
        for record in history:
            trail.point(name, record.epoch + 1, record.metrics, loss=record.train_loss)
            quality = record.metrics
    small.eval()
    said = {} if tutor is None else tutor.settings()
    return Recovery(name, todo.config.epochs, {} if name == "none" else {**settings(todo.config), **said}), quality


def _as_comparison(card: Card) -> Comparison:
    assert card.recovery is not None
    part = card.pruned
    return Comparison(
        card.recovery.name, card.recovery.epochs, part.macs, part.params, part.bytes, part.latency_ms, part.quality
    )


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


def _latency(model: nn.Module, small: nn.Module, inputs: Any, runs: int, trail: Trail) -> dict[str, Latency]:
    """Dense and pruned in turn; a note where fewer operations did not become less time."""
    if not runs:
        return {}
    times = compare_latency({"dense": model, "pruned": small}, inputs, runs=runs)
    gain = speedup(times["dense"], times["pruned"])
    batch = (_shape(inputs) or (1,))[0]
    trail.log("latency", dense_ms=times["dense"].median, pruned_ms=times["pruned"].median, speedup=gain.median)
    if gain.median < 1.05:
        trail.notes.append(f"MACs fell but time did not: {gain.median:.2f}x on this machine at batch size {batch}")
    settings = {"threads": torch.get_num_threads(), "batch": batch}
    return {k: Latency(t.median, t.iqr, t.runs, settings) for k, t in times.items()}


def _groups(graph: PruningGraph, plan: Plan) -> tuple[GroupWidth, ...]:
    kept = plan.widths
    blocks = tuple(f"{skip.block}." for skip in plan.skips)
    # A group of which nothing lies outside the blocks that are left out goes with them.
    gone = {g.name for g in graph.groups if blocks and all(m.tensor.startswith(blocks) for m in g.members)}
    return tuple(
        GroupWidth(
            g.name,
            g.kind,
            g.width,
            0 if g.name in gone else kept.get(g.name, g.width),
            g.name not in kept and g.name not in gone,
            "its block is left out" if g.name in gone else g.reason or ("" if g.name in kept else "a single unit"),
            tuple(dict.fromkeys(m.tensor.rpartition(".")[0] or m.tensor for m in g.producers)),
        )
        for g in graph.groups
    )
