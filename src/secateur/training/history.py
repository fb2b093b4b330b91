"""What happened in each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: the learning rate it ran with, the mean loss that was minimised (regularisers included), the
    fraction of training items classified right (``None`` for other tasks), wall-clock seconds of training, and
    what evaluation found. Two records are equal when everything but the seconds is."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float | None
    seconds: float = field(compare=False)
    metrics: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """A flat dictionary for a log; the metrics follow under their own names."""
        own = {
            "epoch": self.epoch,
            "lr": self.lr,
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "seconds": self.seconds,
        }
        return own | self.metrics


@dataclass(frozen=True)
class History:
    """The epochs of one run, also those before it was resumed."""

    records: tuple[EpochRecord, ...] = ()

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    @property
    def last(self) -> EpochRecord | None:
        """The last epoch, whose figures count; ``None`` when nothing was trained."""
        return self.records[-1] if self.records else None
