"""The protocol of timing and its arithmetic; no test looks at a real duration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from secateur._errors import UsageError
from secateur.measure import Latency, compare, speedup


class Clock:
    """Time that passes only when a candidate says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def candidate(clock, calls, name, seconds):
    durations = iter(seconds)

    def run(x):
        calls.append(name)
        clock.now += next(durations)

    return run


def test_candidates_take_turns_and_the_warmup_does_not_count():
    clock, calls = Clock(), []
    a = candidate(clock, calls, "a", [9.0, 0.001, 0.002, 0.003, 0.004, 0.005])
    b = candidate(clock, calls, "b", [9.0, 0.002, 0.002, 0.001, 0.001, 0.010])
    found = compare({"a": a, "b": b}, torch.zeros(1), runs=5, warmup=1, clock=clock)
    assert calls == ["a", "b"] * 6
    assert found["a"].median == pytest.approx(3.0)
    assert found["a"].iqr == pytest.approx(2.0)
    assert found["a"].times == pytest.approx((1, 2, 3, 4, 5))
    assert found["b"].median == pytest.approx(2.0)
    assert found["b"].iqr == pytest.approx(1.0)
    assert (found["b"].runs, found["b"].unit) == (5, "ms")
    assert set(found["a"].as_dict()) == {"median", "iqr", "runs", "unit"}
    # Ratios pair by pair: 0.5, 1, 3, 4, 0.5.
    gain = speedup(found["a"], found["b"])
    assert gain.median == pytest.approx(1.0)
    assert gain.iqr == pytest.approx(2.5)
    assert gain.runs == 5


def test_runs_and_warmup_shrink_to_the_budget_but_not_below_three():
    clock, calls = Clock(), []
    run = candidate(clock, calls, "a", [1.0] * 99)
    found = compare({"a": run}, torch.zeros(1), runs=50, warmup=5, budget_s=10.5, clock=clock)
    assert found["a"].runs == 7  # three rounds of warm-up pass a quarter of the budget, then seven fit
    assert len(calls) == 10
    run = candidate(clock, calls, "a", [60.0] * 99)
    assert compare({"a": run}, torch.zeros(1), budget_s=1.0, clock=clock)["a"].runs == 3


def test_modules_run_in_evaluation_and_inference_mode_and_get_everything_back():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = nn.BatchNorm1d(2).eval()

        def forward(self, x, scale):
            seen.append((self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), scale))
            return x * scale

    spy = Spy().train()
    spy.frozen.eval()
    threads = torch.get_num_threads()
    compare({"spy": spy}, {"x": torch.zeros(2), "scale": 3}, runs=1, warmup=0, threads=1)
    compare({"spy": spy}, (torch.zeros(2), 4), runs=1, warmup=0)
    assert seen == [(False, True, 1, 3), (False, True, threads, 4)]
    assert spy.training
    assert not spy.frozen.training
    assert torch.get_num_threads() == threads

    def broken(x, scale):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        compare({"spy": spy, "broken": broken}, (torch.zeros(2), 4), threads=1)
    assert spy.training
    assert torch.get_num_threads() == threads


def test_bad_questions():
    with pytest.raises(UsageError) as caught:
        compare({}, torch.zeros(1), runs=0, warmup=-1, threads=0, budget_s=0.0)
    assert all(
        part in str(caught.value) for part in ("nothing to measure", "runs=0", "warmup=-1", "threads=0", "budget_s")
    )
    with pytest.raises(UsageError, match="one call of compare"):
        speedup(Latency(1.0, 0.0, 1, times=(1.0,)), Latency(1.0, 0.0, 2, times=(1.0, 1.0)))


def test_every_call_gets_lists_of_its_own():
    def run(pair, *, named):
        assert pair == [1, 2]
        assert named == {"a": [3]}
        pair[0] = named["a"][0] = 5
        named["b"] = 6

    found = compare({"a": run}, {"pair": [1, 2], "named": {"a": [3]}}, runs=3, warmup=1)
    assert found["a"].runs == 3
