"""Models of timm by name: ``timm:NAME`` or ``timm:NAME.TAG``."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from secateur._errors import UnknownName, UsageError
from secateur.models.pretrained import published_weights


def build_timm(name: str, num_classes: int | None, in_channels: int | None, pretrained: bool) -> nn.Module:
    """``timm.create_model``; with ``pretrained`` the weights of the name's tag or timm's default ones.

    Raises:
        UnknownName: timm has no such model.
        UsageError: it cannot be built with these arguments.
        WeightsError: the weights could not be fetched.
    """
    import timm

    _known(name)
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    options = {key: value for key, value in options.items() if value is not None}
    if pretrained:
        with published_weights(f"timm:{name}"):
            return timm.create_model(name, pretrained=True, **options)
    try:
        return timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"'timm:{name}' cannot be built with {options}: {error}") from error


def timm_input_shape(name: str) -> tuple[int, ...]:
    """(channels, height, width) of timm's configuration of the model; (3, 224, 224) where it has none.

    Raises:
        UnknownName: timm has no such model.
    """
    import timm

    _known(name)
    found = timm.get_pretrained_cfg(name)
    return tuple(found.input_size) if found is not None else (3, 224, 224)


def _known(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        # 1,300 names do not fit on a screen.
        near = difflib.get_close_matches(architecture, known, n=8, cutoff=0.4)
        raise UnknownName("timm model", name, near, hint=f"timm has {len(known)} models: timm.list_models('*word*')")
    if tag and name not in (tags := timm.list_pretrained(f"{architecture}.*")):
        raise UnknownName(f"weights of timm:{architecture}", name, tags)
