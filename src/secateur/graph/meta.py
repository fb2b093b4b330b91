"""Operations on the meta device, remembered.

Half of PyTorch's meta kernels are Python, some of them slow, and a network asks for the same shapes over and over. A
result on the meta device is nothing but its shape, stride and type, so it can be given again without running anything.
Errors are never remembered: a shape that does not fit is refused by PyTorch itself each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MetaMemory:
    """Runs operations, and skips those whose result on the meta device is known already."""

    def __init__(self) -> None:
        self._kinds: dict[Any, str] = {}
        self._known: dict[tuple, Any] = {}

    def __call__(self, func: Any, args: tuple, kwargs: dict) -> Any:
        kind = self._kinds.get(func)
        if kind is None:
            kind = self._kinds[func] = _kind(func)
        if kind == "other":
            return func(*args, **kwargs)
        try:
            key = (func, *map(_key, args), *((name, _key(value)) for name, value in kwargs.items()))
            found = self._known.get(key)
        except (LookupError, TypeError):
            return func(*args, **kwargs)
        if found is None:
            out = func(*args, **kwargs)
            results = out if isinstance(out, tuple) else (out,)
            if all(type(t) is Tensor and t.is_meta and not t.storage_offset() for t in results):
                shapes = [(tuple(t.shape), t.stride(), t.dtype) for t in results]
                self._known[key] = (isinstance(out, tuple), shapes) if kind == "fresh" else (False, [])
            return out
        if kind == "in place":
            return args[0]
        many, shapes = found
        new = [torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in shapes]
        return tuple(new) if many else new[0]


def _kind(func: Any) -> str:
    """``fresh``: all results are new tensors; ``in place``: the result is the first argument; ``other``: run it."""
    schema = func._schema
    if not schema.returns or any(str(r.type) != "Tensor" for r in schema.returns):
        return "other"
    if torch.Tag.inplace_view in func.tags:
        return "other"
    written = [k for k, slot in enumerate(schema.arguments) if slot.alias_info is not None]
    if not written and all(r.alias_info is None for r in schema.returns):
        return "fresh"
    first = schema.returns[0].alias_info
    if written == [0] and len(schema.returns) == 1 and first is not None and first.is_write:
        return "in place" if not schema.arguments[0].is_out else "other"
    return "other"


def _key(value: Any) -> Any:
    kind = type(value)
    if kind is Tensor or kind is nn.Parameter:
        if not value.is_meta:
            raise LookupError
        return (value.shape, value.stride(), value.dtype)
    if kind is list or kind is tuple:
        return tuple(map(_key, value))
    if isinstance(value, Tensor):
        raise LookupError
    return (kind, value)
