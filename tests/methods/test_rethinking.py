"""The cheap checks of the methods of "Rethinking the Value of Network Pruning": each would fail on a fake."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import secateur as sc
from secateur._errors import BudgetError, FileError, UnknownName, UsageError
from secateur.budget import Budget, Goal
from secateur.demo import summary
from secateur.graph import PruningGraph, trace
from secateur.methods import SFP, SSS, Evidence, Lottery, Magnitude, Reconstruction, Slimming, ThiNet
from secateur.methods.sfp import SoftZero
from secateur.methods.slimming import Shrink
from secateur.methods.sss import Proximal
from secateur.surgery import cut, make_plan, masks_of
from secateur.testing.contract import Depthwise, Plain
from secateur.testing.toys import Residual
from secateur.training import TrainConfig, fit, recovery, reinitialise

CONFIG = TrainConfig(epochs=3, lr=0.05, batch_size=16, schedule="constant", momentum=0.9)


def batches(count: int = 6, seed: int = 0, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Images whose mean colour says their class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        y = torch.randint(5, (size,), generator=generator)
        colour = torch.nn.functional.one_hot(y, 5)[:, :3].float() - 0.3
        found.append((torch.randn(size, 3, 8, 8, generator=generator) * 0.5 + colour[:, :, None, None], y))
    return found


def built(kind: type[nn.Module] = Plain) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def traced(model: nn.Module) -> PruningGraph:
    return trace(model, torch.zeros(1, 3, 8, 8))


def trained(model: nn.Module, law: Any, data: Any = None, config: TrainConfig = CONFIG) -> None:
    fit(model, data or batches(), config, hooks=(law,), progress=False)
    law.finish()
    model.eval()


def prune(model: nn.Module, method: str, **wish: Any) -> sc.Result:
    settings: dict[str, Any] = {"budget": Budget(macs=0.5), "round_to": 1, "config": CONFIG}
    settings |= {"latency_runs": 0, "progress": False, "train_data": batches()}
    return sc.prune(model, torch.zeros(1, 3, 8, 8), method=method, **{**settings, **wish})


# -- L1 ---------------------------------------------------------------------------------------------------------------


def test_l1_removes_the_planted_filter():
    model = built()
    with torch.no_grad():
        for k, layer in enumerate((model.get_submodule("a.0"), model.get_submodule("b.0"))):
            layer.weight[k + 2].mul_(1e-4)  # type: ignore[union-attr,operator]
    graph = traced(model)
    plan = Goal(Budget(macs=0.8), round_to=1).plan(graph, sc.score(graph, "l1"), "layer")
    assert 2 not in plan.keep["a.0"]
    assert 3 not in plan.keep["b.0"]


# -- ThiNet and reconstruction ----------------------------------------------------------------------------------------


def output_error(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - other(x)).square().mean())


def test_thinet_removes_two_channels_that_cancel_each_other():
    """Channel 5 is made channel 2, and the next layer reads it with the opposite sign."""
    model = built()
    first, norm, reader = (model.get_submodule(n) for n in ("a.0", "a.1", "b.0"))
    with torch.no_grad():
        for tensor in (first.weight, norm.weight, norm.bias):  # type: ignore[union-attr]
            tensor[5] = tensor[2]  # type: ignore[index]
        reader.weight[:, 5] = -reader.weight[:, 2]  # type: ignore[index,operator]
    graph = traced(model)
    method = ThiNet()
    scores = method.judge(graph, Evidence(batches()))
    assert sorted(torch.argsort(scores["a.0"])[:2].tolist()) == [2, 5]
    keep = method.choose(graph, {"a.0": 6, "b.0": 12, "c.0": 10}, Evidence(batches()))
    assert keep is not None
    assert sorted({*range(8)} - {*keep["a.0"]}) == [2, 5]
    plan = make_plan(graph, keep)
    assert output_error(model, cut(method.refit(graph, plan, Evidence(batches())), plan), batches(1, 9)[0][0]) < 1e-9


@pytest.mark.parametrize("kind", [Plain, Residual])
@pytest.mark.parametrize("method", [ThiNet(), Reconstruction()], ids=lambda m: m.name)
def test_refitting_brings_the_outputs_nearer(method: Any, kind: type[nn.Module]):
    """On images that were not looked at; and both are nearer than the plain cut of the smallest filters."""
    model = built(kind)
    reinitialise(model, 3)
    graph = traced(model)
    widths = {name: max(1, width // 2) for name, width in graph.widths.items()}
    evidence = Evidence(batches(12))
    keep = method.choose(graph, widths, evidence)
    assert keep is not None
    plan = make_plan(graph, {name: sorted(units) for name, units in keep.items()})
    x = batches(4, seed=77)
    unseen = torch.cat([b[0] for b in x])
    plain = output_error(model, cut(model, plan), unseen)
    refitted = output_error(model, cut(method.refit(graph, plan, evidence), plan), unseen)
    assert refitted < plain
    scores = sc.score(graph, "l1")
    smallest = make_plan(graph, {n: torch.argsort(scores[n], descending=True)[:w].tolist() for n, w in widths.items()})
    assert refitted < output_error(model, cut(model, smallest), unseen)


@pytest.mark.parametrize("method", ["reconstruction", "thinet"])
def test_the_card_says_where_channels_are_dependent(method: str, tmp_path: Path):
    """All channels of two layers are two of them, read in other proportions, and one is dead."""
    model = built()
    for name, reader in (("a", "b.0"), ("b", "c.0")):
        layer, norm, behind = (model.get_submodule(n) for n in (f"{name}.0", f"{name}.1", reader))
        index = torch.arange(len(norm.weight)) % 2  # type: ignore[arg-type]
        with torch.no_grad():
            for tensor in (layer.weight, norm.weight, norm.bias):
                tensor.copy_(tensor[index])  # type: ignore[index,operator]
            behind.weight.copy_(behind.weight[:, index] * torch.linspace(1, 2, len(index))[:, None, None])  # type: ignore[index,operator]
            norm.weight[0] = norm.bias[0] = 0.0  # type: ignore[index,operator]
    card = prune(model, method, out=tmp_path).card
    what = {"reconstruction": "the inputs of the kept channels", "thinet": "the contributions of the kept channels"}
    (note,) = [note for note in card.notes if note.startswith(f"{method}: {what[method]}")]
    assert re.search(r"solved with a ridge of 1e-0\d of the trace \(2 layers: b\.0, c\.0\)$", note)
    # In the terminal, in the report, and not of a network that needs none.
    console = Console(record=True, width=200)
    summary(console, card, tmp_path)
    assert note in console.export_text()
    assert note in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not any("ridge" in note for note in prune(built(), method).card.notes)


def test_reconstruction_of_all_channels_changes_nothing():
    model = built()
    graph = traced(model)
    plan = make_plan(graph, {})
    refitted = Reconstruction().refit(graph, plan, Evidence(batches()))
    assert output_error(model, refitted, batches(1, 5)[0][0]) < 1e-10


def test_the_dense_network_is_not_touched_by_a_refit():
    model = built(Residual)
    before = copy.deepcopy(model.state_dict())
    result = prune(model, "reconstruction")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert result.check.exact


def test_calibration_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match=r"96 calibration images .* 500"):
        prune(built(), "thinet", options={"images": 500})


def test_networks_without_a_plain_reader_fall_back_and_run():
    result = prune(built(Depthwise), "reconstruction")
    assert result.check.exact
    assert result.card.pruned.macs <= result.card.dense.macs / 2


# -- slimming ---------------------------------------------------------------------------------------------------------


def small_scales(penalty: float) -> float:
    model = built()
    trained(model, Shrink(traced(model), penalty), batches(20), CONFIG)
    scales = torch.cat([m.weight.detach() for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    return float((scales.abs() < 0.1).double().mean())


def test_slimming_makes_scales_small():
    assert small_scales(0.0) < 0.1
    assert small_scales(0.3) > 0.5


def test_slimming_is_a_gradient_of_its_own_size():
    """Neither averaged over the batch nor put on the weight itself."""
    model = built()
    law = Shrink(traced(model), 0.25)
    norm: Any = model.get_submodule("a.1")
    norm.weight.grad = torch.zeros(8)
    law.after_backward(model)
    assert norm.weight.grad.tolist() == [0.25] * 8
    law.finish()


def test_slimming_ranks_all_scales_together():
    model = built()
    with torch.no_grad():
        model.get_submodule("a.1").weight.mul_(10)  # type: ignore[union-attr,operator]
        model.get_submodule("b.1").weight.mul_(0.1)  # type: ignore[union-attr,operator]
    graph = traced(model)
    plan = Goal(Budget(macs=0.7), round_to=1).plan(graph, Slimming().judge(graph, Evidence()), Slimming.ranking)
    assert plan.widths["a.0"] == 8
    assert plan.widths["b.0"] < 12


class NoNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


def test_networks_without_batch_norm_are_slimmed_by_gates():
    torch.manual_seed(0)
    model = NoNorm()
    graph = trace(model, torch.zeros(1, 6))
    dense = copy.deepcopy(model)
    law = Shrink(graph, 0.3)
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    assert torch.allclose(model(x), dense(x))
    trained(model, law, [(x, y)] * 20)
    assert law.scores["a"].shape == (12,)
    assert float(law.scores["a"].min()) < 0.7
    assert not any(type(m).__name__ == "ParametrizationList" for m in model.modules())
    assert set(dict(model.named_parameters())) == set(dict(dense.named_parameters()))


# -- sparse structure selection ---------------------------------------------------------------------------------------


def exact_zeros(penalty: float) -> int:
    model = built(Residual)
    graph = traced(model)
    law = Proximal(graph, SSS(penalty=penalty))
    trained(model, law, batches(20))
    return sum(int((values == 0).sum()) for values in law.units.values())


def test_sss_makes_exact_zeros_more_with_a_larger_penalty():
    found = [exact_zeros(penalty) for penalty in (0.0, 0.1, 0.4)]
    assert found[0] == 0
    assert found[0] < found[1] <= found[2]


def test_what_sss_sets_to_zero_can_go_without_loss():
    model = built(Residual)
    graph = traced(model)
    law = Proximal(graph, SSS(penalty=0.3))
    trained(model, law, batches(20))
    keep = {n: np.flatnonzero(v.numpy() > 0).tolist() or [0] for n, v in law.units.items()}
    plan = make_plan(graph, keep)
    assert sum(len(units) for units in keep.values()) < sum(graph.widths.values())
    assert output_error(model, cut(model, plan), batches(1, 3)[0][0]) < 1e-10


class Stack(nn.Module):
    """Three residual blocks of one width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.nb(self.b(self.na(self.a(x)).relu()))).relu()


def test_sss_leaves_out_whole_blocks():
    result = prune(built(Stack), "sss", options={"on": "blocks"}, budget=Budget(macs=0.7))
    assert len(result.plan.skips) == 1
    assert result.check.exact
    assert result.card.pruned.macs <= 0.7 * result.card.dense.macs
    assert any("factors are exactly zero" in note for note in result.card.notes)


def test_sss_without_blocks_says_so():
    with pytest.raises(UsageError, match="has none; use on='units'"):
        prune(built(), "sss", options={"on": "blocks"})
    with pytest.raises(UsageError, match="choose from blocks, units, both"):
        prune(built(), "sss", options={"on": "layers"})


# -- soft filter pruning ----------------------------------------------------------------------------------------------


def test_soft_zeroed_filters_come_back_and_go_in_the_end():
    model = built()
    graph = traced(model)
    law = SoftZero(graph, {"a.0": 4, "b.0": 6, "c.0": 5})
    trained(model, law, batches(10), TrainConfig(epochs=6, lr=0.1, schedule="constant"))
    assert law.returned > 0
    gone = law.zeroed["a.0"]
    assert len(gone) == 4
    assert not model.get_submodule("a.0").weight[gone].any()  # type: ignore[index,union-attr]
    scores = SFP().judge(graph, Evidence())
    keep = {
        n: torch.argsort(scores[n], descending=True)[: graph.widths[n] - len(law.zeroed[n])].tolist() for n in scores
    }
    plan = make_plan(graph, keep)
    assert output_error(model, cut(model, plan), batches(1, 3)[0][0]) < 1e-10


# -- single weights ---------------------------------------------------------------------------------------------------


def zeros(model: nn.Module) -> tuple[int, int]:
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return sum(int((w == 0).sum()) for w in layers), sum(w.numel() for w in layers)


@pytest.mark.parametrize("recover", ["finetune", "scratch-e"])
def test_masked_weights_stay_zero_through_training(recover: str, tmp_path: Any):
    model = built()
    result = prune(model, "magnitude", budget=Budget(weights=0.2), recover=recover, epochs=2, out=tmp_path / "run")
    none, total = zeros(result.model)
    assert none == total - round(0.2 * total)
    assert masks_of(result.model) is not None
    stored = masks_of(sc.load(tmp_path / "run", model=built()))
    assert stored is not None
    assert stored.kept == round(0.2 * total)
    assert any("none is gone" in note for note in result.card.notes)
    assert result.card.pruned.params == result.card.dense.params - none


def test_masks_of_other_weights_or_changed_ones_are_refused(tmp_path: Any):
    for seed, share in enumerate((0.2, 0.3)):
        prune(built(), "magnitude", budget=Budget(weights=share), seed=seed, out=tmp_path / str(seed))
    file = tmp_path / "0" / "masks.safetensors"
    own = file.read_bytes()
    file.write_bytes((tmp_path / "1" / "masks.safetensors").read_bytes())
    with pytest.raises(FileError, match="other weights"):
        sc.load(tmp_path / "0", model=built())
    file.write_bytes(own[:-1] + bytes([1 - own[-1]]))
    with pytest.raises(FileError, match="was changed after it was written"):
        sc.load(tmp_path / "0", model=built())
    file.write_bytes(own[:-1])
    with pytest.raises(FileError, match="truncated"):
        sc.load(tmp_path / "0", model=built())
    file.write_bytes(own)
    assert masks_of(sc.load(tmp_path / "0", model=built())) is not None


def test_two_of_four_neighbours_stay():
    model = built()
    masks = Magnitude(pattern="2:4").masks(traced(model), Goal(Budget(weights=0.5)), Evidence())
    kept = masks.keep["b.0.weight"].movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1)
    assert bool((kept == 2).all())
    assert "a.0.weight" not in masks.keep
    with pytest.raises(BudgetError, match=r"ask for weights=0\.5"):
        Magnitude(pattern="2:4").masks(traced(model), Goal(Budget(weights=0.3)), Evidence())
    with pytest.raises(UsageError, match="write N:M"):
        Magnitude(pattern="4:2")


def test_units_and_weights_have_budgets_of_their_own():
    with pytest.raises(BudgetError, match="weights=20%"):
        prune(built(), "magnitude")
    with pytest.raises(BudgetError, match="single weights"):
        prune(built(), "l1", budget=Budget(weights=0.5))


def test_a_ticket_has_its_initial_weights_under_the_mask():
    model = built()
    before = copy.deepcopy(model.state_dict())
    result = prune(model, "lottery", budget=Budget(weights=0.25), options={"rounds": 2, "epochs": 1})
    masks = masks_of(result.model)
    assert masks is not None
    assert masks.kept == round(0.25 * masks.weights)
    state = result.model.state_dict()
    for name, keep in masks.keep.items():
        assert torch.equal(state[name], before[name] * keep)
    stages = {point.stage for point in result.card.history}
    assert {"lottery-1", "lottery-2"} <= stages
    with pytest.raises(UsageError, match="rounds=0"):
        Lottery(rounds=0)


def test_a_ticket_of_units_has_its_initial_weights():
    model = built()
    before = copy.deepcopy(model.state_dict())
    result = prune(model, "lottery-units", options={"epochs": 1})
    rows = list(result.plan.keep["a.0"])
    assert torch.equal(result.model.state_dict()["a.0.weight"], before["a.0.weight"][rows])
    assert not torch.equal(result.model.state_dict()["a.0.weight"], before["a.0.weight"][: len(rows)]) or rows[0] == 0


# -- training from scratch --------------------------------------------------------------------------------------------


def test_scratch_keeps_nothing_of_the_weights_and_b_as_much_compute():
    result = prune(built(), "l1", recover="none")
    fresh = copy.deepcopy(result.model)
    reinitialise(fresh, 1)
    weights = [(a.flatten(), b.flatten()) for a, b in zip(result.model.parameters(), fresh.parameters()) if a.dim() > 1]
    both = torch.stack([torch.cat([a for a, _ in weights]), torch.cat([b for _, b in weights])]).detach()
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.1
    dense, pruned = result.card.dense.macs, result.card.pruned.macs
    e, b = (recovery(name, TrainConfig(), dense, pruned).config.epochs for name in ("scratch-e", "scratch-b"))
    assert (e, b) == (160, 160 * dense // pruned)


# -- options ----------------------------------------------------------------------------------------------------------


def test_options_are_checked():
    with pytest.raises(UnknownName, match="did you mean 'penalty'"):
        prune(built(), "slimming", options={"penalti": 1e-4})
    with pytest.raises(UsageError, match="penalty='much' has to be of the kind float"):
        prune(built(), "slimming", options={"penalty": "much"})
    with pytest.raises(UnknownName, match="l1 has no options"):
        prune(built(), "l1", options={"penalty": 1e-4})
