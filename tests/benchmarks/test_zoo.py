"""The names of the zoo, how they are chosen, and that every kind of model and input can be built."""

from __future__ import annotations

import pytest
import torch
from benchmarks.hf_models import FAMILIES
from benchmarks.zoo import QUICK, build, counts_vary, names, output_layers, output_shapes, published, select, types
from torch import nn

from secateur._errors import InputError, UsageError


def test_the_zoo_has_every_part_and_no_name_twice():
    zoo = names()
    assert len(zoo) == len(set(zoo))
    for part in ("torchvision:resnet", "torchvision:video.", "torchvision:detection.", "timm:", "hf:"):
        assert any(name.startswith(part) for name in zoo)
    assert set(QUICK) <= set(zoo)


def test_published_sizes_are_of_families_of_the_zoo_and_not_part_of_it():
    assert {name.removeprefix("hf-published:") for name in published()} < set(FAMILIES)
    assert not set(published()) & set(names())


def test_types_of_transformers_are_listed_once_and_made_small():
    found = types()
    assert len(found) == len(set(found)) > 300
    assert not set(found) & set(names())
    pytest.importorskip("transformers")
    model, inputs = build("hf-type:bart")
    assert sum(p.numel() for p in model.parameters()) < 300_000
    assert output_shapes(model, inputs) == output_shapes(*build("hf-type:bart"))
    with pytest.raises(InputError, match="no small configuration of 'rag' runs"):
        build("hf-type:rag")


def test_patterns_match_with_the_family_or_without():
    zoo = ["torchvision:resnet18", "timm:resnet18", "torchvision:video.r3d_18"]
    assert select(zoo, []) == zoo
    assert select(zoo, ["resnet18"]) == zoo[:2]
    assert select(zoo, ["video.*", "timm:*"]) == zoo[1:]


def test_every_pattern_that_matches_nothing_is_named():
    with pytest.raises(UsageError) as caught:
        select(["torchvision:resnet18", "hf:bert"], ["resnet81", "bert", "xyz*"])
    text = str(caught.value)
    assert "'resnet81'" in text
    assert "'xyz*'" in text
    assert "did you mean 'torchvision:resnet18'?" in text
    assert "'bert'" not in text


@pytest.mark.parametrize(
    "name",
    ["torchvision:detection.ssdlite320_mobilenet_v3_large", "torchvision:shufflenet_v2_x0_5", "hf:t5", "hf:clip"],
)
def test_a_model_runs_on_its_inputs(name: str):
    if name.startswith("hf:"):
        pytest.importorskip("transformers")
    model, inputs = build(name)
    assert not model.training
    shapes = output_shapes(model, inputs, counts_vary(name))
    assert shapes == output_shapes(*build(name), counts_vary(name))
    assert shapes


def test_detectors_with_random_weights_find_boxes():
    model, inputs = build("torchvision:detection.fasterrcnn_mobilenet_v3_large_320_fpn")
    assert all(shape[0] for shape in output_shapes(model, inputs))


def test_every_transformer_has_a_kind_of_input_and_a_class():
    transformers = pytest.importorskip("transformers")
    for config, model, _, _ in FAMILIES.values():
        assert hasattr(transformers, config)
        assert hasattr(transformers, model)


def test_output_layers_are_known_by_the_width_of_an_output():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8, 10), nn.Linear(10, 5))
    assert output_layers(model, [(1, 5)]) == [model[3]]
    assert output_layers(model, [(1, 8, 2, 2), (1, 4, 10)]) == [model[0], model[2]]


def test_outputs_whose_number_varies_are_compared_without_it():
    class Boxes(nn.Module):
        def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            return [{"boxes": x, "labels": x[:, 0]}]

    assert output_shapes(Boxes(), torch.zeros(7, 4), "number") == [(4,), ()]
    assert output_shapes(Boxes(), torch.zeros(7, 4), "length") == [(7,), (7,)]
    assert output_shapes(Boxes(), {"x": torch.zeros(7, 4)}) == [(7, 4), (7,)]
