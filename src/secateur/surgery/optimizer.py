"""``rebuild_optimizer``: carry an optimiser's state through a cut."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur._errors import UsageError
from secateur.surgery.cut import shrunk
from secateur.surgery.plan import Plan
from secateur.surgery.pool import Pool


def rebuild_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, small: nn.Module, plan: Plan
) -> torch.optim.Optimizer:
    """An optimiser for the cut model that goes on where the dense model's stood.

    Momentum and other state of a parameter's shape is cut like the parameter; learning rates and other settings of
    every parameter group stay.

    Args:
        optimizer: optimises parameters of ``model``.
        model: the dense model.
        small: ``cut(model, plan)``.

    Raises:
        UsageError: the optimiser holds a parameter that is not of this model.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    new = dict(small.named_parameters())
    groups, state, pool = [], {}, Pool()
    for group in optimizer.param_groups:
        foreign = [p for p in group["params"] if id(p) not in names]
        if foreign:
            raise UsageError(f"the optimiser holds {len(foreign)} parameters that are not of this model")
        params = [new[names[id(p)]] for p in group["params"]]
        groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": params})
        for old, p in zip(group["params"], params):
            state[p] = {
                key: shrunk(names[id(old)], value, plan, pool)
                if isinstance(value, Tensor) and value.shape == old.shape
                else (value.clone() if isinstance(value, Tensor) else value)
                for key, value in optimizer.state.get(old, {}).items()
            }
    rebuilt = type(optimizer)(groups, **{k: v for k, v in optimizer.defaults.items() if k in ("lr",)})
    for p, values in state.items():
        if values:
            rebuilt.state[p] = values
    return rebuilt
