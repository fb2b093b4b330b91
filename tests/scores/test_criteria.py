"""Every criterion against a computation by hand, and what bad requests get."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur._errors import UnknownName, UsageError
from secateur.scores import CRITERIA

WITHOUT_DATA = ("l1", "l2", "fpgm", "random")


def tiny() -> Any:
    """Two widths: three hidden units with a batch norm, two without."""
    torch.manual_seed(4)
    model: Any = nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 1.0], [-2.0, 2.0]]))
        model[1].weight.copy_(torch.tensor([0.5, -3.0, 1.0]))
        model[3].weight.copy_(torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, -6.0]]))
    return model


def convolutions() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


class Summed(nn.Module):
    """Two layers that produce the same units."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.a(x) + self.b(x)).relu())


def scores_of(model: nn.Module, criterion: str, example: Tensor | None = None, **more) -> dict[str, Tensor]:
    return sc.score(sc.trace(model, torch.randn(1, 2) if example is None else example), criterion, **more)


def test_l1_by_hand():
    found = scores_of(tiny(), "l1")
    assert {name: v.tolist() for name, v in found.items()} == {"0": [7.0, 1.0, 4.0], "3": [5.0, 6.0]}


def test_l2_by_hand():
    found = scores_of(tiny(), "l2")
    torch.testing.assert_close(found["0"], torch.tensor([5.0, 1.0, 8.0**0.5]).double())
    torch.testing.assert_close(found["3"], torch.tensor([3.0, 6.0]).double())


def test_fpgm_by_hand():
    # Of (3, -4), (0, 1) and (-2, 2): the distances are sqrt(34), sqrt(61) and sqrt(5).
    found = scores_of(tiny(), "fpgm")
    want = torch.tensor([34**0.5 + 61**0.5, 34**0.5 + 5**0.5, 61**0.5 + 5**0.5]).double()
    torch.testing.assert_close(found["0"], want)
    torch.testing.assert_close(found["3"], torch.full((2,), (1 + 4 + 64) ** 0.5).double())


def test_norms_of_convolutions_are_over_whole_filters():
    model = convolutions()
    graph = sc.trace(model, torch.randn(1, 3, 8, 8))
    for position, name in ((0, "0"), (3, "3")):
        filters = model[position].weight.detach().double()
        torch.testing.assert_close(sc.score(graph, "l1")[name], filters.abs().sum((1, 2, 3)))
        torch.testing.assert_close(sc.score(graph, "l2")[name], filters.square().sum((1, 2, 3)).sqrt())


def test_norms_of_filters_that_lie_along_the_second_axis():
    # More weights than are looked at in one go.
    model = nn.Sequential(
        nn.Conv2d(3, 128, 1), nn.ReLU(), nn.ConvTranspose2d(128, 96, 4), nn.ReLU(), nn.Conv2d(96, 2, 1)
    )
    filters = model[2].weight.detach().double()
    graph = sc.trace(model, torch.randn(1, 3, 4, 4))
    torch.testing.assert_close(sc.score(graph, "l1")["2"], filters.abs().sum((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(sc.score(graph, "l2")["2"], filters.square().sum((0, 2, 3)).sqrt(), rtol=1e-12, atol=0)


def test_norms_of_layers_that_produce_the_same_unit_are_added():
    model = Summed()
    found = scores_of(model, "l1", torch.randn(1, 3))
    want = model.a.weight.abs().sum(1) + model.b.weight.abs().sum(1)
    torch.testing.assert_close(found["a"], want.detach().double())


def test_bn_scale_is_the_absolute_scale():
    model = convolutions()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, -3.0, 1.0, 0.0, 2.0, -0.25]))
    found = scores_of(model, "bn_scale", torch.randn(1, 3, 8, 8))
    assert found["0"].tolist() == [0.5, 3.0, 1.0, 0.0, 2.0, 0.25]
    assert found["3"].tolist() == [1.0] * 4


def test_bn_scale_of_several_norms_is_the_largest():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.na, self.nb, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.na(self.a(x)) + self.nb(self.b(x))).relu())

    model = Net()
    with torch.no_grad():
        model.na.weight.copy_(torch.tensor([1.0, -5.0, 0.0, 2.0]))
        model.nb.weight.copy_(torch.tensor([-3.0, 1.0, 0.5, 2.0]))
    assert scores_of(model, "bn_scale", torch.randn(1, 3, 4, 4))["a"].tolist() == [3.0, 5.0, 0.5, 2.0]


def test_bn_scale_without_a_norm_names_the_groups_and_a_way_out():
    with pytest.raises(UsageError) as caught:
        scores_of(tiny(), "bn_scale")
    message = str(caught.value)
    assert "1 have none: 3\n" in message
    assert "l1" in message


def by_hand(model: nn.Module, batches: list[tuple[Tensor, Tensor]], members: list[tuple[nn.Parameter, int]]) -> Tensor:
    """Molchanov 2019, equation 8, with plain autograd."""
    model = model.eval()
    total = torch.zeros(members[0][0].shape[members[0][1]], dtype=torch.float64)
    for x, y in batches:
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), [p for p, _ in members])
        sums = torch.zeros_like(total)
        for (p, axis), g in zip(members, grads):
            sums += (p.detach() * g).movedim(axis, 0).flatten(1).double().sum(1) if p.dim() > 1 else (p.detach() * g)
        total += sums.square()
    return total / len(batches)


def test_taylor_against_autograd():
    model = convolutions()
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(6, 3, 8, 8, generator=generator), torch.randint(5, (6,), generator=generator)) for _ in range(3)
    ]
    twin = copy.deepcopy(model)
    want = by_hand(twin, batches, [(twin[0].weight, 0), (twin[1].weight, 0), (twin[1].bias, 0)])
    found = scores_of(model, "taylor", torch.randn(1, 3, 8, 8), data=batches)
    torch.testing.assert_close(found["0"], want, rtol=1e-5, atol=1e-12)
    twin = copy.deepcopy(model)
    members = [(twin[3].weight, 0), (twin[3].bias, 0), (twin[4].weight, 0), (twin[4].bias, 0)]
    torch.testing.assert_close(found["3"], by_hand(twin, batches, members), rtol=1e-5, atol=1e-12)
    two = scores_of(model, "taylor", torch.randn(1, 3, 8, 8), data=batches, batches=2)
    twin = copy.deepcopy(model)
    want = by_hand(twin, batches[:2], [(twin[0].weight, 0), (twin[1].weight, 0), (twin[1].bias, 0)])
    torch.testing.assert_close(two["0"], want, rtol=1e-5, atol=1e-12)


def test_taylor_takes_any_loss():
    model, x, y = tiny(), torch.randn(5, 2), torch.randn(5, 2)
    found = scores_of(model, "taylor", data=[(x, y)], loss=F.mse_loss)
    twin = tiny().eval()
    members = (twin[0].weight, twin[0].bias, twin[1].weight, twin[1].bias)
    grads = torch.autograd.grad(F.mse_loss(twin(x), y), members)
    want = sum((p.detach() * g).reshape(3, -1).sum(1) for p, g in zip(members, grads))
    assert isinstance(want, Tensor)
    torch.testing.assert_close(found["0"], want.square().double(), rtol=1e-5, atol=1e-12)


def test_taylor_leaves_gradients_modes_and_statistics_as_they_were():
    model = convolutions()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    model[8].weight.grad = torch.ones_like(model[8].weight)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    batches = [(torch.randn(4, 3, 8, 8), torch.randint(5, (4,)))]
    graph = sc.trace(model, batches[0][0])
    with torch.no_grad():
        found = sc.score(graph, "taylor", data=batches)
    assert float(found["0"].sum()) > 0
    assert [m.training for m in model] == [True] * 4 + [False] + [True] * 4
    assert not model[0].weight.requires_grad
    assert all(p.requires_grad for name, p in model.named_parameters() if name != "0.weight")
    assert torch.equal(model[8].weight.grad, torch.ones_like(model[8].weight))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "8.weight")
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_taylor_restores_them_after_a_failure_too():
    model = convolutions()
    model[0].weight.requires_grad_(False)
    graph = sc.trace(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(IndexError):
        sc.score(graph, "taylor", data=[(torch.randn(4, 3, 8, 8), torch.full((4,), 99))])
    assert model.training
    assert not model[0].weight.requires_grad


def test_random_depends_on_the_seed_alone():
    graph = sc.trace(tiny(), torch.randn(1, 2))
    torch.manual_seed(1)
    first = sc.score(graph, "random", seed=5)
    torch.manual_seed(2)
    assert all(torch.equal(v, first[name]) for name, v in sc.score(graph, "random", seed=5).items())
    assert not torch.equal(sc.score(graph, "random", seed=6)["0"], first["0"])
    before = torch.random.get_rng_state()
    sc.score(graph, "random", seed=7)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", CRITERIA)
def test_shape_precision_and_the_model_untouched(name: str):
    model = convolutions()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    data = [(torch.randn(4, 3, 8, 8), torch.randint(5, (4,)))]
    graph = sc.trace(model, data[0][0])
    found = sc.score(graph, name, data=data)
    assert {k: (tuple(v.shape), v.dtype) for k, v in found.items()} == {
        "0": ((6,), torch.float64),
        "3": ((4,), torch.float64),
    }
    assert not any(v.requires_grad for v in found.values())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", [*WITHOUT_DATA, "bn_scale", "taylor"])
def test_a_model_with_nothing_to_cut_has_no_scores(name: str):
    data = [(torch.randn(2, 2), torch.randint(2, (2,)))]
    assert scores_of(nn.Linear(2, 2), name, data=data) == {}


def test_unknown_and_missing():
    graph = sc.trace(tiny(), torch.randn(1, 2))
    with pytest.raises(UnknownName, match="did you mean 'taylor'"):
        sc.score(graph, "tailor")
    with pytest.raises(UsageError, match="pass data="):
        sc.score(graph, "taylor")
    with pytest.raises(UsageError, match="no batch of data"):
        sc.score(graph, "taylor", data=[])
