"""How models are written, handed over and called: what none of their layers shows."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.fx import GraphModule, symbolic_trace
from torch.nn.attention.flex_attention import flex_attention
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

import secateur as sc
from secateur._errors import InputError, VerifyError
from secateur.surgery import make_plan


class Two(nn.Module):
    """Two linear layers with something between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def between(self, y: Tensor) -> Tensor:
        return y.relu()

    def forward(self, x: Any) -> Tensor:
        return self.b(self.between(self.a(x)))


def require_exact(model: nn.Module, example: Any, kept: dict[str, list[int]]) -> nn.Module:
    """Trace, cut to what is kept of every group that can be cut, and verify."""
    graph = sc.trace(model, example)
    assert graph.widths.keys() == kept.keys()
    plan = make_plan(graph, kept)
    check = sc.verify(model, plan, example)
    assert check.exact, str(check)
    return sc.cut(model, plan)


def test_a_module_that_fx_wrote_is_cut_like_any_other() -> None:
    torch.manual_seed(0)
    dense, x = symbolic_trace(Two()), torch.randn(2, 4)
    before = dense(x)
    small = require_exact(dense, x, {"a": [0, 2, 3]})
    assert isinstance(small, GraphModule)
    assert torch.equal(copy.deepcopy(small)(x), small(x))
    # Each has code of its own.
    for node in small.graph.nodes:
        if node.target == "relu":
            node.target = "sigmoid"
    small.recompile()
    assert torch.equal(dense(x), before)


def test_features_that_torchvision_takes_out_of_a_network() -> None:
    taken = create_feature_extractor(resnet18(), {"layer1": "low", "layer2": "high"})
    graph = sc.trace(taken, torch.randn(1, 3, 32, 32))
    kept = {name: list(range(0, width, 2)) for name, width in graph.widths.items()}
    assert len(kept) == 4
    assert sc.verify(taken, make_plan(graph, kept), torch.randn(1, 3, 32, 32)).exact


def test_an_exported_program_is_refused() -> None:
    exported = torch.export.export(Two().eval(), (torch.randn(2, 4),)).module()
    with pytest.raises(InputError, match="an exported program: it: use the module that it was made from"):
        sc.trace(exported, torch.randn(2, 4))


class Mapped(Two):
    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(super().forward)(x)


class Chooses(Two):
    def between(self, y: Tensor) -> Tensor:
        return torch.cond(y.sum() > 0, torch.sin, torch.cos, (y,))


class Image(Tensor):
    """A tensor with a name of its own, as libraries for images hand them over."""


@pytest.mark.parametrize("kind", [Mapped, Chooses])
def test_code_that_is_handed_to_pytorch(kind: type[Two]) -> None:
    torch.manual_seed(0)
    require_exact(kind().eval(), torch.randn(2, 4), {"a": [0, 2, 3]})


class FlexAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.heads = 4

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 32) to the same."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.out(flex_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.filterwarnings("ignore")
def test_heads_of_an_attention_that_pytorch_would_compile() -> None:
    torch.manual_seed(0)
    small = require_exact(FlexAttention().eval(), torch.randn(1, 16, 32), {"q": [0, 3]})
    assert small.heads == 2


def test_an_operation_that_keeps_its_steps_to_itself_is_named() -> None:
    class Closed(HigherOrderOperator):
        def __init__(self) -> None:
            super().__init__("secateur_tests_closed")
            self.fallthrough(DispatchKey.AutogradCPU)

        def __call__(self, function: Any, x: Tensor) -> Tensor:
            return super().__call__(function, x)

    closed = Closed()

    class Asks(Two):
        def between(self, y: Tensor) -> Tensor:
            return closed(torch.sin, y)

    with pytest.raises(InputError, match="nothing is known of what secateur_tests_closed does"):
        sc.trace(Asks(), torch.randn(2, 4))


def test_inputs_of_a_class_of_their_own() -> None:
    torch.manual_seed(0)
    require_exact(Two(), torch.randn(2, 4).as_subclass(Image), {"a": [0, 2, 3]})


@dataclasses.dataclass
class Batch:
    """What loaders give: tensors by name, and a place where a model keeps what it has seen."""

    x: Tensor
    seen: list[Tensor] = dataclasses.field(default_factory=list)


class TakesBatch(Two):
    def forward(self, batch: Batch) -> Tensor:
        batch.seen.append(batch.x)
        batch.x = super().forward(batch.x)
        return batch.x * len(batch.seen)


def test_an_object_that_holds_the_inputs_is_given_anew_each_time() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4)
    batch = Batch(x)
    require_exact(TakesBatch(), (batch,), {"a": [0, 2, 3]})
    assert batch.x is x
    assert not batch.seen


class Keeps:
    """Keeps what a layer gave last, by a hook."""

    def __init__(self, layer: nn.Module) -> None:
        self.handle, self.stored = layer.register_forward_hook(self.store), None

    def store(self, layer: nn.Module, args: tuple, output: Tensor) -> None:
        self.stored = output


class ReadsWhatHooksKept(Two):
    """The skip connection of a network is what a hook kept, as fastai writes a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.c = Keeps(self.a), nn.Linear(8, 8)

    def between(self, y: Tensor) -> Tensor:
        y = self.c(y.relu())
        assert self.kept.stored is not None
        return y + self.kept.stored


def test_hooks_of_a_copy_belong_to_the_copy() -> None:
    torch.manual_seed(0)
    dense, x = ReadsWhatHooksKept(), torch.randn(2, 4)
    # What is kept now has a gradient.
    before = dense(x)
    small = require_exact(dense, x, {"a": [0, 2, 3]})
    assert dense.kept.stored is not small.kept.stored
    kept = dense.kept.stored
    again = copy.deepcopy(small.eval())
    assert torch.equal(again(x), small(x))
    assert dense.kept.stored is kept
    small.kept.handle.remove()
    assert not small.a._forward_hooks
    assert torch.equal(dense(x), before)
    assert len(dense.a._forward_hooks) == len(again.a._forward_hooks) == 1


class Watched(nn.Module):
    """What layers of a network give, taken by hooks, in each of the ways that one finds in tutorials."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        self.how, self.last = how, torch.empty(0)
        self.seen: dict[str, Tensor] = {}
        self.known = {"2": torch.empty(0)}
        self.items = items = []
        hooks = {
            "method": self.keep,
            "function that a method makes": self.keeper("2"),
            "attribute": lambda layer, given, out: setattr(self, "last", out),
            "list": lambda layer, given, out: items.append(out),
            "reference": self.referring(weakref.ref(self)),
        }
        self.body[2].register_forward_hook(hooks[how])

    def keep(self, layer: nn.Module, given: Any, out: Tensor) -> None:
        """A hook that is a method."""
        self.known["2"] = out

    def keeper(self, name: str) -> Any:
        """A hook that is a function with a name of its own for what it fills."""

        def keep(layer: nn.Module, given: Any, out: Tensor) -> None:
            self.seen[name] = out

        return keep

    def referring(self, me: Any) -> Any:
        """A hook that keeps nobody alive."""
        return lambda layer, given, out: me().keep(layer, given, out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 4) to (batch, 6)."""
        self.items.clear()
        self.body(x)
        if self.how == "attribute":
            return self.last
        return self.items[0] if self.how == "list" else {**self.known, **self.seen}["2"]


WATCHES = ["method", "function that a method makes", "attribute", "list", "reference"]


@pytest.mark.parametrize("how", WATCHES)
@pytest.mark.parametrize("ran", [False, True])
def test_what_hooks_take_out_of_a_network(how: str, ran: bool) -> None:
    torch.manual_seed(0)
    model, example = Watched(how), torch.randn(2, 4)
    if ran:
        model(example)
    before = [t for held in (model.known, model.seen) for t in held.values()]
    # What comes behind the layer that is watched reaches nothing, so it may be cut or not.
    graph = sc.trace(model, example)
    assert graph.widths["body.0"] == 8
    assert graph["body.2"].reason == "reaches the model's output"
    plan = make_plan(graph, {"body.0": [1, 5]})
    assert sc.verify(model, plan, example).exact
    small = sc.cut(model, plan)
    assert not small(example).equal(model(example))
    assert small.body[2].weight.shape == (6, 2)
    after = [t for held in (model.known, model.seen) for t in held.values()]
    assert not any(t.is_meta or t.dtype == torch.float64 for t in (*before, *after))


def test_functions_that_refer_to_other_things_are_shared() -> None:
    taken: list[Tensor] = []
    model = Two()
    model.between = lambda y: y.relu()
    model.scale = (lambda: (factor := 2.0) and (lambda y: y * factor))()

    def later() -> Any:
        def hook(layer: nn.Module, given: Any, out: Tensor) -> None:
            taken.append(out)
            again(layer)

        def again(layer: nn.Module) -> Any:
            return hook if layer is None else None

        return hook

    hook = later()
    model.a.register_forward_hook(hook)
    small = require_exact(model, torch.randn(2, 4), {"a": [0, 3]})
    assert small.between is model.between
    assert small.scale is model.scale
    taken.clear()
    small(torch.randn(2, 4))
    assert [t.shape for t in taken] == [(2, 2)]


def test_nested_tensors_are_named() -> None:
    class Nests(Two):
        def forward(self, x: Tensor) -> Tensor:
            ragged = torch.nested.nested_tensor([x[0, :2], x[1]], layout=torch.jagged)
            return super().forward(ragged).values()

    with pytest.raises(InputError, match=r"nested tensors have no shape to follow \[test_habits.py"):
        sc.trace(Nests(), torch.randn(2, 5, 4))


def test_a_model_that_does_not_run_in_double_is_not_called_exact() -> None:
    class OnlySingle(Two):
        def between(self, y: Tensor) -> Tensor:
            scale, zero = torch.tensor([0.1]), torch.tensor([0], dtype=torch.int32)
            return y + 0 * torch.fake_quantize_per_channel_affine(y.new_ones(1, 4), scale, zero, 0, 0, 255).sum()

    model, x = OnlySingle().eval(), torch.randn(2, 4)
    plan = make_plan(sc.trace(model, x), {"a": [0, 2, 3]})
    with pytest.raises(VerifyError, match="does not run in float64, so nothing is proven: RuntimeError: "):
        sc.verify(model, plan, x)


class OverAGraph(Two):
    def forward(self, edges: Tensor, x: Tensor) -> Tensor:
        """A sparse matrix (nodes, nodes), and (nodes, 4), to (nodes, 3)."""
        return self.b(torch.sparse.mm(edges, self.a(x)).relu())


class PairsOfActivations(Two):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Linear(4, 40)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        made = self.c(x).sum(0).view(5, 8, 1).expand(5, 8, 8)
        return self.b(y + nn.functional.bilinear(y, y, made).sum(-1, keepdim=True))


def test_a_sparse_matrix_among_the_inputs() -> None:
    torch.manual_seed(0)
    edges = (torch.rand(5, 5) > 0.5).float().to_sparse()
    require_exact(OverAGraph(), (edges, torch.randn(5, 4)), {"a": [0, 2, 3]})


def test_products_of_three_activations_lock_them() -> None:
    torch.manual_seed(0)
    model, x = PairsOfActivations(), torch.randn(2, 4)
    graph = sc.trace(model, x)
    assert "multiplied by two activations" in graph["a"].reason
    assert sc.verify(model, make_plan(graph, {name: [0] for name in graph.widths}), x).exact


class Wrapped(Two):
    """Its second layer is applied with a parameter that the forward makes of a weight, or with a copy of itself."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.c, self.how = nn.Linear(8, 6), how
        self.b = nn.Linear(6, 3)

    def between(self, y: Tensor) -> Tensor:
        if self.how == "parameter":
            return nn.functional.linear(y, nn.Parameter(self.c.weight), self.c.bias).relu()
        if self.how == "transposed":
            return nn.functional.linear(y, nn.Parameter(self.c.weight.T).T, self.c.bias).relu()
        return copy.deepcopy(self.c)(y).relu()


@pytest.mark.parametrize("how", ["parameter", "transposed", "copied"])
def test_parameters_that_a_forward_makes_of_others(how: str) -> None:
    torch.manual_seed(0)
    model, make = Wrapped(how), vars(nn.Parameter)["__new__"]
    small = require_exact(model, torch.randn(2, 4), {"a": [0, 4, 7], "c": [1, 2]})
    assert small.c.weight.shape == (2, 3)
    assert vars(nn.Parameter)["__new__"] is make


class Identity(Two):
    """Multiplies by an identity matrix as large as something says."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = size

    def between(self, y: Tensor) -> Tensor:
        return y @ torch.eye(self.size if isinstance(self.size, int) else self.size(self, y))


@pytest.mark.parametrize("size", [8, lambda model, y: y.shape[-1], lambda model, y: model.b.in_features])
def test_identity_matrices_follow_what_they_meet(size: Any) -> None:
    torch.manual_seed(0)
    require_exact(Identity(size), torch.randn(2, 4), {"a": [0, 3, 5]})


def test_an_identity_matrix_whose_size_stands_in_the_code_holds_it() -> None:
    graph = sc.trace(Identity(lambda model, y: 8), torch.randn(2, 4))
    assert not graph.widths
    assert "does not follow a cut: eye" in graph["a"].reason


def test_other_matrices_of_zeros_and_ones_hold_what_they_meet() -> None:
    class Padding(Two):
        def between(self, y: Tensor) -> Tensor:
            return y @ torch.eye(8, 9)[:, :8] + torch.diag_embed(y.new_ones(7), offset=1)[0]

    assert not sc.trace(Padding(), torch.randn(2, 4)).widths


def test_a_diagonal_beside_the_middle_holds_its_units() -> None:
    class Shifted(Two):
        def between(self, y: Tensor) -> Tensor:
            return torch.diag_embed(y, offset=1).sum(-1)[:, 1:] + y

    graph = sc.trace(Shifted(), torch.randn(2, 4))
    assert "made a diagonal" in graph["a"].reason
