"""The built-in networks against the published counts, and against trained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from secateur import models
from secateur._errors import UsageError
from secateur.models.cifar_resnet import PadShortcut, cifar_resnet
from secateur.models.cifar_vgg import CifarVGG

# (MACs of convolutions and matrix products, parameters), computed from the papers' shapes.
COUNTS = {
    "cifar-resnet20": (40_551_040, 269_722),
    "cifar-resnet32": (68_862_592, 464_154),
    "cifar-resnet44": (97_174_144, 658_586),
    "cifar-resnet56": (125_485_696, 853_018),
    "cifar-resnet110": (252_887_680, 1_727_962),
    "cifar-vgg16": (313_201_664, 14_724_042),
    "cifar-vgg19": (398_136_320, 20_035_018),
    "lenet5": (2_293_000, 431_080),
    "digits-resnet": (6_573_312, 696_042),
}


def count(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """(MACs, parameters) by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


def test_every_built_in_has_a_count():
    assert {entry.name for entry in models.names()} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str):
    shape = models.default_input_shape(name)
    assert shape is not None
    assert count(models.build(name), shape) == COUNTS[name]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(20, (40_813_184, 272_474)), (56, (125_747_840, 855_770)), (110, (253_149_824, 1_730_714))],
)
def test_counts_with_convolution_shortcuts(depth: int, expected: tuple[int, int]):
    assert count(cifar_resnet(depth, shortcut="conv"), (3, 32, 32)) == expected


def test_counts_of_vgg16_a():
    widths = (32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256)
    assert count(CifarVGG(16, widths=widths), (3, 32, 32)) == (206_146_048, 5_261_866)


@pytest.mark.parametrize("name", ["cifar-resnet20", "cifar-vgg16", "lenet5", "digits-resnet"])
def test_classes_and_channels_are_passed_on(name: str):
    shape = models.default_input_shape(name)
    assert shape is not None
    model = models.build(name, num_classes=7, in_channels=2)
    assert model.eval()(torch.zeros(3, 2, *shape[1:])).shape == (3, 7)


def test_the_initialisation_is_he_fan_out():
    conv = models.build("cifar-vgg16").get_submodule("features.7")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    gammas = [m.weight for m in models.build("cifar-vgg19").modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(g, torch.full_like(g, 0.5)) for g in gammas)


def test_the_padded_shortcut_is_exact():
    x = torch.randn(2, 5, 8, 8)
    out = PadShortcut(5, 12, 2)(x)
    assert out.shape == (2, 12, 4, 4)
    assert torch.equal(out[:, 3:8], x[:, :, ::2, ::2])
    assert out[:, :3].abs().sum() == out[:, 8:].abs().sum() == 0


def test_depths_and_widths_that_do_not_fit():
    with pytest.raises(UsageError, match="6n \\+ 2"):
        cifar_resnet(21)
    with pytest.raises(UsageError, match="16 or 19"):
        CifarVGG(11)
    with pytest.raises(UsageError, match="13 convolutions, but 2"):
        CifarVGG(16, widths=(8, 8))


def first_test_images(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """The first test images, normalised as the weights were trained, and their labels."""
    from PIL import Image

    mosaic = np.array(Image.open(folder / "cifar10_test_10000.webp").convert("RGB"))
    tiles = mosaic.reshape(100, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)[:count]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    labels = np.load(folder / "cifar10_labels.npz")["test_y"][:count]
    return (torch.from_numpy(tiles.copy()).float() / 255 - mean) / std, torch.from_numpy(labels).long()


def test_published_resnet20_weights_reach_their_accuracy(shared_data: Path):
    model = models.build("cifar-resnet20", weights=shared_data / "resnet20_cifar10_akamaster.safetensors").eval()
    x, y = first_test_images(shared_data, 1000)
    with torch.inference_mode():
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    assert accuracy > 0.90


@pytest.mark.parametrize("depth", [32, 56])
def test_the_other_published_weights_load(shared_data: Path, depth: int):
    models.build(f"cifar-resnet{depth}", weights=shared_data / f"resnet{depth}_cifar10_akamaster.safetensors")
