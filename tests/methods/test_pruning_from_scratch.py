"""Pruning from scratch: the cheap checks that a fake would fail, the objective by hand, the files, bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur import cli
from secateur._errors import BudgetError, FileError, TrainingError, UnknownName, UsageError
from secateur.budget import Budget, Goal, read_widths
from secateur.gates import LearnedGates
from secateur.methods import Evidence, gate_learning
from secateur.methods.gate_learning import GateLearning, digest
from secateur.methods.pfs_settings import SETTINGS
from secateur.methods.pruning_from_scratch import PruningFromScratch
from secateur.models import build
from secateur.models.cifar_vgg import CifarVGG
from secateur.models.mobilenet_v1 import MULTIPLES
from secateur.surgery import cut
from secateur.testing.checks import counted
from secateur.testing.contract import Plain
from secateur.testing.toys import Residual
from secateur.training import TrainConfig, fit

CONFIG = TrainConfig(epochs=2, lr=0.05, batch_size=16, schedule="constant")
BUDGETS = (0.7, 0.5, 0.3)


def batches(count: int = 10, seed: int = 0, shuffled: bool = False, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Images whose mean colour says their class; ``shuffled`` labels say nothing."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        y = torch.randint(5, (size,), generator=generator)
        colour = torch.nn.functional.one_hot(y, 5)[:, :3].float() - 0.3
        x = torch.randn(size, 3, 8, 8, generator=generator) * 0.5 + colour[:, :, None, None]
        found.append((x, y[torch.randperm(size, generator=generator)] if shuffled else y))
    return found


def built(kind: type[nn.Module] = Plain) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def learn(method: PruningFromScratch, model: nn.Module, data: Any, folder: Path | None = None, **changes: Any) -> Any:
    """The graph and the law after gate learning."""
    graph = sc.trace(model, torch.zeros(1, 3, 8, 8))
    law = method.law(graph, {})
    config = TrainConfig(**{**method.schedule(), "batch_size": 16, **changes})
    fit(model, law.data(data), config, hooks=(law,), checkpoint_dir=folder, progress=False, device="cpu")
    return graph, law


def prune(model: nn.Module, **wish: Any) -> sc.Result:
    settings: dict[str, Any] = {"budget": Budget(macs=0.5), "round_to": 1, "config": CONFIG, "options": {"epochs": 2}}
    settings |= {"latency_runs": 0, "progress": False, "train_data": batches(), "method": "pruning-from-scratch"}
    return sc.prune(model, torch.zeros(1, 3, 8, 8), **{**settings, **wish})


# -- what is learned, and what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Plain, Residual])
def test_the_network_does_not_move_and_the_gates_do(kind: type[nn.Module]):
    model = built(kind)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    _, law = learn(PruningFromScratch(epochs=3), model, batches())
    law.finish()
    after = model.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == frozen
    gates = torch.cat(list(law.learned.values.values()))
    assert bool(((gates >= 0) & (gates <= 1)).all())
    assert float((gates < 0.99).double().mean()) > 0.5
    assert law.learned.facts["frozen_sha256"] == digest(model)


def test_only_the_gates_are_trained():
    model = built()
    graph = sc.trace(model, torch.zeros(1, 3, 8, 8))
    law = PruningFromScratch().law(graph, {})
    assert isinstance(law, GateLearning)
    law.data(batches())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == sum(graph.widths.values())
    assert all(bool((p == 1).all()) for p in trained)


def test_a_weight_that_moves_is_noticed():
    _, law = learn(PruningFromScratch(epochs=1), (model := built()), batches())
    with torch.no_grad():
        next(p for p in model.parameters() if p.dim() > 1)[0, 0] += 1e-6
    with pytest.raises(TrainingError, match="the frozen network moved"):
        law.finish()


def test_the_regulariser_pulls_the_mean_of_all_gates_to_the_target():
    model = built()
    graph = sc.trace(model, torch.zeros(1, 3, 8, 8))
    law = PruningFromScratch(penalty=0.5, target=0.2).law(graph, {})
    assert isinstance(law, GateLearning)
    law.data(batches())
    assert float(law.regulariser(model).detach()) == pytest.approx(0.5 * 0.8**2)
    with torch.no_grad():
        law.values["a.0"].fill_(0.4)
    mean = (8 * 0.4 + 22) / 30
    assert float(law.regulariser(model).detach()) == pytest.approx(0.5 * (mean - 0.2) ** 2)
    law.regulariser(model).backward()
    gradient = law.values["b.0"].grad
    assert gradient is not None
    assert torch.allclose(gradient, torch.full((12,), 2 * 0.5 * (mean - 0.2) / 30))


def test_gates_are_clipped_after_every_step_and_what_they_were_is_remembered():
    graph, law = learn(PruningFromScratch(epochs=1, penalty=200.0, target=0.0, held_out=0.0), built(), batches())
    unclipped = law.state_dict()
    for name in graph.widths:
        gate, before = law.values[name].detach(), unclipped[f"unclipped/{name}"]
        assert torch.equal(gate, before.clamp(0, 1))
    law.finish()
    # Ten steps of Adam, each of at most the rate.
    gates = torch.cat(list(law.learned.values.values()))
    assert float(gates.min()) == pytest.approx(1 - 10 * 0.01, abs=1e-3)


def test_the_published_schedule():
    assert PruningFromScratch().schedule() == {
        "epochs": 10, "optimiser": "adam", "lr": 0.01, "schedule": "constant", "weight_decay": 0.0,
        "warmup_epochs": 0, "label_smoothing": 0.0, "clip_grad_norm": None,
    }  # fmt: skip
    imagenet = PruningFromScratch(setting="resnet50").chosen
    assert (imagenet.penalty, imagenet.target, imagenet.epochs) == (0.05, 0.5, 1)


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        # (share of open gates, held-out accuracy) per epoch; with target 0.2.
        ([(0.9, 0.8), (0.2, 0.3), (0.1, 0.5), (0.1, 0.4)], 3),
        ([(0.1, 0.5), (0.1, 0.5)], 1),
        ([(0.9, 0.8), (0.5, 0.9), (0.3, 0.1)], None),
        ([(0.1, 0.0), (0.9, 0.9)], None),
    ],
)
def test_the_best_epoch_of_those_that_are_sparse_enough(
    monkeypatch: pytest.MonkeyPatch, seen: list[tuple[float, float]], chosen: int | None
):
    model = built()
    law = PruningFromScratch(target=0.2).law(sc.trace(model, torch.zeros(1, 3, 8, 8)), {})
    assert isinstance(law, GateLearning)
    law.data(batches())
    accuracies = iter([accuracy for _, accuracy in seen])
    monkeypatch.setattr(gate_learning, "evaluate", lambda *_: {"accuracy": next(accuracies)})
    for epoch, (share, _) in enumerate(seen):
        with torch.no_grad():
            places = np.cumsum([0, *(len(t) for t in law.values.values())])
            for (_, gate), start in zip(law.values.items(), places):
                # Open gates are worth the number of their epoch, so that it shows whose they are.
                gate.copy_(((torch.arange(len(gate)) + int(start)) < round(30 * share)) * (epoch + 1) / 10)
        law.on_epoch_end(model, epoch)
    law.finish()
    gates = torch.cat(list(law.learned.values.values()))
    assert float(gates.max()) == pytest.approx((chosen or len(seen)) / 10)
    assert law.learned.facts["chosen_epoch"] == (chosen or len(seen))
    assert law.learned.facts["sparse_enough"] is (chosen is not None)


def test_an_interrupted_run_that_goes_on_is_the_same_run(tmp_path: Path):
    class Stop(Exception):
        pass

    class Interrupt:
        def on_epoch_start(self, model: nn.Module, epoch: int) -> None:
            if epoch == 2:
                raise Stop

    method = PruningFromScratch(epochs=4, target=1.0)
    _, whole = learn(method, built(), batches())
    whole.finish()
    model = built()
    graph = sc.trace(model, torch.zeros(1, 3, 8, 8))
    config = TrainConfig(**{**method.schedule(), "batch_size": 16})
    for interrupt in (True, False):
        model.load_state_dict(built().state_dict())
        law = method.law(graph, {})
        assert isinstance(law, GateLearning)
        hooks = (law, Interrupt()) if interrupt else (law,)
        data = law.data(batches())
        if interrupt:
            with pytest.raises(Stop):
                fit(model, data, config, hooks=hooks, checkpoint_dir=tmp_path, progress=False, device="cpu")
        else:
            fit(model, data, config, hooks=hooks, checkpoint_dir=tmp_path, progress=False, device="cpu")
        law.finish()
    for part in ("values", "unclipped"):
        one, other = getattr(whole.learned, part), getattr(law.learned, part)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.learned.facts == law.learned.facts


# -- from gates to widths ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, sc.Result, Path]:
    """One run whose gates serve the tests below."""
    out, model = tmp_path_factory.mktemp("run"), built(Residual)
    return model, prune(model, options={"epochs": 6, "lr": 0.05}, out=out), out


def test_one_file_serves_any_number_of_budgets_and_what_they_keep_is_nested(run: tuple[nn.Module, sc.Result, Path]):
    model, result, out = run
    plans = []
    for share in BUDGETS:
        options = {"gates": str(out / "gates.json")}
        found = prune(model, options=options, budget=Budget(macs=share), train_data=None)
        plans.append(found.plan)
        macs, params = counted(found.model, torch.zeros(1, 3, 8, 8))
        dense, _ = counted(model, torch.zeros(1, 3, 8, 8))
        assert (found.card.pruned.macs, found.card.pruned.params) == (macs, params)
        assert macs <= share * dense
        dearest = max(found.graph.group_macs().values()) / min(found.graph.widths.values())
        assert macs > share * dense - dearest
    for large, small in pairwise(plans):
        assert all(set(units) <= set(large.keep[name]) for name, units in small.keep.items())
    assert plans[1].keep == result.plan.keep


@pytest.mark.parametrize("share", [0.7, 0.5, 0.3])
def test_resnet20_meets_its_budgets_to_one_channel(share: float):
    """Gates on the first convolutions, as published, with gates as good as any: what counts is the search.

    A channel of any block costs 294,912 MACs, 0.73 % of the network: nested sets cannot come nearer than that.
    """
    model, x = build("cifar-resnet20"), torch.randn(1, 3, 32, 32)
    graph = sc.trace(model, x)
    method = PruningFromScratch(setting="resnet20")
    generator = torch.Generator().manual_seed(1)
    gates = {g.name: torch.rand(g.width, generator=generator).clamp(0.2, 0.8) for g in method.gated_groups(graph)}
    scores = LearnedGates(gates, gates).scores(0)
    plan = sc.plan(graph, scores, Budget(macs=share), round_to=1, ranking="raw")
    spent = method.spend(graph, Goal(Budget(macs=share), round_to=1), Evidence(law=done(method, graph, gates)))
    assert spent is not None
    macs, _ = counted(cut(model, spent), x)
    assert share * 40_551_040 - 2 * 9 * 16 * 1024 < macs <= share * 40_551_040
    assert macs <= plan.why["macs"] <= share * 40_551_040, "giving back what is left uses the budget up, and no more"
    assert spent.widths["conv1"] == 16, "a group without gates stays whole"


def done(method: PruningFromScratch, graph: Any, gates: Mapping[str, Tensor]) -> GateLearning:
    """A law that has learned these gates."""
    law = method.law(graph, {})
    assert isinstance(law, GateLearning)
    law.learned = LearnedGates(gates, gates)
    return law


def test_the_widths_are_not_uniform_and_follow_the_labels():
    model, orders = built(Residual), {}
    for shuffled in (False, True):
        graph, law = learn(PruningFromScratch(epochs=6, lr=0.05), model, batches(shuffled=shuffled))
        law.finish()
        orders[shuffled] = torch.argsort(torch.cat(list(law.learned.scores(0).values())))
        if not shuffled:
            plan = PruningFromScratch().spend(graph, Goal(Budget(macs=0.5), round_to=1), Evidence(law=law))
            assert plan is not None
            kept = np.array([plan.widths[name] / width for name, width in graph.widths.items()])
            assert kept.std() / kept.mean() > 0.02
    assert not torch.equal(orders[False], orders[True])


def test_the_same_seed_gives_the_same_plan_and_the_weights_that_come_do_not_matter():
    one, other = built(Residual), built(Residual)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    first, second = prune(one), prune(other)
    assert first.plan.keep == second.plan.keep
    assert prune(one, seed=1).plan.keep != first.plan.keep


# -- the configuration ------------------------------------------------------------------------------------------------


def test_a_fresh_network_is_built_from_the_file_of_widths(run: tuple[nn.Module, sc.Result, Path]):
    model, result, out = run
    widths = read_widths(out / "widths.json")
    assert widths.widths == result.plan.widths
    assert (widths.macs, widths.params) == counted(result.model, torch.zeros(1, 3, 8, 8))
    preset = str(out / "widths.json")
    fresh = prune(model, method="random", options={}, budget=None, preset=preset, recover="scratch-e", epochs=1)
    assert {n: t.shape for n, t in fresh.model.state_dict().items()} == {
        n: t.shape for n, t in result.model.state_dict().items()
    }


def test_expansion_looks_in_a_wider_network_and_counts_against_the_one_that_was_given(tmp_path: Path):
    model = built(Residual)
    x = torch.zeros(1, 3, 8, 8)
    dense, _ = counted(model, x)
    options = {"epochs": 4, "lr": 0.05, "expand": 1.5, "gated": "*"}
    result = prune(model, options=options, out=tmp_path, recover="scratch-e", epochs=1)
    macs, params = counted(result.model, x)
    assert 0.4 * dense < macs <= 0.5 * dense
    assert (result.card.dense.macs, result.card.pruned.macs, result.card.pruned.params) == (dense, macs, params)
    assert {g.name: g.width for g in result.plan.groups} == {n: int(1.5 * w) for n, w in result.graph.widths.items()}
    assert result.card.exactness.exact
    assert any("expanded from" in note for note in result.card.notes)
    again = sc.load(tmp_path, model=built(Residual))
    batch = batches(1)[0][0]
    assert torch.equal(again.eval()(batch), result.model.cpu().eval()(batch))
    # The gates serve another budget; a share is still one of the network that was given.
    cheap = prune(model, options={"gates": str(tmp_path / "gates.json")}, budget=Budget(macs=0.3), train_data=None)
    assert counted(cheap.model, x)[0] <= 0.3 * dense
    assert all(set(units) <= set(result.plan.keep[name]) for name, units in cheap.plan.keep.items())
    # And so do the widths, for a method that knows nothing of any expansion.
    preset = str(tmp_path / "widths.json")
    fresh = prune(model, method="random", options={}, budget=None, preset=preset, recover="scratch-e", epochs=1)
    assert counted(fresh.model, x) == (macs, params)


def test_more_than_the_given_network_is_within_reach_of_an_expanded_one():
    model = built(Residual)
    dense, _ = counted(model, torch.zeros(1, 3, 8, 8))
    options = {"epochs": 1, "expand": 2.0}
    result = prune(model, options=options, budget=Budget(macs=round(1.5 * dense)))
    assert 1.4 * dense < result.card.pruned.macs <= 1.5 * dense


# -- the paper's networks ---------------------------------------------------------------------------------------------

# Units with gates, from the width lists of the released code.
V2 = [32, 96, *[144] * 2, *[192] * 3, *[384] * 4, *[576] * 3, *[960] * 3, 1280]
GATES = {
    "resnet20": 3 * (16 + 32 + 64),
    "resnet56": 9 * (16 + 32 + 64),
    "resnet110": 18 * (16 + 32 + 64),
    "vgg16": 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512,
    "vgg19": 2 * 64 + 2 * 128 + 4 * 256 + 8 * 512,
    "resnet50": 2 * (3 * 64 + 4 * 128 + 6 * 256 + 3 * 512),
    "mobilenet-v1": 32 * sum(MULTIPLES),
    "mobilenet-v2": sum(V2),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_gates_where_the_paper_has_them(name: str):
    setting = SETTINGS[name]
    size = 32 if setting.model.startswith("cifar") else 64
    model = build(setting.model)
    graph = sc.trace(model, torch.randn(1, 3, size, size))
    groups = PruningFromScratch(setting=name).gated_groups(graph)
    if name == "densenet40":
        # The gates of DenseNet were not published: all channels, those of the stem and of the transitions as well.
        assert sum(g.width for g in groups) == sum(graph.widths.values())
    else:
        assert sum(g.width for g in groups) == GATES[name]


def test_expansion_of_the_paper_is_the_network_that_is_built_so():
    """VGG-16 from 64 to 80 channels at its base: 50 % of 313.2 M are 156.6 M, whatever the expansion."""
    model, x = build("cifar-vgg16"), torch.randn(1, 3, 32, 32)
    graph = sc.trace(model, x)
    wider = PruningFromScratch(setting="vgg16").widened(graph)
    vgg = [80] * 2 + [160] * 2 + [320] * 3 + [640] * 6
    assert list(wider.values()) == vgg
    assert graph.cost(wider).macs == counted(CifarVGG(16, widths=vgg), x)[0]


def test_the_output_multiplier_widens_what_has_no_gates():
    graph = sc.trace(build("torchvision:mobilenet_v2"), torch.randn(1, 3, 64, 64))
    wider = PruningFromScratch(setting="mobilenet-v2", expand=1.25, expand_rest=1.5).widened(graph)
    assert wider["features.2.conv.0.0"] == 120
    assert wider["features.2.conv.2"] == 36
    assert wider["features.18.0"] == 1600


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_budget_out_of_reach_is_refused_before_anything_is_learned(tmp_path: Path):
    model = built(Residual)
    for budget in (Budget(macs=0.001), Budget(macs=10**9)):
        with pytest.raises(BudgetError, match=r"within reach is what lies from [\d,]+ .* to [\d,]+ "):
            prune(model, budget=budget, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_network_with_nothing_to_cut():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(UsageError, match="nothing of this network can be cut"):
        prune(model)


def test_options_that_do_not_work_are_all_named():
    with pytest.raises(UsageError) as caught:
        PruningFromScratch(target=1.5, epochs=0, expand=0.5, place="before", weights="old", held_out=1.0, lr=0.0)
    message = str(caught.value)
    for part in ("target=1.5", "epochs=0", "expand=0.5", "place='before'", "weights='old'", "held_out=1", "lr=0"):
        assert part in message


def test_unknown_settings_and_groups():
    with pytest.raises(UnknownName, match="did you mean 'resnet20'"):
        PruningFromScratch(setting="resnet-20")
    with pytest.raises(UnknownName, match=r"(?s)layer\?.*is for cifar-resnet20"):
        prune(built(Plain), options={"setting": "resnet20"})


def test_gates_of_another_network(run: tuple[nn.Module, sc.Result, Path]):
    _, _, out = run
    with pytest.raises(FileError, match="were learned on another network"):
        prune(built(Plain), options={"gates": str(out / "gates.json")})


def test_widths_of_another_network_or_cut_short(run: tuple[nn.Module, sc.Result, Path], tmp_path: Path):
    model, _, out = run
    wish: dict[str, Any] = {"method": "random", "options": {}, "budget": None}
    with pytest.raises(UsageError, match=r"(?s)for another network than this:\n- .* is no group here.*DIR/widths.json"):
        prune(built(Plain), preset=str(out / "widths.json"), **wish)
    text = (out / "widths.json").read_text()
    for broken in (text[:50], text.replace("secateur widths", "secateur gates"), json.dumps({"kind": 3})):
        (tmp_path / "widths.json").write_text(broken)
        with pytest.raises(FileError, match="no file of widths"):
            prune(model, preset=str(tmp_path / "widths.json"), **wish)
    with pytest.raises(FileError, match=r"(?s)cannot be read.*writes DIR/widths.json"):
        prune(model, preset=str(tmp_path / "nowhere.json"), **wish)


# -- as a new user calls it -------------------------------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    words = ["prune", "digits-resnet", "--method", "pruning-from-scratch", "--budget", "macs=50%", "--limit", "200"]
    words += ["--limit-test", "100", "--recover", "scratch-b", "--base-epochs", "1", "--option", "epochs=1"]
    monkeypatch.setattr(sys, "argv", ["secateur", *words, "--out", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    assert not left.value.code, said.err
    card = json.loads(said.out)
    assert 0.4 < card["pruned"]["macs"] / card["dense"]["macs"] <= 0.5
    assert card["recovery"]["epochs"] == card["dense"]["macs"] // card["pruned"]["macs"]
    assert any("bit for bit what it was" in note for note in card["notes"])
    assert "accuracy" not in card["dense"], "random weights are nothing to compare with"
    assert any("never trained" in note for note in card["notes"])
    assert not any("finetune" in note for note in card["notes"])
    (epoch,) = card["gates"]["history"]
    assert list(epoch["means"].values()) == pytest.approx(list(card["gates"]["mean"].values()))
    files = {path.name for path in tmp_path.iterdir()}
    assert {"gates.json", "widths.json", "plan.json", "model.safetensors", "report.html"} <= files
    sc.load(tmp_path)
