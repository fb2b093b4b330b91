"""The page of the studies is what their stored results say, and those are what the runs' cards say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rethinking_page

from benchmarks import study_results
from report.conftest import raw as raw
from report.together import runs
from secateur.card import Card, write_card
from secateur.report.reading import RECIPE

STORED = sorted(path.stem for path in rethinking_page.RESULTS.glob("*.json"))


def test_the_page_is_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = rethinking_page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(rethinking_page, "PAGE", tmp_path / "page.md")
    rethinking_page.write()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == before, "run `make docs`"


@pytest.mark.parametrize("name", STORED)
def test_stored_means_are_those_of_the_stored_runs(name: str):
    found = rethinking_page.stored(name)
    assert found is not None
    assert (Path(rethinking_page.RESULTS).parents[2] / found["recipe"]).is_file()
    assert all(run["exact"] for run in found["runs"])
    for cell in found["cells"]:
        same = ("model", "data", "method", "budget", "detail", "recovery")
        values = [100 * r["accuracy"] for r in found["runs"] if all(r[k] == cell[k] for k in same)]
        mean = sum(values) / len(values)
        std = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
        assert cell["value"]["n"] == len(values)
        assert cell["value"]["mean"] == pytest.approx(mean, abs=1e-5)
        assert cell["value"]["std"] == (None if std is None else pytest.approx(std, abs=1e-5))


def write(cards: list[Card], study: Path) -> None:
    for number, card in enumerate(cards):
        folder = study / "runs" / f"run-{number}"
        folder.mkdir(parents=True)
        extra = {k: v for k, v in card.extra.items() if k != RECIPE}
        write_card(replace(card, extra=extra), folder / "card.json")
        (folder / "stage.json").write_text(json.dumps({"seconds": 2.5}))


def test_a_study_becomes_one_file(raw: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cards = runs(raw, {"finetune": (0.90, 0.91, 0.92), "scratch-e": (0.90, 0.90, 0.90)}, method="l1")
    cards += runs(raw, {"finetune": (0.93, 0.93, 0.94)}, method="thinet")
    write(cards, tmp_path / "study")
    out = tmp_path / "results" / "study.json"
    words = [str(tmp_path / "study"), "--recipe", "recipes/r.toml", "--commit", "0123456789", "--out", str(out)]
    assert study_results.main([*words, "--note", "invented"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["runs"] == 9
    found = json.loads(out.read_text(encoding="utf-8"))
    (tuned,) = [c for c in found["cells"] if (c["method"], c["recovery"]) == ("l1", "fine-tune")]
    assert tuned["value"] == {"mean": pytest.approx(91), "std": pytest.approx(1), "n": 3}
    assert tuned["minus dense"]["mean"] == pytest.approx(-2)
    assert tuned["cut"] == {"mean": pytest.approx(61.2), "std": 0, "n": 3}
    assert {run["seconds"] for run in found["runs"]} == {2.5}
    (better,) = found["methods"]
    assert (better["first"], better["minus"], better["differences"]) == ("thinet", "l1", pytest.approx([3, 2, 2]))
    assert [q["finding"] for q in found["recoveries"]] == ["none"]
    text = rethinking_page.page([found], found)
    assert "| `l1`, macs 50 %, round to 1 | 50 % | 93.00 | 61.20 | 91.00 ± 1.00 | 90.00 |" in text
    assert text.count(better["verdict"]) == 1
    assert text.count(found["recoveries"][0]["verdict"]) == 1
    assert "`secateur run recipes/r.toml --workers 1`, commit 0123456" in text
    assert "Invented." in text


def test_runs_of_two_machines_are_no_single_result(raw: dict[str, Any], tmp_path: Path):
    write(runs(raw, {"finetune": (0.9,)}) + runs(raw, {"none": (0.9,)}, hardware="another"), tmp_path / "study")
    with pytest.raises(ValueError, match="differ in their hardware"):
        study_results.collected(tmp_path / "study")
    assert "; or another" in study_results.collected(tmp_path / "study", machines=True)["hardware"]
