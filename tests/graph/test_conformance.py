"""One toy a wiring pattern: what is cut at random equals what is masked, and costs what was foretold."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.graph import PruningGraph, trace
from secateur.graph.trees import output_tensors
from secateur.surgery import cut, make_plan, verify
from secateur.testing.checks import call, counted, random_plan
from secateur.testing.patterns import patterns

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
    "split_literal": 3,
    "split_attribute": 5,
    "slice_literal": 3,
    "slice_attribute": 5,
    "slice_halves": 2,
    "slice_strided": 2,
    "c2f": 5,
    "shuffle_grouped": 4,
    "shuffle_dense": 4,
    "shuffle_square": 1,
    "pixel_unshuffle": 2,
    "grouped_deconvolution": 2,
    "static_shape": 3,
    "write_into_slice": 2,
    "partial_write": 3,
    "repeat_interleave": 2,
    "constant_gather": 2,
    "maxout_amax": 3,
    "maxout_max": 3,
    "pooled_channels": 2,
    "unfold": 4,
    "unfold_fold": 4,
    "glu_module": 2,
    "spatial_gate": 2,
    "spatial_gate_max": 2,
    "pyramid": 5,
    "attention_norm": 2,
    "attention_unit": 2,
    "attention_rotary_halves": 2,
    "attention_rotary_pairs": 2,
    "rotary_layer": 3,
    "one_head_fixed_scale": 3,
    "one_head_scale_of_width": 2,
    "one_head_fused": 2,
    "attention_relative_position": 2,
    "attention_indexed": 2,
    "attention_per_head": 2,
    "attention_split_sizes": 1,
    "attention_multi_query": 2,
    "attention_einsum": 2,
    "attention_einsum_parameters": 2,
    "attention_linear": 2,
    "attention_overlapping_windows": 2,
    "channel_attention": 1,
    "einsum_mixing": 2,
    "transformer_decoder": 7,
    "attention_windows": 3,
    "lstm": 2,
    "gru": 2,
    "lstm_cell": 2,
    "sru": 1,
    "mamba": 4,
    "fourier_tokens": 2,
    "fourier_channels": 1,
    "fourier_filter": 2,
    "codebook": 2,
    "experts_routed": 4,
    "experts_stacked": 3,
    "experts_soft": 2,
    "mean_over_width": 2,
    "mean_by_hand": 1,
    "norm_by_hand": 2,
    "picked_tokens": 2,
    "windows_of_tokens": 2,
    "embedding_bag": 2,
    "weight_norm_hook": 3,
    "weight_norm": 3,
    "spectral_norm_hook": 2,
    "spectral_norm": 2,
    "depends_on_size": 4,
    "depends_on_width": 4,
    "depends_on_less": 0,
    "scaled_by_width": 2,
    "dataclass_out": 2,
    "parameter_list": 3,
    "own_statistics": 3,
    "plain_tables": 3,
    "checkpoint": 2,
    "own_function": 3,
    "own_forward": 2,
    "hyper_network": 1,
    "local_response_norm": 1,
    "siamese_difference": 2,
    "siamese_cosine": 2,
    "register_tokens": 2,
    "images_in_text": 3,
    "added_by_index": 2,
    "attention_rotary_complex": 2,
    "attention_partly_rotary": 2,
    "queries_from_zeros": 3,
    "remembered_positions": 2,
    "one_vector": 2,
    "adapted": 3,
    "diagonals": 2,
    "mixed_kernels": 2,
    "scan_into_zeros": 2,
    "attention_solved": 2,
    "norm_of_rows": 3,
    "messages": 2,
    "messages_largest": 2,
    "graph_attention": 2,
    "layer_for_each_degree": 3,
    "gates_by_index": 3,
    "unpooled": 2,
    "warped": 2,
    "in_pairs": 4,
    "lstm_one_step": 2,
    "asserted_width": 2,
}

# What the engine only locks today, or takes for a single unit, though a cleverer one could cut it:
# (toy, group, words of the reason): why.
LOCKED_FOR_NOW = {
    (
        "split_literal",
        "stem.0",
        "split_with_sizes",
    ): "the sizes stand in the code, only a new one could follow",
    ("slice_literal", "stem.0", "slice"): "the border stands in the code, only a new one could follow",
    ("scaled_by_width", "a.0", "worked out of a size"): "the masked model could be told the factor of the cut one",
    ("one_head_scale_of_width", "q", "worked out of a size"): "the masked model could be told the scale of the cut one",
    ("one_head_fused", "q", "worked out of a size"): "the masked model could be told the scale of the cut one",
    ("mean_by_hand", "a", "worked out of a size"): "the masked model could be told the number of the cut one",
    (
        "attention_split_sizes",
        "qkv",
        "does not follow a cut",
    ): "its sizes are products of two numbers of heads, which would have to be bound at once",
    (
        "write_into_slice",
        "a.0",
        "copy_",
    ): "a write into a part could put the labels there, but the borders stand in the code",
    (
        "constant_gather",
        "stem.0",
        "index",
    ): "the index would have to be counted anew, and numbers in tensors are never changed",
    ("depends_on_less", "stem.0", "does not follow a cut"): "the branch could stay if the width stays above the limit",
    ("asserted_width", "a", "AssertionError"): "the width stands in the code, only a new one could follow",
    ("hyper_network", "weight", "shape"): "the shape stands in the code, only a new one could follow",
}

# What has to stay: neighbours among channels, or an order, are part of the function.
LOCKED_FOR_GOOD = {
    ("pooled_channels", "a.0", "pool"),
    ("local_response_norm", "a", "avg_pool3d"),
    ("fourier_channels", "enter", "_fft_c2c"),
    ("codebook", "book", "argmin"),
    ("attention_relative_position", "table", "index"),
    ("warped", "places", "places to sample at"),
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
    "pixel_unshuffle": {"stem.0": 6},
    "slice_halves": {"stem.0": 6},
    "slice_strided": {"stem.0": 6},
    "unfold_fold": {"stem.0": 6, "back": 7},
    "attention_rotary_pairs": {"q": 4},
    "attention_multi_query": {"q": 4},
    "attention_einsum_parameters": {"q": 4},
    "experts_stacked": {"gate": 3},
    "experts_soft": {"up#2": 9, "down": 12},
    "c2f": {"enter.0": 4},
    "shuffle_dense": {"a.0": 6},
    "rotary_layer": {"q": 6},
    "mamba": {"in_proj": 8, "x_proj": 4, "x_proj#2": 3},
    "lstm": {"rnn": 6},
    "attention_windows": {"patch": 4},
    "channel_attention": {"enter": 4},
    "attention_separate": {"q": 4},
    "attention_fused": {"qkv": 4},
    "attention_grouped_query": {"q": 2},
    "mha_batch_first": {"attention": 4},
    "norm_of_rows": {"a.0": 4, "a.1": 4},
    "attention_partly_rotary": {"q": 4},
    "graph_attention": {"a": 4},
    "gates_by_index": {"rise": 5},
}
# A part of the cost does not grow with the batch: the products that make a weight, or what all examples share.
COMPUTED_WEIGHTS = {
    "spectral_norm",
    "spectral_norm_hook",
    "hyper_network",
    "remembered_positions",
    "one_vector",
    "adapted",
    "mixed_kernels",
}
HEADLESS = {"attention_split_sizes"}
HEADS = [n for n in LEAST if n.startswith(("attention", "cross", "mha", "transformer")) and n not in HEADLESS]


@cache
def traced(name: str) -> tuple[nn.Module, Any, PruningGraph]:
    """The toy, its inputs and its graph; norms have statistics of their own, as after training."""
    torch.manual_seed(0)
    model, example = patterns()[name]()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model, example, trace(model, example)


def repeated(example: Any, times: int) -> Any:
    """The example inputs, so many times in one batch."""
    if isinstance(example, dict):
        return {name: repeated(t, times) for name, t in example.items()}
    return example.repeat(times, *[1] * (example.dim() - 1))


def leaves(output: Any) -> list[Tensor]:
    """Every tensor of a nested output."""
    return list(output_tensors(output))


def test_every_toy_has_a_least_number():
    assert set(LEAST) == set(patterns())


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


# How many rows an expert gets depends on the numbers, so the cost does, too.
ROUTED = {"experts_routed"}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [name for name in LEAST if name not in ROUTED])
def test_the_cost_is_the_cost_of_the_cut_model(name: str, seed: int):
    model, example, graph = traced(name)
    # Of an axis of one, einsum makes a pointwise product, which PyTorch's counter does not count.
    plan = random_plan(graph, seed, least=2)
    cost, dense = graph.cost(plan.widths), graph.cost()
    assert (cost.macs, cost.params) == counted(cut(model, plan), example)
    assert (dense.macs, dense.params) == counted(cut(model, make_plan(graph, {})), example)
    if any(g.width > 2 for g in graph.prunable):
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
    if name not in COMPUTED_WEIGHTS:
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


@pytest.mark.parametrize(("name", "group", "words"), [*LOCKED_FOR_NOW, *sorted(LOCKED_FOR_GOOD)])
def test_what_is_locked_says_where(name: str, group: str, words: str):
    """A failure here may be good news: move the toy from LOCKED_FOR_NOW to LEAST."""
    _, _, graph = traced(name)
    assert graph[group].locked or graph[group].width == 1, "this can be cut now"
    assert graph[group].locked or not words
    assert words in graph[group].reason


def test_the_two_halves_of_a_gate_go_together():
    _, _, graph = traced("chunk_glu")
    member = next(m for m in graph["both.0"].members if m.tensor == "both.0.weight" and m.axis == 0)
    assert sorted(member.positions[2].tolist()) == [2, 9]


def test_a_channel_is_sixteen_columns_behind_flatten():
    _, _, graph = traced("flatten_linear")
    member = next(m for m in graph["conv.0"].members if m.tensor == "a.weight")
    assert (member.axis, member.role) == (1, "in")
    assert member.positions[3].tolist() == list(range(48, 64))


def test_a_row_of_a_map_that_is_convolved_is_no_unit():
    class Decoder(nn.Module):
        """What comes out is a constant, so comparing with the masked model would not tell."""

        def __init__(self) -> None:
            super().__init__()
            self.shape = (2, 3, 3)
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 18)
            self.up, self.norm = nn.ConvTranspose2d(2, 1, 2, 2), nn.LayerNorm((1,))

        def forward(self, x: Tensor) -> Tensor:
            y = self.up(self.b(self.a(x).relu()).view(-1, *self.shape))
            return self.norm(y.movedim(1, 3)).mean((1, 2))

    graph = trace(Decoder(), torch.randn(2, 4))
    assert graph["b"].width == 2
    member = next(m for m in graph["b"].members if m.tensor == "b.weight")
    assert member.positions[1].tolist() == list(range(9, 18))


def test_a_head_is_its_rows_of_queries_keys_and_values():
    _, _, graph = traced("attention_fused")
    member = next(m for m in graph["qkv"].members if m.tensor == "qkv.weight")
    assert sorted(member.positions[1].tolist()) == [3, 4, 5, 15, 16, 17, 27, 28, 29]
