"""Sparse structure selection.

Paper: Huang, Wang, "Data-Driven Sparse Structure Selection for Deep Neural Networks", ECCV 2018, arXiv 1707.01213.
Idea: a factor on every structure (a channel, or a whole residual block) under an L1 penalty; a proximal step makes the
factors of useless structures exactly zero, so these can be removed without loss.
Here: factors are gates on blocks, on units, or on both; they move by the paper's modified accelerated proximal gradient
with the network's learning rate, and are clamped at zero. Structures go in the order of their factors, those that are
exactly zero first, until the budget holds.
Differs: in the paper the penalty alone decides how much goes. Here the budget does, and the card says how many factors
were exactly zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.budget import Goal
from secateur.gates import attach, attach_to_blocks
from secateur.graph import PruningGraph
from secateur.methods.protocol import Evidence, Law, Method
from secateur.scores import Scores
from secateur.surgery import silenced

STRUCTURES = ("blocks", "units", "both")


@dataclass(frozen=True)
class SSS(Method):
    """Train factors on structures by proximal steps; remove the structures whose factors are smallest.

    Args:
        penalty: 0.01 for the blocks of ResNet-50 (released code).
        on: ``blocks``, ``units`` (channels, heads) or ``both``.
        momentum: of the proximal steps.
        epochs, lr: of the training; by default those of the dense training (the paper's is 100 epochs).

    Raises:
        UsageError: ``on`` is none of these.
    """

    penalty: float = 0.01
    on: str = "units"
    momentum: float = 0.9
    epochs: int | None = None
    lr: float | None = None

    name: ClassVar[str] = "sss"
    summary: ClassVar[str] = "trains factors on channels or whole blocks to exact zeros, proximally (Huang 2018)"
    ranking: ClassVar[str] = "raw"
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.on not in STRUCTURES:
            raise UsageError(f"sss: on={self.on!r} is not known; choose from {', '.join(STRUCTURES)}")

    def schedule(self) -> Mapping[str, Any]:
        return {k: v for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v is not None}

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> Proximal:
        if self.on != "units" and not graph.blocks:
            raise UsageError(f"sss: on={self.on!r} needs residual blocks, and this network has none; use on='units'")
        return Proximal(graph, self)

    def leave_out(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> tuple[str, ...]:
        """Blocks in the order of their factors: those that are exactly zero, and of ``on="blocks"`` more of them
        until the budget holds."""
        if not isinstance(evidence.law, Proximal) or not evidence.law.blocks:
            return ()
        factors, gone = evidence.law.blocks, []
        for name in sorted(factors, key=lambda n: factors[n]):
            enough = self.on == "both" or goal.holds(graph.without(*gone))
            if factors[name] > 0 and enough:
                break
            gone.append(name)
        return tuple(gone)

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        kept = evidence.law.units if isinstance(evidence.law, Proximal) else {}
        return {g.name: kept.get(g.name, torch.ones(g.width, dtype=torch.float64)) for g in graph.prunable}

    def notes(self, evidence: Evidence) -> list[str]:
        law = evidence.law
        if not isinstance(law, Proximal):
            return []
        values = torch.cat([*law.units.values(), torch.tensor([*law.blocks.values()], dtype=torch.float64)])
        return [f"sss: {int((values == 0).sum())} of {len(values)} factors are exactly zero"]


class Proximal(Law):
    """Moves factors: ``z = soft(f - lr g, lr penalty)``, ``v <- z - f + momentum v``, ``f <- max(0, z + momentum v)``.

    Attributes:
        units: after :meth:`finish`, the factors of every group's units.
        blocks: after :meth:`finish`, the factor of every block.
    """

    def __init__(self, graph: PruningGraph, method: SSS):
        self._penalty, self._momentum = method.penalty, method.momentum
        groups = graph.prunable if method.on != "blocks" else []
        blocks = [(b, names) for b in graph.blocks if (names := silenced(graph, b))] if method.on != "units" else []
        self._on_units = attach(graph, groups)
        self._on_blocks = attach_to_blocks(graph, [b for b, _ in blocks], [names for _, names in blocks])
        self._rate = 0.0
        self._speed: dict[str, Tensor] = {}
        self.units: dict[str, Tensor] = {}
        self.blocks: dict[str, float] = {}

    @property
    def factors(self) -> dict[str, Tensor]:
        """All factors, by kind and name."""
        kinds = (("units", self._on_units), ("blocks", self._on_blocks))
        return {f"{kind}/{name}": values for kind, gates in kinds for name, values in gates.values.items()}

    def learning_rate(self, rate: float) -> None:
        self._rate = rate

    def after_step(self, model: nn.Module) -> None:
        with torch.no_grad():
            for name, factor in self.factors.items():
                if factor.grad is None:
                    continue
                moved = factor - self._rate * factor.grad
                soft = moved.sign() * (moved.abs() - self._rate * self._penalty).clamp_min(0)
                speed = soft - factor + self._momentum * self._speed.get(name, torch.zeros_like(factor))
                self._speed[name] = speed
                factor.copy_((soft + self._momentum * speed).clamp_min(0))
                factor.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        found = {f"factor/{name}": t.detach().clone() for name, t in self.factors.items()}
        return {**found, **{f"speed/{name}": t for name, t in self._speed.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, factor in self.factors.items():
                factor.copy_(state[f"factor/{name}"])
                if f"speed/{name}" in state:
                    self._speed[name] = state[f"speed/{name}"].to(factor.device)

    def finish(self) -> None:
        self.units = {n: t.detach().double().cpu() for n, t in self._on_units.values.items()}
        self.blocks = {n: float(t.detach()) for n, t in self._on_blocks.values.items()}
        self._on_units.fold()
        self._on_blocks.fold()
