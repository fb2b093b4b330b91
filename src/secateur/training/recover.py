"""What follows the cut, as data: fine-tune, train from scratch for as many epochs or for as much compute, or nothing.

The rules are those of Liu et al., Rethinking the Value of Network Pruning, ICLR 2019 (arXiv 1810.05270).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from secateur._errors import UnknownName, UsageError
from secateur.training.schedule import TrainConfig

RECOVERIES = {
    "finetune": "keep the weights, train on: 40 epochs at a constant learning rate of 0.001",
    "scratch-e": "new weights, as many epochs as the dense model had",
    "scratch-b": "new weights, as much compute as the dense model had: epochs times dense MACs over pruned MACs",
    "retrain": "keep the weights, train on as the dense model was trained: what a lottery ticket asks for",
    "none": "leave the model as it was cut",
}
FINETUNE_EPOCHS = 40
FINETUNE_LR = 1e-3
IMAGENET_CAP = 2.0


@dataclass(frozen=True)
class RecoveryPlan:
    """How to train after the cut (``config.epochs`` is 0 for none), and whether to draw new weights first."""

    config: TrainConfig
    reinitialise: bool


def recovery(
    name: str,
    base_config: TrainConfig,
    macs_dense: int,
    macs_pruned: int,
    epochs: int | None = None,
    cap: float | None = None,
) -> RecoveryPlan:
    """The training that a recovery asks for.

    Args:
        name: one of :data:`RECOVERIES`.
        base_config: how the dense model was trained. Milestones are fractions, so they rescale with the epochs.
        macs_dense, macs_pruned: multiply-accumulates, both by the same counter.
        epochs: for ``finetune`` its length (default 40). For the scratch recoveries the epochs of the *dense* run,
            in place of ``base_config.epochs``; ``scratch-b`` scales them.
        cap: at most this many times the dense epochs for ``scratch-b`` (:data:`IMAGENET_CAP`, 2, in the paper's
            ImageNet runs; none on CIFAR).

    Raises:
        UnknownName: there is no such recovery.
        UsageError: numbers out of range.
    """
    if name not in RECOVERIES:
        raise UnknownName("recovery", name, RECOVERIES)
    problems = []
    if macs_dense < 1 or macs_pruned < 1:
        problems.append(f"MACs must be positive, got {macs_dense} dense and {macs_pruned} pruned")
    if epochs is not None and epochs < 1:
        problems.append(f"epochs={epochs} must be 1 or more (for no training, ask for the recovery 'none')")
    if cap is not None and cap < 1:
        problems.append(f"cap={cap} must be 1 or more: it is a multiple of the dense epochs")
    if problems:
        raise UsageError("\n".join(problems))
    if name == "none":
        # The schedule of a run without epochs means nothing; a warm-up would not even fit into it.
        config = dataclasses.replace(base_config, epochs=0, schedule="constant", warmup_epochs=0)
        return RecoveryPlan(config, reinitialise=False)
    if name == "finetune":
        config = dataclasses.replace(
            base_config,
            epochs=FINETUNE_EPOCHS if epochs is None else epochs,
            lr=FINETUNE_LR,
            schedule="constant",
            warmup_epochs=0,
        )
        return RecoveryPlan(config, reinitialise=False)
    if name == "retrain":
        again = base_config if epochs is None else dataclasses.replace(base_config, epochs=epochs)
        return RecoveryPlan(again, reinitialise=False)
    total = base_config.epochs if epochs is None else epochs
    if name == "scratch-b":
        # Whole numbers all the way: a float ratio could fall just below the integer that floor should give.
        scaled = total * macs_dense // macs_pruned
        total = scaled if cap is None else min(scaled, math.floor(total * cap))
    return RecoveryPlan(dataclasses.replace(base_config, epochs=total), reinitialise=True)
