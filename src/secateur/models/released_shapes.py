"""Architectures that searches found and their authors released, for the searched residual networks.

From ``configs/NeurIPS-2019`` of D-X-Y/AutoDL-Projects (transformable architecture search, arXiv 1905.09717): facts of
the published networks, without the entry for the image's three channels.
"""

from __future__ import annotations

from secateur.models.searched_imagenet import SearchedImageNet
from secateur.models.searched_resnet import SearchedResNet

#: Name -> (width of every convolution of the full depth, blocks built of each stage, classes).
# fmt: off
RELEASED: dict[str, tuple[tuple[int, ...], tuple[int, int, int], int]] = {
    "tas-resnet20-cifar10": (
        (16, 6, 4, 4, 4, 4, 4, 32, 32, 12, 19, 32, 28, 64, 64, 64, 64, 64, 44),
        (3, 3, 3),
        10,
    ),
    "tas-resnet32-cifar10": (
        (16, 6, 4, 12, 4, 4, 16, 9, 9, 6, 14, 32, 32, 9, 19, 28, 9, 32, 19, 32, 9, 64, 64, 64, 64, 64, 64, 64,
         32, 38, 32),
        (5, 5, 5),
        10,
    ),
    "tas-resnet56-cifar10": (
        (16, 16, 16, 14, 11, 9, 16, 12, 16, 6, 16, 4, 8, 4, 14, 6, 4, 4, 4, 32, 32, 32, 32, 32, 32, 22, 28, 32,
         32, 19, 9, 19, 16, 9, 25, 16, 9, 64, 64, 64, 64, 64, 64, 64, 64, 64, 51, 19, 19, 32, 19, 19, 32, 19,
         25),
        (5, 5, 5),
        10,
    ),
    "tas-resnet110-cifar10": (
        (16, 14, 16, 14, 16, 16, 16, 16, 16, 14, 16, 16, 16, 12, 16, 16, 16, 9, 16, 8, 16, 4, 16, 4, 4, 4, 16,
         4, 4, 4, 4, 6, 6, 4, 6, 11, 4, 32, 32, 32, 32, 32, 32, 32, 32, 28, 32, 32, 28, 22, 22, 22, 32, 32, 25,
         28, 9, 9, 28, 12, 9, 12, 32, 9, 9, 22, 12, 16, 9, 12, 9, 9, 9, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
         64, 64, 64, 64, 64, 38, 64, 25, 19, 19, 19, 19, 19, 25, 32, 19, 19, 25, 25, 19, 19, 38, 38, 19, 19,
         51),
        (11, 11, 9),
        10,
    ),
    "tas-resnet32-cifar100": (
        (16, 4, 4, 6, 11, 6, 4, 8, 4, 4, 4, 32, 32, 9, 28, 28, 28, 28, 28, 32, 32, 64, 64, 64, 64, 64, 64, 64,
         64, 64, 64),
        (5, 5, 5),
        100,
    ),
    "tas-resnet56-cifar100": (
        (16, 16, 9, 14, 16, 14, 16, 8, 16, 8, 14, 4, 4, 4, 8, 4, 6, 4, 4, 32, 32, 32, 28, 32, 32, 32, 22, 32,
         32, 32, 9, 25, 19, 25, 12, 9, 9, 64, 64, 64, 64, 64, 64, 64, 64, 64, 51, 19, 19, 19, 19, 25, 38, 19,
         19),
        (5, 5, 7),
        100,
    ),
    "tas-resnet110-cifar100": (
        (16, 14, 16, 11, 14, 16, 16, 11, 16, 9, 14, 12, 16, 16, 16, 8, 16, 14, 16, 12, 4, 11, 16, 4, 4, 4, 16,
         12, 4, 8, 4, 9, 4, 6, 14, 4, 4, 32, 32, 32, 32, 28, 28, 32, 32, 32, 32, 32, 28, 32, 28, 25, 32, 32, 32,
         9, 9, 32, 32, 9, 25, 28, 32, 28, 9, 9, 32, 12, 12, 9, 22, 12, 9, 64, 64, 64, 64, 64, 64, 64, 64, 64,
         64, 64, 64, 64, 64, 64, 44, 64, 57, 19, 19, 19, 19, 25, 19, 25, 19, 25, 19, 19, 25, 19, 19, 19, 25, 25,
         19),
        (13, 9, 11),
        100,
    ),
}
#: Name -> (width of every convolution of the full depth, blocks of each stage at full depth, blocks built), for the
#: thousand classes of ImageNet.
RELEASED_IMAGENET: dict[str, tuple[tuple[int, ...], tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    "tas-resnet18-imagenet": (
        (64, 25, 64, 38, 19, 128, 128, 38, 38, 256, 256, 256, 256, 512, 512, 512, 512),
        (2, 2, 2, 2),
        (1, 1, 2, 2),
    ),
    "tas-resnet50-imagenet": (
        (45, 45, 30, 102, 33, 60, 154, 68, 70, 180, 38, 38, 307, 38, 38, 410, 64, 128, 358, 38, 51, 256, 76, 76, 512,
         76, 76, 512, 179, 256, 614, 100, 102, 307, 179, 230, 614, 204, 102, 307, 153, 153, 1228, 512, 512, 1434, 512,
         512, 1844),
        (3, 4, 6, 3),
        (3, 4, 5, 3),
    ),
}
# fmt: on


def released_resnet(name: str, num_classes: int | None = None, in_channels: int = 3) -> SearchedResNet:
    """A network of the table, untrained; by default for the classes that it was found for."""
    widths, blocks, classes = RELEASED[name]
    return SearchedResNet(widths, blocks, classes if num_classes is None else num_classes, in_channels)


def released_imagenet(name: str, num_classes: int | None = None, in_channels: int = 3) -> SearchedImageNet:
    """A network of the ImageNet table, untrained; by default for its thousand classes."""
    widths, layers, blocks = RELEASED_IMAGENET[name]
    return SearchedImageNet(widths, layers, blocks, 1000 if num_classes is None else num_classes, in_channels)
