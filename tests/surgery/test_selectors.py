"""Networks with channel selectors live on: saved, loaded, trained, copied, exported."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur._errors import PlanError, WeightsError
from secateur.graph import selectors_of
from secateur.models import build
from secateur.surgery import Plan
from secateur.training import reinitialise

NAME, SOURCE = "cifar-preresnet20", {"name": "cifar-preresnet20"}
IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    model = build(NAME).eval()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.2, 1.5)
                m.bias.normal_()
    return model


@pytest.fixture(scope="module")
def plan(dense: nn.Module) -> Plan:
    graph = sc.trace(sc.select_channels(dense, IMAGE), IMAGE)
    made = sc.plan(graph, sc.score(graph, "bn_scale"), sc.Budget(macs=0.4), round_to=1, ranking="raw", protect=["bn"])
    assert made.widths["layer2.1.bn1"] < 128
    return made


@pytest.fixture
def small(dense: nn.Module, plan: Plan) -> nn.Module:
    return sc.cut(dense, plan)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_plan_puts_the_selectors_where_it_needs_them(dense: nn.Module, plan: Plan, small: nn.Module, x: Tensor):
    """A plan made of the network with selectors is about the plain one as well."""
    fitted = sc.select_channels(dense, IMAGE)
    assert torch.equal(sc.cut(fitted, plan)(x), small(x))
    assert sc.verify(dense, plan, x).exact
    assert not selectors_of(dense)
    assert selectors_of(fitted).keys() == set(plan.selectors)
    # A mask is the full-size network in which nothing that was removed counts.
    assert torch.allclose(sc.mask(dense, plan)(x), small(x), atol=1e-5)
    assert set(selectors_of(small)) == set(plan.selectors) - {"bn"}


@pytest.mark.parametrize("given", [True, False], ids=["a fresh model", "by name"])
def test_saved_and_loaded(small: nn.Module, plan: Plan, x: Tensor, tmp_path: Path, given: bool):
    with torch.no_grad():
        small.get_parameter("linear.weight").mul_(2)
    sc.save(small, tmp_path, source=SOURCE)
    assert json.loads((tmp_path / "plan.json").read_text())["plan"]["selectors"] == list(plan.selectors)
    again = sc.load(tmp_path, model=build(NAME) if given else None)
    assert torch.equal(again(x), small(x))
    assert again.state_dict().keys() == small.state_dict().keys()
    # And once more, from what was loaded.
    sc.save(again, tmp_path / "again", source=SOURCE)
    assert torch.equal(sc.load(tmp_path / "again")(x), small(x))


def test_the_wrong_model_is_refused(small: nn.Module, plan: Plan, tmp_path: Path):
    sc.save(small, tmp_path)
    with pytest.raises(PlanError, match="another model"):
        sc.load(tmp_path, model=build("cifar-preresnet56"))
    with pytest.raises(PlanError, match="another model"):
        sc.load(tmp_path, model=build("cifar-vgg16"))
    with pytest.raises(PlanError, match="cut already"):
        sc.cut(small, plan)


def test_plans_of_before_know_of_no_selectors(dense: nn.Module):
    graph = sc.trace(dense, IMAGE)
    made = sc.plan(graph, sc.score(graph, "l1"), sc.Budget(macs=0.5))
    data = json.loads(made.to_json())
    assert data.pop("selectors") == []
    assert Plan.from_json(json.dumps(data)) == made


def test_indices_come_with_the_weights(small: nn.Module, dense: nn.Module, plan: Plan):
    state = small.state_dict()
    for path, selector in selectors_of(small).items():
        assert torch.equal(state[f"{path}.selector.indices"], selector.indices)
        assert (selector.indices.diff() > 0).all()
    other = sc.cut(dense, plan)
    other.load_state_dict(state)
    del state["layer2.1.bn1.selector.indices"]
    with pytest.raises(RuntimeError, match=r"layer2\.1\.bn1\.selector\.indices"):
        other.load_state_dict(state)


def test_weights_of_another_width_are_refused(small: nn.Module, tmp_path: Path):
    small.get_submodule("layer2.1.bn1").register_buffer("stranger", torch.zeros(1))
    sc.save(small, tmp_path, source=SOURCE)
    with pytest.raises(WeightsError, match="stranger"):
        sc.load(tmp_path)


def test_copies_have_selectors_of_their_own(small: nn.Module, x: Tensor):
    want = small(x)
    for copied in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(copied(x), want)
        selectors_of(copied)["layer2.1.bn1"].indices.fill_(0)
        assert not torch.equal(copied(x), want)
        assert torch.equal(small(x), want)


def test_training_moves_everything_but_the_indices(small: nn.Module, x: Tensor):
    small.train()
    before = copy.deepcopy(small.state_dict())
    optimiser = torch.optim.SGD(small.parameters(), lr=0.1)
    small(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
    optimiser.step()
    after = small.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == name.endswith("selector.indices"), name


def test_a_scratch_start_keeps_the_indices(small: nn.Module):
    before = {p: s.indices.clone() for p, s in selectors_of(small).items()}
    weight = small.get_parameter("layer2.1.conv1.weight").clone()
    reinitialise(small, 3)
    assert all(torch.equal(s.indices, before[p]) for p, s in selectors_of(small).items())
    assert not torch.equal(small.get_parameter("layer2.1.conv1.weight"), weight)


def test_a_cut_network_is_traced_and_cut_again(small: nn.Module, x: Tensor):
    graph = sc.trace(small, IMAGE)
    again = sc.plan(graph, sc.score(graph, "bn_scale"), sc.Budget(macs=0.6), round_to=1, ranking="raw", protect=["bn"])
    assert sc.verify(small, again, x).exact
    smaller = sc.cut(small, again)
    for path, selector in selectors_of(smaller).items():
        kept = selectors_of(small)[path].indices if path in selectors_of(small) else None
        assert kept is None or set(selector.indices.tolist()) <= set(kept.tolist())
    assert sc.trace(smaller, IMAGE).cost().macs == again.why["macs"] <= 0.6 * graph.cost().macs


def test_exported(small: nn.Module, x: Tensor):
    exported = torch.export.export(small, (x,)).module()
    assert torch.allclose(exported(x), small(x), atol=1e-5)
