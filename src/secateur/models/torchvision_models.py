"""Models of torchvision by name: ``torchvision:NAME``."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur._errors import UnknownName, UsageError
from secateur.models.pretrained import published_weights

# Without this argument these two warn, and then spend seconds drawing from scipy's truncated normal.
QUIET: dict[str, dict[str, Any]] = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
OTHER_INPUTS = ("detection", "optical_flow", "video")


def build_torchvision(name: str, num_classes: int | None, in_channels: int | None, pretrained: bool) -> nn.Module:
    """``torchvision.models.get_model``; with ``pretrained`` its DEFAULT weights.

    With ``pretrained`` and another number of classes, all tensors but those of the classifier are the pretrained ones.

    Raises:
        UnknownName: torchvision has no such model.
        UsageError: it cannot be built with these arguments.
        WeightsError: the weights could not be fetched.
    """
    from torchvision import models

    _known(name)
    if in_channels not in (None, 3):
        raise UsageError(f"torchvision's {name} takes 3 channels, not {in_channels}\ntimm:NAME takes any number")
    options = QUIET.get(name, {})
    source = None
    if pretrained:
        with published_weights(f"torchvision:{name}"):
            source = models.get_model(name, weights="DEFAULT")
        if num_classes is None:
            return source
    if num_classes is not None:
        options = {**options, "num_classes": num_classes}
    try:
        # Detection and segmentation would otherwise fetch a pretrained backbone.
        if any(kind in _module(name) for kind in (".detection", ".segmentation")):
            options = {**options, "weights_backbone": None}
        model = models.get_model(name, weights=None, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"'torchvision:{name}' cannot be built with {options}: {error}") from error
    if source is not None:
        fresh, given = model.state_dict(), source.state_dict()
        fits = {k: v for k, v in given.items() if k in fresh and fresh[k].shape == v.shape}
        model.load_state_dict(fits, strict=False)
    return model


def torchvision_input_shape(name: str) -> tuple[int, ...] | None:
    """(3, height, width) at which the DEFAULT weights are evaluated, 224 pixels where there are none.

    None for models that take something else than one batch of images.

    Raises:
        UnknownName: torchvision has no such model.
    """
    from torchvision import models

    _known(name)
    if any(f".{kind}" in _module(name) for kind in OTHER_INPUTS):
        return None
    try:
        crop = models.get_model_weights(name)["DEFAULT"].transforms().crop_size
    except (ValueError, KeyError, AttributeError):
        crop = [224]
    return (3, crop[0], crop[-1])


def _module(name: str) -> str:
    from torchvision import models

    return models.get_model_builder(name).__module__


def _known(name: str) -> None:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise UnknownName("torchvision model", name, known)
