"""From the runs of a study to its stages: what each result depends on, and on nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from secateur._errors import DataError, SecateurError, UsageError
from secateur._user_code import is_user_code
from secateur.budget import is_widths
from secateur.data import load
from secateur.job import Job, settings
from secateur.models import carries_weights
from secateur.study.recipe import RunRecipe, Study
from secateur.study.stages import Stage, StudyPlan
from secateur.training import TrainConfig
from secateur.training.recover import FINETUNE_EPOCHS, FINETUNE_LR

_FIRST_SETTINGS = (
    "epochs",
    "optimiser",
    "lr",
    "momentum",
    "nesterov",
    "weight_decay",
    "schedule",
    "milestones",
    "gamma",
    "warmup_epochs",
    "label_smoothing",
    "batch_size",
    "mixed_precision",
    "channels_last",
    "clip_grad_norm",
    "seed",
)


def plan_study(study: Study) -> StudyPlan:
    """The stages of a study, each once. Reads every data set and every file of weights once, to know what they are.

    Raises:
        DataError, UsageError: data sets that cannot be read, all of them at once.
    """
    wanted = dict.fromkeys((run.data, run.data_dir) for run in study.runs)
    known: dict[tuple[str, str | None], list[str]] = {}
    problems = []
    for name, folder in wanted:
        try:
            known[name, folder] = _identity_of_data(name, folder)
        except SecateurError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise DataError("\n".join(problems))
    files: dict[str | None, str] = {run.weights: _digest(run.weights) for run in study.runs if run.weights}
    return StudyPlan.of(_chain(run, known[run.data, run.data_dir], files.get(run.weights)) for run in study.runs)


def _chain(run: RunRecipe, data: list[str], weights: str | None) -> Sequence[Stage]:
    job, config = run.job, run.job.config
    drawn = not (run.weights or run.pretrained or carries_weights(run.model))
    base: dict[str, Any] = {
        "model": run.model,
        "code": _digest(run.model.rpartition(":")[0]) if is_user_code(run.model) else _of_folder(run.model),
        "weights": weights,
        "pretrained": run.pretrained,
        "data": run.data,
        "data_files": data,
        "limit": run.limit,
        "limit_test": run.limit_test,
        "input": run.input,
        # Nothing is drawn where the weights come from a file.
        "seed": job.seed if run.train or drawn else None,
    }
    where = {"data_dir": run.data_dir and str(Path(run.data_dir).absolute())}
    where["weights"] = run.weights and str(Path(run.weights).absolute())
    name = f"{run.model}-{run.data}"
    chain: list[Stage] = []
    if run.train:
        dense = {**base, "training": _training(replace(config, epochs=run.train))}
        chain.append(Stage("dense", dense, (), f"{name}-s{job.seed}", where, effort=run.train))
        start: dict[str, Any] = {}
    else:
        start = base
    words = run.words()
    cut = {
        **start,
        "method": job.method.name,
        "options": asdict(job.method),
        **{k: words[k] for k in ("round_to", "ranking", "protect", "floor")},
        "uniform": job.goal.uniform,
        "goal": job.goal.as_dict(),
        **_files(job),
        "seed": job.seed,
        "batch_size": config.batch_size,
        "training": _training(config) if job.method.trains else None,
        "recalibrate": job.recalibrate_batches,
        "latency_runs": job.latency_runs,
    }
    goal = "-".join(f"{k}{v:g}" if isinstance(v, float) else str(v) for k, v in job.goal.as_dict().items())
    name = f"{name}-{job.method.name}-{goal}"
    extra = job.method.schedule().get("epochs", config.epochs) if job.method.trains else 0
    recipe = {**where, "recipe": words, "base": base, "train": run.train}
    # The recipe says more than the cut depends on; what is read of it there is in the settings.
    cutting = Stage("cut", cut, tuple(s.address for s in chain), f"{name}-s{job.seed}", recipe, effort=1 + extra)
    recover = {
        "recover": job.recover,
        **_recovery(run),
        "compare": list(job.compare),
        **({} if job.scratch_b_cap is None else {"scratch_b_cap": job.scratch_b_cap}),
        "training": None if job.recover == "none" and not job.compare else _training(config),
        "seed": job.seed,
        **({"teacher": "dense"} if job.taught else {}),
    }
    needs = (cutting.address, *(s.address for s in chain if job.taught))
    last = Stage("recover", recover, needs, f"{name}-{job.recover}-s{job.seed}", recipe, effort=_effort(run))
    return [*chain, cutting, last]


def _training(config: TrainConfig) -> dict[str, Any]:
    """Settings for an address: fields that later releases brought count only where they are used."""
    new = {
        f.name for f in fields(TrainConfig) if f.name not in _FIRST_SETTINGS and getattr(config, f.name) == f.default
    }
    return {name: value for name, value in settings(config).items() if name not in new}


def _recovery(run: RunRecipe) -> dict[str, Any]:
    """Length and learning rate with the defaults written out, so that saying a default changes nothing."""
    job = run.job
    if job.recover == "none":
        return {"epochs": None, "recover_lr": None}
    if job.recover == "finetune":
        return {"epochs": job.epochs or FINETUNE_EPOCHS, "recover_lr": job.recover_lr or FINETUNE_LR}
    return {"epochs": job.epochs or job.config.epochs, "recover_lr": None}


def _effort(run: RunRecipe) -> float:
    """In epochs; those of a smaller network count as those of the dense one."""
    job = run.job
    share = next((v for v in job.goal.as_dict().values() if isinstance(v, float) and v <= 1), 0.5)
    total = 0.2
    for name in (job.recover, *job.compare):
        if name == "finetune":
            total += job.epochs or FINETUNE_EPOCHS
        elif name != "none":
            longer = min(1 / share, job.scratch_b_cap or math.inf) if name == "scratch-b" else 1
            total += job.config.epochs * longer
    return total


def _identity_of_data(name: str, folder: str | None) -> list[str]:
    """Digests of what the data set holds, without the names of places and versions."""
    splits = load(name, data_dir=folder)
    found = sorted(set(splits.source.values()))
    return [*found, _digest(name.rpartition(":")[0])] if is_user_code(name) else found


def _of_folder(model: str) -> str | None:
    """Of a model that lies in a folder: every file of it."""
    kind, _, rest = model.partition(":")
    if kind != "hf" or not Path(rest).is_dir():
        return None
    files = sorted(p for p in Path(rest).rglob("*") if p.is_file())
    return hashlib.sha256("".join(f"{p.name} {_digest(str(p))}\n" for p in files).encode()).hexdigest()


def _files(job: Job) -> dict[str, Any]:
    """What lies in the files that goal and method name: widths, learned gates."""
    named = [job.goal.preset] if job.goal.preset and is_widths(job.goal.preset) else []
    gates = asdict(job.method).get("gates")
    found = [_digest(path) for path in (*named, *([gates] if isinstance(gates, str) else []))]
    return {"files": found} if found else {}


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
