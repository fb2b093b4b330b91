"""How the built-in networks are initialised."""

from __future__ import annotations

from torch import nn


def initialise(model: nn.Module, bn_gamma: float = 1.0) -> None:
    """He-normal weights (convolutions fan-out, linear layers fan-in), zero biases, BN scale ``bn_gamma`` and shift 0.

    Linear layers take fan-in because fan-out of a classifier is its few classes: the first logits would be huge.
    Source: He et al. 2015 (arXiv 1502.01852); fan-out and BN gamma as in Liu et al. 2019 (arXiv 1810.05270).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, bn_gamma)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
