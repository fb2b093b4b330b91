"""The distribution of scores: what is drawn is what the card says; the figures are invented."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.card import parse_card
from secateur.report import render
from secateur.report.scores import score_figure, scores_of

SAID = {"what": "units", "relative": True, "low": 0.0, "high": 4.0, "kept": [0, 3, 5, 1], "removed": [4, 0, 0, 0],
        "threshold": 1.0}  # fmt: skip


def figure(raw: dict[str, Any], **changes: Any) -> Any:
    return score_figure(parse_card({**raw, "scores": {**SAID, **changes}}), "#0072B2")


def test_bars_threshold_and_data(raw: dict[str, Any]):
    found = figure(raw)
    bars = {trace["name"]: trace for trace in found.plot["data"]}
    assert list(bars["stayed"]["x"]) == [0.5, 1.5, 2.5, 3.5]
    assert [list(bars[name]["y"]) for name in ("stayed", "went")] == [[0, 3, 5, 1], [4, 0, 0, 0]]
    assert bars["stayed"]["marker"]["color"] == "#0072B2"
    (line,) = found.plot["layout"]["shapes"]
    assert (line["x0"], line["x1"]) == (1.0, 1.0)
    assert found.sheet.rows == ((0, 1, 0, 4), (1, 2, 3, 0), (2, 3, 5, 0), (3, 4, 1, 0))
    assert "9 units that stayed and 4 that went; the threshold is 1" in found.alt
    assert "over the threshold of its group" in found.plot["layout"]["xaxis"]["title"]["text"]
    assert found.plot["layout"]["yaxis"]["title"]["text"] == "units (n = 13)"
    assert found.plot["layout"]["yaxis"]["type"] == "linear"


def test_many_weights_stand_on_a_scale_of_powers(raw: dict[str, Any]):
    found = figure(raw, what="weights", relative=False, kept=[0, 40_000, 900, 2], threshold=None)
    assert found.plot["layout"]["yaxis"]["type"] == "log"
    assert found.plot["layout"]["barmode"] == "overlay"
    assert not found.plot["layout"].get("shapes")
    assert "No single threshold parts them" in found.key


@pytest.mark.parametrize(("threshold", "towards"), [(0.2, "left"), (1.9, "left"), (2.1, "right"), (3.9, "right")])
def test_the_threshold_is_named_away_from_the_counts_at_the_ends(raw: dict[str, Any], threshold: float, towards: str):
    named, *counts = figure(raw, threshold=threshold).plot["layout"]["annotations"]
    assert named["text"] == f"threshold {threshold}"
    assert (named["xanchor"], named["yanchor"]) == (towards, "top")
    assert {count["yanchor"] for count in counts} == {"bottom"}


@pytest.mark.parametrize(
    "changes",
    [
        {"kept": [1, 2]}, {"kept": "many"}, {"kept": [1.5, 2, 3, 4]}, {"removed": []}, {"low": 4.0}, {"high": None},
        {"high": float("1e999")}, {"what": "<script>"}, {"kept": [-1, 0, 0, 0]}, {"low": True},
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_left_out(raw: dict[str, Any], changes: dict[str, Any]):
    card = parse_card(raw)
    card.extra["scores"] = {**SAID, **changes}
    assert scores_of(card) is None
    assert score_figure(card, "#0072B2") is None


def test_the_page_has_it_where_the_card_has_it(raw: dict[str, Any]):
    assert "What decided" not in render([raw])
    assert 'id="run1-scores"' in render([{**raw, "scores": SAID}])
