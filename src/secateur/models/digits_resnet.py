"""A small residual network for 8x8 grey digits: what the demo prunes."""

from __future__ import annotations

from secateur.models.cifar_resnet import CifarResNet


def digits_resnet(num_classes: int = 10, in_channels: int = 1) -> CifarResNet:
    """Stages of 32/64/128 channels at 8x8, 4x4 and 2x2 pixels, two blocks each, 1x1-convolution shortcuts.

    Wide for its data on purpose: the time goes into convolutions, so fewer MACs are fewer milliseconds.
    """
    return CifarResNet((2, 2, 2), (32, 64, 128), num_classes, in_channels, shortcut="conv")
