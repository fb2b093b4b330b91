"""Rules and locks of users: what they say holds, wrong ones are refused, and nothing of them stays behind."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur._errors import UnknownName, UsageError
from secateur.graph import Labels, PruningGraph, lift, lock, register_rule, trace, unregister_rule
from secateur.graph.rules.registry import USER_RULES
from secateur.surgery import cut, make_plan, verify

DOCS = Path(__file__).parents[2] / "docs" / "extend.md"


@torch.library.custom_op("secateur_extend::swish", mutates_args=())
def swish(x: Tensor) -> Tensor:
    """Pointwise, with a shape function."""
    return x * torch.sigmoid(x)


@swish.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("secateur_extend::norm", mutates_args=())
def norm(x: Tensor) -> Tensor:
    """Bears the name of one of PyTorch's operations, mixes its last axis, and has no shape function."""
    return x.cumsum(-1).flip(-1)


@torch.library.custom_op("secateur_extend::scaled_linear", mutates_args=())
def scaled_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """A linear layer and a scale, without a shape function."""
    return (x @ weight.T) * scale


def scaled_linear_rule(run: Any, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
    """As in ``docs/extend.md``."""
    x, weight, scale = args
    where, space = run.where(func), (*x.shape[:-1], 1, x.shape[-1])
    x_labels = lift(run.labels(x), lambda system: system.unsqueeze(-2))
    systems = run.ledger.contract(x_labels, space, run.labels(weight), weight.shape, run.module, where, 1)
    operands = [(Labels(systems), out.shape), (run.labels(scale), scale.shape)]
    run.set(out, Labels(run.ledger.meet(operands, out.shape, where)))


class Layers(nn.Module):
    """Two layers with a custom operation between them, or as the second of them."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 9, bias=False), nn.Linear(9, 4)
        self.scale = nn.Parameter(torch.randn(9))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 6) to (batch, 4)."""
        x, ops = self.a(x), torch.ops.secateur_extend
        if self.op == "scaled_linear":
            return self.c(ops.scaled_linear(x.relu(), self.b.weight, self.scale))
        return self.c(self.b(getattr(ops, self.op)(x)) * self.scale)


@pytest.fixture(autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    before = dict(USER_RULES)
    yield
    USER_RULES.clear()
    USER_RULES.update(before)


@pytest.fixture
def example() -> Tensor:
    return torch.randn(2, 6)


def traced(op: str, example: Tensor) -> PruningGraph:
    return trace(Layers(op).eval(), example)


# -- rules -----------------------------------------------------------------------------------------------------------


def test_a_rule_like_another(example: Tensor):
    assert traced("swish", example).widths == {"b": 9}
    register_rule("secateur_extend::swish", like="silu")
    graph = traced("swish", example)
    assert graph.widths == {"a": 8, "b": 9}
    assert not any("looks at values" in warning for warning in graph.warnings)
    assert verify(graph.model, make_plan(graph, {"a": [1, 2, 5], "b": [0, 3]}), example).exact
    unregister_rule("secateur_extend::swish")
    assert traced("swish", example)["a"].locked


@pytest.mark.parametrize("like", ["tanh", "aten::tanh", "relu_", "mul"])
def test_what_only_a_tag_calls_pointwise_will_do(like: str, example: Tensor):
    register_rule("secateur_extend::swish", like=like)
    assert "a" in traced("swish", example).widths


def test_like_another_rule_of_the_user(example: Tensor):
    register_rule("secateur_extend::swish", like="silu")
    register_rule("secateur_extend::swish2", like="secateur_extend::swish")
    assert USER_RULES["secateur_extend::swish2"] is USER_RULES["secateur_extend::swish"]


def test_a_rule_of_its_own_without_a_shape_function(example: Tensor):
    assert not traced("scaled_linear", example).widths
    register_rule("secateur_extend::scaled_linear")(scaled_linear_rule)
    graph = traced("scaled_linear", example)
    assert set(graph.widths) == {"a", "b"}
    assert graph.cost().macs == 2 * (6 * 8 + 8 * 9 + 9 * 4)
    assert any("looks at values" in warning for warning in graph.warnings)
    plan = make_plan(graph, {"a": [0, 7], "b": [1, 2, 8]})
    assert verify(graph.model, plan, example).exact
    assert cut(graph.model, plan)(example).shape == (2, 4)
    assert "scaled_linear in the model" in str(graph.explain("a"))


def test_a_namesake_of_an_aten_operation_has_no_rule(example: Tensor):
    """``norm`` is a reduction in ATen; this one is not."""
    graph = traced("norm", example)
    assert "an operation without a rule" in graph["a"].reason
    assert graph.widths == {"b": 9}


def test_a_wrong_rule_is_found_out(example: Tensor):
    register_rule("secateur_extend::norm", like="silu")
    graph = traced("norm", example)
    assert not verify(graph.model, make_plan(graph, {"a": [1, 2, 5]}), example).exact


def test_a_rule_that_fails_locks(example: Tensor):
    @register_rule("secateur_extend::swish")
    def broken(run: Any, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        raise IndexError("no such axis")

    reason = traced("swish", example)["a"].reason
    assert "whose rule failed: IndexError: no such axis" in reason
    assert f"{Path(__file__).name}:" in reason


def test_registering_again_replaces_ones_own_rule():
    register_rule("secateur_extend::swish", like="silu")

    @register_rule("secateur_extend::swish")
    def mine(run: Any, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """A rule."""

    assert USER_RULES["secateur_extend::swish"] is mine


@pytest.mark.parametrize("name", ["silu", "aten::silu", "tanh", "add"])
def test_a_rule_of_secateur_s_own_is_replaced_on_request_only(name: str, example: Tensor):
    with pytest.raises(UsageError, match="replace=True"):
        register_rule(name, like="relu")
    register_rule(name, like="relu", replace=True)
    register_rule(name, like="gelu")
    unregister_rule(name)
    unregister_rule(name)


def test_an_aten_rule_that_was_replaced_is_used():
    class Silu(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(nn.functional.silu(self.a(x))))

    @sc.register_rule("silu", replace=True)
    def forbid(run: Any, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        run.ledger.lock_systems(run.labels(args[0]).systems, "mine says no")

    assert trace(Silu(""), torch.randn(2, 6))["a"].reason == "mine says no"


def test_names_that_do_not_fit():
    with pytest.raises(UnknownName, match="did you mean 'silu'"):
        register_rule("mylib::swish", like="silo")
    for name in ("mylib:swish", "mylib::", "", "my lib::x", "mylib::swish.default"):
        with pytest.raises(UsageError, match="write 'namespace::name'"):
            register_rule(name, like="silu")
    assert not any(key.startswith("mylib") for key in USER_RULES)


def test_the_page_says_what_holds(example: Tensor):
    """The code of ``docs/extend.md`` runs, and its rule is exact."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[:2]:
        exec(block, names)

    class Page(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(names["scaled_linear"](self.a(x).relu(), self.b.weight, self.scale))

    graph = trace(Page("").eval(), example)
    assert set(graph.widths) == {"a", "b"}
    assert graph.warnings == []
    assert verify(graph.model, make_plan(graph, {"a": [1, 2], "b": [4]}), example).exact


# -- locks -----------------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Three layers; what the second gives may be locked inside."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.reason = reason
        self.a, self.pool, self.b, self.c = nn.Linear(6, 8), nn.Identity(), nn.Linear(8, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 6) to (batch, 4)."""
        x = self.b(self.pool(self.a(x)))
        if self.reason is not None:
            x = sc.lock(x, self.reason)  # this line
        return self.c(x)


def test_a_module_is_locked_on_all_its_axes(example: Tensor):
    model = Plain()
    keys = list(model.state_dict())
    assert sc.lock(model.b, "read elsewhere") is model.b
    for net in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        graph = trace(net, example)
        assert graph.widths == {}
        assert graph["a"].reason == graph["b"].reason == "by sc.lock on b: read elsewhere"
    assert list(model.state_dict()) == keys
    assert all(type(t) is Tensor for t in model.state_dict().values())


@pytest.mark.parametrize(("name", "free"), [("a.weight", {"b"}), ("a.bias", {"b"}), ("c.weight", {"a"})])
def test_a_parameter_is_locked(name: str, free: set[str], example: Tensor):
    model = Plain()
    parameter = model.get_parameter(name)
    assert lock(parameter) is parameter
    twin = copy.deepcopy(model)
    assert twin.get_parameter(name) is not parameter
    assert twin.get_parameter(name).data_ptr() != parameter.data_ptr()
    for net in (model, twin, copy.deepcopy(twin), pickle.loads(pickle.dumps(model))):
        graph = trace(net, example)
        assert set(graph.widths) == free
        assert any(g.reason == f"by sc.lock on {name}" for g in graph.groups)
    assert type(twin.get_parameter(name)) is nn.Parameter
    assert trace(Plain(), example).widths == {"a": 8, "b": 9}


def test_a_module_without_parameters_locks_what_enters_it(example: Tensor):
    model = Plain()
    sc.lock(model.pool)
    assert trace(model, example).widths == {"b": 9}


def test_tied_copies_stay_tied():
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
    model[1].weight = model[0].weight  # type: ignore[union-attr]
    sc.lock(model[0].weight)
    twin = copy.deepcopy(model)
    assert twin[0].weight is twin[1].weight


def test_a_cut_model_remembers_its_locks(example: Tensor):
    model = Plain()
    sc.lock(model.a.weight, "fixed")
    small = cut(model, make_plan(trace(model, example), {"b": [0, 1, 2]}))
    assert trace(small, example).widths == {"b": 3}


def test_an_activation_is_locked_in_a_trace(example: Tensor):
    graph = trace(Plain("read elsewhere"), example)
    line = next(k for k, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "# this line" in text)
    assert graph["b"].reason == f"by sc.lock in the model [{Path(__file__).name}:{line}]: read elsewhere"
    assert graph.widths == {"a": 8}
    assert verify(graph.model, make_plan(graph, {"a": [3, 4]}), example).exact


def test_an_activation_outside_of_a_trace_is_left_alone(example: Tensor):
    x = torch.randn(3, requires_grad=True)
    assert sc.lock(x, "nothing happens") is x
    assert vars(x) == {}
    model = Plain("read elsewhere").eval()
    want = model(example)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(example), want)
    exported = torch.export.export(model, (example,))
    assert torch.equal(exported.module()(example), want)


@pytest.mark.parametrize("thing", ["layer1", 3, None, [torch.zeros(1)]])
def test_other_things_cannot_be_locked(thing: Any):
    with pytest.raises(UsageError, match=r"protect=\['layer1\.\*'\]"):
        sc.lock(thing)
