"""The pictures of gate learning, from the record on a card."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

from secateur.card import parse_card
from secateur.report import render
from secateur.report.gates import gate_figures

GATES: dict[str, Any] = {
    "target": 0.2,
    "chosen_epoch": 2,
    "history": [
        {"epoch": 1, "open": 1.0, "mean": 0.8, "accuracy": 0.1, "means": {"conv1": 0.9, "<b>layer1</b>": 0.7}},
        {"epoch": 2, "open": 0.15, "mean": 0.14, "accuracy": 0.5, "means": {"conv1": 0.3, "<b>layer1</b>": 0.05}},
        {"epoch": 3, "open": 0.12, "mean": 0.12, "accuracy": 0.4, "means": {"conv1": 0.2, "<b>layer1</b>": 0.04}},
    ],
}  # fmt: skip


def test_a_card_without_gates_or_with_gates_from_a_file_has_none(raw: dict[str, Any]):
    assert gate_figures(parse_card(raw), "#0072B2") == []
    assert gate_figures(parse_card({**raw, "gates": {"history": []}}), "#0072B2") == []


def test_open_gates_their_mean_its_target_and_the_epoch_that_was_taken(raw: dict[str, Any]):
    time, _ = gate_figures(parse_card({**raw, "gates": GATES}), "#0072B2")
    lines = {line["name"]: [round(v, 6) for v in line["y"]] for line in time.plot["data"]}
    assert lines == {"not zero": [100, 15, 12], "mean gate": [80, 14, 12], "held-out accuracy": [10, 50, 40]}
    target, taken = time.plot["layout"]["shapes"]
    assert target["y0"] == target["y1"] == 20
    assert taken["x0"] == taken["x1"] == 2
    assert time.sheet.rows[1] == (2, 0.15, 0.14, 0.5, "yes")
    labels = sorted(a["y"] for a in time.plot["layout"]["annotations"])
    assert len(labels) == 3
    assert min(b - a for a, b in pairwise(labels)) >= 5, "labels of equal ends do not overlap"
    assert "those of epoch 2 were taken" in time.alt


def test_the_mean_of_every_group_is_drawn_and_listed(raw: dict[str, Any]):
    _, groups = gate_figures(parse_card({**raw, "gates": GATES}), "#0072B2")
    (heat,) = groups.plot["data"]
    assert [list(row) for row in heat["z"]] == [[0.9, 0.3, 0.2], [0.7, 0.05, 0.04]]
    assert (heat["zmin"], heat["zmax"]) == (0, 1)
    assert ("conv1", 2, 0.3) in groups.sheet.rows
    assert len(groups.sheet.rows) == 6
    assert not any("<b>" in str(label) for label in groups.plot["layout"]["yaxis"]["ticktext"])


def test_without_held_out_data_and_of_a_card_of_an_earlier_release(raw: dict[str, Any]):
    old = copy.deepcopy(GATES)
    for point in old["history"]:
        del point["accuracy"], point["means"]
    (time,) = gate_figures(parse_card({**raw, "gates": old}), "#0072B2")
    assert [line["name"] for line in time.plot["data"]] == ["not zero", "mean gate"]
    assert time.sheet.rows[0] == (1, 1.0, 0.8, None, "no")
    assert "held-out" not in time.key


def test_the_page_holds_both(raw: dict[str, Any]):
    page = render([{**raw, "gates": GATES}])
    assert 'id="run1-gates"' in page
    assert 'id="run1-gate-groups"' in page
