"""The networks of the engine benchmark: random weights, one image of 3 x 224 x 224."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: In the order of the table.
MODELS: tuple[str, ...] = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:densenet121",
    "torchvision:mobilenet_v3_small",
    "torchvision:efficientnet_b0",
    "torchvision:convnext_tiny",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:vit_b_16",
    "torchvision:swin_t",
    "torchvision:segmentation.fcn_resnet50",
    "timm:deit_tiny_patch16_224",
    "timm:resnet50",
)

#: One small network of each behaviour: plain, densely concatenated, shuffled, attention.
QUICK: tuple[str, ...] = (
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x1_0",
    "timm:deit_tiny_patch16_224",
)


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode with seeded random weights, and an input of shape ``(1, 3, 224, 224)``."""
    torch.manual_seed(0)
    family, _, architecture = name.partition(":")
    if family == "timm":
        import timm

        model = timm.create_model(architecture, pretrained=False)
    elif architecture.startswith("segmentation."):
        import torchvision

        maker = getattr(torchvision.models.segmentation, architecture.partition(".")[2])
        model = maker(weights=None, weights_backbone=None)
    else:
        import torchvision

        model = getattr(torchvision.models, architecture)(weights=None)
    return model.eval(), torch.randn(1, 3, 224, 224)


def build_tiny() -> tuple[nn.Module, Tensor]:
    """The network of the warm-up: what a library imports and caches on first use is not timed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return model.eval(), torch.randn(1, 3, 32, 32)


def output_shapes(model: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Shapes of every tensor that one forward pass gives."""
    with torch.no_grad():
        output = model(x)
    outputs = list(output.values()) if isinstance(output, dict) else [output]
    return [tuple(t.shape) for t in outputs]
