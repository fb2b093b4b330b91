"""New random weights for a whole model, so that nothing of the old training is left."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from secateur._errors import UsageError

_SCALES = ("weight", "gamma", "scale", "g")


@torch.no_grad()
def reinitialise(model: nn.Module, seed: int, *, norm_scale: float = 1.0) -> tuple[str, ...]:
    """Draw every parameter anew, in place, and reset the statistics of norms; ``requires_grad`` does not matter.

    The rule, children before parents, so that a module with an initialisation of its own has the last word:

    1. a module with ``reset_parameters`` (or PyTorch's ``_reset_parameters``) is asked to do it; norms reset their
       running statistics there;
    2. convolutions then get He's normal initialisation by fan-out and zero biases, as in the papers (He 2015;
       Liu 2019), and batch norms the scale ``norm_scale`` (0.5 in Liu's VGG);
    3. a bare parameter that no module initialises (a class token, a table of positions, a layer scale): a truncated
       normal of standard deviation 0.02 where it has two or more axes longer than 1 or sits under a name that is
       neither bias nor scale; zeros for a bias; ones for a one-dimensional scale. What its author chose is not
       recorded in the model, so these names are returned, for the evidence.

    Other buffers (masks, index tables) are constants of the architecture and stay.

    Args:
        seed: of the generators of all devices that the model uses; their states are given back afterwards.
        norm_scale: what the scales of batch norms start from.

    Returns:
        The names that rule 3 decided.

    Raises:
        UsageError: weights behind a parametrisation or weight norm, whose originals cannot be drawn honestly.
            Nothing has been touched then.
    """
    _refuse_parametrised(model)
    floating = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    # A value that no initialiser would choose shows afterwards who was left out, whatever way was taken to write.
    for parameter in floating.values():
        parameter.fill_(torch.nan)
    devices = {p.device for p in floating.values() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        torch.manual_seed(seed)
        for module in reversed(list(model.modules())):
            _reset(module, norm_scale)
        left = [name for name, p in floating.items() if bool(p.isnan().any())]
        for name in left:
            _by_role(name.rpartition(".")[2], floating[name])
    return tuple(left)


def _reset(module: nn.Module, norm_scale: float) -> None:
    for own in ("reset_parameters", "_reset_parameters"):
        method = getattr(module, own, None)
        if callable(method):
            method()
            break
    if isinstance(module, _ConvNd):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
        nn.init.constant_(module.weight, norm_scale)


def _by_role(name: str, parameter: Tensor) -> None:
    long_axes = sum(size > 1 for size in parameter.shape)
    if long_axes < 2 and name.endswith("bias"):
        nn.init.zeros_(parameter)
    elif parameter.ndim <= 1 and any(name == s or name.endswith(f"_{s}") for s in _SCALES):
        nn.init.ones_(parameter)
    else:
        nn.init.trunc_normal_(parameter, std=0.02)


def _refuse_parametrised(model: nn.Module) -> None:
    found = [
        name or "the model itself"
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module) or {"weight_g", "weight_v"} <= set(module._parameters)
    ]
    if found:
        raise UsageError(
            f"new weights cannot be drawn behind a parametrisation: {', '.join(found)}\n"
            "remove it first (torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm)"
        )
