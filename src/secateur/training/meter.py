"""Sums over the batches of an epoch that do not wait for the device at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Meter:
    """Collects losses and hits on the device and fetches them in windows.

    Args:
        window: batches between two transfers; 1 looks at every loss at once, which costs nothing on the CPU.
    """

    def __init__(self, window: int):
        self.window = window
        self.losses: list[float] = []
        self._items: list[int] = []
        self._pending: list[Tensor] = []
        self._correct: Tensor | None = None
        self._judged = 0

    def add(self, loss: Tensor, correct: Tensor | None, judged: int, items: int) -> None:
        """One batch: its mean loss, how many of its ``judged`` labels were hit (``None``: no labels), its size."""
        self._pending.append(loss.detach().float())
        self._items.append(items)
        if correct is not None:
            self._correct = correct if self._correct is None else self._correct + correct
            self._judged += judged

    @property
    def due(self) -> bool:
        """Whether a window is full."""
        return len(self._pending) >= self.window

    def fetch(self) -> int | None:
        """Bring the pending losses over; the number of the first batch (0-based) whose loss is not finite."""
        if not self._pending:
            return None
        start = len(self.losses)
        self.losses += torch.stack(self._pending).tolist()
        self._pending.clear()
        return next((i for i in range(start, len(self.losses)) if not math.isfinite(self.losses[i])), None)

    def sums(self, device: torch.device) -> Tensor:
        """Loss times items, items, hits, labels judged: to be added up over processes."""
        weighted = math.fsum(loss * n for loss, n in zip(self.losses, self._items, strict=True))
        hits = 0.0 if self._correct is None else float(self._correct.item())
        return torch.tensor([weighted, sum(self._items), hits, self._judged], dtype=torch.float64, device=device)
