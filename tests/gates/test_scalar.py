"""Scalar gates: where they sit, and that they leave nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.gates import attach_scalars
from secateur.gates.scalar import behind_norms, uncovered
from secateur.methods.gate_learning import digest
from secateur.testing.contract import Depthwise, Plain
from secateur.testing.toys import Residual

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Saturating(nn.Module):
    """With ReLU6 it shows on which side of the activation a gate sits."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 6, 3), norm(6), nn.Linear(6, 5)
        with torch.no_grad():
            for parameter in self.norm.parameters():
                parameter.uniform_(4, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.relu6(self.norm(self.conv(x))).mean((2, 3)))


def test_the_gate_is_behind_the_norm_and_before_the_activation():
    model = Saturating().train()
    graph = sc.trace(model, X)
    gates = attach_scalars(graph, graph.prunable, example=X)
    gate = gates.values["conv"]
    with torch.no_grad():
        gate.copy_(torch.linspace(0, 1, 6))
    got = model(X)
    gates.drop()
    inner = model.norm(model.conv(X))
    between = model.linear(F.relu6(gate.view(1, -1, 1, 1) * inner).mean((2, 3)))
    behind = model.linear((gate.view(1, -1, 1, 1) * F.relu6(inner)).mean((2, 3)))
    assert torch.allclose(got, between, atol=1e-5)
    assert not torch.allclose(got, behind, atol=1e-2)


@pytest.mark.parametrize("kind", [Plain, Residual, Depthwise])
def test_a_shut_gate_removes_the_unit_and_an_open_one_changes_nothing(kind: type[nn.Module]):
    model = kind().eval()
    graph = sc.trace(model, X)
    assert not uncovered(graph, graph.prunable, X)
    before, mark = model(X), digest(model)
    names = [name for name, _ in model.named_parameters()]
    gates = attach_scalars(graph, graph.prunable, example=X)
    assert torch.allclose(model(X), before, atol=1e-6)
    with torch.no_grad():
        for gate in gates.values.values():
            gate[1::2] = 0
    shut = model(X)
    gates.drop()
    assert digest(model) == mark
    assert sorted(name for name, _ in model.named_parameters()) == sorted(names)
    keep = {g.name: range(0, g.width, 2) for g in graph.prunable}
    # The masked network has norms with their own shifts at zero, too: what is shut is gone.
    from secateur.surgery import make_plan

    assert torch.allclose(shut, sc.mask(model, make_plan(graph, keep))(X), atol=1e-5)


def test_gates_are_parameters_of_the_network_while_they_are_attached_even_of_a_sequence():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    graph = sc.trace(model, X)
    gates = attach_scalars(graph, graph.prunable)
    own = [p for p in model.parameters() if any(p is gate for gate in gates.values.values())]
    assert len(own) == len(gates.values) == 1
    model(X).sum().backward()
    assert own[0].grad is not None
    gates.drop()
    assert len(list(model.parameters())) == 6


def test_a_unit_that_passes_by_its_norms_is_scaled_where_it_is_read():
    class Around(nn.Module):
        """What the first layer makes is read once behind a norm and once as it is."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
            self.a, self.b, self.linear = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.linear((self.a(self.norm(x).relu()) + self.b(x)).mean((2, 3)))

    model = Around().eval()
    graph = sc.trace(model, X)
    assert [g.name for g in graph.prunable if behind_norms(model, g)] == ["first"]
    assert uncovered(graph, graph.prunable, X) == {"first"}
    gates = attach_scalars(graph, graph.prunable, example=X)
    with torch.no_grad():
        gates.values["first"].zero_()
    expected = model.linear(model.a.bias + model.b.bias)
    assert torch.allclose(model(X), expected.expand(4, 3), atol=1e-6)


def test_a_gate_in_front_of_a_depthwise_convolution_is_divided_away_and_one_behind_its_norm_is_not():
    """The paper's placement in the mobile networks: hardly any gradient comes back to such gates."""
    sizes = {}
    for place in ("first", "every"):
        torch.manual_seed(1)
        model = Depthwise().train()
        graph = sc.trace(model, X)
        gates = attach_scalars(graph, graph.prunable, place)
        with torch.no_grad():
            gates.values["expand.0"].fill_(0.7)
        F.cross_entropy(model(X), torch.arange(4)).backward()
        sizes[place] = float(gates.values["expand.0"].grad.abs().mean())
    assert sizes["every"] > 0
    assert sizes["first"] < 1e-2 * sizes["every"]
