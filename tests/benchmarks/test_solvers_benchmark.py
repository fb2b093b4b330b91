"""``python -m benchmarks.solvers``: all sides on a small layer, what is stored, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.solvers_contestants import our_greedy, our_lasso, published_greedy, published_lasso, random_layer

from benchmarks import solvers

SMALL = ["--samples", "1500", "--held-out", "500", "--channels", "32", "--count", "16", "--repeats", "2"]


def test_the_last_line_is_the_result_and_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, before = tmp_path / "solvers.json", torch.get_num_threads()
    assert solvers.main([*SMALL, "--threads", "1", "--out", str(out)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == json.loads(out.read_text())
    assert set(last["seconds"]) == set(solvers.SIDES)
    assert all(len(turns) == 2 for turns in last["turns_s"].values())
    for name, ours, theirs in (
        ("lasso_over_published", "ours_lasso", "published_lasso"),
        ("lasso_over_published_tuned", "ours_lasso", "published_lasso_tuned"),
        ("lasso_over_lasso_lars", "ours_lasso", "lasso_lars"),
        ("greedy_over_published", "ours_greedy", "published_greedy"),
    ):
        assert last["speedup"][name] == pytest.approx(last["seconds"][theirs] / last["seconds"][ours])
        assert last["speedup_cpu"][name] == pytest.approx(last["cpu_seconds"][theirs] / last["cpu_seconds"][ours])
    assert last["counts"]["ours_lasso"] == last["counts"]["lasso_lars"] == 16
    assert last["same_channels"] == {"lasso_lars": True, "published_greedy": True}
    assert last["error_ratio"]["lasso_to_published_tuned"]["held_out"] < 1.01
    assert last["protocol"]["reproduce"].startswith("python -m benchmarks.solvers --samples 1500")
    assert {"hardware", "versions"} <= set(last)
    assert torch.get_num_threads() == before


def test_the_sides_do_the_same_job():
    samples = random_layer(2000, 100, 24, 2, seed=3)
    assert samples.z.shape == (2000, 24)
    assert samples.held_z.shape == (100, 24)
    torch.testing.assert_close(samples.y, samples.z.sum(1))
    assert sorted(published_greedy(samples.z, 10)) == our_greedy(samples.z, 10)
    kept, fits = published_lasso(samples.z, samples.y, 10)
    assert 10 <= len(kept) <= 11
    assert fits > 1
    assert len(set(kept) & set(our_lasso(samples.z, samples.y, len(kept)))) >= len(kept) - 1


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--repeats", "0", "--channels", "8", "--count", "9", "--out", str(tmp_path / "no" / "x.json")]
    assert solvers.main(words) == 2
    text = capsys.readouterr().err
    for part in ("--repeats is 0", "--count is 9 of --channels 8", "there is no folder"):
        assert part in text
