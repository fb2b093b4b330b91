"""Regression-based feature reconstruction, "channel pruning".

Paper: He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv 1707.06168.
Idea: choose the input channels of a layer by a LASSO on its output, then fit its weights to the output of the uncut
network by least squares.
Here: from the front, every layer sees what the network behind the cuts so far gives it, so the fit absorbs what earlier
layers lost; the last layer of a residual block also makes up for what the shortcut lost. The LASSO runs on Gram
matrices, as one exact path. Where a layer has more inputs than there are samples, many weights fit them: those nearest
to the old ones are taken.
Differs: one LASSO and one final least squares, as in the released code, no alternation. The paper puts a channel
sampler in front of residual blocks, as ``selectors`` does; without them the width of a residual stream is one group
like any other (protect it to leave it alone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from secateur.graph import PruningGraph, select_channels
from secateur.methods.protocol import Evidence, Method
from secateur.scores import Scores, score
from secateur.surgery import (
    Calibration,
    Plan,
    Refitter,
    by_lasso,
    by_weights,
    choose_in_order,
    contributions_of,
    refit_in_order,
)


@dataclass(frozen=True)
class Reconstruction(Method):
    """Keep the channels that a LASSO on the next layer's output keeps, and refit that layer.

    Args:
        images: calibration images; by default up to 2,000 (the paper takes 5,000).
        positions: places of a layer's output per image; one where there is but one, as behind a flatten.
        selectors: put a channel sampler in front of every residual block, so that its first layer reads channels of
            its own and the stream stays whole, as the paper does (:func:`secateur.select_channels`).
    """

    images: int | None = None
    positions: int = 10
    selectors: bool = False

    name: ClassVar[str] = "reconstruction"
    summary: ClassVar[str] = "chooses by a LASSO on the next layer's output and refits that layer (He 2017)"
    ranking: ClassVar[str] = "layer"
    needs_data: ClassVar[bool] = True

    def prepare(self, model: nn.Module, example_inputs: Any) -> nn.Module:
        return select_channels(model, example_inputs) if self.selectors else model

    def _refitter(self, graph: PruningGraph, evidence: Evidence) -> Refitter:
        calibration = Calibration(evidence.data or (), self.images, self.positions, evidence.seed)
        return Refitter(graph, calibration, remarks=evidence.remarks)

    def choose(
        self, graph: PruningGraph, widths: Mapping[str, int], evidence: Evidence
    ) -> Mapping[str, Sequence[int]] | None:
        return choose_in_order(self._refitter(graph, evidence), widths, by_lasso, by_weights)

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        """The energy of what every unit adds to the layers that read it; where no plain layer does, its absolute
        weights."""
        found = contributions_of(self._refitter(graph, evidence))
        plain = score(graph, "l1")
        return {name: torch.diagonal(found[name].gram).clone() if name in found else plain[name] for name in plain}

    def refit(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> nn.Module:
        return refit_in_order(self._refitter(graph, evidence), plan, by_weights)
