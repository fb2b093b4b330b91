"""Sizes that modules remember as Python integers, and how they follow a cut.

The layers of ``torch.nn`` remember the sizes of their own parameters; those are read off the new parameters. Everything
else (a number of groups, of heads, a width written into a ``view``) is a :class:`Literal`: an attribute and its axis.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from secateur.graph.ledger import ParameterAxis

#: Attributes under which modules keep an object of settings.
SETTINGS = ("config", "cfg", "args", "hparams")


def slices(axes: Sequence[ParameterAxis], alive: np.ndarray) -> dict[str, dict[int, np.ndarray]]:
    """For every tensor that shrinks, the indices that stay on each shrinking axis."""
    found: dict[str, dict[int, np.ndarray]] = {}
    starts = np.array([axis.start for axis in axes], dtype=np.int64)
    living = np.flatnonzero(alive)
    first = np.searchsorted(living, starts).tolist()
    last = np.searchsorted(living, starts + [axis.size for axis in axes]).tolist()
    for axis, start, end in zip(axes, first, last):
        if end - start < axis.size:
            found.setdefault(axis.tensor, {})[axis.axis] = living[start:end] - axis.start
    return found


def write(module: nn.Module, attribute: str, value: int, index: int | None = None) -> None:
    """Set an integer attribute, or one entry of a tuple of integers; what the module does not have is left alone.

    ``config.num_heads`` is a field of an object of settings. The module gets a copy of its own first, because others
    may hold the same object.
    """
    holder, _, name = attribute.rpartition(".")
    if not holder:
        _set(module, attribute, value, index)
    elif hasattr(settings := getattr(module, holder, None), name):
        own = copy.copy(settings)
        _set(own, name, value, index)
        setattr(module, holder, own)


def _set(target: Any, attribute: str, value: int, index: int | None) -> None:
    current = getattr(target, attribute, None)
    if current is None:
        return
    if index is None:
        if isinstance(current, int):
            setattr(target, attribute, value)
    elif isinstance(current, (tuple, list)):
        entries = list(current)
        entries[index] = value
        setattr(target, attribute, type(current)(entries))


def read(module: nn.Module, old: int) -> list[tuple[str, int | None]]:
    """Every integer attribute, or entry of a tuple attribute, that equals ``old``; then the fields of settings."""
    found = _equal(module, old)
    for holder in SETTINGS:
        settings = vars(module).get(holder)
        if hasattr(settings, "__dict__") and not isinstance(settings, (nn.Module, type)):
            found += [(f"{holder}.{name}", index) for name, index in _equal(settings, old)]
    return found


def _equal(target: Any, old: int) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    for name, value in vars(target).items():
        if isinstance(value, int) and not isinstance(value, bool) and value == old:
            found.append((name, None))
        elif isinstance(value, (tuple, list)) and not name.startswith("_"):
            found += [
                (name, i) for i, v in enumerate(value) if isinstance(v, int) and not isinstance(v, bool) and v == old
            ]
    return found


def follow_parameters(modules: Iterable[tuple[str, nn.Module]], changed: Mapping[str, Any] | Iterable[str]) -> None:
    """Bring the size attributes of ``torch.nn`` layers in line with the parameters they now hold.

    Args:
        modules: of the model, with their paths.
        changed: names of the parameters that have another shape.
    """
    changed_in = {name.rpartition(".")[0] for name in changed}
    for module in [module for path, module in modules if path in changed_in]:
        if isinstance(module, nn.Linear):
            # Plain numbers can be set past the checks of ``setattr``, which take longer than all else here.
            vars(module).update(zip(("out_features", "in_features"), module.weight.shape))
        elif isinstance(module, _ConvTransposeNd):
            module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        elif isinstance(module, _ConvNd):
            module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        elif isinstance(module, _NormBase):
            vector = module.weight if module.weight is not None else module.running_mean
            if vector is not None:
                module.num_features = len(vector)
        elif isinstance(module, nn.GroupNorm) and module.weight is not None:
            module.num_channels = len(module.weight)
        elif isinstance(module, nn.Bilinear):
            module.out_features, module.in1_features, module.in2_features = module.weight.shape
        elif isinstance(module, nn.Embedding):
            module.num_embeddings, module.embedding_dim = module.weight.shape
        elif isinstance(module, nn.RNNBase):
            first: Any = module.weight_ih_l0
            rows, module.input_size = first.shape
            module.hidden_size = rows // {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
            if module.proj_size:
                projection: Any = module.weight_hr_l0
                module.proj_size = len(projection)
        elif isinstance(module, nn.PReLU):
            module.num_parameters = module.weight.numel()
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            module.embed_dim = module.kdim = module.vdim = module.in_proj_weight.shape[1]
