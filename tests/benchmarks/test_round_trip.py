"""What plain transformers reads back of cut models: the benchmark, and its page."""

from __future__ import annotations

import json

import pytest
import round_trip_page

from benchmarks import round_trip

pytest.importorskip("transformers")


def test_a_type_is_written_and_read_back(capfd: pytest.CaptureFixture[str]):
    assert round_trip.main(["--only", "hf-type:gpt2"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    (row,) = result["rows"]
    assert row["end"] == "read back"
    assert row["macs"] <= 0.5
    assert row["difference"] <= round_trip.TOLERANCE
    assert {field.partition("=")[0] for field in row["fields"]} <= {"n_embd", "n_head", "n_inner"}
    assert result["read_back"] == result["reached_half"] == result["models"] == 1


def test_an_unknown_type_is_named(capfd: pytest.CaptureFixture[str]):
    assert round_trip.main(["--only", "hf-type:gtp2"]) == 2
    assert "gtp2" in capfd.readouterr().err


def test_what_ended_how_is_counted():
    rows = [{"end": "no head"}, {"end": "read back", "macs": 0.6}, {"end": "nothing said"}, {"end": "crashed"}]
    found = round_trip.summary(rows)
    assert (found["models"], found["read_back"], found["reached_half"]) == (3, 1, 0)
    assert (found["nothing_said"], found["crashed"], found["differs"]) == (1, 1, 0)


def test_the_page_is_what_the_stored_result_gives():
    page = round_trip_page.page(round_trip_page.stored())
    assert round_trip_page.PAGE.read_text(encoding="utf-8") == page, "run `make docs`"
