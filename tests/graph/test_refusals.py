"""What ``trace`` says of inputs that do not fit, of operations that nobody knows, and of how it traced."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur._errors import InputError
from secateur.graph import trace
from secateur.surgery import make_plan, verify
from secateur.testing.toys import toys


class Mystery(nn.Module):
    """A custom operation between two layers, and a branch that it does not touch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.ops.secateur_tests.mystery(self.a(x))  # the source line that a lock has to name
        return self.c(self.b(x).relu())


@pytest.fixture
def mystery() -> Iterator[torch.library.Library]:
    """The custom operation: it mixes its last axis, which nothing says."""
    library = torch.library.Library("secateur_tests", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x.cumsum(-1).flip(-1), "CPU")
    yield library
    library._destroy()


@pytest.mark.parametrize("meta_kernel", [True, False])
def test_an_unknown_operation_locks_what_reaches_it(mystery: torch.library.Library, meta_kernel: bool):
    if meta_kernel:
        mystery.impl("mystery", torch.empty_like, "Meta")
    model, example = Mystery(), torch.randn(2, 6)
    graph = trace(model, example)
    assert graph["a"].locked
    assert "mystery" in graph["a"].reason
    line = Mystery.forward.__code__.co_firstlineno + 1
    assert f"test_refusals.py:{line}" in graph["a"].reason
    assert graph.widths == {"b": 9}, "what the operation does not touch stays free"
    assert verify(model, make_plan(graph, {"b": [0, 4]}), example).exact


@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        (torch.randn(1, 4, 8, 8), r"\(1, 4, 8, 8\) float32"),
        ((torch.randn(1, 3, 8, 8), torch.randn(2, 5)), r"\(1, 3, 8, 8\) float32, \(2, 5\) float32"),
        ({"picture": torch.zeros(1, 3, 8, 8, dtype=torch.int64)}, r"\(1, 3, 8, 8\) int64"),
        ((), "no tensor"),
    ],
)
def test_inputs_that_do_not_fit(inputs: object, given: str):
    model, _ = toys()["residual"]
    with pytest.raises(InputError, match=f"given: {given}") as caught:
        trace(model, inputs)
    assert "a tensor, a tuple of arguments, or a dict of keyword arguments" in str(caught.value)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_and_noted(training: bool):
    model, example = toys()["residual"]
    model.train(training)
    model.get_submodule("a").eval()
    graph = trace(model, example)
    assert model.training is training
    assert not model.get_submodule("a").training
    assert any("training mode" in warning for warning in graph.warnings) is training


@pytest.mark.parametrize(("name", "looks"), [("data_dependent", True), ("residual", False)])
def test_a_forward_that_looks_at_values_is_noted(name: str, looks: bool):
    model, example = toys()[name]
    graph = trace(model, example)
    assert any("looks at values" in warning for warning in graph.warnings) is looks


def test_a_trace_leaves_no_trace():
    """No hook stays behind, no gradient flag, statistic or random number changes."""
    for model, example in toys().values():
        before = {name: t.clone() for name, t in model.state_dict().items()}
        flags = [p.requires_grad for p in model.parameters()]
        state = torch.random.get_rng_state()
        trace(model, example)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        assert [p.requires_grad for p in model.parameters()] == flags
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_same_model_gives_the_same_graph():
    for model, example in toys().values():
        one, two = trace(model, example), trace(model, example)
        assert str(one) == str(two)
        for a, b in zip(one.groups, two.groups, strict=True):
            for p, q in zip(a.members, b.members, strict=True):
                assert np.array_equal(p.positions, q.positions)
