"""Weights are loaded whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from secateur import models
from secateur._errors import FileError, WeightsError


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


def test_prefix_and_missing_counters(net: nn.Module, tmp_path: Path):
    state = {k: torch.randn_like(v) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file({f"module.{k}": v for k, v in state.items()}, tmp_path / "w.safetensors")
    models.load_weights(net, tmp_path / "w.safetensors")
    assert all(torch.equal(net.state_dict()[k], v) for k, v in state.items())


def test_all_problems_at_once_and_nothing_loaded(net: nn.Module, tmp_path: Path):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {k: torch.ones_like(v) for k, v in before.items()}
    del state["0.bias"], state["1.weight"]
    state |= {"2.weight": torch.ones(5, 2), "extra.one": torch.ones(1), "extra.two": torch.ones(1)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        models.load_weights(net, tmp_path / "w.safetensors")
    message = str(caught.value)
    for word in ("missing (2)", "0.bias", "1.weight", "unexpected (2)", "extra.one", "extra.two", "(2, 2)", "(5, 2)"):
        assert word in message
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_of_tied_tensors_one_is_enough(tmp_path: Path):
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    assert isinstance(net["a"], nn.Linear)
    net["b"].weight = net["a"].weight
    state = {k: torch.ones_like(v) for k, v in net.state_dict().items() if k != "b.weight"}
    save_file(state, tmp_path / "w.safetensors")
    models.load_weights(net, tmp_path / "w.safetensors")
    assert torch.equal(net.state_dict()["b.weight"], torch.ones(3, 3))


def test_files_that_cannot_be_read(net: nn.Module, tmp_path: Path):
    whole = tmp_path / "whole.safetensors"
    save_file(net.state_dict(), whole)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-9])
    other = tmp_path / "other.pt"
    torch.save(net.state_dict(), other)
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    for path in (cut, other, empty):
        with pytest.raises(FileError, match="cannot be read as safetensors"):
            models.load_weights(net, path)
    with pytest.raises(FileError, match="does not exist"):
        models.load_weights(net, tmp_path / "absent.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        models.load_weights(net, tmp_path)
