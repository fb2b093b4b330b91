"""A budget chose the widths: whether a configuration says them is found out when files are written."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from secateur._errors import UsageError
from secateur.budget import Budget, plan
from secateur.graph import trace
from secateur.graph.trees import output_tensors
from secateur.scores import score
from secateur.surgery import Plan, config, cut, load, make_plan, pretrained, save
from surgery.hugging_face_models import build, inputs

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _no_bars():
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def even(model: Any, name: str, share: float = 0.6, **options: Any) -> Plan:
    """The same share of every group, so that layers come out alike."""
    graph = trace(model, inputs(name))
    return plan(graph, score(graph, "l1"), Budget(params=share), ranking="layer", round_to=4, **options)


def narrowed(model: Any, name: str, part: str, units: int) -> Plan:
    """So many units of every group with ``part`` in its name, and nobody has looked whether a configuration says it."""
    graph = trace(model, inputs(name))
    return make_plan(graph, {g.name: range(units) for g in graph.prunable if part in g.name})


def assert_read_back(small: Any, example: dict[str, torch.Tensor], folder: Path) -> None:
    back = type(small).from_pretrained(folder).eval()
    with torch.no_grad():
        for mine, theirs in zip(output_tensors(small(**example)), output_tensors(back(**example)), strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6)


def test_planning_and_cutting_build_nothing_and_writing_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, example = build("llama"), inputs("llama")
    trials: list[Any] = []
    real = config.built
    for module in (config, pretrained):
        monkeypatch.setattr(module, "built", lambda *asked: (trials.append(asked), real(*asked))[1])
    made = even(model, "llama")
    small: Any = cut(model, made)
    assert not trials
    assert made.config == ()
    assert "config" not in made.why
    small.save_pretrained(tmp_path)
    assert trials
    assert (
        small.config.intermediate_size
        == small.model.config.intermediate_size
        == len(small.model.layers[0].mlp.up_proj.weight)
    )
    assert model.config.intermediate_size == 48
    said = small.secateur_plan
    assert f"intermediate_size={small.config.intermediate_size}" in said.why["config"].split(", ")
    assert said.config == even(model, "llama", uniform=True).config
    assert_read_back(small, example, tmp_path)


def test_copies_parts_and_restored_models_find_it_out_too(tmp_path: Path):
    model, example = build("llama"), inputs("llama")
    small: Any = cut(model, even(model, "llama"))
    save(small, tmp_path / "ours")
    restored: Any = load(tmp_path / "ours", model=build("llama"))
    for k, one in enumerate((copy.deepcopy(small), pickle.loads(pickle.dumps(small)), restored, small)):
        folder = tmp_path / str(k)
        one.save_pretrained(folder)
        assert_read_back(one, example, folder)
    small = cut(model, even(model, "llama"))
    small.model.save_pretrained(tmp_path / "part")
    assert_read_back(small.model, example, tmp_path / "part")
    assert small.config.intermediate_size < 48
    assert "save_pretrained" not in vars(small)


@pytest.mark.parametrize("uniform", [False, True])
def test_what_was_cut_before_is_brought_in_line_before_the_next_cut(uniform: bool, tmp_path: Path):
    model, example = build("llama"), inputs("llama")
    first: Any = cut(model, narrowed(model, "llama", "mlp", 40))
    assert first.config.intermediate_size == 48
    again = even(first, "llama", 0.9, uniform=True) if uniform else narrowed(first, "llama", "q_proj", 1)
    second: Any = cut(first, again)
    second.save_pretrained(tmp_path)
    assert first.config.intermediate_size == 40
    assert second.config.intermediate_size <= 40
    assert second.config != first.config
    assert_read_back(second, example, tmp_path)


def test_a_field_that_was_empty_says_it(tmp_path: Path):
    model = build("gpt2")
    assert model.config.n_inner is None
    small: Any = cut(model, narrowed(model, "gpt2", "c_fc", 64))
    small.save_pretrained(tmp_path)
    assert small.config.n_inner == 64
    assert model.config.n_inner is None
    assert_read_back(small, inputs("gpt2"), tmp_path)


def test_what_no_configuration_says_is_refused_and_nothing_is_written(tmp_path: Path):
    model = build("gpt2")
    dense = model.config.to_dict()
    small: Any = cut(model, narrowed(model, "gpt2", "c_attn", 3))
    for one in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), small.transformer, small, small):
        with pytest.raises(UsageError, match=r"no fields of GPT2Config give these shapes(.|\n)*uniform=True"):
            one.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert small.config.to_dict() == dense
    assert small.secateur_plan.config == ()


def test_a_class_that_its_configuration_does_not_build(tmp_path: Path):
    model = build("llama")
    model.lm_head = torch.nn.Linear(32, 50, bias=False)
    small: Any = cut(model, narrowed(model, "llama", "mlp", 24))
    with pytest.raises(UsageError, match="does not build the model that was cut"):
        small.save_pretrained(tmp_path)
