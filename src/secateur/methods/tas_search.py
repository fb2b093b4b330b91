"""The search of TAS while the network is trained: draws, steps of the logits, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur._errors import TrainingError
from secateur.data.halves import halves
from secateur.gates.architecture import Choice, Space
from secateur.gates.supernet import Draw, Supernet
from secateur.gates.width import Pair, gumbel, padded, two_of
from secateur.graph import PruningGraph
from secateur.methods.protocol import Law
from secateur.methods.tas_landing import Target, landed

BETAS = (0.5, 0.999)
INITIAL = 0.01
#: So many epochs of the history keep their distributions.
_REMEMBERED = 60


@dataclass(frozen=True)
class Settings:
    """How the logits move; see the options of the method."""

    cost_weight: float
    temperature: float
    last_temperature: float
    arch_lr: float
    arch_decay: float


def temperature_at(epoch: int, epochs: int, first: float, last: float) -> float:
    """From the first to the last along a cosine."""
    share = epoch / max(1, epochs - 1)
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, share))) / 2


class Search(Law):
    """Trains a supernet and the logits of its space in turn.

    Args:
        graph: over the network that is trained; its forward is taken over until :meth:`finish`.
        epochs: of the search.

    Attributes:
        widths: logits, shape ``[groups, candidates]``; minus infinity where a group has fewer.
        depths: logits of every stack, shape ``[stacks, candidates]``.
        found: after :meth:`finish`, the architecture.
    """

    def __init__(self, graph: PruningGraph, space: Space, target: Target, settings: Settings, epochs: int):
        self.space, self.target, self.settings, self.epochs = space, target, settings, epochs
        self.net = Supernet(graph, space)
        self._sizes = [len(c) for c in space.counts.values()], [len(s.kept) for s in space.stacks]
        self.widths, self.depths = (nn.Parameter(torch.zeros(len(s), max(s, default=0))) for s in self._sizes)
        self._masks = [padded(s, 0.0).isinf() for s in self._sizes]
        self._mover = torch.optim.Adam(
            [self.widths, self.depths], lr=settings.arch_lr, betas=BETAS, weight_decay=settings.arch_decay
        )
        self.history: list[dict[str, Any]] = []
        self.found = space.most
        self.how = ""
        self._started = False
        self._temperature = settings.temperature
        self._other: Iterable[Any] = ()
        self._batches: Iterator[Any] = iter(())
        self._seen = [0.0, 0, 0]

    # -- the moments of training ----------------------------------------------------------------------------------

    def data(self, batches: Iterable[Any]) -> Iterable[Any]:
        first, self._other = halves(batches, seed=0)
        return first

    def on_epoch_start(self, model: nn.Module, epoch: int) -> None:
        if not self._started:
            self._begin()
        self._temperature = temperature_at(
            epoch, self.epochs, self.settings.temperature, self.settings.last_temperature
        )
        device = next(model.parameters()).device
        if hasattr(self._other, "set_device"):
            self._other.set_device(device)  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(self._other, "set_epoch"):
            self._other.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        self._batches, self._seen = iter(self._other), [0.0, 0, 0]
        self._draw_for_weights()

    def after_step(self, model: nn.Module) -> None:
        """One step of the logits on a batch of the other half, then a new draw for the weights."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._other)
            batch = next(self._batches, None)
        if batch is not None:
            self._step(model, *batch)
        self._draw_for_weights()

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        choice = self.choice()
        self.net.choice = choice
        chances = self.chances()
        with torch.no_grad():
            expected = float(self.target.costs.expected(*chances))
        loss, hits, items = self._seen
        point: dict[str, Any] = {
            "epoch": epoch + 1,
            "temperature": round(self._temperature, 4),
            "expected": round(expected),
            "actual": self.target.costs.actual(choice),
            "loss": loss / max(1, items),
            "accuracy": hits / max(1, items),
            "choice": [list(choice.widths), list(choice.depths)],
        }
        every = max(1, -(-self.epochs // _REMEMBERED))
        if epoch % every == 0 or epoch + 1 == self.epochs:
            point["widths"] = [_rounded(row, n) for row, n in zip(chances[0], self._sizes[0])]
            point["depths"] = [_rounded(row, n) for row, n in zip(chances[1], self._sizes[1])]
        self.history.append(point)

    def finish(self) -> None:
        self.found, self.how = landed(self.target, self.choice(), self.history, self.logits())
        self.net.settle(self.found)

    # -- the law --------------------------------------------------------------------------------------------------

    def logits(self) -> tuple[Tensor, Tensor]:
        """Of widths and depths, minus infinity where there is no candidate."""
        return self.widths.masked_fill(self._masks[0], -torch.inf), self.depths.masked_fill(self._masks[1], -torch.inf)

    def chances(self) -> tuple[Tensor, list[Tensor]]:
        """The distributions, without noise."""
        widths, depths = self.logits()
        return widths.softmax(-1), [row[:n].softmax(-1) for row, n in zip(depths, self._sizes[1])]

    def choice(self) -> Choice:
        """The most likely architecture."""
        return Choice(*(tuple(a.argmax(-1).tolist()) if a.numel() else () for a in self.logits()))

    def draw(self) -> Draw:
        """Two candidates of every width, weights of every depth; differentiable in the logits."""
        widths, depths = self.logits()
        pairs: dict[str, Pair] = {}
        if len(widths):
            chosen, weights = two_of(gumbel(widths, self._temperature))
            weights = weights.to(self._device)
            for name, (low, high), weight in zip(self.space.counts, chosen.tolist(), weights):
                pairs[name] = Pair(low, high, weight)
        if not len(depths):
            return Draw(pairs, ())
        blend = gumbel(depths, self._temperature).softmax(-1).to(self._device)
        return Draw(pairs, [row[:n] for row, n in zip(blend, self._sizes[1])])

    def objective(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of the logits of the architecture: on the batch, and of the cost."""
        cost = self.target.loss(self.target.costs.expected(*self.chances()), self.target.costs.actual(self.choice()))
        return F.cross_entropy(logits, y) + self.settings.cost_weight * cost.to(logits.device, torch.float32)

    @property
    def _device(self) -> torch.device:
        return next(self.net.model.parameters()).device

    def _begin(self) -> None:
        # Here and not at construction, so that it follows from the seed of the training.
        with torch.no_grad():
            for logits in (self.widths, self.depths):
                logits.normal_(0, INITIAL)
        self._started = True

    def _draw_for_weights(self) -> None:
        with torch.no_grad():
            self.net.draw = self.draw()

    def _step(self, model: nn.Module, x: Any, y: Any) -> None:
        x, y = x.to(self._device, non_blocking=True), y.to(self._device, non_blocking=True)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.net.draw, self.net.tracks = self.draw(), False
        # Autograd need not follow what is done to weights.
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            out = model(x)
        finally:
            self.net.tracks = True
            for parameter in trained:
                parameter.requires_grad_(True)
        logits = getattr(out, "logits", out)
        loss = self.objective(logits, y)
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"the loss of the architecture is {float(loss.detach())} at a temperature of {self._temperature:g}\n"
                "try a lower learning rate (lr, arch_lr)"
            )
        moved = [p for p in (self.widths, self.depths) if p.numel()]
        for parameter, gradient in zip(moved, torch.autograd.grad(loss, moved)):
            parameter.grad = gradient
        self._mover.step()
        with torch.no_grad():
            hits = int((logits.argmax(1) == y).sum())
            self._seen[0] += float(F.cross_entropy(logits, y)) * len(y)
            self._seen[1] += hits
            self._seen[2] += len(y)

    # -- what it leaves -------------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """For the card."""
        costs, target = self.target.costs, self.target
        cost = costs.actual(self.found)
        where = "within" if target.side(cost) == 0 else "outside"
        found = [
            f"tas: {cost:,} {costs.metric} ({cost / costs.dense:.1%} of the dense), {where} the band from "
            f"{target.low:,.0f} to {target.high:,.0f} around the budget; {self.how}"
        ]
        if not self.space.stacks:
            found.append(
                "tas: widths only, as there is no residual stack whose blocks could be left out or none was asked for"
            )
        for stack, k in zip(self.space.stacks, self.found.depths):
            if k + 1 < len(stack.kept):
                found.append(f"tas: {stack.name} keeps {stack.counts[k]} of {stack.counts[-1]} blocks")
        return [*found, *(f"tas: {name} was not searched: {why}" for name, why in self.space.whole.items())]

    def record(self) -> dict[str, Any]:
        """For the report: the space, the target, the history and the choice."""
        costs = self.target.costs
        return {
            "metric": costs.metric,
            "dense": costs.dense,
            "wanted": round(self.target.wanted),
            "low": round(self.target.low),
            "high": round(self.target.high),
            "found": costs.actual(self.found),
            "how": self.how,
            "widths": {name: list(counts) for name, counts in self.space.counts.items()},
            "depths": {stack.name: list(stack.counts) for stack in self.space.stacks},
            "choice": {"widths": list(self.found.widths), "depths": list(self.found.depths)},
            "left_out": list(costs.left_out(self.found)),
            "history": [{k: v for k, v in point.items() if k != "choice"} for point in self.history],
        }

    def state_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"widths": self.widths.detach().clone(), "depths": self.depths.detach().clone()}
        for number, entries in self._mover.state_dict()["state"].items():
            found |= {f"adam/{number}/{name}": value for name, value in entries.items()}
        return {**found, "history": self.history, "started": self._started}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.widths.copy_(state["widths"])
            self.depths.copy_(state["depths"])
        self.history, self._started = list(state["history"]), bool(state["started"])
        entries: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            if key.startswith("adam/"):
                _, number, name = key.split("/")
                entries.setdefault(int(number), {})[name] = value
        self._mover.load_state_dict({"state": entries, "param_groups": self._mover.state_dict()["param_groups"]})


def _rounded(row: Tensor, count: int) -> list[float]:
    return [round(p, 4) for p in row.detach()[:count].tolist()]
