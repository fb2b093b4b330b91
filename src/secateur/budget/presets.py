"""Predefined widths of Li et al. 2017 (arXiv 1608.08710), as the second table of "Rethinking" uses them.

Convolutions are numbered from 1 = the stem; the first convolution of residual block ``b`` (from 1) is number ``2 b``.
Only those are cut, except in the blocks that a preset skips. What stays is the truncation of ``width * (1 - ratio)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from secateur._errors import UnknownName, UsageError
from secateur.graph import PruningGraph


@dataclass(frozen=True)
class Preset:
    """Widths for one architecture.

    Attributes:
        model: the name of the model that the preset is for.
        blocks: residual blocks per stage, empty for a plain network.
        ratios: share *removed*, per stage or per convolution.
        skip: numbers of convolutions that stay whole.
    """

    model: str
    blocks: tuple[int, ...]
    ratios: tuple[float, ...]
    skip: tuple[int, ...] = ()


PRESETS: dict[str, Preset] = {
    "vgg16-A": Preset("cifar-vgg16", (), (0.5, 0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)),
    "resnet56-A": Preset("cifar-resnet56", (9, 9, 9), (0.1, 0.1, 0.1), (16, 20, 38, 54)),
    "resnet56-B": Preset("cifar-resnet56", (9, 9, 9), (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54)),
    "resnet110-A": Preset("cifar-resnet110", (18, 18, 18), (0.5, 0, 0), (36,)),
    "resnet110-B": Preset("cifar-resnet110", (18, 18, 18), (0.5, 0.4, 0.3), (36, 38, 74)),
    "resnet34-A": Preset("torchvision:resnet34", (3, 4, 6, 3), (0.3, 0.3, 0.3, 0), (2, 8, 14, 16, 26, 28, 30, 32)),
    "resnet34-B": Preset("torchvision:resnet34", (3, 4, 6, 3), (0.5, 0.6, 0.4, 0), (2, 8, 14, 16, 26, 28, 30, 32)),
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
    widths: dict[str, int] = {}
    if preset.blocks:
        block = 0
        for stage, (count, ratio) in enumerate(zip(preset.blocks, preset.ratios), 1):
            for i in range(count):
                block += 1
                group = f"layer{stage}.{i}.conv1"
                if group not in graph.widths:
                    raise UsageError(_mismatch(name, preset, f"it has no group {group}"))
                if 2 * block not in preset.skip:
                    widths[group] = _kept(graph.widths[group], ratio)
        extra = [g for g in graph.widths if re.fullmatch(r"layer\d+\.\d+\.conv1", g)]
        if len(extra) != block:
            raise UsageError(_mismatch(name, preset, f"it has {len(extra)} residual blocks, not {block}"))
    else:
        groups = list(graph.widths)
        if len(groups) != len(preset.ratios):
            raise UsageError(_mismatch(name, preset, f"it has {len(groups)} widths, not {len(preset.ratios)}"))
        widths = {g: _kept(graph.widths[g], r) for g, r in zip(groups, preset.ratios)}
    return widths


def _kept(width: int, ratio: float) -> int:
    # The ratios are decimal fractions: without the nudge 10 * (1 - 0.9) would truncate to 0.
    return max(1, int(width * (1 - ratio) + 1e-9))


def _mismatch(name: str, preset: Preset, what: str) -> str:
    return f"the preset {name!r} is for {preset.model}; this model is another: {what}\nuse budget= for any model"
