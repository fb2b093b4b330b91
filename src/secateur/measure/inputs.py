"""Example inputs in the three forms that users write them: one tensor, a sequence, a mapping of keywords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Inputs: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]


def as_call(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one call."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, Sequence):
        return tuple(inputs), {}
    return (inputs,), {}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors inside nested tuples, lists and mappings (outputs of models too), in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


def in_own_containers(value: Any) -> Any:
    """The same tensors in lists and mappings of their own: some models write into the list that they are given."""
    if isinstance(value, tuple | list):
        parts = [in_own_containers(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: in_own_containers(part) for key, part in value.items()}
    return value


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU where it has neither."""
    first = next(model.parameters(), None)
    if first is None:
        first = next(model.buffers(), None)
    return torch.device("cpu") if first is None else first.device
