"""What a study says at its end about its runs together; the cards are invented."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from secateur.card import Card, Exactness, Measurement, Recovery, write_card
from secateur.study.recipe import Study
from secateur.study.runner import Status
from secateur.study.stages import Stage, StudyPlan
from secateur.study.store import Row
from secateur.study.study import Finished
from secateur.study.summary import summary


def _card(seed: int, recovery: str, accuracy: float) -> Card:
    dense, pruned = Measurement(100, 10, 40, quality={"accuracy": 0.93}), Measurement(50, 5, 20)
    pruned.quality["accuracy"] = accuracy
    return Card(
        "net", "digits", "l1", {"macs": 0.5}, seed, dense, pruned, Exactness(0.0, True), "a machine", {},
        "secateur run recipe.toml", Recovery(recovery, 3),
    )  # fmt: skip


def _told(folder: Path, accuracies: dict[str, tuple[float, ...]], broken: int = 0) -> str:
    stages, rows = [], {}
    for recovery, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            stage = Stage("recover", {"seed": seed, "recover": recovery}, (), f"net-{recovery}-s{seed}")
            stages.append(stage)
            rows[stage.address] = Row(stage.address, "done", None, None, 0.0, 1.0, 1.0, 1)
            run = folder / stage.folder
            run.mkdir(parents=True)
            write_card(_card(seed, recovery, accuracy), run / "card.json")
    for stage in stages[:broken]:
        (folder / stage.folder / "card.json").write_text("{", encoding="utf-8")
    text = io.StringIO()
    status = Status(StudyPlan.of([[stage] for stage in stages]), rows)
    summary(Console(file=text, width=160), Finished(Study("a study"), status, folder))
    return text.getvalue()


def test_means_and_verdicts_under_the_runs(tmp_path: Path):
    told = _told(tmp_path, {"finetune": (0.91, 0.911, 0.912), "scratch-e": (0.90, 0.90, 0.90)})
    assert "mean ± sample standard deviation over n seeds, in per cent and points" in told
    (line,) = [line.split() for line in told.splitlines() if "fine-tune" in line and "91.10" in line]
    assert line[-7:] == ["3", "91.10", "±", "0.10", "\u22121.90", "±", "0.10"]
    assert "  inheriting the weights helps by 1.10 points, n = 3" in told
    assert told.index("6 of 6 runs done") > told.index("inheriting")


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ({"finetune": (0.91,)}, False),
        ({"finetune": (0.91,), "none": (0.5,)}, False),
        ({"finetune": (0.91, 0.92)}, True),
        ({"finetune": (0.91,), "scratch-e": (0.92,)}, True),
    ],
)
def test_only_where_there_is_something_to_compare(tmp_path: Path, accuracies: dict, said: bool):
    told = _told(tmp_path, accuracies)
    assert ("sample standard deviation" in told) is said
    assert ("n = 1: too few seeds for a verdict" in told) is ("scratch-e" in accuracies)


def test_a_broken_card_leaves_its_run_out(tmp_path: Path):
    told = _told(tmp_path, {"finetune": (0.91, 0.911, 0.912), "scratch-e": (0.90, 0.90, 0.90)}, broken=1)
    assert "n = 2: too few seeds" in told
