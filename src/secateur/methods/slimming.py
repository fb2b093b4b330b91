"""Network slimming.

Paper: Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through Network Slimming", ICCV
2017, arXiv 1708.06519; protocol of "Rethinking the Value of Network Pruning", ICLR 2019, arXiv 1810.05270.
Idea: an L1 penalty on the scales of the batch norms drives those of unimportant channels to zero while training.
Here: ``penalty * sign(scale)`` is added to the gradient of every batch-norm scale; all scales of the network are then
ranked together, as they are, and the smallest go until the budget holds.
Differs: the paper sets the share of channels, here the budget sets the threshold. Where several norms scale one unit
(a residual sum) the largest counts; with ``selectors`` every norm in front of a block loses channels for itself, and
the sum stays whole. The paper keeps that norm whole and selects behind it; here the selection is in front, which is the
same function of a smaller norm. Units that no batch norm scales get a gate of their own, under the same penalty,
so that networks without batch norms can be slimmed as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.gates import Gates, attach, norm_scales
from secateur.graph import PruningGraph, select_channels
from secateur.methods.protocol import Evidence, Law, Method
from secateur.scores import Scores, rows


@dataclass(frozen=True)
class Slimming(Method):
    """Keep the channels with the largest batch-norm scales, after training them to be sparse.

    Args:
        penalty: 1e-4 for VGG-19, 1e-5 for PreResNet-164, DenseNet-40 and ImageNet's VGG-11 (section 4.1 of the paper).
        epochs, lr: of the sparse training; by default those of the dense training.
        selectors: in pre-activation and dense networks, let every block choose the channels of the stream that it
            reads, and leave the stream whole, as the paper does (:func:`secateur.select_channels`).
    """

    penalty: float = 1e-4
    epochs: int | None = None
    lr: float | None = None
    selectors: bool = False

    name: ClassVar[str] = "slimming"
    summary: ClassVar[str] = "trains with an L1 penalty on batch-norm scales; the smallest go (Liu 2017)"
    ranking: ClassVar[str] = "raw"
    trains: ClassVar[bool] = True

    def prepare(self, model: nn.Module, example_inputs: Any) -> nn.Module:
        return select_channels(model, example_inputs, norms_only=True) if self.selectors else model

    def schedule(self) -> Mapping[str, Any]:
        return {k: v for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v is not None}

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> Shrink:
        return Shrink(graph, self.penalty)

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        kept = evidence.law.scores if isinstance(evidence.law, Shrink) else {}
        scores = {}
        for group in graph.prunable:
            scales = [rows(scale.detach(), m).abs().amax(1) for scale, m in norm_scales(graph.model, group)]
            gate = kept.get(group.name, torch.ones(group.width, dtype=torch.float64))
            scores[group.name] = torch.stack(scales).amax(0).cpu() if scales else gate
        return scores


class Shrink(Law):
    """The L1 penalty as a sub-gradient, added after the backward pass: neither averaged nor scaled by the batch.

    Attributes:
        scores: after :meth:`finish`, the absolute gates of the groups that have no batch norm.
    """

    def __init__(self, graph: PruningGraph, penalty: float):
        self.penalty = penalty
        self.scales = [m.weight for m in graph.model.modules() if isinstance(m, _BatchNorm) and m.affine]
        bare = [g for g in graph.prunable if not norm_scales(graph.model, g)]
        self.gates: Gates = attach(graph, bare)
        self.scores: dict[str, Tensor] = {}
        # The gates follow the gradient as the scales do, by plain steps: the optimiser knows nothing of them.
        self._mover = torch.optim.SGD(self.gates.values.values(), lr=0.1) if bare else None

    def learning_rate(self, rate: float) -> None:
        if self._mover is not None:
            self._mover.param_groups[0]["lr"] = rate

    def after_backward(self, model: nn.Module) -> None:
        for scale in (*self.scales, *self.gates.values.values()):
            if scale.grad is not None:
                scale.grad.add_(scale.detach().sign(), alpha=self.penalty)

    def after_step(self, model: nn.Module) -> None:
        if self._mover is not None:
            self._mover.step()
            self._mover.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: gate.detach().clone() for name, gate in self.gates.values.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, gate in self.gates.values.items():
                gate.copy_(state[name])

    def finish(self) -> None:
        self.scores = {n: gate.detach().abs().double().cpu() for n, gate in self.gates.values.items()}
        self.gates.fold()
