"""Accuracy and loss of a classifier over all items of a loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur._errors import DataError
from secateur.measure.inputs import device_of
from secateur.measure.modes import evaluation_mode


def accuracy(model: nn.Module, batches: Iterable[Any], device: torch.device | str | None = None) -> float:
    """The fraction of items whose largest logit is the label's; a short last batch counts by its items.

    Args:
        model: maps (batch, ...) to logits (batch, classes, ...).
        batches: ``(x, y)`` pairs, y int64 class indices.
        device: where to run; by default where the model is. The model is not moved.

    Raises:
        DataError: there are no items.
    """
    return evaluate(model, batches, device)["accuracy"]


def evaluate(model: nn.Module, loader: Iterable[Any], device: torch.device | str | None = None) -> dict[str, float]:
    """``{"accuracy", "loss"}``: fraction correct and mean cross-entropy in nats, both over all items.

    Evaluation mode and inference mode inside; every submodule gets its own mode back.

    Raises:
        DataError: there are no items.
    """
    target = device_of(model) if device is None else torch.device(device)
    # Sums stay on the device: one transfer at the end instead of one a batch.
    loss = torch.zeros((), dtype=torch.float32 if target.type == "mps" else torch.float64, device=target)
    correct = torch.zeros((), dtype=torch.int64, device=target)
    items = 0
    with evaluation_mode(model), torch.inference_mode():
        for x, y in loader:
            y = y.to(target, non_blocking=True)
            x = x.to(target, non_blocking=True)
            if x.dim() == 4:
                # Channels last is up to twice as fast for convolutions on a CPU, and other layers do not mind.
                x = x.contiguous(memory_format=torch.channels_last)
            out = model(x)
            # Models of transformers give their logits by name.
            logits: Tensor = getattr(out, "logits", out)
            loss += F.cross_entropy(logits.float(), y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
            items += y.numel()
    if items == 0:
        raise DataError("there is nothing to evaluate on: the loader gave no batches")
    return {"accuracy": correct.item() / items, "loss": loss.item() / items}
