"""What ``trace`` says of inputs that do not fit, of operations that nobody knows, and of how it traced."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur._errors import InputError, PlanError, UsageError
from secateur.graph import trace
from secateur.graph.admit import elsewhere
from secateur.surgery import cut, make_plan, mask, verify
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
        ({"picture": torch.zeros(1, 3, 8, 8, dtype=torch.int64)}, r"picture=\(1, 3, 8, 8\) int64"),
        ((torch.ones(1), [torch.ones(2), 3], {"a": None}, nn.ReLU()), r"\(1,\).*, \[\(2,\) .*, 3\], {a: None}, ReLU"),
        ((), "nothing"),
    ],
)
def test_inputs_that_do_not_fit(inputs: object, given: str):
    model, _ = toys()["residual"]
    with pytest.raises(InputError, match=f"given: {given}") as caught:
        trace(model, inputs)
    message = str(caught.value)
    assert message.startswith("the model does not run on the example inputs: ")
    assert "forward takes: (x: 'Tensor') -> 'Tensor'" in message
    assert "a tensor, a tuple of arguments, or a dict of keyword arguments" in message


def test_tokens_that_are_no_whole_numbers():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"does not run on the example inputs: RuntimeError(.|\n)*float32"):
        trace(model, torch.randn(2, 3))


def test_tokens_and_tables_without_numbers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(5, 4), nn.Embedding(7, 4)
            self.register_buffer("order", torch.arange(7))
            self.inner, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.inner(self.words(x) + self.places(self.order[: x.shape[1]])).relu())

    tokens = torch.zeros(1, 3, dtype=torch.int64)
    widths = trace(Model(), tokens).widths
    assert trace(Model().to("meta"), tokens.to("meta")).widths == widths
    assert set(widths.values()) == {4, 6}


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


# -- models of a kind that cannot be traced --------------------------------------------------------------------------


class Plain(nn.Module):
    """Three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 9), nn.Linear(9, 4)

    def middle(self, x: Tensor) -> Tensor:
        """What the subclasses change: (batch, 8) to (batch, 8)."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 6) to (batch, 4)."""
        return self.c(self.b(self.middle(self.a(x))).relu())


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.compile(Plain()), ["it is a compiled model", "model._orig_mod"]),
        (
            lambda: nn.Sequential(Plain(), torch.compile(nn.Linear(4, 4))),
            ["1 is a compiled model", "model.1._orig_mod"],
        ),
        (lambda: nn.DataParallel(Plain()), ["it is DataParallel", "model.module"]),
        (scripted, ["TorchScript: it: ", "Python module"]),
        (lambda: nn.Sequential(Plain(), scripted()), ["TorchScript: 1: "]),
        (
            lambda: nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(3)),
            ["0.weight, 0.bias, 1.weight and 1 more"],
        ),
    ],
    ids=["compiled", "compiled part", "parallel", "scripted", "scripted part", "lazy"],
)
def test_models_that_have_to_be_unwrapped(make: Callable[[], nn.Module], said: list[str]):
    with pytest.raises(InputError, match="cannot be traced as it is") as caught:
        trace(make(), torch.randn(2, 6))
    for words in said:
        assert words in str(caught.value)


def test_all_reasons_at_once():
    model = nn.Sequential(nn.LazyLinear(4), nn.DataParallel(nn.Linear(4, 4)), scripted())
    with pytest.raises(InputError, match="lazy") as caught:
        trace(model, torch.randn(2, 6))
    assert len(str(caught.value).splitlines()) == 4


def test_a_lazy_model_that_has_run_is_like_any_other():
    model, example = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3)), torch.randn(2, 6)
    model(example)
    assert trace(model, example).widths == {"0": 4}


@pytest.mark.parametrize("thing", [torch.relu, nn.Linear, torch.zeros(1), "resnet50"])
def test_what_is_no_model(thing: Any):
    with pytest.raises(UsageError, match=f"trace takes an nn.Module, not {type(thing).__name__}"):
        trace(thing, torch.zeros(1))


def test_a_model_without_parameters():
    graph = trace(nn.Sequential(nn.ReLU(), nn.Flatten()), torch.randn(2, 3, 4))
    assert graph.groups == []
    assert graph.cost().macs == graph.cost().params == 0
    assert "0 groups can be cut" in str(graph)
    assert verify(graph.model, make_plan(graph, {}), torch.randn(2, 3, 4)).exact


class Nothing(Plain):
    def forward(self, x: Tensor) -> Any:
        return {"loss": float(x.shape[0])}


def test_a_model_that_gives_back_no_tensor():
    with pytest.raises(InputError, match=r"^the model gives back no tensor: dict"):
        trace(Nothing(), torch.randn(2, 6))


# -- devices ---------------------------------------------------------------------------------------------------------


class Branching(Plain):
    """Looks at a value."""

    def middle(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(("model_on", "inputs_on"), [("cpu", "meta"), ("meta", "cpu"), ("meta", "meta")])
def test_devices_do_not_matter_where_no_value_is_read(model_on: str, inputs_on: str):
    graph = trace(Plain().eval().to(model_on), torch.randn(2, 6, device=inputs_on))
    assert graph.widths == {"a": 8, "b": 9}
    assert graph.warnings == []


@pytest.mark.parametrize(
    ("model_on", "inputs_on", "said"), [("cpu", "meta", "the example inputs"), ("meta", "cpu", "the model")]
)
def test_values_that_the_meta_device_does_not_have(model_on: str, inputs_on: str, said: str):
    with pytest.raises(InputError, match=f"on the meta device, which has no numbers: {said}\n"):
        trace(Branching().to(model_on), torch.randn(2, 6, device=inputs_on))


def test_inputs_that_had_to_be_copied_are_noted():
    """The other device is the meta device here, since every machine has that."""
    assert elsewhere(Plain(), [torch.zeros(1, device="meta")]) == (
        "the example inputs lie on meta; they were copied to cpu"
    )
    assert elsewhere(Plain(), torch.zeros(1)) == elsewhere(nn.ReLU(), torch.zeros(1, device="meta")) == ""


# -- parameters that are not cut ---------------------------------------------------------------------------------------


class Odd(Plain):
    """One tensor of a kind that is not cut, and how it is used."""

    def __init__(self, tensor: Tensor, use: Callable[[Tensor, Tensor], Tensor], buffer: bool) -> None:
        super().__init__()
        self.use = use
        if buffer:
            self.register_buffer("odd", tensor)
        else:
            self.odd = nn.Parameter(tensor, requires_grad=tensor.is_floating_point() or tensor.is_complex())

    def middle(self, x: Tensor) -> Tensor:
        return self.use(x, self.odd)


def quantised() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.linspace(-1, 1, 8), 0.01, 0, torch.qint8)


ODD = {
    "complex": (torch.randn(8, dtype=torch.complex64), lambda x, w: (x * w).real, "is complex (complex64)"),
    "sparse": (torch.eye(8).to_sparse(), lambda x, w: torch.mm(w, x.T).T, "is sparse (sparse_coo)"),
    "quantised": (quantised(), lambda x, w: x * w.dequantize(), "is quantised (qint8)"),
    "whole": (torch.arange(8, dtype=torch.int32), lambda x, w: x * w, "holds whole numbers (int32)"),
}


@pytest.mark.parametrize("kind", ODD)
def test_parameters_of_other_kinds_are_locked_and_the_rest_is_cut(kind: str):
    tensor, use, reason = ODD[kind]
    model, example = Odd(tensor, use, buffer=False).eval(), torch.randn(2, 6)
    with contextlib.nullcontext() if kind != "quantised" else warnings.catch_warnings():
        if kind == "quantised":
            warnings.simplefilter("ignore")
        graph = trace(model, example)
        assert graph.widths == {"b": 9}
        assert graph["a"].reason == f"meets odd, which {reason}"
        assert graph.cost().params == sum(p.numel() for p in model.parameters())
        plan = make_plan(graph, {"b": [0, 3, 8]})
        assert verify(model, plan, example).exact
        assert cut(model, plan)(example).shape == (2, 4)


@pytest.mark.parametrize(
    ("tensor", "use", "reason"),
    [
        (torch.arange(8, dtype=torch.int8), lambda x, w: x * w, "meets odd, which holds whole numbers (int8)"),
        (torch.arange(8).flip(0), lambda x, index: x[:, index], "looked up by index in the model (index)"),
        (torch.arange(8) > 3, lambda x, m: x.masked_fill(m, 0), "meets a fixed axis in the model (masked_fill)"),
        (torch.tensor(3), lambda x, n: x * n, ""),
    ],
    ids=["int8 weight", "index", "mask", "number"],
)
def test_buffers_of_whole_numbers(tensor: Tensor, use: Callable[[Tensor, Tensor], Tensor], reason: str):
    model, example = Odd(tensor, use, buffer=True).eval(), torch.randn(2, 6)
    graph = trace(model, example)
    assert graph["a"].reason == reason
    plan = make_plan(graph, {name: range(width - 3) for name, width in graph.widths.items()})
    assert verify(model, plan, example).exact
    assert torch.equal(cut(model, plan).get_buffer("odd"), tensor)


# -- plans that do not fit ---------------------------------------------------------------------------------------------


def test_a_plan_for_another_model_or_a_second_time():
    graph = trace(Plain(), torch.randn(2, 6))
    plan = make_plan(graph, {"a": [0, 1]})
    small = cut(graph.model, plan)
    for refuse in (cut, mask):
        with pytest.raises(PlanError, match="this model was cut already\napply a plan to the dense model"):
            refuse(small, plan)
        with pytest.raises(PlanError, match=r"made for another model .*\n.*lacks: a\.weight, a\.bias, b"):
            refuse(nn.Linear(6, 8), plan)


def test_everything_that_is_wrong_with_a_choice_of_units():
    graph = trace(Plain(), torch.randn(2, 6))
    with pytest.raises(PlanError) as caught:
        make_plan(graph, {"a": [], "b": [0, 9], "c": [0], "d": [1]})
    said = str(caught.value)
    for words in (
        "a: nothing would be left",
        "b: units must be",
        "c: locked, reaches the model's output",
        "d: no such",
    ):
        assert words in said


def test_a_copy_of_the_model_takes_the_plan():
    model, example = Plain(), torch.randn(2, 6)
    plan = make_plan(trace(model, example), {"a": [0, 1]})
    assert torch.equal(cut(copy.deepcopy(model), plan)(example), cut(model, plan)(example))


def test_code_that_asks_for_gradients_in_its_forward_is_verified():
    """Weights are scaled while it runs, which must not disturb what autograd has noted."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 6, 1), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.energy(x).sum(), x)[0]

    torch.manual_seed(0)
    model, example = Slope(), torch.randn(2, 3, 4, 4) * 100
    graph = trace(model, example)
    assert verify(model, make_plan(graph, {g.name: range(g.width // 2) for g in graph.prunable}), example).exact
