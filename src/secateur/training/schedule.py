"""How long and how fast to train, as data; optimiser and schedule are PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from secateur._errors import UsageError

OPTIMISERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are the CIFAR protocol of Liu et al. 2019 (arXiv 1810.05270): 160 epochs of SGD,
    learning rate 0.1, times 0.1 at 50 % and 75 %.

    Args:
        epochs: 0 trains nothing.
        optimiser: ``sgd``, ``adam`` or ``adamw``.
        lr: the learning rate after warm-up.
        momentum, nesterov: SGD only.
        weight_decay: on all trained parameters.
        schedule: ``constant``, ``step`` or ``cosine`` (to zero at the end); it moves once an epoch.
        milestones: fractions of the run at which ``step`` multiplies by ``gamma``, so they rescale with ``epochs``;
            an epoch's number is rounded down.
        warmup_epochs: epochs of linear warm-up, beginning at lr / (warmup_epochs + 1).
        label_smoothing: of the default cross-entropy.
        batch_size: for whoever builds the loader; part of the run's identity.
        mixed_precision: ``no``, ``bf16`` or ``fp16`` (CUDA only).
        channels_last: memory format while training.
        compiled: on CUDA, forward and backward run as a recorded graph; on the CPU through ``torch.compile``, which
            takes a minute to begin with. Worth it for small networks and long runs.
        clip_grad_norm: largest norm of all gradients together; ``None`` does not clip.
        evaluate_every: epochs from one evaluation to the next; the last epoch is always evaluated.
        seed: Python's, NumPy's and PyTorch's generators start from it.

    Raises:
        UsageError: all that does not fit, at once.
    """

    epochs: int = 160
    optimiser: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    batch_size: int = 64
    mixed_precision: str = "no"
    channels_last: bool = False
    compiled: bool = False
    clip_grad_norm: float | None = None
    evaluate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        problems = list(self._problems())
        if problems:
            raise UsageError("\n".join(["this training configuration does not work:", *(f"- {p}" for p in problems)]))

    def _problems(self) -> Iterable[str]:
        for name, known in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES), ("mixed_precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known:
                yield f"{name}={value!r} is not known; choose from {', '.join(known)}"
        for name, least in (("epochs", 0), ("warmup_epochs", 0), ("batch_size", 1), ("evaluate_every", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                yield f"{name}={value!r} must be a whole number, {least} or more"
        for name, low, high in (
            ("lr", 0.0, math.inf),
            ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("gamma", 0.0, math.inf),
            ("label_smoothing", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not _within(value, low, high):
                yield f"{name}={value!r} must be a number, {low:g} or more" + (f", below {high:g}" if high == 1 else "")
        if _within(self.lr, 0.0, 0.0, closed=True):
            yield "lr=0 trains nothing; give a learning rate above 0, or epochs=0"
        if self.clip_grad_norm is not None and not (
            _within(self.clip_grad_norm, 0.0, math.inf) and self.clip_grad_norm
        ):
            yield f"clip_grad_norm={self.clip_grad_norm!r} must be above 0, or None"
        if self.nesterov and (self.optimiser != "sgd" or not self.momentum):
            yield "nesterov=True needs optimiser='sgd' and a momentum above 0"
        if not all(_within(m, 0.0, 1.0) and m > 0 for m in self.milestones):
            yield f"milestones={self.milestones!r} must be fractions of the run, between 0 and 1 (0.5, not epoch 80)"
        elif isinstance(self.epochs, int) and isinstance(self.warmup_epochs, int):
            if self.warmup_epochs and self.warmup_epochs >= self.epochs:
                yield f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}"
            elif self.schedule == "step" and any(m <= self.warmup_epochs for m in self.milestone_epochs):
                yield (
                    f"the first milestone, epoch {min(self.milestone_epochs)} of {self.epochs}, lies inside "
                    f"warmup_epochs={self.warmup_epochs}; shorten the warm-up or train longer"
                )

    @property
    def milestone_epochs(self) -> tuple[int, ...]:
        """The milestones in epochs; one that falls on epoch 0 of a very short run is left out."""
        return tuple(sorted(m for m in (int(f * self.epochs) for f in self.milestones) if m > 0))


def build_optimiser(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that the configuration names, one call for all weights instead of several for each.

    The parameters have to be where they will be trained.
    """
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def build_scheduler(config: TrainConfig, optimiser: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """The learning-rate schedule, to be stepped once after every epoch."""
    warmup, after = config.warmup_epochs, config.epochs - config.warmup_epochs
    # SequentialLR resets the optimiser to its initial rates for every part, so the parts are built in this order.
    ramp = lr_scheduler.LinearLR(optimiser, 1 / (warmup + 1), total_iters=warmup) if warmup else None
    if config.schedule == "step":
        main: Any = lr_scheduler.MultiStepLR(optimiser, [m - warmup for m in config.milestone_epochs], config.gamma)
    elif config.schedule == "cosine":
        main = lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(after, 1))
    else:
        main = lr_scheduler.ConstantLR(optimiser, factor=1.0, total_iters=0)
    return main if ramp is None else lr_scheduler.SequentialLR(optimiser, [ramp, main], milestones=[warmup])


def _within(value: object, low: float, high: float, *, closed: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return low <= value <= high if closed else low <= value < high
