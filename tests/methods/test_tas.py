"""Transformable architecture search: the controller, the two halves, and searches from end to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur import models
from secateur._errors import BudgetError, UsageError
from secateur.budget import Goal
from secateur.gates.architecture import Choice
from secateur.gates.width import Pair, parse_ratios
from secateur.methods import configure
from secateur.methods.tas import TAS
from secateur.methods.tas_landing import Target, landed, moved
from secateur.methods.tas_search import Search, temperature_at
from secateur.testing import check_method
from secateur.testing.contract import Plain
from secateur.training import TrainConfig
from secateur.workbench import Bench, set_up

X = torch.zeros(1, 1, 8, 8)
CONFIG = TrainConfig(epochs=1, lr=0.05, batch_size=32)
SHORT: dict[str, Any] = {"epochs": 4, "lr": 0.05, "arch_lr": 0.05}


def searching(macs: float = 0.5, epochs: int = 4, **options: Any) -> Search:
    model = models.build("digits-resnet")
    graph = sc.trace(model, X)
    law = TAS(**options).law_towards(graph, Goal(sc.Budget(macs=macs), round_to=1), epochs)
    torch.manual_seed(3)
    law._begin()
    return law


@pytest.fixture(scope="module")
def bench() -> Bench:
    return set_up("digits-resnet", "digits", limit=256, limit_test=100, batch_size=32)


def searched(bench: Bench, macs: float = 0.5, seed: int = 0, **more: Any) -> sc.Result:
    options = {**SHORT, **more.pop("options", {})}
    given = {
        "budget": sc.Budget(macs=macs),
        "train_data": bench.train,
        "config": replace(CONFIG, seed=seed),
        "round_to": 1,
        "latency_runs": 0,
        "progress": False,
        "seed": seed,
    }
    return sc.prune(bench.model, bench.example, method="tas", options=options, **{**given, **more})


def test_it_keeps_the_contract_of_a_method():
    check_method(TAS)


# -- the controller ---------------------------------------------------------------------------------------------------


def test_the_sign_comes_from_the_actual_cost_and_the_gradient_from_the_expected_one():
    target = Target(searching().target.costs, 1000.0, 0.05)
    expected = torch.tensor(700.0, requires_grad=True)
    for actual, side in ((1051, 1), (1049, 0), (951, 0), (949, -1)):
        loss = target.loss(expected, actual)
        assert float(loss.detach()) == pytest.approx(side * float(expected.detach().log()))
        (gradient,) = torch.autograd.grad(loss, expected)
        assert float(gradient) == pytest.approx(side / 700.0), "whatever side the expected cost is on"


def test_the_loss_reaches_two_candidates_and_the_cost_all_of_them():
    law = searching()
    model = law.net.model.double().train()
    x, y = torch.randn(8, 1, 8, 8, dtype=torch.float64), torch.randint(10, (8,))
    law.net.draw = law.draw()
    model(x)
    draw = law.draw()
    law.net.draw = draw
    (of_loss,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), law.widths, retain_graph=True)
    for row, pair in zip(of_loss, draw.pairs.values()):
        two = [pair.low, pair.high]
        rest = [k for k in range(len(row)) if k not in two]
        assert float(row[two].abs().min()) > 0
        assert float(row[rest].abs().max()) < 1e-5 * float(row[two].abs().max())
    of_cost, of_depth = torch.autograd.grad(
        law.target.loss(law.target.costs.expected(*law.chances()), 1e12), [law.widths, law.depths]
    )
    assert bool((of_cost != 0).all())
    assert bool((of_depth != 0).all())


def test_more_cost_pushes_the_widest_candidates_down():
    law = searching()
    loss = law.target.loss(law.target.costs.expected(*law.chances()), 1e12)
    (gradient,) = torch.autograd.grad(loss, law.widths)
    assert bool((gradient[:, -1] > 0).all())
    assert bool((gradient[:, 0] < 0).all())


def test_the_temperature_goes_along_a_cosine():
    found = [temperature_at(e, 11, 5.0, 0.1) for e in range(11)]
    assert (found[0], found[5], found[10]) == pytest.approx((5.0, 2.55, 0.1))
    assert found == sorted(found, reverse=True)


def test_the_released_settings():
    method = TAS()
    assert parse_ratios(method.ratios) == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert (method.tolerance, method.cost_weight) == (0.05, 2.0)
    assert (method.temperature, method.last_temperature) == (5.0, 0.1)
    assert TAS(epochs=600, lr=0.1).schedule() == {
        "epochs": 600, "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "schedule": "cosine",
        "compiled": False, "weight_decay": 5e-4,
    }  # fmt: skip
    law = searching()
    (group,) = law._mover.param_groups
    assert isinstance(law._mover, torch.optim.Adam)
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.5, 0.999), 1e-3)
    begun = torch.cat([law.widths.detach().flatten(), law.depths.detach().flatten()])
    assert 0.005 < float(begun.std()) < 0.015, "logits begin near none at all"


def test_an_architecture_outside_the_band_is_moved_into_it_by_its_likeliest_neighbours():
    law = searching(0.4)
    with torch.no_grad():
        law.widths[:, -1] += 5
        law.depths[:, -1] += 5
        law.widths[3, -2] += 4.9
    costs = law.target.costs
    assert law.target.side(costs.actual(law.choice())) == 1
    found, how = landed(law.target, law.choice(), law.history, law.logits())
    assert law.target.side(costs.actual(found)) == 0
    assert "no epoch's was within the band" in how
    assert found.widths[3] < 7, "where another candidate is nearly as likely"


def test_an_earlier_architecture_in_the_band_comes_before_that():
    law = searching(0.4)
    fits = moved(law.target, law.choice(), law.logits())[0]
    cost = law.target.costs.actual(fits)
    law.history = [{"epoch": 7, "actual": cost, "choice": [list(fits.widths), list(fits.depths)]}]
    with torch.no_grad():
        law.widths[:, -1] += 5
        law.depths[:, -1] += 5
    found, how = landed(law.target, law.choice(), law.history, law.logits())
    assert found == fits
    assert "epoch 7" in how


# -- searches ---------------------------------------------------------------------------------------------------------


def test_logits_and_weights_learn_on_different_images(bench: Bench):
    law = searching()
    first: Any = law.data(bench.train)
    other: Any = law._other
    mine = {image.numpy().tobytes() for image in first.split.images}
    theirs = {image.numpy().tobytes() for image in other.split.images}
    assert not mine & theirs
    assert len(first.split) + len(other.split) == 256


def test_a_step_of_the_logits_moves_no_weight_and_the_other_way_round():
    law = searching()
    model = law.net.model.train()
    x, y = torch.randn(8, 1, 8, 8), torch.randint(10, (8,))
    law._batches = iter([(x, y)])
    law._draw_for_weights()
    assert all(pair.weights is None or not pair.weights.requires_grad for pair in law.net.draw.pairs.values())
    model(x)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    widths = law.widths.detach().clone()
    law.after_step(model)
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert not torch.equal(law.widths, widths)
    assert all(p.grad is None for p in model.parameters())
    assert all(isinstance(p, Pair) and p.low < p.high for p in law.net.draw.pairs.values())


def test_two_budgets_land_in_their_own_bands_and_differ(bench: Bench):
    lists, late = [], []
    for macs in (0.3, 0.9):
        result = searched(bench, macs)
        achieved = result.card.pruned.macs / result.card.dense.macs
        assert 0.95 * macs <= achieved <= 1.05 * macs
        assert result.check.exact
        assert sc.trace(result.model, bench.example).cost().macs == result.card.pruned.macs, "counted once more"
        record = result.card.extra["search"]
        assert record["low"] <= record["found"] == result.card.pruned.macs <= record["high"]
        shares = {n: round(w / result.graph[n].width, 2) for n, w in result.plan.widths.items()}
        assert len(set(shares.values())) > 1, f"the widths are uniform: {shares}"
        lists.append(result.plan.widths)
        late.append([point["actual"] for point in record["history"][-2:]])
    assert lists[0] != lists[1]
    assert max(late[0]) < min(late[1]), "the logits themselves went where the budget is"


def test_the_same_seed_finds_the_same_and_another_one_not(bench: Bench):
    first, again, other = (searched(bench, seed=s).card.extra["search"] for s in (0, 0, 1))
    assert first == again
    assert first["history"] != other["history"]


def test_what_is_found_is_trained_with_the_dense_network_as_teacher(bench: Bench):
    result = searched(bench, recover="scratch-e", options={"epochs": 1})
    assert result.card.recovery is not None
    said = result.card.recovery.settings
    assert (said["teacher"], said["teacher_share"], said["teacher_temperature"]) == ("dense", 0.9, 4.0)
    alone = searched(bench, recover="scratch-e", options={"epochs": 1}, teacher="none")
    assert alone.card.recovery is not None
    assert "teacher" not in alone.card.recovery.settings
    assert alone.plan.widths == result.plan.widths


def test_a_broken_search_goes_on_to_the_same_end(bench: Bench, tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    whole = searched(bench).card.extra["search"]

    def stop(self: Search, model: nn.Module, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    original = Search.on_epoch_start
    monkeypatch.setattr(Search, "on_epoch_start", lambda *a: (stop(*a), original(*a))[1])
    with pytest.raises(KeyboardInterrupt):
        searched(bench, out=tmp_path)
    monkeypatch.setattr(Search, "on_epoch_start", original)
    assert searched(bench, out=tmp_path).card.extra["search"] == whole


def test_depths_alone_leave_widths_whole(bench: Bench):
    result = searched(bench, 0.7, options={"search": "depths", "tolerance": 0.2, "epochs": 2})
    assert result.plan.skips
    assert all(width == result.graph[name].width for name, width in result.plan.widths.items())
    gone = [g for g in result.card.groups if g.reason == "its block is left out"]
    assert gone
    assert all(g.kept == 0 and not g.locked for g in gone)
    assert result.card.extra["search"]["left_out"] == [], "no width was searched"


def test_widths_in_blocks_that_are_left_out_are_named():
    costs = searching().target.costs
    space = costs.space
    assert costs.left_out(space.most) == ()
    assert costs.left_out(replace(space.most, depths=(0, 1, 1))) == ("layer1.1.conv1",)


def test_a_plain_network_is_searched_by_widths_only_and_the_card_says_so():
    data = [(torch.randn(8, 3, 8, 8), torch.randint(5, (8,))) for _ in range(4)]
    result = sc.prune(
        Plain().eval(), torch.randn(1, 3, 8, 8), method="tas", options={"epochs": 2}, budget=sc.Budget(params=0.6),
        train_data=data, config=CONFIG, round_to=1, latency_runs=0, progress=False,
    )  # fmt: skip
    assert any("widths only" in note for note in result.card.notes)
    assert 0.57 <= result.card.pruned.params / result.card.dense.params <= 0.63


def test_finish_leaves_the_batch_norms_of_the_choice():
    law = searching()
    norm: Any = law.net.model.bn1
    with torch.no_grad():
        norm.weight.copy_(torch.arange(8.0)[:, None].expand(8, 32))
    law.found = Choice((4,) * 9, (0,) * 3)
    law.net.settle(law.found)
    assert norm.weight.tolist() == [4.0] * 32


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_budget_out_of_the_candidates_reach_names_floor_and_ceiling():
    graph = sc.trace(models.build("digits-resnet"), X)
    with pytest.raises(BudgetError) as caught:
        TAS().feasible(graph, Goal(sc.Budget(macs=0.02), round_to=1))
    said = str(caught.value)
    assert "out of the candidates' reach" in said
    assert "the floor" in said
    assert "6,573,312 (100.0%), the ceiling" in said
    assert "smaller ratios" in said
    with pytest.raises(BudgetError, match="larger ratios"):
        TAS(ratios="0.3,0.5").feasible(graph, Goal(sc.Budget(macs=0.9), round_to=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratios": "0.5,0.5,1"}, "0.5 is there twice"),
        ({"ratios": "0.5,1.5"}, "1.5 is out of"),
        ({"ratios": "0,1"}, "0 is out of"),
        ({"search": "heights"}, "search='heights' is not known"),
        ({"start": "warm"}, "start='warm' is not known"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"temperature": -1.0, "arch_lr": 0.0}, "arch_lr=0.0"),
    ],
)
def test_options_that_do_not_work(options: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        configure(TAS, options)


def test_a_network_without_anything_to_search():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UsageError, match="nothing to search") as caught:
        sc.prune(model, X, method="tas", budget=sc.Budget(macs=0.5), train_data=[(X, torch.zeros(1))])
    assert "no group can be cut" in str(caught.value)
    assert "no residual stack" in str(caught.value)


def test_presets_and_uniform_widths_are_refused():
    graph = sc.trace(models.build("digits-resnet"), X)
    with pytest.raises(UsageError, match="no preset"):
        TAS().feasible(graph, Goal(preset="resnet56-A"))
    with pytest.raises(UsageError, match="leave uniform out"):
        TAS().feasible(graph, Goal(sc.Budget(macs=0.5), uniform=True))


def test_one_image_cannot_be_split():
    with pytest.raises(UsageError, match="two halves"):
        searching().data([(X, torch.zeros(1, dtype=torch.int64))])
