"""The built-in networks against the published counts, and against trained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import secateur as sc
from secateur import models
from secateur._errors import UsageError
from secateur.models.cifar_densenet import cifar_densenet
from secateur.models.cifar_preresnet import cifar_preresnet
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
    "cifar-preresnet20": (33_737_216, 219_482),
    "cifar-preresnet56": (87_214_592, 590_426),
    "cifar-preresnet110": (167_430_656, 1_146_842),
    "cifar-preresnet164": (247_646_720, 1_703_258),
    "cifar-densenet40": (282_917_328, 1_059_298),
    "cifar-densenet-bc100": (287_929_692, 769_162),
    "vgg16-gap": (15_347_142_656, 15_227_688),
    "mobilenet-v1": (568_740_352, 4_231_976),
    "tas-resnet20-cifar10": (22_444_472, 228_130),
    "tas-resnet32-cifar10": (34_945_344, 320_539),
    "tas-resnet56-cifar10": (59_858_430, 449_307),
    "tas-resnet110-cifar10": (119_259_258, 795_864),
    "tas-resnet32-cifar100": (42_468_608, 427_330),
    "tas-resnet56-cifar100": (61_233_836, 470_977),
    "tas-resnet110-cifar100": (119_578_284, 843_653),
    "tas-resnet18-imagenet": (1_210_757_120, 11_275_098),
    "tas-resnet50-imagenet": (2_309_248_169, 18_624_362),
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


@pytest.mark.parametrize("depth", [20, 56, 110, 164])
def test_pre_activation_counts_by_hand(depth: int):
    n, macs, params, stream = (depth - 2) // 9, 432 * 32**2, 432, 16
    for stage, width in enumerate((16, 32, 64)):
        before = after = (32 >> stage) ** 2
        if stage:
            before = 4 * after
        for i in range(n):
            inside, out = 9 * width * width + width * 4 * width, 4 * width
            macs += stream * width * (before if i == 0 else after) + inside * after
            params += stream * width + inside + 2 * (stream + 2 * width)
            if i == 0:
                macs += stream * out * after
                params += stream * out
            stream = out
    assert (macs + 2560, params + 2 * 256 + 2570) == COUNTS[f"cifar-preresnet{depth}"]


@pytest.mark.parametrize(("name", "bottleneck"), [("cifar-densenet40", False), ("cifar-densenet-bc100", True)])
def test_dense_counts_by_hand(name: str, bottleneck: bool):
    layers, c = (16, 24) if bottleneck else (12, 24)
    macs, params = 27 * c * 32**2, 27 * c
    for stage in range(3):
        area = (32 >> stage) ** 2
        for _ in range(layers):
            weights = c * 48 + 9 * 48 * 12 if bottleneck else 9 * c * 12
            macs += weights * area
            params += weights + 2 * c + (96 if bottleneck else 0)
            c += 12
        if stage < 2:
            kept = c // 2 if bottleneck else c
            macs += c * kept * area
            params += c * kept + 2 * c
            c = kept
    assert (macs + 10 * c, params + 2 * c + 10 * c + 10) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vgg11_bn", (7_609_090_048, 132_868_840)), ("vgg16_bn", (15_470_264_320, 138_365_992))],
)
def test_counts_of_torchvision_vggs(name: str, expected: tuple[int, int]):
    assert count(models.build(f"torchvision:{name}"), (3, 224, 224)) == expected


def test_where_batch_norms_start():
    def scales(name: str) -> set[float]:
        norms = (m for m in models.build(name).modules() if isinstance(m, nn.BatchNorm2d))
        return {value for m in norms for value in m.weight.tolist()}

    slimmed = ("cifar-vgg16", "cifar-vgg19", "cifar-preresnet164", "cifar-densenet40")
    assert [scales(name) for name in slimmed] == [{0.5}] * 4
    assert [scales(name) for name in ("cifar-resnet20", "cifar-preresnet110", "cifar-densenet-bc100")] == [{1.0}] * 3


@pytest.mark.parametrize("name", ["cifar-preresnet20", "cifar-densenet40", "cifar-densenet-bc100", "cifar-vgg19"])
def test_half_of_it_is_cut_exactly(name: str):
    model, x = models.build(name).eval(), torch.zeros(1, 3, 32, 32)
    graph = sc.trace(model, x)
    plan = sc.plan(graph, sc.score(graph, "l1"), sc.Budget(macs=0.5))
    assert sc.verify(model, plan, x).exact
    assert count(sc.cut(model, plan), (3, 32, 32))[0] == plan.why["macs"] <= 0.5 * COUNTS[name][0]


def test_counts_of_vgg16_a():
    widths = (32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256)
    assert count(CifarVGG(16, widths=widths), (3, 32, 32)) == (206_146_048, 5_261_866)


@pytest.mark.parametrize(
    "name",
    ["cifar-resnet20", "cifar-vgg16", "cifar-preresnet20", "cifar-densenet40", "vgg16-gap", "lenet5", "digits-resnet"],
)
def test_classes_and_channels_are_passed_on(name: str):
    shape = models.default_input_shape(name)
    assert shape is not None
    model = models.build(name, num_classes=7, in_channels=2)
    assert model.eval()(torch.zeros(3, 2, *shape[1:])).shape == (3, 7)


def test_the_initialisation_is_he_fan_out():
    conv = models.build("cifar-vgg16").get_submodule("features.7")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_the_padded_shortcut_is_exact():
    x = torch.randn(2, 5, 8, 8)
    out = PadShortcut(5, 12, 2)(x)
    assert out.shape == (2, 12, 4, 4)
    assert torch.equal(out[:, 3:8], x[:, :, ::2, ::2])
    assert out[:, :3].abs().sum() == out[:, 8:].abs().sum() == 0


def test_depths_and_widths_that_do_not_fit():
    with pytest.raises(UsageError, match="6n \\+ 2"):
        cifar_resnet(21)
    with pytest.raises(UsageError, match="9n \\+ 2"):
        cifar_preresnet(44)
    with pytest.raises(UsageError, match="6n \\+ 4"):
        cifar_densenet(43, bottleneck=True)
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
