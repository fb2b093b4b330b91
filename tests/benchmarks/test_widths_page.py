"""The page that compares ways to find widths is what its stored result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rethinking_page
import widths_page


def run(method: str, detail: str, seed: int, accuracy: float) -> dict[str, Any]:
    fixed = {"macs": 50, "dense macs": 100, "accuracy, dense": 0.9}
    return {"method": method, "detail": detail, "seed": seed, "accuracy": accuracy, **fixed}


def result(gates: list[float], uniform: list[float]) -> dict[str, Any]:
    runs = [run("pruning-from-scratch", "", seed, value) for seed, value in enumerate(gates)]
    runs += [run("random", "protect ['conv1']", seed, value) for seed, value in enumerate(uniform)]
    runs += [run("tas", "epochs 10, teacher none", 0, 0.5)]
    about = {
        "hardware": "a machine",
        "versions": {"python": "3"},
        "notes": [],
        "reproduce": "x",
        "commit": "0123456789",
    }
    return {"runs": runs, **about}


def test_the_page_is_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if rethinking_page.stored(widths_page.NAME) is None:
        pytest.skip("this study has not been run yet")
    before = widths_page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(widths_page, "PAGE", tmp_path / "page.md")
    widths_page.write()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == before, "run `make docs`"


def test_differences_are_paired_and_judged():
    text = widths_page.page(result([0.5, 0.6, 0.7], [0.4, 0.5, 0.6]))
    assert "| the gates' widths against uniform ones | +10.00 | +10.00 to +10.00 | better |" in text
    assert "| the gates' widths against those of L1 |  | | too few seeds |" in text
    text = widths_page.page(result([0.5, 0.6, 0.4], [0.4, 0.5, 0.6]))
    assert "| no evidence |" in text
    assert "| inner widths by pruning from scratch | 50.0 % | 50.00 ± 10.00 | 3 |" in text


def test_a_run_that_the_page_does_not_know_is_noticed():
    with pytest.raises(ValueError, match="no row of the page"):
        widths_page.page({**result([0.5], [0.5]), "runs": [run("lottery", "", 0, 0.5)]})
