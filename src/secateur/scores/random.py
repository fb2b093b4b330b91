"""``random``: the control that every criterion has to beat."""

from __future__ import annotations

import torch

from secateur.graph import PruningGraph
from secateur.scores.criterion import Inputs, Scores, criterion


@criterion("random", "uniform random numbers: the control")
def random(graph: PruningGraph, inputs: Inputs) -> Scores:
    generator = torch.Generator().manual_seed(inputs.seed)
    return {g.name: torch.rand(g.width, generator=generator, dtype=torch.float64) for g in graph.prunable}
