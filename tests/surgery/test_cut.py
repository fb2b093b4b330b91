"""Cutting and masking, held against a cut by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from secateur._errors import VerifyError
from secateur.graph import PruningGraph, trace
from secateur.surgery import cut, make_plan, mask, verify
from secateur.testing.toys import toys
from surgery.small_cnn import KEEP, SmallCNN


def masked_by_hand(model: SmallCNN) -> SmallCNN:
    """Filters, BatchNorm scale and shift of what is not in ``KEEP`` are zero; nothing of it can reach the output."""
    net = copy.deepcopy(model)
    with torch.no_grad():
        for conv, norm, units in ((net.conv1, net.bn1, KEEP["conv1"]), (net.conv2, net.bn2, KEEP["conv2"])):
            gone = [i for i in range(conv.out_channels) if i not in units]
            for tensor in (conv.weight, conv.bias, norm.weight, norm.bias):
                assert tensor is not None
                tensor[gone] = 0
    return net


def test_cut_and_mask_equal_a_mask_by_hand(model: SmallCNN, graph: PruningGraph, example: Tensor):
    plan = make_plan(graph, KEEP)
    model.double().eval()
    want = masked_by_hand(model)(example.double())
    for got in (mask(model, plan), cut(model, plan)):
        torch.testing.assert_close(got(example.double()), want, rtol=1e-12, atol=1e-12)
    dense = model(example.double())
    assert (dense - want).abs().max() > 1e-3, "the mask has to change something"


def test_the_cut_tensors_by_hand(model: SmallCNN, graph: PruningGraph):
    small = cut(model, make_plan(graph, KEEP))
    assert isinstance(small, SmallCNN)
    one, two = KEEP["conv1"], KEEP["conv2"]
    assert torch.equal(small.conv1.weight, model.conv1.weight[one])
    assert torch.equal(small.conv2.weight, model.conv2.weight[two][:, one])
    assert torch.equal(small.fc.weight, model.fc.weight.view(5, 8, 4)[:, two].reshape(5, -1))
    assert torch.equal(small.fc.bias, model.fc.bias)
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(small.bn2, name), getattr(model.bn2, name)[two])
    assert (small.conv1.out_channels, small.conv2.in_channels, small.conv2.out_channels) == (3, 3, 5)
    assert (small.bn1.num_features, small.bn2.num_features, small.fc.in_features) == (3, 5, 20)
    assert model.conv1.out_channels == 6


@pytest.mark.parametrize("training", [True, False])
def test_mode_flags_and_device_stay(model: SmallCNN, graph: PruningGraph, training: bool):
    model.train(training)
    model.bn1.eval()
    model.conv1.requires_grad_(False)
    small = cut(model, make_plan(graph, KEEP))
    assert isinstance(small, SmallCNN)
    assert small.training is training
    assert not small.bn1.training
    assert not small.conv1.weight.requires_grad
    assert small.conv2.weight.requires_grad
    assert small.half().conv1.weight.dtype == torch.float16


def storages(model: nn.Module) -> set[int]:
    """Addresses of all memory that the model's tensors lie in."""
    return {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}


@pytest.mark.parametrize("name", toys())
def test_no_memory_is_shared(name: str):
    model, example = toys()[name]
    graph = trace(model, example)
    for keep in ({}, {g.name: range(g.width - 1) for g in graph.prunable}):
        plan = make_plan(graph, keep)
        for net in (cut(model, plan), mask(model, plan)):
            assert not storages(net) & storages(model)


@pytest.mark.parametrize("name", toys())
def test_keeping_everything_changes_no_bit(name: str):
    model, example = toys()[name]
    graph = trace(model, example)
    args, kwargs = ((), example) if isinstance(example, dict) else ((example,), {})
    for plan in (make_plan(graph, {}), make_plan(graph, {g.name: range(g.width) for g in graph.prunable})):
        assert plan.slices == {}
        assert plan.sizes == ()
        assert plan.reads == ()
        for net in (cut(model, plan), mask(model, plan)):
            assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), model.state_dict().values()))
            with torch.no_grad():
                got, want = net.eval()(*args, **kwargs), model.eval()(*args, **kwargs)
            if isinstance(want, dict):
                got, want = got["label"], want["label"]
            assert torch.equal(got, want)


def test_tied_weights_stay_tied():
    model, example = toys()["tied_embedding"]
    graph = trace(model, example)
    small = cut(model, make_plan(graph, {g.name: range(0, g.width, 2) for g in graph.prunable}))
    assert small.get_submodule("head").weight is small.get_submodule("embed").weight
    assert "head.weight" not in dict(small.named_parameters())


@pytest.mark.parametrize("name", ["residual", "mha_batch_first", "grouped_convolution", "transformer_encoder"])
def test_a_cut_model_can_be_copied_and_reloaded(name: str, tmp_path: Path):
    model, example = toys()[name]
    graph = trace(model, example)
    plan = make_plan(graph, {g.name: range(g.width // 2) for g in graph.prunable})
    small = cut(model, plan).eval()
    want = small(example)
    twin = copy.deepcopy(small)
    assert torch.equal(twin(example), want)
    assert not storages(twin) & storages(small)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    fresh = cut(toys()[name][0], plan).eval()
    assert not torch.equal(fresh(example), want)
    fresh.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    assert torch.equal(fresh(example), want)


def test_a_wrong_plan_is_found_out(model: SmallCNN, graph: PruningGraph, example: Tensor):
    """Two channels of the next layer's columns are mixed up: the shapes fit, the function does not."""
    plan = make_plan(graph, KEEP)
    assert verify(model, plan, example).require().exact
    wrong = {**plan.slices, "conv2.weight": {**plan.slices["conv2.weight"], 1: "0,3,5"}}
    check = verify(model, replace(plan, slices=wrong), example)
    assert not check.exact
    assert check.max_error > 1e-3
    assert "NOT EXACT" in str(check)
    with pytest.raises(VerifyError, match="the cut model is not the masked model"):
        check.require()


def test_a_silent_channel_hides_nothing(model: SmallCNN, graph: PruningGraph, example: Tensor):
    """A wrong connection of weights that are zero is found by the random parameters."""
    nn.init.zeros_(model.conv2.weight)
    plan = make_plan(graph, KEEP)
    wrong = {**plan.slices, "conv2.weight": {**plan.slices["conv2.weight"], 1: "0,3,5"}}
    assert not verify(model, replace(plan, slices=wrong), example).exact


def test_verification_leaves_model_and_randomness_alone(model: SmallCNN, graph: PruningGraph):
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    check = verify(model, make_plan(graph, KEEP), torch.zeros(2, 3, 8, 8))
    assert check.exact
    assert check.outputs == 10
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert model.training


def test_masked_gradients_match(model: SmallCNN, graph: PruningGraph, example: Tensor):
    """The kept entries learn the same in both models, in training mode as well."""
    plan = make_plan(graph, KEEP)
    model.double()
    small, full = cut(model, plan), mask(model, plan)
    for net in (small, full):
        net(example.double()).square().sum().backward()
    assert isinstance(small, SmallCNN)
    assert isinstance(full, SmallCNN)
    want = full.conv2.weight.grad
    assert want is not None
    got = small.conv2.weight.grad
    assert got is not None
    torch.testing.assert_close(got, want[KEEP["conv2"]][:, KEEP["conv1"]], rtol=1e-9, atol=1e-12)
