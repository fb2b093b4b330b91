"""What ``verify`` refuses before it compares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import secateur as sc
from secateur._errors import InputError
from secateur.graph import PruningGraph
from secateur.surgery import make_plan
from surgery.small_cnn import KEEP, SmallCNN


@pytest.mark.parametrize(("home", "given"), [("cpu", "meta"), ("meta", "cpu"), ("meta", "meta")])
def test_without_numbers_nothing_is_compared(
    model: SmallCNN, graph: PruningGraph, example: Tensor, home: str, given: str
):
    plan = make_plan(graph, KEEP)
    with pytest.raises(InputError) as caught:
        sc.verify(model.to(home), plan, example.to(given))
    assert f"the model lies on {home}, the example inputs on {given}" in str(caught.value)
    assert "inputs of real numbers" in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_two_devices_are_named(model: SmallCNN, graph: PruningGraph, example: Tensor):
    plan = make_plan(graph, KEEP)
    with pytest.raises(InputError, match="the model lies on cpu, the example inputs on cuda:0"):
        sc.verify(model, plan, example.cuda())


def test_a_number_may_lie_anywhere(model: SmallCNN, graph: PruningGraph, example: Tensor):
    assert sc.verify(model, make_plan(graph, KEEP), (example,)).exact
