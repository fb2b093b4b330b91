"""Predefined widths of the papers: the tables of "Rethinking" whose architecture its user chose beforehand.

Sources: Li et al. 2017 (arXiv 1608.08710), Luo et al. 2017 (ThiNet, arXiv 1707.06342), He, Zhang, Sun 2017 (arXiv
1707.06168) and He et al. 2018 (Soft Filter Pruning, arXiv 1808.06866), with the widths that Liu et al. 2019 (arXiv
1810.05270) train from scratch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from secateur._errors import UnknownName, UsageError
from secateur.graph import PruningGraph, selectors_of

Widths = tuple[int, ...]


@dataclass(frozen=True)
class Preset:
    """What remains of one architecture, or, as a rule, of any.

    Attributes:
        model: the name of the model that the preset is for.
        paper: whose choice it is.
        blocks: residual blocks per stage, empty for a plain network.
        kept: units that stay. In a residual network, by the name of the convolution inside a block: one number per
            block, front to back. In a plain one under ``features``: one number per convolution.
        inputs: of He's ResNet only: how many channels of the stream the first convolution of each block reads. That
            takes a channel sampler in front of the block (:func:`secateur.select_channels`); in a network without, only
            what lies inside the blocks is cut.
        share: of the rule: of every width that can be cut so much stays, truncated.
    """

    model: str
    paper: str
    blocks: Widths = ()
    kept: Mapping[str, Widths] = field(default_factory=dict)
    inputs: Widths = ()
    share: float | None = None


def _kept(width: int, share: float) -> int:
    # The shares are decimal fractions: without the nudge 10 * 0.7 could truncate to 6.
    return max(1, int(width * share + 1e-9))


def _li(stages: Widths, blocks: Widths, ratios: tuple[float, ...], skip: Widths) -> Widths:
    """Li's tables: ``ratios`` removed of the first convolution of each block of a stage, but for those in ``skip``.

    Convolutions are numbered from 1 = the stem, so the first one of block ``b`` (from 1) is number ``2 b``.
    """
    per_block = [(width, ratio) for width, count, ratio in zip(stages, blocks, ratios) for _ in range(count)]
    return tuple(w if 2 * b in skip else _kept(w, 1 - r) for b, (w, r) in enumerate(per_block, 1))


def _li_preset(model: str, stages: Widths, blocks: Widths, ratios: tuple[float, ...], skip: Widths) -> Preset:
    return Preset(model, "Li 2017", blocks, {"conv1": _li(stages, blocks, ratios, skip)})


def _thinet(widths: Widths) -> Preset:
    """The same width in both of the cut convolutions of all bottlenecks of a stage."""
    blocks = (3, 4, 6, 3)
    per_block = tuple(width for width, count in zip(widths, blocks) for _ in range(count))
    return Preset("torchvision:resnet50", "Luo 2017", blocks, {"conv1": per_block, "conv2": per_block})


def _plain(model: str, paper: str, *widths: int) -> Preset:
    return Preset(model, paper, kept={"features": widths})


_CIFAR, _SKIP_34 = (16, 32, 64), (2, 8, 14, 16, 26, 28, 30, 32)
_THINET_VGG = (32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512)
_THINET_TINY = (16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 256)
_VGG_5X = (24, 22, 41, 51, 108, 89, 111, 184, 276, 228, 512, 512, 512)
PRESETS: dict[str, Preset] = {
    "vgg16-A": _plain("cifar-vgg16", "Li 2017", 32, 64, 128, 128, *[256] * 9),
    "resnet56-A": _li_preset("cifar-resnet56", _CIFAR, (9, 9, 9), (0.1, 0.1, 0.1), (16, 20, 38, 54)),
    "resnet56-B": _li_preset("cifar-resnet56", _CIFAR, (9, 9, 9), (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54)),
    "resnet110-A": _li_preset("cifar-resnet110", _CIFAR, (18, 18, 18), (0.5, 0, 0), (36,)),
    "resnet110-B": _li_preset("cifar-resnet110", _CIFAR, (18, 18, 18), (0.5, 0.4, 0.3), (36, 38, 74)),
    "resnet34-A": _li_preset("torchvision:resnet34", (64, 128, 256, 512), (3, 4, 6, 3), (0.3, 0.3, 0.3, 0), _SKIP_34),
    "resnet34-B": _li_preset("torchvision:resnet34", (64, 128, 256, 512), (3, 4, 6, 3), (0.5, 0.6, 0.4, 0), _SKIP_34),
    "thinet-conv": _plain("torchvision:vgg16", "Luo 2017", *_THINET_VGG),
    "thinet-gap": _plain("vgg16-gap", "Luo 2017", *_THINET_VGG),
    "thinet-tiny": _plain("vgg16-gap", "Luo 2017", *_THINET_TINY),
    "thinet-30": _thinet((19, 38, 76, 153)),
    "thinet-50": _thinet((32, 64, 128, 256)),
    "thinet-70": _thinet((44, 89, 179, 358)),
    "vgg16-5x": _plain("torchvision:vgg16", "He 2017", *_VGG_5X),
    "resnet50-2x": Preset(
        "torchvision:resnet50",
        "He 2017",
        (3, 4, 6, 3),
        {
            "conv1": (64, 51, 50, 128, 105, 105, 128, 256, 209, 204, 212, 211, 256, 512, 512, 512),
            "conv2": (55, 39, 37, 106, 72, 72, 110, 225, 147, 158, 155, 148, 213, 433, 437, 440),
        },
        inputs=(35, 101, 97, 144, 205, 198, 288, 278, 418, 407, 423, 412, 595, 606, 1222, 1147),
    ),
    "sfp-30": Preset("any model", "He 2018", share=0.7),
}


def preset_widths(name: str, graph: PruningGraph) -> dict[str, int]:
    """The width of every group that a preset names.

    Raises:
        UnknownName: no such preset.
        UsageError: the graph is of another architecture.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise UnknownName("preset", name, PRESETS)
    if preset.share is not None:
        least = {g.name: g.least for g in graph.prunable}
        return {g: max(least.get(g, 1), _kept(w, preset.share)) for g, w in graph.widths.items()}
    names = _block_groups(preset, graph) if preset.blocks else _plain_groups(preset, graph)
    problem = _difference(preset, names, graph)
    if problem is not None:
        raise UsageError(
            f"the preset {name!r} is for {preset.model}; this model is another: {problem}\nuse budget= for any model"
        )
    return names


def _block_groups(preset: Preset, graph: PruningGraph) -> dict[str, int]:
    places = [f"layer{stage}.{i}" for stage, count in enumerate(preset.blocks, 1) for i in range(count)]
    kept = dict(preset.kept)
    if selectors_of(graph.model):
        kept["conv1 input"] = preset.inputs
    return {f"{p}.{part}": w for part, ws in kept.items() if ws for p, w in zip(places, ws, strict=True)}


def _plain_groups(preset: Preset, graph: PruningGraph) -> dict[str, int]:
    # Position counts, not the number in the name: with batch norms in between the numbers are others.
    groups = [g for g in graph.widths if g.startswith("features.")]
    return dict(zip(groups, preset.kept["features"]))


def _difference(preset: Preset, widths: Mapping[str, int], graph: PruningGraph) -> str | None:
    """What shows that the graph is of another architecture."""
    for group in widths:
        if group not in graph.widths:
            return f"it has no group {group}"
    if preset.blocks:
        found = sum(bool(re.fullmatch(r"layer\d+\.\d+\.conv1", g)) for g in graph.widths)
        if found != sum(preset.blocks):
            return f"it has {found} residual blocks, not {sum(preset.blocks)}"
    else:
        found, wanted = sum(g.startswith("features.") for g in graph.widths), len(preset.kept["features"])
        if found != wanted:
            return f"it has {found} convolutions in a row (features.*), not {wanted}"
    for group, width in widths.items():
        if width > graph.widths[group]:
            return f"its group {group} has {graph.widths[group]} units, fewer than the {width} that are to stay"
    return None
