"""From events to figures; nothing here is timed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.engine_summary import geomean, model_row, summary


def _ours(seconds: float, status: str = "pruned", **more: Any) -> dict[str, Any]:
    return {"event": "ours-done", "seconds": seconds, "cpu": seconds, "status": status, "macs_ratio": 0.3, **more}


def _peer(seconds: float, scoring: float, status: str = "pruned", **more: Any) -> dict[str, Any]:
    event = {
        "event": "peer-done",
        "seconds": seconds,
        "cpu": seconds / 2,
        "scoring": scoring,
        "scoring_cpu": scoring / 2,
    }
    return {**event, "status": status, "macs_ratio": 0.4, **more}


PROVEN = {"event": "proof-done", "exact": True, "max_error": 1e-16}


def test_the_geometric_mean_treats_twice_and_half_alike():
    assert geomean([2.0, 0.5]) == pytest.approx(1.0)
    assert geomean([1.0, 4.0, 2.0]) == pytest.approx(2.0)
    assert geomean([]) is None


def test_a_row_compares_medians_and_leaves_the_peers_scores_out():
    row = model_row("m", [_ours(1), _peer(5, 1), _ours(9), _peer(7, 1), _ours(2), _peer(90, 2), PROVEN])
    assert (row["ours_s"], row["peer_s"], row["peer_scored_s"]) == (2, 6, 7)
    assert (row["ratio"], row["ratio_scored"], row["ratio_cpu"]) == (3.0, 3.5, 1.5)
    assert (row["ours_status"], row["peer_status"]) == ("exact", "pruned")
    assert (row["ours_macs_ratio"], row["peer_macs_ratio"], row["ours_max_error"]) == (0.3, 0.4, 1e-16)


def test_a_row_has_no_ratio_where_one_side_did_not_do_the_job():
    hung = {"event": "peer-hung", "bound_s": 60.0}
    died = {"event": "peer-died", "code": -11, "last_words": "no message"}
    failed = _peer(3, 1, "forward failed", error="RuntimeError: shape")
    for event, status in ((hung, "hung"), (died, "crashed"), (failed, "forward failed")):
        row = model_row("m", [_ours(1), event, PROVEN])
        assert (row["peer_status"], row["ratio"], row["ratio_scored"]) == (status, None, None)
        assert row["peer_error"]
    crashed = {"event": "peer-done", "status": "crashed", "error": "ZeroDivisionError"}
    assert model_row("m", [_ours(1), crashed, PROVEN])["peer_status"] == "crashed"
    assert model_row("m", [_ours(1), PROVEN])["peer_status"] == "not run"


def test_ours_is_wrong_unless_it_is_proven():
    unproven = {"event": "proof-done", "exact": False, "max_error": 0.1}
    refused = {"event": "proof-done", "exact": False, "max_error": None, "error": "VerifyError: no"}
    assert model_row("m", [_ours(1), _peer(1, 0), unproven])["ours_status"] == "wrong"
    assert model_row("m", [_ours(1), refused])["ours_error"] == "VerifyError: no"
    assert model_row("m", [_ours(1, "wrong shape", error="output")])["ours_status"] == "wrong"
    assert model_row("m", [_ours(1), _peer(1, 0)])["ours_status"] == "wrong"
    assert model_row("m", [_ours(1), _peer(1, 0), unproven])["ratio"] is None


def test_one_bad_turn_spoils_the_row():
    row = model_row("m", [_ours(1), _ours(2, "unchanged"), PROVEN])
    assert row["ours_status"] == "unchanged"


def test_a_worker_that_dies_says_why():
    row = model_row("m", [{"event": "worker-died", "code": 1, "last_words": "no module timm"}])
    assert row["ours_status"] == "crashed"
    assert "timm" in row["ours_error"]


def test_the_summary_counts_and_names_what_is_slower():
    rows = [
        model_row("fast", [_ours(1), _peer(8, 0), PROVEN]),
        model_row("slow", [_ours(2), _peer(5, 4), PROVEN]),
        model_row("alone", [_ours(1), {"event": "peer-hung", "bound_s": 60.0}, PROVEN]),
        model_row("broken", [{"event": "ours-hung", "bound_s": 60.0}]),
    ]
    result = summary(rows)
    assert result["slower_on"] == ["slow"]
    assert result["geomean_speedup"] == pytest.approx(2.0)
    assert result["compared"] == 2
    assert (result["exact"], result["hung"], result["wrong"], result["crashed"]) == (3, 1, 0, 0)
    assert result["peer_pruned"] == 2
    assert [r["name"] for r in result["models"]] == ["fast", "slow", "alone", "broken"]
    json.dumps(result, allow_nan=False)


def test_nothing_to_compare_gives_no_figure():
    assert summary([model_row("m", [_ours(1), PROVEN])])["geomean_speedup"] is None
