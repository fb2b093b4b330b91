"""The whole sentence: trace, judge, plan, cut, verify, recover, measure, card."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur import pipeline
from secateur._errors import BudgetError, FileError, TrainingError, UnknownName, UsageError, VerifyError
from secateur.card import parse_card, read_card
from secateur.measure import Latency
from secateur.methods import REGISTRY
from secateur.models import build
from secateur.surgery import Verification
from secateur.training import TrainConfig
from secateur.workbench import Bench, set_up, train_dense

FILES = {"card.json", "plan.json", "model.safetensors", "recipe.toml", "log.jsonl", "report.html", "checkpoints"}
CONFIG = TrainConfig(epochs=2, lr=0.05, batch_size=32, schedule="constant")


def correct(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[int, int]:
    """Hits and items, counted by hand."""
    hits = items = 0
    model.eval()
    with torch.no_grad():
        for x, y in batches:
            hits += sum(int(a) == int(b) for a, b in zip(model(x).argmax(1), y))
            items += len(y)
    return hits, items


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A network that has seen 240 digits twice."""
    made = set_up("digits-resnet", "digits", limit=240, limit_test=120, batch_size=32)
    train_dense(made, CONFIG, None, progress=False)
    return made


@dataclass
class Done:
    result: sc.Result
    out: Path
    before: dict[str, Any]
    after: dict[str, Any]


def photograph(model: nn.Module) -> dict[str, Any]:
    return {
        **{k: v.clone() for k, v in model.state_dict().items()},
        "modes": [m.training for m in model.modules()],
        "trained": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad is not None for p in model.parameters()],
    }


def prune(bench: Bench, **changes: Any) -> sc.Result:
    settings: dict[str, Any] = {
        "budget": sc.Budget(macs=0.5),
        "train_data": bench.train,
        "eval_data": bench.test,
        "config": CONFIG,
        "latency_runs": 0,
        "progress": False,
    }
    return sc.prune(bench.model, bench.example, **{**settings, **changes})


@pytest.fixture(scope="module")
def done(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Everything at once: fine-tuned, compared with training from scratch, timed and written."""
    out = tmp_path_factory.mktemp("pipeline") / "run"
    before = photograph(bench.model)
    result = prune(
        bench,
        recover="finetune",
        epochs=1,
        compare=("scratch-e",),
        latency_runs=5,
        out=out,
        names={"model": "digits-resnet", "data": "digits"},
        source=bench.source,
        seed=3,
    )
    return Done(result, out, before, photograph(bench.model))


def test_the_folder_holds_what_was_promised(done: Done):
    assert {path.name for path in done.out.iterdir()} == FILES


def test_the_card_on_disk_is_the_card_in_hand(done: Done):
    card = done.result.card
    assert read_card(done.out / "card.json") == parse_card(card.to_dict())
    assert (card.model, card.data, card.method, card.seed) == ("digits-resnet", "digits", "l1", 3)
    assert card.budget == {"macs": 0.5}
    assert card.exactness.exact
    assert card.exactness.max_error == done.result.check.max_error <= 1e-9
    assert card.extra["input"] == "1x1x8x8"


def test_the_figures_are_those_of_the_networks(done: Done, bench: Bench):
    card, small = done.result.card, done.result.model
    counted = sc.trace(small, bench.example).cost()
    assert (card.pruned.macs, card.pruned.params) == (counted.macs, counted.params)
    assert card.pruned.params == sum(p.numel() for p in small.parameters())
    assert card.dense.params == sum(p.numel() for p in bench.model.parameters())
    assert card.pruned.macs <= card.dense.macs / 2
    for part, model in ((card.dense, bench.model), (card.pruned, small)):
        hits, items = correct(model, bench.test)
        assert part.quality == {"accuracy": hits / items}
        assert part.latency_ms is not None
        assert part.latency_ms.runs == 5
        assert part.latency_ms.settings == {"threads": torch.get_num_threads(), "batch": 1}
    assert card.pruned.bytes < card.dense.bytes
    assert {g.name: g.kept for g in card.groups if not g.locked} == done.result.plan.widths


def test_the_saved_model_is_the_model_in_hand(done: Done, bench: Bench):
    x = next(iter(bench.test))[0]
    with torch.no_grad():
        assert torch.equal(sc.load(done.out)(x), done.result.model(x))


def test_recovery_and_comparison_are_on_record(done: Done):
    card = done.result.card
    assert card.recovery is not None
    assert (card.recovery.name, card.recovery.epochs) == ("finetune", 1)
    assert card.recovery.settings["lr"] == 0.001
    (scratch,) = card.comparisons
    assert (scratch.name, scratch.epochs, scratch.macs) == ("scratch-e", 2, card.pruned.macs)
    stages = [(p.stage, p.epoch, p.event) for p in card.history]
    assert stages == [
        ("dense", 0, None),
        ("cut", 0, "cut"),
        ("finetune", 1, None),
        ("scratch-e", 1, None),
        ("scratch-e", 2, None),
    ]
    assert all(p.accuracy is not None for p in card.history)
    assert scratch.quality["accuracy"] == card.history[-1].accuracy


def test_the_recipe_is_toml_and_complete(done: Done):
    recipe = tomllib.loads((done.out / "recipe.toml").read_text())
    assert recipe["model"] == "digits-resnet"
    assert recipe["budget"] == {"macs": 0.5}
    assert (recipe["recover"], recipe["compare"], recipe["seed"]) == ("finetune", ["scratch-e"], 3)
    assert (recipe["round_to"], recipe["ranking"], recipe["floor"], recipe["protect"]) == (8, "layer", 0.1, [])
    assert recipe["training"]["lr"] == 0.05


def test_the_log_is_one_object_a_line(done: Done):
    lines = [json.loads(line) for line in (done.out / "log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"cut", "dense", "latency", "finetune", "scratch-e"}
    assert all(line["time"] > 1.6e9 for line in lines)


def test_the_report_is_there(done: Done):
    page = (done.out / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "digits-resnet" in page


def test_the_dense_model_is_untouched(done: Done):
    assert done.before.keys() == done.after.keys()
    for key, value in done.before.items():
        same = torch.equal(value, done.after[key]) if isinstance(value, Tensor) else value == done.after[key]
        assert same, key


def test_what_was_trained_is_not_trained_again(done: Done, bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The checkpoints in the folder are used: a second call trains nothing and ends at the same weights."""
    trained: list[int] = []
    real = pipeline.fit

    def counting(model: nn.Module, data: Any, *args: Any, **kwargs: Any) -> Any:
        class Counted:
            def __iter__(self) -> Any:
                trained.append(1)
                return iter(data)

        return real(model, Counted(), *args, **kwargs)

    monkeypatch.setattr(pipeline, "fit", counting)
    again = prune(bench, recover="finetune", epochs=1, out=done.out, source=bench.source, seed=3)
    assert trained == []
    state = done.result.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.model.state_dict().items())


def test_accuracy_right_after_the_cut_is_the_masked_accuracy(bench: Bench):
    for share in (0.9, 0.5):
        result = prune(bench, budget=sc.Budget(macs=share), recover="none", train_data=None)
        hits, items = correct(sc.mask(bench.model, result.plan), bench.test)
        assert result.card.pruned.quality == {"accuracy": hits / items}
        assert next(p for p in result.card.history if p.event == "cut").accuracy == hits / items


def test_the_same_with_real_weights_and_images(shared_data: Path):
    from PIL import Image

    model = build("cifar-resnet20", weights=shared_data / "resnet20_cifar10_akamaster.safetensors").eval()
    sheet = np.array(Image.open(shared_data / "cifar10_test_10000.webp").convert("RGB").crop((0, 0, 3200, 160)))
    tiles = sheet.reshape(5, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (torch.from_numpy(tiles.copy()).float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    y = torch.from_numpy(np.load(shared_data / "cifar10_labels.npz")["test_y"][:500]).long()
    batches = list(zip(x.split(125), y.split(125)))
    result = sc.prune(
        model, x[:1], budget=sc.Budget(macs=0.5), eval_data=batches, recover="none", latency_runs=0, progress=False
    )
    dense, items = correct(model, batches)
    assert result.card.dense.quality == {"accuracy": dense / items}
    assert dense / items > 0.88
    masked, _ = correct(sc.mask(model, result.plan), batches)
    assert result.card.pruned.quality == {"accuracy": masked / items}
    assert 0.45 < result.card.pruned.macs / result.card.dense.macs <= 0.5


def test_the_same_seed_gives_the_same_network(bench: Bench):
    found = [
        prune(bench, recover="scratch-e", epochs=1, config=replace(CONFIG, seed=seed), seed=seed).model.state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())
    assert not torch.equal(found[0]["linear.weight"], found[2]["linear.weight"])


def test_statistics_can_be_estimated_again(bench: Bench):
    plain = prune(bench)
    tuned = prune(bench, recalibrate_batches=2)
    assert not torch.equal(plain.model.state_dict()["bn1.running_mean"], tuned.model.state_dict()["bn1.running_mean"])
    assert torch.equal(plain.model.state_dict()["conv1.weight"], tuned.model.state_dict()["conv1.weight"])
    assert any("re-estimated on 2 training batches" in note for note in tuned.card.notes)


def test_every_recovery_starts_from_the_same_cut(bench: Bench):
    """With the statistics that were estimated again; without them this network is another one."""
    tuned = prune(bench, recalibrate_batches=2, recover="finetune", epochs=1, compare=("none",)).card
    (untouched,) = tuned.comparisons
    assert untouched.quality["accuracy"] == tuned.history[1].accuracy
    assert untouched.quality["accuracy"] != prune(bench).card.pruned.quality["accuracy"]


def test_without_data_and_folder(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = prune(bench, train_data=None, eval_data=None)
    assert result.card.data == "none"
    assert result.card.dense.quality == result.card.pruned.quality == {}
    assert result.card.dense.latency_ms is None
    assert result.card.reproduce == (
        "sc.prune(model, example_inputs, method='l1', budget=sc.Budget(macs=0.5), recover='none', seed=0)"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_training_mode_is_noted_and_left_in_it(bench: Bench):
    bench.model.train()
    try:
        result = prune(bench, eval_data=None)
        assert bench.model.training
    finally:
        bench.model.eval()
    assert any("training mode" in note for note in result.card.notes)
    assert not result.model.training


@pytest.mark.parametrize(("pruned_ms", "noted"), [(10.0, True), (9.9, True), (12.0, True), (5.0, False)])
def test_a_note_where_time_did_not_fall(bench: Bench, monkeypatch: pytest.MonkeyPatch, pruned_ms: float, noted: bool):
    def times(models: Any, inputs: Any, **settings: Any) -> dict[str, Latency]:
        return {name: Latency(ms, 0.1, 3, times=(ms,) * 3) for name, ms in (("dense", 10.0), ("pruned", pruned_ms))}

    monkeypatch.setattr(pipeline, "compare_latency", times)
    card = prune(bench, eval_data=None, latency_runs=3).card
    assert any("MACs fell but time did not" in note for note in card.notes) == noted
    assert card.pruned.latency_ms is not None
    assert card.pruned.latency_ms.median == pruned_ms


def test_a_loss_that_is_no_number_stops_the_run(bench: Bench, tmp_path: Path):
    with pytest.raises(TrainingError, match="epoch 1"):
        prune(bench, recover="scratch-e", config=replace(CONFIG, lr=1e30), out=tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left <= {"log.jsonl", "checkpoints"}


def test_a_cut_that_is_not_exact_is_not_handed_out(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "verify", lambda *args: Verification(0.5, False, 10))
    with pytest.raises(VerifyError, match="not handed out"):
        prune(bench, out=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"log.jsonl"}


WRONG = {
    "no training data": ({"train_data": None, "recover": "finetune"}, UsageError, "pass train_data="),
    "none to compare with": ({"train_data": None, "compare": ["scratch-e"]}, UsageError, "pass train_data="),
    "budget and preset": ({"preset": "resnet56-B"}, UsageError, "not both"),
    "neither": ({"budget": None}, UsageError, "either a budget"),
    "recovery": ({"recover": "fintune"}, UnknownName, "did you mean 'finetune'"),
    "comparison": ({"compare": ["scratch"]}, UnknownName, "did you mean 'scratch-e'"),
    "epochs": ({"recover": "finetune", "epochs": 0}, UsageError, "epochs=0"),
    "method": ({"method": "l11"}, UnknownName, "did you mean 'l1'"),
    "ranking": ({"ranking": "globl"}, UnknownName, "did you mean 'global'"),
    "preset": ({"budget": None, "preset": "resnet56-C"}, UnknownName, "did you mean 'resnet56-B'"),
    "another model's preset": ({"budget": None, "preset": "resnet56-B"}, UsageError, "is for cifar-resnet56"),
    "protect": ({"protect": ["layer9"]}, UnknownName, "to protect 'layer9'"),
    "budget": ({"budget": sc.Budget(macs=0.001)}, BudgetError, "cannot be reached"),
    "round_to and floor": ({"round_to": 0, "floor": 2}, UsageError, "floor is a share"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_before_anything_is_done(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
):
    def never(*args: Any) -> Any:
        raise AssertionError("judged")

    monkeypatch.setattr(REGISTRY["l1"], "judge", never)
    changes, kind, said = WRONG[case]
    with pytest.raises(kind) as caught:
        prune(bench, out=tmp_path / "run", **changes)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_one(bench: Bench, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FileError, match="is not a folder"):
            prune(bench, out=out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_log_that_cannot_be_written(bench: Bench, tmp_path: Path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(FileError, match="cannot write to"):
        prune(bench, out=tmp_path)


def test_scratch_b_may_be_capped_and_the_last_epoch_is_evaluated_once(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    asked: list[nn.Module] = []
    quality = pipeline.Trail.quality
    monkeypatch.setattr(pipeline.Trail, "quality", lambda self, model: asked.append(model) or quality(self, model))
    free = prune(bench, budget=sc.Budget(macs=0.3), recover="scratch-b")
    assert free.card.recovery is not None
    assert free.card.recovery.epochs > 4
    # The dense network, the cut one, and every epoch.
    assert len(asked) == 2 + free.card.recovery.epochs
    config = replace(CONFIG, evaluate_every=3)
    capped = prune(bench, budget=sc.Budget(macs=0.3), recover="scratch-b", scratch_b_cap=2, config=config)
    assert capped.card.recovery is not None
    assert capped.card.recovery.epochs == 4
    curve = [p.accuracy for p in capped.card.history if p.stage == "scratch-b"]
    assert [value is None for value in curve] == [True, True, False, False]
    hits, items = correct(capped.model, bench.test)
    assert capped.card.pruned.quality == {"accuracy": curve[-1]} == {"accuracy": hits / items}


@pytest.mark.parametrize(
    ("method", "budget", "what"),
    [("l1", {"macs": 0.5}, "units"), ("magnitude", {"weights": 0.2}, "weights"), ("thinet", {"macs": 0.5}, None)],
)
def test_the_card_says_what_decided(bench: Bench, method: str, budget: dict[str, float], what: str | None):
    result = prune(bench, method=method, budget=sc.Budget(**budget), round_to=1, recover="none")
    told = parse_card(result.card.to_dict()).extra
    if what is None:
        # ThiNet chooses sets; there is no score of a single unit.
        assert "scores" not in told
        assert told["options"]["positions"] == 10
        return
    counted = told["scores"]
    assert counted["what"] == what
    if what == "weights":
        assert sum(counted["kept"]) == sum(int((p != 0).sum()) for p in weights_of(result.model))
        assert sum(counted["removed"]) == sum(int((p == 0).sum()) for p in weights_of(result.model))
    else:
        narrowed = [g for g in result.card.groups if g.kept < g.width]
        assert sum(counted["removed"]) == sum(g.width - g.kept for g in narrowed)
        assert counted["threshold"] == 1.0


def weights_of(model: nn.Module) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
