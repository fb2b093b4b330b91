"""The pictures of a search, from the record on a card."""

from __future__ import annotations

from typing import Any

from secateur.card import parse_card
from secateur.report import render
from secateur.report.search import search_figures

SEARCH: dict[str, Any] = {
    "metric": "macs",
    "dense": 1000,
    "wanted": 500,
    "low": 475,
    "high": 525,
    "found": 510,
    "how": "the most likely architecture of the last epoch",
    "widths": {"conv1": [4, 8, 16], "<b>layer1</b>": [8, 16]},
    "depths": {"layer1": [1, 2]},
    "choice": {"widths": [1, 0], "depths": [1]},
    "history": [
        {"epoch": 1, "temperature": 5.0, "expected": 700, "actual": 900, "loss": 2.0, "accuracy": 0.2,
         "widths": [[0.3, 0.4, 0.3], [0.5, 0.5]], "depths": [[0.5, 0.5]]},
        {"epoch": 2, "temperature": 2.0, "expected": 600, "actual": 300, "loss": 1.5, "accuracy": 0.4},
        {"epoch": 3, "temperature": 0.1, "expected": 550, "actual": 510, "loss": 1.0, "accuracy": 0.6,
         "widths": [[0.1, 0.8, 0.1], [0.7, 0.3]], "depths": [[0.4, 0.6]]},
    ],
}  # fmt: skip


def test_a_card_without_a_search_has_none(raw: dict[str, Any]):
    assert search_figures(parse_card(raw), "#0072B2") == []


def test_cost_with_its_band_and_what_was_built(raw: dict[str, Any]):
    cost, _ = search_figures(parse_card({**raw, "search": SEARCH}), "#0072B2")
    expected, actual, built = cost.plot["data"]
    assert list(expected["y"]) == [70.0, 60.0, 55.0]
    assert list(actual["y"]) == [90.0, 30.0, 51.0]
    assert list(built["y"]) == [51.0]
    band = cost.plot["layout"]["shapes"][0]
    assert (band["y0"], band["y1"]) == (47.5, 52.5)
    assert cost.sheet.rows[1] == (2, 2.0, 600, 300, 1.5, 0.4)
    assert "47.5 to 52.5 %" in cost.alt


def test_every_recorded_distribution_is_drawn_and_listed(raw: dict[str, Any]):
    _, found = search_figures(parse_card({**raw, "search": SEARCH}), "#0072B2")
    (heat,) = found.plot["data"]
    assert list(heat["x"]) == [1, 3]
    drawn = [list(line) for line in heat["z"] if line[0] is not None]
    # The depths first; each as a multiple of the even chance.
    assert drawn[:2] == [[1.0, 0.8], [1.0, 1.2]]
    assert [round(v, 6) for v in drawn[3]] == [1.2, 2.4]
    assert len(found.sheet.rows) == 2 * (2 + 3 + 2)
    assert ("conv1", 3, 8, "units", 0.8, "yes") in found.sheet.rows
    assert ("conv1", 3, 4, "units", 0.1, "no") in found.sheet.rows
    assert not any("<b>" in str(label) for label in found.plot["layout"]["yaxis"]["ticktext"])


def test_a_group_whose_block_is_left_out_was_not_built(raw: dict[str, Any]):
    _, found = search_figures(parse_card({**raw, "search": {**SEARCH, "left_out": ["conv1"]}}), "#0072B2")
    said = [note["text"] for note in found.plot["layout"]["annotations"]]
    assert said == ["2 / 2", "0 / 16", "8 / 16"]
    assert {row[5] for row in found.sheet.rows if row[0] == "conv1"} == {"no"}


def test_the_page_holds_both(raw: dict[str, Any]):
    page = render([{**raw, "search": SEARCH}])
    assert 'id="run1-search-cost"' in page
    assert 'id="run1-search-widths"' in page
