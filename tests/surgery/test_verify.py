"""What ``verify`` refuses before it compares, and what is left to chance."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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


class Noisy(nn.Module):
    """Noise in the input, a token at random, and a number from each of three generators."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, torch.randperm(x.shape[1])] + torch.randn_like(x) + random.random() + float(np.random.rand())
        return self.b(self.a(x).relu())


def test_what_is_drawn_at_random_is_drawn_alike_and_costs_the_caller_nothing():
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    model, x = Noisy().eval(), torch.randn(2, 5, 4)
    graph = sc.trace(model, x)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert sc.verify(model, make_plan(graph, {"a": [0, 2, 3]}), x).exact
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


class Growing(nn.Module):
    """Numbers that grow from block to block under random weights, until a sine shows what was rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(24))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = 3 * block(x)
        return self.last(x.sin())


def test_numbers_that_grow_do_not_make_an_exact_cut_look_wrong():
    torch.manual_seed(0)
    model, x = Growing().eval(), torch.randn(2, 8)
    graph = sc.trace(model, x)
    plan = make_plan(graph, {name: [0, 3, 5] for name in graph.widths})
    assert sc.verify(model, plan, x).max_error < 1e-12


def test_layers_without_numbers_stay_as_they_are():
    """A layer that gives the same everywhere, or does not run, or is used twice."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.same, self.idle = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(self.b(self.a(x)).tanh())) + self.same(torch.zeros_like(x)).mean()

    torch.manual_seed(0)
    model, x = Odd().eval(), torch.randn(2, 4)
    graph = sc.trace(model, x)
    assert sc.verify(model, make_plan(graph, {"a": [0, 2]}), x).exact


class WritesIntoItsInputs(nn.Module):
    """Numbers are changed in place, and an entry of a list is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.a, self.b = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, more: list[Tensor]) -> Tensor:
        ids[ids == 5] = 0
        more[0] = self.a(self.words(ids) + more[0].mul_(2))
        return self.b(more[0].relu())


def test_what_a_model_writes_into_its_inputs_stays_there():
    torch.manual_seed(0)
    model = WritesIntoItsInputs().eval()
    ids, noise = torch.tensor([[5, 2, 5]]), torch.randn(1, 3, 6)
    given, before = [noise], noise.clone()
    graph = sc.trace(model, (ids, given))
    check = sc.verify(model, make_plan(graph, {"a": [0, 2, 3]}), (ids, given))
    assert check.exact, str(check)
    assert given[0] is noise
    assert torch.equal(noise, before)
    assert ids.tolist() == [[5, 2, 5]]
