"""A real study, small: trained, cut and recovered on digits, by the command that a user writes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from secateur import cli
from secateur.card import read_card
from secateur.study import read_study, run_study
from secateur.study.plan import plan_study
from secateur.study.store import Store
from secateur.study.summary import results
from secateur.surgery import load

Done = tuple[Path, list[dict[str, Any]]]

RECIPE = """
title = "three ways back"
notes = "tiny, to be quick"
model = "digits-resnet"
budget = ["macs=60%", "params=10"]
recover = ["finetune", "scratch-e"]
train = 2
epochs = 1
lr = 0.05
limit = 200
limit_test = 100
latency_runs = 2
"""


def main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["secateur", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def study(recipe: Path, out: Path) -> list[dict[str, Any]]:
    """All of it, and how its runs ended."""
    return results(run_study(recipe, out, workers=2).status, out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text(RECIPE)
    return folder, study(folder / "study.toml", folder / "out")


def test_every_run_leaves_an_ordinary_folder(finished: Done):
    folder, said = finished
    assert [run["state"] for run in said] == ["done", "done", "failed", "failed"]
    for run in said[:2]:
        out = Path(run["folder"])
        assert out.parent == folder / "out" / "runs"
        names = {"card.json", "plan.json", "model.safetensors", "recipe.toml", "log.jsonl", "report.html"}
        assert names <= {path.name for path in out.iterdir()}
        card = read_card(out / "card.json")
        assert card.exactness.exact
        assert card.pruned.macs <= 0.6 * card.dense.macs
        assert card.dense.latency_ms is not None
        assert card.pruned.quality["accuracy"] == run["accuracy"]
        assert [p.stage for p in card.history][:2] == ["dense", "cut"]
        stages = [json.loads(line)["stage"] for line in (out / "log.jsonl").read_text().splitlines()]
        assert stages[:2] == ["training", "training"]
        assert "cut" in stages
        assert sum(p.numel() for p in load(out).parameters()) == card.pruned.params
    finetune, scratch = (read_card(Path(run["folder"]) / "card.json") for run in said[:2])
    assert finetune.recovery is not None
    assert scratch.recovery is not None
    assert (finetune.recovery.epochs, scratch.recovery.epochs) == (1, 2)
    assert finetune.groups == scratch.groups
    assert len(list((folder / "out" / "stages").iterdir())) == 2


def test_it_is_what_prune_does(finished: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, said = finished
    words = [
        "--budget",
        "macs=60%",
        "--train",
        "2",
        "--epochs",
        "1",
        "--lr",
        "0.05",
        "--limit",
        "200",
        "--limit-test",
        "100",
    ]
    assert main(monkeypatch, "prune", "digits-resnet", *words, "--out", tmp_path / "run") == 0
    card, same = read_card(tmp_path / "run" / "card.json"), read_card(Path(said[0]["folder"]) / "card.json")
    assert card.groups == same.groups
    assert card.dense.quality == same.dense.quality
    assert card.recovery == same.recovery
    # The number of threads may change the last digits of the weights.
    assert card.pruned.quality["accuracy"] == pytest.approx(same.pruned.quality["accuracy"], abs=0.05)


def test_the_report_finds_the_runs(finished: Done, monkeypatch: pytest.MonkeyPatch):
    folder, _ = finished
    assert main(monkeypatch, "report", folder / "out") == 0
    assert "2 runs on digits-resnet" in (folder / "out" / "report.html").read_text()


def test_killed_in_the_middle_of_a_training(finished: Done, tmp_path: Path):
    folder, said = finished
    recipe, out = folder / "study.toml", tmp_path / "out"
    running = multiprocessing.get_context("fork").Process(target=study, args=(recipe, out))
    running.start()
    deadline = time.monotonic() + 120
    while not list(out.glob("unfinished/*.work/dense/checkpoint.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert running.pid is not None
    os.kill(running.pid, signal.SIGKILL)
    running.join()
    assert not (out / "runs").exists()
    for before, after in zip(said[:2], study(recipe, out)[:2], strict=True):
        assert Path(before["folder"]).name == Path(after["folder"]).name
        files = [Path(run["folder"]) / "model.safetensors" for run in (before, after)]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert before["accuracy"] == after["accuracy"]


def test_what_failed_has_its_error_in_the_end(
    finished: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, said = finished
    assert said[2]["error"] == "not run: it needs cut digits-resnet-digits-l1-params10-s0, which failed"
    assert main(monkeypatch, "run", folder / "study.toml", "--out", folder / "out") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "three ways back" in told
    assert "note: tiny, to be quick" in told
    assert "2 of 4 runs done" in told
    assert "failed: cut digits-resnet-digits-l1-params10-s0 the budget params = 10 cannot be reached" in told
    assert "--retry-failed" in told
    assert "Traceback" not in told


def test_mistakes_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "study.toml").write_text(RECIPE + "sede = 3\n")
    assert main(monkeypatch, "run", tmp_path / "study.toml", "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_no_training_for_a_cut_that_cannot_be(tmp_path: Path):
    recipe = RECIPE.replace('budget = ["macs=60%", "params=10"]', 'budget = "params=10"') + "seed = [0, 1]\n"
    (tmp_path / "study.toml").write_text(recipe)
    said = study(tmp_path / "study.toml", tmp_path / "out")
    assert [run["state"] for run in said] == ["failed"] * 4
    assert not (tmp_path / "out" / "stages").exists()
    assert not list((tmp_path / "out" / "unfinished").glob("*"))
    with sqlite3.connect(tmp_path / "out" / "study.sqlite") as db:
        assert db.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
        cuts = db.execute("SELECT state, error FROM stages WHERE kind = 'cut'").fetchall()
    db.close()
    assert [state for state, _ in cuts] == ["failed", "failed"]
    assert all("the budget params = 10 cannot be reached" in error for _, error in cuts)


def test_what_is_refused_can_be_retried_and_what_runs_is_left_alone(tmp_path: Path):
    (tmp_path / "study.toml").write_text(RECIPE)
    plan = plan_study(read_study(tmp_path / "study.toml"))
    cut = next(stage for stage in plan.stages.values() if stage.kind == "cut")
    runs = [s.address for s in plan.stages.values() if cut.address in s.needs]
    with Store(tmp_path / "out") as store:
        store.add(plan)
        assert store.refuse(cut, "no")
        assert not store.refuse(cut, "again")
        rows = store.rows(plan)
        assert (rows[cut.address].state, rows[cut.address].error) == ("failed", "no")
        assert {rows[a].blocked_by for a in runs} == {cut.address}
        store.add(plan, retry_failed=True)
        assert {store.rows(plan)[a].state for a in (cut.address, *runs)} == {"waiting"}
        claim = store.claim(plan)
        assert claim is not None
        assert not store.refuse(claim.stage, "too late")
        store.release([claim])
