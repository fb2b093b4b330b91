"""From events to figures; nothing here is timed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.engine_summary import geomean, model_row, summary

TRACED = {"event": "ours-traced"}
PROVEN = {"event": "proof-done", "exact": True, "max_error": 1e-16}
CUT = {
    "macs_ratio": 0.49,
    "macs_foretold": 0.5,
    "groups": {"cut": 2, "whole": 1, "locked": 1},
    "units": {"channel": {"cut": 3, "of": 9}, "head": {"cut": 0, "of": 0}},
    "locked": {"reaches the model's output": 10},
    "warnings": [],
}


def _ours(seconds: float, status: str = "pruned", **more: Any) -> dict[str, Any]:
    times = {"seconds": seconds, "cpu": seconds, "scoring": seconds / 2, "stages": {"trace": seconds / 2}}
    return {"event": "ours-done", **times, "status": status, **CUT, **more}


def _peer(seconds: float, scoring: float, status: str = "pruned", **more: Any) -> dict[str, Any]:
    times = {"seconds": seconds, "cpu": seconds / 2, "scoring": scoring}
    return {"event": "peer-done", **times, "status": status, "macs_ratio": 0.4, **more}


def test_the_geometric_mean_treats_twice_and_half_alike():
    assert geomean([2.0, 0.5]) == pytest.approx(1.0)
    assert geomean([1.0, 4.0, 2.0]) == pytest.approx(2.0)
    assert geomean([]) is None


def test_a_row_compares_medians_of_the_whole_job_and_without_scores():
    row = model_row("m", [TRACED, _ours(1), _peer(5, 1), _ours(9), _peer(7, 1), _ours(2), _peer(90, 2), PROVEN])
    assert (row["ours_s"], row["ours_unscored_s"], row["peer_s"], row["peer_unscored_s"]) == (2, 1, 7, 6)
    assert (row["ratio"], row["ratio_unscored"], row["ratio_cpu"]) == (3.5, 6.0, 1.75)
    assert (row["ours_status"], row["peer_status"], row["traced"]) == ("exact", "pruned", True)
    assert (row["ours_macs_ratio"], row["peer_macs_ratio"], row["ours_max_error"]) == (0.49, 0.4, 1e-16)
    assert row["ours_stages_s"] == {"trace": 1.0}


def test_half_is_reached_by_what_the_plan_foretells():
    assert model_row("m", [_ours(1), PROVEN])["reached_half"]
    assert not model_row("m", [_ours(1, macs_foretold=0.514), PROVEN])["reached_half"]
    assert not model_row("m", [{"event": "ours-done", "status": "crashed", "error": "x"}])["reached_half"]


def test_a_row_has_no_ratio_where_one_side_did_not_do_the_job():
    hung = {"event": "peer-hung", "bound_s": 60.0}
    died = {"event": "peer-died", "how": "killed by SIGSEGV", "last_words": "no message"}
    failed = _peer(3, 1, "forward failed", error="RuntimeError: shape")
    for event, status in ((hung, "hung"), (died, "crashed"), (failed, "forward failed")):
        row = model_row("m", [_ours(1), event, PROVEN])
        assert (row["peer_status"], row["ratio"], row["ratio_unscored"]) == (status, None, None)
        assert row["peer_error"]
    crashed = {"event": "peer-done", "status": "crashed", "error": "ZeroDivisionError"}
    assert model_row("m", [_ours(1), crashed, PROVEN])["peer_status"] == "crashed"
    assert model_row("m", [_ours(1), PROVEN])["peer_status"] == "not run"


def test_ours_is_wrong_unless_it_is_proven():
    unproven = {"event": "proof-done", "exact": False, "max_error": 0.1}
    refused = {"event": "proof-done", "exact": False, "max_error": None, "error": "VerifyError: no"}
    assert model_row("m", [_ours(1), _peer(1, 0), unproven])["ours_status"] == "wrong"
    assert model_row("m", [_ours(1), refused])["ours_error"] == "VerifyError: no"
    for status in ("wrong shape", "wrong cost", "forward failed"):
        row = model_row("m", [_ours(1, status, error="why")])
        assert (row["ours_status"], row["ours_error"]) == ("wrong", f"{status}: why")
    assert model_row("m", [_ours(1), _peer(1, 0), unproven])["ratio"] is None


def test_a_network_that_came_back_is_counted():
    back = {"event": "restore-done", "restored": True, "error": None}
    lost = {"event": "restore-done", "restored": False, "error": "tensors differ"}
    rows = [model_row("m", [_ours(1), PROVEN, *more]) for more in ([back], [lost], [])]
    assert [r["restored"] for r in rows] == [True, False, None]
    assert rows[1]["restore_error"] == "tensors differ"
    assert summary(rows)["restored"] == 1


def test_a_proof_that_never_ends_is_no_proof():
    late = model_row("m", [_ours(1), _peer(1, 0), {"event": "proof-hung", "bound_s": 600.0}])
    assert (late["ours_status"], late["ours_error"]) == ("hung", "the proof: no end after 600 s")
    killed = model_row("m", [_ours(1), {"event": "proof-died", "how": "killed by SIGKILL", "last_words": "no message"}])
    assert killed["ours_status"] == "crashed"
    assert "SIGKILL" in killed["ours_error"]
    assert model_row("m", [_ours(1)])["ours_status"] == "crashed"


def test_one_bad_turn_spoils_the_row():
    assert model_row("m", [_ours(1), _ours(2, "unchanged"), PROVEN])["ours_status"] == "unchanged"


def test_a_network_that_cannot_be_built_says_why():
    row = model_row("m", [{"event": "build-died", "how": "exit code 1", "last_words": "no module timm"}])
    assert (row["ours_status"], row["traced"]) == ("crashed", False)
    assert "timm" in row["ours_error"]


def test_the_summary_counts_and_names_what_is_slower():
    rows = [
        model_row("fast", [TRACED, _ours(1), _peer(8, 0), PROVEN]),
        model_row("slow", [TRACED, _ours(2), _peer(1, 0.5), PROVEN]),
        model_row("alone", [TRACED, _ours(1, macs_foretold=0.7), {"event": "peer-hung", "bound_s": 60.0}, PROVEN]),
        model_row("broken", [{"event": "ours-hung", "bound_s": 60.0}]),
    ]
    result = summary(rows)
    assert result["slower_on"] == ["slow"]
    assert result["geomean_speedup"] == pytest.approx(2.0)
    assert (result["models"], result["traced"], result["compared"], result["reached_half"]) == (4, 3, 2, 2)
    assert [result[s] for s in ("exact", "hung", "wrong", "crashed", "unchanged")] == [3, 1, 0, 0, 0]
    assert result["peer_pruned"] == 2
    assert [r["name"] for r in result["rows"]] == ["fast", "slow", "alone", "broken"]
    json.dumps(result, allow_nan=False)


def test_a_peer_that_cuts_little_is_compared_but_not_alike():
    rows = [model_row("m", [_ours(1), _peer(k, 0, macs_ratio=r), PROVEN]) for k, r in ((4, 0.5), (1, 0.9))]
    result = summary(rows)
    assert (result["compared"], result["alike"]) == (2, 1)
    assert result["geomean_speedup"] == pytest.approx(2.0)
    assert result["geomean_speedup_alike"] == pytest.approx(4.0)


def test_nothing_to_compare_gives_no_figure():
    assert summary([model_row("m", [_ours(1), PROVEN])])["geomean_speedup"] is None
