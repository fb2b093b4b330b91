"""Batch-norm statistics of a model whose weights changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur._errors import UsageError
from secateur.measure import evaluation_mode
from secateur.measure.inputs import device_of


def recalibrate(model: nn.Module, batches: Iterable[Any]) -> int:
    """Estimate all running means and variances anew: the plain average over the batches, each with equal weight.

    No weight moves. Only the batch norms are in training mode meanwhile, so dropout and the like stay off; every
    module gets its mode back, every batch norm its momentum. Pruning shifts the statistics of what is left; this
    costs some forward passes and no training.

    Args:
        batches: ``(x, y)`` pairs or bare ``x``; moved to the model's device. Labels are not used.

    Returns:
        The number of batches seen; 0 for a model without running statistics, which is left alone.

    Raises:
        UsageError: there are no batches. The statistics are then what they were, as after any other error.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return 0
    before = [(m, m.momentum, {k: b.clone() for k, b in m.named_buffers(recurse=False)}) for m in norms]
    device = device_of(model)
    seen = 0
    done = False
    try:
        with evaluation_mode(model), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # None is PyTorch's cumulative average
                norm.train()
            for batch in batches:
                x = batch[0] if isinstance(batch, tuple | list) else batch
                model(x.to(device))
                seen += 1
        if seen == 0:
            raise UsageError("batch norms cannot be recalibrated without data: there were no batches")
        done = True
    finally:
        for norm, momentum, buffers in before:
            norm.momentum = momentum
            if not done:
                norm.load_state_dict(buffers, strict=False)
    return seen
