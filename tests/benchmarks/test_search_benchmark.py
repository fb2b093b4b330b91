"""What a search for widths costs: the command's last line is JSON with a ratio for every method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import search, search_tas


def test_the_last_line_and_the_file_hold_the_ratios(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(search_tas, "_STEPS", 2)
    monkeypatch.setattr(search_tas, "_WARM_UP", 1)
    words = ["--images", "96", "--batch-size", "32", "--scale", "0.02", "--out", str(tmp_path / "search.json")]
    assert search.main(words) == 0
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert set(said["ratios"]) == {"pruning_from_scratch", "tas"}
    assert said["reproduce"].startswith("python -m benchmarks.search --images 96")
    stored = json.loads((tmp_path / "search.json").read_text())
    assert stored["ratios"] == said["ratios"]
    parts = stored["parts"]
    pfs, tas = parts["pruning_from_scratch"], parts["tas"]
    search_s, usual_s = pfs["gates_s"] + pfs["bisection_s"], pfs["pretraining_s"] + pfs["pruning_s"]
    assert pfs["ratio"] == pytest.approx(search_s / usual_s, abs=0.01)
    assert tas["ratio"] == pytest.approx((tas["weights_ms"] + tas["logits_ms"]) / tas["plain_ms"], rel=0.01)
    for macs in (pfs["macs"]["pruning_from_scratch"], pfs["macs"]["l1"]):
        assert 0.45 < macs / pfs["macs"]["dense"] <= 0.5, "both end at the same budget"


def test_numbers_out_of_range(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        search.main(["--scale", "2"])
    assert "--scale must be above 0" in capsys.readouterr().err
