"""Networks of other libraries: how they are described, made and given inputs, and the page about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import libraries_page
import pytest
import torch
from benchmarks.library_models import build_library, described, installed, package_versions
from benchmarks.zoo import build, libraries, names

from benchmarks import library_models
from secateur._errors import InputError, UnknownName

TWO: dict[str, Any] = {
    "make": "torch.nn:Sequential",
    "with": {},
    "given": {"input": {"shape": [2, 4]}},
}
LAYER: dict[str, Any] = {
    "make": "torch.nn:TransformerEncoder",
    "with": {
        "encoder_layer": {
            "make": "torch.nn:TransformerEncoderLayer",
            "with": {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "batch_first": True},
        },
        "num_layers": 1,
    },
    "given": [{"shape": [1, 5, 8]}],
}
ODD = {"make": "torch.nn:Conv2d", "with": {"in_channels": 3, "no": {"list": [1]}}, "given": []}


@pytest.fixture
def of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Descriptions of networks of a package that is always there, and of one that never is."""
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"torch": {"two": TWO, "layer": LAYER, "odd": ODD}, "absent_package": {"net": TWO}}))
    monkeypatch.setattr(library_models, "MODELS", file)
    described.cache_clear()
    yield
    described.cache_clear()


def test_every_network_says_what_makes_it_and_what_it_is_given():
    assert sum(map(len, described().values())) > 250
    for package, models in described().items():
        for name, what in models.items():
            assert what.keys() == {"make", "with", "given"}, name
            assert what["make"].split(":")[0].split(".")[0] == package


def test_a_network_is_made_of_parts_and_woken(of_torch: None):
    model, (x,) = build("library:torch.layer")
    assert model(x).shape == (1, 5, 8)
    assert not model.training
    assert all(p.any() for p in model.parameters()), "biases begin as zeros"
    again, (other,) = build("library:torch.layer")
    assert torch.equal(model(x), again(other))


def test_what_is_not_installed_is_left_out_and_named(of_torch: None):
    assert installed() == ["torch.two", "torch.layer", "torch.odd"]
    assert libraries() == [f"library:{name}" for name in installed()]
    assert not set(libraries()) & set(names())
    assert package_versions() == {"torch": torch.__version__.partition("+")[0]}
    with pytest.raises(InputError, match="pip install --no-deps absent-package"):
        build_library("absent_package.net")
    with pytest.raises(UnknownName, match=r"torch\.two"):
        build_library("torch.too")
    with pytest.raises(InputError, match="torch does not make odd: TypeError"):
        build_library("torch.odd")


def test_every_way_of_giving_inputs():
    made = library_models._given(
        {
            "x": {"shape": [2, 3]},
            "ids": {"below": 5, "shape": [4]},
            "mask": {"fill": True, "shape": [1, 2], "dtype": "bool"},
            "edges": {"values": [[0, 1], [1, 0]], "dtype": "int64"},
            "sizes": [[1, 2], 3],
        },
        torch.Generator().manual_seed(0),
    )
    assert made["x"].shape == (2, 3)
    assert made["ids"].max() < 5
    assert made["mask"].tolist() == [[True, True]]
    assert made["edges"].dtype == torch.int64
    assert made["sizes"] == [[1, 2], 3]


def test_the_page_is_what_the_stored_result_gives():
    text = libraries_page.PAGE.read_text(encoding="utf-8")
    assert text == libraries_page.page(libraries_page.stored()), "run `make docs`"


def test_every_row_is_on_the_page_once():
    result = libraries_page.stored()
    lines = libraries_page.page(result).splitlines()
    packages = {row["name"].removeprefix("library:").partition(".")[0] for row in result["rows"]}
    assert sum(line.startswith("## ") for line in lines) == len(packages)
    assert sum(line.startswith("| `") for line in lines) == len(result["rows"])
    assert not any("Torch-Pruning" in line or "not run" in line for line in lines)
