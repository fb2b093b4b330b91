"""The page of several runs: its charts, tables, verdicts, and the data behind them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from report.together import runs
from secateur.card import Card, write_card
from secateur.report import render
from secateur.report.cells import cells
from secateur.report.comparison import overview, timed_alike, verdict_sheet
from secateur.report.drops import drop_cells, drop_rows, drop_sheet
from secateur.report.macs_latency import macs_latency_marks
from secateur.report.palette import colours
from secateur.report.reading import RECIPE, read_runs
from secateur.report.trade_off import front, trade_off_marks

HUES = colours(["l1", "slimming"])


@pytest.fixture
def cards(raw: dict[str, Any]) -> list[Card]:
    """Two methods, two budgets of one of them, two recoveries, three seeds."""
    half = {"finetune": (0.91, 0.912, 0.911), "scratch-e": (0.90, 0.901, 0.90)}
    most = {"finetune": (0.92, 0.922, 0.921), "scratch-e": (0.915, 0.916, 0.915)}
    bigger = {**raw["pruned"], "macs": 90_000_000, "latency_ms": {**raw["pruned"]["latency_ms"], "median": 15.0}}
    return [
        *runs(raw, half),
        *runs(raw, most, budget={"macs": 0.7}, pruned=bigger),
        *runs(raw, {"finetune": (0.905, 0.906, 0.904)}, method="slimming"),
    ]


def test_the_table_of_drops(cards: list[Card]):
    rows = drop_rows(cells(cards))
    assert [(r.cell.method, list(r.recoveries)) for r in rows] == [
        ("l1", ["fine-tune", "scratch-E"]),
        ("l1", ["fine-tune", "scratch-E"]),
        ("slimming", ["fine-tune"]),
    ]
    told = drop_cells(rows)
    assert [name for name, _ in told["columns"]] == ["dense", "right after the cut", "fine-tune", "scratch-E"]
    _, first = told["rows"][0]
    assert first[0] == ("93.00", "the same for all seeds")
    assert first[1] == ("\u221231.80 ± 0.00", "n = 3"), "0.612 in the card's history"
    assert first[2] == ("\u22121.90 ± 0.10", "n = 3")
    assert told["rows"][2][1][3] == ("\u2013", ""), "slimming has no scratch"
    lines = list(csv.DictReader(io.StringIO(drop_sheet(rows).csv())))
    assert [line["recovery"] for line in lines[:3]] == ["right after the cut", "fine-tune", "scratch-E"]
    assert float(lines[1]["sample standard deviation"]) == pytest.approx(0.1)


def test_without_a_trained_dense_network_the_quality_itself_is_told(raw: dict[str, Any]):
    cards = runs(raw, {"scratch-e": (0.90, 0.92, 0.91)})
    rows = drop_rows(cells([replace(card, dense=replace(card.dense, quality={})) for card in cards]))
    ((_, told),) = drop_cells(rows)["rows"]
    assert told[0] == told[1] == ("\u2013", "")
    assert told[2] == ("91.00 ± 1.00", "n = 3, %, no dense to compare with")
    (line,) = csv.DictReader(io.StringIO(drop_sheet(rows).csv()))
    assert (line["difference to dense, mean"], line["itself, mean"], line["n"]) == ("", "91.0", "3")


def test_the_points_of_a_trade_off(cards: list[Card]):
    marks = trade_off_marks(cells(cards), "macs")
    dense, first, *_, last = marks
    assert (dense.method, dense.seeds, dense.mean_y.mean) == ("dense", (0, 1, 2), pytest.approx(93))
    assert first.x == (62.9, 62.9, 62.9)
    assert first.y == pytest.approx((91, 91.2, 91.1))
    assert first.line == "l1, fine-tune"
    assert first.label.replace("\u00a0", " ") == "l1, macs 50 %, round to 1, fine-tune"
    assert last.label == "slimming, fine-tune", "one budget needs no name"
    assert [m.mean_y.mean for m in front(marks)] == pytest.approx([91.1, 92.1, 93])
    assert [m.mean_y.mean for m in front(marks, higher=False)] == pytest.approx([90.033333])
    assert trade_off_marks(cells(cards), "latency")[1].x == (8.83,) * 3


def test_recoveries_share_the_time_of_their_cut(cards: list[Card]):
    dense, *cuts = macs_latency_marks(cells(cards))
    assert (dense.x[0], dense.y[0]) == (126.55, 14.2)
    assert [(m.x[0], m.y[0]) for m in cuts] == [(62.9, 8.83), (90.0, 15.0), (62.9, 8.83)]


def test_charts(cards: list[Card]):
    found = overview(cards, HUES)
    assert found is not None
    ((title, figures),) = found.figures
    assert title == ""
    assert [f.name for f in figures] == ["macs", "latency", "macs-latency"]
    macs, _, both = figures
    assert "n = 3 seeds" in macs.plot["layout"]["xaxis"]["title"]["text"]
    stars = [t for t in macs.plot["data"] if t.get("marker", {}).get("symbol") == "star" and t["marker"]["size"] == 16]
    assert len(stars) == 1, "the dense baseline is drawn"
    bars = [t["error_y"]["array"][0] for t in macs.plot["data"] if t.get("error_y", {}).get("visible")]
    assert bars[0] == pytest.approx(0.1), "one sample standard deviation, in points"
    texts = [a["text"] for a in macs.plot["layout"]["annotations"]]
    assert sorted(texts) == ["dense", "l1, fine-tune", "l1, scratch-E", "slimming, fine-tune"]
    assert len(macs.sheet.rows) == 3 * 6
    assert "Not faster than dense: l1, macs 70" in both.alt


def test_times_of_different_machines_do_not_share_an_axis(raw: dict[str, Any]):
    here = runs(raw, {"finetune": (0.91, 0.92)})
    there = runs(raw, {"scratch-e": (0.91, 0.92)}, hardware="another machine")
    assert timed_alike(cells(here))
    assert not timed_alike(cells(here + there))
    found = overview(here + there, HUES)
    assert found is not None
    assert [f.name for f in found.figures[0][1]] == ["macs"]
    assert any("Times are not drawn" in note for note in found.notes)


def test_runs_without_times_have_no_charts_of_time(raw: dict[str, Any]):
    pruned = {k: v for k, v in raw["pruned"].items() if k != "latency_ms"}
    found = overview(runs(raw, {"finetune": (0.91, 0.92)}, pruned=pruned), HUES)
    assert found is not None
    assert [f.name for f in found.figures[0][1]] == ["macs"]
    assert found.notes == ()


def test_one_run_has_nothing_to_be_compared_with(raw: dict[str, Any]):
    assert overview(runs(raw, {"finetune": (0.91,)}), HUES) is None
    assert 'id="comparison"' not in render([raw])


def test_networks_have_charts_of_their_own(raw: dict[str, Any]):
    found = overview(runs(raw, {"finetune": (0.9, 0.9)}) + runs(raw, {"finetune": (0.9, 0.9)}, model="other"), HUES)
    assert found is not None
    assert [title.partition(" ")[0] for title, _ in found.figures] == ["cifar-resnet20", "other"]
    assert [f.name for _, fs in found.figures for f in fs if f.name.startswith("macs-l")] == [
        "macs-latency-1",
        "macs-latency-2",
    ]


def test_the_page(cards: list[Card]):
    page = render([*cards, *cards[:1]])
    assert "inheriting the weights helps by 1.07 points, n = 3 (fine-tune minus scratch-E" in page
    assert "a seed came again once; only its first run counts" in page
    ids = re.findall(r' id="([^"]+)"', re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
    assert len(ids) == len(set(ids))
    names = re.findall(r'download="(comparison-[^"]+)"', page)
    assert names == [f"comparison-{n}.csv" for n in ("verdicts", "methods", "table", "macs", "latency", "macs-latency")]
    own = page[page.index('<section class="run" id="comparison"') : page.index('id="run1"')]
    assert own.count("secateur prune cifar-resnet20") == 6, "the reproduce line stands under every figure"
    for drawing in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL):
        json.loads(drawing)


def test_text_of_others_is_escaped_in_the_comparison_too(raw: dict[str, Any]):
    attack = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"
    told = {"model": attack, "data": attack, "method": attack, "budget": {attack: attack}, "reproduce": attack}
    recoveries = {"finetune": (0.9, 0.91, 0.9), "scratch-e": (0.9, 0.9, 0.9), attack: (0.9, 0.9, 0.9)}
    page = render(runs(raw, recoveries, recipe={attack: attack}, **told))
    assert "<script>alert" not in page
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_the_verdicts_as_a_sheet(cards: list[Card]):
    found = overview(cards, HUES)
    assert found is not None
    lines = list(csv.DictReader(io.StringIO(verdict_sheet(found.pairs).csv())))
    assert [(line["first"], line["minus"], line["n"]) for line in lines] == [("fine-tune", "scratch-E", "3")] * 2
    assert float(lines[0]["mean difference"]) == pytest.approx(1.066667)


def test_recipes_beside_the_cards_are_read(raw: dict[str, Any], cards: list[Card], tmp_path: Path):
    for number, text in enumerate(("train = 8\noptions.penalty = 0.1\n", "not TOML", None)):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        write_card(cards[number], folder / "card.json")
        if text is not None:
            (folder / "recipe.toml").write_text(text, encoding="utf-8")
    found = read_runs([tmp_path])
    assert [card.extra[RECIPE] for card in found] == [{"train": 8, "options.penalty": 0.1}, {}, {}]


def test_what_was_left_as_it_was_cut_stands_in_one_column(raw: dict[str, Any]):
    (row,) = drop_rows(cells(runs(raw, {"finetune": (0.90, 0.91), "none": (0.612, 0.612)})))
    assert list(row.recoveries) == ["fine-tune"]
    without = {**raw, "history": []}
    (row,) = drop_rows(cells(runs(without, {"finetune": (0.90, 0.91), "none": (0.612, 0.612)})))
    assert list(row.recoveries) == ["fine-tune", "as cut"], "nowhere else where no card says it"


@pytest.mark.parametrize(("seeds", "folded"), [(3, False), (4, True)])
def test_many_runs_are_folded_under_their_names(raw: dict[str, Any], seeds: int, folded: bool):
    page = render(runs(raw, {"finetune": (0.90,) * seeds, "scratch-e": (0.90,) * seeds}))
    body = page[: page.index("<script>")]
    assert body.count('<details class="folded">') == (2 * seeds if folded else 0)
    assert ("runs, one by one" in body) is folded
    assert body.count("<details") == body.count("</details>")
    assert "cifar-resnet20, l1, scratch-E, seed 2</h2>" in body


def test_runs_are_told_apart_by_how_they_were_recovered(raw: dict[str, Any]):
    cards = runs(raw, {"finetune": (0.90, 0.91)})
    assert cards[0].recovery is not None
    cards[0].recovery.settings["lr"] = 0.01
    page = render(cards)
    assert "l1, fine-tune (lr 0.01), seed 0</h2>" in page
    assert "l1, fine-tune (lr 0.001), seed 1</h2>" in page
