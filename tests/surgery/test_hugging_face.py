"""Cut models of transformers: their configuration follows, and plain transformers reads them back."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur._errors import BudgetError, UsageError
from secateur.budget import Budget, plan
from secateur.graph import PruningGraph, sizes, trace
from secateur.graph.trees import output_tensors
from secateur.scores import score
from secateur.surgery import Plan, cut, load, save, verify
from surgery.hugging_face_models import DECODER, FAMILIES, build, inputs

transformers = pytest.importorskip("transformers")
GENERATE = ("llama", "qwen2", "qwen3", "gemma2", "gpt2", "opt", "t5")


@pytest.fixture(autouse=True)
def _no_bars():
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def planned(model: Any, name: str, share: float = 0.7, **options: Any) -> tuple[PruningGraph, Plan]:
    graph = trace(model, inputs(name))
    return graph, plan(graph, score(graph, "l1"), Budget(params=share), round_to=4, **options)


def outputs(model: nn.Module, example: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(output_tensors(model(**example)))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_uniform_cut_is_read_back_by_plain_transformers(name: str, tmp_path: Path):
    model, example = build(name), inputs(name)
    _, made = planned(model, name, uniform=True)
    assert made.config
    assert made.why["params"] < 0.7 * made.why["dense_params"] + 1
    assert verify(model, made, example).exact
    small = cut(model, made)
    small.save_pretrained(tmp_path)
    back, seen = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not seen["missing_keys"]
    assert not seen["unexpected_keys"]
    assert not seen["mismatched_keys"]
    for mine, theirs in zip(outputs(small, example), outputs(back.eval(), example), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6)
    dense = [f for f in made.config if getattr(model.config, f.path, None) == f.value]
    assert not [f for f in dense if f.path != "head_dim"], "the dense model's own configuration has changed"


@pytest.mark.parametrize("name", list(FAMILIES))
def test_uneven_cut_is_restored_into_a_fresh_instance(name: str, tmp_path: Path):
    model, example = build(name), inputs(name)
    graph = trace(model, example)
    random = {g.name: torch.rand(g.width) * (k + 1) for k, g in enumerate(graph.prunable)}
    made = plan(graph, random, Budget(params=0.7), round_to=1)
    small = cut(model, made)
    save(small, tmp_path)
    back = load(tmp_path, model=type(model)(copy.deepcopy(model.config)))
    assert all(torch.equal(a, b) for a, b in zip(outputs(small, example), outputs(back, example), strict=True))


def generated(model: Any, tokens: torch.Tensor, cache: bool) -> torch.Tensor:
    config = transformers.GenerationConfig(
        max_new_tokens=6, do_sample=False, use_cache=cache, pad_token_id=0, eos_token_id=None, decoder_start_token_id=0
    )
    return model.generate(tokens, generation_config=config, attention_mask=torch.ones_like(tokens))


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("name", GENERATE)
def test_generation_with_the_cache_equals_recomputing(name: str, uniform: bool):
    model = build(name)
    small: Any = cut(model, planned(model, name, uniform=uniform)[1])
    tokens = torch.randint(3, 96, (1, 5))
    with_cache = generated(small, tokens, cache=True)
    assert with_cache.shape == (1, 7 if name == "t5" else 11)
    assert torch.equal(with_cache, generated(small, tokens, cache=False))


def uneven(model: Any, name: str) -> Plan:
    graph = trace(model, inputs(name))
    scores = {g.name: torch.ones(g.width) for g in graph.prunable}
    first = next(n for n in scores if "mlp" in n or "fc" in n)
    return plan(graph, scores, {first: scores[first].numel() // 2})


def test_an_uneven_cut_invents_no_configuration(tmp_path: Path):
    model = build("llama")
    made = uneven(model, "llama")
    assert made.config == ()
    assert "gate_proj is 24 or 48 wide" in made.why["config"]
    small: Any = cut(model, made)
    assert small.config.to_dict() == model.config.to_dict()
    for one in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small)), small.model):
        with pytest.raises(UsageError, match=r"24 or 48 wide(.|\n)*sc\.save(.|\n)*uniform=True"):
            one.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path)


def test_an_inner_model_is_kept_from_wrong_files_too(tmp_path: Path):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build("bert")

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.inner(tokens).logits

    model = Wrapper().eval()
    graph = trace(model, torch.randint(3, 96, (1, 6)))
    small: Any = cut(model, plan(graph, score(graph, "l1"), Budget(params=0.7)))
    with pytest.raises(UsageError, match="save_pretrained would write"):
        small.inner.save_pretrained(tmp_path)


def test_even_cut_without_uniform_has_its_configuration(tmp_path: Path):
    model = build("llama")
    graph = trace(model, inputs("llama"))
    scores = {g.name: torch.ones(g.width) for g in graph.prunable}
    made = plan(graph, scores, {n: 24 for n in scores if "mlp" in n})
    assert [str(f) for f in made.config] == ["intermediate_size=24"]
    assert Plan.from_json(made.to_json()) == made
    small: Any = cut(model, made)
    assert small.config.intermediate_size == small.model.config.intermediate_size == 24
    small.save_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["gemma", "gemma2"])
def test_what_no_field_says_stays_whole(name: str):
    # Embeddings are scaled by the root of hidden_size, wherever that came from; a stream of one channel would hide it.
    model = build(name)
    _, made = planned(model, name, 0.8, uniform=True)
    ((role, reason),) = made.why["held"].items()
    assert "o_proj" in role
    assert "hidden_size" in reason
    assert "computes something else" in reason
    assert made.widths["model.layers.0.self_attn.o_proj"] == 32


def test_heads_of_bert_go_hand_in_hand_with_its_stream():
    _, made = planned(build("bert"), "bert", 0.6, uniform=True)
    said = {f.path: f.value for f in made.config}
    assert said["hidden_size"] == 8 * said["num_attention_heads"] < 32


def test_fewer_heads_are_not_narrower_ones():
    """Half of the key heads and half of their width give the same shapes."""
    name = {"head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention"]}
    size = {"linear_num_key_heads": 4, "linear_num_value_heads": 8, "num_experts": 0, "num_hidden_layers": 1}
    model: Any = transformers.Qwen3NextForCausalLM(transformers.Qwen3NextConfig(**{**DECODER, **name, **size})).eval()
    graph = trace(model, inputs("llama"))
    (heads,) = [g for g in graph.prunable if g.kind == "head"]
    made = plan(graph, score(graph, "l1"), {heads.name: 2})
    assert [str(f) for f in made.config] == ["linear_num_key_heads=2", "linear_num_value_heads=4"]


@pytest.mark.parametrize("width", [32, 30])
def test_experts_of_odd_widths_are_gone_through_one_by_one(width: int, tmp_path: Path):
    model, example = build("mixtral"), inputs("mixtral")
    graph = trace(model, example)
    inner = {g.name: width for g in graph.prunable if g.width == 48}
    small: Any = cut(model, plan(graph, score(graph, "l1"), inner))
    want = "grouped_mm" if width == 32 else "eager"
    assert small.config._experts_implementation == want
    small.save_pretrained(tmp_path)
    back = type(small).from_pretrained(tmp_path).eval()
    assert back.config._experts_implementation == want
    for mine, theirs in zip(outputs(small, example), outputs(back, example), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6)
    assert model.config._experts_implementation == "grouped_mm"


def test_nothing_is_said_of_a_model_without_numbers():
    model = build("llama").to("meta")
    graph = trace(model, {name: t.to("meta") for name, t in inputs("llama").items()})
    scores = {g.name: torch.rand(g.width) for g in graph.prunable}
    with pytest.raises(BudgetError, match=r"gate_proj: the model lies on the meta device"):
        plan(graph, scores, Budget(params=0.7), uniform=True)
    even = {f"model.layers.{k}.mlp.gate_proj": 24 for k in range(2)}
    assert "lies on the meta device" in plan(graph, scores, even).why["config"]


def test_a_model_that_its_configuration_does_not_build():
    model = build("bert")
    model.bert.pooler.dense = nn.Linear(32, 40)
    model.classifier = nn.Linear(40, 2)
    graph = trace(model, inputs("bert"))
    made = plan(graph, score(graph, "l1"), Budget(params=0.7))
    assert made.config == ()
    even = plan(graph, score(graph, "l1"), {n: 24 for n in graph.widths if "intermediate" in n})
    assert "does not build this model: bert.pooler.dense.weight differs" in even.why["config"]


def test_sizes_read_from_a_shared_config_may_differ_by_layer():
    class Config:
        def __init__(self):
            self.heads = 6

    class Layer(nn.Module):
        def __init__(self, config: Any):
            super().__init__()
            self.config = config
            self.up, self.down = nn.Linear(8, config.heads * 4), nn.Linear(config.heads * 4, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = self.up(x).view(x.shape[0], x.shape[1], self.config.heads, 4)
            return x + self.down(heads.relu().flatten(2))

    config = Config()
    model = nn.Sequential(Layer(config), Layer(config), nn.Linear(8, 3)).eval()
    x = torch.randn(2, 5, 8)
    graph = trace(model, x)
    scores = {g.name: torch.rand(g.width) for g in graph.prunable}
    names = [n for n in scores if "up" in n]
    assert len(names) == 2
    made = plan(graph, scores, dict(zip(names, (scores[names[0]].numel() // 2, 1))))
    assert verify(model, made, x).exact
    small: Any = cut(model, made)
    assert small[0].config.heads != small[1].config.heads
    assert config.heads == 6


def test_write_gives_a_module_its_own_copy():
    class Config:
        def __init__(self):
            self.heads, self.sizes = 6, [3, 6]

    class Holder(nn.Module):
        def __init__(self, config: Any):
            super().__init__()
            self.config = config

    shared = Config()
    first, second = Holder(shared), Holder(shared)
    assert sizes.read(first, 6) == [("config.heads", None), ("config.sizes", 1)]
    sizes.write(first, "config.heads", 2)
    sizes.write(first, "config.sizes", 4, 1)
    sizes.write(first, "config.nothing", 4)
    sizes.write(first, "nothing.heads", 4)
    assert (first.config.heads, first.config.sizes) == (2, [3, 4])
    assert second.config is shared
    assert (shared.heads, shared.sizes) == (6, [3, 6])


def test_a_state_in_the_sizes_of_the_configuration_keeps_what_it_holds():
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, intermediate_size=48
    )
    model, example = transformers.RwkvModel(config).eval(), {"input_ids": torch.arange(6).view(1, 6)}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    graph = trace(model, example)
    assert set(graph.widths) == {"blocks.0.feed_forward.key", "blocks.1.feed_forward.key"}
    assert graph["blocks.0.attention.key"].reason
    made = plan(graph, score(graph, "l1"), Budget(macs=0.8))
    assert verify(model, made, example).exact
    small = cut(model, made)
    assert small.config.use_cache
    for with_state in (False, True):
        assert outputs(small, {**example, "use_cache": with_state})
