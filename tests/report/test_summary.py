"""The summary says what the figures say, above all where they are not what one hoped for."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.card import parse_card
from secateur.report import units
from secateur.report.palette import BLUE, GREEN, NEUTRAL, VERMILLION, colours
from secateur.report.recovery import curve_points, recovery_figure
from secateur.report.summary import exactness_line, headline, is_faster, tiles, warnings


def _at(raw: dict[str, Any], median: float, **settings: Any):
    latency = {**raw["pruned"]["latency_ms"], "median": median, **settings}
    return parse_card({**raw, "pruned": {**raw["pruned"], "latency_ms": latency}})


def test_faster(raw: dict[str, Any]):
    card = _at(raw, 8.875)
    assert headline(card) == "\u221250\u00a0% MACs, 1.60× faster on this CPU, \u22120.4 points"
    assert is_faster(card)
    assert warnings(card) == ()
    assert tiles(card)[1].good is True


@pytest.mark.parametrize(
    ("median", "said"),
    [(14.49, "not faster: 0.98× on this CPU"), (14.0, "not measurably faster: 1.01× on this CPU")],
)
def test_not_faster_is_said_plainly(raw: dict[str, Any], median: float, said: str):
    card = _at(raw, median)
    assert said in headline(card)
    assert tiles(card)[1].good is False
    assert tiles(card)[1].label == said.replace(": 0.98×", "").replace(": 1.01×", "")
    assert any("MACs fell" in text and "time did not" in text for text in warnings(card))


def test_a_note_of_the_run_is_not_said_twice(raw: dict[str, Any]):
    raw["notes"] = ["MACs fell but time did not"]
    assert warnings(_at(raw, 15.0)) == ("MACs fell but time did not",)


@pytest.mark.parametrize(("device", "place"), [("cuda:0", "this GPU"), ("", "this machine")])
def test_the_place_is_that_of_the_measurement(raw: dict[str, Any], device: str, place: str):
    assert f"faster on {place}," in headline(_at(raw, 8.0, device=device))


def test_inexact(raw: dict[str, Any]):
    raw["exactness"] = {"max_error": 0.0123, "exact": False, "dtype": "float64"}
    card = parse_card(raw)
    assert exactness_line(card) == "cut ≠ masked: max error 0.012 in float64, not exact"
    assert any("do not use it" in text for text in warnings(card))


def test_numbers():
    assert units.si(126_550_000) == "127\u00a0M"
    assert units.si(421_300, "B") == "421\u00a0kB"
    assert units.si(999_600) == "1.00\u00a0M"
    assert units.si(12, "B") == "12\u00a0B"
    assert units.si(None) == "\u2013"
    assert units.change(200, 191) == "\u22124.5\u00a0%"
    assert units.change(100, 100) == "±0.0\u00a0%"
    assert units.change(100, 150) == "+50\u00a0%"
    assert units.signed(-0.04, 1) == "±0.0"
    assert units.milliseconds(0.1234) == "0.123"


def test_one_colour_per_method_throughout():
    chosen = colours(["l1", "scratch-e", "slimming", "l1", "flop"])
    assert (chosen["l1"], chosen["slimming"], chosen["flop"], chosen["dense"]) == (BLUE, VERMILLION, GREEN, NEUTRAL)
    assert len(set(chosen.values())) == len(chosen)


def test_epochs_that_count_through_are_left_as_they_are(raw: dict[str, Any]):
    raw["history"] = [{"stage": s, "epoch": e, "accuracy": 0.5} for s, e in (("a", 1), ("a", 2), ("b", 2), ("b", 3))]
    assert [p.x for p in curve_points(parse_card(raw), "accuracy")] == [1, 2, 2, 3]


def test_a_dense_network_that_was_never_trained_is_compared_with_nobody(raw: dict[str, Any]):
    raw["dense"] = {k: v for k, v in raw["dense"].items() if "accuracy" not in k}
    raw["history"] = [p for p in raw["history"] if p["stage"] != "dense"]
    card = parse_card(raw)
    assert "points" not in headline(card)
    (tile,) = [t for t in tiles(card) if t.label == "accuracy"]
    assert tile.value == units.quality("accuracy", card.pruned.quality["accuracy"])
    assert tile.detail == "dense: none to compare with"
    figure = recovery_figure(card, "#0072B2")
    assert figure is not None
    assert "dense" not in figure.key + figure.alt
