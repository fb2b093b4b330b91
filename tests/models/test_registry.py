"""Any model by name, and what a wrong name gets."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from secateur import models
from secateur._errors import FileError, UnknownName, UsageError, WeightsError


def test_names_have_one_line_each():
    entries = models.names() + models.sources()
    assert len({entry.name for entry in entries}) == len(entries)
    assert all(entry.description and "\n" not in entry.description for entry in entries)


@pytest.mark.parametrize("name", ["cifar-resnet57", "torchvision:resnt18", "timm:resnet19x", "timm:resnet18.a1_in1x"])
def test_an_unknown_name_gets_the_nearest(name: str):
    with pytest.raises(UnknownName, match="did you mean"):
        models.build(name)
    with pytest.raises(UnknownName, match="did you mean"):
        models.default_input_shape(name)


def test_an_unknown_name_is_not_a_matter_of_pretrained():
    with pytest.raises(UnknownName):
        models.build("cifar-resnet57", pretrained=True)
    with pytest.raises(UsageError, match="no published weights for 'lenet5'"):
        models.build("lenet5", pretrained=True)


def test_torchvision():
    model = models.build("torchvision:squeezenet1_1", num_classes=5)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert models.default_input_shape("torchvision:resnet18") == (3, 224, 224)
    assert models.default_input_shape("torchvision:inception_v3") == (3, 299, 299)
    assert models.default_input_shape("torchvision:raft_small") is None
    with pytest.raises(UsageError, match="takes 3 channels, not 1"):
        models.build("torchvision:resnet18", in_channels=1)


def test_torchvision_googlenet_is_quiet():
    models.build("torchvision:googlenet")


def test_timm():
    model = models.build("timm:resnet10t", num_classes=5, in_channels=1)
    assert model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 5)
    assert models.default_input_shape("timm:resnet50.a1_in1k") == (3, 224, 224)


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch):
    def offline(*args: object, **kwargs: object) -> None:
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        raise URLError("name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    for name in ("torchvision:squeezenet1_1", "timm:resnet10t"):
        with pytest.raises(WeightsError, match="is there a network"):
            models.build(name, pretrained=True)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_pretrained_weights_with_another_classifier(monkeypatch: pytest.MonkeyPatch):
    source = models.build("torchvision:squeezenet1_1").state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: source)
    model = models.build("torchvision:squeezenet1_1", num_classes=3, pretrained=True)
    state = model.state_dict()
    assert state["classifier.1.weight"].shape[0] == 3
    assert all(torch.equal(state[k], v) for k, v in source.items() if not k.startswith("classifier.1"))


def test_file_and_function(tmp_path: Path):
    file = tmp_path / "mine.py"
    (tmp_path / "neighbour.py").touch()
    file.write_text(
        "from torch import nn\nimport neighbour\n"
        "def net(num_classes=4):\n    return nn.Linear(3, num_classes)\n"
        "def plain():\n    return nn.Linear(3, 2)\n"
        "def number():\n    return 7\n"
        "def broken():\n    raise RuntimeError('no luck')\n"
    )
    for function, classes, expected in (("net", None, 4), ("net", 9, 9), ("plain", 9, 2)):
        model = models.build(f"{file}:{function}", num_classes=classes)
        assert isinstance(model, nn.Linear)
        assert model.out_features == expected
    assert models.default_input_shape(f"{file}:net") is None
    with pytest.raises(UnknownName, match="did you mean 'plain'"):
        models.build(f"{file}:plane")
    with pytest.raises(UsageError, match="returned a int"):
        models.build(f"{file}:number")
    with pytest.raises(UsageError, match="no luck"):
        models.build(f"{file}:broken")
    with pytest.raises(FileError, match="does not exist"):
        models.build(f"{tmp_path}/absent.py:net")
    (tmp_path / "bad.py").write_text("def (")
    with pytest.raises(UsageError, match="cannot be imported: SyntaxError"):
        models.build(f"{tmp_path}/bad.py:net")


def test_numbers_that_make_no_sense():
    with pytest.raises(UsageError, match="num_classes=0"):
        models.build("lenet5", num_classes=0)
