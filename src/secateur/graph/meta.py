"""Operations without their numbers: on the meta device, remembered, and with constants that stay real.

Parameters and what is computed from them live on the meta device: shape, stride and type, nothing else. Half of
PyTorch's meta kernels are slow Python, and a network asks for the same shapes over and over, so plain operations are
answered by ``shapes.py`` and the rest is remembered. Errors never are: a shape that does not fit is refused by PyTorch
itself each time.

Tensors that depend on no parameter and no floating-point input (positions, masks, indices, numbers) are computed for
real, on the processor, even where the code asks for the device of an activation. So code that looks at a mask before
it decides runs, and a network of any size can be traced without one number of it in memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from secateur.graph.shapes import SHAPES
from secateur.graph.trees import map_tensors, tensors

#: Marks tensors of one element that a pass over real tensors made.
MADE = "_secateur_made"
_META = torch.device("meta")
_CPU = torch.device("cpu")
_CONVOLUTION = torch.ops.aten.convolution.default


class MetaMemory:
    """Runs operations on meta tensors (remembered), on real ones, and on mixtures of them."""

    def __init__(self, on_meta: bool) -> None:
        self.on_meta = on_meta
        self._fused = torch._C._get_mkldnn_enabled()
        self._known: dict[tuple, Any] = {}
        # Storages of real tensors into which meta tensors were written: their numbers mean nothing any more. A
        # weak reference keeps others from their addresses.
        self._unreal: dict[int, StorageWeakRef] = {}

    def __call__(self, func: Any, args: tuple, kwargs: dict, flat: list[Tensor]) -> Any:
        """The results of an operation; ``flat`` holds its tensors."""
        if not self.on_meta:
            return self._on_values(func, args, kwargs)
        for t in flat:
            if not t.is_meta:
                return self._mixed(func, args, kwargs, flat)
        if not flat and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": _CPU})
        return self._on_meta(func, args, kwargs)

    def _on_values(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if func is not _CONVOLUTION or not self._fused:
            return func(*args, **kwargs)
        # A pass asks for plain kernels, because fused ones hide what a recurrent layer does. What a convolution is has
        # been said by now, and the fused kernel takes a third of the time.
        torch._C._set_mkldnn_enabled(True)
        try:
            return func(*args, **kwargs)
        finally:
            torch._C._set_mkldnn_enabled(False)

    def mark(self, made: list[Tensor]) -> None:
        """In a pass over real tensors: these are no constants of the code."""
        if not self.on_meta:
            for t in made:
                if t.numel() == 1:
                    setattr(t, MADE, True)

    def _mixed(self, func: Any, args: tuple, kwargs: dict, flat: list[Tensor]) -> Any:
        meta = any(t.is_meta for t in flat)
        if not meta and not any(self._is_unreal(t) for t in flat):
            device = kwargs.get("device")
            if device is not None and torch.device(device).type == "meta":
                kwargs = {**kwargs, "device": _CPU}
            return func(*args, **kwargs)
        _, shape, name = _kind_of(func)
        if shape is not None and not name.endswith("_") and (out := shape(name, args, kwargs)) is not None:
            return out
        moved: dict[int, Tensor] = {}

        def to_meta(t: Tensor) -> Tensor:
            if t.is_meta:
                return t
            if id(t) not in moved:
                moved[id(t)] = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=_META)
            return moved[id(t)]

        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _META}
        out = func(*map_tensors(args, to_meta), **map_tensors(kwargs, to_meta))
        back = {id(new): old for old in flat if (new := moved.get(id(old))) is not None}
        written = [back[id(t)] for t in tensors(out) if id(t) in back]
        for t in written:
            storage = t.untyped_storage()
            self._unreal[storage._cdata] = StorageWeakRef(storage)
        return map_tensors(out, lambda t: back.get(id(t), t)) if written else out

    def _is_unreal(self, t: Tensor) -> bool:
        return bool(self._unreal) and t.untyped_storage()._cdata in self._unreal

    def _on_meta(self, func: Any, args: tuple, kwargs: dict) -> Any:
        kind, shape, name = _kind_of(func)
        if shape is not None and (out := shape(name, args, kwargs)) is not None:
            return out
        if kind == "other":
            return func(*args, **kwargs)
        try:
            key = (func, *map(_key, args), *((name, _key(value)) for name, value in kwargs.items()))
            known = self._known.get(key)
        except (LookupError, TypeError):
            return func(*args, **kwargs)
        if known is None:
            out = func(*args, **kwargs)
            results = out if isinstance(out, tuple) else (out,)
            if all(type(t) is Tensor and t.is_meta and not t.storage_offset() for t in results):
                shapes = [(tuple(t.shape), t.stride(), t.dtype) for t in results]
                self._known[key] = (isinstance(out, tuple), shapes) if kind == "fresh" else (False, [])
            return out
        if kind == "in place":
            return args[0]
        many, shapes = known
        new = [torch.empty_strided(shape, stride, dtype=dtype, device=_META) for shape, stride, dtype in shapes]
        return tuple(new) if many else new[0]


@cache
def _kind_of(func: Any) -> tuple[str, Any, str]:
    """What kind of operation it is, what knows its shapes, and its name."""
    name = func.overloadpacket.__name__
    return _kind(func), SHAPES.get(name), name


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
        return (value.shape, value.stride(), value.dtype)
    if kind is list or kind is tuple:
        return tuple(map(_key, value))
    if isinstance(value, Tensor):
        raise LookupError
    return (kind, value)
