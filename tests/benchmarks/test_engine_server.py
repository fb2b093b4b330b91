"""A process for every model: what it says arrives, and its end is told truly."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TextIO

import pytest
from benchmarks.engine import run_model
from benchmarks.engine_server import preload, watch

from secateur._errors import MissingExtra

# PyTorch has threads here, and the children of these tests touch nothing of it.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def _say(channel: TextIO, *events: str) -> None:
    for event in events:
        print(json.dumps({"event": event}), file=channel, flush=True)


def test_events_arrive_in_order_and_a_good_end_adds_nothing():
    def job(channel: TextIO) -> None:
        print("a library that prints")
        _say(channel, "ours-start", "ours-traced", "ours-done")

    assert [e["event"] for e in watch(job)] == ["ours-start", "ours-traced", "ours-done"]


def test_a_process_that_is_killed_costs_its_row_only():
    def job(channel: TextIO) -> None:
        _say(channel, "peer-start")
        os.kill(os.getpid(), signal.SIGKILL)

    last = watch(job)[-1]
    assert (last["event"], last["how"]) == ("peer-died", "killed by SIGKILL")


def test_an_exception_is_told_by_its_last_line():
    def job(channel: TextIO) -> None:
        _say(channel, "build-start")
        raise RuntimeError("no such network")

    last = watch(job)[-1]
    assert (last["event"], last["last_words"]) == ("build-died", "RuntimeError: no such network")


def test_an_overdue_process_is_ended():
    def job(channel: TextIO) -> None:
        _say(channel, "ours-start", "ours-traced")
        time.sleep(60)

    start = time.monotonic()
    last = watch(job, {"ours-start": 0.3}, other=30)[-1]
    assert time.monotonic() - start < 10
    assert last == {"event": "ours-hung", "bound_s": 0.3}


def test_after_an_attempt_is_done_other_bounds_hold():
    def job(channel: TextIO) -> None:
        _say(channel, "ours-start", "ours-check")
        time.sleep(0.5)
        _say(channel, "ours-done")
        time.sleep(0.5)

    assert watch(job, {"ours-start": 0.2}, other=30)[-1]["event"] == "ours-done"


def test_a_side_that_goes_down_leaves_the_other_its_row(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def work(name: str, repeats: int, threads: int, sides: tuple[str, ...], channel: TextIO) -> None:
        asked.append(sides)
        if "peer" in sides:
            _say(channel, "ours-traced", "peer-start")
            os._exit(3)
        done = {"event": "ours-done", "status": "pruned", "seconds": 1.0, "cpu": 1.0, "scoring": 0.0, "stages": {}}
        print(json.dumps(done), file=channel)
        print(json.dumps({"event": "proof-done", "exact": True, "max_error": 0.0}), file=channel)

    monkeypatch.setattr("benchmarks.engine.work", work)
    row = run_model("m", 1, 1, with_peer=True)
    assert (row["ours_status"], row["peer_status"]) == ("exact", "crashed")
    assert "exit code 3" in row["peer_error"]


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"secateur\[hf\]"):
        preload(["hf:bert"], with_peer=False)
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(MissingExtra, match=r"secateur\[bench\]"):
        preload([], with_peer=True)
