"""The table of built-in networks, and how any model name is resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from secateur._errors import UnknownName, UsageError
from secateur._user_code import is_user_code
from secateur.models.cifar_densenet import cifar_densenet
from secateur.models.cifar_preresnet import cifar_preresnet
from secateur.models.cifar_resnet import cifar_resnet
from secateur.models.cifar_vgg import CifarVGG
from secateur.models.digits_resnet import digits_resnet
from secateur.models.hugging_face import build_hugging_face, has_weights, hugging_face_input_shape
from secateur.models.lenet5 import LeNet5
from secateur.models.mobilenet_v1 import MobileNetV1
from secateur.models.released_shapes import RELEASED, RELEASED_IMAGENET, released_imagenet, released_resnet
from secateur.models.timm_models import build_timm, timm_input_shape
from secateur.models.torchvision_models import build_torchvision, torchvision_input_shape
from secateur.models.user_file import build_from_file
from secateur.models.vgg_gap import VGGGap
from secateur.models.weights import load_weights


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``secateur models``.

    Attributes:
        name: what to write.
        description: one line.
        input_shape: (channels, height, width) of one image, None where it depends on the model.
    """

    name: str
    description: str
    input_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _BuiltIn:
    builder: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    description: str


_CIFAR = (3, 32, 32)
_RESNET = "CIFAR ResNet-{}, {} blocks a stage, parameter-free shortcuts (He 2016)"
_PRERESNET = "CIFAR pre-activation ResNet-{}, {} bottlenecks a stage (He 2016b)"
_RELEASED_IMAGENET = "what TAS found and its authors released: {}, {}, {} and {} blocks, for ImageNet (Dong 2019)"
_RELEASED = "what TAS found and its authors released: {}, {} and {} blocks, for {} classes (Dong 2019)"
_BUILT_IN: dict[str, _BuiltIn] = {
    "lenet5": _BuiltIn(LeNet5, (1, 28, 28), "LeNet-5 as Caffe ships it: 20, 50, 800 -> 500 (LeCun 1998)"),
    "digits-resnet": _BuiltIn(digits_resnet, (1, 8, 8), "small residual network for 8x8 digits: what the demo prunes"),
    **{
        f"cifar-resnet{depth}": _BuiltIn(partial(cifar_resnet, depth), _CIFAR, _RESNET.format(depth, (depth - 2) // 6))
        for depth in (20, 32, 44, 56, 110)
    },
    "cifar-vgg16": _BuiltIn(partial(CifarVGG, 16), _CIFAR, "VGG-16 with BN and one linear layer (Simonyan 2015)"),
    "cifar-vgg19": _BuiltIn(partial(CifarVGG, 19), _CIFAR, "VGG-19 with BN and one linear layer (Simonyan 2015)"),
    **{
        f"cifar-preresnet{depth}": _BuiltIn(
            partial(cifar_preresnet, depth, bn_gamma=gamma), _CIFAR, _PRERESNET.format(depth, (depth - 2) // 9)
        )
        # Where the pruning papers start the BN scales of each of these nets.
        for depth, gamma in ((20, 0.5), (56, 0.5), (110, 1.0), (164, 0.5))
    },
    "cifar-densenet40": _BuiltIn(
        partial(cifar_densenet, 40, bn_gamma=0.5), _CIFAR, "CIFAR DenseNet-40, growth 12, no bottlenecks (Huang 2017)"
    ),
    "cifar-densenet-bc100": _BuiltIn(
        partial(cifar_densenet, 100, True), _CIFAR, "CIFAR DenseNet-BC-100, growth 12, bottlenecks (Huang 2017)"
    ),
    **{
        name: _BuiltIn(partial(released_resnet, name), _CIFAR, _RELEASED.format(*shape[1], shape[2]))
        for name, shape in RELEASED.items()
    },
    **{
        name: _BuiltIn(partial(released_imagenet, name), (3, 224, 224), _RELEASED_IMAGENET.format(*shape[2]))
        for name, shape in RELEASED_IMAGENET.items()
    },
    "mobilenet-v1": _BuiltIn(MobileNetV1, (3, 224, 224), "MobileNet-V1, 32 to 1024 channels (Howard 2017)"),
    "vgg16-gap": _BuiltIn(VGGGap, (3, 224, 224), "VGG-16 with global average pooling, for ImageNet (Luo 2017)"),
}
_SOURCES = (
    ModelEntry("torchvision:NAME", "any model of torchvision, as torchvision:resnet50"),
    ModelEntry("timm:NAME", "any model of timm, as timm:resnet50 or timm:resnet50.a1_in1k"),
    ModelEntry(
        "hf:DIR", "a folder that transformers' save_pretrained wrote; hf:NAME for one in its cache or on the hub"
    ),
    ModelEntry("file.py:function", "what your own function returns; it may take num_classes and in_channels"),
)


def names() -> list[ModelEntry]:
    """The built-in networks, in the table's order."""
    return [ModelEntry(name, entry.description, entry.input_shape) for name, entry in _BUILT_IN.items()]


def sources() -> list[ModelEntry]:
    """The other forms that a model name can have."""
    return list(_SOURCES)


def build(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
) -> nn.Module:
    """The model of that name, in training mode.

    Args:
        name: a built-in name, ``torchvision:NAME``, ``timm:NAME``, ``hf:DIR-or-NAME`` or ``file.py:function``.
        num_classes: passed on where it is accepted; by default the builder's own.
        in_channels: channels of the input, where the builder accepts it.
        pretrained: the library's published weights (torchvision, timm and hf only; needs the network once). Weights
            in the folder of ``hf:DIR`` are always read.
        weights: a safetensors file whose tensors are loaded last.

    Raises:
        UnknownName: no such model; the message has the nearest names.
        UsageError: arguments that do not fit the model.
        FileError, WeightsError: weights that cannot be read, fetched or do not fit.
    """
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is not None and value < 1:
            raise UsageError(f"{what}={value}: it has to be at least 1")
    library, _, rest = name.partition(":")
    if library == "torchvision" and rest:
        model = build_torchvision(rest, num_classes, in_channels, pretrained)
    elif library == "timm" and rest:
        model = build_timm(rest, num_classes, in_channels, pretrained)
    elif library == "hf" and rest:
        model = build_hugging_face(rest, num_classes, in_channels, pretrained)
    elif pretrained:
        if not is_user_code(name):
            _built_in(name)
        raise UsageError(
            f"there are no published weights for {name!r}: only torchvision:NAME, timm:NAME and hf:NAME have them\n"
            "give a file that you have: --weights FILE.safetensors"
        )
    elif is_user_code(name):
        model = build_from_file(name, num_classes, in_channels)
    else:
        given: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
        model = _built_in(name).builder(**{key: value for key, value in given.items() if value is not None})
    if weights is not None:
        load_weights(model, weights)
    return model


def default_input_shape(name: str) -> tuple[int, ...] | None:
    """(channels, height, width) of one input of that model; None where only its author knows.

    Raises:
        UnknownName: no such model.
    """
    library, _, rest = name.partition(":")
    if library == "torchvision" and rest:
        return torchvision_input_shape(rest)
    if library == "timm" and rest:
        return timm_input_shape(rest)
    if library == "hf" and rest:
        return hugging_face_input_shape(rest)
    if is_user_code(name):
        return None
    return _built_in(name).input_shape


def carries_weights(name: str) -> bool:
    """Whether the name alone may stand for a trained model: a folder with weights, or the user's own function."""
    library, _, rest = name.partition(":")
    return is_user_code(name) or (library == "hf" and has_weights(rest))


def _built_in(name: str) -> _BuiltIn:
    if name not in _BUILT_IN:
        raise UnknownName("model", name, _BUILT_IN, hint="or: " + ", ".join(entry.name for entry in _SOURCES))
    return _BUILT_IN[name]
