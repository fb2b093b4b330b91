"""Learning gates on a network that does not move: the law of Pruning from Scratch (Wang 2020, section 3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateur._errors import TrainingError
from secateur.data import held_out
from secateur.gates import Gates, LearnedGates, attach_scalars
from secateur.graph import Group, PruningGraph
from secateur.measure import evaluate
from secateur.methods.protocol import Law
from secateur.surgery.plan import fingerprint


class GateLearning(Law):
    """Gates are the only parameters that are trained; the network's own tensors are the same to the bit afterwards.

    Norms run on batch statistics meanwhile, as in the paper; the running ones are put back at the end.

    Args:
        graph: over the network, which gets gates as soon as the data are known (:meth:`data`).
        groups: that get gates.
        place: see :func:`secateur.gates.attach_scalars`.
        penalty, target: gamma and r of ``gamma * (mean |gate| - r)^2``.
        share: of the training data, held out to choose the epoch by.

    Attributes:
        learned: after :meth:`finish`.
    """

    def __init__(
        self, graph: PruningGraph, groups: Sequence[Group], place: str, penalty: float, target: float, share: float
    ):
        self._graph, self._groups, self._place = graph, list(groups), place
        self.penalty, self.target, self.share = penalty, target, share
        self._mark = fingerprint(graph.model)
        self._hash = digest(graph.model)
        self._buffers = {name: b.detach().clone() for name, b in graph.model.named_buffers()}
        self._trained = {name: p.requires_grad for name, p in graph.model.named_parameters()}
        self._gates: Gates | None = None
        self._held: Iterable[Any] | None = None
        self._unclipped: dict[str, Tensor] = {}
        self._best: dict[str, dict[str, Tensor]] = {}
        self._best_accuracy = 0.0
        self.history: list[dict[str, Any]] = []
        self.learned = LearnedGates({}, {})

    @property
    def values(self) -> Mapping[str, Tensor]:
        """The gates while they are attached."""
        return {} if self._gates is None else self._gates.values

    def data(self, batches: Iterable[Any]) -> Iterable[Any]:
        """Holds a part back, and attaches the gates."""
        batches, self._held = held_out(batches, self.share)
        if self._gates is None:
            self._attach(next(iter(batches), None))
        return batches

    def _attach(self, batch: Any) -> None:
        model = self._graph.model
        example = None if batch is None else batch[0][:2]
        if example is not None:
            example = example.to(next(model.parameters()).device)
        self._gates = attach_scalars(self._graph, self._groups, self._place, example)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for gate in self._gates.values.values():
            gate.requires_grad_(True)
        self._unclipped = {name: gate.detach().clone() for name, gate in self.values.items()}

    def regulariser(self, model: nn.Module) -> Tensor:
        """``penalty * (mean |gate| - target)^2``, the mean over all gates of the network."""
        gates = torch.cat(list(self.values.values()))
        return self.penalty * (gates.abs().mean() - self.target).square()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        for name, gate in self.values.items():
            self._unclipped[name] = gate.detach().clone()
            gate.clamp_(0, 1)

    def on_epoch_end(self, model: nn.Module, epoch: int) -> None:
        """Keeps the gates if they are the best so far of those that are sparse enough."""
        gates = torch.cat([gate.detach() for gate in self.values.values()])
        seen: dict[str, Any] = {
            "epoch": epoch + 1,
            "open": float((gates != 0).double().mean()),
            "mean": float(gates.double().mean()),
            "means": {name: round(float(gate.detach().double().mean()), 6) for name, gate in self.values.items()},
        }
        if self._held is not None:
            seen["accuracy"] = evaluate(model, self._held)["accuracy"]
            # As published: the count of gates is compared with the target of their mean.
            if seen["open"] <= self.target and seen["accuracy"] > self._best_accuracy:
                self._best_accuracy, self._best = seen["accuracy"], self._now()
                seen["kept"] = 1
        self.history.append(seen)

    def _now(self) -> dict[str, dict[str, Tensor]]:
        return {
            "value": {name: gate.detach().float().cpu().clone() for name, gate in self.values.items()},
            "unclipped": {name: gate.float().cpu().clone() for name, gate in self._unclipped.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        parts = {"unclipped": self._unclipped, **{f"best-{k}": v for k, v in self._best.items()}}
        tensors = {f"{part}/{name}": t for part, kept in parts.items() for name, t in kept.items()}
        return {**tensors, "accuracy": self._best_accuracy, "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key, tensor in state.items():
            part, slash, name = key.partition("/")
            if not slash:
                continue
            if part == "unclipped":
                self._unclipped[name] = tensor.to(self.values[name].device)
            else:
                self._best.setdefault(part.removeprefix("best-"), {})[name] = tensor
        self._best_accuracy, self.history = state["accuracy"], list(state["history"])

    def finish(self) -> None:
        """Takes the gates off.

        Raises:
            TrainingError: the network is not what it was.
        """
        if self._gates is None:
            return
        kept = self._best or self._now()
        model = self._graph.model
        self._gates.drop()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(self._buffers[name])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._trained[name])
        if digest(model) != self._hash:
            raise TrainingError("the frozen network moved while its gates were learned; they are worth nothing")
        chosen = next((h["epoch"] for h in reversed(self.history) if "kept" in h), None)
        facts = {
            "fingerprint": self._mark,
            "frozen_sha256": self._hash,
            "place": self._place,
            "penalty": self.penalty,
            "target": self.target,
            "epochs": len(self.history),
            "chosen_epoch": chosen or len(self.history),
            "sparse_enough": chosen is not None,
            "history": self.history,
        }
        self.learned = LearnedGates(kept["value"], kept["unclipped"], facts)

    def told(self) -> str:
        """How it went, in one line."""
        facts, gates = self.learned.facts, torch.cat(list(self.learned.values.values()))
        shut, wide = int((gates == 0).sum()), int((gates == 1).sum())
        epoch = facts["chosen_epoch"]
        if facts["sparse_enough"]:
            why = f"those of epoch {epoch}, the best of the held-out data with at most {self.target:.0%} of them open"
        elif self._held is None:
            why = "those of the last epoch, because no data could be held out to choose by"
        else:
            why = f"those of the last epoch, because in none as few as {self.target:.0%} were open"
        return (
            f"{len(gates):,} gates after {facts['epochs']} epochs ({why}): {shut:,} exactly 0, {wide:,} exactly 1; "
            f"every other tensor is bit for bit what it was (sha256 {self._hash[:12]})"
        )


def digest(model: nn.Module) -> str:
    """SHA-256 of every parameter and buffer, by name."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
