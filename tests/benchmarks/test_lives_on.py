"""What can be done with a cut network: the benchmark."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from benchmarks import lives_on


def test_a_cut_network_does_what_the_dense_one_does(capfd: pytest.CaptureFixture[str]):
    assert lives_on.main(["--only", "torchvision:mnasnet0_5"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    (row,) = result["rows"]
    assert row["ends"] == dict.fromkeys(lives_on._USUAL, "works")
    assert result["broken"] == result["stopped"] == []
    assert result["uses"]["trained"] == {"works": 1, "dense fails too": 0, "broken": 0}


def test_single_uses_can_be_asked_for(capfd: pytest.CaptureFixture[str]):
    assert lives_on.main(["--only", "torchvision:squeezenet1_1", "--use", "copied", "--use", "lower"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert [*result["uses"]] == ["copied", "lower"]
    assert result["protocol"]["reproduce"] == "python -m benchmarks.lives_on --use copied --use lower"


def test_an_unknown_network_is_named(capfd: pytest.CaptureFixture[str]):
    assert lives_on.main(["--only", "torchvision:resent18"]) == 2
    assert "resent18" in capfd.readouterr().err


class Fickle(nn.Module):
    """Another number every time, and none that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def test_what_gives_other_numbers_fails():
    x = torch.zeros(1, 2)
    assert lives_on._fails(lives_on.copied, nn.Linear(2, 2), x) == ""
    assert lives_on._fails(lives_on.pickled, nn.Linear(2, 2), x) == ""
    model = Fickle()
    program = torch.export.export(nn.Identity(), (x,)).module()
    with pytest.raises(ValueError, match="other numbers"):
        lives_on._require_same(lives_on._outputs(program, model, x), model, x)
    assert "RuntimeError" in lives_on._fails(lives_on.trained, model, x)


def test_what_ended_how_is_counted():
    rows = [
        {"name": "a", "ends": {"copied": "works", "trained": "broken"}},
        {"name": "b", "ends": {"copied": "dense fails too"}, "stopped": {"event": "use-hung"}},
    ]
    found = lives_on.summary(rows)
    assert found["uses"]["copied"] == {"works": 1, "dense fails too": 1, "broken": 0}
    assert found["broken"] == ["a: trained"]
    assert found["stopped"] == ["b"]
