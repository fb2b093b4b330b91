"""The zoo of the engine benchmark: random weights, nothing is downloaded.

Every model of torchvision, one model of every family of timm (``timm_families.txt``), and the Hugging Face
transformers of ``hf_models.py``.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.hf_models import FAMILIES, PUBLISHED, build_hf
from benchmarks.hf_types import build_type, listed
from benchmarks.library_models import build_library, installed
from secateur._errors import UsageError
from secateur.measure.inputs import as_call, tensors_in

#: A few small networks of each behaviour: plain, depthwise, shuffled, densely concatenated, attention, dense
#: predictions, outputs whose number depends on values, three dimensions, two inputs, text with and without shared keys.
QUICK: tuple[str, ...] = (
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:densenet121",
    "torchvision:segmentation.lraspp_mobilenet_v3_large",
    "torchvision:detection.ssdlite320_mobilenet_v3_large",
    "torchvision:optical_flow.raft_small",
    "timm:deit_tiny_patch16_224",
    "timm:mobilevit_xxs",
    "timm:swin_tiny_patch4_window7_224",
    "hf:bert",
    "hf:llama",
)

#: The layers of torchvision's detectors that give classes and boxes: what a user of the peer lists by hand.
DETECTION_OUTPUTS: tuple[str, ...] = (
    "*.cls_score",
    "*.cls_logits",
    "*.bbox_pred",
    "*.bbox_reg",
    "*.bbox_ctrness",
    "*.mask_fcn_logits",
    "*.kps_score_lowres",
    "head.*_head.module_list.*",
)


#: What may vary with the values: nothing, how many things are found, how long they are.
Varying = Literal["", "number", "length"]
#: Types of transformers that say themselves how long each sound lasts.
SPEAKING: tuple[str, ...] = (
    "hf-type:vits",
    "hf-type:fastspeech2_conformer",
    "hf-type:fastspeech2_conformer_with_hifigan",
)


def names() -> list[str]:
    """Every model of the zoo, in the order of the table."""
    families = Path(__file__).with_name("timm_families.txt").read_text(encoding="utf-8").split()
    return [*_torchvision(), *(f"timm:{n}" for n in families), *(f"hf:{n}" for n in FAMILIES)]


def published() -> list[str]:
    """Hugging Face transformers in sizes that were published, which are not part of the zoo: they take longer."""
    return [f"hf-published:{name}" for name in PUBLISHED]


def types() -> list[str]:
    """Every type of transformers that a small configuration builds, which are not part of the zoo either."""
    return [f"hf-type:{name}" for name in listed()]


def libraries() -> list[str]:
    """Networks of other libraries, of those that are installed."""
    return [f"library:{name}" for name in installed()]


def _torchvision() -> Iterator[str]:
    from torchvision import models

    for part in ("", "segmentation", "detection", "video", "optical_flow"):
        module = getattr(models, part) if part else models
        for name in models.list_models(module=module):
            yield f"torchvision:{part}.{name}" if part else f"torchvision:{name}"


def select(known: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that one of the patterns (``fnmatch``) matches, with their ``family:`` or without; all if no pattern.

    Raises:
        UsageError: a pattern matches nothing.
    """

    def hits(name: str, pattern: str) -> bool:
        return any(fnmatch.fnmatchcase(text, pattern) for text in (name, name.partition(":")[2]))

    problems = []
    for pattern in patterns:
        if not any(hits(name, pattern) for name in known):
            short = {name.partition(":")[2]: name for name in known}
            near = difflib.get_close_matches(pattern.partition(":")[2] or pattern, short, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(repr(short[n]) for n in near)}?" if near else ""
            problems.append(f"--only {pattern!r} matches none of the {len(known)} models asked for{hint}")
    if problems:
        raise UsageError(
            "\n".join([*problems, "a name is like torchvision:resnet18, timm:vgg11 or hf:bert, and * is any text"])
        )
    return [name for name in known if not patterns or any(hits(name, p) for p in patterns)]


def build(name: str) -> tuple[nn.Module, Any]:
    """A network in evaluation mode with seeded random weights, and example inputs (a tensor, a tuple or a dict)."""
    torch.manual_seed(0)
    family, _, architecture = name.partition(":")
    if family in ("hf", "hf-published"):
        return build_hf(architecture, published=family == "hf-published")
    if family == "hf-type":
        return build_type(architecture)
    if family == "library":
        return build_library(architecture)
    generator = torch.Generator().manual_seed(0)
    if family == "timm":
        import timm

        model = timm.create_model(architecture, pretrained=False).eval()
        config: Any = model.default_cfg
        return model, torch.randn(1, *config["input_size"], generator=generator)
    from torchvision import models

    part, _, short = architecture.rpartition(".")
    maker = getattr(getattr(models, part) if part else models, short)
    if part in ("segmentation", "detection"):
        model = maker(weights=None, weights_backbone=None).eval()
        if part == "detection":
            _ready_detector(model)
            return model, ([torch.rand(3, 224, 224, generator=generator)],)
        return model, torch.randn(1, 3, 224, 224, generator=generator)
    # Both draw their weights by a slow truncated normal unless they are told not to.
    model = maker(**({"init_weights": False} if short in ("googlenet", "inception_v3") else {})).eval()
    if part == "video":
        size = 224 if short.startswith(("mvit", "swin", "s3d")) else 112
        return model, torch.randn(1, 3, 16, size, size, generator=generator)
    if part == "optical_flow":
        return model, tuple(torch.randn(1, 3, 128, 128, generator=generator) for _ in range(2))
    size = 299 if short == "inception_v3" else 224
    return model, torch.randn(1, 3, size, size, generator=generator)


def _ready_detector(model: nn.Module) -> None:
    """Boxes from random weights, and the image as large as it is given.

    Random weights are sure of nothing: at the usual threshold no box is left, and there is nothing to compare. With no
    threshold a thousand proposals would be too many.
    """
    transform: Any = model.transform
    if transform.fixed_size is None:
        transform.min_size = (224,)
    modules: Any = model.modules()
    for module in modules:
        if hasattr(module, "score_thresh"):
            module.score_thresh = 0.0
        if hasattr(module, "_post_nms_top_n"):
            module._post_nms_top_n = {"training": 100, "testing": 100}


def counts_vary(name: str) -> Varying:
    """What of the outputs, and with it of the work, depends on values: how many there are, or how long they are."""
    if name.startswith("torchvision:detection."):
        return "number"
    return "length" if name in SPEAKING else ""


def output_shapes(model: nn.Module, inputs: Any, varying: Varying = "") -> list[tuple[int, ...]]:
    """Shapes of every tensor that one forward pass gives, in order, as far as they do not vary.

    Args:
        varying: the ``"number"`` of things found, the first axis; or the ``"length"`` of sounds, all other axes.
    """
    args, kwargs = as_call(inputs)
    with torch.no_grad():
        output = model(*args, **kwargs)
    left = {"": slice(None), "number": slice(1, None), "length": slice(1)}[varying]
    return [tuple(t.shape)[left] for t in tensors_in(output)]


def output_layers(model: nn.Module, shapes: Sequence[tuple[int, ...]]) -> list[nn.Module]:
    """The layers that give the outputs, which the peer's documentation asks its user to list by hand.

    They are known by their width, that of an output (axis 1 of an image or a video, else the last), or for
    torchvision's detectors by their names.
    """
    widths = {shape[1] if len(shape) > 3 else shape[-1] for shape in shapes if len(shape) > 1}
    found: list[nn.Module] = []
    for name, module in model.named_modules():
        outputs = getattr(module, "out_channels", getattr(module, "out_features", None))
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        if outputs in widths or any(fnmatch.fnmatchcase(name, p) for p in DETECTION_OUTPUTS):
            found.append(module)
    return found
