"""Random pruning, the baseline.

Paper: Mittal, Bhardwaj, Khapra, Ravindran, "Recovering from Random Pruning: On the Plasticity of Deep Convolutional
Neural Networks", WACV 2018, arXiv 1801.10447.
Idea: after fine-tuning, networks pruned at random are often as good as those pruned with care: they are the baseline.
Here: every unit gets a random number; the same share of every group goes.
Differs: nothing is trained between layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from secateur.graph import PruningGraph
from secateur.methods.protocol import Evidence, Method
from secateur.scores import Scores, score


@dataclass(frozen=True)
class Random(Method):
    """Keep units at random."""

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "random units go: the baseline (Mittal 2018)"
    ranking: ClassVar[str] = "layer"

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return score(graph, "random", seed=evidence.seed)
