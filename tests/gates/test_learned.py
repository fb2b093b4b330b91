"""Files of gates, and the order in which units go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur._errors import FileError
from secateur.gates import LearnedGates


def tensors(**values: list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(v) for name, v in values.items()}


GATES = LearnedGates(
    tensors(a=[1.0, 1.0, 0.0, 0.5], b=[0.0, 0.0, 1.0]),
    tensors(a=[1.2, 1.1, -0.3, 0.5], b=[-0.1, -0.3, 1.2]),
    {"target": 0.2},
)


def ranking(scores: dict[str, torch.Tensor]) -> list[str]:
    flat = [(float(v), f"{name}{k}") for name, t in scores.items() for k, v in enumerate(t)]
    assert len({v for v, _ in flat}) == len(flat), "no two units may be equal"
    return [unit for _, unit in sorted(flat, reverse=True)]


def test_the_gate_decides_then_its_value_before_clipping_then_the_seed():
    orders = {tuple(ranking(GATES.scores(seed))) for seed in range(12)}
    for order in orders:
        assert set(order[:2]) == {"a0", "b2"}
        assert order[2:5] == ("a1", "a3", "b0")
        assert set(order[5:]) == {"a2", "b1"}
    assert len(orders) == 4, "both ties fall either way"
    assert ranking(GATES.scores(5)) == ranking(GATES.scores(5))


def test_a_file_is_read_as_it_was_written(tmp_path: Path):
    path = tmp_path / "gates.json"
    torch.manual_seed(0)
    fine = LearnedGates({"a": torch.rand(50)}, {"a": torch.randn(50)}, {"seed": 3})
    path.write_text(fine.to_json())
    again = LearnedGates.read(path)
    assert torch.equal(again.values["a"], fine.values["a"])
    assert torch.equal(again.unclipped["a"], fine.unclipped["a"])
    assert again.facts == {"seed": 3}


def changed(**parts: Any) -> str:
    return json.dumps({**json.loads(GATES.to_json()), **parts})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GATES.to_json()[:-40], "cut short"),
        (changed(kind="secateur widths"), "'secateur widths'"),
        (changed(schema=2), "schema 2"),
        (changed(gates={"a": [0.5, 1.5, 0, 0], "b": [0, 0, 0]}), "have to lie in"),
        (changed(gates={"a": [0.5, float("nan"), 0, 0], "b": [0, 0, 0]}), "have to lie in"),
        (changed(unclipped={"a": [0.5]}), "do not fit together"),
        ("[]", "no file of gates"),
    ],
)
def test_what_is_no_file_of_gates_is_refused(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "gates.json"
    path.write_text(text)
    with pytest.raises(FileError, match=reason):
        LearnedGates.read(path)


def test_a_missing_file_says_who_writes_it(tmp_path: Path):
    with pytest.raises(FileError, match="--out DIR writes"):
        LearnedGates.read(tmp_path / "gates.json")
