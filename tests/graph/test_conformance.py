"""One toy a wiring pattern: what is cut at random equals what is masked, and costs what was foretold."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateur.graph import PruningGraph, trace
from secateur.surgery import Plan, cut, make_plan, verify
from secateur.testing.toys import toys

# How many groups of each toy have to be cuttable, so that an engine that locks everything does not pass.
LEAST = {
    "residual": 2,
    "concat": 4,
    "concat_with_itself": 1,
    "chunk_glu": 2,
    "channel_shuffle": 3,
    "flatten_linear": 2,
    "linear_view_deconvolution": 2,
    "squeeze_excite_conv": 2,
    "squeeze_excite_linear": 2,
    "depthwise_multiplier": 2,
    "grouped_convolution": 3,
    "group_norm": 2,
    "group_norm_of_one": 2,
    "instance_norm": 2,
    "prelu": 2,
    "layer_norm": 2,
    "gated_mlp": 2,
    "layer_scale": 2,
    "class_token": 2,
    "attention_separate": 2,
    "attention_fused": 2,
    "attention_manual": 2,
    "attention_chunked": 2,
    "attention_grouped_query": 2,
    "mha_batch_first": 2,
    "mha_batch_first_weights": 2,
    "mha_batch_second": 2,
    "mha_batch_second_weights": 2,
    "cross_attention": 3,
    "transformer_encoder": 5,
    "bare_parameter": 2,
    "tied_embedding": 2,
    "used_twice": 2,
    "unet": 5,
    "in_place": 2,
    "dict_in_dict_out": 3,
    "dense_block": 5,
    "mixer": 3,
    "frozen": 2,
    "no_grad_branch": 2,
    "data_dependent": 2,
    "pre_activation": 2,
    "pixel_shuffle": 3,
    "conv1d": 2,
    "conv3d": 2,
}

# Widths in units, where a unit is more than a channel: these are what the pattern is about.
UNITS = {
    "concat_with_itself": {"stem.0": 6},
    "chunk_glu": {"both.0": 7},
    "depthwise_multiplier": {"stem.0": 6},
    "flatten_linear": {"conv.0": 6},
    "linear_view_deconvolution": {"linear": 6},
    "group_norm_of_one": {"a": 8},
    "pixel_shuffle": {"up": 5},
    "attention_separate": {"q": 4},
    "attention_fused": {"qkv": 4},
    "attention_grouped_query": {"q": 2},
    "mha_batch_first": {"attention": 4},
}
HEADS = [name for name in LEAST if "attention" in name or name.startswith(("mha", "transformer"))]


@cache
def traced(name: str) -> tuple[nn.Module, Any, PruningGraph]:
    """The toy, its inputs and its graph; norms have statistics of their own, as after training."""
    torch.manual_seed(0)
    model, example = toys()[name]
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model, example, trace(model, example)


def random_plan(graph: PruningGraph, seed: int) -> Plan:
    """Keep from one unit to all but one of every group."""
    rng = np.random.default_rng(seed)
    keep = {g.name: rng.choice(g.width, rng.integers(1, g.width), replace=False).tolist() for g in graph.prunable}
    return make_plan(graph, keep)


def call(model: nn.Module, example: Any) -> Any:
    """The model's output on example inputs."""
    return model(**example) if isinstance(example, dict) else model(example)


def repeated(example: Any, times: int) -> Any:
    """The example inputs, so many times in one batch."""
    if isinstance(example, dict):
        return {name: repeated(t, times) for name, t in example.items()}
    return example.repeat(times, *[1] * (example.dim() - 1))


def leaves(output: Any) -> list[Tensor]:
    """Every tensor of a nested output."""
    if isinstance(output, Tensor):
        return [output]
    return [t for item in (output.values() if isinstance(output, dict) else output) for t in leaves(item)]


def counted(model: nn.Module, example: Any) -> tuple[int, int]:
    """(MACs, parameters) by PyTorch's own counter, which does not see into fused kernels."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            call(model.eval(), example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


def test_every_toy_has_a_least_number():
    assert set(LEAST) == set(toys())


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_enough_can_be_cut(name: str, least: int):
    _, _, graph = traced(name)
    assert len(graph.prunable) >= least, str(graph)
    assert {g: graph.widths[g] for g in UNITS.get(name, {})} == UNITS.get(name, {})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", LEAST)
def test_cut_equals_mask(name: str, seed: int):
    model, example, graph = traced(name)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    plan = random_plan(graph, seed)
    check = verify(model, plan, example)
    assert check.exact, f"{check}\n{plan.keep}"
    assert check.outputs > 0
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LEAST)
def test_the_cost_is_the_cost_of_the_cut_model(name: str, seed: int):
    model, example, graph = traced(name)
    plan = random_plan(graph, seed)
    cost, dense = graph.cost(plan.widths), graph.cost()
    assert (cost.macs, cost.params) == counted(cut(model, plan), example)
    assert (dense.macs, dense.params) == counted(cut(model, make_plan(graph, {})), example)
    assert cost.params < dense.params
    assert cost.macs < dense.macs


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LEAST)
def test_the_cut_model_runs_and_trains(name: str, seed: int):
    model, example, graph = traced(name)
    small = cut(model, random_plan(graph, seed))
    assert type(small) is type(model)
    for mode in (False, True):
        small.train(mode)
        got = leaves(call(small, repeated(example, 2)))
        want = leaves(call(cut(model, make_plan(graph, {})).train(mode), example))
        assert [t.shape for t in got] == [(2, *t.shape[1:]) for t in want]
    sum(t.square().sum() for t in got).backward()  # type: ignore[union-attr]
    assert all(p.grad is None or p.grad.shape == p.shape for p in small.parameters())


@pytest.mark.parametrize("name", LEAST)
def test_the_fused_evaluation_path_agrees(name: str):
    """In evaluation mode under ``inference_mode`` PyTorch may take fused kernels; the numbers stay the same."""
    model, example, graph = traced(name)
    small = cut(model, random_plan(graph, 0)).eval()
    with torch.inference_mode():
        fused = leaves(call(small, example))
    with sdpa_kernel(SDPBackend.MATH):
        plain = leaves(call(small, example))
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEAST)
def test_the_batch_does_not_matter(name: str):
    model, example, graph = traced(name)
    again = trace(model, repeated(example, 3))
    assert again.widths == graph.widths
    assert again.cost().params == graph.cost().params
    assert again.cost().macs == 3 * graph.cost().macs


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_called_heads(name: str):
    _, _, graph = traced(name)
    assert {g.kind for g in graph.prunable} == {"channel", "head"}


@pytest.mark.parametrize("name", LEAST)
def test_the_table_and_the_reasons(name: str):
    _, _, graph = traced(name)
    text = str(graph)
    for group in graph.groups:
        assert group.name in text
        assert bool(group.reason) == group.locked
        assert all(m.positions.shape[0] == group.width for m in group.members)


def test_the_two_halves_of_a_gate_go_together():
    _, _, graph = traced("chunk_glu")
    member = next(m for m in graph["both.0"].members if m.tensor == "both.0.weight" and m.axis == 0)
    assert sorted(member.positions[2].tolist()) == [2, 9]


def test_a_channel_is_sixteen_columns_behind_flatten():
    _, _, graph = traced("flatten_linear")
    member = next(m for m in graph["conv.0"].members if m.tensor == "a.weight")
    assert (member.axis, member.role) == (1, "in")
    assert member.positions[3].tolist() == list(range(48, 64))


def test_a_head_is_its_rows_of_queries_keys_and_values():
    _, _, graph = traced("attention_fused")
    member = next(m for m in graph["qkv"].members if m.tensor == "qkv.weight")
    assert sorted(member.positions[1].tolist()) == [3, 4, 5, 15, 16, 17, 27, 28, 29]
