"""The work of each kind of stage, from the folders of the stages before it to a folder of its own."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from secateur._atomic import write_atomic
from secateur.budget import Budget
from secateur.card import Card, read_card, write_card
from secateur.job import Job as Asked
from secateur.job import job as asked_for
from secateur.models import carries_weights
from secateur.pipeline import bring_back, cut_down, rehearse
from secateur.record import Trail, write_run
from secateur.study.job import Job, Progress
from secateur.surgery import load, save
from secateur.surgery.files import state
from secateur.training import EpochRecord, TrainConfig, fit, recovery
from secateur.training.distill import Tutor
from secateur.workbench import Bench, parse_shape, set_up

DENSE_WEIGHTS = "model.safetensors"


@dataclass
class _StageTrail(Trail):
    """A trail whose checkpoints outlive the attempt, and which tells the runner of every epoch.

    Attributes:
        work: where checkpoints go.
        tell: the runner's ear.
        expected: epochs that the stage will train, as far as that is known.
    """

    work: Path = field(default_factory=Path)
    tell: Progress = lambda share, text: None
    expected: float = 1.0
    trained: int = 0
    said: str = ""

    def checkpoints(self, stage: str) -> Path | None:
        return self.work / stage

    def quality(self, model: nn.Module) -> dict[str, float]:
        found = super().quality(model)
        if "accuracy" in found:
            self.said = f"accuracy {found['accuracy']:.1%}"
        self._speak()
        return found

    def epoch(self, record: EpochRecord) -> None:
        self.trained += 1
        self._speak()

    def _speak(self) -> None:
        self.tell(min(self.trained / self.expected, 0.99), self.said)


def execute(job: dict[str, Any], progress: Progress) -> None:
    """Do one stage; see :class:`secateur.study.job.Executor`."""
    given = Job(**job)
    torch.set_num_threads(max(1, given.threads))
    {"dense": _dense, "cut": _cut, "recover": _recover}[given.kind](given, progress)


def rehearse_cut(where: Mapping[str, Any]) -> None:
    """Refuse what the cut of a stage would refuse, on the untrained network.

    Args:
        where: of the stage.

    Raises:
        SecateurError: as :func:`secateur.pipeline.rehearse`.
    """
    words = where["recipe"]
    bench = _bench(where["base"], where, words["training.batch_size"], words["seed"], where["weights"])
    rehearse(bench.model, bench.example, _asked(words), True)


def _dense(job: Job, progress: Progress) -> None:
    """Train the dense network; leaves its weights and its log."""
    config = _config(job.settings["training"])
    bench = _bench(job.settings, job.where, config.batch_size, job.settings["seed"], job.where["weights"])
    trail = _trail(job, bench, progress, config.epochs)
    history = fit(
        bench.model,
        bench.train,
        config,
        eval_fn=trail.quality,
        log=trail.epoch,
        checkpoint_dir=trail.checkpoints("dense"),
        progress=False,
    )
    for record in history:
        trail.log("training", **record.as_dict())
    tensors = {name: tensor.cpu() for name, tensor in state(bench.model).items()}
    write_atomic(Path(job.result, DENSE_WEIGHTS), safetensors.torch.save(tensors))


def _cut(job: Job, progress: Progress) -> None:
    """Judge, plan, cut, verify and measure; leaves the network right after the cut and its card so far."""
    out, words = Path(job.result), job.where["recipe"]
    bench = _start(job, job.needs.get("dense"))
    asked = _asked(words)
    _copy_log(job.needs.get("dense"), out)
    trail = _trail(job, bench, progress, max(1, _law_epochs(asked)))
    graph = rehearse(bench.model, bench.example, asked, True)
    names = {"model": words["model"], "data": words["data"]}
    result = cut_down(graph, bench.example, asked, bench.train, trail, names, trained=_is_trained(job))
    notes = list(result.card.notes)
    if job.busy and asked.latency_runs:
        beside = "another run was" if job.busy == 1 else f"up to {job.busy} other runs were"
        notes.append(f"times were taken while {beside} at work on the same machine")
    save(result.model, out, source=bench.source)
    write_card(replace(result.card, notes=tuple(notes), reproduce="secateur run recipe.toml"), out / "card.json")


def _recover(job: Job, progress: Progress) -> None:
    """Recover the network that was cut; leaves an ordinary folder of a run."""
    out, words, before = Path(job.result), job.where["recipe"], Path(job.needs["cut"])
    asked = _asked(words)
    bench = _start(job, job.needs.get("dense"))
    _copy_log(before, out)
    card = read_card(before / "card.json")
    tutor = Tutor("dense", copy.deepcopy(bench.model)) if asked.taught else None
    small = load(before, model=bench.model)
    trail = _trail(job, bench, progress, max(1, _recovery_epochs(asked, card)))
    trail.history, trail.notes = list(card.history), list(card.notes)
    small, final = bring_back(small, card, asked, bench.train, trail, tutor)
    final = _addressed(final, job)
    write_run(small, final, words, out, bench.source)


def _addressed(card: Card, job: Job) -> Card:
    data = {k: job.where["base"][k] for k in ("data_files", "limit", "limit_test")}
    return replace(card, extra={**card.extra, "study": {"run": job.label, **data}})


def _is_trained(job: Job) -> bool:
    """Whether the dense network has seen data: here, or before it was handed over."""
    given = job.where["weights"] or job.where["base"]["pretrained"]
    return bool(job.needs.get("dense") or given) or carries_weights(job.where["recipe"]["model"])


def _start(job: Job, dense: str | None) -> Bench:
    """The bench with the dense network, trained or from where the recipe has it."""
    weights = str(Path(dense, DENSE_WEIGHTS)) if dense else job.where["weights"]
    training = job.where["recipe"]
    return _bench(job.where["base"], job.where, training["training.batch_size"], training["seed"], weights)


def _bench(base: Mapping[str, Any], where: Mapping[str, Any], batch: int, seed: int | None, weights: Any) -> Bench:
    return set_up(
        base["model"],
        base["data"],
        data_dir=Path(where["data_dir"]) if where["data_dir"] else None,
        weights=Path(weights) if weights else None,
        pretrained=base["pretrained"],
        limit=base["limit"],
        limit_test=base["limit_test"],
        shape=parse_shape(base["input"]) if base["input"] else None,
        batch_size=batch,
        seed=seed or 0,
    )


def _asked(words: Mapping[str, Any]) -> Asked:
    """What the recipe of a run asks for."""
    tables: dict[str, dict[str, Any]] = {"options": {}, "budget": {}, "training": {}}
    for key, value in words.items():
        table, dot, name = key.partition(".")
        if dot:
            tables[table][name] = value
    config = _config(tables["training"])
    return asked_for(
        words["method"],
        tables["options"],
        Budget(**tables["budget"]) if tables["budget"] else None,
        words.get("preset"),
        words["compare"],
        words["round_to"],
        words["ranking"],
        words["protect"],
        words["floor"],
        words.get("uniform", False),
        config,
        words["seed"],
        recover=words["recover"],
        epochs=words.get("epochs"),
        recover_lr=words.get("recover_lr"),
        scratch_b_cap=words.get("scratch_b_cap"),
        recalibrate_batches=words["recalibrate"],
        latency_runs=words["latency_runs"],
        teacher=words.get("teacher"),
    )


def _config(stored: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig(**stored)


def _trail(job: Job, bench: Bench, progress: Progress, expected: float) -> _StageTrail:
    return _StageTrail(
        Path(job.result), bench.test, progress=False, work=Path(job.work), tell=progress, expected=expected
    )


def _law_epochs(asked: Asked) -> int:
    """Of the training before the judgement."""
    method = asked.method
    return method.rounds * method.schedule().get("epochs", asked.config.epochs) if method.trains else 0


def _recovery_epochs(asked: Asked, card: Card) -> int:
    """Of the recovery and of those it is compared with."""
    macs = (card.dense.macs, card.pruned.macs)
    own = recovery(asked.recover, asked.config, *macs, asked.epochs, asked.scratch_b_cap)
    others = [recovery(name, asked.config, *macs, None, asked.scratch_b_cap) for name in asked.compare]
    return sum(plan.config.epochs for plan in (own, *others))


def _copy_log(before: str | Path | None, out: Path) -> None:
    """The log of a run begins with those of the stages that it shares; what a method left there comes along."""
    if before is None:
        return
    own = {"card.json", "plan.json", "stage.json"}
    left = [path for path in Path(before).glob("*.json") if path.name not in own]
    for path in (Path(before, "log.jsonl"), *left):
        if path.is_file():
            shutil.copyfile(path, out / path.name)
